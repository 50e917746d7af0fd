"""Super-packets: what the kernel hands over, or takes, as one packet for many of one flow.

`split` does what the kernel's segmentation does to one (tcp_gso_segment(), __udp_gso_segment()),
`merge` what its receive offload does to many (tcp_gro_receive()). Both are exact: what was split
and merged, or merged here and split by the kernel, is byte for byte what it was. What can't be
merged so is passed on as it is. There is no system call in here.

A super-packet has a `struct virtio_net_hdr` before it (linux/virtio_net.h).
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glorytun.core.batch import Batch
from glorytun.core.wire import OVERHEAD
from glorytun.net.checksum import FULL, SWAP, Numbers, row_sums, sum_of

VNET_SIZE = 10
PLAIN = bytes(VNET_SIZE)
"""The header of a packet that is complete."""
ROWS_MAX = 64
"""Of what one call splits, and of what is merged into one: UDP_MAX_SEGMENTS of older kernels."""
PACKET_MAX = 65535
SLACK = 128
"""Bytes of a buffer behind the last row that `split` may write, or `merge` read."""

_VNET = struct.Struct("=BBHHHH")
_NEEDS_CSUM = 1
_TCP4, _TCP6, _UDP, _ECN = 1, 4, 5, 0x80
_PROTO_TCP, _PROTO_UDP = 6, 17
_V4_HEADER, _V6_HEADER, _UDP_HEADER, _TCP_HEADER = 20, 40, 8, 20
_FLAGS, _TCP_CHECKSUM, _UDP_CHECKSUM = 13, 16, 6
"""Where these are in the headers of TCP and UDP."""
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80
_ONLY_ACK, _ACK = 0x36, 0x10
"""Of SYN, RST, URG and ACK the last alone is set in what may be merged."""
_WINDOW = 104
"""Bytes of a row that are looked at: a header of IPv6 and the longest of TCP fit."""
_INDEX: Numbers = np.arange(ROWS_MAX, dtype=np.int64)

_Bytes = npt.NDArray[np.uint8]
_Flags = npt.NDArray[np.bool_]
Piece = bytes | bytearray | memoryview
Pieces = list[Piece]
"""One packet with its vnet header, as writev(2) takes it."""


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

    @property
    def needs_checksum(self) -> bool:
        return bool(self.flags & _NEEDS_CSUM)


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
        kind = vnet.kind & ~_ECN
        if kind not in (_TCP4, _TCP6, _UDP) or not vnet.segment or not vnet.needs_checksum:
            return None
        is_udp = kind == _UDP
        words = buffer[VNET_SIZE + vnet.start + 12] >> 4
        header = vnet.start + (_UDP_HEADER if is_udp else 4 * words)
        if not _V4_HEADER <= vnet.start < header < size:
            return None
        count = -((header - size) // vnet.segment)
        last = size - header - (count - 1) * vnet.segment
        is_v6 = buffer[VNET_SIZE] >> 4 == 6
        return cls(buffer, is_v6, is_udp, vnet.start, header, vnet.segment, count, last)

    @property
    def protocol(self) -> int:
        return _PROTO_UDP if self.is_udp else _PROTO_TCP

    @property
    def checksum(self) -> int:
        """Where the checksum of TCP or UDP is."""
        return self.transport + (_UDP_CHECKSUM if self.is_udp else _TCP_CHECKSUM)


# Splitting.


def split(packet: SuperPacket, *, first: int, into: bytearray, offset: int) -> Batch:
    """The segments from number `first` on, at most ROWS_MAX of them, as packets.

    They are laid out for sealing: the first at `offset`, OVERHEAD bytes between two.
    """
    count = min(packet.segments - first, ROWS_MAX)
    size = packet.header + packet.segment
    rows = Batch(into, offset, size + OVERHEAD, count, size, size)
    template = _template(packet)
    _lay_out(packet, template, rows, first)
    missing = 0
    if first + count == packet.segments:
        missing = packet.segment - packet.last
        _end(packet, rows, missing)
    if not packet.is_v6:
        _number(packet, template, rows, first=first, missing=missing)
    _fill_in_checksums(packet, template, rows, missing)
    rows.last = size - missing
    return rows


def _template(packet: SuperPacket) -> bytearray:
    """The headers as the segments have them in common, without checksums."""
    template = packet.buffer[VNET_SIZE : VNET_SIZE + packet.header]
    _set_lengths(template, 0, packet, packet.segment)
    if not packet.is_v6:
        template[10:12] = b"\0\0"
    if not packet.is_udp:
        template[packet.transport + _FLAGS] &= ~(_FIN | _PSH | _CWR)
    template[packet.checksum : packet.checksum + 2] = b"\0\0"
    return template


def _set_lengths(headers: bytearray, at: int, packet: SuperPacket, payload: int) -> None:
    """Write the length fields of a segment whose headers begin at `at`."""
    size = packet.header + payload
    if packet.is_v6:
        headers[at + 4 : at + 6] = (size - _V6_HEADER).to_bytes(2, "big")
    else:
        headers[at + 2 : at + 4] = size.to_bytes(2, "big")
    if packet.is_udp:
        at += packet.transport + 4
        headers[at : at + 2] = (_UDP_HEADER + payload).to_bytes(2, "big")


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
    numbers[:] = (_INDEX[:count] * segment + (start + first * segment)) & 0xFFFFFFFF
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
        _set_lengths(buffer, at, packet, packet.last)


def _number(
    packet: SuperPacket, template: bytearray, rows: Batch, *, first: int, missing: int
) -> None:
    """IPv4: the identification counts up (inet_gso_segment()); and the header's checksum."""
    buffer, count, stride, at = rows.buffer, rows.count, rows.stride, rows.offset
    start = int.from_bytes(template[4:6], "big")
    numbers = (_INDEX[:count] + (start + first)) & 0xFFFF
    field: npt.NDArray[np.uint16] = np.ndarray((count,), ">u2", buffer, at + 4, (stride,))
    field[:] = numbers
    rest = sum_of(template[: packet.transport]) - SWAP * start
    checksums = -rest - SWAP * numbers
    checksums[-1] += SWAP * missing
    field = np.ndarray((count,), "<u2", buffer, at + 10, (stride,))
    field[:] = checksums % FULL


