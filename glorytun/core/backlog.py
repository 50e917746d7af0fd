"""Packets that wait for a path: a queue for each flow, so that none waits behind another's.

A TUN device can't do that: what the kernel hands to it waits in a ring, in order, and its queue
discipline is always empty (tun_net_xmit() in drivers/net/tun.c). So all is taken out of there, and
flows take turns here, as in RFC 8290: first one that was silent, then each with some bytes. So a
call or a ping waits for no download, and what is too much is taken from the longest queue.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from glorytun.core.batch import Batch
from glorytun.core.flow import flow_key
from glorytun.core.settings import SECOND
from glorytun.core.wire import OVERHEAD, TIME_SIZE

# What this implementation chose.

QUANTUM = 3000
"""Bytes that a flow sends before it is another's turn."""
FLOWS_MAX = 500
"""What is more shares one queue: the longest has to be found fast."""
LIMIT_TIME = SECOND // 5
"""µs of the paths' rate: the bytes that may wait, ..."""
LIMIT_MIN, LIMIT_MAX = 128_000, 2_000_000
"""... but so many however slow, and however fast they are."""
WAIT_MAX = 2 * SECOND
"""µs: what waits longer, mostly since there is no path, is of no use any more."""
_REST = b"rest"
_V4_COLUMNS = np.array([0, 9, *range(12, 24)])
_V6_COLUMNS = np.array([0, 6, *range(8, 44)])
"""Where version, protocol, addresses and ports are, without options."""


class _Flow:
    __slots__ = ("credit", "key", "rows", "size")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.rows: deque[tuple[int, Batch]] = deque()
        """With the time when they came."""
        self.size = 0
        self.credit = QUANTUM


class Backlog:
    """See the module. What it holds is copied."""

    __slots__ = ("_flows", "_new", "_old", "_place", "dropped", "size")

    def __init__(self) -> None:
        self._flows: dict[bytes, _Flow] = {}
        self._new: deque[_Flow] = deque()
        """Those that have been silent; the first is next."""
        self._old: deque[_Flow] = deque()
        self._place = 0, 0
        """Where what `next` returned begins: which of a flow's `rows`, and the row."""
        self.size = 0
        """Bytes of all packets that wait."""
        self.dropped = 0
        """Packets that were too many, or waited too long."""

    def __bool__(self) -> bool:
        return self.size > 0

    def put(self, packets: Batch, now: int, *, rate: int) -> None:
        """Packets to wait for paths of `rate` bytes/s together."""
        for rows in _by_flow(packets):
            key = flow_key(rows.buffer, rows.offset)
            flow = self._flows.get(key)
            if flow is None and len(self._flows) >= FLOWS_MAX:
                key = _REST
                flow = self._flows.get(key)
            if flow is None:
                flow = self._flows[key] = _Flow(key)
                self._new.append(flow)
            size = rows.total()
            flow.rows.append((now, _copy(rows)))
            flow.size += size
            self.size += size
        limit = min(max(LIMIT_MIN, rate * LIMIT_TIME // SECOND), LIMIT_MAX)
        while self.size > limit:
            self._drop()

    def waiting(self, now: int) -> int:
        """Bytes that leave, as flows take turns, until the one whose turn it is has none left."""
        flow = self._turn(now)
        return 0 if flow is None else self._until_end(flow)

    def _until_end(self, flow: _Flow) -> int:
        return min(flow.size * len(self._flows), self.size)

    def next(self, now: int, ahead: int = 0) -> Batch | None:
        """Packets of the flow whose turn it is; tell `took` how many of them are gone.

        Those before which `ahead` bytes would leave, else the last ones.
        """
        flow = self._turn(now)
        return None if flow is None else self._share(flow, ahead)

    def took(self, count: int) -> None:
        """So many of those that `next` returned have left, or can't."""
        flow = (self._new or self._old)[0]
        flow.credit -= self._pop(flow, count, *self._place)

    def _turn(self, now: int) -> _Flow | None:
        """The flow whose turn it is, with something to send."""
        while queue := self._new or self._old:
            flow = queue[0]
            while flow.rows and flow.rows[0][0] < now - WAIT_MAX:
                self.dropped += flow.rows[0][1].count
                self._pop(flow, flow.rows[0][1].count)
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

    def _share(self, flow: _Flow, ahead: int) -> Batch:
        """What it may send now; all that is in one place while no other flow waits."""
        index, first = self._place = self._find(flow, ahead) if ahead else (0, 0)
        _, rows = flow.rows[index]
        count = rows.count - first
        if len(self._flows) > 1:
            count = min(count, -(-flow.credit // rows.size))
        return rows.run(first, count)

    def _find(self, flow: _Flow, ahead: int) -> tuple[int, int]:
        """Where the packet is before which `ahead` bytes leave: which of `rows`, and the row."""
        left = ahead * flow.size // self._until_end(flow)
        for index, (_, rows) in enumerate(flow.rows):
            if left < rows.total():
                return index, left // rows.size
            left -= rows.total()
        return len(flow.rows) - 1, flow.rows[-1][1].count - 1

    def _pop(self, flow: _Flow, count: int, index: int = 0, first: int = 0) -> int:
        """Take rows away that lie together; their bytes."""
        came_at, rows = flow.rows[index]
        del flow.rows[index]
        taken = rows.run(first, count).total()
        end = first + count
        if end < rows.count:
            flow.rows.insert(index, (came_at, rows.run(end, rows.count - end)))
        if first:
            flow.rows.insert(index, (came_at, rows.run(0, first)))
        flow.size -= taken
        self.size -= taken
        return taken

    def _drop(self) -> None:
        """The oldest packet of the longest queue: so TCP learns of it first."""
        self._pop(max(self._flows.values(), key=lambda flow: flow.size), 1)
        self.dropped += 1


def _copy(rows: Batch) -> Batch:
    """The same, with the room around each row that sealing takes."""
    start = rows.offset - TIME_SIZE
    room = max(rows.count * rows.stride, rows.total() + OVERHEAD)
    kept = rows.buffer[start : start + room]
    kept += bytes(room - len(kept))
    return Batch(kept, TIME_SIZE, rows.stride, rows.count, rows.size, rows.last)


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
    """Rows whose flow isn't that of the row before."""
    columns = _V6_COLUMNS if packets.buffer[packets.offset] >> 4 == 6 else _V4_COLUMNS
    wide = int(columns[-1]) + 1
    if packets.last < wide:
        return list(range(1, packets.count))
    shape, strides = (packets.count, wide), (packets.stride, 1)
    table: npt.NDArray[np.uint8]
    table = np.ndarray(shape, np.uint8, packets.buffer, packets.offset, strides)[:, columns]
    differs = (table[1:] != table[:-1]).any(axis=1)
    return [int(row) + 1 for row in differs.nonzero()[0]]
