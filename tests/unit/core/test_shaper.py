"""Datagrams leave at the rate of their path."""

import pytest

from glorytun.core.settings import SECOND
from glorytun.core.shaper import BURST, DEBT_MAX, FULL_AFTER, RATE_UNLIMITED, Shaper
from tests.unit.core.peer import NOW


def test_shaper_spaces_datagrams() -> None:
    """Datagrams leave at the rate, however they are asked for."""
    shaper = Shaper()
    shaper.rate = 1_000_000
    now, sent = NOW, 0
    while now < NOW + SECOND:
        shaper.charge(1500, now)
        sent += 1500
        now = max(now, shaper.ready_at())
    assert 1_000_000 <= sent <= 1_000_000 + 2 * 1500 + shaper.rate * BURST // SECOND


def test_parts_of_a_microsecond_add_up() -> None:
    """Else a rate that is the link's would be exceeded a little, and its queue never end."""
    shaper = Shaper()
    shaper.rate = 5_000_000
    for _ in range(10_000):
        shaper.charge(1538, NOW)  # 307.6 µs each.
        shaper.busy_until -= 300  # So that it is never in debt.
    assert shaper.busy_until - NOW == 10_000 * 1538 // 5 - 10_000 * 300


def test_shaper_gives_no_credit_for_rest() -> None:
    """After a rest no more than the burst leaves at once."""
    shaper = Shaper()
    shaper.rate = 1_000_000
    shaper.charge(1500, NOW)
    now, sent = NOW + 60 * SECOND, 0
    while shaper.ready_at() <= now:
        shaper.charge(500, now)
        sent += 500
    assert sent <= shaper.rate * BURST // SECOND + 500


def test_debt_ends_with_the_rate_that_made_it() -> None:
    """When a rate was much too low, what it made wait for isn't waited for."""
    shaper = Shaper()
    shaper.set_rate(1000)
    shaper.charge(100_000, NOW)
    shaper.set_rate(1500)
    assert shaper.ready_at() > NOW + SECOND
    shaper.set_rate(1_000_000)
    assert shaper.ready_at() <= NOW


def used(shaper: Shaper, since: int, until: int) -> int:
    """Send a packet each ms, as much as the rate allows; the ms at which it was not full."""
    idle = 0
    for now in range(since, until, 1000):
        shaper.charge(shaper.rate // 1000, now)
        idle += not shaper.is_full(now)
    return idle


@pytest.mark.parametrize("factor", [2, 3, 100])
def test_a_path_is_full_still_when_its_rate_grows(factor: int) -> None:
    """However much: else dearer paths would be shut for as long as it takes to find that again."""
    shaper = Shaper()
    shaper.set_rate(250_000)
    now = NOW + 3 * FULL_AFTER
    used(shaper, NOW, now)
    assert shaper.is_full(now)
    shaper.set_rate(factor * 250_000)
    assert shaper.is_full(now)
    assert used(shaper, now, now + 3 * FULL_AFTER) == 0


def test_debt_is_bounded() -> None:
    """Datagrams that don't wait, such as control messages, can't stop data for long."""
    shaper = Shaper()
    shaper.set_rate(1000)
    for _ in range(100):
        shaper.charge(200, NOW)
    assert shaper.ready_at() <= NOW + DEBT_MAX + 200 * SECOND // 1000


def test_unlimited_shaper_is_always_ready() -> None:
    """Without a limit a path is free whatever leaves, and whatever the limit was before."""
    shaper = Shaper()
    shaper.rate = 1000
    shaper.charge(100_000, NOW)
    assert shaper.ready_at() > NOW + 60 * SECOND
    shaper.rate = RATE_UNLIMITED
    shaper.charge(100_000, NOW)
    assert shaper.ready_at() <= NOW
