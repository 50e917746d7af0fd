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
from glorytun.core.flow import is_tcp
from glorytun.core.marked import traffic_class
from glorytun.core.settings import SECOND
from glorytun.core.status import Held
from glorytun.core.wire import OVERHEAD

# What this implementation chose.

MARGIN = 1_500
"""µs longer than the slowest path takes at its best: what comes there varies a little, and is held
back as well, until then: else it would be that much before the others."""
USED_AFTER = SECOND // 2
"""µs without a packet after which nothing waits for a path any more, ..."""
PASSED_OVER = 500
"""... or packets that came on others meanwhile, where more may come on it."""
HELPS, HELPS_STILL = (5_000, 100_000), (3_000, 150_000)
"""µs by which delays differ so that it helps TCP to hold its packets: with less it copes, with more
it gets slow; and the same while they are held."""
_MEMORY = 2 * SECOND
_HELD_MAX = 4096
"""Packets: what is more goes on its way at once, the oldest first."""


class _Delay:
    """How long packets take on a path at their best, plus what the peer's clock is behind ours.

    The least of the last two to four seconds.
    """

    __slots__ = ("_before", "_due", "_now", "_sent_at", "_until", "heard_at", "heard_total")

    def __init__(self, delay: int, now: int) -> None:
        self._due = self._sent_at = 0
        """Of the newest packet: when it is due, and when it was sent."""
        self.heard_at = self.heard_total = 0
        """When a packet came the last time, and how many had come on all paths by then."""
        self._now = self._before = delay
        self._until = now + _MEMORY

    def add(self, delay: int, now: int) -> None:
        if now >= self._until:
            is_old = now >= self._until + _MEMORY
            self._before, self._now = delay if is_old else self._now, delay
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

    __slots__ = ("_delays", "_held", "_now", "_only_tcp", "_order", "_total", "likely", "limit")

    def __init__(self) -> None:
        self.limit = 0
        self._only_tcp = False
        """And of that only what isn't marked: what is in a hurry doesn't wait."""
        self.likely: set[PathId] = set()
        """Paths on which something may come next, though it didn't of late."""
        self._delays: dict[PathId, _Delay] = {}
        self._held: list[tuple[int, int, int, bytes]] = []
        """A heap: when a packet is due, when it was sent, its number, and itself."""
        self._order = count()
        self._total = 0
        self._now = 0
        """When packets came the last time."""

    @property
    def next_at(self) -> int | None:
        """When `take` has something; it may be overdue."""
        return self._held[0][0] if self._held else None

    @property
    def held(self) -> Held:
        """Which packets."""
        if not self.limit:
            return Held.NONE
        return Held.TCP if self._only_tcp else Held.ALL

    def hold_all(self, limit: int) -> None:
        """Hold all packets, up to `limit` µs."""
        self.limit, self._only_tcp = limit, False

    def hold_what_it_helps(self) -> None:
        """Hold packets of TCP as long as delays differ so much that it can't cope by itself."""
        delays = [delay.least for path, delay in self._delays.items() if path in self.likely]
        spread = max(delays) - min(delays) if delays else 0
        least, most = HELPS_STILL if self.limit else HELPS
        self.limit, self._only_tcp = HELPS_STILL[1] if least <= spread <= most else 0, True

    def put(self, packets: Batch, times: Sequence[int], path: PathId, now: int) -> None:
        """Packets that came on a path just now, and when each was sent, by the peer's clock."""
        if now < self._now:
            self._restart(now)
        self._now = now
        known = self._note(path, now - times[-1], now)
        self._total += packets.count
        known.heard_at, known.heard_total = now, self._total
        used = self._used(now)
        longest = max(delay.least for delay in used)
        own = known.least
        # All are to be as late as on the slowest path, that one's too, but none waits for longer
        # than it may.
        late = min(longest + MARGIN, own + self.limit) if len(used) > 1 else own
        for row, at, time in zip(packets.rows(), packets.starts(), times, strict=True):
            is_held = not self._only_tcp or _may_wait(packets.buffer, at)
            due = known.due(time, late) if is_held else now
            heapq.heappush(self._held, (due, time, next(self._order), bytes(row)))

    def note(self, path: PathId, delay: int, now: int) -> None:
        """Something that is no packet took so long on a path, by the peer's clock and ours.

        So the first packets of a flow already wait, and TCP never sees a shorter round trip than
        those to come. BBR would believe it for ten seconds, and send a sixth of what it can.
        """
        if path in self.likely:
            self._note(path, delay, now)

    def _restart(self, now: int) -> None:
        """Our clock was set back: by it what is held would wait for as much longer."""
        self._held = [(now, sent_at, number, row) for _, sent_at, number, row in self._held]
        heapq.heapify(self._held)
        self._delays.clear()

    def _note(self, path: PathId, delay: int, now: int) -> _Delay:
        known = self._delays.get(path)
        if known is None:
            known = self._delays[path] = _Delay(delay, now)
            known.heard_total = self._total
        else:
            known.add(delay, now)
        return known

    def _used(self, now: int) -> list[_Delay]:
        """Of the paths that packets wait for."""
        used = []
        for path, delay in list(self._delays.items()):
            if now - delay.heard_at <= USED_AFTER:
                used.append(delay)
            elif path not in self.likely:
                del self._delays[path]
            elif self._total - delay.heard_total <= PASSED_OVER:
                used.append(delay)
        return used

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


def _may_wait(buffer: bytearray, at: int) -> bool:
    """Whether an IP packet is in no hurry."""
    return is_tcp(buffer, at) and not traffic_class(buffer, at)
