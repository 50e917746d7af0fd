"""The emulator's process: moves frames between pairs of interfaces, as `model.py` says when.

``python -m tests.emulator.process SOCKET SEED FIRST:SECOND …`` in the namespace of the interfaces;
a link is two of them. What is written to SOCKET changes links and reads counters: `Command`.

Frames are read from rings that the kernel fills and stamps with the time of their arrival
(packet_mmap.rst of its documentation). So it doesn't matter when they are read, as long as it is
before they have to leave: the process sleeps until then, or for `TICK_MAX`.
"""

import contextlib
import ctypes
import gc
import json
import mmap
import os
import socket
import struct
import sys
import time
from dataclasses import asdict, replace
from random import Random
from typing import Any, TypedDict

from glorytun.net.toobig import too_big
from tests.emulator.model import ETHERNET_HEADER, MILLISECOND, Direction, Profile

TICK_MAX, TICK_MIN = MILLISECOND // 2, MILLISECOND // 10
"""ns between two looks at the rings."""
EARLY = MILLISECOND // 50
"""ns before its time that a frame may leave, to save a sleep."""
LATE_MS = 2.0
"""From when on a frame that left after its time counts as late."""
LISTEN_EVERY = 5 * MILLISECOND
PRIORITY = 5

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_PACKET_QDISC_BYPASS, _PACKET_IGNORE_OUTGOING = 20, 23
_TPACKET_V2 = 1
_STATUS_USER, _STATUS_CHECKSUM_NOT_READY = 1, 8
_BLOCK, _FRAME, _FRAMES = 1 << 16, 1 << 11, 1 << 12
_HEADER = struct.Struct("=IIIHHII")
"""struct tpacket2_hdr: status, length, length captured, where it begins, …, seconds, ns."""
_STATUS = struct.Struct("=I")
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_PR_SET_TIMERSLACK = 29

_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_ICMP_V6 = 58
_NEIGHBOUR_TYPES = range(133, 138)


class Command(TypedDict, total=False):
    """What a test asks for, as one line of JSON: `change` one link, or only the counters of all."""

    link: int
    direction: int
    change: dict[str, Any]


class Ring:
    """One interface: what comes from it, and a way to send to it."""

    def __init__(self, device: str) -> None:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        request = struct.pack("IIII", _BLOCK, _FRAMES * _FRAME // _BLOCK, _FRAME, _FRAMES)
        made.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        made.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        made.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self._ring = memoryview(mmap.mmap(made.fileno(), _FRAMES * _FRAME))
        self._next = 0
        made.bind((device, _ETH_P_ALL))
        made.setblocking(False)
        self._socket = made

    def read(self) -> list[tuple[int, bytes]]:
        """The frames that have come, each with its time."""
        ring, at = self._ring, self._next
        found: list[tuple[int, bytes]] = []
        while True:
            status, _, size, start, _, seconds, nanoseconds = _HEADER.unpack_from(ring, at)
            if not status & _STATUS_USER:
                self._next = at
                return found
            assert not status & _STATUS_CHECKSUM_NOT_READY, "offloads are on: not a real frame"
            frame = bytes(ring[at + start : at + start + size])
            found.append((seconds * 1_000_000_000 + nanoseconds, frame))
            _STATUS.pack_into(ring, at, 0)
            at = (at + _FRAME) % (_FRAMES * _FRAME)

    def send(self, frames: list[bytes]) -> int:
        """Send frames; how many there was no room for."""
        missed = 0
        for frame in frames:
            try:
                self._socket.send(frame)
            except OSError:
                missed += 1
        return missed

    def missed(self) -> int:
        """Frames that found the ring full since the last call."""
        found = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("II", found)[1])


