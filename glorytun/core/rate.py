"""The rate that a path may be sent on at: what its link carries, found from replies."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from glorytun.core.settings import SECOND
from glorytun.core.shaper import RATE_UNLIMITED
from glorytun.core.status import Limit

# What this implementation chose.

RATE_START = 250_000
"""bytes/s (2 Mbit/s) of a path of which nothing is known beside others: of two without a limit, all
that is sent would take the one that has no queue just now, and each seem to have room."""
QUEUE_GOAL = 4_000
"""µs of queueing at which a path is full, and no more than that."""
QUEUE_MAX = 10_000
"""µs of queueing that are too much."""
_DRAIN = SECOND // 4
"""µs in which a queue that is too long is to be gone; where there is none the rate grows by
QUEUE_GOAL of that with each interval."""
_DRAIN_TRIPS = 4
"""Round trips that it takes longer when it isn't too long by much: what is done shows so late that
more would make the queue swing, and packets overtake those of other paths."""
_CUT_MOST, _CUT_MOST_DOUBTED = 2, 8
"""A cut takes at most this part of what is delivered; and of a path that seemed to do well."""
_DOUBT = 4
"""Replies more that it takes to believe that such a path has too long a queue."""
_INTERVAL = SECOND * 9 // 100
"""µs between adjustments at the least: a beat, or nearly."""
_FASTER_AFTER, _FASTER_MOST = 8, 4
"""Intervals without a queue after which the rate grows faster, again and again, so many times."""
_MEMORY = 10 * SECOND
_NO_QUEUE = 2_000
_LOOK_AFTER = 8 * SECOND
"""µs with a queue after which less is sent for an interval, to see how long the way is without."""
_LOOK = _INTERVAL // 2
"""µs of less at the least, where it is to shorten a queue."""
_PART_OURS = 8
"""A queue beside less than that part of the rate isn't ours."""
_FUTILE = 5
"""Cuts in a row that don't shorten a queue, after which it isn't ours."""
_PLATEAU, _SWINGS = 5, 3
"""Intervals by which it is judged whether a queue that stands, or comes and goes, is ours."""
_REPLIES_MAX = 12
"""Replies that are looked at together where delays vary much."""
_RATE_MIN = 32_000
"""bytes/s: with less a link that does nothing but lose and delay isn't used any more."""
_RATE_MIN_LOSSY, _LOSS_PART = 250_000, 20
"""What is above that, and loses more than one in so many, may be in bursts."""
_LOSS_PART_BEGIN = 8
"""The same while the rate doubles: what is reordered then looks like a loss."""


class _Floor:
    """The least of what was seen in the last ten to twenty seconds."""

    __slots__ = ("_before", "_now", "_until")

    def __init__(self) -> None:
        self._now: int | None = None
        self._before: int | None = None
        self._until = 0

    def add(self, value: int, at: int) -> int:
        """The floor, with one more value."""
        if at >= self._until:
            self._before, self._now = self._now, None
            self._until = at + _MEMORY
        self._now = value if self._now is None else min(self._now, value)
        return self._now if self._before is None else min(self._now, self._before)

    def forget(self) -> None:
        """What was seen is of another way."""
        self._now = self._before = None


@dataclass(frozen=True, slots=True)
class _Point:
    """A reply: what we had sent, as frames, when; and what of that the peer had, when."""

    sent_at: int
    frames: int
    at: int
    delivered: int
    queue: int
    """µs that the reply's request has waited."""


