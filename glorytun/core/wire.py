"""Datagrams and control messages as bytes.

A datagram is ``time (6) ‖ ciphertext ‖ tag (16)``; what the ciphertext of a control datagram
holds is `ControlMessage`. The layout is that of mud 0.3 (glorytun 0.3.4), see docs/protocol.md.
"""

import struct
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import numpy.typing as npt

from glorytun.core.address import Endpoint
from glorytun.core.batch import Batch
from glorytun.core.settings import NO_CLASS, PathMode

# What the protocol says.

TIME_SIZE = 6
TAG_SIZE = 16
OVERHEAD = TIME_SIZE + TAG_SIZE
KEY_SIZE = 32
"""Of the secret key, a session key, and both halves of an X25519 pair."""
TIME_BITS = 48
TIME_MASK = (1 << TIME_BITS) - 1
CONTROL_BIT = 1
"""Bit 0 of the time field: a control message, not data."""
SERVER_BIT = 2
"""Bit 1 of a control message's time: its sender is the server (our addition, section 7)."""
BARE_BIT = 0x80
"""In the first byte of an IP packet, beside its version: it has no checksums (section 7)."""
VERSION_MASK = 7
"""Of the upper half of that byte, which is the version else."""

_CONTROL = struct.Struct("<6sBB32sQQQQQQQ6sHBBB16s")
_PORT = struct.Struct(">H")
CONTROL_SIZE = _CONTROL.size + _PORT.size
"""Bytes of a control message without extensions."""
CONTROL_DATAGRAM_SIZE = CONTROL_SIZE + OVERHEAD
"""Bytes of the smallest control datagram."""

_EVEN = bytes(range(0, 256, 2))

# What this implementation chose.

DATAGRAM_MAX = 65535
"""Nothing longer can arrive over UDP."""
REQUEST_SIZE = 192
"""Bytes of our plain requests: so the reply, which is as long, has room for extensions."""
SOFTWARE_MAX = 64
"""Bytes of the name and version we take from a peer."""


class Capability(IntFlag):
    """Extension type 1, a little-endian bit field."""

    AEGIS = 1
    AES_GCM = 2
    TIMESTAMPS = 4
    """Sending times can be used for skew equalisation."""
    IN_ORDER = 8
    """What comes is put in the order of these times, so that it may be sent over any path."""
    BARE = 16
    """Packets of TCP may come without checksums."""


_KNOWN = Capability(sum(Capability))
_EXTENSION_CAPABILITIES = 1
_EXTENSION_SOFTWARE = 2
_EXTENSION_CONFIRM = 3
_EXTENSION_WISHES = 4
_WISHES, _WISHES_MIN = struct.Struct("<BBBII"), 7
_MODES = tuple(PathMode)
"""By their numbers there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Extension type 4: more of what a client's user wants of a path, and of the tunnel."""

    mode: PathMode = PathMode.BULK
    redundant: int = NO_CLASS
    """The traffic class of packets that are sent on two paths."""
    preference: int = 0
    cost: int = 0
    delay_limit: int = 0
    """µs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extensions:
    """What follows byte 125 of a control message; a 0.3.4 peer sends none of it."""

    capabilities: Capability | None = None
    software: str = ""
    confirm: bytes = b""
    """The first 8 bytes of BLAKE2b-256 of the public key that the sender knows as its peer's."""
    wishes: Wishes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlMessage:
    """The plaintext of a control datagram; field names are the protocol's."""

    sent_time: int
    """0 in a request; in a reply the request's time field, bit 0 set."""
    state: int
    aes: bool
    pkey: bytes
    tx_bytes: int
    tx_total: int
    rx_bytes: int
    rx_total: int
    fw_bytes: int = 0
    fw_total: int = 0
    max_rate: int
    """bytes/s the sender wants to receive."""
    beat: int
    """µs."""
    mtu: int
    """UDP payload bytes; 0 while probing."""
    loss: int
    fixed_rate: bool
    loss_limit: int
    sent_to: Endpoint
    """The address the sender sends this message to."""
    extensions: Extensions = Extensions()

    @property
    def is_request(self) -> bool:
        return self.sent_time == 0


