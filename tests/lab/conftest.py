"""Fixtures of the tests in booted systems, and what these need to run.

They run in a clean Debian 12 and 13 each. LAB_SUITE names others, for development:
``LAB_SUITE=host`` is the host's own system, ``LAB_SUITE=trixie`` Debian 13 alone. They test the
source tree, or with ``LAB_INSTALL=package``, as `make test` has it, the installed Debian package.
"""

import functools
import itertools
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.lab.install import HOST, SUITES, System, unusable_host
from tests.lab.node import nodes
from tests.lab.tunnel import Pair, booted, up

_HERE = Path(__file__).parent
_IMPATIENT = ("test_restart.py",)
LONGEST = 90
"""Seconds that a test may take."""
_TOOLS = ("systemd-nspawn", "systemd-sysusers", "mmdebstrap", "unshare", "nsenter", "setpriv", "ip")


@functools.cache
def missing() -> str:
    """Why no system can be booted here, or an empty string."""
    if os.geteuid():
        return "not root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun"
    return next((f"no command {tool}" for tool in _TOOLS if not shutil.which(tool)), "")


def suites() -> list[str]:
    """What to boot."""
    return os.environ.get("LAB_SUITE", " ".join(SUITES)).split()


def clean_suites() -> list[str]:
    """Where a package is installed: the host's own system is none to do that in."""
    return [suite for suite in suites() if suite != HOST]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this directory, and skip it, with the reason, where it can't run."""
    for item in items:
        if _HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.lab)
        _schedule(item)
        # Without its fixtures: the first one may have to download and unpack a system, and each
        # step of that has its own limit.
        item.add_marker(pytest.mark.timeout(LONGEST, func_only=True))
        if missing():
            item.add_marker(pytest.mark.skip(reason=f"booted systems: {missing()}"))


def _schedule(item: pytest.Item) -> None:
    """Let those that measure pauses have the machine to themselves; the others share it."""
    if item.path.name in _IMPATIENT:
        item.add_marker(pytest.mark.timing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the journals to the report of a failed test."""
    report = yield
    if report.failed:
        for end in itertools.chain.from_iterable(pair.ends for pair in up):
            report.sections.append((f"journal of the {end.role}", end.log()))
    return report


@pytest.fixture(scope="session", params=suites())
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """A system to boot."""
    for node in nodes():
        if not node.alive:
            node.down()
    suite = str(request.param)
    if suite == HOST and unusable_host():
        pytest.skip(unusable_host())
    packaged = suite != HOST and os.environ.get("LAB_INSTALL") == "package"
    system = System(suite, packaged)
    system.prepare()
    yield system
    system.remove()


@pytest.fixture
def pair(system: System) -> Iterator[Pair]:
    """Two systems with two WANs; everything is in place and the tunnel not started."""
    with booted(system) as pair:
        yield pair


@pytest.fixture
def tunnel(pair: Pair) -> Pair:
    """The same with both paths running."""
    pair.start()
    return pair
