"""Runs inside the service, with all that its unit takes away, and prints what it still can do.

A script of its own: it runs under the Python of a clean Debian, without the tests.
"""

import json
import mmap
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial

SKIPPED = ("/proc", "/sys", "/dev/fd", "/dev/net/tun")
"""What `writable` leaves out: no files, but the kernel's views and what `devices` looks at."""


def said(work: Callable[[], object]) -> str:
    """The name of the error that `work` ends with, or ``done``."""
    try:
        work()
    except OSError as error:
        return type(error).__name__
    return "done"


def readable(path: str) -> str:
    """What becomes of reading a file."""

    def read() -> None:
        with open(path, "rb") as file:
            file.read(1)

    return said(read)


def status() -> dict[str, str]:
    """The fields of proc_pid_status(5) about privileges."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    return {name: fields[name] for name in names}


def writable(top: str = "/") -> Iterator[str]:
    """Files and directories that may be written, but for what holds no data."""
    for entry in os.scandir(top):
        if entry.path in SKIPPED or entry.is_symlink():
            continue
        if entry.is_dir():
            if os.access(entry.path, os.W_OK):
                yield entry.path
            if os.access(entry.path, os.R_OK | os.X_OK):
                yield from writable(entry.path)
        elif entry.is_file() and os.access(entry.path, os.W_OK):
            yield entry.path


def sockets() -> dict[str, str]:
    """What becomes of opening sockets that look at, or forge, what others send."""
    kinds = {
        "raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "raw6": (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
        "vsock": (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
        "udp": (socket.AF_INET6, socket.SOCK_DGRAM, 0),
    }
    return {name: said(partial(socket.socket, *kind)) for name, kind in kinds.items()}


def succeeds(*command: str) -> bool:
    """Whether a command does."""
    return subprocess.run(command, capture_output=True).returncode == 0


def main() -> None:
    """One line of JSON."""
    files = ("/etc/shadow", "/etc/glorytun/tun0.key", "/home/user/letter", "/srv/secret")
    found = {
        "status": status(),
        "read": {path: readable(path) for path in files},
        "writable": sorted(writable()),
        "sockets": sockets(),
        "processes": [pid for pid in os.listdir("/proc") if pid.isdigit() and owner(pid)],
        "devices": sorted(devices()),
        "unshare": succeeds("unshare", "--net", "true"),
        "mount": succeeds("mount", "-t", "tmpfs", "tmpfs", "/tmp"),
        "write and execute": said(lambda: mmap.mmap(-1, 4096, prot=7)),
        "hostname": said(lambda: socket.sethostname("other")),
    }
    print(json.dumps(found), flush=True)


def owner(pid: str) -> bool:
    """Whether a process is another user's."""
    return os.stat(f"/proc/{pid}").st_uid != os.getuid()


def devices() -> Iterator[str]:
    """Devices that may be opened for writing."""
    for directory, _, names in os.walk("/dev"):
        for path in (os.path.join(directory, name) for name in names):
            if not os.path.islink(path) and said(partial(use, path)) == "done":
                yield path


def use(device: str) -> None:
    """Open a device for writing, and close it."""
    os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))


if __name__ == "__main__":
    main()
