"""How often the log says that a path's condition has changed: one that flaps shall not fill it."""

from glorytun.core.address import PathId
from glorytun.core.events import PathChanged
from glorytun.core.settings import SECOND

# What this implementation chose.

MOST = 12
"""Changes of a path that are said in each stretch."""
STRETCH, STRETCH_MAX = 60 * SECOND, 3600 * SECOND
"""µs that one lasts at first; twice as long after one with more, up to that."""


class _Stretch:
    __slots__ = ("changes", "length", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.length = STRETCH
        self.changes = 0


class Restraint:
    """Of a tunnel."""

    def __init__(self) -> None:
        self._stretches: dict[PathId, _Stretch] = {}

    def note(self, event: PathChanged, now: int) -> str | None:
        """What to say beside the event; None: nothing, not even that it happened."""
        stretch = self._stretches.setdefault(event.path, _Stretch(now))
        unsaid = 0
        if now - stretch.start >= stretch.length:
            unsaid = max(0, stretch.changes - MOST)
            stretch.length = min(2 * stretch.length, STRETCH_MAX) if unsaid else STRETCH
            stretch.start, stretch.changes = now, 0
        stretch.changes += 1
        if stretch.changes > MOST:
            return None
        if stretch.changes == MOST:
            left = stretch.start + stretch.length - now
            return f"it changes again and again, which is not said for {left // SECOND} s from now"
        return f"after {unsaid} more changes that were not said" if unsaid else ""

    def forget(self, path: PathId) -> None:
        """The path is gone."""
        self._stretches.pop(path, None)
