"""Datagrams and control messages as bytes."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glorytun.core.address import Endpoint
from glorytun.core.settings import NO_CLASS, SECOND, PathMode
from glorytun.core.wire import (
    CONTROL_DATAGRAM_SIZE,
    CONTROL_SIZE,
    OVERHEAD,
    SOFTWARE_MAX,
    TIME_MASK,
    Capability,
    ControlMessage,
    Extensions,
    Wishes,
    _push_wishes,
    pull_control,
    pull_time,
    push_control,
    push_time,
    unwrap_time,
)
from tests.unit.core.peer import server_peer

U8, U16, U48, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 48, 64))
ENDPOINTS = st.builds(Endpoint, st.binary(min_size=16, max_size=16), U16, st.just(0))
PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=SOFTWARE_MAX)
EXTENSIONS = st.builds(
    Extensions,
    capabilities=st.none() | st.builds(Capability, st.integers(0, 15)),
    software=PRINTABLE,
    confirm=st.just(b"") | st.binary(min_size=8, max_size=8),
    wishes=st.none()
    | st.builds(
        Wishes,
        mode=st.sampled_from(PathMode),
        redundant=st.integers(0, NO_CLASS),
        preference=st.integers(0, 127),
        cost=st.integers(0, 10**6),
        delay_limit=st.integers(0, 60 * SECOND),
    ),
)
MESSAGES = st.builds(
    ControlMessage,
    sent_time=U48,
    state=U8,
    aes=st.booleans(),
    pkey=st.binary(min_size=32, max_size=32),
    tx_bytes=U64,
    tx_total=U64,
    rx_bytes=U64,
    rx_total=U64,
    fw_bytes=U64,
    fw_total=U64,
    max_rate=U64,
    beat=U48,
    mtu=U16,
    loss=U8,
    fixed_rate=st.booleans(),
    loss_limit=U8,
    sent_to=ENDPOINTS,
    extensions=EXTENSIONS,
)
ROOM_FOR_ALL = CONTROL_DATAGRAM_SIZE + 3 + 2 + SOFTWARE_MAX + 10
A_MESSAGE = server_peer().message()
BARE = push_control(A_MESSAGE, size=CONTROL_DATAGRAM_SIZE)


def extensions_of(block: bytes) -> Extensions:
    """What a message says whose extension block is `block`."""
    message = pull_control(BARE + block)
    return message.extensions


@given(MESSAGES, st.integers(ROOM_FOR_ALL, 1472))
def test_message_survives_the_wire(message: ControlMessage, size: int) -> None:
    """A message that has room comes out of its bytes as it went in, and they fill the datagram."""
    text = push_control(message, size=size)
    assert len(text) == size - OVERHEAD
    assert pull_control(text) == message


@given(MESSAGES, st.integers(CONTROL_DATAGRAM_SIZE, ROOM_FOR_ALL))
def test_extensions_are_left_out_whole(message: ControlMessage, size: int) -> None:
    """However little room there is, a message is as long as asked, and says nothing by halves."""
    text = push_control(message, size=size)
    assert len(text) == size - OVERHEAD
    pulled = pull_control(text)
    assert pulled is not None
    said, meant = pulled.extensions, message.extensions
    assert said.capabilities in (None, meant.capabilities)
    assert said.software in ("", meant.software)
    assert said.confirm in (b"", meant.confirm)
    assert said.wishes in (None, meant.wishes)
    assert text[:CONTROL_SIZE] == push_control(message, size=CONTROL_DATAGRAM_SIZE)


@given(st.binary(min_size=CONTROL_SIZE, max_size=1500))
def test_any_plaintext_is_a_message(plaintext: bytes) -> None:
    """No bytes at all make the decoder raise, if there are enough of them."""
    assert pull_control(plaintext).pkey == plaintext[8:40]


@given(st.binary(max_size=1500))
@example(b"\x01\xff")
@example(b"\x01\x01\xff")
@example(b"\x02\x00\x03")
def test_any_extension_block_is_read(block: bytes) -> None:
    """A peer's extension block may hold any bytes; what is said of it stays within bounds."""
    extensions = extensions_of(block)
    assert len(extensions.software) <= SOFTWARE_MAX
    assert extensions.software.isprintable()
    assert len(extensions.confirm) <= 8
    assert extensions.capabilities is None or extensions.capabilities in Capability(31)


