"""By how much packets of a flow may come too late to be in order, over paths of different delays.

What comes late, TCP takes for lost. So a slower path gets packets from so far behind in a flow's
queue that the faster ones carry what is before them meanwhile. Most that is as fast as it may be
has such a queue soon. Some has not, since it keeps its own queues short (as BBR does), and copes
with disorder. So where the faster paths are full, the slower one isn't, and neither the queue nor
what gets through grows, packets may be later, step by step; and a step is taken back when less gets
through than before it.

TCP of Linux waits for what is late only once it has seen that packets overtake each other. Until
then it takes three of them for proof of a loss, and sends again at once what is under way, so that
it never sees it (RFC 8985, section 6.2). So it gets lessons: while the slower path isn't full, two
packets that are in turn leave the other way round, again and again.
"""

from collections import deque
from collections.abc import Sequence

from glorytun.core.address import PathId
from glorytun.core.path import Path
from glorytun.core.settings import SECOND

# What this implementation chose.

SLACK = 5_000
"""µs that packets may come too late at first: as much is no more than delays vary."""
FACTOR = 2
"""A step is so many times as much."""
LOOK = SECOND // 2
"""µs after which it is seen whether another one is needed, or one was too much."""
SOON = 4 * SECOND
"""A queue that will be long enough by then is growing, ..."""
GROWTH = 33, 32
"""... and so is what gets through, if it is so much more, ..."""
LOOKS = 3
"""... both than at the looks before the last one, so many with that: each varies."""
CALM, CALM_GUESSED, CALM_DOUBTED = 1, 2, 3
"""Looks in a row at which neither grows, before a step; where the slower path's rate is a guess;
and where that is used by so many %: it may be full, as a guess is up to twice what it carried."""
DOUBTED = 40
LESS, HARMFUL = (15, 16), 2
"""A step was too much when at so many looks in a row less than that part gets through of what did
before it. (BBR is silent for a fifth of a second every ten.)"""
HOLD, HOLD_MAX = 8 * SECOND, 60 * SECOND
"""µs without a step after that; twice as long each time, up to that, ..."""
RELAPSE = 30 * SECOND
"""... unless one had done well for so long since."""
PAUSE = SECOND
"""µs without need, after which order is as at first."""
LESSON = 20_000
"""µs between two of them."""
FLOWS_MAX, COURSES_MAX = 256, 32


class _Course:
    """What is known of one flow on one slower path."""

    __slots__ = (
        "asked_at",
        "calm",
        "harmful",
        "held_until",
        "hold",
        "is_served",
        "looks",
        "peak",
        "sent",
        "since",
        "slack",
        "steps",
    )

    def __init__(self, sent: int, now: int) -> None:
        self.asked_at = now
        self.held_until = 0
        self.hold = HOLD
        self.restart(sent, now)

    def restart(self, sent: int, now: int) -> None:
        """There was a pause."""
        self.slack = SLACK
        self.steps: list[tuple[int, int]] = []
        """What the slack was before each of them, and how much got through, bytes/s."""
        self.harmful = 0
        """Looks in a row that showed less than before the last of them."""
        self.calm = 0
        """Looks in a row at which another one seemed to be needed."""
        self.is_served = False
        """Whether the path was full at the last look."""
        self.looks: deque[tuple[int, int]] = deque(maxlen=LOOKS)
        """What got through, bytes/s, and the longest queue, bytes, at the last ones."""
        self.begin_stretch(sent, now)

    def begin_stretch(self, sent: int, now: int) -> None:
        """Look again in a while: `sent` bytes had left by then, `peak` is the longest queue."""
        self.since, self.sent, self.peak = now, sent, 0

    def look(self, path: Path, faster: Sequence[Path], *, needed: int, sent: int, now: int) -> None:
        """See how it has done: whether packets may be later from now on, or less late."""
        elapsed = now - self.since
        rate = (sent - self.sent) * SECOND // elapsed
        self.is_served = path.shaper.is_full(now)
        if self._is_less(rate):
            self.harmful += 1
            if self.harmful >= HARMFUL:
                self._step_back(now)
        else:
            self.harmful = 0
            is_needed = not self.is_served and all(one.shaper.is_full(now) for one in faster)
            is_calm = is_needed and not self._is_growing(rate, needed, elapsed)
            self.calm = self.calm + 1 if is_calm else 0
            if self.calm >= _calm_before_step(path, now):
                self._step(rate, SLACK + _later(path, faster), now)
        self.looks.append((rate, self.peak))
        self.begin_stretch(sent, now)

    def _is_growing(self, rate: int, needed: int, elapsed: int) -> bool:
        """Whether order will do soon: the queue grows, or what gets through in order."""
        if not self.looks:
            return True
        older = list(self.looks)[:-1] or self.looks
        rate_then = max(rate for rate, _ in older)
        peak_then = max(peak for _, peak in older)
        missing, grown = needed - self.peak, self.peak - peak_then
        more, than = GROWTH
        return rate * than >= rate_then * more or 0 < missing * elapsed <= grown * SOON

    def _step(self, rate: int, most: int, now: int) -> None:
        """Let packets be later, but not by more than `most`."""
        slack = min(self.slack * FACTOR, most)
        if slack > self.slack and now >= self.held_until:
            self.steps.append((self.slack, rate))
            self.slack = slack
            self.calm = 0

    def _is_less(self, rate: int) -> bool:
        """Whether less gets through than before the last step."""
        part, of = LESS
        return bool(self.steps) and rate * of < self.steps[-1][1] * part

    def _step_back(self, now: int) -> None:
        """Take the last step back; of several in a row the first one counts."""
        self.slack, _ = self.steps.pop()
        self.harmful = 0
        if now >= self.held_until:
            is_relapse = self.held_until > 0 and now - self.held_until < RELAPSE
            self.hold = min(2 * self.hold, HOLD_MAX) if is_relapse else HOLD
        self.held_until = now + self.hold


