"""Whether a slower path may take packets that would come too late there to be in order.

What overtakes or is overtaken, TCP takes for lost. So a slower path gets those from so far behind
in a flow's queue that the others carry what is before them meanwhile. Most that is as fast as it
may be has such a queue soon. Some has not, since it keeps its own queues short (as BBR does), and
copes with disorder: when a queue grows no more, and the faster paths are full, it is tried
without, for as long as that gets the path used.
"""

from collections.abc import Sequence

from glorytun.core.path import Path
from glorytun.core.settings import SECOND

# What this implementation chose.

TRIAL = SECOND
"""µs after which it is looked at whether the path is used."""
PATIENCE = SECOND // 4
"""µs in which the queue doesn't grow before that is tried, ..."""
PATIENCE_FACTOR, PATIENCE_MAX = 4, 16 * SECOND
"""... and so many times as long when it was in vain, up to that."""
GROWTH = 33, 32
"""A queue that is longer by that than before is growing."""
USED = 3, 4
"""Share of its rate that a path is used at which it was not in vain."""


class InOrder:
    """Of one path."""

    __slots__ = ("_is_waived", "_patience", "_peak", "_peak_before", "_sent", "_since")

    def __init__(self) -> None:
        self._is_waived = False
        self._patience = PATIENCE
        self._peak = self._peak_before = 0
        """The longest queue since `_since`, and in the stretch before; bytes."""
        self._sent = 0
        """The path's bytes at `_since`."""
        self._since = 0

    def is_waived(self, path: Path, faster: Sequence[Path], *, waiting: int, now: int) -> bool:
        """Whether the path may take any, when of a flow only `waiting` bytes wait."""
        self._peak = max(self._peak, waiting)
        elapsed = now - self._since
        if elapsed < (TRIAL if self._is_waived else self._patience):
            return self._is_waived
        sent = (path.tx_bytes - self._sent) * SECOND // elapsed
        is_used = sent * USED[1] >= path.shaper.rate * USED[0]
        is_full = all(other.shaper.is_full(now) for other in faster)
        if self._is_waived:
            self._is_waived = is_used
            if is_used or not is_full:
                self._patience = PATIENCE
            else:
                self._patience = min(self._patience * PATIENCE_FACTOR, PATIENCE_MAX)
        else:
            is_growing = self._peak * GROWTH[1] > self._peak_before * GROWTH[0]
            self._is_waived = is_full and not is_used and not is_growing
        self._peak_before, self._peak = self._peak, 0
        self._sent, self._since = path.tx_bytes, now
        return self._is_waived
