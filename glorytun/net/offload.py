"""Super-packets: what the kernel hands over, or takes, as one packet for many of one flow.

`split` does what the kernel's segmentation does to one (tcp_gso_segment(), __udp_gso_segment()),
`merge` what its receive offload does to many (tcp_gro_receive()). Both are exact: what was split
and merged, or merged here and split by the kernel, is byte for byte what it was. What can't be
merged so is passed on as it is. There is no system call in here.

A super-packet has a `struct virtio_net_hdr` before it (linux/virtio_net.h).
"""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glorytun.core.batch import Batch
from glorytun.core.wire import BARE_BIT, OVERHEAD
from glorytun.net.bare import may_be_bare
from glorytun.net.checksum import FULL, SWAP, pseudo_sum, put_sum, row_sums, sum_of
from glorytun.net.headers import TCP, TCP_HEADER, UDP, UDP_HEADER, V4_HEADER, V6_HEADER
from glorytun.net.tangle import are_tangled, uniform, untangle

VNET_SIZE = 10
NEEDS_CHECKSUM = 1
"""The flag of a packet whose checksum is left to the device."""
PLAIN = bytes(VNET_SIZE)
"""The header of a packet that is complete."""
ROWS_MAX = 64
"""Of what one call splits, and of what is merged into one: UDP_MAX_SEGMENTS of older kernels."""
PACKET_MAX = 65535
_DATAGRAMS_MAX = PACKET_MAX - 20 - 8
"""Bytes of datagrams in one call with UDP_SEGMENT: they make one packet of IPv4 at first."""

_VNET = struct.Struct("=BBHHHH")
_GSO_TCP4, _GSO_TCP6, _GSO_UDP, _GSO_ECN = 1, 4, 5, 0x80
_FLAGS, _TCP_CHECKSUM, _UDP_CHECKSUM = 13, 16, 6
"""Where these are in the headers of TCP and UDP."""
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80
_ONLY_ACK, _ACK = 0x36, 0x10
"""Of SYN, RST, URG and ACK the last alone is set in what may be merged."""
_ZERO = FULL * 0xC000
"""Zero, modulo FULL, and more than the sum over any row: sums have no sign and 32 bits, so that
nothing may be taken from less."""
_NUMBERS_SIZE = 16
"""Of the numbers in a row of the table in `_ends`."""

Numbers = npt.NDArray[np.int64]
_INDEX: Numbers = np.arange(ROWS_MAX, dtype=np.int64)
_Bytes = npt.NDArray[np.uint8]
Piece = bytes | bytearray | memoryview
Pieces = list[Piece]
"""One packet with its vnet header, as writev(2) takes it."""
Merged = tuple[int, Pieces | memoryview]
"""How many packets there are in one; a row by itself, which needs no header."""


class Vnet(NamedTuple):
    """The header before a packet that was read."""

    flags: int
    kind: int
    headers: int
    segment: int
    start: int
    """Where what is to be checksummed begins: the transport header."""
    offset: int
    """Where in there the checksum is."""

    @classmethod
    def pull(cls, buffer: bytearray) -> "Vnet":
        """From the first bytes of a buffer."""
        return cls(*_VNET.unpack_from(buffer))


