"""The Internet checksum (RFC 1071) over one packet, and over all rows of a batch at once.

Sums are taken over little-endian 16-bit words and modulo 65535: ones' complement doesn't depend
on the byte order as long as the result is stored in the same (RFC 1071, 2 B). A number in network
byte order counts 256 times in it, because swapping two bytes is to multiply by 256 modulo 65535.
"""

import numpy as np
import numpy.typing as npt

from glorytun.core.batch import Batch

Sums = npt.NDArray[np.uint32]

FULL = 65535
"""Sums are modulo this."""
SWAP = 256


def sum_of(data: bytes | bytearray | memoryview) -> int:
    """The sum over one piece; an odd byte at its end is padded with zero."""
    return int.from_bytes(data, "little") % FULL


def pseudo_sum(headers: bytearray | bytes | memoryview, protocol: int, length: int) -> int:
    """The sum over the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1)."""
    addresses = headers[8:40] if headers[0] >> 4 == 6 else headers[12:20]
    return sum_of(addresses) + SWAP * (protocol + length)


def put_sum(data: bytearray | memoryview, at: int, total: int) -> None:
    """Write the checksum that makes up for a sum over all else."""
    data[at : at + 2] = (-total % FULL).to_bytes(2, "little")


def row_sums(rows: Batch) -> Sums:
    """The sum over each row but its first two bytes, less than 2^31 for any packet.

    The last row counts as long as the others. Behind those two bytes rows of full datagrams are
    aligned; and 32 bits are summed faster than 64.
    """
    at, size = rows.offset + 2, rows.size - 2
    buffer, count, stride = rows.buffer, rows.count, rows.stride
    words: npt.NDArray[np.uint16] = np.ndarray((count, size // 2), "<u2", buffer, at, (stride, 2))
    sums: Sums = np.add.reduce(words, axis=1, dtype=np.uint32)
    if size % 2:
        sums += np.ndarray((count,), np.uint8, buffer, at + size - 1, (stride,))
    return sums


def fill_in_rows(rows: Batch, start: int, at: int) -> None:
    """`fill_in` for each row; `start` and `at` count from its beginning."""
    if rows.count == 1:
        begin = rows.offset
        fill_in(rows.buffer, begin + start, begin + at, begin + rows.size)
        return
    size = rows.size - start
    # With the two bytes before them, which aren't in the sum.
    part = Batch(rows.buffer, rows.offset + start - 2, rows.stride, rows.count, size + 2, size + 2)
    shape, strides = (rows.count,), (rows.stride,)
    field: npt.NDArray[np.uint16]
    field = np.ndarray(shape, "<u2", rows.buffer, rows.offset + at, strides)
    field[:] = FULL - row_sums(part) % FULL


def fill_in(packet: bytearray, start: int, at: int, end: int) -> None:
    """Complete a checksum that the kernel left to the device (VIRTIO_NET_HDR_F_NEEDS_CSUM).

    It covers `start` to `end`, and lies at `at`, where the pseudo-header's sum is already.
    """
    checksum = FULL - sum_of(memoryview(packet)[start:end])
    packet[at : at + 2] = checksum.to_bytes(2, "little")
