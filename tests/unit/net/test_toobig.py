"""What tells hosts which packets fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.net.toobig import clamp_mss, too_big
from tests.unit.net.packets import (
    ACK,
    SYN,
    TCP,
    UDP,
    V4_ADDRESSES,
    V6_ADDRESSES,
    Packet,
    checksum,
)

MTU = 1400


def mss(value: int) -> bytes:
    return b"\x02\x04" + value.to_bytes(2, "big")


@pytest.mark.parametrize("size", [100, 1500])
def test_too_big_v4(size: int) -> None:
    """RFC 1191: the MTU, the packet's beginning, right checksums, from where it was to go."""
    packet = Packet(payload=bytes(size)).data()
    answer = too_big(packet, MTU)
    assert answer
    assert answer[:2] == b"\x45\0"
    assert int.from_bytes(answer[2:4], "big") == len(answer) <= 576
    assert answer[9] == 1
    assert answer[12:20] == V4_ADDRESSES[1] + V4_ADDRESSES[0]
    assert checksum(answer[:20]) == checksum(answer[20:]) == 0
    assert answer[20:22] == b"\x03\x04"
    assert answer[24:28] == b"\0\0" + MTU.to_bytes(2, "big")
    assert answer[28:] == packet[:548]


@pytest.mark.parametrize("size", [100, 1500])
def test_too_big_v6(size: int) -> None:
    """RFC 4443, 3.2."""
    packet = Packet(version=6, payload=bytes(size)).data()
    answer = too_big(packet, MTU)
    assert answer
    length = int.from_bytes(answer[4:6], "big")
    assert length == len(answer) - 40
    assert len(answer) <= 1280
    assert answer[6] == 58
    assert answer[8:40] == V6_ADDRESSES[1] + V6_ADDRESSES[0]
    pseudo = answer[8:40] + length.to_bytes(4, "big") + bytes([0, 0, 0, 58])
    assert checksum(pseudo + answer[40:]) == 0
    assert answer[40:42] == b"\x02\0"
    assert int.from_bytes(answer[44:48], "big") == MTU
    assert answer[48:] == packet[:1232]


V4 = Packet(payload=bytes(1500)).data()
V6 = Packet(version=6, payload=bytes(1500)).data()


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        V4[:19],
        V6[:39],
        b"\x55" + V4[1:],
        V4[:6] + b"\0\0" + V4[8:],
        V4[:6] + b"\x40\x10" + V4[8:],
        V4[:16] + bytes([224, 0, 0, 1]) + V4[20:],
        V4[:9] + b"\x01" + V4[10:20] + b"\x03" + V4[21:],
        V6[:6] + b"\x3a" + V6[7:40] + b"\x01" + V6[41:],
        V6[:24] + b"\xff\x02" + V6[26:],
    ],
    ids=[
        "empty",
        "v4-cut",
        "v6-cut",
        "v5",
        "may-fragment",
        "fragment",
        "multicast",
        "error",
        "v6-error",
        "v6-multicast",
    ],
)
def test_to_what_nothing_is_said(packet: bytes) -> None:
    """RFC 1122, 3.2.2, and RFC 4443, 2.4."""
    assert too_big(packet, MTU) is None


def test_a_ping_is_no_error() -> None:
    """It may be told."""
    v4 = V4[:9] + b"\x01" + V4[10:20] + b"\x08" + V4[21:]
    v6 = V6[:6] + b"\x3a" + V6[7:40] + b"\x80" + V6[41:]
    assert too_big(v4, MTU)
    assert too_big(v6, MTU)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("before", [b"", b"\x01", b"\x01\x01\x01", b"\x08\x0a" + bytes(8)])
@pytest.mark.parametrize("value", [1, 1340, 1341, 1360, 1361, 1460, 65535])
@pytest.mark.parametrize("flags", [SYN, SYN | ACK])
def test_clamp(version: int, before: bytes, value: int, flags: int) -> None:
    """A larger MSS is made to fit, wherever it stands, and the checksum is right again."""
    most = MTU - (40 if version == 4 else 60)

    def syn(value: int) -> bytes:
        options = before + mss(value)
        options += b"\x01" * (-len(options) % 4)
        return Packet(version=version, flags=flags, options=options).data()

    packet = bytearray(syn(value))
    clamp_mss(memoryview(packet), MTU)
    assert packet == syn(min(value, most))


@pytest.mark.parametrize(
    "packet",
    [
        Packet(flags=ACK, options=mss(9000)),
        Packet(flags=SYN, options=b"\0" * 4 + mss(9000)),
        Packet(flags=SYN, options=mss(9000), ip_options=bytes.fromhex("94040000")),
        Packet(flags=SYN, options=mss(9000), fragment=1),
        Packet(protocol=UDP, payload=bytes(100)),
        Packet(flags=SYN),
        Packet(flags=SYN, options=b"\x02\x03\x00\x00"),
        Packet(flags=SYN, options=b"\x01\x01\x01\x02"),
    ],
)
def test_what_is_left_alone(packet: Packet) -> None:
    """It is no SYN, or has no MSS."""
    data = bytearray(packet.data())
    clamp_mss(data, MTU)
    assert data == packet.data()


def test_wrong_checksum_stays_wrong() -> None:
    """By as much."""
    data = bytearray(Packet(flags=SYN, options=mss(9000)).data())
    right = bytearray(Packet(flags=SYN, options=mss(1360)).data())
    data[36] ^= 1
    right[36] ^= 1
    clamp_mss(data, MTU)
    assert data == right


@given(st.binary(max_size=100), st.integers(0, 2000))
def test_nothing_raises(data: bytes, mtu: int) -> None:
    """Whatever a host sends."""
    for first in (b"", b"\x45", b"\x60"):
        packet = bytearray(first + data)
        clamp_mss(packet, mtu)
        assert len(packet) == len(first + data)
        too_big(bytes(packet), mtu)


@given(st.binary(min_size=20, max_size=60), st.integers(0, 2000))
def test_no_syn_makes_it_raise(options: bytes, mtu: int) -> None:
    """Whatever options it has."""
    packet = bytearray(Packet(flags=SYN, options=options[: len(options) // 4 * 4][:40]).data())
    size = len(packet)
    clamp_mss(packet, mtu)
    assert len(packet) == size
    assert packet[9] == TCP
