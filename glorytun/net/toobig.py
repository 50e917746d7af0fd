"""How hosts behind the tunnel learn what fits it: ICMP errors, and the MSS that TCP announces.

The kernel does both for its own packets as soon as the device has the tunnel's MTU. These are for
packets that were under way when it fell, and for hosts further away that don't hear ICMP.
"""

import struct

from glorytun.net.checksum import FULL, SWAP, put_sum, sum_of
from glorytun.net.headers import ICMP, ICMP_V6, SYN, TCP, TCP_HEADER, V4_HEADER, V6_HEADER

_FLAGS, _CHECKSUM = 13, 16
_END, _NOP, _MSS = 0, 1, 2
"""TCP's options: RFC 9293, 3.2."""
_V4_QUOTED, _V6_QUOTED = 548, 1232
"""Bytes of the packet in an error: it shall not exceed 576 (RFC 1812, 4.3.2.3), or 1280 bytes
(RFC 4443, 2.4)."""
_TTL = 64


def too_big(packet: bytes, mtu: int) -> bytes | None:
    """The answer to a packet that doesn't fit; None for one that may be told nothing.

    It comes from the packet's destination, as from a router there: what waits for an answer takes
    it from anybody (icmp_unreach() and icmpv6_notify()).
    """
    if len(packet) >= V4_HEADER and packet[0] >> 4 == 4:
        return _too_big_v4(packet, mtu)
    if len(packet) >= V6_HEADER and packet[0] >> 4 == 6:
        return _too_big_v6(packet, mtu)
    return None


def _too_big_v4(packet: bytes, mtu: int) -> bytes | None:
    """RFC 1191: only to what may not be fragmented, and neither to errors nor to many."""
    may_fragment = not packet[6] & 0x40
    is_later_fragment = packet[6] & 0x1F or packet[7]
    is_to_many = packet[16] >= 224
    start = (packet[0] & 15) * 4
    is_error = packet[9] == ICMP and packet[start : start + 1] not in {b"\x00", b"\x08"}
    if may_fragment or is_later_fragment or is_to_many or is_error:
        return None
    message = bytearray(struct.pack(">BBHHH", 3, 4, 0, 0, min(mtu, FULL)) + packet[:_V4_QUOTED])
    put_sum(message, 2, sum_of(message))
    size = V4_HEADER + len(message)
    header = bytearray(struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0, _TTL, ICMP, 0))
    header += packet[16:20] + packet[12:16]
    put_sum(header, 10, sum_of(header))
    return bytes(header + message)


def _too_big_v6(packet: bytes, mtu: int) -> bytes | None:
    """RFC 4443, 3.2: also to many, but not to errors, whose types are below 128."""
    if packet[6] == ICMP_V6 and (len(packet) <= V6_HEADER or packet[V6_HEADER] < 128):
        return None
    if packet[24] == 0xFF:
        return None  # Its destination can't be the source of an answer.
    message = bytearray(struct.pack(">BBHI", 2, 0, 0, mtu) + packet[:_V6_QUOTED])
    addresses = packet[24:40] + packet[8:24]
    pseudo = sum_of(addresses) + SWAP * (len(message) + ICMP_V6)
    put_sum(message, 2, sum_of(message) + pseudo)
    header = struct.pack(">IHBB", 6 << 28, len(message), ICMP_V6, _TTL)
    return header + addresses + bytes(message)


def clamp_mss(packet: bytearray | memoryview, mtu: int) -> None:
    """Let a SYN of TCP announce no more than fits `mtu`; other packets stay as they are.

    A wrong checksum stays wrong: RFC 1624.
    """
    if len(packet) < V4_HEADER + TCP_HEADER:
        return
    is_v6 = packet[0] >> 4 == 6
    start, protocol = (V6_HEADER, packet[6]) if is_v6 else (V4_HEADER, packet[9])
    if protocol != TCP or len(packet) < start + TCP_HEADER:
        return
    if not packet[start + _FLAGS] & SYN:
        return
    if is_v6 or (packet[0] == 0x45 and not (packet[6] & 0x3F or packet[7])):
        _clamp(packet, start, mtu - start - TCP_HEADER)


def _clamp(packet: bytearray | memoryview, start: int, most: int) -> None:
    end = min(start + 4 * (packet[start + 12] >> 4), len(packet))
    at = start + TCP_HEADER
    while at + 1 < end and packet[at] != _END:
        if packet[at] == _NOP:
            at += 1
            continue
        if packet[at] == _MSS and packet[at + 1] == 4 and at + 4 <= end:
            if int.from_bytes(packet[at + 2 : at + 4], "big") > most:
                _set_mss(packet, start, at + 2, max(most, 0))
            return
        at += max(packet[at + 1], 2)


def _set_mss(packet: bytearray | memoryview, start: int, at: int, mss: int) -> None:
    end = at + 2 + (at - start) % 2  # Up to a whole word.
    even = at - (at - start) % 2
    before = sum_of(bytes(packet[even:end]))
    packet[at : at + 2] = mss.to_bytes(2, "big")
    change = before - sum_of(bytes(packet[even:end]))
    where = start + _CHECKSUM
    checksum = int.from_bytes(packet[where : where + 2], "little") + change
    packet[where : where + 2] = (checksum % FULL).to_bytes(2, "little")
