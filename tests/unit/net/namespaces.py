"""Network namespaces for the tests of single sockets and devices in tests/netns/test_net_*."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from select import select
from typing import Protocol

import pytest

MARKS = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces"),
]
"""What a module of such tests has as its `pytestmark`."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_serial = count()


class Readable(Protocol):
    """What can be waited for."""

    def fileno(self) -> int: ...


class Namespace:
    """One network namespace with `lo` up."""

    def __init__(self) -> None:
        self.name = f"gtnet-{os.getpid()}-{next(_serial)}"
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def run(self, *command: str) -> str:
        """What a command in the namespace prints; fails when it fails."""
        return run("ip", "netns", "exec", self.name, *command)

    def ip(self, *arguments: str) -> str:
        """Run ip(8)."""
        return run("ip", "-n", self.name, *arguments)

    def links(self) -> list[str]:
        """The names of its devices."""
        lines = self.ip("-brief", "link").splitlines()
        return [line.split()[0].partition("@")[0] for line in lines]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens meanwhile belongs to the namespace."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as away:
            _enter(away.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def delete(self) -> None:
        """Remove it and all that is in it."""
        run("ip", "netns", "delete", self.name)


@contextmanager
def namespaces(number: int) -> Iterator[list[Namespace]]:
    """Some namespaces that are gone afterwards."""
    made: list[Namespace] = []
    try:
        for _ in range(number):
            made.append(Namespace())
        yield made
    finally:
        for namespace in made:
            namespace.delete()


def join(left: Namespace, right: Namespace, *, name: str = "veth0", mtu: int = 1500) -> None:
    """A veth pair of one name at both ends, up."""
    end = ["netns", right.name, "mtu", str(mtu)]
    left.ip("link", "add", name, "mtu", str(mtu), "type", "veth", "peer", "name", name, *end)
    for namespace in (left, right):
        namespace.ip("link", "set", name, "up")


def run(*command: str) -> str:
    """What a command prints; fails, with what it says, when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def python(code: str) -> list[str]:
    """A command that prints the GlorytunError that code raises; to be run with less privileges."""
    lines = [
        "import os, sys",
        "from glorytun.errors import GlorytunError",
        "from glorytun.net import links",
        "from glorytun.net.tun import Tun",
        "from glorytun.net.udp import UdpSocket",
        "try:",
        f"    {code}",
        "except GlorytunError as error:",
        "    print(error)",
    ]
    return [sys.executable, "-c", "\n".join(lines)]


def wait(readable: Readable, seconds: float = 5) -> None:
    """Until something can be read."""
    assert select([readable], [], [], seconds)[0], "nothing came in time"


def _enter(descriptor: int) -> None:
    # os.setns() is in Python from 3.12 on.
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
