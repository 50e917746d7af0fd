"""Packets that wait for a path: a queue for each flow, so that none waits behind another's.

A TUN device can't do that: what the kernel hands to it waits in a ring, in order, and its queue
discipline is always empty (tun_net_xmit() in drivers/net/tun.c). So all is taken out of there, and
flows take turns here, as in RFC 8290: first one that was silent, then each with some bytes. So a
call or a ping waits for no download, and what is too much is taken from the longest queue.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappush, heapreplace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glorytun.core.batch import Batch
from glorytun.core.flow import flow_key
from glorytun.core.settings import SECOND
from glorytun.core.wire import BARE_BIT, OVERHEAD, TIME_SIZE

# What this implementation chose.

QUANTUM = 3000
"""Bytes that a flow sends before it is another's turn."""
FLOWS_MAX = 500
"""What is more shares one queue: else it would take long until it is a flow's turn."""
_SHARED_SLOTS = 4096
"""Flows of that one queue are told apart by so many values of a hash."""
LIMIT_TIME = SECOND // 5
"""µs of the paths' rate: the bytes that may wait, ..."""
LIMIT_MIN, LIMIT_MAX = 128_000, 2_000_000
"""... but so many however slow, and however fast they are."""
WAIT_MAX = 2 * SECOND
"""µs: what waits longer, mostly since there is no path, is of no use any more."""
JOINED_MAX, JOINED_TIME = 8192, SECOND // 20
"""Bytes, and µs since the first, up to which packets of one size that follow each other are laid
into one buffer: sealing and sending many costs little more than one, and so does finding one."""
_RANKS_MAX = 4 * FLOWS_MAX
"""Most of so many are outdated: there is one more with each `put`."""
_REST = b"rest"
_V4_PLAIN = 0x45
_V4_COLUMNS = np.array([0, 6, 7, 9, *range(12, 24)])
_V6_COLUMNS = np.array([0, 6, *range(8, 44)])
"""Where version, protocol, addresses and ports are; without options in IPv4, and there with what
says whether it is a part of a packet, which has none."""


class Head(NamedTuple):
    """What is next."""

    flow: bytes
    """Which flow's turn it is."""
    waiting: int
    """Bytes that leave, as flows take turns, until it has none left."""
    second: int
    """Bytes that leave before its second packet, as flows take turns, if its first doesn't."""


NOTHING = Head(b"", 0, 0)


class _Flow:
    __slots__ = ("credit", "key", "rows", "size")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.rows: deque[tuple[int, int, Batch]] = deque()
        """With the time when the first of them came, and their bytes."""
        self.size = 0
        self.credit = QUANTUM

    def append(self, rows: Batch, now: int) -> int:
        """Copy them behind the others; their bytes."""
        size = rows.total()
        self.size += size
        if self.rows:
            came_at, before, last = self.rows[-1]
            is_near = before < JOINED_MAX and now - came_at < JOINED_TIME
            if is_near and _continues(last, rows):
                self.rows[-1] = came_at, before + size, _joined(last, rows)
                return size
        self.rows.append((now, size, _copy(rows)))
        return size

    def pop(self, count: int, index: int, first: int) -> int:
        """Take away `count` of those at `index`, the `first` and those behind it; their bytes."""
        came_at, size, rows = self.rows[index]
        end = first + count
        before = first * rows.size
        taken = (count * rows.size) if end < rows.count else size - before
        if end < rows.count:
            behind = _part(rows, end, rows.count - end)
            self.rows[index] = came_at, size - before - taken, behind
        else:
            del self.rows[index]
        if first:
            self.rows.insert(index, (came_at, before, _part(rows, 0, first)))
        self.size -= taken
        return taken


