"""Links like those of providers, between the hosts of a test: slow, late, lossy, changing.

The same two hosts and addresses as `direct` in tests/netns/topology.py, with a third namespace in
the middle, whose emulator carries the frames of all links (tests/emulator):

    ┌──────────────────┐        ┌──────────────────────┐        ┌──────────────────┐
    │ client           │        │ wan                  │        │ server           │
    │ link1 10.9.1.1   ├────────┤ c1 ═ emulator ═ s1   ├────────┤ link1 10.9.1.2   │
    │ link2 10.9.2.1   ├────────┤ c2 ═ emulator ═ s2   ├────────┤ link2 10.9.2.2   │
    └──────────────────┘        └──────────────────────┘        └──────────────────┘

    with Lab() as lab, Wan(lab, Profile(rate=20, delay=10), Profile(rate=5)) as wan:
        wan.links[0].change(rate=10)        # both directions
        wan.links[1].change(UP, cut=True)   # from the client to the server
        wan.links[1].counters(UP).cut
"""

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack

from tests.emulator.model import Counters, Profile
from tests.netns.topology import (
    CLIENT,
    SERVER,
    Host,
    Lab,
    Link,
    Topology,
    address,
    route_by_source,
)
from tests.netns.wait import wait_for

Direction = Literal[0, 1]
UP: Direction = 0
"""From the client to the server."""
DOWN: Direction = 1
DIRECTIONS: tuple[Direction, Direction] = (UP, DOWN)

_ROOT = Path(__file__).resolve().parents[1]
_SIOCETHTOOL = 0x8946
_OFFLOADS = {"rx checksum": 0x15, "tx checksum": 0x17, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
"""Commands of ethtool's that set a flag (linux/ethtool.h)."""


class Change(TypedDict, total=False):
    """Fields of `Profile`."""

    rate: float
    queue: float
    queue_bytes: int
    delay: float
    jitter: float
    loss: float
    burst_loss: float
    burst: float
    reorder: float
    reorder_by: float
    duplicate: float
    mtu: int
    icmp: bool
    cut: bool


class EmulatedLink:
    """One link. Changes take effect before `change` returns."""

    def __init__(self, wan: "Wan", index: int) -> None:
        self._wan = wan
        self._index = index

    @property
    def number(self) -> int:
        """Of its addresses: see `address` in topology.py."""
        return self._index + 1

    def change(self, direction: Direction | None = None, **change: Unpack[Change]) -> None:
        """Change one direction, or both."""
        for one in DIRECTIONS if direction is None else (direction,):
            self._change(one, dict(change))

    def become(self, profile: Profile) -> None:
        """Be like this in both directions."""
        for one in DIRECTIONS:
            self._change(one, asdict(profile))

    def _change(self, direction: Direction, change: dict[str, Any]) -> None:
        self._wan.command({"link": self._index, "direction": direction, "change": change})

    def counters(self, direction: Direction) -> Counters:
        """What became of the frames so far."""
        return self._wan.counters()[self._index][direction]


class Wan:
    """Hosts, links and the emulator; ends with its context, the hosts with their `Lab`."""

    def __init__(self, lab: Lab, *profiles: Profile, seed: int = 1) -> None:
        """A link for each profile, which holds for both directions."""
        client, server, middle = (lab.host(name) for name in ("client", "server", "wan"))
        self.topology = Topology(client=client, server=server, links=(), server_link=1)
        self.links = [EmulatedLink(self, index) for index in range(len(profiles))]
        self._profiles = profiles
        self._directory = tempfile.TemporaryDirectory(prefix="gt-wan-")
        self._log = Path(self._directory.name, "log")
        pairs = []
        for number in range(1, len(profiles) + 1):
            join(middle, f"c{number}", client, number, CLIENT)
            join(middle, f"s{number}", server, number, SERVER)
            pairs.append(f"c{number}:s{number}")
        route_by_source(client, len(profiles))
        path = Path(self._directory.name, "control")
        program = (sys.executable, "-m", "tests.emulator.process", str(path), str(seed))
        env = {**os.environ, "PYTHONPATH": str(_ROOT)}
        self._process = middle.popen(*program, *pairs, log=self._log, env=env)
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(5)
        self._lock = threading.Lock()
        wait_for(lambda: self._connects(path), timeout=10, what="the emulator to start")
        self._answers = self._connection.makefile("rb")

    def __enter__(self) -> Self:
        for link, profile in zip(self.links, self._profiles, strict=True):
            link.become(profile)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.shutdown(socket.SHUT_WR)
        said = self._log.read_text()
        status = self._process.wait(5)
        self._answers.close()
        self._connection.close()
        self._directory.cleanup()
        assert status == 0, f"the emulator ended with status {status}: {said}"

    @property
    def pid(self) -> int:
        """Of the emulator."""
        return self._process.pid

    def command(self, command: dict[str, Any]) -> list[list[Counters]]:
        """Send a `Command`; the counters of each link and direction afterwards."""
        try:
            with self._lock:  # Tests change links while another thread reads the counters.
                self._connection.sendall(json.dumps(command).encode() + b"\n")
                line = self._answers.readline()
        except OSError as error:
            raise AssertionError(f"the emulator: {error}: {self._log.read_text()}") from error
        assert line, f"the emulator ended: {self._log.read_text()}"
        return [[Counters(**one) for one in link] for link in json.loads(line)]

    def counters(self) -> list[list[Counters]]:
        """Of each link and direction."""
        return self.command({})

    def _connects(self, path: Path) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            self._connection.connect(str(path))
            return True
        return False


def join(middle: Host, device: str, host: Host, number: int, end: int) -> None:
    """A veth pair from the middle to a host, whose end has the address of a link's end."""
    link = Link(number, (host, middle))
    middle.ip(f"link add {device} type veth peer name {link.device} netns {host.netns}")
    middle.sysctl(f"ipv6/conf/{device}/disable_ipv6", 1)
    middle.within(lambda: turn_offloads_off(device))
    host.within(lambda: turn_offloads_off(link.device))
    middle.ip(f"link set {device} up")
    host.ip(
        f"addr add {address(4, number, end)}/24 dev {link.device}",
        f"addr add {address(6, number, end)}/64 dev {link.device} nodad",
        f"link set {link.device} up",
    )


def turn_offloads_off(device: str) -> None:
    """Let each frame be one for a wire: no longer than its MTU, checksums filled in."""
    with socket.socket() as any_socket:
        for name, command in _OFFLOADS.items():
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", device.encode(), ctypes.addressof(value)).ljust(40, b"\0")
            try:
                fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
            except OSError as error:
                raise AssertionError(f"{device}: {name} can't be turned off: {error}") from error
