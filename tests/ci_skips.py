"""A pytest plugin for CI: a test that was skipped fails the run.

Except for the reasons declared here: what the machine can't offer. Loaded with `-p tests.ci_skips`.
"""

from collections.abc import Iterator

import pytest

ALLOWED = (
    # A third party's binary that not every machine has.
    "GLORYTUN_PEER is not set",
    # Linux 6.3; what it shows is the same on every machine that can.
    "the kernel has no PR_SET_MDWE",
    "no AES in this processor",
)
"""What the reason of a skip may start with."""


class Skips:
    """Collects the skips of one run."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Keep a skipped report whose reason is not allowed."""
        # An expected failure is reported as a skip too, but the test did run.
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(ALLOWED):
            self.refused.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.refused:
            terminalreporter.section("skipped, though CI must run every test", red=True)
            for line in self.refused:
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Hook of pytest."""
    config.pluginmanager.register(Skips())