def _fill_in_checksums(packet: SuperPacket, template: bytearray, rows: Batch, missing: int) -> None:
    """Those of TCP or UDP, from sums over whole rows.

    A whole header of IPv4 adds nothing, since its checksum makes its sum zero. Of IPv6 it is taken
    off; a shorter length of the last row then cancels out against that in its pseudo-header.
    """
    sums = row_sums(rows)
    length = rows.size - packet.transport
    common = sum_of(template[:2]) + _pseudo_sum(template, packet.protocol, length)
    if packet.is_v6:
        common -= sum_of(template[: packet.transport])
    else:
        sums[-1] -= SWAP * missing
    checksums = -(sums + common) % FULL
    if packet.is_udp:
        checksums[checksums == 0] = FULL  # 0 stands for none: RFC 768.
    field: npt.NDArray[np.uint16] = np.ndarray(
        (rows.count,), "<u2", rows.buffer, rows.offset + packet.checksum, (rows.stride,)
    )
    field[:] = checksums


def _pseudo_sum(headers: bytearray | bytes, protocol: int, length: int) -> int:
    """The sum over the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1)."""
    addresses = headers[8:40] if headers[0] >> 4 == 6 else headers[12:20]
    return sum_of(addresses) + SWAP * (protocol + length)


# Merging.


class _Kind(NamedTuple):
    """What may be merged with each other has this in common, beside the bytes under a mask."""

    is_v6: bool
    is_udp: bool
    transport: int
    header: int

    @property
    def mask(self) -> _Bytes:
        return _mask(self)


@lru_cache(maxsize=64)
def _mask(kind: _Kind) -> _Bytes:
    """The bits of the headers that must be equal; what else may differ is looked at apart."""
    mask = np.full(kind.header, 0xFF, np.uint8)
    if kind.is_v6:
        mask[4:6] = 0
    else:
        mask[2:6] = mask[10:12] = 0
    at = kind.transport
    if kind.is_udp:
        mask[at + 4 : at + 8] = 0
    else:
        mask[at + 4 : at + 8] = mask[at + _TCP_CHECKSUM : at + _TCP_CHECKSUM + 2] = 0
        mask[at + _FLAGS] = 0xFF ^ (_FIN | _PSH | _CWR)
    return mask


