"""Rows in such batches that those which belong together lie together: for `offload.merge`."""

from collections.abc import Sequence

from glorytun.core.batch import SLACK, Batch, append
from glorytun.core.flow import flow_key

_START = 6
"""Of rows in a buffer, so that 64-bit words behind the first two bytes are aligned."""
_TANGLED, _RUN, _SHORT = 8, 4, 100
"""So many rows are put in order by flow if they continue each other in runs shorter than this, on
average; not counting packets of so few bytes, which are mostly TCP's acknowledgements."""
_ROOM_MAX = 16 << 20
"""Bytes: more than that takes each row the room of the longest, of which one may be 64 KB and all
others tiny. Full packets take 1 MB."""


def uniform(batches: Sequence[Batch]) -> list[Batch]:
    """The same rows, in batches that are of one version, and bare or not."""
    parts: list[Batch] = []
    for batch in batches:
        buffer, at = batch.buffer, batch.offset
        firsts = buffer[at : at + batch.count * batch.stride : batch.stride]
        if firsts.count(firsts[0]) == batch.count:
            parts.append(batch)
            continue
        begin = 0
        for end in range(1, batch.count + 1):
            if end == batch.count or firsts[end] != firsts[begin]:
                parts.append(batch.run(begin, end - begin))
                begin = end
    return parts


def are_tangled(batches: Sequence[Batch], runs: list[int]) -> bool:
    """Whether what isn't too short to be merged has short runs, `runs` of them in each batch."""
    worth = [
        (batch.count, count)
        for batch, count in zip(batches, runs, strict=True)
        if batch.size > _SHORT
    ]
    rows = sum(count for count, _ in worth)
    longest = max((batch.size for batch in batches), default=0)
    if sum(batch.count for batch in batches) * longest > _ROOM_MAX:
        return False
    return rows >= _TANGLED and sum(count for _, count in worth) > rows // _RUN


def untangle(batches: Sequence[Batch]) -> list[Batch]:
    """The same rows in a buffer of their own, those of one flow behind each other."""
    flows: dict[bytes, list[tuple[int, int]]] = {}
    for batch in batches:
        for index, start in enumerate(batch.starts()):
            key = flow_key(batch.buffer, start)
            flows.setdefault(key, []).append((start, batch.row_size(index)))
    sizes = [size for flow in flows.values() for _, size in flow]
    stride = -(-max(sizes) // 8) * 8
    view = memoryview(batches[0].buffer)
    into = bytearray(len(sizes) * stride + SLACK)
    untangled: list[Batch] = []
    at = _START
    for flow in flows.values():
        together: list[Batch] = []
        for start, size in flow:
            into[at : at + size] = view[start : start + size]
            at = append(together, Batch(into, at, stride, 1, size, size))
        untangled += together
    return untangled
