"""What goes through a tunnel many at a time, and what is true of it one by one."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.batch import Batch, append_row, joined
from glorytun.core.replay import WINDOW, ReplayWindow
from glorytun.core.settings import SECOND
from glorytun.core.wire import (
    OVERHEAD,
    TIME_SIZE,
    pull_time,
    pull_times,
    push_time,
    push_times,
    unwrap_time,
)
from tests.simulation import Simulation, Wire

NOW = 1_800_000_000 * SECOND


def test_what_the_host_has_no_room_for_is_no_loss() -> None:
    """What was not sent doesn't count as sent."""
    simulation = Simulation(Wire())
    simulation.up()
    simulation.run(SECOND)
    side, path = simulation.client, simulation.client_path(0)
    now = simulation.now
    before = side.paths()[0]
    buffer = bytearray(3 * 122)
    (outgoing,) = side.tunnel.send(Batch(buffer, TIME_SIZE, 122, 3, 100, 50), now)
    assert side.paths()[0].tx.total == before.tx.total + 3
    side.tunnel.on_unsent(path, outgoing.datagrams)
    after = side.paths()[0]
    assert (after.tx.total, after.tx.bytes) == (before.tx.total, before.tx.bytes)
    assert side.tunnel.status().unsent_total == 3


def test_a_slow_path_takes_no_more_than_its_burst() -> None:
    """Of a batch, what 5 ms of its rate are or one packet; the rest is for later."""
    simulation = Simulation(Wire())
    rate = 2_500_000  # bytes/s: 5 ms are 12500 bytes.
    simulation.set_path(0, rate_tx=rate, fixed_rate=True)
    simulation.run(5 * SECOND)
    tunnel, now = simulation.client.tunnel, simulation.now
    size, count = 1400, 40
    stride = size + OVERHEAD
    rest = Batch(bytearray(count * stride), TIME_SIZE, stride, count, size, size)
    taken, start = [], now
    while rest.count:
        turn = tunnel.next_turn(now)
        assert turn is not None
        now = max(now, turn.at)
        (outgoing,) = tunnel.send(rest, now)
        sent = outgoing.datagrams
        taken.append(sent.count)
        assert sent.count == 1 or sent.total() <= rate * 5 // 1000
        if sent.count == rest.count:
            break
        rest = rest.run(sent.count, rest.count - sent.count)
    assert sum(taken) == count
    assert taken[0] > 1
    least = (count * size - 12500 - 1500) * SECOND // rate
    assert now - start >= least


