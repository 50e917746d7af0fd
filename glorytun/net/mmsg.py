"""Many datagrams in one call: sendmmsg(2) and recvmmsg(2), which Python's sockets don't have.

For datagrams that neither the kernel nor the other end puts together: a call for each takes one to
one and a half µs more.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from glorytun.core.batch import Batch, Buffer

SENT_MAX, RECEIVED_MAX = 64, 64
"""Datagrams that are sent in one call, and received in several."""
_SPILLS_MAX = 16
"""Datagrams that are received in one call: so many may be long ones."""
ROW_SIZE = 1536
"""Room for a datagram before it spills. No path of ours takes longer ones: PROBE_MAX. Rows whose
distance is a power of two would share the same few lines of the processor's caches."""
DATAGRAM_MAX = 65536
"""No UDP payload is longer, nor what the kernel puts together, so that none is ever truncated."""
RECEIVED_SIZE = RECEIVED_MAX * ROW_SIZE + _SPILLS_MAX * DATAGRAM_MAX
"""Of a buffer for `ReceiveMany`."""
SocketAddress = tuple[str, int] | tuple[str, int, int, int]
Ancillary = list[tuple[int, int, bytes]]
"""Both as Python's `socket` has them."""

_NAME_SIZE = 28
"""struct sockaddr_in6, the longest of those that we use."""
_CONTROL, _CONTROL_SIZE = 32, 128
"""Where what comes beside the data is put, behind the name, and the room for it."""
_CMSG = struct.Struct("@Nii")
"""struct cmsghdr: length, level, type. The next one is aligned like a length (CMSG_ALIGN())."""
_CMSG_ALIGN = struct.calcsize("@N")


class _Vector(ctypes.Structure):
    """struct iovec: readv(2)."""

    _fields_ = (("base", ctypes.c_size_t), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr: recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_size_t),
        ("name_size", ctypes.c_uint),
        ("vectors", ctypes.c_size_t),
        ("vectors_count", ctypes.c_size_t),
        ("control", ctypes.c_size_t),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr: recvmmsg(2)."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_libc.recvmmsg.argtypes = (*_libc.sendmmsg.argtypes, ctypes.c_void_p)


def _array(kind: type[ctypes.Structure], count: int) -> npt.NDArray[np.void]:
    return np.zeros(count, np.dtype(kind))


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Envelope:
    """What sendmmsg(2) takes besides the bytes: where to, and how."""

    __slots__ = ("_control", "_name", "control", "control_size", "name", "name_size")

    def __init__(
        self,
        family: socket.AddressFamily,
        destination: SocketAddress,
        ancillary: Ancillary,
    ) -> None:
        """The arguments are those of `socket.sendmsg`."""
        self._name = _pack_name(family, destination)
        self._control = bytearray()  # Kept, as the name is, since only its address is used.
        for level, kind, data in ancillary:
            self._control += _CMSG.pack(socket.CMSG_LEN(len(data)), level, kind) + data
            self._control += bytes(-len(self._control) % _CMSG_ALIGN)
        self.name, self.name_size = _address(self._name), len(self._name)
        self.control = _address(self._control) if self._control else 0
        self.control_size = len(self._control)


def _pack_name(family: socket.AddressFamily, destination: SocketAddress) -> bytearray:
    """struct sockaddr_in or sockaddr_in6: ip(7), ipv6(7)."""
    address = socket.inet_pton(family, destination[0])
    start = struct.pack("=H", family) + struct.pack("!H", destination[1])
    if family == socket.AF_INET:
        return bytearray(start + address + bytes(8))
    scope = destination[3] if len(destination) == 4 else 0
    return bytearray(start + bytes(4) + address + struct.pack("=I", scope))


