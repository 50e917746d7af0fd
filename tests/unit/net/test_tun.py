"""What a Tun does with rows and names, without a device."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.batch import Batch
from glorytun.errors import DeviceError
from glorytun.net.features import Offload
from glorytun.net.tun import HEADROOM, TAILROOM, Tun
from tests.unit.net.packets import (
    ACK,
    CWR,
    ECE,
    FIN,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    URG,
    VNET,
    Packet,
    routed,
)

V4 = bytes.fromhex("450000180000000040110000 0a000001 0a000002") + bytes(4)
V6 = bytes.fromhex("6000000000041140") + bytes(32) + bytes(4)


@pytest.fixture
def ends() -> Iterator[tuple[Tun, socket.socket]]:
    """A Tun on one end of a datagram socket, and the other end."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    far.setblocking(False)
    tun = Tun(near.detach(), "tun-test")
    yield tun, far
    tun.close()
    far.close()


def test_read(ends: tuple[Tun, socket.socket]) -> None:
    """A packet comes with room for the time field and the tag around it."""
    tun, far = ends
    assert tun.read() == []
    far.send(V4)
    (batch,) = tun.read()
    assert [bytes(row) for row in batch.rows()] == [V4]
    assert batch.offset == HEADROOM
    assert len(batch.buffer) >= HEADROOM + 65536 + TAILROOM
    assert tun.read() == []


def partial(packet: Packet) -> bytes:
    """A packet whose checksum the kernel leaves to the device, behind its vnet header."""
    at = 6 if packet.protocol == UDP else 16
    return VNET.pack(1, 0, 0, 0, packet.ip_size, at) + packet.data(partial=True)


