"""By how much packets of a flow may come too late to be in order."""

import pytest

from glorytun.core.inorder import (
    COURSES_MAX,
    FLOWS_MAX,
    HOLD,
    HOLD_MAX,
    LESSON,
    LOOK,
    PAUSE,
    RELAPSE,
    SLACK,
    InOrder,
)
from glorytun.core.settings import SECOND
from tests.unit.core.peer import NOW
from tests.unit.core.test_scheduler import make_path

RATE = 1_000_000
STEP = 10_000
KEY = b"flow"
NEEDED = 100_000


class Course:
    """A flow that a slow path is asked for all the time, beside a fast one."""

    def __init__(self, *, later: int = 100_000) -> None:
        """The slow path takes `later` µs more."""
        self.now = NOW
        self.fast = make_path(1, rate=RATE, rtt=20_000)
        self.slow = make_path(2, rate=RATE, rtt=20_000 + 2 * later)
        self.in_order = InOrder()
        self.sent = 0
        self.slack = SLACK

    def run(
        self,
        duration: int,
        *,
        waiting: int = 50_000,
        growth: int = 0,
        rate: int = RATE,
        full: bool = True,
        slow_full: bool = False,
    ) -> list[int]:
        """The slack after each change of it; the queue of `waiting` bytes grows each second."""
        start, changes = self.now, []
        while self.now < start + duration:
            self.now += STEP
            for path, is_used in ((self.fast, full), (self.slow, slow_full)):
                if is_used:
                    path.count_sent(size=RATE * STEP // SECOND, count=0, now=self.now)
            self.sent += rate * STEP // SECOND
            slack = self.in_order.slack(
                KEY,
                self.slow,
                [self.fast],
                waiting=waiting + growth * (self.now - start) // SECOND,
                needed=NEEDED,
                sent=self.sent,
                now=self.now,
            )
            if slack != self.slack:
                self.slack = slack
                changes.append(slack)
        return changes


def test_a_queue_that_stays_short_is_let_out_of_order_step_by_step() -> None:
    """As far as a packet can be late at all."""
    course = Course()
    assert course.run(10 * SECOND) == [10_000, 20_000, 40_000, 80_000, 105_000]
    assert Course(later=10_000).run(10 * SECOND) == [10_000, 15_000]


def test_one_that_is_growing_will_do_without() -> None:
    assert Course().run(3 * SECOND, waiting=10_000, growth=25_000) == []
    assert Course().run(3 * SECOND, waiting=10_000, growth=5_000) != []


def test_one_that_is_long_enough_at_times_only_has_to_grow_too() -> None:
    assert Course().run(3 * SECOND, waiting=NEEDED) != []


def test_what_gets_through_more_and_more_will_do_without() -> None:
    course = Course()
    for step in range(20):
        assert course.run(LOOK, rate=round(RATE * 1.04**step)) == []


@pytest.mark.parametrize(("full", "slow_full"), [(False, False), (True, True), (False, True)])
def test_only_a_slow_path_with_room_beside_a_full_one_is_a_reason(
    *, full: bool, slow_full: bool
) -> None:
    assert Course().run(5 * SECOND, full=full, slow_full=slow_full) == []


def test_a_step_that_harms_is_taken_back_and_not_tried_again_for_a_while() -> None:
    """For 8, 16, 32 s, and a minute each time after that."""
    course = Course()
    course.run(10 * SECOND)
    hold = HOLD
    for _ in range(5):
        changes = course.run(SECOND + LOOK, rate=RATE // 2)
        assert changes == [80_000]
        assert course.run(hold - LOOK) == []
        assert course.run(2 * SECOND) == [105_000]
        hold = min(2 * hold, HOLD_MAX)


def test_steps_are_taken_back_as_far_as_they_harm() -> None:
    """Each is held against what got through before it."""
    course = Course()
    course.run(STEP)  # So that a look is the last thing in each of the stretches.
    for rate in (RATE, RATE * 3 // 2, RATE * 2):
        while not course.run(LOOK, rate=rate):
            pass
    assert course.slack == 40_000
    assert course.run(6 * SECOND, rate=RATE * 5 // 4) == [20_000, 10_000]
    assert course.run(2 * SECOND, rate=RATE // 2) == [SLACK]


def test_a_silence_of_a_moment_is_no_harm() -> None:
    """BBR's is in the middle of a look, or in two of them."""
    course = Course()
    course.run(10 * SECOND)
    for before in range(0, LOOK, LOOK // 5):
        assert course.run(before + 2 * LOOK) == []
        assert course.run(SECOND // 5, rate=0) == []
        assert course.run(4 * LOOK) == []
    assert course.slack == 105_000


def test_after_a_pause_order_is_as_at_first() -> None:
    course = Course()
    course.run(10 * SECOND)
    course.now += PAUSE + 1
    assert course.run(STEP) == [SLACK]


def test_lessons_are_given_until_the_slow_path_is_full() -> None:
    """Not to a flow that isn't asked for."""
    course = Course()
    lessons = 0
    for _ in range(SECOND // STEP):
        course.run(STEP)
        lessons += course.in_order.is_lesson(KEY, course.now)
    assert lessons == SECOND // LESSON
    assert not course.in_order.is_lesson(b"other", course.now)
    assert not course.in_order.is_lesson(KEY, course.now + PAUSE + 1)
    course.run(2 * SECOND, slow_full=True)
    assert not course.in_order.is_lesson(KEY, course.now)
    course.run(SECOND)
    assert course.in_order.is_lesson(KEY, course.now)


def test_what_did_well_for_long_is_not_held_longer_next_time() -> None:
    course = Course()
    course.run(10 * SECOND)
    for _ in range(3):
        assert course.run(SECOND + LOOK, rate=RATE // 2) == [80_000]
        assert course.run(HOLD - LOOK) == []
        assert course.run(2 * SECOND) == [105_000]
        course.run(RELAPSE)


def test_slower_paths_are_judged_each_by_itself() -> None:
    """One that is full has no part in how late packets may be on another."""
    course = Course()
    full = make_path(3, rate=RATE, rtt=40_000)
    for _ in range(5 * SECOND // STEP):
        course.run(STEP)
        full.count_sent(size=RATE * STEP // SECOND, count=0, now=course.now)
        others = {"waiting": 50_000, "needed": NEEDED, "sent": course.sent, "now": course.now}
        assert course.in_order.slack(KEY, full, [course.fast], **others) == SLACK
    assert course.slack == 105_000
    assert course.in_order.is_lesson(KEY, course.now)


def test_paths_that_come_and_go_are_forgotten() -> None:
    course = Course()
    for number in range(3 * COURSES_MAX):
        course.slow = make_path(10 + number, rate=RATE, rtt=100_000)
        course.run(STEP)
    (flow,) = course.in_order._flows.values()
    assert len(flow.courses) <= COURSES_MAX


def test_what_is_known_of_flows_is_bounded() -> None:
    """The one that was asked for the longest ago is forgotten."""
    course = Course()
    course.run(2 * SECOND)
    assert course.slack > SLACK
    for number in range(3 * FLOWS_MAX):
        course.in_order.slack(
            b"%d" % number,
            course.slow,
            [course.fast],
            waiting=5000,
            needed=NEEDED,
            sent=course.sent,
            now=course.now,
        )
        if number % (FLOWS_MAX // 2) == 0:
            course.run(STEP)
    assert course.slack > SLACK
    assert len(course.in_order._flows) == FLOWS_MAX