@given(EXTENSIONS, st.lists(st.tuples(st.integers(5, 255), st.binary(max_size=255)), max_size=3))
def test_unknown_extensions_are_skipped(
    extensions: Extensions, unknown: list[tuple[int, bytes]]
) -> None:
    """Types that we don't know, before the ones we do, change nothing."""
    known = {
        1: b"" if extensions.capabilities is None else bytes([extensions.capabilities]),
        2: extensions.software.encode(),
        3: extensions.confirm,
        4: _push_wishes(extensions.wishes),
    }
    records = unknown + [(kind, value) for kind, value in known.items() if value]
    block = b"".join(bytes([kind, len(value)]) + value for kind, value in records)
    assert extensions_of(block) == extensions
    assert extensions_of(block + bytes(40)) == extensions


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"", Extensions()),
        (bytes(45), Extensions()),
        (b"\x01\x01\x05", Extensions(capabilities=Capability.AEGIS | Capability.TIMESTAMPS)),
        (b"\x01\x02\xff\xff", Extensions(capabilities=Capability(31))),
        (b"\x01\x00", Extensions(capabilities=Capability(0))),
        (b"\x01\x02\x01", Extensions()),
        (b"\x01\x01\x01\x02\xff\x61", Extensions(capabilities=Capability.AEGIS)),
        (b"\x00\x01\x01\x01", Extensions()),
        (
            b"\x04\x0b\x01\xb8\x02\x03\x00\x00\x00\xf0\x49\x02\x00",
            Extensions(
                wishes=Wishes(
                    mode=PathMode.REDUNDANT,
                    redundant=0xB8,
                    preference=2,
                    cost=3,
                    delay_limit=150_000,
                )
            ),
        ),
        # Longer than we know, too short, a mode that we don't know.
        (b"\x04\x0c\x00\xff" + bytes(9) + b"\x09", Extensions(wishes=Wishes())),
        (b"\x04\x07\x00\xff" + bytes(5), Extensions(wishes=Wishes())),
        (b"\x04\x06\x00\xff" + bytes(4), Extensions()),
        (b"\x04\x0b\x02\xff" + bytes(9), Extensions()),
        (b"\x02\x03a\x1bb", Extensions(software="a?b")),
        (b"\x02\x02a\xff", Extensions(software="a�")),
        (b"\x02\x50" + b"x" * 80, Extensions(software="x" * 64)),
        (b"\x03\x0a0123456789", Extensions(confirm=b"01234567")),
    ],
)
def test_extension_block(block: bytes, expected: Extensions) -> None:
    """The block ends at type 0 or where a value runs over the end, and is cut to what we take."""
    assert extensions_of(block) == expected


LAYOUT = [
    (0, 6, "sent_time", 0x060504030201, "010203040506"),
    (6, 1, "state", 3, "03"),
    (7, 1, "aes", True, "01"),
    (8, 32, "pkey", b"\xab" * 32, "ab" * 32),
    (40, 8, "tx_bytes", 0x0102, "0201000000000000"),
    (48, 8, "tx_total", 0x0102, "0201000000000000"),
    (56, 8, "rx_bytes", 0x0102, "0201000000000000"),
    (64, 8, "rx_total", 0x0102, "0201000000000000"),
    (72, 8, "fw_bytes", 0x0102, "0201000000000000"),
    (80, 8, "fw_total", 0x0102, "0201000000000000"),
    (88, 8, "max_rate", 0x0102, "0201000000000000"),
    (96, 6, "beat", 0x0102, "020100000000"),
    (102, 2, "mtu", 0x0102, "0201"),
    (104, 1, "loss", 200, "c8"),
    (105, 1, "fixed_rate", True, "01"),
    (106, 1, "loss_limit", 201, "c9"),
    (107, 18, "sent_to", Endpoint(b"\xcd" * 16, 0x0102), "cd" * 16 + "0102"),
]


@pytest.mark.parametrize(("offset", "size", "name", "value", "expected"), LAYOUT)
def test_layout(offset: int, size: int, name: str, value: Any, expected: str) -> None:
    """Each field is where the protocol has it, little-endian but for the port."""
    text = push_control(server_peer().message(**{name: value}), size=CONTROL_DATAGRAM_SIZE)
    assert text[offset : offset + size].hex() == expected


def test_layout_is_whole() -> None:
    """The fields follow each other without gaps, 125 bytes of them."""
    ends = [offset + size for offset, size, *_ in LAYOUT]
    assert [0, *ends[:-1]] == [offset for offset, *_ in LAYOUT]
    assert ends[-1] == CONTROL_SIZE == 125


def test_message_without_extensions_is_padded_with_zeros() -> None:
    """What 0.3.4 would say is said in its way: 125 bytes and zeros."""
    message = server_peer(extensions=Extensions()).message()
    text = push_control(message, size=1472)
    assert len(text) == 1450
    assert text[CONTROL_SIZE:].strip(b"\0") == b""


@given(st.integers(0, 1 << 62), st.integers(-(1 << 47), (1 << 47) - 1))
@example(1 << 48, -1)
@example((1 << 48) - 1, 1)
def test_time_is_unwrapped(now: int, distance: int) -> None:
    """A 48-bit time stands for the moment nearest to now, on either side of a wrap."""
    field = (now + distance) & TIME_MASK
    assert unwrap_time(field, now=now) == now + distance


@given(st.integers(0, 1 << 62), st.integers(0, 20))
def test_time_survives_the_wire(time: int, offset: int) -> None:
    """A time is written in six bytes, little-endian, modulo 2^48, and nothing beside them."""
    datagram = bytearray(b"\xaa" * 32)
    push_time(datagram, offset, time)
    assert pull_time(datagram, offset) == time % (1 << 48)
    assert datagram[:offset] + datagram[offset + 6 :] == b"\xaa" * 26


@pytest.mark.parametrize(
    ("time", "expected"),
    [(1, "010000000000"), (0x060504030201, "010203040506"), (1 << 48, "00" * 6)],
)
def test_time_is_little_endian(time: int, expected: str) -> None:
    """The lowest byte comes first, so that the flag bits are in the first byte."""
    datagram = bytearray(6)
    push_time(datagram, 0, time)
    assert datagram.hex() == expected