@given(st.lists(st.tuples(st.sampled_from([4, 6]), st.sampled_from([0, 1, 8, 9])), max_size=9))
def test_checksums_left_to_the_device(kinds: list[tuple[int, int]]) -> None:
    """They are filled in, of UDP in many packets at once: of any mixture, and next to TCP's."""
    packets = [
        Packet(version=version, protocol=UDP, payload=bytes([index]) * size, fragment=0)
        for index, (version, size) in enumerate(kinds)
    ]
    packets.insert(len(packets) // 2, Packet(payload=b"tcp"))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    with far, near:
        tun = Tun(near.fileno(), "tun-test", offloads=frozenset({Offload.TUN}))
        for packet in packets:
            far.send(partial(packet))
        rows = [bytes(row) for batch in tun.read() for row in batch.rows()]
    assert rows == [packet.data() for packet in packets]


@pytest.mark.parametrize("cut", [0, 5])
def test_full_calls(cut: int) -> None:
    """Of super-packets as many segments as fill calls are returned, the rest with what follows."""
    packet = Packet(payload=(bytes(range(250)) * 300)[: 46 * 1398 - cut])
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    with far, near:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        tun = Tun(near.fileno(), "tun-test", offloads=frozenset({Offload.TUN}))
        rows: list[bytes] = []
        for _ in range(2):
            far.send(packet.vnet(1398) + packet.data(partial=True))
            (batch,) = tun.read(1)
            assert batch.count == 44
            assert tun.has_more
            rows += [bytes(row) for row in batch.rows()]
            if cut == 0:
                continue
            rows += [bytes(row) for batch in tun.read() for row in batch.rows()]
            assert not tun.has_more
        rows += [bytes(row) for batch in tun.read() for row in batch.rows()]
        assert not tun.has_more
    assert rows == 2 * [one.data() for one in packet.segments(1398)]


def test_what_was_kept_is_taken_without_a_look_at_the_device() -> None:
    """At the end: what the device has is for the next process."""
    packet = Packet(payload=(bytes(range(250)) * 300)[: 46 * 1398])
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    with far, near:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        tun = Tun(near.fileno(), "tun-test", offloads=frozenset({Offload.TUN}))
        assert not tun.take_kept()
        for _ in range(2):
            far.send(packet.vnet(1398) + packet.data(partial=True))
        rows = [bytes(row) for batch in tun.read(1) for row in batch.rows()]
        rows += [bytes(row) for batch in tun.take_kept() for row in batch.rows()]
        assert rows == [one.data() for one in packet.segments(1398)]
        assert not tun.has_more
        assert len(near.recv(70_000)) > 64_000


@pytest.mark.parametrize("version", [4, 6])
def test_acknowledgements_go_ahead(version: int) -> None:
    """So that the segments before and behind them are one batch; what carries data stays there."""
    one = Packet(version=version, payload=bytes(5 * 1398))
    ack = Packet(version=version, ports=(3, 4), options=bytes(12))
    data = Packet(version=version, ports=(3, 4), payload=b"x")
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    with far, near:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        tun = Tun(near.fileno(), "tun-test", offloads=frozenset({Offload.TUN}))
        for index in range(3):
            far.send(one.vnet(1398) + one.data(partial=True))
            far.send(partial(replace(ack, number=index)))
        far.send(partial(data))
        acks, rest = tun.read()
    assert [bytes(row) for row in acks.rows()] == [
        replace(ack, number=index).data() for index in range(3)
    ]
    segments = 3 * [segment.data() for segment in one.segments(1398)]
    assert [bytes(row) for row in rest.rows()] == [*segments, data.data()]


AHEAD = {
    "nothing but it": Packet(),
    "timestamp": Packet(options=bytes.fromhex("0101080a0011223344556677")),
    "selective": Packet(options=bytes.fromhex("0101050a0011223344556677")),
    "all options": Packet(options=bytes(40)),
    "in a class": Packet(traffic_class=184),
    "IPv6": Packet(version=6, options=bytes(12), flow_label=5),
}
IN_PLACE = {
    "data": Packet(payload=b"x"),
    "data, IPv6": Packet(version=6, payload=b"x"),
    **{
        f"flags {flags:#x}": Packet(version=version, flags=flags)
        for version in (4, 6)
        for flags in (SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, PSH | ACK, URG | ACK)
    },
    "ECE": Packet(flags=ACK | ECE),
    "CWR": Packet(flags=ACK | CWR),
    "no flags": Packet(flags=0),
    "UDP": Packet(protocol=UDP, payload=bytes([0x50, ACK]) * 10),
    "options of IPv4": Packet(ip_options=bytes.fromhex("94040000")),
    "header between": Packet(version=6, ip_options=bytes([6, 0, 1, 4, 0, 0, 0, 0])),
    "routing header": routed(TCP, b""),
}


@pytest.mark.parametrize(
    ("packet", "is_ahead"),
    [(packet, True) for packet in AHEAD.values()] + [(one, False) for one in IN_PLACE.values()],
    ids=[*AHEAD, *IN_PLACE],
)
def test_what_may_go_ahead(packet: Packet, is_ahead: bool) -> None:
    """Of its own flow too: an acknowledgement alone, not what has a meaning by its place."""
    data = replace(packet, protocol=TCP, flags=ACK, payload=bytes(100))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    with far, near:
        tun = Tun(near.fileno(), "tun-test", offloads=frozenset({Offload.TUN}))
        sent = [data, packet, data, packet]
        for one in sent:
            far.send(partial(one))
        rows = [bytes(row) for batch in tun.read() for row in batch.rows()]
    expected = [packet, packet, data, data] if is_ahead else sent
    assert rows == [one.data() for one in expected]


def test_more_acknowledgements_than_there_is_room_for() -> None:
    """The others come where they were, and all in their order."""
    acks = [Packet(number=index, options=bytes(40)) for index in range(150)]
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    rows: list[bytes] = []
    with far, near:
        tun = Tun(near.fileno(), "tun-test", offloads=frozenset({Offload.TUN}))
        for start in range(0, 150, 75):
            for ack in acks[start : start + 75]:
                far.send(partial(ack))
            rows += [bytes(row) for batch in tun.read(75) for row in batch.rows()]
    assert rows == [ack.data() for ack in acks]


def test_write(ends: tuple[Tun, socket.socket]) -> None:
    """Each row is one packet."""
    tun, far = ends
    tun.write([Batch(bytearray(b"123" + V4 + b"67" + V4[:-1]), 3, len(V4) + 2, 2, len(V4), 23)])
    tun.write([Batch.of(V6)])
    assert far.recv(100) == V4
    # The second row is a byte too short for its length field.
    assert far.recv(100) == V6
    assert (tun.skipped, tun.dropped) == (1, 0)


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\0",
        V4[:19],
        V4[:-1],
        b"\x44" + V4[1:],
        b"\x46\0\0\x17" + V4[4:],
        b"\x45\0\0\x13" + V4[4:],
        b"\x55" + V4[1:],
        V6[:39],
        V6[:-1],
    ],
)
def test_what_is_no_packet_is_skipped(ends: tuple[Tun, socket.socket], row: bytes) -> None:
    """The kernel never sees it."""
    tun, far = ends
    tun.write([Batch.of(row)])
    with pytest.raises(BlockingIOError):
        far.recv(100)
    assert (tun.skipped, tun.dropped) == (1, 0)


