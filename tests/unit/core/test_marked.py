"""Which packets go twice, by their traffic class."""

import pytest

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
    assert traffic_class(Batch.of(packet(EF, ecn))) == EF


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
