"""Whether a slower path may take packets that would come too late there to be in order.

What overtakes or is overtaken, TCP takes for lost. So a slower path gets those from so far behind
in a flow's queue that the others carry what is before them meanwhile. Most that is as fast as it
may be has such a queue soon. Some has not, since it keeps its own queues short (as BBR does), and
copes with disorder: when a queue grows no more, and the faster paths are full, it is tried
without, for as long as that gets the path used. From time to time it is seen whether the queue is
long enough meanwhile, since most TCP sends much twice where order is not kept.
"""

from collections.abc import Sequence

from glorytun.core.path import Path
from glorytun.core.settings import SECOND

# What this implementation chose.

TRIAL = SECOND
"""µs after which it is looked at whether the path is used."""
PATIENCE = SECOND // 2
"""µs in which the queue doesn't grow before that is tried, ..."""
PATIENCE_FACTOR, PATIENCE_MAX = 4, 16 * SECOND
"""... and so many times as long when it was in vain, up to that."""
AGAIN = 8 * SECOND
"""µs after which it is tried whether order can be kept by now, ..."""
AGAIN_FACTOR, AGAIN_MAX = 4, 60 * SECOND
"""... and so many times as long when it could not, up to that."""
GROWTH = 33, 32
"""A queue that is longer by that than before is growing."""
USED = 3, 5
"""Share of its rate that a path is used at which it was not in vain."""


class InOrder:
    """Of one path."""

    __slots__ = (
        "_again",
        "_is_waived",
        "_patience",
        "_peak",
        "_peak_before",
        "_rate_before",
        "_sent",
        "_since",
        "_turned_at",
    )

    def __init__(self) -> None:
        self._is_waived = False
        self._turned_at = 0
        """When that has changed."""
        self._patience = PATIENCE
        self._again = AGAIN
        self._peak = self._peak_before = 0
        """The longest queue since `_since`, and in the stretch before; bytes."""
        self._sent = 0
        """The path's bytes at `_since`."""
        self._rate_before = 0
        """bytes/s of the path in the stretch before."""
        self._since = 0

    def is_waived(self, path: Path, faster: Sequence[Path], *, waiting: int, now: int) -> bool:
        """Whether the path may take any, when of a flow only `waiting` bytes wait."""
        self._peak = max(self._peak, waiting)
        elapsed = now - self._since
        if elapsed < (TRIAL if self._is_waived else self._patience):
            return self._is_waived
        rate = (path.tx_bytes - self._sent) * SECOND // elapsed
        is_used = rate * USED[1] >= path.shaper.rate * USED[0]
        is_full = all(other.shaper.is_full(now) for other in faster)
        if self._is_waived:
            self._go_on(is_used=is_used, is_full=is_full, now=now)
        elif is_full and not is_used and not self._is_growing(rate):
            self._begin(now)
        self._peak_before, self._peak = self._peak, 0
        self._sent, self._since, self._rate_before = path.tx_bytes, now, rate
        return self._is_waived

    def _is_growing(self, rate: int) -> bool:
        """Whether order will do soon: the queue grows, or what the path carries in order."""
        more, than = GROWTH
        return (
            self._peak * than > self._peak_before * more or rate * than > self._rate_before * more
        )

    def _begin(self, now: int) -> None:
        is_back = now - self._turned_at < TRIAL
        self._again = min(self._again * AGAIN_FACTOR, AGAIN_MAX) if is_back else AGAIN
        self._is_waived, self._turned_at = True, now

    def _go_on(self, *, is_used: bool, is_full: bool, now: int) -> None:
        if is_used or not is_full:
            self._patience = PATIENCE
        else:
            self._patience = min(self._patience * PATIENCE_FACTOR, PATIENCE_MAX)
        if not is_used or now - self._turned_at >= self._again:
            self._is_waived, self._turned_at = False, now