def pull_time(datagram: bytes | bytearray | memoryview, offset: int = 0) -> int:
    """The time field of a datagram, flag bits included."""
    return int.from_bytes(datagram[offset : offset + TIME_SIZE], "little")


def push_time(datagram: bytearray, offset: int, time: int) -> None:
    """Write µs since the epoch, flag bits included, as the time field at `offset`."""
    field = (time & TIME_MASK).to_bytes(TIME_SIZE, "little")
    datagram[offset : offset + TIME_SIZE] = field


def push_times(datagrams: Batch, first: int, *, step: int) -> None:
    """Write times that are `step` apart as the time fields of all rows; see `push_time`."""
    count = datagrams.count
    if count == 1:
        push_time(datagrams.buffer, datagrams.offset, first)
        return
    times = np.arange(first, first + count * step, step, dtype="<i8")
    fields = _fields(datagrams)
    fields[:] = times.view(np.uint8).reshape(count, times.itemsize)[:, :TIME_SIZE]


def pull_times(datagrams: Batch, *, now: int) -> npt.NDArray[np.int64]:
    """The times of all rows as `unwrap_time` has them, provided that they increase."""
    times = np.zeros((datagrams.count, 8), np.uint8)
    times[:, :TIME_SIZE] = _fields(datagrams)
    fields = times.view("<i8").ravel()
    first = int(fields[0])
    return fields + (unwrap_time(first, now=now) - first)


def _fields(datagrams: Batch) -> npt.NDArray[np.uint8]:
    shape, strides = (datagrams.count, TIME_SIZE), (datagrams.stride, 1)
    return np.ndarray(shape, np.uint8, datagrams.buffer, datagrams.offset, strides)


def has_control(datagrams: Batch) -> bool:
    """Whether any row is a control message; all have at least one byte."""
    at = datagrams.offset
    if datagrams.count == 1:
        return bool(datagrams.buffer[at] & CONTROL_BIT)
    first_bytes = datagrams.buffer[at : at + datagrams.count * datagrams.stride : datagrams.stride]
    return bool(first_bytes.translate(None, _EVEN))


def unwrap_time(field: int, *, now: int) -> int:
    """Microseconds since the epoch of a 48-bit time field: the moment nearest to `now`."""
    distance = (field - now) & TIME_MASK
    if distance >> (TIME_BITS - 1):
        distance -= 1 << TIME_BITS
    return now + distance


def push_control(message: ControlMessage, *, size: int) -> bytes:
    """The plaintext of a control message whose datagram has `size` bytes, 147 at the least.

    Extensions that don't fit are left out, and the rest is zeros, which a 0.3.4 peer ignores:
    requests are padded to `REQUEST_SIZE` or a probed size, and a reply is as long as its request.
    """
    body = _CONTROL.pack(
        (message.sent_time & TIME_MASK).to_bytes(TIME_SIZE, "little"),
        message.state,
        message.aes,
        message.pkey,
        message.tx_bytes,
        message.tx_total,
        message.rx_bytes,
        message.rx_total,
        message.fw_bytes,
        message.fw_total,
        message.max_rate,
        min(message.beat, TIME_MASK).to_bytes(TIME_SIZE, "little"),
        message.mtu,
        message.loss,
        message.fixed_rate,
        message.loss_limit,
        message.sent_to.address,
    )
    body += _PORT.pack(message.sent_to.port)
    room = size - OVERHEAD - len(body)
    return (body + _push_extensions(message.extensions, room)).ljust(size - OVERHEAD, b"\0")


