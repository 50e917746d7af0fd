"""Path MTU discovery in the manner of RFC 8899: by probes and their answers, never by ICMP.

Sizes are UDP payload bytes. A probe is a request padded to the size in question; an answer as
long proves the size. Each probe leaves together with a plain request, and a size counts as too
big only when so many probes stay unanswered that loss, as the plain requests show it, is no
explanation (less than 1 in `DOUBT`).

A search begins with a ladder of sizes at once: one round trip later the path is of use at the
largest that was answered. Then the next step of the ladder is tried, and halves after that, until
the exact size is known.
"""

from glorytun.core.settings import SECOND
from glorytun.core.wire import OVERHEAD

# What the protocol says (PROTOCOL 5).

PROBE_MAX = 1450 + OVERHEAD
PROBE_MIN = 1280 + OVERHEAD
"""An inner link of less would lose its IPv6 addresses (RFC 8200, 5)."""
PROBE_FLOOR = 576 + OVERHEAD
"""Smaller ones aren't tried: RFC 791 has every host take 576 bytes."""
PROBES = 5
"""Unanswered probes that it takes at the least."""
RAISE_INTERVAL = 600 * SECOND
"""RFC 8899, 5.1.1, PMTU_RAISE_TIMER."""

# What this implementation chose.

LADDER = (PROBE_FLOOR, 1024, 1232, PROBE_MIN, 1352, 1412, 1452, PROBE_MAX)
"""Common ones are among them: Ethernet over IPv4 and IPv6, the least link for IPv6."""
DOUBT = 20_000
ASKED_MAX = 64
"""Probes of one size after which the count begins again, since an outage says nothing of later."""
CONFIRM_INTERVAL = 5 * SECOND
"""How often a path in use has to prove its size again."""


class MtuSearch:
    """The search on one path, driven by whoever sends the requests."""

    __slots__ = (
        "_answered",
        "_asked",
        "_asked_at",
        "_confirm_at",
        "_confirming",
        "_high",
        "_is_settled",
        "_raise_at",
        "is_fruitless",
        "probe",
        "size",
    )

    def __init__(self) -> None:
        self.size = 0
        """The largest size that is known to pass; 0 = none yet."""
        self.probe = 0
        """The size to ask for next, 0 when there is nothing to ask."""
        self.is_fruitless = False
        """Whether not even the floor passes: then it is no use to ask often."""
        self._confirm_at = 0
        self._raise_at = 0
        self.restart()

    def restart(self) -> None:
        """Nothing is known any more."""
        self.size = 0
        self._is_settled = False
        self._search()

    @property
    def usable(self) -> int:
        """The size to use, 0 when there is none: small ones have to be the final result first."""
        return self.size if self._is_settled or self.size >= PROBE_MIN else 0

    def _search(self) -> None:
        """Look for larger sizes than the one that is known."""
        self._high = PROBE_MAX + 1
        """The smallest size that is known to be too big."""
        self._confirming = False
        self._ask(self._next_size())

    def _ask(self, size: int) -> None:
        self.probe = size
        self._asked_at = 0
        self._asked = 0
        self._answered = 0

    def _next_size(self) -> int:
        """The next step of the ladder, or half way once one is known to be too big."""
        if self._high > PROBE_MAX:
            return next(size for size in LADDER if size > self.size)
        return max((self.size + self._high) // 2, PROBE_FLOOR)

    def take_probes(self, now: int) -> tuple[int, ...]:
        """The sizes to ask for, together with a plain request that leaves now."""
        if not self.probe:
            return ()
        first = not self._asked_at and not self.size
        self._asked_at = self._asked_at or now
        self._asked += 1
        # The largest first, so that its answer is.
        return LADDER[::-1] if first else (self.probe,)

    def on_answer(self, size: int, *, sent_at: int, now: int) -> bool:
        """The request of `size` bytes that was sent at `sent_at` was answered at that length.

        True when that changes `size`.
        """
        if not self.probe or size > PROBE_MAX:
            return False
        if size < PROBE_FLOOR:
            if self._asked and sent_at >= self._asked_at:
                self._answered += 1
            return False
        if self._confirming and size >= self.size:
            self._settle(now)
            return False
        if size <= self.size:
            return False
        self.size = size
        self.is_fruitless = False
        if size >= self._high:  # A late answer proves that we gave up too early.
            self._high = PROBE_MAX + 1
        if self.probe <= size or self._high <= PROBE_MAX:
            self._next_step(now)
        return True

    def is_too_big(self) -> bool:
        """Whether the probe's silence can't be explained by the loss of plain requests."""
        asked = self._asked
        if asked < PROBES:
            return False
        lost = max(0, asked - self._answered) + 1
        if self._answered and lost**asked * DOUBT < (asked + 2) ** asked:
            return True
        if asked >= ASKED_MAX:
            self._ask(self.probe)
        return False

    def on_too_big(self, now: int) -> None:
        """Give the probed size up."""
        if self._confirming:
            self.restart()  # What passed passes no more: the path leads over another link now.
            return
        self._high = self.probe
        self._next_step(now)

    def on_timeout(self, now: int) -> None:
        """Confirm the settled size, or try larger ones again."""
        if self.probe:
            return
        if now >= self._raise_at and self.size < PROBE_MAX:
            self._search()
        elif now >= self._confirm_at:
            self._confirming = True
            self._ask(self.size)

    def _next_step(self, now: int) -> None:
        if self._high <= PROBE_FLOOR:
            self.is_fruitless = True
            self.restart()
        elif self.size + 1 < self._high and self.size < PROBE_MAX:
            self._ask(self._next_size())
        else:
            self._raise_at = now + RAISE_INTERVAL
            self._settle(now)

    def _settle(self, now: int) -> None:
        self.probe = 0
        self._is_settled = True
        self._confirming = False
        self._confirm_at = now + CONFIRM_INTERVAL
