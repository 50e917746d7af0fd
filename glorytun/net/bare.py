"""Bare packets of TCP: between two of us they travel without checksums (PROTOCOL 7).

What the kernel hands over as one packet for many, or else leaves to the device to complete, has no
checksums, and needs none where it is taken so: it was never on a wire but inside of datagrams that
are authenticated. So none is calculated there, nor verified here; only what goes to the kernel by
itself gets its checksums.
"""

from glorytun.core.wire import BARE_BIT
from glorytun.net.checksum import pseudo_sum, put_sum, sum_of
from glorytun.net.headers import TCP, TCP_HEADER, V4_HEADER, V6_HEADER

_V4_PLAIN, _V6 = 0x45, 6
_CHECKSUM = 16


def may_be_bare(packet: bytearray | memoryview, at: int, transport: int) -> bool:
    """Whether a packet at `at`, bare or not yet, is of TCP behind `transport` bytes of a plain
    header.

    So whoever completes it finds the checksums: without options, and no fragment.
    """
    first = packet[at] & ~BARE_BIT
    if first == _V4_PLAIN:
        is_part = packet[at + 6] & 0x3F or packet[at + 7]
        return transport == V4_HEADER and packet[at + 9] == TCP and not is_part
    return first >> 4 == _V6 and transport == V6_HEADER and packet[at + 6] == TCP


def complete(packet: memoryview | bytearray) -> bool:
    """Make a bare packet one with checksums, in place; False if it can't be one."""
    size = len(packet)
    if size < V4_HEADER + TCP_HEADER or not packet[0] & BARE_BIT:
        return False
    is_v4 = packet[0] == _V4_PLAIN | BARE_BIT
    transport = V4_HEADER if is_v4 else V6_HEADER
    length = packet[2] << 8 | packet[3] if is_v4 else V6_HEADER + (packet[4] << 8 | packet[5])
    is_whole = transport + TCP_HEADER <= length == size
    if not is_whole or not may_be_bare(packet, 0, transport):
        return False
    packet[0] &= ~BARE_BIT
    if is_v4:
        put_sum(packet, 10, sum_of(packet[:10]) + sum_of(packet[12:transport]))
    at = transport + _CHECKSUM
    rest = sum_of(packet[transport:at]) + sum_of(packet[at + 2 :])
    put_sum(packet, at, rest + pseudo_sum(packet, TCP, size - transport))
    return True
