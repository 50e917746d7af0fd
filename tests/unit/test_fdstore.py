"""Descriptors that systemd keeps from one process to the next."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glorytun.fdstore import DescriptorStore


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def heard(listening: socket.socket) -> tuple[list[str], list[int]]:
    """The lines of the next message, and the descriptors that came with it."""
    data, descriptors, _, _ = socket.recv_fds(listening, 4096, 4)
    return sorted(data.decode().splitlines()), descriptors


class Pipe:
    """One end of it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def fileno(self) -> int:
        return self.descriptor


def never(_: int) -> Pipe:
    raise AssertionError("there is nothing to adopt")


def test_what_is_new_is_kept(systemd: socket.socket) -> None:
    """Under its name, as the same open file."""
    ends = os.pipe()
    found = DescriptorStore().reuse("tun", adopt=never, make=lambda: Pipe(ends[0]))
    assert found.fileno() == ends[0]
    lines, (copy,) = heard(systemd)
    assert lines == ["FDNAME=tun", "FDSTORE=1"]
    assert os.path.sameopenfile(copy, ends[0])
    for descriptor in (*ends, copy):
        os.close(descriptor)


def test_without_systemd_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with open(os.devnull) as file:
        assert DescriptorStore().reuse("tun", adopt=never, make=lambda: file) is file


# Descriptors from 3 on belong to whoever runs the tests, so that another process has to stand for
# the service. It gets three of them: two files of one name, and one of another name.
_SERVICE = """
import os, sys
from glorytun.fdstore import DescriptorStore

os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
store = DescriptorStore()
assert "LISTEN_FDS" not in os.environ
adopted = store.reuse(
    "udp",
    adopt=lambda fd: os.fdopen(fd) if sys.argv[2] == "fits" else None,
    make=lambda: open(os.devnull),
)
print(os.readlink(f"/proc/self/fd/{adopted.fileno()}"), os.get_inheritable(adopted.fileno()))
store.close()
left = {os.readlink(f"/proc/self/fd/{fd}") for fd in map(int, os.listdir("/proc/self/fd")) if
        os.path.exists(f"/proc/self/fd/{fd}")}
print(*sorted(os.path.basename(name) for name in left if "file-" in name))
"""


def service(tmp_path: Path, *words: str) -> list[str]:
    """What such a service says."""
    files = [tmp_path / f"file-{number}" for number in range(3)]
    for file in files:
        file.touch()
    script = 'exec "$@" 3<"$F0" 4<"$F1" 5<"$F2"'
    environment = {
        **os.environ,
        **{f"F{number}": str(file) for number, file in enumerate(files)},
        "LISTEN_FDS": "3",
        "LISTEN_FDNAMES": "udp:udp:other",
    }
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-c", _SERVICE, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_the_last_process_left_is_adopted(systemd: socket.socket, tmp_path: Path) -> None:
    """Each name once; the rest is closed, here and by systemd."""
    adopted, left = service(tmp_path, "0", "fits")
    assert adopted == f"{tmp_path}/file-0 False"
    assert left == "file-0"
    lines, descriptors = heard(systemd)
    assert lines == ["FDNAME=udp", "FDSTORE=1"]
    os.close(descriptors[0])
    assert heard(systemd)[0] == ["FDNAME=other", "FDSTOREREMOVE=1"]


def test_what_does_not_fit_is_dropped(systemd: socket.socket, tmp_path: Path) -> None:
    """Before another one is kept under its name."""
    adopted, left = service(tmp_path, "0", "misfit")
    assert adopted == "/dev/null False"
    assert left == ""
    assert heard(systemd)[0] == ["FDNAME=udp", "FDSTOREREMOVE=1"]
    lines, descriptors = heard(systemd)
    assert lines == ["FDNAME=udp", "FDSTORE=1"]
    os.close(descriptors[0])


def test_what_is_meant_for_another_process_is_left_alone(
    systemd: socket.socket, tmp_path: Path
) -> None:
    """LISTEN_PID is somebody else's."""
    adopted, left = service(tmp_path, "1", "fits")
    assert adopted == "/dev/null False"
    assert left == "file-0 file-1 file-2"