class _Flow:
    """What is known of one flow."""

    __slots__ = ("asked_at", "courses", "taught_at")

    def __init__(self, now: int) -> None:
        self.asked_at = now
        self.taught_at = 0
        self.courses: dict[PathId, _Course] = {}

    def course(self, path: PathId, sent: int, now: int) -> _Course:
        """That on a path."""
        course = self.courses.get(path)
        if course is None:
            if len(self.courses) >= COURSES_MAX:
                self.courses.clear()  # Paths come and go.
            course = self.courses[path] = _Course(sent, now)
        return course

    def is_served(self, now: int) -> bool:
        """Whether each path that is asked for is full."""
        return all(one.is_served for one in self.courses.values() if now - one.asked_at <= PAUSE)


class InOrder:
    """Knows the flows that slower paths may take packets of."""

    __slots__ = ("_flows",)

    def __init__(self) -> None:
        self._flows: dict[bytes, _Flow] = {}

    def slack(
        self,
        key: bytes,
        path: Path,
        faster: Sequence[Path],
        *,
        waiting: int,
        needed: int,
        sent: int,
        now: int,
    ) -> int:
        """µs that packets of a flow may come too late, if `path` takes them.

        `waiting` bytes of it wait, `needed` would have to for `SLACK`. `sent` bytes of all flows
        have left on any path so far: of one alone it isn't known how much it could have.
        """
        flow = self._flow_of(key, now)
        flow.asked_at = now
        course = flow.course(path.id, sent, now)
        if now - course.asked_at > PAUSE:
            course.restart(sent, now)
        course.asked_at = now
        course.peak = max(course.peak, waiting)
        if now - course.since >= LOOK:
            course.look(path, faster, needed=needed, sent=sent, now=now)
        return course.slack

    def is_lesson(self, key: bytes, now: int) -> bool:
        """Whether two packets of a flow should leave the other way round now."""
        flow = self._flows.get(key)
        if flow is None or now - flow.taught_at < LESSON or now - flow.asked_at > PAUSE:
            return False
        if flow.is_served(now):
            return False
        flow.taught_at = now
        return True

    def _flow_of(self, key: bytes, now: int) -> _Flow:
        flow = self._flows.get(key)
        if flow is None:
            if len(self._flows) >= FLOWS_MAX:
                oldest = min(self._flows, key=lambda key: self._flows[key].asked_at)
                del self._flows[oldest]
            flow = self._flows[key] = _Flow(now)
        return flow


def _later(path: Path, faster: Sequence[Path]) -> int:
    """µs that packets take longer there than on the fastest one."""
    return path.delay.mean - min(one.delay.mean for one in faster)


def _calm_before_step(path: Path, now: int) -> int:
    if path.is_rate_known:
        return CALM
    return CALM_DOUBTED if path.shaper.used(now) >= DOUBTED else CALM_GUESSED
