"""When a path that lost too much is judged by its last seconds alone.

No data is sent there, so its loss over so many datagrams would be that of before for long. A few
seconds of beats tell little, though: after one mistake the next look takes twice as long.
"""

from glorytun.core.settings import SECOND
from glorytun.core.stat import LOSS_FULL, LossEstimator

# What this implementation chose.

LOOK = 2 * SECOND
"""µs that it is looked at, ..."""
LOOK_MAX = 60 * SECOND
"""... twice as long when it had to be left again soon after, up to that."""
SAMPLE_MIN = 30
"""Datagrams that it takes at the least."""
RELAPSE = 30 * SECOND
"""µs: what is left again within that should not have been used again."""


class Regain:
    """Of one path."""

    __slots__ = ("_back_at", "_look", "_received", "_sent", "_since", "_was_lossy")

    def __init__(self) -> None:
        self._was_lossy = False
        self._back_at = 0
        """When it was used again."""
        self._look = LOOK
        self._since = self._sent = self._received = 0
        """When the look began, and the totals then."""

    def restart(self, loss: LossEstimator, now: int) -> None:
        """Begin to look: what was sent up to now says nothing."""
        self._since, self._sent, self._received = now, loss.sent, loss.received

    def note(self, loss: LossEstimator, *, is_lossy: bool, limit: int, now: int) -> None:
        """New totals of a path, which is lossy or not; of 255, `limit` is little enough."""
        if is_lossy != self._was_lossy:
            self._was_lossy = is_lossy
            self._turn(loss, now)
        sent, received = loss.sent - self._sent, loss.received - self._received
        if not is_lossy or now - self._since < self._look or sent < SAMPLE_MIN:
            return
        if max(0, sent - received) * LOSS_FULL <= limit * sent:
            loss.replace(sent=sent, received=received)
        self.restart(loss, now)

    def _turn(self, loss: LossEstimator, now: int) -> None:
        if not self._was_lossy:
            self._back_at = now
            return
        is_relapse = now - self._back_at < RELAPSE
        self._look = min(2 * self._look, LOOK_MAX) if is_relapse else LOOK
        self.restart(loss, now)
