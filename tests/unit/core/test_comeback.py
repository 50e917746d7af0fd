"""When a path that was left out is tried again."""

from glorytun.core.comeback import AGAIN, AGAIN_MAX, Comeback
from glorytun.core.settings import SECOND
from tests.unit.core.peer import NOW

STEP = SECOND // 10


def tries(comeback: Comeback, start: int, duration: int) -> list[int]:
    """When it is tried while it is left out, µs from the start."""
    return [
        now - start
        for now in range(start, start + duration, STEP)
        if comeback.is_due(is_left_out=True, now=now)
    ]


def test_ever_more_seldom() -> None:
    """After 5 s, 10 s more, 20 s, 40 s, 80 s, and then every two minutes."""
    steps = [5, 10, 20, 40, 80, 120, 120]
    expected = [sum(steps[: count + 1]) * SECOND for count in range(len(steps))]
    assert tries(Comeback(), NOW, 400 * SECOND) == expected
    assert (AGAIN, AGAIN_MAX) == (5 * SECOND, 120 * SECOND)


def test_a_short_use_is_no_success() -> None:
    """One that is used for a second each time is tried no more often than one that is not."""
    comeback, now = Comeback(), NOW
    assert tries(comeback, now, 16 * SECOND) == [5 * SECOND, 15 * SECOND]
    now += 16 * SECOND
    assert not comeback.is_due(is_left_out=False, now=now)
    assert tries(comeback, now + SECOND, 40 * SECOND) == [20 * SECOND]


def test_it_begins_anew_after_a_long_use() -> None:
    comeback, now = Comeback(), NOW
    tries(comeback, now, 16 * SECOND)
    for later in range(16, 60):
        assert not comeback.is_due(is_left_out=False, now=now + later * SECOND)
    assert tries(comeback, now + 60 * SECOND, 6 * SECOND) == [5 * SECOND]
