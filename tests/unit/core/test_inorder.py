"""When order is given up, and when it isn't any more."""

import pytest

from glorytun.core.inorder import AGAIN, AGAIN_FACTOR, PATIENCE, TRIAL, InOrder
from glorytun.core.settings import SECOND
from tests.unit.core.peer import NOW
from tests.unit.core.test_scheduler import make_path

RATE = 1_000_000
STEP = 10_000


class Course:
    """A path that is asked for all the time, beside one that is full."""

    def __init__(self) -> None:
        self.now = NOW
        self.path, self.fast = make_path(1, rate=RATE), make_path(2, rate=RATE)
        self.in_order = InOrder()
        self.is_waived = False
        self.used_in_order = 0.0

    def run(
        self,
        duration: int,
        *,
        waiting: int = 50_000,
        growth: int = 0,
        full: bool = True,
        used: float = 1.0,
    ) -> int:
        """µs after which something changed, at most `duration`.

        The queue of `waiting` bytes grows by `growth` each second; the path is used at that share
        of its rate where it is allowed to.
        """
        start = self.now
        while self.now < start + duration:
            self.now += STEP
            if full:
                self.fast.count_sent(size=RATE * STEP // SECOND, count=0, now=self.now)
            share = used if self.is_waived else self.used_in_order
            self.path.tx_bytes += int(share * RATE * STEP / SECOND)
            length = waiting + growth * (self.now - start) // SECOND
            before, self.is_waived = (
                self.is_waived,
                self.in_order.is_waived(self.path, [self.fast], waiting=length, now=self.now),
            )
            if before != self.is_waived:
                break
        return self.now - start


def test_a_queue_that_stays_short_is_enough() -> None:
    course = Course()
    assert PATIENCE < course.run(5 * SECOND) <= 4 * PATIENCE
    assert course.is_waived


def test_whether_order_can_be_kept_is_tried_more_and_more_rarely() -> None:
    course = Course()
    course.run(5 * SECOND)
    for factor in (1, AGAIN_FACTOR):
        assert course.run(60 * SECOND) == pytest.approx(factor * AGAIN, abs=TRIAL)
        assert not course.is_waived
        assert course.run(60 * SECOND) <= 2 * PATIENCE
        assert course.is_waived


def test_one_that_grows_will_do_without() -> None:
    course = Course()
    assert course.run(5 * SECOND, waiting=10_000, growth=20_000) == 5 * SECOND
    assert not course.is_waived


def test_a_path_that_carries_more_and_more_in_order_will_do_without() -> None:
    course = Course()
    for step in range(1, 30):
        course.used_in_order = step / 50
        course.run(PATIENCE)
    assert not course.is_waived


@pytest.mark.parametrize("full", [True, False])
def test_there_is_no_need_while_the_faster_path_has_room(*, full: bool) -> None:
    course = Course()
    course.run(5 * SECOND, full=full)
    assert course.is_waived is full


def test_what_is_in_vain_is_tried_more_and_more_rarely() -> None:
    """Four times as long after each time, as far as 16 s."""
    course = Course()
    pauses = []
    for _ in range(5):
        pauses.append(course.run(60 * SECOND))
        assert course.is_waived
        assert course.run(60 * SECOND, used=0.3) <= TRIAL + STEP
        assert not course.is_waived
    half, two, eight, sixteen, again = [round(pause / SECOND, 1) for pause in pauses]
    assert half <= 2
    assert (two, eight, sixteen, again) == pytest.approx((2, 8, 16, 16), abs=1)


def test_the_end_of_a_load_says_nothing() -> None:
    course = Course()
    course.run(5 * SECOND)
    course.run(5 * SECOND, full=False, used=0)
    assert not course.is_waived
    assert course.run(5 * SECOND) <= 4 * PATIENCE
