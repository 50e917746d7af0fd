"""Packets are held until those of the slowest path are there; what is held has its bounds."""

from glorytun.core.address import Endpoint, PathId
from glorytun.core.batch import SLACK, Batch
from glorytun.core.resequence import MARGIN, PASSED_OVER, USED_AFTER, Resequencer
from glorytun.core.settings import SECOND

FAST, SLOW, OTHER = (PathId(bytes(15) + bytes([n]), Endpoint(bytes(16), 5000)) for n in (1, 2, 3))
NOW = 1_800_000_000 * SECOND
DELAY = 30_000


def resequencer(limit: int = SECOND) -> Resequencer:
    """One that knows that the slow path takes longer by DELAY."""
    made = Resequencer()
    made.limit = limit
    for path, delay in ((FAST, 0), (SLOW, DELAY)):
        made.put(Batch.of(b"first"), [NOW - delay], path, NOW)
    made.take(NOW + SECOND)
    return made


def test_rows_keep_their_sizes_and_their_order() -> None:
    """In one buffer, with room behind them for whoever merges them."""
    made = resequencer()
    rows = [b"a" * 50, b"b" * 50, b"c" * 20, b"d" * 70]
    for index, row in enumerate(rows):
        made.put(Batch.of(row), [NOW + index], FAST, NOW + index)
    assert made.next_at == NOW + DELAY + MARGIN
    assert made.take(NOW + DELAY) == []
    batches = made.take(NOW + DELAY + MARGIN + 3)
    assert [bytes(row) for batch in batches for row in batch.rows()] == rows
    assert len({id(batch.buffer) for batch in batches}) == 1
    last = batches[-1]
    assert len(last.buffer) - (last.offset + last.total()) >= SLACK
    assert batches[0].count == 3  # The last row may be shorter.
    assert made.next_at is None


def test_a_delay_that_falls_lets_nothing_overtake() -> None:
    """Bursts come at once, each longer than those before, so that its end was under way for less
    time than anything yet; also beside another path."""
    alone = Resequencer()
    alone.limit = SECOND
    came_at = NOW + 1000
    for made, wait in ((alone, 0), (resequencer(), DELAY + MARGIN)):
        sent = range(came_at - 700, came_at - 600, 2)
        first = 0
        for size, count in ((105, 5), (133, 43), (60, 2)):
            times = sent[first : first + count]
            data = bytearray().join(time.to_bytes(size, "big") for time in times)
            made.put(Batch(data, 0, size, count, size, size), times, FAST, came_at)
            first += count
        taken = [row for batch in made.take(came_at + wait) for row in batch.rows()]
        assert [int.from_bytes(row, "big") for row in taken] == list(sent)


def test_a_clock_that_is_set_back_lets_nothing_wait_for_longer() -> None:
    """What is held is due at once, in the order in which it was sent; then delays are new."""
    made = resequencer()
    for row, delay, path in ((b"second", 0, FAST), (b"first", DELAY, SLOW)):
        made.put(Batch.of(row), [NOW - delay], path, NOW)
    back = NOW - 60 * SECOND
    made.put(Batch.of(b"third"), [NOW + 1], FAST, back)
    taken = [bytes(row) for batch in made.take(back) for row in batch.rows()]
    assert taken == [b"first", b"second", b"third"]
    made.put(Batch.of(b"slow"), [NOW + 2 - DELAY], SLOW, back + 2)
    made.put(Batch.of(b"fast"), [NOW + 3], FAST, back + 3)
    assert made.next_at is not None
    assert back < made.next_at <= back + 3 + DELAY + MARGIN


def test_nothing_waits_for_a_path_that_is_silent() -> None:
    made = resequencer()
    later = NOW + USED_AFTER + 1
    made.put(Batch.of(b"alone"), [later], FAST, later)
    assert made.next_at == later


def test_what_is_held_is_bounded() -> None:
    """What is too much goes on its way at once, the oldest first."""
    made = resequencer()
    taken = []
    for index in range(10_000):
        made.put(Batch.of(index.to_bytes(2, "big")), [NOW + index], FAST, NOW + index)
        taken += [bytes(row) for batch in made.take(NOW + index) for row in batch.rows()]
    assert len(taken) == 10_000 - 4096
    assert taken == sorted(taken)


def noted(likely: set[PathId]) -> Resequencer:
    """One that knows the delays of paths from what was no packet."""
    made = Resequencer()
    made.limit, made.likely = SECOND, likely
    for path, delay in ((FAST, 0), (SLOW, DELAY), (OTHER, 2 * DELAY)):
        made.note(path, delay, NOW)
    return made


def test_the_first_packet_waits_for_a_path_on_which_the_next_may_come() -> None:
    """However long both have been silent."""
    made = noted({FAST, SLOW})
    later = NOW + 60 * SECOND
    made.put(Batch.of(b"first"), [later], FAST, later)
    assert made.next_at == later + DELAY + MARGIN


def test_nothing_waits_for_a_path_that_is_passed_over() -> None:
    """Whatever may come there, until something does."""
    made = noted({FAST, SLOW})
    for index in range(PASSED_OVER):
        made.put(Batch.of(b"fast"), [NOW + index], FAST, NOW + index)
        assert made.take(NOW + index) == []
    made.take(NOW + SECOND)
    later = NOW + SECOND
    made.put(Batch.of(b"alone"), [later], FAST, later)
    assert made.next_at == later
    made.take(later)
    made.put(Batch.of(b"slow"), [later - DELAY], SLOW, later)
    made.take(later + SECOND)
    made.put(Batch.of(b"beside"), [later + 1], FAST, later + 1)
    assert made.next_at == later + 1 + DELAY + MARGIN


def test_it_does_not_wait_for_others() -> None:
    for likely in (set[PathId](), {FAST}, {FAST, SLOW}):
        made = noted(likely)
        made.likely = {FAST}
        made.put(Batch.of(b"first"), [NOW], FAST, NOW)
        assert made.next_at == NOW


def test_all_wait_for_what_came_on_an_unlikely_path() -> None:
    made = noted({FAST})
    made.put(Batch.of(b"unlikely"), [NOW - DELAY], SLOW, NOW)
    made.take(NOW + SECOND)
    made.put(Batch.of(b"likely"), [NOW + 1], FAST, NOW + 1)
    assert made.next_at == NOW + 1 + DELAY + MARGIN
