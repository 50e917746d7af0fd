"""Which path takes the next packets: of those that are free, the one on which they arrive first.

A path is free while what it has to send already takes no longer than a burst. So paths fill in
proportion to their rates, and what is sent while all are free takes the fastest. A slower one is
only for what is so far behind in the queue that it comes in order: see `inorder`. Paths are tried
in groups: those that run, without those that are suspected not to, else what is better than
nothing. Of those that cost something only as many are tried as the cheaper ones are full, and of
those that lose more than others: see `lossier`.

A path whose mode is redundant has no packets of its own while another path works, but copies.
"""

from collections.abc import Iterable
from typing import NamedTuple

from glorytun.core.backlog import Head
from glorytun.core.inorder import SLACK, InOrder
from glorytun.core.path import Path
from glorytun.core.settings import SECOND, PathMode
from glorytun.core.shaper import RATE_UNLIMITED, Shaper
from glorytun.core.status import Condition

# What this implementation chose.

SEND_MAX = 256
"""Packets that are sent together."""
TOGETHER = 500
"""µs that packets may come too late so that they leave together, which saves a turn for each."""
SPARSE = 3_000
"""Bytes: a flow of which less waits isn't what fills paths."""
SPARED = 2
"""Replies after which a path is said to have nothing to send, no longer to be spared."""


class Turn(NamedTuple):
    """When packets may leave, and which."""

    at: int
    ahead: int = 0
    """Bytes that should leave before them, so that all arrive in order: they go a longer way."""
    most: int = SEND_MAX
    """How many of them."""


