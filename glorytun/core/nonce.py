"""The time field that a sender writes, which is also the nonce: it strictly increases.

Data and control messages are sealed under different keys, so each has a `TimeField` of its own.
When datagrams leave faster than the field's step the field runs ahead of the clock, at most
`AHEAD_MAX`; then the sender waits.
"""

from glorytun.core.settings import SECOND
from glorytun.core.wire import CONTROL_BIT, SERVER_BIT

AHEAD_MAX = SECOND
"""Protocol, section 7."""


class TimeField:
    """Hands out times that increase by at least `step`, all equal to `flags` modulo `step`."""

    __slots__ = ("_flags", "_next", "step")

    def __init__(self, *, step: int, flags: int) -> None:
        self.step = step
        self._flags = flags
        self._next = 0

    @classmethod
    def for_data(cls) -> "TimeField":
        """Even times."""
        return cls(step=2, flags=0)

    @classmethod
    def for_control(cls, *, client: bool) -> "TimeField":
        """Odd times, whose bit 1 is the role: both roles seal under the same key."""
        return cls(step=4, flags=CONTROL_BIT | (0 if client else SERVER_BIT))

    def take(self, count: int, now: int) -> int | None:
        """The first of `count` times in a row, or None when they would run too far ahead."""
        first = max(self._next, now - now % self.step + self._flags)
        if first + (count - 1) * self.step > now + AHEAD_MAX:
            return None
        self._next = first + count * self.step
        return first

    def ready_at(self, count: int) -> int:
        """From when on `take(count, …)` succeeds."""
        return self._next + (count - 1) * self.step - AHEAD_MAX
