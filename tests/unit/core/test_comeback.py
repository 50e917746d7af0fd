"""When a path that was left is tried again."""

from glorytun.core.comeback import AGAIN, AGAIN_MAX, RELAPSE, Comeback
from glorytun.core.settings import SECOND
from tests.unit.core.peer import NOW

STEP = SECOND // 10
USED = SECOND
"""A short use."""


def wait(comeback: Comeback, start: int) -> int:
    """µs from when it is left until it is due."""
    comeback.note(is_left=True, now=start)
    waited = next(at for at in range(0, 1000 * SECOND, STEP) if comeback.is_due(start + at))
    comeback.note(is_left=False, now=start + waited)
    return waited


def test_each_mistake_doubles_the_wait() -> None:
    """From 2 s to a minute."""
    comeback, now, waits = Comeback(), NOW, []
    for _ in range(7):
        waits.append(wait(comeback, now))
        now += waits[-1] + USED
    assert [waited // SECOND for waited in waits] == [2, 4, 8, 16, 32, 60, 60]
    assert (AGAIN, AGAIN_MAX) == (2 * SECOND, 60 * SECOND)


def test_it_begins_anew_after_a_long_use() -> None:
    comeback, now = Comeback(), NOW
    for expected, used in ((2, USED), (4, RELAPSE - 1), (8, RELAPSE), (2, USED)):
        assert wait(comeback, now) == expected * SECOND
        now += expected * SECOND + used


def test_it_is_held_only_after_a_mistake() -> None:
    """One that seems to be better at once is used at once, for the first time."""
    comeback = Comeback()
    comeback.note(is_left=True, now=NOW)
    assert not comeback.is_held(NOW)
    comeback.note(is_left=False, now=NOW)
    comeback.note(is_left=True, now=NOW + USED)
    assert comeback.is_held(NOW + USED)
    assert comeback.is_held(NOW + USED + 2 * AGAIN - 1)
    assert not comeback.is_held(NOW + USED + 2 * AGAIN)


def test_it_is_held_no_longer_than_is_said() -> None:
    """Though it is due as late as ever."""
    comeback, most = Comeback(), 3 * SECOND
    wait(comeback, NOW)
    left_at = NOW + AGAIN + USED
    comeback.note(is_left=True, now=left_at, held_most=most)
    assert comeback.is_held(left_at + most - 1)
    assert not comeback.is_held(left_at + most)
    assert not comeback.is_due(left_at + 2 * AGAIN - 1)


def test_it_says_that_it_was_held() -> None:
    """As long as it was to be, not when it was needed meanwhile."""
    for used, held, expected in ((RELAPSE, 10, False), (USED, 2, True), (USED, 1, False)):
        comeback = Comeback()
        wait(comeback, NOW)
        left_at = NOW + AGAIN + used
        assert not comeback.note(is_left=True, now=left_at)
        assert comeback.note(is_left=False, now=left_at + held * AGAIN) is expected


def test_a_try_in_vain_waits_as_long_again() -> None:
    comeback = Comeback()
    comeback.note(is_left=True, now=NOW)
    comeback.restart(NOW + AGAIN)
    assert not comeback.is_due(NOW + 2 * AGAIN - 1)
    assert comeback.is_due(NOW + 2 * AGAIN)


def test_a_try_in_vain_holds_it_no_longer() -> None:
    """Where it seems to be better later, it is used."""
    comeback = Comeback()
    wait(comeback, NOW)
    left_at = NOW + AGAIN + USED
    comeback.note(is_left=True, now=left_at)
    comeback.restart(left_at + 2 * AGAIN)
    assert not comeback.is_held(left_at + 2 * AGAIN)


def test_one_that_is_used_is_never_due() -> None:
    comeback = Comeback()
    assert not comeback.is_due(NOW)
    assert not comeback.is_held(NOW)