class Backlog:
    """See the module. What it holds is copied."""

    __slots__ = ("_flows", "_new", "_old", "_place", "_ranks", "_shared", "dropped", "size")

    def __init__(self) -> None:
        self._flows: dict[bytes, _Flow] = {}
        self._new: deque[_Flow] = deque()
        """Those that have been silent; the first is next."""
        self._old: deque[_Flow] = deque()
        self._ranks: list[tuple[int, int, _Flow]] = []
        """A heap for `_drop`, or empty: each flow that waits, by its size or by a larger one."""
        self._shared: dict[int, int] = {}
        """When something was put into the queue that flows share, by their hashes."""
        self._place = 0, 0
        """Where what `next` returned begins: which of a flow's `rows`, and the row."""
        self.size = 0
        """Bytes of all packets that wait."""
        self.dropped = 0
        """Packets that were too many, or waited too long."""

    def __bool__(self) -> bool:
        return self.size > 0

    def put(self, packets: Batch, now: int, *, rate: int) -> None:
        """Packets to wait for paths of `rate` bytes/s together, laid out as for `Tunnel.send`."""
        for rows in _by_flow(packets):
            flow = self._flow_of(rows, now)
            size = flow.append(rows, now)
            self.size += size
            if self._ranks:
                heappush(self._ranks, _rank(flow))
                if len(self._ranks) > _RANKS_MAX:
                    self._ranks.clear()
        limit = min(max(LIMIT_MIN, rate * LIMIT_TIME // SECOND), LIMIT_MAX)
        while self.size > limit:
            self._drop(self.size - limit)

    def _flow_of(self, rows: Batch, now: int) -> _Flow:
        key = flow_key(rows.buffer, rows.offset)
        flow = self._flows.get(key)
        if flow is None and (len(self._flows) >= FLOWS_MAX or self._shared):
            key = self._shared_key(key, now)
            flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(key)
            self._new.append(flow)
        return flow

    def _shared_key(self, key: bytes, now: int) -> bytes:
        """Of a flow without a queue: that of the shared one, if it has to be, or may wait there.

        It would overtake itself with a queue of its own.
        """
        if _REST not in self._flows:
            self._shared.clear()
        slot = hash(key) % _SHARED_SLOTS
        put_at = self._shared.get(slot)
        if len(self._flows) < FLOWS_MAX and (put_at is None or put_at < now - WAIT_MAX):
            return key
        self._shared[slot] = now
        return _REST

    def head(self, now: int) -> Head:
        """What is next."""
        flow = self._turn(now)
        if flow is None:
            return NOTHING
        until_end, first = self._until_end(flow), flow.rows[0][2].row_size(0)
        return Head(flow.key, until_end, -(-first * until_end // flow.size))

    def _until_end(self, flow: _Flow) -> int:
        return min(flow.size * len(self._flows), self.size)

    def next(self, now: int, ahead: int = 0, most: int | None = None) -> Batch | None:
        """Packets of the flow whose turn it is; tell `took` how many of them are gone.

        Those before which `ahead` bytes would leave, else the last ones; `most` of them.
        """
        flow = self._turn(now)
        return None if flow is None else self._share(flow, ahead, most)

    def took(self, count: int) -> None:
        """So many of those that `next` returned have left, or can't."""
        flow = (self._new or self._old)[0]
        flow.credit -= self._pop(flow, count, *self._place)

    def _turn(self, now: int) -> _Flow | None:
        """The flow whose turn it is, with something to send."""
        while queue := self._new or self._old:
            flow = queue[0]
            while flow.rows and flow.rows[0][0] < now - WAIT_MAX:
                count = flow.rows[0][2].count
                self._pop(flow, count)
                self.dropped += count
            if flow.credit > 0 and flow.rows:
                return flow
            queue.popleft()
            if flow.rows:
                flow.credit += QUANTUM
                self._old.append(flow)
            elif queue is self._new and self._old:
                self._old.append(flow)  # It takes turns with the others before it is new again.
            else:
                del self._flows[flow.key]
        return None

    def _share(self, flow: _Flow, ahead: int, most: int | None) -> Batch:
        """What it may send now; all that is in one place while no other flow waits."""
        index, first = self._place = self._find(flow, ahead) if ahead else (0, 0)
        rows = flow.rows[index][2]
        count = rows.count - first
        if most is not None:
            count = min(count, most)
        if len(self._flows) > 1:
            count = min(count, -(-flow.credit // rows.size))
        return rows.run(first, count)

    def _find(self, flow: _Flow, ahead: int) -> tuple[int, int]:
        """Where the packet is before which `ahead` bytes leave: which of `rows`, and the row."""
        left = ahead * flow.size // self._until_end(flow)
        for index, (_, size, rows) in enumerate(flow.rows):
            if left < size:
                return index, left // rows.size
            left -= size
        return len(flow.rows) - 1, flow.rows[-1][2].count - 1

    def _pop(self, flow: _Flow, count: int, index: int = 0, first: int = 0) -> int:
        """Take rows away that lie together; their bytes."""
        taken = flow.pop(count, index, first)
        self.size -= taken
        return taken

    def _drop(self, excess: int) -> None:
        """The oldest packets of the longest queue: so TCP learns of it first.

        As many as there are too many bytes, and as keep it the longest; one at least.
        """
        ranks = self._ranks
        if not ranks:
            ranks += map(_rank, self._flows.values())
            heapify(ranks)
        while (rank := _rank(ranks[0][2])) != ranks[0]:
            heapreplace(ranks, rank)
        flow = ranks[0][2]
        rows = flow.rows[0][2]
        second = -min((rank[0] for rank in ranks[1:3]), default=0)
        most = min(excess, flow.size - second)
        count = min(max(1, -(-most // rows.size)), rows.count)
        self._pop(flow, count)
        self.dropped += count


def _rank(flow: _Flow) -> tuple[int, int, _Flow]:
    """Sorts the longest first."""
    return -flow.size, id(flow), flow


def _continues(first: Batch, rows: Batch) -> bool:
    """Whether both can be one batch."""
    if not rows.size == first.size == first.last:
        return False
    stride = rows.size + OVERHEAD
    return (rows.count == 1 or rows.stride == stride) and (
        first.count == 1 or first.stride == stride
    )


def _with_room(rows: Batch) -> bytearray:
    """A copy of all rows with what is around each."""
    start = rows.offset - TIME_SIZE
    return rows.buffer[start : start + _room(rows)]


def _room(rows: Batch) -> int:
    return (rows.count - 1) * rows.stride + rows.last + OVERHEAD


def _copy(rows: Batch) -> Batch:
    """The same, in a buffer of their own."""
    stride = rows.stride if rows.count > 1 else rows.size + OVERHEAD
    return Batch(_with_room(rows), TIME_SIZE, stride, rows.count, rows.size, rows.last)


def _joined(first: Batch, rows: Batch) -> Batch:
    """Both, in a buffer of their own."""
    both = _copy(first)
    both.buffer += _with_room(rows)
    both.count += rows.count
    both.last = rows.last
    return both


def _part(rows: Batch, first: int, count: int) -> Batch:
    """Some of them, in a buffer of their own if they leave most of the other unused."""
    part = rows.run(first, count)
    return part if 2 * _room(part) >= len(part.buffer) else _copy(part)


def _by_flow(packets: Batch) -> Iterator[Batch]:
    """The rows, as one batch for each stretch that is of one flow."""
    if packets.count == 1:
        yield packets
        return
    first = 0
    for end in [*_changes(packets), packets.count]:
        yield packets.run(first, end - first)
        first = end


def _changes(packets: Batch) -> list[int]:
    """Rows whose flow isn't that of the row before; all, where that would take long to tell."""
    each = list(range(1, packets.count))
    columns = _columns(packets, 0)
    if columns is None:
        return each
    wide = int(columns[-1]) + 1
    if packets.last < wide:
        return each
    shape, strides = (packets.count, wide), (packets.stride, 1)
    table: npt.NDArray[np.uint8]
    table = np.ndarray(shape, np.uint8, packets.buffer, packets.offset, strides)[:, columns]
    differs = (table[1:] != table[:-1]).any(axis=1)
    found = [int(row) + 1 for row in differs.nonzero()[0]]
    return found if all(_columns(packets, row) is columns for row in found) else each


def _columns(packets: Batch, row: int) -> npt.NDArray[np.int64] | None:
    """Where in a packet it says of which flow it is; None: it has options."""
    first = packets.buffer[packets.offset + row * packets.stride] & ~BARE_BIT
    if first == _V4_PLAIN:
        return _V4_COLUMNS
    return _V6_COLUMNS if first >> 4 == 6 else None
