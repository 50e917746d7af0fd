"""What an emulated link does to frames, in virtual time."""

import itertools
from dataclasses import replace
from random import Random

import pytest

from tests.emulator.model import ETHERNET_HEADER, FRAMING, MILLISECOND, SECOND, Direction, Profile

SIZE = 1500
FRAME = bytes(SIZE + ETHERNET_HEADER)
ON_LINE = len(FRAME) + FRAMING
"""Bytes of the line that `FRAME` takes."""


def frame(number: int, size: int = SIZE) -> bytes:
    return number.to_bytes(4, "big").ljust(size + ETHERNET_HEADER, b"\0")


def number_of(sent: bytes) -> int:
    return int.from_bytes(sent[:4], "big")


def link(profile: Profile, seed: int = 1) -> Direction:
    return Direction(profile, Random(seed))


def flood(direction: Direction, count: int, interval: int = 0) -> list[bytes]:
    """Frames that come one by one; what has departed when all have."""
    for index in range(count):
        direction.arrive(frame(index), index * interval)
    end = 1_000_000 * SECOND
    direction.advance(end)
    return direction.departures(end)


def test_a_frame_takes_the_line_for_its_length_and_then_the_delay() -> None:
    direction = link(Profile(rate=10, delay=7))
    direction.arrive(FRAME, 0)
    at = ON_LINE * 800 + 7 * MILLISECOND
    direction.advance(at)
    assert direction.departures(at - 1) == []
    assert direction.departures(at) == [FRAME]


def test_frames_leave_at_the_rate() -> None:
    """A thousand frames that come at once take a thousand times as long as one."""
    direction = link(Profile(rate=100, queue=1e9))
    for index in range(1000):
        direction.arrive(frame(index), 0)
    end = 1000 * ON_LINE * 80
    direction.advance(end - 1)
    assert direction.counters.sent == 999
    direction.advance(end)
    assert direction.counters.sent == 1000
    assert direction.counters.sent_bytes == 1000 * ON_LINE


def test_a_line_that_was_idle_owes_nothing() -> None:
    direction = link(Profile(rate=10))
    direction.arrive(FRAME, 0)
    direction.arrive(FRAME, SECOND)
    direction.advance(SECOND + ON_LINE * 800 - 1)
    assert direction.counters.sent == 1
    assert direction.next_at() == ON_LINE * 800  # The first, which nobody has taken yet.


@pytest.mark.parametrize(
    ("profile", "held"),
    [
        (Profile(rate=10, queue=50), 10_000_000 / 8 * 0.05),
        (Profile(rate=10, queue_bytes=30_000), 30_000),
    ],
    ids=["as time", "as bytes"],
)
def test_the_queue_is_limited(profile: Profile, held: float) -> None:
    direction = link(profile)
    for index in range(100):
        direction.arrive(frame(index), 0)
    counters = direction.count(0)
    assert counters.queued == int(held // ON_LINE) * ON_LINE
    assert counters.overflowed == 100 - held // ON_LINE
    assert counters.queue_ms == pytest.approx(counters.queued * 8 / 10_000, rel=0.01)


def test_a_change_of_rate_meets_what_waits() -> None:
    """A tenth of the rate: what is left of the frame on the line takes ten times as long too."""
    direction = link(Profile(rate=100, queue=1e9))
    for index in range(3):
        direction.arrive(frame(index), 0)
    one = ON_LINE * 80
    direction.change(replace(direction.profile, rate=10), one // 2)
    assert direction.next_at() == one // 2 + one // 2 * 10
    end = one // 2 + one // 2 * 10 + 2 * one * 10
    direction.advance(end - 1)
    assert direction.counters.sent == 2
    direction.advance(end)
    assert direction.counters.sent == 3


def test_without_a_rate_nothing_waits() -> None:
    direction = link(Profile(delay=1))
    for index in range(1000):
        direction.arrive(frame(index), 5)
    assert len(direction.departures(5 + MILLISECOND)) == 1000


def test_jitter_delays_and_keeps_the_order() -> None:
    direction = link(Profile(delay=10, jitter=20))
    frames = flood(direction, 500, MILLISECOND)
    assert [number_of(one) for one in frames] == list(range(500))
    direction = link(Profile(delay=10, jitter=20))
    delays = []
    for index in range(500):
        at = index * SECOND
        direction.arrive(FRAME, at)
        due_at = direction.next_at()
        assert due_at is not None
        delays.append((due_at - at) / MILLISECOND)
        direction.departures(due_at)
    assert min(delays) == pytest.approx(10, abs=0.5)
    assert max(delays) == pytest.approx(30, abs=0.5)
    assert sum(delays) / 500 == pytest.approx(20, abs=1)


def test_random_loss_has_its_share_and_no_memory() -> None:
    direction = link(Profile(loss=0.1))
    kept = {number_of(one) for one in flood(direction, 20_000)}
    lost = [index not in kept for index in range(20_000)]
    assert sum(lost) == direction.counters.lost == pytest.approx(2000, rel=0.1)
    again = sum(one and other for one, other in itertools.pairwise(lost))
    assert again / sum(lost) == pytest.approx(0.1, abs=0.03)


def test_bursts_have_their_share_and_their_length() -> None:
    direction = link(Profile(burst_loss=0.05, burst=8))
    kept = {number_of(one) for one in flood(direction, 100_000)}
    lost = [index not in kept for index in range(100_000)]
    bursts = sum(one and not before for before, one in zip([False, *lost], lost, strict=False))
    assert sum(lost) / 100_000 == pytest.approx(0.05, rel=0.15)
    assert sum(lost) / bursts == pytest.approx(8, rel=0.15)


def test_reordered_frames_are_overtaken() -> None:
    direction = link(Profile(reorder=0.1, reorder_by=2.5))
    numbers = [number_of(one) for one in flood(direction, 2000, MILLISECOND)]
    assert sorted(numbers) == list(range(2000))
    late = [one for before, one in itertools.pairwise(numbers) if one < before]
    assert direction.counters.reordered == pytest.approx(200, rel=0.25)
    assert 0 < len(late) <= direction.counters.reordered


def test_duplicates_follow_their_originals() -> None:
    direction = link(Profile(duplicate=0.1))
    numbers = [number_of(one) for one in flood(direction, 2000, MILLISECOND)]
    assert numbers == sorted(numbers)
    assert len(numbers) - 2000 == direction.counters.duplicated == pytest.approx(200, rel=0.25)


def test_what_is_too_large_is_dropped_to_the_byte() -> None:
    direction = link(Profile(mtu=1400))
    assert direction.arrive(frame(0, 1400), 0)
    assert not direction.arrive(frame(1, 1401), 0)
    assert [number_of(one) for one in direction.departures(0)] == [0]
    assert direction.counters.too_large == 1


def test_a_cut_loses_what_is_not_through_the_line_yet() -> None:
    direction = link(Profile(rate=10, delay=10))
    for index in range(3):
        direction.arrive(frame(index), 0)
    direction.change(replace(direction.profile, cut=True), ON_LINE * 800)
    direction.advance(SECOND)
    assert [number_of(one) for one in direction.departures(SECOND)] == [0]
    assert direction.counters.cut == 2


def test_the_same_seed_gives_the_same_link() -> None:
    profile = Profile(loss=0.1, jitter=3, reorder=0.1, duplicate=0.1, burst_loss=0.1)
    assert flood(link(profile, 7), 1000) == flood(link(profile, 7), 1000)
    assert flood(link(profile, 7), 1000) != flood(link(profile, 8), 1000)