class RateEstimator:
    """Finds the rate of a path from what arrives and how long it queues, below a ceiling.

    Fed with each reply. At first the rate doubles while all of it is used, until there is a queue.
    Where there is one, what arrives is what the link can carry; the rate is that, and a little
    less or more as the queue is longer or shorter than it should be. Where there is none, and all
    of the rate is used, it grows. A silent application, a noisy link or a wrong clock is no reason
    for less.
    """

    __slots__ = (
        "_calm",
        "_changed_at",
        "_cuts",
        "_delays",
        "_doubted",
        "_jitter",
        "_link",
        "_points",
        "_queue_before",
        "_queues",
        "_rate_before",
        "_rate_looked",
        "_received",
        "_seen_at",
        "_sent",
        "_sign_at",
        "_signs",
        "_started",
        "_trip",
        "_trips",
        "_was_found",
        "_was_ours",
        "ceiling",
        "is_alone",
        "is_found",
        "limit",
        "queue",
        "rate",
    )

    def __init__(self) -> None:
        self.ceiling = RATE_UNLIMITED
        self.rate = RATE_START
        """bytes/s."""
        self.is_found = False
        """Whether the link has shown a limit."""
        self.is_alone = True
        """Whether no other path takes part, so that it is as well to find that by going beyond."""
        self.queue = 0
        """µs that what we send waits on the way."""
        self.limit = Limit.APPLICATION
        self._trips, self._delays = _Floor(), _Floor()
        self._trip = 0
        """A round trip without a queue, µs."""
        self._queues: deque[int] = deque(maxlen=_REPLIES_MAX)
        """Of the last replies."""
        self._jitter = 0
        """µs by which delays vary from one reply to the next."""
        self._points: deque[_Point] = deque(maxlen=_REPLIES_MAX)
        self._sent = self._received = 0
        self._changed_at = 0
        self._seen_at = 0
        """When the way was seen without a queue."""
        self._calm = 0
        """Intervals in a row without a queue."""
        self._rate_looked = 0
        """To go back to after that; 0 = no need to."""
        self._doubted = 0, 0, False
        """What the rate is if the queue isn't ours, as that look is to show; that queue; and
        whether that rate is still to be found."""
        self._sign_at = 0
        """What arrived when a reply showed the first time that there is no more, bytes/s."""
        self._signs = 0
        """Replies in a row that show too long a queue."""
        self._cuts = 0
        self._queue_before = self._rate_before = 0
        self._was_ours = self._was_found = False
        """All as of the first of `_cuts`."""
        self._started = 0
        """What the link carried when there began to be a queue that isn't too long, bytes/s."""
        self._link = 0
        """What the link carried at the last of them, bytes/s."""

    def set_ceiling(self, ceiling: int) -> None:
        """Look again for what the path carries, up to what the user or the peer gave, bytes/s."""
        self.ceiling = ceiling
        self.rate = min(max(self.rate, RATE_START), ceiling)
        self.look_again()

    def look_again(self) -> None:
        """Double the rate from what it is, as at first."""
        self.is_found = False
        self._sign_at = 0

    @property
    def allowed(self) -> int:
        """bytes/s that may be sent.

        A path that is alone has no limit, nor its bursts, until there is a queue. With one from a
        guess, even of 16 times what was seen, the first 420 KB took 120 ms instead of 46 over a
        link of 100 Mbit/s: replies come once a beat, TCP's acknowledgements all the time.
        """
        return self.ceiling if self.is_alone and not self.is_found else self.rate

    def add(
        self, *, sent_at: int, sent: int, frames: int, at: int, received: int, trip: int
    ) -> None:
        """A reply came.

        At our time `sent_at`, µs, we had sent `sent` bytes, which took `frames` bytes of the link;
        at the peer's time `at` that had received `received` of them. `trip` is the round-trip
        time, µs.
        """
        self._note_delay(delay=at - sent_at, trip=trip, now=sent_at)
        last = self._points[-1] if self._points else None
        # The peer's echo may be anything: of fewer frames than before nothing can be told.
        if last is None or received < self._received or frames < last.frames:
            self._points.clear()
            self._points.append(_Point(sent_at, frames, at, frames, self._queues[-1]))
        elif sent_at - last.sent_at >= _INTERVAL and at > last.at:
            # As frames, which the rate is about: of small datagrams most is overhead.
            pushed = frames - last.frames
            delivered = (received - self._received) * pushed // max(sent - self._sent, 1)
            delivered += last.delivered
            self._points.append(_Point(sent_at, frames, at, delivered, self._queues[-1]))
            if sent_at > self._changed_at:
                self._adjust(now=sent_at + trip)
        else:
            return
        self._sent, self._received = sent, received

    def _note_delay(self, *, delay: int, trip: int, now: int) -> None:
        """How long this reply's request has queued.

        The delay one way alone would mistake a step of a clock for a queue, and a round trip alone
        a queue of the peer's.
        """
        self._trip = self._trips.add(trip, now)
        queue = min(delay - self._delays.add(delay, now), trip - self._trip)
        queues = self._queues
        queues.append(queue)
        if len(queues) >= 3:
            # A queue that grows or shrinks is no jitter.
            bend = abs(queues[-2] - (queues[-1] + queues[-3]) // 2)
            if len(queues) == _REPLIES_MAX:
                bend = min(bend, 4 * self._jitter + 1000)  # A single step is none either.
            self._jitter += (bend - self._jitter) // min(8, len(queues) - 2)
        # The more delays vary, the more of them it takes to tell.
        count = min(1 + self._jitter // 2000, _REPLIES_MAX)
        if len(queues) < max(3, count):
            self.queue = 0
        else:
            self.queue = max(0, min(list(queues)[-count:]) - self._jitter // 2)

    def _rates(self, count: int = 0) -> tuple[int, int]:
        """bytes/s that were sent and arrived of late, by so many points, or as many as it takes."""
        count = count or 3 + self._jitter // 500
        first, last = self._points[-min(count, len(self._points))], self._points[-1]
        pushed = (last.frames - first.frames) * SECOND // (last.sent_at - first.sent_at)
        delivered = (last.delivered - first.delivered) * SECOND // (last.at - first.at)
        return pushed, delivered

    def _carried(self) -> int:
        """What the link carries, bytes/s, while there is a queue.

        That is what arrives, but for the times when it had little to carry.
        """
        points = list(self._points)
        before, last = points[-2:]
        if before.queue <= _NO_QUEUE < self.queue:
            most = (last.delivered - before.delivered) * SECOND // self.queue
            return max(self._rates(2)[1], min(most, self.allowed))
        enough = (last.frames - before.frames) // 2
        delivered = duration = 0
        for one, other in pairwise(points[-(2 + self._jitter // 1000) :]):
            if other.frames - one.frames >= enough:
                delivered += other.delivered - one.delivered
                duration += other.at - one.at
        return delivered * SECOND // duration

    def _is_losing(self, part: int = _LOSS_PART) -> bool:
        """Whether less arrived than was sent, by the count of bytes: clocks have no part in it."""
        first, last = self._points[-min(3, len(self._points))], self._points[-1]
        pushed = last.frames - first.frames
        return (pushed - (last.delivered - first.delivered)) * part > pushed

    def _adjust(self, *, now: int) -> None:
        if self._rate_looked:
            self._end_look(now)
            return
        if not self.is_found and self._begin(now):
            return
        pushed, delivered = self._rates()
        if self.queue <= _NO_QUEUE:
            self._seen_at = now
            self._started = 0
        is_used = self._rates(3)[0] * 8 >= self.rate * 7
        if self._cuts and self.queue < QUEUE_GOAL:
            self._set(max(self.rate, self._link), now)  # What was to drain has drained.
        if self.queue > QUEUE_MAX + 2 * self._jitter:
            is_much = pushed * _PART_OURS > self.rate
            is_ours = is_used or (is_much and pushed > delivered + delivered // 16)
            if self._is_sure(is_ours=is_ours):
                self._shrink(pushed, delivered, now, is_ours=is_ours)
        elif is_used:
            self._cuts = self._signs = 0
            self._follow(now)
        elif self._is_losing() and pushed > _RATE_MIN_LOSSY:
            # Bursts that the link's queue had no room for, and gone before the reply.
            if self._is_sure(is_ours=True):
                self.is_found = True
                self._set(min(self.rate, max(delivered, _RATE_MIN_LOSSY)), now)
                self.limit = Limit.QUEUE
                self._calm = _FASTER_AFTER * _FASTER_MOST
        else:
            self._cuts = self._signs = 0
            self.limit = Limit.APPLICATION
            self._doubt(now)

    def _doubt(self, now: int) -> None:
        """Look whether the link carries less than the rate though that isn't used.

        Packets that take another path as soon as this one has a queue, and come back when it has
        none, never use all of a rate that is too high.
        """
        plateau, swings = self._plateau(), self._swings()
        most = plateau or (swings and max(swings, self.rate // 2))
        if _RATE_MIN < most < self.rate:
            self.is_found = True
            self._set(most, now)
            self._calm = 0 if plateau else _FASTER_AFTER * _FASTER_MOST
            self._points = deque([self._points[-1]], _REPLIES_MAX)

    def _intervals(self) -> Iterator[tuple[int, int, int, int]]:
        """From one point to the next: bytes/s sent and arrived, the queue before and after, µs."""
        for before, after in pairwise(self._points):
            pushed = (after.frames - before.frames) * SECOND // (after.sent_at - before.sent_at)
            delivered = (after.delivered - before.delivered) * SECOND // (after.at - before.at)
            yield pushed, delivered, before.queue, after.queue

    def _plateau(self) -> int:
        """What arrived at the most, if that varied less than what was sent, in a queue; else 0.

        Where a queue isn't ours it is the other way round.
        """
        busy = [one for one in self._intervals() if min(one[2:]) > _NO_QUEUE]
        if len(busy) < _PLATEAU:
            return 0
        sent, arrived = [one[0] for one in busy], [one[1] for one in busy]
        spread = max(sent) - min(sent)
        is_flat = (max(arrived) - min(arrived)) * 4 < spread and spread * 8 > max(sent)
        return max(arrived) if is_flat else 0

    def _swings(self) -> int:
        """What arrived at the most, if a queue grew when much was sent, and shrank when little was.

        To replies it looks like jitter. 0 = it isn't so.
        """
        rising, falling, most = [], [], 0
        for pushed, delivered, before, after in self._intervals():
            most = max(most, delivered)
            if after > before + QUEUE_MAX:
                rising.append(pushed)
            elif after < before - QUEUE_MAX:
                falling.append(pushed)
        if min(len(rising), len(falling)) < _SWINGS:
            return 0
        return most if min(rising) > 2 * max(falling) else 0

    def _begin(self, now: int) -> bool:
        """Whether the rate was used, so that there is more of it now, or it was too much."""
        pushed, delivered = self._rates(2)
        is_used = pushed * 4 >= self.rate * 3
        # Less than that may be probes of a size that the link doesn't take.
        is_losing = is_used and pushed > 2 * RATE_START and self._is_losing(_LOSS_PART_BEGIN)
        if is_used:
            has_queue = self._queues[-1] > QUEUE_GOAL + 4 * self._jitter
        else:
            has_queue = pushed * 2 > self.rate and self.queue > QUEUE_GOAL + self._jitter
        is_sign = is_losing or (has_queue and not self.is_alone)
        is_more = delivered * 4 > self._sign_at * 5
        if is_sign and (is_more or not self._sign_at):
            # One loss may be a request that overtook what left before it, one long delay a hiccup
            # of either host: no more than arrived for now, then more by little.
            self._sign_at = max(delivered, 1)
            if has_queue:
                self._set(min(self.rate, max(delivered, self.rate // 2)), now)
            return True
        if is_sign:
            carried = self._carried() if self.is_alone else delivered
            self.is_found = True
            self.limit = Limit.QUEUE
            self._set(max(carried, self.rate // 2), now)
            return True
        if is_more:
            self._sign_at = 0  # It was no limit.
        if is_used and not has_queue:
            # No more than that: above what it carries the rate would never be in full use.
            is_near = self._sign_at or self.queue > QUEUE_GOAL
            more = delivered * 5 // 4 if is_near else 2 * delivered
            self._set(max(more, self.rate), now)
            self.limit = Limit.RATE if self.rate == self.ceiling else Limit.QUEUE
            return True
        return False

    def _is_sure(self, *, is_ours: bool) -> bool:
        """Whether there is too long a queue, after one more reply that says so.

        One long delay may be a hiccup of either host; where delays vary much, some more may. And
        where all arrives that is sent, below the rate, it takes more to believe that it's ours.
        """
        self._signs += 1
        needed = 1 + self._jitter // 2000 + (0 if is_ours else _DOUBT)
        return self._signs > needed

    def _shrink(self, pushed: int, delivered: int, now: int, *, is_ours: bool) -> None:
        """There is too much under way: send less than arrives, for as long as that helps."""
        self._calm = self._started = 0
        self._link = carried = self._carried()
        self._cuts += 1
        if self._cuts > _FUTILE:
            is_futile = self.queue > self._queue_before * 3 // 4
            if is_futile and pushed < delivered + delivered // 16:
                # What a path carried that was hardly used says nothing of its link.
                rate = self._rate_before
                if self._was_ours:
                    rate = min(rate, self._link)
                is_anew = not self._was_ours and not self._was_found
                self._look_for_ours(rate, now, is_anew=is_anew)
                return
            self._cuts, is_ours = 1, True  # It has helped.
        if self._cuts == 1:
            self._queue_before, self._rate_before = self.queue, self.allowed
            self._was_ours, self._was_found = is_ours, self.is_found
        self.is_found = True
        self.limit = Limit.QUEUE
        less = carried * (self.queue - QUEUE_GOAL) // (_DRAIN + 4 * self._jitter)
        most = carried // (_CUT_MOST if is_ours else _CUT_MOST_DOUBTED)
        self._set(carried - min(less, most), now)

    def _look_for_ours(self, rate: int, now: int, *, is_anew: bool = False) -> None:
        """A little less hasn't helped: send half for a moment, and if that doesn't either, `rate`.

        It does where the link carries less and less. `is_anew`: that rate is still to be found.
        """
        if self._jitter >= QUEUE_GOAL:
            self._give_up(rate, now, is_anew=is_anew)  # It could not be told.
            return
        self._doubted = rate, self._queues[-1], is_anew
        self._rate_looked = self.rate
        self._set(self.rate // 2, now)

    def _end_look(self, now: int) -> None:
        rate, queue_before, is_anew = self._doubted
        duration = self._points[-1].sent_at - self._changed_at
        if rate and duration < _LOOK:
            return
        self._set(self._rate_looked, now)
        self._rate_looked = 0
        self._doubted = 0, 0, False
        if not rate:
            return
        shorter = queue_before - self._queues[-1]
        if shorter * 2 > min(queue_before, duration // 2):
            self._started = self._cuts = 0
        else:
            self._give_up(rate, now, is_anew=is_anew)

    def _give_up(self, rate: int, now: int, *, is_anew: bool) -> None:
        """Less doesn't help: the way is as long as that now, or while it is used."""
        self._delays.forget()
        self._trips.forget()
        self._cuts = self._signs = self._started = 0
        if rate < self.ceiling:
            self._set(rate, now)
            if is_anew:
                self.look_again()
        else:
            self.set_ceiling(self.ceiling)  # There had been no limit before.

    def _follow(self, now: int) -> None:
        """The path is in full use: keep it so, and see whether it carries more."""
        if self.queue >= QUEUE_GOAL + self._jitter:
            self._calm = 0
            self.limit = Limit.QUEUE
            carried = self._carried()
            self._started = self._started or min(self.rate, carried)
            if self.rate < self._started * 7 // 8:
                self._look_for_ours(self._started, now)
                return
            drain = _DRAIN + _DRAIN_TRIPS * self._trip
            less = carried * (self.queue - QUEUE_GOAL) // drain
            self._set(min(self.rate, max(carried - less, self.rate * 7 // 8)), now)
        else:
            self._calm += 1
            faster = 1 + min(self._calm // _FASTER_AFTER, _FASTER_MOST)
            more = self.rate * max(0, QUEUE_GOAL - self.queue) * faster // _DRAIN
            self._set(self.rate + more, now)
            self.limit = Limit.RATE if self.rate == self.ceiling else Limit.QUEUE
        if now - self._seen_at > _LOOK_AFTER and self._jitter < QUEUE_GOAL:
            self._seen_at, self._rate_looked = now, self.rate
            self._set(self.rate * 7 // 8, now)

    def _set(self, rate: int, now: int) -> None:
        self.rate = min(max(rate, _RATE_MIN), self.ceiling)
        self._changed_at = now
