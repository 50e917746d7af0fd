"""Packets that the user marked, by their traffic class, to be sent on two paths."""

import numpy as np
import numpy.typing as npt

from glorytun.core.batch import Batch
from glorytun.core.wire import VERSION_MASK

_CLASS = 0xFC
"""Without ECN's bits (RFC 3168)."""


def traffic_class(buffer: bytearray, at: int) -> int:
    """Of an IP packet: DSCP << 2 (RFC 2474, RFC 8200)."""
    if buffer[at] >> 4 & VERSION_MASK == 6:
        return (buffer[at] << 4 | buffer[at + 1] >> 4) & _CLASS
    return buffer[at + 1] & _CLASS


def first_alike(packets: Batch, marked: int) -> tuple[Batch, bool]:
    """The first packets that all have the traffic class `marked`, or all not; and which it is.

    As fast for many as for few: of a batch that waits for credit it is asked again and again.
    """
    is_marked = traffic_class(packets.buffer, packets.offset) == marked
    if packets.count == 1:
        return packets, is_marked
    shape, strides = (packets.count,), (packets.stride,)
    heads: npt.NDArray[np.uint16]
    heads = np.ndarray(shape, ">u2", packets.buffer, packets.offset, strides)
    classes = np.where(heads >> 12 & VERSION_MASK == 6, heads >> 4, heads) & _CLASS
    count = int(((classes == marked) != is_marked).argmax()) or packets.count
    return packets.run(0, count), is_marked
