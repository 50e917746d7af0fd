"""Loads over emulated links, and what is seen meanwhile, by the clock of the run."""

import contextlib
import re
import socket
import subprocess
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.emulator.model import Counters
from tests.netns.topology import Host
from tests.netns.wait import wait_for
from tests.wan import Wan

BLOCK = 1 << 18
SAMPLE_EVERY = 0.05
PING_EVERY = 0.1
LOST_PING = 1000.0
"""ms: stands for a ping without an answer."""

Action = tuple[float, Callable[[], object]]
"""Something to do so many seconds after the start."""


@dataclass(slots=True)
class Seen:
    """Times are s since the start of the load."""

    received: list[tuple[float, int]] = field(default_factory=list)
    """Bytes of payload that had arrived by then."""
    pings: list[tuple[float, float]] = field(default_factory=list)
    """When one was sent, and its ms."""
    samples: list[tuple[float, list[list[Counters]]]] = field(default_factory=list)
    """Of the emulator's links."""

    def mbit(self, start: float, end: float) -> float:
        """Mean goodput."""
        return (self._bytes_by(end) - self._bytes_by(start)) * 8 / 1e6 / (end - start)

    def _bytes_by(self, at: float) -> int:
        index = bisect_left(self.received, (at, 0))
        return self.received[index - 1][1] if index else 0

    def pings_between(self, start: float, end: float) -> list[float]:
        return [ms for at, ms in self.pings if start <= at < end]

    def carried(self, link: int, direction: int, start: float, end: float) -> float:
        """Mbit/s of frames that left a link."""
        points = [(at, one[link][direction].sent_bytes) for at, one in self.samples]
        inside = [point for point in points if start <= point[0] <= end]
        if len(inside) < 2:
            return 0.0
        (first, before), (last, after) = inside[0], inside[-1]
        return (after - before) * 8 / 1e6 / (last - first)


class Flow:
    """One flow of TCP, as fast as it goes, while in context."""

    def __init__(self, source: Host, target: Host, to: str, *, congestion: str) -> None:
        self._listener = target.socket(4, socket.SOCK_STREAM)
        self._listener.bind((to, 0))
        self._listener.listen(1)
        self._listener.settimeout(5)
        self._sender = source.socket(4, socket.SOCK_STREAM)
        self._sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        self.received: list[tuple[float, int]] = []

    def __enter__(self) -> "Flow":
        for thread in reversed(self._threads):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for made in (self._sender, self._listener):
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._sender.close()
        self._listener.close()

    def _send(self) -> None:
        block = bytes(BLOCK)
        with contextlib.suppress(OSError):
            self._sender.connect(self._listener.getsockname())
            while True:
                self._sender.sendall(block)

    def _receive(self) -> None:
        with contextlib.suppress(OSError), self._listener.accept()[0] as connection:
            connection.settimeout(0.5)
            buffer, total = bytearray(BLOCK), 0
            while True:
                try:
                    count = connection.recv_into(buffer)
                except TimeoutError:
                    if self._sender.fileno() < 0 or not self._threads[0].is_alive():
                        return
                    continue
                if not count:
                    return
                total += count
                self.received.append((time.monotonic(), total))


class Pings:
    """Pings from one host through the tunnel while in context."""

    def __init__(self, source: Host, to: str) -> None:
        command = ("ping", "-n", "-D", "-O", "-i", str(PING_EVERY), "-W", "3", to)
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", source.netns, *command], stdout=subprocess.PIPE, text=True
        )
        self._offset = time.monotonic() - time.time()
        self.found: list[tuple[float, float]] = []

    def __enter__(self) -> "Pings":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        said, _stderr = self._process.communicate(timeout=5)
        answered = {}
        lost = {}
        for line in said.splitlines():
            if found := re.match(r"\[([\d.]+)\] .*icmp_seq=(\d+).* time=([\d.]+) ms", line):
                ms = float(found[3])
                answered[int(found[2])] = (float(found[1]) + self._offset - ms / 1000, ms)
            elif found := re.match(r"\[([\d.]+)\] no answer yet for icmp_seq=(\d+)", line):
                lost[int(found[2])] = (float(found[1]) + self._offset - PING_EVERY, LOST_PING)
        self.found = sorted({**lost, **answered}.values())


class Samples:
    """The emulator's counters, again and again while in context."""

    def __init__(self, wan: Wan) -> None:
        self._wan = wan
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.found: list[tuple[float, list[list[Counters]]]] = []

    def __enter__(self) -> "Samples":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY):
            self.found.append((time.monotonic(), self._wan.counters()))


def load(
    wan: Wan,
    flow: Flow,
    pings: Pings,
    *,
    seconds: float,
    actions: Sequence[Action] = (),
) -> Seen:
    """Run a flow and pings for so long, and what is to happen meanwhile."""
    samples = Samples(wan)
    with samples, pings, flow:
        wait_for(lambda: flow.received, timeout=10, what="the flow to begin")
        start = flow.received[0][0]
        for at, act in actions:
            time.sleep(max(0.0, start + at - time.monotonic()))
            act()
        time.sleep(max(0.0, start + seconds - time.monotonic()))
    seen = Seen()
    seen.received = [(at - start, total) for at, total in flow.received]
    seen.pings = [(at - start, ms) for at, ms in pings.found]
    seen.samples = [(at - start, counters) for at, counters in samples.found]
    return seen
