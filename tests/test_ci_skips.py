"""What `tests/ci_skips.py` makes of a run, seen in runs of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(directory: Path, body: str) -> subprocess.CompletedProcess[str]:
    """A run under CI of one test with this body."""
    (directory / "test_it.py").write_text(f"import pytest\n\n\ndef test_it():\n    {body}\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.ci_skips", "-c", "/dev/null", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_a_skip_fails_the_run(tmp_path: Path) -> None:
    result = run(tmp_path, "pytest.skip('no such kernel')")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_it: no such kernel" in result.stdout


@pytest.mark.parametrize(
    "body", ["pass", "pytest.skip('GLORYTUN_PEER is not set: …')", "pytest.xfail('known')"]
)
def test_what_is_declared_or_did_run_passes(tmp_path: Path, body: str) -> None:
    assert run(tmp_path, body).returncode == pytest.ExitCode.OK