class SuperPacket(NamedTuple):
    """A packet of several segments."""

    buffer: bytearray
    """It lies here, behind its vnet header, with room for another segment behind it."""
    is_v6: bool
    is_udp: bool
    transport: int
    """Bytes before the header of TCP or UDP."""
    header: int
    """Bytes of all headers."""
    segment: int
    """Bytes of payload of each segment but the last."""
    segments: int
    last: int
    """Bytes of payload of the last."""

    @classmethod
    def parse(cls, buffer: bytearray, size: int, vnet: Vnet) -> "SuperPacket | None":
        """One of `size` bytes behind its vnet header; None for a kind that we don't know."""
        kind = vnet.kind & ~_GSO_ECN
        if (
            kind not in (_GSO_TCP4, _GSO_TCP6, _GSO_UDP)
            or not vnet.segment
            or not vnet.flags & NEEDS_CHECKSUM
        ):
            return None
        is_udp = kind == _GSO_UDP
        words = buffer[VNET_SIZE + vnet.start + 12] >> 4
        header = vnet.start + (UDP_HEADER if is_udp else 4 * words)
        if not V4_HEADER <= vnet.start < header < size:
            return None
        count = -((header - size) // vnet.segment)
        last = size - header - (count - 1) * vnet.segment
        is_v6 = buffer[VNET_SIZE] >> 4 == 6
        return cls(buffer, is_v6, is_udp, vnet.start, header, vnet.segment, count, last)

    @property
    def may_be_bare(self) -> bool:
        """Whether its segments may travel without checksums."""
        return not self.is_udp and may_be_bare(self.buffer, VNET_SIZE, self.transport)

    @property
    def protocol(self) -> int:
        return UDP if self.is_udp else TCP

    @property
    def checksum(self) -> int:
        """Where the checksum of TCP or UDP is."""
        return self.transport + (_UDP_CHECKSUM if self.is_udp else _TCP_CHECKSUM)


def datagrams_together(size: int) -> int:
    """How many datagrams of `size` bytes one call can send, which the kernel splits."""
    return max(1, min(ROWS_MAX, _DATAGRAMS_MAX // size))


@lru_cache(maxsize=64)
def _multiples(of: int) -> Numbers:
    return _INDEX * of


# Splitting.


def split(
    packet: SuperPacket, *, first: int, most: int, into: bytearray, offset: int, bare: bool = False
) -> Batch:
    """The segments from number `first` on, at most `most` and ROWS_MAX of them, as packets.

    They are laid out for sealing: the first at `offset`, OVERHEAD bytes between two. They have no
    checksums if they are to be `bare`, and the packet `may_be_bare`.
    """
    count = min(packet.segments - first, most, ROWS_MAX)
    size = packet.header + packet.segment
    rows = Batch(into, offset, size + OVERHEAD, count, size, size)
    template = _template(packet)
    if bare:
        template[0] |= BARE_BIT
    _lay_out(packet, template, rows, first)
    missing = 0
    if first + count == packet.segments:
        missing = packet.segment - packet.last
        _end(packet, rows, missing)
    if not packet.is_v6:
        _number(template, rows, first)
    if not bare:
        if not packet.is_v6:
            _fill_in_v4_checksums(packet, template, rows, first=first, missing=missing)
        _fill_in_checksums(packet, template, rows, missing)
    rows.last = size - missing
    if count == 1:  # A last segment by itself is no shorter row of a batch, but all of it.
        rows.size, rows.stride = rows.last, rows.last + OVERHEAD
    return rows


def _template(packet: SuperPacket) -> bytearray:
    """The headers as the segments have them in common, without checksums."""
    template = packet.buffer[VNET_SIZE : VNET_SIZE + packet.header]
    _set_lengths(template, 0, packet.header + packet.segment, packet)
    if not packet.is_v6:
        template[10:12] = b"\0\0"
    if not packet.is_udp:
        template[packet.transport + _FLAGS] &= ~(_FIN | _PSH | _CWR)
    template[packet.checksum : packet.checksum + 2] = b"\0\0"
    return template


def _lay_out(packet: SuperPacket, template: bytearray, rows: Batch, first: int) -> None:
    """Headers and payloads. The last row takes what lies behind the packet, see `_end`."""
    buffer, count, stride, at = rows.buffer, rows.count, rows.stride, rows.offset
    header, segment = packet.header, packet.segment
    shape, start = (count, segment), VNET_SIZE + header + first * segment
    whole: _Bytes = np.ndarray((count, rows.size), np.uint8, buffer, at, (stride, 1))
    whole[:, :header] = np.frombuffer(template, np.uint8)
    whole[:, header:] = np.ndarray(shape, np.uint8, packet.buffer, start, (segment, 1))
    if packet.is_udp:
        return
    at += packet.transport
    start = int.from_bytes(template[packet.transport + 4 : packet.transport + 8], "big")
    numbers: npt.NDArray[np.uint32] = np.ndarray((count,), ">u4", buffer, at + 4, (stride,))
    numbers[:] = _multiples(segment)[:count] + (start + first * segment)  # Modulo 2^32.
    if first == 0:
        buffer[at + _FLAGS] |= packet.buffer[VNET_SIZE + packet.transport + _FLAGS] & _CWR


def _end(packet: SuperPacket, rows: Batch, missing: int) -> None:
    """Make the last row the end of the packet, which is `missing` bytes shorter than the others."""
    buffer, at = rows.buffer, rows.offset + (rows.count - 1) * rows.stride
    if not packet.is_udp:
        flags = packet.buffer[VNET_SIZE + packet.transport + _FLAGS]
        buffer[at + packet.transport + _FLAGS] |= flags & (_FIN | _PSH)
    if missing:
        buffer[at + rows.size - missing : at + rows.size] = bytes(missing)
        _set_lengths(buffer, at, packet.header + packet.last, packet)


def _number(template: bytearray, rows: Batch, first: int) -> None:
    """IPv4: the identification counts up (inet_gso_segment())."""
    start = int.from_bytes(template[4:6], "big")
    _field(rows, 4, ">u2")[:] = _INDEX[: rows.count] + (start + first)  # Modulo 2^16.


def _fill_in_v4_checksums(
    packet: SuperPacket, template: bytearray, rows: Batch, *, first: int, missing: int
) -> None:
    """Those of the header, which differ by identification and length."""
    count, start = rows.count, int.from_bytes(template[4:6], "big")
    rest = sum_of(template[: packet.transport]) + SWAP * first
    checksums = -rest - _multiples(SWAP)[:count]
    if start + first + count > FULL:
        checksums += SWAP * 0x10000 * (_INDEX[:count] > FULL - start - first)
    checksums[-1] += SWAP * missing
    _field(rows, 10, "<u2")[:] = checksums % FULL


def _fill_in_checksums(packet: SuperPacket, template: bytearray, rows: Batch, missing: int) -> None:
    """Those of TCP or UDP, from sums over whole rows.

    A whole header of IPv4 adds nothing, since its checksum makes its sum zero. Of IPv6 it is taken
    off; a shorter length of the last row then cancels out against that in its pseudo-header.
    """
    common = sum_of(template[:2]) + _given_pseudo_sum(packet, rows.size - packet.transport)
    if packet.is_v6:
        common -= sum_of(template[: packet.transport])
    checksums = (_ZERO - common) - row_sums(rows)
    if not packet.is_v6:
        checksums[-1] += SWAP * missing
    checksums %= FULL
    if packet.is_udp:
        checksums[checksums == 0] = FULL  # 0 stands for none: RFC 768.
    field: npt.NDArray[np.uint16] = np.ndarray(
        (rows.count,), "<u2", rows.buffer, rows.offset + packet.checksum, (rows.stride,)
    )
    field[:] = checksums


def _given_pseudo_sum(packet: SuperPacket, length: int) -> int:
    """The sum over the pseudo-header of a segment, from that of the packet: only lengths differ.

    That stands where the checksum will. It can't be made from the header alone: with a routing
    header the address there is not that of the last destination (tcp_gso_segment() does the same).
    """
    at = VNET_SIZE + packet.checksum
    given = sum_of(packet.buffer[at : at + 2])
    whole = packet.header - packet.transport + (packet.segments - 1) * packet.segment + packet.last
    return (given + SWAP * (length - whole)) % FULL


# Merging.


class _Kind(NamedTuple):
    """What rows have in common that may be merged with each other at all."""

    is_v6: bool
    is_udp: bool
    transport: int
    header: int
    is_bare: bool
    """Whether they have no checksums."""

    @property
    def protocol(self) -> int:
        return UDP if self.is_udp else TCP

    @property
    def checksum(self) -> int:
        """Where the checksum of TCP or UDP is."""
        return self.transport + (_UDP_CHECKSUM if self.is_udp else _TCP_CHECKSUM)


def merge(batches: Sequence[Batch], *, udp: bool) -> Iterator[Merged]:
    """The rows as super-packets where they can be merged, else as they are.

    All batches lie in one buffer with SLACK behind the last row. The order of what belongs to one
    flow stays, whatever comes between. `udp` says whether UDP may be merged too.
    """
    batches = uniform(batches)
    runs = [_runs(batch, udp=udp) for batch in batches]
    if are_tangled(batches, [len(ends) for _, ends in runs]):
        batches = uniform(untangle(batches))
        runs = [_runs(batch, udp=udp) for batch in batches]
    for batch, (kind, ends) in zip(batches, runs, strict=True):
        first = 0
        for end in ends:
            if kind is None or end - first == 1:
                for row in batch.run(first, end - first).rows():
                    yield 1, row
            else:
                yield from _merge_run(batch.run(first, end - first), kind)
            first = end


def _runs(batch: Batch, *, udp: bool) -> tuple[_Kind | None, list[int]]:
    """Where runs of rows end that continue each other; as what kind of packets they do."""
    count = batch.count
    kind = _kind_of(batch) if count > 1 else None
    if kind is None or (kind.is_udp and not udp):
        return None, list(range(1, count + 1))
    if batch.last < batch.size and not _has_right_lengths(batch, count - 1, kind):
        return kind, [*_ends(batch.run(0, count - 1), kind), count]
    return kind, _ends(batch, kind)


def _kind_of(batch: Batch) -> _Kind | None:
    """The kind of all rows; None if it isn't one, or one that can't be merged."""
    at, buffer = batch.offset, batch.buffer
    is_bare = bool(buffer[at] & BARE_BIT)
    first = buffer[at] & ~BARE_BIT
    is_v6 = first >> 4 == 6
    if is_v6:
        transport, protocol_at = V6_HEADER, 6
    elif first == 0x45 and not (buffer[at + 6] & 0xBF or buffer[at + 7]):
        transport, protocol_at = V4_HEADER, 9  # No options, and no fragment.
    else:
        return None
    protocol = buffer[at + protocol_at]
    same = [protocol_at]
    if protocol == UDP and not is_bare:
        kind = _Kind(is_v6, True, transport, transport + UDP_HEADER, is_bare)
    elif protocol == TCP:
        words = buffer[at + transport + 12] >> 4
        kind = _Kind(is_v6, False, transport, transport + max(4 * words, TCP_HEADER), is_bare)
        same.append(transport + 12)
    else:
        return None
    if batch.size <= kind.header:
        return None
    end = at + batch.count * batch.stride
    for place in same:
        column = buffer[at + place : end : batch.stride]
        if column.count(buffer[at + place]) != batch.count:
            return None
    return kind


@lru_cache(maxsize=64)
def _mask(kind: _Kind) -> npt.NDArray[np.uint64]:
    """The bits of a row of the table in `_ends` that are compared."""
    mask = np.zeros(-(-kind.header // 8) * 8 + _NUMBERS_SIZE, np.uint8)
    mask[: kind.header] = mask[-_NUMBERS_SIZE:] = 0xFF
    if not kind.is_v6:
        mask[4:6] = mask[10:12] = 0
    at = kind.transport
    mask[kind.checksum : kind.checksum + 2] = 0
    if not kind.is_udp:
        mask[at + 4 : at + 8] = 0
        mask[at + _FLAGS] = 0xFF ^ (_FIN | _PSH | _CWR)
    return mask.view("<u8")


def _ends(batch: Batch, kind: _Kind) -> list[int]:
    """Where runs of rows end that continue each other, and whose checksums are right.

    A table is made with a row for each: its headers, and behind them its sums, and its numbers less
    what they should have counted up by. In a run these are equal, but for what `_mask` leaves out:
    sums over rows with right checksums are as congruent as their headers are equal. So one
    comparison finds the runs, and of each only the first row is looked at by itself.
    """
    buffer, count, stride, at = batch.buffer, batch.count, batch.stride, batch.offset
    mask = _mask(kind)
    size = 8 * len(mask) - _NUMBERS_SIZE
    lines = bytearray(count * 8 * len(mask))
    table: _Bytes = np.ndarray((count, 8 * len(mask)), np.uint8, lines)
    table[:, :size] = np.ndarray((count, size), np.uint8, buffer, at, (stride, 1))
    if batch.last < batch.size:
        _set_lengths(lines, len(lines) - 8 * len(mask), batch.size, kind)
    numbers: npt.NDArray[np.uint32] = table[:, size:].view("<u4")
    if not kind.is_bare:
        numbers[:, 0] = _sums(batch, kind)
    if not kind.is_v6 and not kind.is_bare:
        # Length and identification are all that the header's checksum may differ by.
        differing = np.multiply(_field(batch, 2, ">u4"), SWAP, dtype=np.uint64)
        numbers[:, 1] = (differing + _field(batch, 10, "<u2")) % FULL
    if not kind.is_v6:
        numbers[:, 2] = _field(batch, 4, ">u2") - np.arange(count, dtype=np.uint16)
    if not kind.is_udp:
        segment = batch.size - kind.header
        counted = np.arange(0, count * segment, segment, dtype=np.uint32)
        numbers[:, 3] = _field(batch, kind.transport + 4, ">u4") - counted
    words = table.view("<u8")
    words &= mask
    changes = (words[1:] != words[:-1]).ravel().nonzero()[0].tolist()
    ends = {place // len(mask) + 1 for place in changes}
    ends.add(count)
    _add_ends_by_flags(ends, batch, kind)
    if not kind.is_bare:
        _add_ends_by_zeros(ends, batch, kind)
    first = 0
    for end in sorted(ends):
        if end - first > 1 and not _is_good(batch, first, kind, int(numbers[first, 0])):
            ends.update(range(first + 1, end))
        first = end
    return sorted(ends)


def _field(batch: Batch, at: int, kind: str) -> npt.NDArray[Any]:
    """A number in each row."""
    return np.ndarray((batch.count,), kind, batch.buffer, batch.offset + at, (batch.stride,))


def _sums(batch: Batch, kind: _Kind) -> npt.NDArray[np.uint32]:
    """As `row_sums`, modulo FULL; that of a shorter last row as if its lengths weren't shorter."""
    missing = batch.size - batch.last
    if not missing:
        return row_sums(batch) % FULL
    sums = np.empty(batch.count, np.uint32)
    sums[:-1] = row_sums(batch.run(0, batch.count - 1)) % FULL
    at = batch.offset + (batch.count - 1) * batch.stride
    last = sum_of(batch.buffer[at + 2 : at + batch.last])
    # In the sum of IPv6 the shorter length of its header makes up for that in the pseudo-header.
    sums[-1] = (last if kind.is_v6 else last - SWAP * missing) % FULL
    return sums


def _add_ends_by_flags(ends: set[int], batch: Batch, kind: _Kind) -> None:
    """FIN and PSH end a run, CWR begins one; few rows have any."""
    if kind.is_udp:
        return
    at = batch.offset + kind.transport + _FLAGS
    flags = batch.buffer[at : at + batch.count * batch.stride : batch.stride]
    for value in set(flags.translate(None, bytes([_ACK]))):
        row = flags.find(value)
        while row >= 0:
            if value & (_FIN | _PSH):
                ends.add(row + 1)
            if value & _CWR and row:
                ends.add(row)
            row = flags.find(value, row + 1)


def _add_ends_by_zeros(ends: set[int], batch: Batch, kind: _Kind) -> None:
    """Of the two ways to write a checksum of zero UDP has one, TCP and IPv4 have the other.

    A row with the wrong one goes by itself: the kernel would write the right one.
    """
    wrong = b"\0\0" if kind.is_udp else b"\xff\xff"
    _add_ends_where(ends, _field(batch, kind.checksum, "<u2"), wrong)
    if not kind.is_v6:
        _add_ends_where(ends, _field(batch, 10, "<u2"), b"\xff\xff")


def _add_ends_where(ends: set[int], numbers: npt.NDArray[np.uint16], value: bytes) -> None:
    if value in numbers.tobytes():  # Seldom, and more seldom where a number begins.
        for row in (numbers == int.from_bytes(value, "little")).nonzero()[0].tolist():
            ends.update({row, row + 1} - {0})


def _is_good(batch: Batch, row: int, kind: _Kind, rest: int) -> bool:
    """Whether a row is whole and right, of whose words behind the first `rest` is the sum."""
    at = batch.offset + row * batch.stride
    headers = batch.buffer[at : at + kind.header]
    if not kind.is_udp and headers[kind.transport + _FLAGS] & _ONLY_ACK != _ACK:
        return False
    if kind.is_bare:
        return _has_right_lengths(batch, row, kind)
    header = sum_of(headers[: kind.transport])
    if header and not kind.is_v6:
        return False
    total = rest + sum_of(headers[:2]) - header
    total += pseudo_sum(headers, kind.protocol, batch.size - kind.transport)
    return total % FULL == 0 and _has_right_lengths(batch, row, kind)


def _has_right_lengths(batch: Batch, row: int, kind: _Kind) -> bool:
    """Whether a row has some payload, and its length fields say how long it is."""
    size = batch.row_size(row)
    if size <= kind.header:
        return False
    at = batch.offset + row * batch.stride
    headers = batch.buffer[at : at + kind.header]
    right = bytearray(headers)
    _set_lengths(right, 0, size, kind)
    return headers == right


def _set_lengths(headers: bytearray, at: int, size: int, kind: "SuperPacket | _Kind") -> None:
    """Write the length fields of a packet of `size` bytes whose headers begin at `at`."""
    if kind.is_v6:
        headers[at + 4 : at + 6] = (size - V6_HEADER).to_bytes(2, "big")
    else:
        headers[at + 2 : at + 4] = size.to_bytes(2, "big")
    if kind.is_udp:
        at += kind.transport
        headers[at + 4 : at + 6] = (size - kind.transport).to_bytes(2, "big")


def _merge_run(rows: Batch, kind: _Kind) -> Iterator[Merged]:
    """Rows that continue each other, as few packets."""
    payload = rows.size - kind.header
    most = min(ROWS_MAX, (PACKET_MAX - kind.header) // payload)
    for first in range(0, rows.count, most):
        part = rows.run(first, min(most, rows.count - first))
        if part.count == 1:
            yield 1, next(part.rows())
            continue
        full = part.count - (part.last < part.size)
        at, shape = part.offset + kind.header, (full, payload)
        payloads: _Bytes = np.ndarray(shape, np.uint8, part.buffer, at, (part.stride, 1))
        pieces: Pieces = [b"", payloads.tobytes()]
        size = full * payload
        if full < part.count:
            pieces.append(next(part.run(full, 1).rows())[kind.header :])
            size += part.last - kind.header
        pieces[0] = _header(part, kind, size)
        yield part.count, pieces


def _header(rows: Batch, kind: _Kind, payload: int) -> bytearray:
    """The headers of the super-packet that rows with so many bytes of payload in all become."""
    buffer, start, at = rows.buffer, rows.offset, kind.transport
    headers = buffer[start : start + kind.header]
    headers[0] &= ~BARE_BIT
    size, length = kind.header + payload, kind.header + payload - at
    ecn = 0
    if kind.is_udp:
        type_ = _GSO_UDP
        headers[at + 4 : at + 6] = length.to_bytes(2, "big")
    else:
        type_ = _GSO_TCP6 if kind.is_v6 else _GSO_TCP4
        ecn = _GSO_ECN if headers[at + _FLAGS] & _CWR else 0
        last = start + (rows.count - 1) * rows.stride
        headers[at + _FLAGS] |= buffer[last + at + _FLAGS] & (_FIN | _PSH)
    if kind.is_v6:
        headers[4:6] = (size - V6_HEADER).to_bytes(2, "big")
    else:
        headers[2:4] = size.to_bytes(2, "big")
        headers[10:12] = b"\0\0"
        put_sum(headers, 10, sum_of(headers[:at]))
    pseudo = pseudo_sum(headers, kind.protocol, length) % FULL
    headers[kind.checksum : kind.checksum + 2] = pseudo.to_bytes(2, "little")
    segment = rows.size - kind.header
    where = kind.checksum - at
    return (
        bytearray(_VNET.pack(NEEDS_CHECKSUM, type_ | ecn, kind.header, segment, at, where))
        + headers
    )
