"""Batches: how packets and datagrams move, many at a time and without an object for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

SLACK = 128
"""Bytes of a buffer behind the last row that whoever splits or merges may write or read."""
MANY = 64
"""Calls of the kernel to take what is waiting into batches, if not fewer are asked for."""

From = TypeVar("From")
"""Where rows came from."""


class Buffer(bytearray):
    """Memory that is filled again and again, and never resized.

    Pointers into it, which take time to make, are kept with it.
    """

    __slots__ = ("pointers",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.pointers: dict[tuple[object, int, int], list[object]] = {}
        """Into each row, by their type, the place of the first and the stride: see `crypto`."""


@dataclass(slots=True)
class Batch:
    """`count` rows of one buffer, all `size` bytes long but the last, which has `last` (≤ `size`).

    Of one row both are the same, so that what takes a row by itself need not ask which it is.
    Row i is `buffer[offset + i * stride:][:size]`. A batch borrows its buffer: it is valid until
    the owner of the buffer fills it again.
    """

    buffer: bytearray
    offset: int
    stride: int
    count: int
    size: int
    last: int

    @classmethod
    def of(cls, row: bytes, *, headroom: int = 0, tailroom: int = 0) -> "Batch":
        """A batch of one row with a buffer of its own."""
        buffer = bytearray(headroom + len(row) + tailroom)
        buffer[headroom : headroom + len(row)] = row
        return cls(buffer, headroom, len(row), 1, len(row), len(row))

    def row_size(self, index: int) -> int:
        """Bytes in row `index`."""
        return self.last if index == self.count - 1 else self.size

    def starts(self) -> range:
        """Where each row begins in the buffer."""
        end = self.offset + self.count * self.stride
        return range(self.offset, end, self.stride)

    def rows(self) -> Iterator[memoryview]:
        """Each row, without a copy."""
        view, size = memoryview(self.buffer), self.size
        *starts, last = self.starts()
        for start in starts:
            yield view[start : start + size]
        yield view[last : last + self.last]

    @property
    def is_dense(self) -> bool:
        """Whether each row begins where the one before it ends."""
        return self.count == 1 or self.stride == self.size

    def data(self) -> memoryview:
        """All rows at once, which have to be dense."""
        return memoryview(self.buffer)[self.offset : self.offset + self.total()]

    def total(self) -> int:
        """Bytes in all rows together."""
        return (self.count - 1) * self.size + self.last

    def run(self, first: int, count: int) -> "Batch":
        """The rows from `first` on, `count` of them, in the same buffer."""
        last = self.row_size(first + count - 1)
        start = self.offset + first * self.stride
        size = self.size if count > 1 else last
        return Batch(self.buffer, start, self.stride, count, size, last)

    def runs(self, chosen: list[bool]) -> Iterator["Batch"]:
        """The chosen rows, as one batch for each stretch of them."""
        first = 0
        for index in range(self.count + 1):
            if index == self.count or not chosen[index]:
                if index > first:
                    yield self.run(first, index - first)
                first = index + 1


def append_row(batches: list[Batch], buffer: bytearray, at: int, size: int, *, gap: int) -> int:
    """`append` a row of `size` bytes at `at`, with `gap` bytes between it and the next."""
    if batches:
        last = batches[-1]  # Mostly it just continues.
        if size == last.size == last.last and last.offset + last.count * last.stride == at:
            last.count += 1
            return at + last.stride
    else:
        batches.append(Batch(buffer, at, size + gap, 1, size, size))
        return at + size + gap
    return append(batches, Batch(buffer, at, size + gap, 1, size, size))


def append(batches: list[Batch], rows: Batch) -> int:
    """Add rows to what was put into one buffer before them.

    They become part of the last batch if they continue it: at its end, and as long. Returns where
    the next ones may be.
    """
    end = rows.offset + (rows.count - 1) * rows.stride + rows.last + rows.stride - rows.size
    if batches:
        last = batches[-1]
        if (
            last.size == last.last
            and last.offset + last.count * last.stride == rows.offset
            and (rows.stride == last.stride or (rows.count == 1 and rows.last < last.size))
        ):
            last.count += rows.count
            last.last = rows.last
            return end
    batches.append(rows)
    return end


def together(batches: Sequence[Batch], most: int) -> Iterator[list[Batch]]:
    """All rows in groups of `most`, but for the last one."""
    group: list[Batch] = []
    room = most
    for batch in batches:
        first = 0
        while first < batch.count:
            part = batch.run(first, min(room, batch.count - first))
            group.append(part)
            first += part.count
            room -= part.count
            if not room:
                yield group
                group, room = [], most
    if group:
        yield group


def joined(
    received: Sequence[tuple[Batch, From]],
) -> Iterator[tuple[Batch, Sequence[tuple[Batch, From]]]]:
    """Batches of one buffer that continue each other, as one; and which they are."""
    first = 0
    for end in range(1, len(received) + 1):
        if end < len(received) and _continues(received[end - 1][0], received[end][0]):
            continue
        together = received[first][0]
        if end - first > 1:
            last = received[end - 1][0]
            count = (last.offset - together.offset) // together.stride + last.count
            size = together.size
            together = Batch(
                together.buffer, together.offset, together.stride, count, size, last.last
            )
        yield together, received[first:end]
        first = end


def _continues(before: Batch, rows: Batch) -> bool:
    """Whether rows are as long as those before, of which all are, and lie behind them."""
    return (
        before.last == before.size == rows.size
        and before.stride == rows.stride
        and before.offset + before.count * before.stride == rows.offset
    )
