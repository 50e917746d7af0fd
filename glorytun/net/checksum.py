"""The Internet checksum (RFC 1071) over one packet, and over all rows of a batch at once.

Sums are taken over little-endian 16-bit words and modulo 65535: ones' complement doesn't depend
on the byte order as long as the result is stored in the same (RFC 1071, 2 B). A number in network
byte order counts 256 times in it, because swapping two bytes is to multiply by 256 modulo 65535.
"""

import numpy as np
import numpy.typing as npt

from glorytun.core.batch import Batch

Numbers = npt.NDArray[np.int64]

FULL = 65535
"""Sums are modulo this."""
SWAP = 256


def sum_of(data: bytes | bytearray | memoryview) -> int:
    """The sum over one piece; an odd byte at its end is padded with zero."""
    return int.from_bytes(data, "little") % FULL


def row_sums(rows: Batch) -> Numbers:
    """The sum over each row but its first two bytes; up to 7 bytes behind the last row are read.

    The last row counts as long as the others.

    Words of 64 bits begin behind the first two, where the rows of full datagrams are aligned. Only
    their upper halves are added apart: from the sum of all, which wraps, that of the lower ones
    follows.
    """
    at, size = rows.offset + 2, rows.size - 2
    words, rest = divmod(size, 8)
    buffer, count, stride = rows.buffer, rows.count, rows.stride
    wide: npt.NDArray[np.uint64] = np.ndarray((count, words), "<u8", buffer, at, (stride, 8))
    upper = np.add.reduce(wide >> 32, axis=1)
    sums = np.add.reduce(wide, axis=1)
    sums -= upper << 32
    sums += upper
    if rest:
        tail: npt.NDArray[np.uint64] = np.ndarray(
            (count,), "<u8", buffer, at + 8 * words, (stride,)
        )
        sums += tail & ((1 << 8 * rest) - 1)
    signed: Numbers = sums.view(np.int64)
    return signed


def fill_in(packet: bytearray, start: int, at: int, end: int) -> None:
    """Complete a checksum that the kernel left to the device (VIRTIO_NET_HDR_F_NEEDS_CSUM).

    It covers `start` to `end`, and lies at `at`, where the pseudo-header's sum is already.
    """
    checksum = FULL - sum_of(memoryview(packet)[start:end])
    packet[at : at + 2] = checksum.to_bytes(2, "little")
