"""Datagrams that our socket had no room for: which path they came on, nobody knows.

They are no loss of a path's. So what the peer has sent and we haven't counted is excused, as far as
the socket has lost as many of late.
"""

from glorytun.core.path import Path
from glorytun.core.settings import SECOND

# What this implementation chose.

MEMORY = 2 * SECOND
"""µs after which the peer should have told of what was lost."""


class Overflow:
    """Of one tunnel's socket."""

    __slots__ = ("_before", "_count", "_until")

    def __init__(self) -> None:
        self._count = self._before = 0
        """What was lost and isn't excused yet, since `_until` was set, and before that."""
        self._until = 0

    def add(self, count: int, now: int) -> None:
        """So many more were lost."""
        self._forget(now)
        self._count += count

    def excuse(self, path: Path, *, sent: int, now: int) -> None:
        """The peer says that it had sent `sent` datagrams on a path: count those as received that
        are missing since it said so the last time, and may be among the lost.

        Their bytes don't count: how fast we take them in is what the peer's rate follows.
        """
        self._forget(now)
        missing = (sent - path.peer_sent) - (path.rx_total - path.rx_total_then)
        excused = max(0, min(missing, self._before + self._count))
        from_before = min(excused, self._before)
        self._before -= from_before
        self._count -= excused - from_before
        path.rx_total += excused
        path.peer_sent, path.rx_total_then = sent, path.rx_total

    def _forget(self, now: int) -> None:
        if now >= self._until:
            is_old = now >= self._until + MEMORY
            self._before, self._count = 0 if is_old else self._count, 0
            self._until = now + MEMORY