def pull_control(plaintext: bytes | bytearray | memoryview) -> ControlMessage:
    """The message of a control datagram's plaintext, `CONTROL_SIZE` bytes or more of it.

    Any such bytes give a message: values are checked by whoever uses them.
    """
    (
        sent_time,
        state,
        aes,
        pkey,
        tx_bytes,
        tx_total,
        rx_bytes,
        rx_total,
        fw_bytes,
        fw_total,
        max_rate,
        beat,
        mtu,
        loss,
        fixed_rate,
        loss_limit,
        address,
    ) = _CONTROL.unpack_from(plaintext)
    (port,) = _PORT.unpack_from(plaintext, _CONTROL.size)
    return ControlMessage(
        sent_time=int.from_bytes(sent_time, "little"),
        state=state,
        aes=bool(aes),
        pkey=pkey,
        tx_bytes=tx_bytes,
        tx_total=tx_total,
        rx_bytes=rx_bytes,
        rx_total=rx_total,
        fw_bytes=fw_bytes,
        fw_total=fw_total,
        max_rate=max_rate,
        beat=int.from_bytes(beat, "little"),
        mtu=mtu,
        loss=loss,
        fixed_rate=bool(fixed_rate),
        loss_limit=loss_limit,
        sent_to=Endpoint(address, port),
        extensions=_pull_extensions(bytes(plaintext[CONTROL_SIZE:])),
    )


def _push_extensions(extensions: Extensions, room: int) -> bytes:
    """The most important first: what doesn't fit is left out."""
    known = extensions.capabilities
    values = (
        (_EXTENSION_CAPABILITIES, b"" if known is None else bytes([known])),
        (_EXTENSION_CONFIRM, extensions.confirm),
        (_EXTENSION_WISHES, _push_wishes(extensions.wishes)),
        (_EXTENSION_SOFTWARE, extensions.software.encode()[:SOFTWARE_MAX]),
    )
    block = b""
    for kind, value in values:
        if value and len(block) + 2 + len(value) <= room:
            block += bytes([kind, len(value)]) + value
    return block


def _push_wishes(wishes: Wishes | None) -> bytes:
    if wishes is None:
        return b""
    mode = _MODES.index(wishes.mode)
    return _WISHES.pack(mode, wishes.redundant, wishes.preference, wishes.cost, wishes.delay_limit)


def _pull_wishes(value: bytes) -> Wishes | None:
    """Those of another version may be longer, or shorter; a mode that we don't know is none."""
    if len(value) < _WISHES_MIN:
        return None
    values = value.ljust(_WISHES.size, b"\0")
    mode, redundant, preference, cost, delay_limit = _WISHES.unpack_from(values)
    if mode >= len(_MODES):
        return None
    return Wishes(
        mode=_MODES[mode],
        redundant=redundant,
        preference=preference,
        cost=cost,
        delay_limit=delay_limit,
    )


def _pull_extensions(block: bytes) -> Extensions:
    """Unknown types are skipped; a value that runs over the end ends the block."""
    capabilities: Capability | None = None
    software, confirm = "", b""
    wishes: Wishes | None = None
    at = 0
    while at + 2 <= len(block) and block[at]:
        kind, length = block[at], block[at + 1]
        value = block[at + 2 : at + 2 + length]
        if len(value) < length:
            break
        if kind == _EXTENSION_CAPABILITIES:
            # Bits that we don't know are left out: only ours are ever asked for.
            capabilities = Capability(int.from_bytes(value, "little") & _KNOWN)
        elif kind == _EXTENSION_SOFTWARE:
            software = _printable(value[:SOFTWARE_MAX].decode(errors="replace"))
        elif kind == _EXTENSION_CONFIRM:
            confirm = value[:8]
        elif kind == _EXTENSION_WISHES:
            wishes = _pull_wishes(value)
        at += 2 + length
    return Extensions(capabilities=capabilities, software=software, confirm=confirm, wishes=wishes)


def _printable(text: str) -> str:
    """A peer's words go to logs and terminals: nothing in them may steer one."""
    return "".join(char if char.isprintable() else "?" for char in text)
