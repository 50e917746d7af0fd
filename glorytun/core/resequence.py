"""Brings packets that came on several paths into the order in which they were sent.

No number says what is missing, so nothing waits for it. Each datagram carries its sending time,
which tells by how much later packets come on one path than on another: those of the faster ones
are held back by that, and then all come as late as on the slowest. What is lost stalls nothing.
"""

import heapq
from collections.abc import Sequence
from itertools import count

from glorytun.core.address import PathId
from glorytun.core.batch import SLACK, Batch, append_row
from glorytun.core.settings import SECOND
from glorytun.core.wire import OVERHEAD

# What this implementation chose.

MARGIN = 1_500
"""µs longer than the slowest path takes at its best: what comes there varies a little, and is held
back as well, until then: else it would be that much before the others."""
USED_AFTER = SECOND // 2
"""µs without a packet after which nothing waits for a path any more."""
_MEMORY = 2 * SECOND
_HELD_MAX = 4096
"""Packets: what is more goes on its way at once, the oldest first."""


class _Delay:
    """How long packets take on a path at their best, plus what the peer's clock is behind ours.

    The least of the last two to four seconds.
    """

    __slots__ = ("_before", "_due", "_now", "_sent_at", "_until", "heard_at")

    def __init__(self, delay: int, now: int) -> None:
        self._due = self._sent_at = 0
        """Of the newest packet: when it is due, and when it was sent."""
        self.heard_at = now
        self._now = self._before = delay
        self._until = now + _MEMORY

    def add(self, delay: int, now: int) -> None:
        self.heard_at = now
        if now >= self._until:
            self._before, self._now = self._now, delay
            self._until = now + _MEMORY
        self._now = min(self._now, delay)

    @property
    def least(self) -> int:
        return min(self._before, self._now)

    def due(self, sent_at: int, late: int) -> int:
        """When a packet is due that is to be so `late`: not before the one sent before it.

        It would be else where the delay has just been found to be less, as with each burst that is
        longer than those before: its packets all come now, and the last was sent last.
        """
        due = sent_at + late
        if sent_at > self._sent_at:
            self._sent_at, self._due = sent_at, max(due, self._due)
            return self._due
        return due


class Resequencer:
    """Holds packets, up to `limit` µs each; 0: none."""

    __slots__ = ("_delays", "_held", "_order", "limit")

    def __init__(self) -> None:
        self.limit = 0
        self._delays: dict[PathId, _Delay] = {}
        self._held: list[tuple[int, int, int, bytes]] = []
        """A heap: when a packet is due, when it was sent, its number, and itself."""
        self._order = count()

    @property
    def next_at(self) -> int | None:
        """When `take` has something; it may be overdue."""
        return self._held[0][0] if self._held else None

    def put(self, packets: Batch, times: Sequence[int], path: PathId, now: int) -> None:
        """Packets that came on a path just now, and when each was sent, by the peer's clock."""
        delay = now - times[-1]
        known = self._delays.get(path)
        if known is None:
            known = self._delays[path] = _Delay(delay, now)
        else:
            known.add(delay, now)
        longest = self._longest(now)
        own = known.least
        # All are to be as late as on the slowest path, that one's too, but none waits for longer
        # than it may.
        late = min(longest + MARGIN, own + self.limit) if len(self._delays) > 1 else own
        for row, time in zip(packets.rows(), times, strict=True):
            due = known.due(time, late)
            heapq.heappush(self._held, (due, time, next(self._order), bytes(row)))

    def _longest(self, now: int) -> int:
        for path in [path for path, delay in self._delays.items() if self._is_past(delay, now)]:
            del self._delays[path]
        return max(delay.least for delay in self._delays.values())

    def _is_past(self, delay: _Delay, now: int) -> bool:
        return now - delay.heard_at > USED_AFTER

    def take(self, now: int) -> list[Batch]:
        """The packets that are due, in one buffer of their own."""
        held = self._held
        due: list[bytes] = []
        while held and (held[0][0] <= now or len(held) > _HELD_MAX):
            due.append(heapq.heappop(held)[-1])
        buffer = bytearray(sum(map(len, due)) + len(due) * OVERHEAD + SLACK)
        batches: list[Batch] = []
        at = 0
        for packet in due:
            buffer[at : at + len(packet)] = packet
            at = append_row(batches, buffer, at, len(packet), gap=OVERHEAD)
        return batches
