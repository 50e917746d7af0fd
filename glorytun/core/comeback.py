"""When a path that was left is tried again: ever more seldom, while that proves wrong.

It was left for losing too much, for carrying too little too late, or since it failed under load.
Nothing is sent there then that could show that it is better now, nor that it is not.
"""

from glorytun.core.settings import SECOND

# What this implementation chose.

AGAIN = 2 * SECOND
"""µs that it is left before that, ..."""
AGAIN_MAX = 60 * SECOND
"""... twice as long when it had to be left again soon after, up to that."""
RELAPSE = 30 * SECOND
"""µs: what is left again within that should not have been used again."""


class Comeback:
    """Of one path."""

    __slots__ = ("_back_at", "_held_for", "_left_at", "_since", "_wait", "is_left")

    def __init__(self) -> None:
        self.is_left = False
        self._back_at = 0
        """When it was used again."""
        self._held_for = 0
        self._left_at = 0
        self._since = 0
        """When it was left, or tried in vain."""
        self._wait = AGAIN

    def note(self, *, is_left: bool, now: int, held_most: int = AGAIN_MAX) -> bool:
        """Whether the path is left now; True if it was held, and is used again.

        From now on it is held for `held_most` µs at the most.
        """
        if is_left == self.is_left:
            return False
        self.is_left = is_left
        if is_left:
            is_relapse = now - self._back_at < RELAPSE
            self._wait = min(2 * self._wait, AGAIN_MAX) if is_relapse else AGAIN
            self._held_for = min(self._wait, held_most) if is_relapse else 0
            self._left_at = self._since = now
            return False
        self._back_at = now
        return 0 < self._held_for <= now - self._left_at

    def is_due(self, now: int) -> bool:
        """Whether to try a path that is left."""
        return self.is_left and now - self._since >= self._wait

    def is_held(self, now: int) -> bool:
        """Whether to leave it alone though it seems to be better: that was a mistake before."""
        return self.is_left and now - self._left_at < self._held_for

    def restart(self, now: int) -> None:
        """Wait as long again: it was tried in vain, or what came meanwhile says nothing."""
        self._since = now