class Scheduler:
    """Chooses among the paths of a tunnel. `refresh` whenever one of their conditions changed."""

    __slots__ = ("_copying", "_in_order", "_marked", "_paths", "_tiers", "_usable")

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._usable: list[Path] = []
        """Without those that cost more, while these suffice."""
        self._tiers: list[list[Path]] = []
        """By their price, cheap ones first; empty when all have the same."""
        self._copying: list[Path] = []
        """For copies of all packets."""
        self._marked: list[Path] = []
        """For copies of those that are marked: also what is left out, or costs more."""
        self._in_order = InOrder()

    def refresh(self, paths: Iterable[Path], now: int) -> None:
        """Look anew at which paths are to be used."""
        self._paths = list(paths)
        running = [path for path in self._paths if path.condition == Condition.RUNNING]
        sure = [path for path in running if not path.is_suspect]
        self._copying = [path for path in sure if path.settings.mode is PathMode.REDUNDANT]
        own = [path for path in sure if path.settings.mode is not PathMode.REDUNDANT]
        spare = self._spare() or self._over_limit(running)
        self._usable = own or sure or spare or running or self._last_resort(now)
        able = [path for path in self._paths if path.is_for_copies and not path.is_suspect]
        self._marked = able or self._usable
        prices = sorted({path.price for path in self._usable})
        self._tiers = [[path for path in self._usable if path.price == price] for price in prices]
        if len(prices) == 1:
            self._tiers = []
        self._open(now)

    def _open(self, now: int) -> None:
        """Let dearer paths be used when all that cost less are full, and no longer.

        What only loses more, for a while longer.
        """
        if not self._tiers:
            return
        self._usable = []
        cost = self._tiers[0][0].settings.cost
        for tier in self._tiers:
            is_full = Shaper.was_full if tier[0].settings.cost == cost else Shaper.is_full
            if not all(is_full(path.shaper, now) for path in self._usable if path.size_max):
                break
            self._usable += tier
            cost = tier[0].settings.cost

    def _spare(self) -> list[Path]:
        """Those that wait, of the best rank: better than what shows signs of being dead.

        As when it is dead: one that is up and left out comes before a backup.
        """
        waiting = [path for path in self._paths if path.condition == Condition.WAITING]
        sure = [path for path in waiting if not path.is_suspect]
        best = min((path.rank for path in sure), default=0)
        return [path for path in sure if path.rank == best]

    def _over_limit(self, running: list[Path]) -> list[Path]:
        """Those that are above a limit, where all that run show signs of being dead."""
        size = min((path.size_max for path in running), default=0)
        return _best_over_limit(
            path for path in self._paths if path.size_max >= size and not path.is_suspect
        )

    def _last_resort(self, now: int) -> list[Path]:
        candidates = [path for path in self._paths if path.is_last_resort(now)]
        return _best_over_limit(candidates) or candidates

    @property
    def rate(self) -> int:
        """bytes/s of the paths that packets are sent on now, together."""
        return sum(path.shaper.rate for path in self._usable)

    def turn(self, now: int, head: Head | None = None, *, sent: int = 0) -> Turn | None:
        """From when on packets may be sent, and which; None while there is no path for them.

        With `head`, what is next in the backlog, only where they aren't too late to be in order.
        `sent` are bytes that have left on any path so far.
        """
        self._open(now)
        times = [path.shaper.ready_at() for path in self._usable if path.size_max]
        if not times:
            return None
        at = min(times)
        if head is None or len(times) < 2 or at > now:
            return Turn(at)
        path = self._first(now)
        earlier = self._earlier(path)
        if not earlier:
            is_lesson = self._in_order.is_lesson(head.flow, now)
            return Turn(at, head.second, 1) if is_lesson else Turn(at)
        if self._is_in_order(path, earlier, head, sent=sent, now=now):
            return Turn(at, _ahead(path, earlier, slack=0, now=now))
        path.spared = SPARED
        return Turn(min((at for at in times if at > now), default=at))

    def _is_in_order(
        self, path: Path, earlier: list[Path], head: Head, *, sent: int, now: int
    ) -> bool:
        """Whether enough waits that leaves before.

        A cheaper path isn't spared for that. What is sparse has to be in order always.
        """
        rivals = [other for other in earlier if other.settings.cost <= path.settings.cost]
        needed = _ahead(path, rivals, slack=SLACK, now=now)
        if not rivals or head.waiting < SPARSE:
            return needed <= head.waiting
        slack = self._in_order.slack(
            head.flow, path, rivals, waiting=head.waiting, needed=needed, sent=sent, now=now
        )
        return _ahead(path, rivals, slack=slack, now=now) <= head.waiting

    def _first(self, now: int) -> Path:
        """The one that `pick` finds for packets of any size."""
        return min(self._usable, key=lambda path: (not path.size_max, self._order(path, 0, now)))

    def _order(self, path: Path, size: int, now: int) -> tuple[int, int, int]:
        wait = max(0, path.shaper.ready_at() - now)
        return wait, path.settings.cost, path.arrival(size=size, now=now)

    def _earlier(self, path: Path) -> list[Path]:
        """Those that take less time."""
        return [
            other
            for other in self._usable
            if other.delay.mean < path.delay.mean and other.size_max and other.delay.ready
        ]

    def pick(self, *, size: int, now: int) -> Path | None:
        """The path for datagrams of up to `size` bytes; None when they fit none.

        Where none is free that they fit, the one that is first.
        """
        usable = self._usable
        if len(usable) == 1:
            return usable[0] if size <= usable[0].size_max else None
        best: Path | None = None
        best_at = (0, 0, 0)
        for path in usable:
            if size > path.size_max:
                continue
            at = self._order(path, size, now)
            if best is None or at < best_at:
                best, best_at = path, at
        return best

    @property
    def copies_all(self) -> bool:
        """Whether there are paths for copies of all packets."""
        return bool(self._copying)

    def pick_copy(self, path: Path, *, size: int, is_marked: bool, now: int) -> Path | None:
        """Where to send another copy of datagrams of up to `size` bytes that leave on `path`.

        For those that are marked to go twice any path will do that has room for copies, a cheap one
        rather; for others one whose mode that is, if it is free.
        """
        others = self._marked if is_marked else self._copying
        at = [
            (other.settings.cost, other.arrival(size=size, now=now), index)
            for index, other in enumerate(others)
            if other is not path
            and size <= other.size_max
            and _credit_for_copies(other, is_marked=is_marked, now=now) >= 0
        ]
        return others[min(at)[-1]] if at else None

    def spread(self, path: Path, *, size: int, count: int, now: int) -> list[tuple[Path, int]]:
        """Where the first of `count` datagrams of up to `size` bytes leave together, in turn.

        On the path picked, and on others as long as they come in order with no more before them:
        each where it arrives first. As many as may leave at once, at least one.
        """
        if path.shaper.rate >= RATE_UNLIMITED:
            return [(path, count)]
        lanes = [_Lane(other, size, now) for other in self._usable if size <= other.size_max]
        lane = next(one for one in lanes if one.path is path)
        is_alone = len(lanes) == 1 or lane.is_late(lanes)
        shares: list[tuple[Path, int]] = []
        while True:
            most = lane.take(count, lanes)
            shares.append((lane.path, most))
            count -= most
            free = [other for other in lanes if other.is_free]
            if is_alone or not count or not free:
                return shares
            lane = min(free, key=_Lane.order)
            if lane.is_late(lanes):
                return shares

    def burst_of_copies(
        self, path: Path, *, size: int, count: int, is_marked: bool, now: int
    ) -> int:
        """The same for the path that `pick_copy` found: as many of them as are sent there too."""
        credit = _credit_for_copies(path, is_marked=is_marked, now=now)
        return max(1, min(count, credit // max(1, path.duration(size))))


class _Lane:
    """A path while packets are dealt out, as it is with those that it got."""

    __slots__ = ("arrival", "credit", "duration", "path")

    def __init__(self, path: Path, size: int, now: int) -> None:
        self.path = path
        self.duration = max(1, path.duration(size))
        """µs of a packet, if it is of `size` bytes."""
        self.arrival = path.arrival(size=size, now=now)
        """When the next one would be at the peer."""
        self.credit = path.shaper.credit(now)
        """µs of packets that may leave; less than 0: none."""

    def order(self) -> tuple[int, int]:
        """Sorts what is first by `Scheduler.pick`, of those that are free."""
        return self.path.settings.cost, self.arrival

    @property
    def is_free(self) -> bool:
        """Whether packets may leave now."""
        return self.credit >= 0

    def is_late(self, lanes: Iterable["_Lane"]) -> bool:
        """Whether what it takes next should come behind what others can't take yet: `_ahead`."""
        start, ahead = self.arrival - self.duration, 0
        for other in self._rivals(lanes):
            earlier = start - other.arrival + other.duration
            if earlier > 0:
                ahead += earlier * SECOND // other.duration
        return ahead >= SECOND

    def take(self, count: int, lanes: Iterable["_Lane"]) -> int:
        """Take packets: as many as it may, and as arrive there before one would by another.

        Or a little after it, by one that can't take any yet.
        """
        last = self.credit // self.duration
        for other in self._rivals(lanes):
            until = other.arrival if other.is_free else max(other.arrival, self.arrival) + TOGETHER
            last = min(last, (until - self.arrival) // self.duration)
        most = max(1, min(count, 1 + last))
        self.arrival += most * self.duration
        self.credit -= most * self.duration
        return most

    def _rivals(self, lanes: Iterable["_Lane"]) -> list["_Lane"]:
        """Others, that cost no more: no packet is left to one that does."""
        return [
            other
            for other in lanes
            if other is not self and other.path.settings.cost <= self.path.settings.cost
        ]


def _best_over_limit(paths: Iterable[Path]) -> list[Path]:
    """Those that are late, else those that lose too much."""
    alike: dict[Condition, list[Path]] = {}
    for path in paths:
        alike.setdefault(path.condition, []).append(path)
    return alike.get(Condition.LATE) or alike.get(Condition.LOSSY) or []


def _credit_for_copies(path: Path, *, is_marked: bool, now: int) -> int:
    """µs of them that may leave now. Those that are marked take turns with nothing else: a path
    that is in full use has room for them too."""
    return path.shaper.credit_for_marked(now) if is_marked else path.shaper.credit(now)


def _ahead(path: Path, earlier: Iterable[Path], *, slack: int, now: int) -> int:
    """Bytes that other paths can carry so that they arrive `slack` µs before it, or earlier."""
    arrival = path.arrival(size=0, now=now) - slack
    found = 0
    for other in earlier:
        found += max(0, arrival - other.arrival(size=0, now=now)) * other.shaper.rate
    return found // SECOND
