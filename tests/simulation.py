"""Two tunnels in virtual time over a simulated network: no clock, no socket, no waiting.

client ═══ Wire (path 0) ═══ server
       ═══ Wire (path 1) ═══
         …
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.batch import Batch
from glorytun.core.crypto import capabilities
from glorytun.core.events import Event
from glorytun.core.outbox import Outgoing
from glorytun.core.settings import (
    SECOND,
    CipherChoice,
    PathChange,
    PathState,
    Settings,
)
from glorytun.core.shaper import LINK_OVERHEAD
from glorytun.core.status import PathStatus
from glorytun.core.tunnel import Tunnel
from glorytun.core.wire import TAG_SIZE, TIME_SIZE

PSK = bytes(range(32))
EPOCH = 1_800_000_000 * SECOND
MILLISECOND = SECOND // 1000
PORT = 5000
SERVER = pack_address("192.0.2.1")
V4_HEADERS, V6_HEADERS = 28, 48


@dataclass(kw_only=True)
class Wire:
    """What one path does to datagrams, in both directions; may be changed while it is used."""

    delay: int = 10 * MILLISECOND
    delay_down: int | None = None
    """From the server to the client, where that isn't as from the client to the server."""
    jitter: int = 0
    """µs added at random: with more than the gap between datagrams, they are reordered."""
    loss: float = 0.0
    duplication: float = 0.0
    rate: int = 0
    """bytes/s of Ethernet frames in either direction, whatever the other one carries; 0 = any."""
    queue: int = 50 * MILLISECOND
    """How long a datagram may wait for the line."""
    mtu: int = 1500
    """Of the IP packet around the datagram."""
    headers: int = V4_HEADERS
    cut: bool = False
    cut_down: bool = False
    """Of what the server sends alone."""
    client: bytes = field(default_factory=lambda: pack_address("198.51.100.1"))
    client_port: int = PORT
    """As the server sees it: changes when a NAT forgets it."""
    _free_at: dict[bool, int] = field(default_factory=dict)
    """When the line has carried all that waits for it, by direction."""

    def arrivals(self, size: int, random: Random, *, up: bool, now: int) -> Iterator[int]:
        """When copies of a datagram arrive that leaves now, for the server if `up`; µs."""
        if size + self.headers > self.mtu:
            return
        left_at = self._leave_line(size, up=up, now=now)
        is_cut = self.cut or (self.cut_down and not up)
        if left_at is None or is_cut or random.random() < self.loss:
            return
        copies = 2 if random.random() < self.duplication else 1
        delay = self.delay if up or self.delay_down is None else self.delay_down
        for _ in range(copies):
            yield left_at + delay + (random.randrange(self.jitter) if self.jitter else 0)

    def _leave_line(self, size: int, *, up: bool, now: int) -> int | None:
        """When the line has carried a datagram; None: there was no room for it."""
        if not self.rate:
            return now
        start = now + self.waiting(up=up, now=now)
        if start - now > self.queue:
            return None
        self._free_at[up] = start + (size + self.headers + LINK_OVERHEAD) * SECOND // self.rate
        return self._free_at[up]

    def waiting(self, *, up: bool, now: int) -> int:
        """How long a datagram would wait for the line, µs."""
        return max(0, self._free_at.get(up, 0) - now)


class Side:
    """A tunnel, and what it delivered."""

    def __init__(
        self, *, client: bool, now: int, random: Random, cipher: CipherChoice, **settings: int
    ) -> None:
        self.client = client
        self.clock_offset = 0
        """µs by which this side's clock is ahead."""
        self.delivered: Counter[bytes] = Counter()
        self.arrivals: list[tuple[int, bytes]] = []
        """When each packet was delivered."""
        self.events: list[Event] = []
        self._arguments = (random, cipher, settings)
        self.start(now)

    def start(self, now: int) -> None:
        """A new process: nothing is remembered."""
        random, cipher, settings = self._arguments
        self.tunnel = Tunnel(
            psk=PSK,
            settings=Settings(client=self.client, cipher=cipher, **settings),
            ours=capabilities(cipher, aes_hardware=True),
            software="simulated",
            entropy=random.randbytes,
            now=now + self.clock_offset,
        )

    def paths(self) -> list[PathStatus]:
        return self.tunnel.path_statuses()

    def conditions(self) -> list[str]:
        return [status.condition.value for status in self.paths()]