class SendMany:
    """Sends rows of a batch."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._vectors = _array(_Vector, SENT_MAX)
        self._messages = _array(_Message, SENT_MAX)
        self._headers = self._messages["header"]
        self._headers["vectors"] = _places(self._vectors)
        self._headers["vectors_count"] = 1
        self._at = self._messages.ctypes.data
        self._numbers = np.arange(SENT_MAX, dtype=np.uint64)
        self._envelope: Envelope | None = None

    def send(self, batch: Batch, envelope: Envelope) -> tuple[int, int]:
        """How many of the first `SENT_MAX` rows left, and else the errno of the one behind them."""
        count = min(batch.count, SENT_MAX)
        vectors = self._vectors
        start = _address(batch.buffer) + batch.offset
        vectors["base"] = self._numbers * np.uint64(batch.stride) + np.uint64(start)
        vectors["size"] = batch.size
        if count == batch.count:
            vectors["size"][count - 1] = batch.last
        if envelope is not self._envelope:
            self._address_to(envelope)
        sent: int = _libc.sendmmsg(self._descriptor, self._at, count, 0)
        return (0, ctypes.get_errno()) if sent < 0 else (sent, 0)

    def _address_to(self, envelope: Envelope) -> None:
        headers = self._headers
        headers["name"], headers["name_size"] = envelope.name, envelope.name_size
        headers["control"], headers["control_size"] = envelope.control, envelope.control_size
        self._envelope = envelope


class ReceiveMany:
    """Receives into one buffer of RECEIVED_SIZE bytes at least.

    First there is a row of ROW_SIZE bytes for each datagram, so that those of ordinary size are a
    batch. What doesn't fit goes on in a place for each row that has room for all of it.
    """

    def __init__(self, descriptor: int, buffer: Buffer) -> None:
        self._descriptor = descriptor
        self._buffer = buffer
        self._vectors = _array(_Vector, 2 * RECEIVED_MAX)
        self._messages = _array(_Message, RECEIVED_MAX)
        self._headers = self._messages["header"]
        self._headers["vectors"] = _places(self._vectors)[::2]
        self._headers["vectors_count"] = 2
        # Names and what comes beside the data are compared at once.
        self._infos = np.zeros((RECEIVED_MAX, _CONTROL + _CONTROL_SIZE), np.uint8)
        self._headers["name"] = _places(self._infos)
        self._headers["control"] = _places(self._infos) + np.uint64(_CONTROL)
        start = _address(buffer)
        rows = np.arange(RECEIVED_MAX, dtype=np.uint64)
        self._vectors["base"][::2] = rows * np.uint64(ROW_SIZE) + np.uint64(start)
        self._vectors["size"][::2] = ROW_SIZE
        spills = rows % np.uint64(_SPILLS_MAX) * np.uint64(DATAGRAM_MAX)
        self._vectors["base"][1::2] = spills + np.uint64(start + _spill_at(0) + ROW_SIZE)
        self._vectors["size"][1::2] = DATAGRAM_MAX - ROW_SIZE
        self._at = self._messages.ctypes.data
        self.is_drained = True
        """Whether the last call took all there was."""

    def receive(self) -> list[tuple[Batch, bytes]]:
        """Datagrams that are waiting, `RECEIVED_MAX` at most, in rows of one size.

        With what came with each of them, for `parse`. Raises OSError.
        """
        self._infos.fill(0)  # So that what the kernel left out can be compared too.
        self._headers["name_size"], self._headers["control_size"] = _NAME_SIZE, _CONTROL_SIZE
        count = self._fill()
        received: list[tuple[Batch, bytes]] = []
        sizes, infos = self._messages["size"][:count], self._infos[:count]
        differs = (infos[1:] != infos[:-1]).any(axis=1) | (sizes[1:] != sizes[:-1])
        first = 0
        for end in [*(differs.nonzero()[0] + 1).tolist(), count]:
            info, size = infos[first].tobytes(), int(sizes[first])
            rows = Batch(self._buffer, first * ROW_SIZE, ROW_SIZE, end - first, size, size)
            if size > ROW_SIZE:
                received += [(self._spilled(row, size), info) for row in range(first, end)]
            else:
                received.append((rows, info))
            first = end
        return received

    def _fill(self) -> int:
        """How many rows were filled."""
        sizes = self._messages["size"]
        self.is_drained = False
        for first in range(0, RECEIVED_MAX, _SPILLS_MAX):
            at = self._at + first * self._messages.itemsize
            count: int = _libc.recvmmsg(
                self._descriptor, at, _SPILLS_MAX, socket.MSG_DONTWAIT, None
            )
            if count < 0 and (not first or ctypes.get_errno() != errno.EAGAIN):
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))
            end = first + max(count, 0)
            self.is_drained = count < _SPILLS_MAX
            # The next call would fill the same places once more.
            if self.is_drained or (sizes[first:end] > ROW_SIZE).any():
                break
        return end

    def _spilled(self, row: int, size: int) -> Batch:
        """A datagram that is longer than its row, where there is room for all of it."""
        start = row * ROW_SIZE
        place = _spill_at(row)
        self._buffer[place : place + ROW_SIZE] = self._buffer[start : start + ROW_SIZE]
        return Batch(self._buffer, place, size, 1, size, size)


def _spill_at(row: int) -> int:
    """Where in the buffer there is room for all of a row."""
    return RECEIVED_MAX * ROW_SIZE + row % _SPILLS_MAX * DATAGRAM_MAX


def parse(info: bytes) -> tuple[SocketAddress, Ancillary]:
    """The source and what else came with a datagram, as `socket.recvmsg` gives them."""
    family, port = int.from_bytes(info[:2], sys.byteorder), int.from_bytes(info[2:4], "big")
    source: SocketAddress = (socket.inet_ntop(socket.AF_INET, info[4:8]), port)
    if family == socket.AF_INET6:
        flow, scope = int.from_bytes(info[4:8], "big"), int.from_bytes(info[24:28], sys.byteorder)
        source = (socket.inet_ntop(socket.AF_INET6, info[8:24]), port, flow, scope)
    ancillary: Ancillary = []
    at = _CONTROL
    while at < len(info):
        size, level, kind = _CMSG.unpack_from(info, at)
        if size < _CMSG.size:
            break
        ancillary.append((level, kind, info[at + _CMSG.size : at + size]))
        at += size + -size % _CMSG_ALIGN
    return source, ancillary


def _places(array: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """The address of each row."""
    numbers = np.arange(len(array), dtype=np.uint64)
    return numbers * np.uint64(array.strides[0]) + np.uint64(array.ctypes.data)
