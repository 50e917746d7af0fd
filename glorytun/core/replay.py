"""Windows over received times: each time is accepted once, and none that is too old to tell."""

from collections import deque

import numpy as np
import numpy.typing as npt

from glorytun.core.settings import SECOND

WINDOW = 1 << 20
"""µs that a late datagram may be behind the newest: 1.05 s, where the protocol asks for 1 s."""

CONTROL_WINDOW = 16 * SECOND
"""µs that a late control message may be behind the newest: a queue may hold one path's up."""
CONTROL_SEEN_MIN = 64

_STEP_BITS = 1
_SLOTS = WINDOW >> _STEP_BITS
_ZEROS = memoryview(bytes(_SLOTS))


class ReplayWindow:
    """One byte for each 2 µs step of the last second, as a ring indexed by time."""

    __slots__ = ("_seen", "_view", "newest")

    def __init__(self) -> None:
        self._seen = bytearray(_SLOTS)
        self._view = np.frombuffer(self._seen, np.uint8)
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

    def accept_newer(self, times: npt.NDArray[np.int64]) -> bool:
        """Accept authenticated times that increase, all newer than any before; else none of them.

        Those of a batch nearly always do.
        """
        if times[0] <= self.newest or not (times[1:] > times[:-1]).all():
            return False
        if times[-1] - times[0] >= WINDOW:
            return False
        self._advance(int(times[-1]))
        self._view[(times >> _STEP_BITS) % _SLOTS] = 1
        return True

    def accept_mixed(self, times: npt.NDArray[np.int64]) -> bool:
        """Accept authenticated times in any order if each is new by itself, else none of them.

        So it is with those of several paths. False too where it would depend on their order.
        """
        newest = max(self.newest, int(times.max()))
        steps = times >> _STEP_BITS
        ordered = np.sort(steps)
        # What is older than the ring would share the slot of something newer.
        if ordered[0] <= (newest >> _STEP_BITS) - _SLOTS or (ordered[1:] == ordered[:-1]).any():
            return False
        slots = steps % _SLOTS
        if self._view[slots[steps <= self.newest >> _STEP_BITS]].any():
            return False
        if newest > self.newest:
            self._advance(newest)
        self._view[slots] = 1
        return True

    def _advance(self, time: int) -> None:
        """Forget the steps that fall out of the window as `time` becomes the newest."""
        first = (self.newest >> _STEP_BITS) + 1
        count = min((time >> _STEP_BITS) - first + 1, _SLOTS)
        start = first % _SLOTS
        end = min(start + count, _SLOTS)
        self._seen[start:end] = _ZEROS[: end - start]
        rest = count - (end - start)
        if rest:
            self._seen[:rest] = _ZEROS[:rest]
        self.newest = time


class ControlWindow:
    """The window over a peer's control times, as wide as paths differ in delay.

    Its first message has to be *fresh*, an answer to one of ours: else what was captured before
    we started could be replayed. So has one that is too old: a peer that was restarted with an
    earlier clock begins the window again. From then on the times that were accepted before, up to
    `_distrusted_until`, need that proof too.
    """

    __slots__ = ("_distrusted_until", "_order", "_seen", "newest")

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._order: deque[int] = deque()
        """What is in `_seen`, as it came."""
        self._distrusted_until = 0
        self.newest = 0
        """The newest accepted time, µs since the epoch; 0 = none yet."""

    @property
    def is_distrusting(self) -> bool:
        """Whether what isn't fresh may yet be a replay: the peer's clock goes over old ground."""
        return self.newest <= self._distrusted_until

    def is_doubtful(self, time: int) -> bool:
        """Whether a message of this time that was refused may yet prove to be fresh."""
        return time not in self._seen

    def admit(self, time: int, *, fresh: bool) -> bool:
        """Accept the time of an authentic message, or not."""
        if time in self._seen:
            return False
        is_old = time <= self.newest - CONTROL_WINDOW
        if not fresh and (not self.newest or is_old or self._is_distrusted(time)):
            return False
        if is_old:
            self._distrusted_until = max(self._distrusted_until, self.newest)
            self.newest = time
        self._add(time)
        return True

    def _is_distrusted(self, time: int) -> bool:
        return self.newest + WINDOW < time <= self._distrusted_until

    def _add(self, time: int) -> None:
        self.newest = max(self.newest, time)
        self._seen.add(time)
        self._order.append(time)
        while len(self._order) > CONTROL_SEEN_MIN and self._is_forgettable(self._order[0]):
            self._seen.discard(self._order.popleft())

    def _is_forgettable(self, time: int) -> bool:
        """Whether the window refuses a time without remembering it."""
        is_old = time <= self.newest - CONTROL_WINDOW
        return is_old or self._is_distrusted(time)


assert WINDOW >= SECOND