def test_padding_behind_a_packet_is_fine(ends: tuple[Tun, socket.socket]) -> None:
    """As a link layer may add it."""
    tun, far = ends
    tun.write([Batch.of(V4 + b"\0")])
    assert far.recv(100) == V4 + b"\0"


def test_would_block_is_counted(ends: tuple[Tun, socket.socket]) -> None:
    """What doesn't fit is dropped, as a full network device does."""
    tun, _ = ends
    for _ in range(10_000):
        tun.write([Batch.of(V4)])
    assert tun.dropped > 0
    assert tun.skipped == 0


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "tun%d", "a:1", "x" * 16, "a\0b"])
def test_bad_name(name: str) -> None:
    """It is refused before the kernel is asked."""
    with pytest.raises(DeviceError) as caught:
        Tun.open(name, persist=None)
    assert str(caught.value) == (
        f"{name!r} can't be the name of a network device "
        "(1 to 15 characters without spaces, '/', ':' and '%')"
    )


def test_persist_fails_on_what_is_no_tun(ends: tuple[Tun, socket.socket]) -> None:
    """The message says which device."""
    tun, _ = ends
    with pytest.raises(DeviceError, match="tun-test can't be made persistent: "):
        tun.set_persist(True)


def test_other_failures_say_what_the_kernel_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error without an explanation of ours still names the device."""

    def fail(*_: object) -> bytes:
        raise OSError(12, "")

    monkeypatch.setattr("glorytun.net.tun._open_control", lambda: os.open("/dev/null", os.O_RDWR))
    monkeypatch.setattr("glorytun.net.tun.fcntl.ioctl", fail)
    with pytest.raises(DeviceError) as caught:
        Tun.open("tun7", persist=None)
    assert str(caught.value) == "tun7 can't be opened: Cannot allocate memory"


MANY_OPTIONS = bytes.fromhex("0402080a0011223344556677 01030307") + bytes.fromhex("0101") * 10
SYNS = pytest.mark.parametrize(
    ("version", "payload"), [(4, 0), (6, 0), (4, 119), (4, 120), (6, 99), (6, 100), (6, 1200)]
)
"""Without data, and with some (TCP Fast Open), also on both sides of what is a long one."""


def syn(mss: int, *, version: int = 4, payload: int = 0, number: int = 0) -> bytes:
    """What announces a size of segments, behind other options."""
    options = MANY_OPTIONS + b"\x02\x04" + mss.to_bytes(2, "big")
    data = bytes(payload)
    packet = Packet(version=version, flags=SYN, options=options, number=number, payload=data)
    return packet.data()


@SYNS
def test_mss_is_clamped_on_its_way_out(
    ends: tuple[Tun, socket.socket], version: int, payload: int
) -> None:
    """Of what the host sends: an end that doesn't clamp has it right too."""
    tun, far = ends
    tun.mtu = 1400
    far.send(syn(8960, version=version, payload=payload))
    (batch,) = tun.read()
    most = 1360 if version == 4 else 1340
    assert bytes(next(batch.rows())) == syn(most, version=version, payload=payload)


@SYNS
@pytest.mark.parametrize("offloads", [None, frozenset({Offload.TUN})])
@pytest.mark.parametrize("count", [1, 3])
def test_mss_is_clamped_on_its_way_in(
    offloads: frozenset[Offload] | None, count: int, version: int, payload: int
) -> None:
    """Of what the peer's hosts send, alone and among others."""
    like = {"version": version, "payload": payload}
    rows = [syn(8960, number=index, **like) for index in range(count)]
    size = len(rows[0])
    batch = Batch(bytearray(b"".join(rows) + bytes(200)), 0, size, count, size, size)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with far, near:
        tun = Tun(near.fileno(), "tun-test", offloads=offloads)
        tun.mtu = 1400
        tun.write([batch])
        start = 0 if offloads is None else 10
        found = [far.recv(2000)[start:] for _ in range(count)]
    most = 1360 if version == 4 else 1340
    assert found == [syn(most, number=index, **like) for index in range(count)]


def test_a_wrong_length_among_many(ends: tuple[Tun, socket.socket]) -> None:
    """It alone is skipped."""
    tun, far = ends
    rows = [Packet(payload=bytes([index]) * 300).data() for index in range(3)]
    wrong = rows[1][:3] + bytes([rows[1][3] ^ 0x80]) + rows[1][4:]
    size = len(wrong)
    assert int.from_bytes(wrong[2:4], "big") > size
    tun.write([Batch(bytearray(rows[0] + wrong + rows[2]), 0, size, 3, size, size)])
    assert [far.recv(500) for _ in range(2)] == [rows[0], rows[2]]
    assert (tun.skipped, tun.dropped) == (1, 0)
