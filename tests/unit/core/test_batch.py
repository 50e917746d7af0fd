"""Batches: rows of one buffer."""

from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.batch import Batch


@st.composite
def batches(draw: st.DrawFn) -> tuple[Batch, list[bytes]]:
    """A batch, and its rows as they were written."""
    size = draw(st.integers(1, 20))
    rows = draw(st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=8))
    rows[-1] = rows[-1][: draw(st.integers(1, size))]
    offset, gap = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    stride = size + gap
    buffer = bytearray(offset + stride * len(rows))
    for index, row in enumerate(rows):
        start = offset + index * stride
        buffer[start : start + len(row)] = row
    return Batch(buffer, offset, stride, len(rows), size, len(rows[-1])), rows


def texts(batch: Batch) -> list[bytes]:
    return [bytes(row) for row in batch.rows()]


@given(batches())
def test_rows(case: tuple[Batch, list[bytes]]) -> None:
    """The rows are what was written, the last may be shorter, and sizes add up."""
    batch, rows = case
    assert texts(batch) == rows
    assert [batch.row_size(index) for index in range(batch.count)] == [len(row) for row in rows]
    assert batch.total() == sum(len(row) for row in rows)


@given(batches())
def test_rows_are_no_copies(case: tuple[Batch, list[bytes]]) -> None:
    """What is written to a row is in the buffer."""
    batch, rows = case
    for row in batch.rows():
        row[0] ^= 0xFF
    assert texts(batch) == [bytes([row[0] ^ 0xFF]) + row[1:] for row in rows]


@given(batches(), st.data())
def test_run(case: tuple[Batch, list[bytes]], data: st.DataObject) -> None:
    """A run is a stretch of rows in the same buffer."""
    batch, rows = case
    first = data.draw(st.integers(0, batch.count - 1))
    count = data.draw(st.integers(1, batch.count - first))
    run = batch.run(first, count)
    assert texts(run) == rows[first : first + count]
    assert run.total() == sum(len(row) for row in rows[first : first + count])
    assert run.buffer is batch.buffer


@given(batches(), st.data())
def test_runs(case: tuple[Batch, list[bytes]], data: st.DataObject) -> None:
    """Runs hold the chosen rows in order, one run for each stretch of them."""
    batch, rows = case
    chosen = data.draw(st.lists(st.booleans(), min_size=batch.count, max_size=batch.count))
    runs = list(batch.runs(chosen))
    held = [text for run in runs for text in texts(run)]
    assert held == [row for row, keep in zip(rows, chosen, strict=True) if keep]
    starts = sum(
        keep and (index == 0 or not chosen[index - 1]) for index, keep in enumerate(chosen)
    )
    assert len(runs) == starts


@given(st.binary(min_size=1, max_size=100), st.integers(0, 10), st.integers(0, 10))
def test_batch_of_one(row: bytes, headroom: int, tailroom: int) -> None:
    """A batch of one row has a buffer of its own, with room before and after."""
    batch = Batch.of(row, headroom=headroom, tailroom=tailroom)
    assert texts(batch) == [row]
    assert bytes(batch.buffer) == bytes(headroom) + row + bytes(tailroom)