class _Rows:
    """Rows of several batches of one buffer, numbered through."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self._buffer = buffer = batches[0].buffer
        self._sums: Numbers | None = None
        if len(batches) == 1:
            batch = batches[0]
            self.starts: Numbers = np.arange(batch.count) * batch.stride + batch.offset
            self.sizes: Numbers = np.full(batch.count, batch.size)
            self.sizes[-1] = batch.last
        else:
            self.starts = np.array([at for batch in batches for at in batch.starts()])
            sizes = [batch.row_size(row) for batch in batches for row in range(batch.count)]
            self.sizes = np.array(sizes)
        shape = (len(buffer) - _WINDOW + 1, _WINDOW)
        windows: _Bytes = np.ndarray(shape, np.uint8, buffer, 0, (1, 1))
        self.headers = windows[self.starts]
        """The first _WINDOW bytes of each; behind a shorter row something else."""

    def view(self, row: int, start: int = 0) -> memoryview:
        """A row, from its byte `start` on."""
        at = int(self.starts[row])
        return memoryview(self._buffer)[at + start : at + int(self.sizes[row])]

    def sums(self) -> Numbers:
        """The sum over each row."""
        if self._sums is None:
            parts = [part for batch in self._batches for part in _batch_sums(batch)]
            sums = np.concatenate(parts) if len(parts) > 1 else parts[0]
            self._sums = sums + _field(self.headers, 0, "<u2")
        return self._sums


def _batch_sums(batch: Batch) -> Iterator[Numbers]:
    """The sum over each row but its first two bytes, in pieces."""
    full = batch.count - (batch.last < batch.size)
    if full > 1:
        yield row_sums(batch.run(0, full))
    rest = batch if full <= 1 else batch.run(full, 1) if full < batch.count else None
    if rest is not None:
        yield np.array([sum_of(row[2:]) for row in rest.rows()])


def _field(headers: _Bytes, at: int, kind: str) -> Numbers:
    """A number out of each header."""
    size = int(kind[-1])
    return headers[:, at : at + size].copy().view(kind).ravel().astype(np.int64)


def merge(batches: Sequence[Batch], *, udp: bool) -> Iterator[Pieces]:
    """The rows as super-packets where they can be merged, else as they are.

    All batches lie in one buffer with SLACK behind the last row. The order of what belongs to one
    flow stays, whatever comes between. `udp` says whether UDP may be merged too.
    """
    rows = _Rows(batches)
    for flow in _flows(rows.headers):
        yield from _merge_flow(rows, flow, udp=udp)


def _flows(headers: _Bytes) -> Iterable[Numbers]:
    """Which rows belong together, each flow in order."""
    count = len(headers)
    start, end = (8, 44) if headers[0, 0] >> 4 == 6 else (12, 24)
    if (headers[:, start:end] == headers[0, start:end]).all():
        return (_INDEX[:count] if count <= ROWS_MAX else np.arange(count),)
    data = headers.tobytes()
    flows: dict[bytes, list[int]] = {}
    for row in range(count):
        flows.setdefault(_flow_key(data, row * _WINDOW), []).append(row)
    return [np.array(flow) for flow in flows.values()]


def _flow_key(data: bytes, at: int) -> bytes:
    """Addresses, and ports where there are any: fragments must not overtake each other."""
    if data[at] == 0x45:
        is_fragment = data[at + 6] & 0x3F or data[at + 7]
        has_ports = data[at + 9] in (_PROTO_TCP, _PROTO_UDP) and not is_fragment
        return data[at + 12 : at + (24 if has_ports else 20)]
    if data[at] >> 4 == 6:
        has_ports = data[at + 6] in (_PROTO_TCP, _PROTO_UDP)
        return data[at + 8 : at + (44 if has_ports else 40)]
    return data[at + 12 : at + 20]


def _merge_flow(rows: _Rows, flow: Numbers, *, udp: bool) -> Iterator[Pieces]:
    kind = _kind_of(rows.headers[flow[0]].tobytes()) if len(flow) > 1 else None
    if kind is None or (kind.is_udp and not udp):
        ends = np.arange(1, len(flow))
    else:
        ends = np.flatnonzero(~_joins(rows, flow, kind)) + 1
    first = 0
    for end in [*ends.tolist(), len(flow)]:
        if end - first == 1 or kind is None:
            yield [PLAIN, rows.view(flow[first])]
        else:
            yield from _merge_run(rows, flow[first:end].tolist(), kind)
        first = end


def _kind_of(header: bytes) -> _Kind | None:
    """What a row may be merged as, by its header."""
    is_v6 = header[0] >> 4 == 6
    if is_v6:
        transport, protocol = _V6_HEADER, header[6]
    elif header[0] == 0x45 and not (header[6] & 0xBF or header[7]):  # No options, no fragment.
        transport, protocol = _V4_HEADER, header[9]
    else:
        return None
    if protocol == _PROTO_UDP:
        return _Kind(is_v6, True, transport, transport + _UDP_HEADER)
    size = 4 * (header[transport + 12] >> 4)
    if protocol != _PROTO_TCP or size < _TCP_HEADER:
        return None
    return _Kind(is_v6, False, transport, transport + size)


def _joins(rows: _Rows, flow: Numbers, kind: _Kind) -> _Flags:
    """Whether each row but the first continues the one before it."""
    headers, sizes = rows.headers[flow], rows.sizes[flow]
    common = headers[:, : kind.header]
    joins: _Flags = np.logical_not(((common[1:] ^ common[:-1]) & kind.mask).any(axis=1))
    # The kernel numbers segments, and gives each but the last the same size.
    joins &= sizes[1:] <= sizes[:-1]
    joins[1:] &= ~(joins[:-1] & (sizes[1:-1] < sizes[:-2]))
    if not kind.is_v6:
        joins &= (np.diff(_field(headers, 4, ">u2")) & 0xFFFF) == 1
    good = sizes > kind.header
    length = _field(headers, 4 if kind.is_v6 else 2, ">u2")
    good &= length == (sizes - _V6_HEADER if kind.is_v6 else sizes)
    if kind.is_udp:
        good &= _field(headers, kind.transport + 4, ">u2") == sizes - kind.transport
    else:
        numbers = _field(headers, kind.transport + 4, ">u4")
        joins &= (np.diff(numbers) & 0xFFFFFFFF) == sizes[:-1] - kind.header
        flags = headers[:, kind.transport + _FLAGS]
        good &= (flags & _ONLY_ACK) == _ACK
        joins &= (flags[:-1] & (_FIN | _PSH)) == 0
        joins &= (flags[1:] & _CWR) == 0
    if (joins & good[1:]).any():
        good &= _are_checksums_right(headers, rows.sums()[flow], sizes, kind)
    joins &= good[1:] & good[:-1]
    return joins


def _are_checksums_right(headers: _Bytes, sums: Numbers, sizes: Numbers, kind: _Kind) -> _Flags:
    """Whether the checksums are right, and those that the kernel would write again."""
    at = kind.transport
    ip = np.add.reduce(headers[:, :at].copy().view("<u2"), axis=1, dtype=np.int64)
    protocol = _PROTO_UDP if kind.is_udp else _PROTO_TCP
    pseudo = _pseudo_sum(headers[0].tobytes(), protocol, 0)
    good: _Flags = (sums - ip + pseudo + SWAP * (sizes - at)) % FULL == 0
    checksums = _field(headers, at + (_UDP_CHECKSUM if kind.is_udp else _TCP_CHECKSUM), "<u2")
    # Of the two ways to write zero, UDP has the one and TCP the other.
    good &= checksums != (0 if kind.is_udp else FULL)
    if not kind.is_v6:
        good &= (ip % FULL == 0) & (_field(headers, 10, "<u2") != FULL)
    return good


def _merge_run(rows: _Rows, run: list[int], kind: _Kind) -> Iterator[Pieces]:
    """Rows that continue each other, as few packets."""
    payload = int(rows.sizes[run[0]]) - kind.header
    most = min(ROWS_MAX, (PACKET_MAX - kind.header) // payload)
    for first in range(0, len(run), most):
        part = run[first : first + most]
        if len(part) == 1:
            yield [PLAIN, rows.view(part[0])]
            continue
        pieces: Pieces = [b""]
        pieces += [rows.view(row, kind.header) for row in part]
        size = kind.header + payload * (len(part) - 1) + len(pieces[-1])
        flags = int(rows.headers[part[-1], kind.transport + _FLAGS])
        pieces[0] = _header(rows.headers[part[0]].tobytes(), kind, payload, size, flags)
        yield pieces


def _header(first: bytes, kind: _Kind, payload: int, size: int, flags: int) -> bytearray:
    """The headers of a super-packet of `size` bytes; `flags` are those of its last segment."""
    headers = bytearray(first[: kind.header])
    at, length = kind.transport, size - kind.transport
    ecn = 0
    if kind.is_udp:
        type_, checksum, protocol = _UDP, at + _UDP_CHECKSUM, _PROTO_UDP
        headers[at + 4 : at + 6] = length.to_bytes(2, "big")
    else:
        type_, checksum, protocol = _TCP6 if kind.is_v6 else _TCP4, at + _TCP_CHECKSUM, _PROTO_TCP
        ecn = _ECN if headers[at + _FLAGS] & _CWR else 0
        headers[at + _FLAGS] |= flags & (_FIN | _PSH)
    if kind.is_v6:
        headers[4:6] = (size - _V6_HEADER).to_bytes(2, "big")
    else:
        headers[2:4] = size.to_bytes(2, "big")
        headers[10:12] = b"\0\0"
        headers[10:12] = (-sum_of(headers[:at]) % FULL).to_bytes(2, "little")
    pseudo = _pseudo_sum(headers, protocol, length) % FULL
    headers[checksum : checksum + 2] = pseudo.to_bytes(2, "little")
    vnet = _VNET.pack(_NEEDS_CSUM, type_ | ecn, kind.header, payload, at, checksum - at)
    return bytearray(vnet) + headers
