"""When the rate of a path that is left out is looked for again.

It was left out for carrying little. Nothing is sent there that could show that it carries more now.
"""

from glorytun.core.settings import SECOND

# What this implementation chose.

AGAIN = 5 * SECOND
"""µs that it is left out before that, ..."""
AGAIN_MAX = 120 * SECOND
"""... twice as long each time it was in vain, up to that."""


class Comeback:
    """Of one path."""

    __slots__ = ("_is_left_out", "_since", "_wait")

    def __init__(self) -> None:
        self._is_left_out = False
        self._since = 0
        """When that changed, or was tried to."""
        self._wait = AGAIN

    def is_due(self, *, is_left_out: bool, now: int) -> bool:
        """Whether to try now, a path that is left out, or not; says so once."""
        if is_left_out != self._is_left_out:
            self._is_left_out, self._since = is_left_out, now
        if now - self._since < self._wait:
            return False
        self._wait = min(2 * self._wait, AGAIN_MAX) if is_left_out else AGAIN
        self._since = now
        return is_left_out