class Simulation:
    """Moves time from one happening to the next."""

    def __init__(
        self,
        *wires: Wire,
        seed: int = 0,
        cipher: CipherChoice = CipherChoice.CHACHA,
        **settings: int,
    ) -> None:
        self.random = Random(seed)
        self.now = EPOCH
        self.wires = wires
        for index, wire in enumerate(wires):
            wire.client = pack_address(f"198.51.100.{index + 1}")
        make = {"now": self.now, "random": self.random, "cipher": cipher}
        self.client = Side(client=True, **make, **settings)  # type: ignore[arg-type]  # a dict of several types
        self.server = Side(client=False, **make, **settings)  # type: ignore[arg-type]  # likewise
        self._queue: list[tuple[int, int, Side, int, bytes]] = []
        self._order = itertools.count()
        self.offered = 0
        self.captured: list[tuple[Side, int, bytes]] = []
        """The last datagrams on the wires: who they were for, on which path."""

    # Paths.

    def client_path(self, index: int) -> PathId:
        return PathId(self.wires[index].client, Endpoint(SERVER, PORT))

    def server_path(self, index: int) -> PathId:
        wire = self.wires[index]
        return PathId(SERVER, Endpoint(wire.client, wire.client_port))

    def set_path(self, index: int, **change: object) -> None:
        change.setdefault("state", PathState.UP)
        self.client.tunnel.set_path(
            self.client_path(index),
            PathChange(**change),  # type: ignore[arg-type]  # the fields' types differ
            self.now + self.client.clock_offset,
        )
        self.flush(self.client)

    def up(self) -> None:
        """Make all paths, and wait until each is in use."""
        for index in range(len(self.wires)):
            self.set_path(index)

    # Time.

    def run(self, duration: int) -> None:
        """Let `duration` µs pass."""
        end = self.now + duration
        while True:
            at = self._next_at()
            if at is None or at > end:
                break
            self.now = max(self.now, at)
            self._turn()
        self.now = end

    def wait_for(self, holds: Callable[[], bool], timeout: int = 30 * SECOND) -> int:
        """Let time pass until `holds()`; the µs it took."""
        start = self.now
        while not holds():
            assert self.now - start < timeout, "timeout"
            self.run(10 * MILLISECOND)
        return self.now - start

    def _next_at(self) -> int | None:
        times = [self._queue[0][0]] if self._queue else []
        for side in (self.client, self.server):
            due = (side.tunnel.next_timeout(), side.tunnel.next_packets_at())
            times += [at - side.clock_offset for at in due if at is not None]
        return min(times, default=None)

    def _turn(self) -> None:
        while self._queue and self._queue[0][0] <= self.now:
            _, _, side, index, datagram = heapq.heappop(self._queue)
            self.deliver(side, index, datagram)
        for side in (self.client, self.server):
            due_at = side.tunnel.next_timeout()
            if due_at is not None and due_at - side.clock_offset <= self.now:
                side.tunnel.on_timeout(self.now + side.clock_offset)
                after = side.tunnel.next_timeout()
                assert after is None or after > self.now + side.clock_offset, "a timer in the past"
            self._take_held(side)
            self.flush(side)

    def _take_held(self, side: Side) -> None:
        due_at = side.tunnel.next_packets_at()
        now = self.now + side.clock_offset
        if due_at is not None and due_at <= now:
            self._note_delivered(side, side.tunnel.next_packets(now))
            after = side.tunnel.next_packets_at()
            assert after is None or after > now

    def _note_delivered(self, side: Side, batches: list[Batch]) -> None:
        for packets in batches:
            for row in packets.rows():
                side.delivered[bytes(row)] += 1
                side.arrivals.append((self.now, bytes(row)))

    # Datagrams.

    def deliver(self, side: Side, index: int, datagram: bytes) -> None:
        """A datagram arrives on a path."""
        path = self.client_path(index) if side.client else self.server_path(index)
        self.receive(side, path, datagram)

    def receive(self, side: Side, path: PathId, datagram: bytes) -> None:
        now = self.now + side.clock_offset
        self._note_delivered(side, side.tunnel.receive(Batch.of(datagram), path, now))
        self._take_held(side)
        self.flush(side)

    def flush(self, side: Side) -> None:
        for outgoing in side.tunnel.next_datagrams():
            self.transmit(side, outgoing)
        side.events += side.tunnel.next_events()

    def transmit(self, side: Side, outgoing: Outgoing) -> None:
        for path in (outgoing.path, outgoing.copy_path):
            index = None if path is None else self._index(side, path)
            if index is not None:
                self._transmit_on(index, side, outgoing.datagrams)

    def _transmit_on(self, index: int, side: Side, datagrams: Batch) -> None:
        other = self.server if side.client else self.client
        for row in datagrams.rows():
            self.captured = [*self.captured[-99:], (other, index, bytes(row))]
            wire = self.wires[index]
            for at in wire.arrivals(len(row), self.random, up=side.client, now=self.now):
                item = (at, next(self._order), other, index, bytes(row))
                heapq.heappush(self._queue, item)

    def _index(self, side: Side, path: PathId) -> int | None:
        """The wire of a path; None when the server's NAT mapping is gone."""
        for index in range(len(self.wires)):
            if path == (self.client_path(index) if side.client else self.server_path(index)):
                return index
        return None

    # Packets.

    def can_send(self, side: Side) -> bool:
        return self.can_send_within(side, 0)

    def can_send_within(self, side: Side, wait: int) -> bool:
        """Whether the tunnel takes packets, after pacing for `wait` µs at the most."""
        now = self.now + side.clock_offset
        turn = side.tunnel.next_turn(now)
        return turn is not None and turn.at <= now + wait

    def send(self, side: Side, packet: bytes, *, wait: int = 0) -> bool:
        """Offer a packet as the TUN device would: only when the tunnel takes it, within `wait`."""
        if not self.can_send_within(side, wait):
            return False
        batch = Batch.of(packet, headroom=TIME_SIZE, tailroom=TAG_SIZE)
        for outgoing in side.tunnel.send(batch, self.now + side.clock_offset):
            self.transmit(side, outgoing)
        return True

    def stream(
        self, side: Side, *, count: int, interval: int, size: int = 100, wait: int = 0
    ) -> tuple[list[bytes], list[int]]:
        """Send numbered packets at an interval; those that were taken, and the times of refusal."""
        sent, refused = [], []
        for _ in range(count):
            packet = self.packet(size)
            if self.send(side, packet, wait=wait):
                sent.append(packet)
            else:
                refused.append(self.now)
            self.run(interval)
        return sent, refused

    def packet(self, size: int = 100) -> bytes:
        """One of its kind."""
        self.offered += 1
        return (b"\x45" + self.offered.to_bytes(8, "big")).ljust(size, b"p")