def test_batches_take_the_path_on_which_they_arrive_first() -> None:
    """Two equal paths: each takes its part of a batch, in turn."""
    simulation = Simulation(Wire(), Wire())
    for index in range(2):
        simulation.set_path(index, rate_tx=2_500_000, fixed_rate=True)
    simulation.run(5 * SECOND)
    tunnel, now = simulation.client.tunnel, simulation.now
    size, count = 1400, 200
    stride = size + OVERHEAD
    rest = Batch(bytearray(count * stride), TIME_SIZE, stride, count, size, size)
    taken = {simulation.client_path(index): 0 for index in range(2)}
    while True:
        turn = tunnel.next_turn(now)
        assert turn is not None
        now = max(now, turn.at)
        sent = tunnel.send(rest, now)
        assert sent
        for outgoing in sent:
            taken[outgoing.path] += outgoing.datagrams.count
        gone = sum(outgoing.datagrams.count for outgoing in sent)
        if gone == rest.count:
            break
        rest = rest.run(gone, rest.count - gone)
    assert sum(taken.values()) == count
    assert abs(taken[simulation.client_path(0)] - count // 2) <= 10


@given(
    st.lists(st.lists(st.integers(0, 3 * WINDOW), min_size=1, max_size=6), max_size=20),
)
def test_replay_window_for_many(batches: list[list[int]]) -> None:
    """All or none are accepted, and the window is then as if each had come by itself."""
    many, single = ReplayWindow(), ReplayWindow()
    for offsets in batches:
        times = [NOW + 2 * offset for offset in offsets]
        newest = single.newest
        increases = all(b > a for a, b in zip([newest, *times], times, strict=False))
        accepted = many.accept_newer(np.array(times))
        assert accepted == (increases and times[-1] - times[0] < WINDOW)
        if accepted:
            assert all(single.accept(time) for time in times)
        for time in times:
            assert many.is_new(time) == single.is_new(time)
            assert many.accept(time) == single.accept(time)
    assert many.newest == single.newest


@given(
    st.lists(st.lists(st.integers(0, 3 * WINDOW), min_size=1, max_size=6), max_size=20),
    st.sampled_from([1, 2, WINDOW - 1]),
)
def test_replay_window_for_several_paths(batches: list[list[int]], step: int) -> None:
    """In whatever order they came, all or none are accepted, as if each had come by itself."""
    many, single = ReplayWindow(), ReplayWindow()
    for offsets in batches:
        times = [NOW + offset // step * step + 1 for offset in offsets]
        if many.accept_mixed(np.array(times)):
            assert all(single.accept(time) for time in times)
        probes = {time + near for time in times for near in (-WINDOW, -2, -1, 0, 1, 2, WINDOW)}
        for time in sorted(probes - set(times)):
            assert many.is_new(time) == single.is_new(time)
        for time in times:
            assert many.accept(time) == single.accept(time)
    assert many.newest == single.newest


def test_replay_window_takes_paths_in_turn() -> None:
    """A slower path's times are far behind the faster one's, and none keeps the others back."""
    window = ReplayWindow()
    fast = np.array([NOW + 2 * row for row in range(40)])
    for start in (0, 80):
        mixed = np.stack([fast + start, fast + start - WINDOW // 2], axis=1).ravel()
        assert window.accept_mixed(mixed)
        assert not window.accept_mixed(mixed)
    assert not window.accept_mixed(np.array([NOW + 200, NOW + 200]))
    assert not window.accept_mixed(np.array([NOW + 200, NOW + 300 - WINDOW, NOW + 400]))


@given(st.integers(0, 2**49), st.integers(1, 70), st.sampled_from([2, 4]))
def test_times_of_many(first: int, count: int, step: int) -> None:
    """Written and read as one by one, also where the field wraps."""
    stride = 30
    together, single = bytearray(stride * count), bytearray(stride * count)
    batch = Batch(together, 0, stride, count, 24, 24)
    push_times(batch, first, step=step)
    for row in range(count):
        push_time(single, row * stride, first + row * step)
    assert together == single
    fields = [unwrap_time(pull_time(single, row * stride), now=first) for row in range(count)]
    if (first & (2**48 - 1)) + count * step < 2**48:
        assert pull_times(batch, now=first).tolist() == fields


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(0, 3))
def test_rows_are_joined(sizes: list[int], gap: int) -> None:
    """Put behind each other, they are all there, in as few batches as there can be."""
    buffer = bytearray(sum(sizes) + gap * len(sizes))
    batches: list[Batch] = []
    at = 0
    starts = []
    for size in sizes:
        starts.append(at)
        at = append_row(batches, buffer, at, size, gap=gap)
    assert [start for batch in batches for start in batch.starts()] == starts
    assert [len(row) for batch in batches for row in batch.rows()] == sizes
    for before, after in pairwise(batches):
        assert before.last < before.size or after.size > before.size


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(3, 4), st.integers(0, 2), st.booleans())))
def test_batches_that_continue_each_other(shapes: list[tuple[int, int, int, bool]]) -> None:
    """Together they have the rows of all, and only the last of these may be shorter."""
    received: list[tuple[Batch, int]] = []
    buffer = bytearray(range(256)) * 8
    at = 0
    for number, (count, size, missing, has_gap) in enumerate(shapes):
        at += has_gap
        received.append((Batch(buffer, at, 5, count, size, size - missing), number))
        at += 5 * count
    found = list(joined(received))
    assert [run for _, runs in found for run in runs] == received
    for together, runs in found:
        assert list(together.rows()) == [row for run, _ in runs for row in run.rows()]
    for (before, _), (after, _) in pairwise(found):
        gap = after.offset - before.offset - before.count * before.stride
        assert gap or before.last < before.size or before.size != after.size
