"""Windows over received times: each time is accepted once, and none that is too old to tell."""

from glorytun.core.settings import SECOND

WINDOW = 1 << 20
"""µs that a late datagram may be behind the newest: 1.05 s, where the protocol asks for 1 s."""

_STEP_BITS = 1
_SLOTS = WINDOW >> _STEP_BITS
_ZEROS = memoryview(bytes(_SLOTS))


class ReplayWindow:
    """One byte for each 2 µs step of the last second, as a ring indexed by time.

    The two flag bits of a control time are 1 or 3, so control times of both roles and data times
    all fall into different steps when they differ at all.
    """

    __slots__ = ("_seen", "newest")

    def __init__(self) -> None:
        self._seen = bytearray(_SLOTS)
        self.newest = 0
        """The newest accepted time, µs since the epoch; 0 = none yet."""

    def is_new(self, time: int) -> bool:
        """Whether this time could be accepted."""
        if time > self.newest:
            return True
        if time <= self.newest - WINDOW:
            return False
        return not self._seen[(time >> _STEP_BITS) % _SLOTS]

    def accept(self, time: int) -> bool:
        """Accept a time that was authenticated; False when it was accepted before or is too old."""
        if not self.is_new(time):
            return False
        if time > self.newest:
            self._advance(time)
        self._seen[(time >> _STEP_BITS) % _SLOTS] = 1
        return True

    def restart(self, time: int) -> None:
        """Begin again at `time`, which may be older: the peer's clock was proven to be set back."""
        self._seen[:] = _ZEROS
        self.newest = time
        self._seen[(time >> _STEP_BITS) % _SLOTS] = 1

    def _advance(self, time: int) -> None:
        """Forget the steps that fall out of the window as `time` becomes the newest."""
        first = (self.newest >> _STEP_BITS) + 1
        count = min((time >> _STEP_BITS) - first + 1, _SLOTS)
        start = first % _SLOTS
        end = min(start + count, _SLOTS)
        self._seen[start:end] = _ZEROS[: end - start]
        rest = count - (end - start)
        self._seen[:rest] = _ZEROS[:rest]
        self.newest = time


class ControlWindow(ReplayWindow):
    """The window over a peer's control times, which also lets a peer's clock be set back.

    After such a peer has restarted, all it says is too old. A message that answers one of ours
    (a *fresh* one) can't be a replay, whatever its time: it begins the window again. From then on
    the times that were accepted before, up to `_distrusted_until`, need that proof too.
    """

    __slots__ = ("_distrusted_until",)

    def __init__(self) -> None:
        super().__init__()
        self._distrusted_until = 0

    def is_doubtful(self, time: int) -> bool:
        """Whether a message of this time is refused only for want of freshness."""
        return time <= self.newest - WINDOW or self.newest + WINDOW < time

    def admit(self, time: int, *, fresh: bool) -> bool:
        """Accept the time of an authentic message, or not."""
        if self.newest + WINDOW < time <= self._distrusted_until and not fresh:
            return False
        if self.accept(time):
            return True
        if not fresh or time > self.newest - WINDOW:
            return False
        self._distrusted_until = max(self._distrusted_until, self.newest)
        self.restart(time)
        return True


assert WINDOW >= SECOND
