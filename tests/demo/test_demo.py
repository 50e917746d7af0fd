"""The demonstration as a user runs it, without a terminal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.netns.conftest import missing
from tests.netns.wait import wait_for

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timing,
    pytest.mark.skipif(bool(missing()), reason=f"network namespaces: {missing()}"),
]

ROOT = Path(__file__).parents[2]
MOST_SECONDS = 60


def start(directory: Path) -> subprocess.Popen[str]:
    """The demonstration, with its temporary files in `directory`, as fast as users see it."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo"],
        cwd=ROOT,
        env={**env, "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def namespaces(pid: int) -> list[str]:
    """Names of the namespaces that a demonstration has made."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.startswith(f"gt-{pid}-")]


def processes(session: int) -> list[str]:
    """Command lines of what runs in a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def assert_nothing_left(demo: subprocess.Popen[str], directory: Path) -> None:
    """No namespace, process or file of it."""
    assert namespaces(demo.pid) == []
    assert processes(demo.pid) == []
    assert list(directory.iterdir()) == []


def test_it_shows_the_cut_and_the_return_and_leaves_nothing(tmp_path: Path) -> None:
    started = time.monotonic()
    with start(tmp_path) as demo:
        said, _ = demo.communicate(timeout=MOST_SECONDS)
    assert demo.returncode == 0, said
    assert time.monotonic() - started < MOST_SECONDS
    for words in ("was cut", "was mended", "in use again within", "the transfer is complete"):
        assert words in said
    assert_nothing_left(demo, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["are made", "downloads"])
def test_interrupted_it_leaves_nothing(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    """At the start, where a keyboard's signal reaches its commands too, and in the middle."""
    with start(tmp_path) as demo:
        assert demo.stdout
        for line in demo.stdout:
            if moment in line:
                break
        os.killpg(demo.pid, number)
        said, _ = demo.communicate(timeout=10)
    assert demo.returncode == 130, said
    wait_for(lambda: not processes(demo.pid), timeout=2, what="the end of its processes")
    assert_nothing_left(demo, tmp_path)
