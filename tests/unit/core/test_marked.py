"""Which packets go twice, by their traffic class."""

from collections.abc import Callable
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.batch import Batch
from glorytun.core.marked import first_alike, traffic_class

EF = 0xB8


def v4(dscp: int, ecn: int = 0) -> bytes:
    return bytes([0x45, dscp | ecn]) + bytes(18)


def v6(dscp: int, ecn: int = 0) -> bytes:
    word = 6 << 28 | (dscp | ecn) << 20 | 0xFFFFF
    return word.to_bytes(4, "big") + bytes(36)


@pytest.mark.parametrize("packet", [v4, v6])
@pytest.mark.parametrize("ecn", [0, 1, 3])
def test_the_class_is_without_congestion_notification(packet: object, ecn: int) -> None:
    assert callable(packet)
    assert traffic_class(bytearray(packet(EF, ecn)), 0) == EF


def rows(*packets: bytes) -> Batch:
    size = len(packets[0])
    return Batch(bytearray(b"".join(packets)), 0, size, len(packets), size, size)


@pytest.mark.parametrize(
    ("classes", "count", "is_marked"),
    [
        ([EF], 1, True),
        ([0, 0, 0], 3, False),
        ([0, 0, EF, 0], 2, False),
        ([EF, EF, 0x88], 2, True),
        ([EF, EF], 2, True),
    ],
)
def test_a_run_is_marked_or_not(classes: list[int], count: int, is_marked: bool) -> None:
    first, found = first_alike(rows(*map(v4, classes)), EF)
    assert (first.count, found) == (count, is_marked)


@given(
    st.lists(st.tuples(st.sampled_from([v4, v6]), st.sampled_from([0, EF, 0x88, 0xFC]))),
    st.integers(0, 3),
    st.sampled_from([0, EF, 0x40]),
)
def test_packets_of_both_versions_may_be_in_a_batch(
    kinds: list[tuple[Callable[[int, int], bytes], int]], ecn: int, marked: int
) -> None:
    """As small ones that came one after the other are."""
    found = [(EF, v6(EF, ecn)), *((dscp, kind(dscp, ecn).ljust(40)) for kind, dscp in kinds)]
    first, is_marked = first_alike(rows(*(packet for _, packet in found)), marked)
    alike = [(dscp == marked) == is_marked for dscp, _ in found]
    assert is_marked == (marked == EF)
    assert first.count == [*alike, False].index(False)


def test_many_that_wait_take_not_much_longer_than_few() -> None:
    """They are looked at whenever a few of them leave."""

    def took(batch: Batch) -> float:
        begin = perf_counter()
        for _ in range(100):
            first_alike(batch, EF)
        return perf_counter() - begin

    few, many = rows(*[v4(0)] * 10), rows(*[v4(0)] * 250)
    assert min(took(many) for _ in range(5)) < 5 * min(took(few) for _ in range(5))
