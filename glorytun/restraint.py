"""How often the log says that a path's condition has changed: one that flaps shall not fill it."""

from collections.abc import Iterator

from glorytun.core.address import PathId
from glorytun.core.events import PathChanged
from glorytun.core.settings import SECOND

# What this implementation chose.

MOST = 12
"""Changes of a path that are said in each stretch."""
STRETCH, STRETCH_MAX = 60 * SECOND, 3600 * SECOND
"""µs that one lasts at first; twice as long after one with more, up to that."""


class _Stretch:
    __slots__ = ("changed_at", "changes", "last", "length", "start", "unsaid")

    def __init__(self, start: int) -> None:
        self.start = start
        self.length = STRETCH
        self.changes = 0
        self.changed_at = start
        self.last: PathChanged | None = None
        """The last one, if it wasn't said."""
        self.unsaid = 0

    def take_unsaid(self) -> int:
        """How many changes there were since the last that was said."""
        unsaid, self.unsaid, self.last = self.unsaid, 0, None
        return unsaid


class Restraint:
    """Of a tunnel."""

    def __init__(self) -> None:
        self._stretches: dict[PathId, _Stretch] = {}

    def note(self, event: PathChanged, now: int) -> str | None:
        """What to say beside the event; None: nothing, not even that it happened."""
        stretch = self._stretches.setdefault(event.path, _Stretch(now))
        if now - stretch.start >= stretch.length:
            is_flapping = stretch.changes > MOST
            stretch.length = min(2 * stretch.length, STRETCH_MAX) if is_flapping else STRETCH
            stretch.start, stretch.changes = now, 0
        stretch.changes += 1
        stretch.changed_at = now
        if stretch.changes > MOST:
            stretch.last = event
            stretch.unsaid += 1
            return None
        unsaid = stretch.take_unsaid()
        if stretch.changes == MOST:
            left = (stretch.start + stretch.length - now) // SECOND
            return f"it changes again and again: more of that is not said for {left} s"
        return _after(unsaid) if unsaid else ""

    def overdue(self, now: int) -> Iterator[tuple[PathChanged, str]]:
        """The last change of each path that has settled since; and what to say beside it."""
        for stretch in self._stretches.values():
            if stretch.last and now - stretch.changed_at >= STRETCH:
                last = stretch.last
                yield last, _after(stretch.take_unsaid() - 1)

    def forget(self, path: PathId) -> None:
        """The path is gone."""
        self._stretches.pop(path, None)


def _after(unsaid: int) -> str:
    return f"after {unsaid} more changes that were not said"
