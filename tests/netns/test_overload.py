"""More packets than a tunnel can carry: its control messages keep their beat, memory stays flat.

The beats are counted on the link itself, by a packet socket that takes control messages alone.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from tests.netns.flood import Flood, Meanwhile, memory_of
from tests.netns.topology import SERVER, Host, Lab, direct
from tests.netns.tunnel import Pair, Tunnel, Tunnels, inside
from tests.netns.wait import wait_for

OURS = Pair[Tunnel, Tunnel]
NONE = {"GLORYTUN_TEST_OFFLOADS": ""}

SECONDS = 6.0
"""Of a flood, the first of which settles rates and buffers."""
BEAT = 0.1
"""s: a path's default."""
GAP = 5 * BEAT
"""So long without a beat makes a server call a path degraded."""
GROWTH = 10_000_000
"""Bytes that memory may grow by: what a backlog holds, and buffers of the first packets."""

_ETH_P_ALL = 3
_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_CONTROL_ONLY = [
    (0x28, 0, 0, 12),  # ldh [12]
    (0x15, 0, 6, _ETH_P_IP),  # jeq
    (0x30, 0, 0, 23),  # ldb [23]: the protocol, behind 14 bytes of Ethernet
    (0x15, 0, 4, 17),  # jeq #17: UDP
    (0x30, 0, 0, 42),  # ldb [42]: the time's first byte, behind IPv4 and UDP
    (0x54, 0, 0, 1),  # and #1: control messages have odd times
    (0x15, 0, 1, 1),  # jeq #1
    (0x06, 0, 0, 256),  # ret #256
    (0x06, 0, 0, 0),  # ret #0
]
"""struct sock_filter, bpf(4) as packet(7) takes it."""


class Beats(Meanwhile):
    """When control messages of the client left over its link, while in context."""

    def __init__(self, host: Host, device: str, source: str) -> None:
        self.times: list[float] = []
        self._source = socket.inet_aton(source)
        program = b"".join(struct.pack("=HBBI", *line) for line in _CONTROL_ONLY)
        self._program = ctypes.create_string_buffer(program)
        attached = struct.pack("HP", len(_CONTROL_ONLY), ctypes.addressof(self._program))
        taken = host.within(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        )
        taken.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
        taken.bind((device, _ETH_P_ALL))
        taken.settimeout(0.1)
        super().__init__(taken, self._listen)

    def _listen(self) -> None:
        frame = self._socket.recv(256)
        if frame[26:30] == self._source:
            self.times.append(time.monotonic())

    def longest_gap(self, since: float, until: float) -> float:
        """Seconds without any."""
        times = [since, *(at for at in self.times if since < at < until), until]
        return max(later - earlier for earlier, later in pairwise(times))


@pytest.fixture(params=[{}, NONE], ids=["offloads", "no-offloads"])
def pair(request: pytest.FixtureRequest) -> Iterator[OURS]:
    """A tunnel on a link without a limit."""
    options = {"env": request.param}
    with Lab() as lab, Tunnels() as tunnels:
        joined = tunnels.join(
            direct(lab), Tunnel, Tunnel, rate=(), client_options=options, server_options=options
        )
        joined.wait_running()
        joined.wait_mtu(1450)
        yield joined


def _path(daemon: Tunnel) -> dict[str, Any]:
    (path,) = json.loads(daemon.command("path", "json"))["paths"]
    found: dict[str, Any] = path
    return found


@pytest.mark.parametrize("ways", ["up", "both"])
def test_beats_losses_and_memory(pair: OURS, ways: str) -> None:
    """At overload no beat is late, no path is called lossy, nothing grows."""
    daemons = (pair.client, pair.server)
    memory: dict[str, list[int]] = {daemon.role: [] for daemon in daemons}
    losses: list[float] = []
    conditions: set[str] = set()
    with contextlib.ExitStack() as stack:
        sent = stack.enter_context(Beats(pair.client.host, "link1", "10.9.1.1"))
        answered = stack.enter_context(Beats(pair.client.host, "link1", "10.9.1.2"))
        stack.enter_context(Flood(pair.client, pair.server))
        if ways == "both":
            stack.enter_context(Flood(pair.server, pair.client))
        since = time.monotonic() + 1
        until = since + SECONDS - 1
        while (now := time.monotonic()) < until:
            for daemon in daemons:
                path = _path(daemon)
                conditions.add(path["condition"])
                losses += [path[way]["loss"] for way in ("tx", "rx")]
                if now > since:
                    memory[daemon.role].append(memory_of(daemon.pid))
    requests = len([at for at in sent.times if since < at < until])
    assert conditions == {"running"}
    assert max(losses) < 0.05
    assert sent.longest_gap(since, until) < GAP, "the client's control messages"
    assert answered.longest_gap(since, until) < GAP, "the server's"
    # A beat is a request and an answer to the server's reply.
    assert requests > 0.8 * 2 * (until - since) / BEAT, f"{requests} control messages"
    for role, sizes in memory.items():
        assert max(sizes) - statistics.median(sizes[:3]) < GROWTH, role
    target = inside(4, SERVER)
    wait_for(lambda: pair.client.host.ping(target, count=1).received, timeout=10, what="room")
    pair.ping()


def test_room_for_bursts(pair: OURS) -> None:
    """What comes while the tunnel is busy waits in the device; what has no room there is counted.

    It is held up by a signal, for as long as that many packets take.
    """
    client = pair.client
    target = (inside(4, SERVER), 9)
    with client.host.socket(4, socket.SOCK_DGRAM) as socket_:
        for count, lost in ((1500, 0), (3000, 1000)):
            taken, overflowed = _taken(client)
            os.kill(client.pid, signal.SIGSTOP)
            try:
                for _ in range(count):
                    socket_.sendto(b"small", target)
            finally:
                os.kill(client.pid, signal.SIGCONT)
            # The ring frees the places of packets that were read some at a time (ptr_ring.h).
            least = taken + count - lost - 50
            wait_for(partial(_has_taken, client, least), timeout=10, what="what waited")
            assert 0 <= _taken(client)[1] - overflowed - lost <= 50


def _taken(daemon: Tunnel) -> tuple[int, int]:
    """Packets that were read from the device, and those that it had no room for."""
    sent = json.loads(daemon.command("show", "json"))["tunnel"]["sent"]
    return sent["packets"] + sent["crowded_out"], sent["overflowed"]


def _has_taken(daemon: Tunnel, least: int) -> bool:
    return _taken(daemon)[0] >= least