class Port:
    """One direction of a link, between two interfaces."""

    def __init__(self, source: Ring, target: Ring, random: Random) -> None:
        self.direction = Direction(Profile(), random)
        self._source, self._target = source, target

    def take(self) -> None:
        """Let what has come arrive."""
        direction = self.direction
        for at, frame in self._source.read():
            if is_neighbour_discovery(frame):
                direction.counters.missed += self._target.send([frame])
            elif not direction.arrive(frame, at) and direction.profile.icmp:
                self._tell(frame)

    def give(self, now: int) -> None:
        """Let depart what is due."""
        direction = self.direction
        direction.advance(now)
        due_at = direction.next_at()
        if due_at is None or due_at > now + EARLY:
            return
        frames = direction.departures(now + EARLY)
        if frames:
            counters = direction.counters
            late_ms = (now - due_at) / MILLISECOND
            counters.late_ms = max(counters.late_ms, late_ms)
            counters.late += len(frames) if late_ms >= LATE_MS else 0
            counters.missed += self._target.send(frames)

    def counters(self, now: int) -> dict[str, Any]:
        counters = self.direction.counters
        counters.missed += self._source.missed()
        found = asdict(self.direction.count(now))
        counters.late_ms = 0.0
        return found

    def _tell(self, frame: bytes) -> None:
        answer = too_big(frame[ETHERNET_HEADER:], self.direction.profile.mtu)
        if answer is not None:
            self._source.send([frame[6:12] + frame[:6] + frame[12:14] + answer])


def is_neighbour_discovery(frame: bytes) -> bool:
    """ARP or its like for IPv6: a line fails behind the next router, which still answers these."""
    kind = frame[12:14]
    if kind == _IPV6:
        return frame[20] == _ICMP_V6 and len(frame) > 54 and frame[54] in _NEIGHBOUR_TYPES
    return kind == _ARP


class Emulator:
    """All links of a test."""

    def __init__(self, listener: socket.socket, pairs: list[tuple[str, str]], seed: int) -> None:
        self._listener = listener
        self._connection: socket.socket | None = None
        self._said = b""
        self._links: list[tuple[Port, Port]] = []
        for number, (first, second) in enumerate(pairs):
            one, other = Ring(first), Ring(second)
            randoms = [Random(f"{seed} {number} {end}") for end in range(2)]
            self._links.append((Port(one, other, randoms[0]), Port(other, one, randoms[1])))
        self._ports = [port for link in self._links for port in link]
        self._tick = TICK_MAX

    def run(self) -> None:
        """Until the test closes the connection."""
        listen_at = 0
        while True:
            now = time.clock_gettime_ns(time.CLOCK_REALTIME)
            wake_at = now + self._tick
            for port in self._ports:
                port.take()
            for port in self._ports:
                port.give(now)
                due_at = port.direction.next_at()
                if due_at is not None and due_at < wake_at:
                    wake_at = due_at
            if now >= listen_at:
                listen_at = now + LISTEN_EVERY
                if not self._listen():
                    return
            left = wake_at - time.clock_gettime_ns(time.CLOCK_REALTIME)
            if left > EARLY:
                time.sleep(left / 1e9)

    def _listen(self) -> bool:
        """Do what the test asks; False when it has ended."""
        try:
            if self._connection is None:
                self._connection = self._listener.accept()[0]
                self._connection.setblocking(False)
            said = self._connection.recv(1 << 16)
        except BlockingIOError:
            return True
        self._said += said
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            answer = json.dumps(self._do(json.loads(line))).encode() + b"\n"
            self._connection.sendall(answer)
        return bool(said)

    def _do(self, command: Command) -> list[list[dict[str, Any]]]:
        now = time.clock_gettime_ns(time.CLOCK_REALTIME)
        if "change" in command:
            direction = self._links[command["link"]][command["direction"]].direction
            direction.change(replace(direction.profile, **command["change"]), now)
            # What comes has to be seen before it has to leave.
            delays = [port.direction.profile.delay for port in self._ports]
            self._tick = max(TICK_MIN, min(TICK_MAX, round(min(delays) * MILLISECOND / 2)))
        return [[port.counters(now) for port in link] for link in self._links]


def be_punctual() -> None:
    """Before others, from memory that stays, without pauses, and as soon as a sleep is over."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    libc.mlockall(_MCL_CURRENT | _MCL_FUTURE)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    gc.collect()
    gc.freeze()
    gc.disable()


def main(path: str, seed: str, *pairs: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        names = [pair.partition(":") for pair in pairs]
        listener.bind(path)
        emulator = Emulator(listener, [(one, other) for one, _, other in names], int(seed))
        listener.setblocking(False)
        be_punctual()
        listener.listen(1)
        emulator.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
