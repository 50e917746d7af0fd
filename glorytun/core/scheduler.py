"""Which path takes the next packets: the one on which they arrive first.

Among the paths in use, each delivers a packet after what it has to send already, at its rate, and
then half a round trip. So paths fill in proportion to their rates, and what is sent while all are
free takes the fastest. Paths are tried in groups: those that run, else what is better than
nothing.
"""

from collections.abc import Iterable

from glorytun.core.path import Path
from glorytun.core.rate import RATE_UNLIMITED
from glorytun.core.settings import SECOND
from glorytun.core.status import Condition


class Scheduler:
    """Chooses among the paths of a tunnel. `refresh` whenever one of their conditions changed."""

    __slots__ = ("_paths", "_usable")

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._usable: list[Path] = []

    def refresh(self, paths: Iterable[Path], now: int) -> None:
        """Look anew at which paths are to be used."""
        self._paths = list(paths)
        running = [path for path in self._paths if path.condition == Condition.RUNNING]
        self._usable = running or self._last_resort(now)

    def _last_resort(self, now: int) -> list[Path]:
        candidates = [path for path in self._paths if path.is_last_resort(now)]
        lossy = [path for path in candidates if path.condition == Condition.LOSSY]
        return lossy or candidates

    def ready_at(self, now: int) -> int | None:
        """From when on a packet may be sent; None while there is no path for it.

        It may be worth to wait for a fast path while a slow one is free.
        """
        path = self.pick(size=0, now=now)
        return None if path is None else path.shaper.ready_at()

    def pick(self, *, size: int, now: int) -> Path | None:
        """The path for datagrams of up to `size` bytes; None when they fit none.

        Call `ready_at` first: it is not looked at here whether the path has credit.
        """
        usable = self._usable
        if len(usable) == 1:
            return usable[0] if size <= usable[0].size_max else None
        best: Path | None = None
        best_at = 0
        for path in usable:
            if size > path.size_max:
                continue
            at = path.arrival(size=size or path.size_max, now=now)
            if best is None or at < best_at:
                best, best_at = path, at
        return best

    def burst(self, path: Path, *, size: int, count: int, now: int) -> int:
        """How many of `count` datagrams of up to `size` bytes leave together on the path picked.

        As many as it may send at once, at least one, and as arrive there first.
        """
        if path.shaper.rate >= RATE_UNLIMITED:
            return count
        cost = max(1, path.duration(size))
        most = path.shaper.credit(now) // cost
        if len(self._usable) > 1:
            arrival = path.arrival(size=size, now=now)
            others = [
                other.arrival(size=size, now=now)
                for other in self._usable
                if other is not path and size <= other.size_max
            ]
            most = min(most, 1 + (min(others, default=arrival + SECOND) - arrival) // cost)
        return max(1, min(count, most))
