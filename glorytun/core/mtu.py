"""Path MTU discovery in the manner of RFC 8899: by probes and their answers, never by ICMP.

Sizes are UDP payload bytes. A probe is a request padded to the size in question; an answer as
long proves the size. Each probe goes out together with a plain request, and a size counts as too
big only when so many probes stay unanswered that loss, as the plain requests show it, is no
explanation (less than 1 in `DOUBT`).
"""

from glorytun.core.settings import SECOND
from glorytun.core.wire import OVERHEAD

# What the protocol says (PROTOCOL 5).

PROBE_MAX = 1450 + OVERHEAD
PROBE_MIN = 1280 + OVERHEAD
PROBE_FLOOR = 576 + OVERHEAD
"""Where the search goes on when not even `PROBE_MIN` passes."""
PROBES = 5
"""Unanswered probes that it takes at the least."""
RAISE_INTERVAL = 600 * SECOND
"""RFC 8899, 5.1.1, PMTU_RAISE_TIMER."""

# What this implementation chose.

DOUBT = 20_000
CONFIRM_INTERVAL = 5 * SECOND
"""How often a path in use has to prove its size again."""


class MtuSearch:
    """The search on one path, driven by whoever sends the requests.

    `size` is what was settled on, 0 while nothing is; `probe` the size to ask for next, 0 when
    there is nothing to ask.
    """

    __slots__ = (
        "_answered",
        "_asked",
        "_asked_at",
        "_confirm_at",
        "_confirming",
        "_high",
        "_low",
        "_raise_at",
        "probe",
        "size",
    )

    def __init__(self) -> None:
        self.size = 0
        self._confirm_at = 0
        self._raise_at = 0
        self._search(low=0, high=PROBE_MAX + 1, first=PROBE_MAX)

    def _search(self, *, low: int, high: int, first: int) -> None:
        """Find the largest size in [`low`, `high`) that passes; `low` is known to, or 0."""
        self._low = low
        self._high = high
        self._confirming = False
        self._ask(first)

    def _ask(self, size: int) -> None:
        self.probe = size
        self._asked_at = 0
        self._asked = 0
        self._answered = 0

    def on_requests_sent(self, now: int) -> None:
        """A probe and a plain request leave together."""
        self._asked_at = self._asked_at or now
        self._asked += 1

    def on_answer(self, size: int, *, sent_at: int, now: int) -> bool:
        """The request of `size` bytes that was sent at `sent_at` was answered at that length.

        True when that settles the search.
        """
        if not self.probe:
            return False
        if size < PROBE_FLOOR:
            if self._asked and sent_at >= self._asked_at:
                self._answered += 1
            return False
        if size <= self._low and not self._confirming:
            return False
        if self._confirming and size >= self.size:
            self._settle(self.size, now)
            return False  # Nothing new.
        self._low = max(self._low, size)
        if self._low >= self._high:  # A late answer proves that we gave up too early.
            self._high = PROBE_MAX + 1
        return self._next_step(now)

    def is_too_big(self) -> bool:
        """Whether the probe's silence can't be explained by the loss of plain requests."""
        if self._asked < PROBES or not self._answered:
            return False
        lost = max(0, self._asked - self._answered) + 1
        return bool(lost**self._asked * DOUBT < (self._asked + 2) ** self._asked)

    def on_too_big(self, now: int) -> bool:
        """Give the probed size up; True when that settles the search."""
        if self._confirming:
            # What passed passes no more: the path leads over another link now.
            self.size = 0
            self._search(low=0, high=PROBE_MAX + 1, first=PROBE_MAX)
            return False
        self._high = self.probe
        return self._next_step(now)

    def next_timeout(self) -> int | None:
        """When a settled size is looked at again."""
        return None if self.probe else min(self._confirm_at, self._raise_at)

    def on_timeout(self, now: int) -> None:
        """Confirm the settled size, or try larger ones again."""
        if self.probe:
            return
        if now >= self._raise_at and self.size < PROBE_MAX:
            self._search(low=self.size, high=PROBE_MAX + 1, first=PROBE_MAX)
        elif now >= self._confirm_at:
            self._confirming = True
            self._ask(self.size)

    def _next_step(self, now: int) -> bool:
        bottom = self._low + 1
        if not self._low:
            bottom = PROBE_MIN if self._high > PROBE_MIN else PROBE_FLOOR
        if bottom < self._high:
            self._ask((bottom + self._high - 1) // 2 if self._high <= PROBE_MAX else PROBE_MAX)
            return False
        if not self._low:
            # Not even the floor passes, which no link of today explains: ask again.
            self._search(low=0, high=PROBE_MAX + 1, first=PROBE_MAX)
            return False
        self._raise_at = now + RAISE_INTERVAL
        changed = self._low != self.size
        self._settle(self._low, now)
        return changed

    def _settle(self, size: int, now: int) -> None:
        self.size = size
        self.probe = 0
        self._confirming = False
        self._confirm_at = now + CONFIRM_INTERVAL
