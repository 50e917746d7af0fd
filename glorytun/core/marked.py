"""Packets that the user marked, by their traffic class, to be sent on two paths."""

from glorytun.core.batch import Batch

_CLASS = 0xFC
"""Without ECN's bits (RFC 3168)."""


def traffic_class(packet: Batch) -> int:
    """Of the first of some IP packets: DSCP << 2 (RFC 2474, RFC 8200)."""
    buffer, at = packet.buffer, packet.offset
    if buffer[at] >> 4 == 6:
        return (buffer[at] << 4 | buffer[at + 1] >> 4) & _CLASS
    return buffer[at + 1] & _CLASS


def first_alike(packets: Batch, marked: int) -> tuple[Batch, bool]:
    """The first packets that all have the traffic class `marked`, or all not; and which it is."""
    is_marked = traffic_class(packets) == marked
    for index in range(1, packets.count):
        if (traffic_class(packets.run(index, 1)) == marked) != is_marked:
            return packets.run(0, index), is_marked
    return packets, is_marked
