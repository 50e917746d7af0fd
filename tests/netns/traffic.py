"""Traffic whose losses can be told one by one, without a tool that may not be installed."""

import contextlib
import hashlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from types import TracebackType
from typing import Protocol, Self

from tests.netns.topology import Family
from tests.netns.wait import wait_for

_HEADER = struct.Struct("!Q")


class Host(Protocol):
    """Where traffic begins or ends: a network namespace."""

    def socket(self, family: Family, kind: socket.SocketKind) -> socket.socket:
        """A socket of it."""


@dataclass(slots=True)
class Report:
    """What became of the datagrams of a `Stream`; times are of the monotonic clock, in seconds."""

    sent: list[float] = field(default_factory=list)
    """Sending time of each sequence number."""
    received: dict[int, float] = field(default_factory=dict)
    """Time of the first receipt of each sequence number."""
    duplicates: int = 0

    @property
    def lost(self) -> list[int]:
        """Sequence numbers that never came."""
        return [number for number in range(len(self.sent)) if number not in self.received]

    @property
    def delays(self) -> dict[int, float]:
        """Seconds that each took, by its sequence number."""
        return {number: at - self.sent[number] for number, at in self.received.items()}

    @property
    def overtaken(self) -> int:
        """How many came just before one with a lower sequence number."""
        numbers = [number for number, _ in sorted(self.received.items(), key=itemgetter(1))]
        return sum(later < earlier for earlier, later in pairwise(numbers))

    def lost_after(self, when: float) -> float:
        """Seconds from `when` until the last lost datagram was sent; 0 when none was lost."""
        return max((self.sent[number] - when for number in self.lost), default=0.0)

    @property
    def longest_gap(self) -> float:
        """Longest time without receipt, in seconds, from the first datagram sent to the last."""
        if not self.sent:
            return 0.0
        times = [self.sent[0], *sorted(self.received.values()), self.sent[-1]]
        return max(later - earlier for earlier, later in pairwise(times))

    def __str__(self) -> str:
        return (
            f"{len(self.sent)} sent, {len(self.lost)} lost, {self.duplicates} twice,"
            f" longest gap {self.longest_gap * 1000:.0f} ms"
        )


class Stream:
    """Sends numbered UDP datagrams at a steady rate from one host to another while in context.

    ``stream.report`` may be read at any time; it is complete after the context was left, which
    waits for datagrams that are still on their way.
    """

    def __init__(
        self,
        source: Host,
        target: Host,
        to: str,
        *,
        family: Family = 4,
        rate: float = 200,
        size: int = 200,
    ) -> None:
        """`rate` is in datagrams per second, `size` in bytes of UDP payload."""
        self.report = Report()
        self._period = 1 / rate
        self._payload = bytes(size - _HEADER.size)
        self._receiver = target.socket(family, socket.SOCK_DGRAM)
        self._receiver.bind((to, 0))
        self._receiver.settimeout(0.1)
        self._sender = source.socket(family, socket.SOCK_DGRAM)
        self._to = self._receiver.getsockname()[:2]
        self._stop = threading.Event()
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._threads[0].join()
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.report.lost, timeout=0.3, what="datagrams on their way")
        self._closed.set()
        self._threads[1].join()
        self._sender.close()
        self._receiver.close()

    def flow(self, count: int, *, timeout: float = 3) -> None:
        """Wait until another `count` datagrams have come."""
        goal = len(self.report.received) + count
        wait_for(
            lambda: len(self.report.received) >= goal,
            timeout=timeout,
            what=f"{count} more datagrams of the stream ({self.report})",
        )

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            number = len(self.report.sent)
            self.report.sent.append(time.monotonic())
            # A full queue or a route that is gone is a loss like any other.
            with contextlib.suppress(OSError):
                self._sender.sendto(_HEADER.pack(number) + self._payload, self._to)
            due += self._period
            time.sleep(max(0.0, due - time.monotonic()))

    def _receive(self) -> None:
        while not self._closed.is_set():
            try:
                datagram = self._receiver.recv(2048)
            except TimeoutError:
                continue
            (number,) = _HEADER.unpack_from(datagram)
            if number in self.report.received:
                self.report.duplicates += 1
            else:
                self.report.received[number] = time.monotonic()


def transfer(
    source: Host,
    target: Host,
    to: str,
    *,
    family: Family = 4,
    size: int = 1_000_000,
    timeout: float = 20,
) -> float:
    """Send `size` bytes over TCP, assert that the same arrive; returns the seconds it took."""
    data = hashlib.shake_256(to.encode()).digest(size)
    arrived = hashlib.sha256()

    def receive() -> None:
        with listener.accept()[0] as connection:
            connection.settimeout(timeout)
            while block := connection.recv(1 << 16):
                arrived.update(block)

    with target.socket(family, socket.SOCK_STREAM) as listener:
        listener.settimeout(timeout)
        listener.bind((to, 0))
        listener.listen(1)
        receiver = threading.Thread(target=receive)
        receiver.start()
        started = time.monotonic()
        try:
            with source.socket(family, socket.SOCK_STREAM) as sender:
                sender.settimeout(timeout)
                sender.connect(listener.getsockname()[:2])
                sender.sendall(data)
        finally:
            receiver.join(timeout + 1)
    assert arrived.digest() == hashlib.sha256(data).digest(), "other bytes arrived than were sent"
    return time.monotonic() - started
