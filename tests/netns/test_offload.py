"""Super-packets between two real kernels, with offloads and without, byte for byte.

Packets are put into one TUN and taken out of the other by packet sockets, with the vnet header
(packet(7), PACKET_VNET_HDR): what is put in may be a super-packet, and what comes out is compared
by what the kernel would make of it, one packet after the other.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest

from tests.netns.flood import Flood, memory_of
from tests.netns.topology import SERVER, Lab, direct
from tests.netns.tunnel import Pair, Tunnel, Tunnels, inside
from tests.netns.wait import wait_for
from tests.unit.net.packets import (
    ACK,
    CWR,
    ECE,
    FIN,
    PSH,
    SYN,
    TCP,
    UDP,
    VNET,
    Packet,
    routed,
    written,
)

NONE = {"GLORYTUN_TEST_OFFLOADS": ""}
COMPLETE = {"GLORYTUN_TEST_OFFLOADS": "tun_offload tun_uso udp_gso udp_gro"}
"""TCP always with checksums."""
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_ETH_P_ALL = 3

OURS = Pair[Tunnel, Tunnel]


@pytest.fixture(
    scope="module",
    params=[({}, {}), (NONE, {}), ({}, NONE), (NONE, NONE), (COMPLETE, {})],
    ids=["both", "server-only", "client-only", "neither", "with-checksums"],
)
def pair(request: pytest.FixtureRequest) -> Iterator[OURS]:
    """A tunnel whose ends use offloads or not."""
    client, server = request.param
    with Lab() as lab, Tunnels() as tunnels:
        joined = tunnels.join(
            direct(lab),
            Tunnel,
            Tunnel,
            rate=(),
            client_options={"env": client},
            server_options={"env": server},
        )
        joined.wait_running()
        joined.wait_mtu(1450)
        yield joined


class Tap:
    """A packet socket on the TUN of a daemon."""

    def __init__(self, daemon: Tunnel) -> None:
        self._socket = daemon.host.within(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self._socket.bind((daemon.dev, _ETH_P_ALL))
        self._socket.setblocking(False)

    def put(self, packet: Packet, segment: int = 0) -> None:
        """A super-packet of such segments, or a whole packet, is sent by the host."""
        if segment and len(packet.payload) > segment:
            self._socket.send(packet.vnet(segment) + packet.data(partial=True))
        else:
            self._socket.send(bytes(10) + packet.data())

    def put_partial(self, packet: Packet) -> None:
        """A packet whose checksum the host leaves to the device."""
        at = 6 if packet.protocol == UDP else 16
        header = VNET.pack(1, 0, packet.header_size, 0, packet.ip_size, at)
        self._socket.send(header + packet.data(partial=True))

    def take(self) -> list[bytes]:
        """What came by now, each packet by itself."""
        packets: list[bytes] = []
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return packets
            packets += written([_tidy(data)])

    def close(self) -> None:
        self._socket.close()


def _tidy(data: bytes) -> bytes:
    """With the vnet header as a TUN is given it, not as virtio_net_hdr_from_skb() says it.

    Whether the kernel has checked it (DATA_VALID) doesn't matter, and the length of the headers is
    that of what lies in the buffer's first part.
    """
    flags, kind, _, segment, start, at = VNET.unpack_from(data)
    packet = data[VNET.size :]
    if not kind:
        return bytes(VNET.size) + packet
    header = start + (8 if kind & 0x7F == 5 else 4 * (packet[start + 12] >> 4))
    return VNET.pack(flags & 1, kind, header, segment, start, at) + packet


@pytest.fixture
def taps(pair: OURS) -> Iterator[tuple[Tap, Tap]]:
    both = Tap(pair.client), Tap(pair.server)
    yield both
    for tap in both:
        tap.close()


def arrived(tap: Tap, expected: list[bytes]) -> list[bytes]:
    """What comes of what is expected, in order, once all of it is there."""
    wanted, found = set(expected), list[bytes]()

    def is_complete() -> bool:
        found.extend(packet for packet in tap.take() if packet in wanted)
        return len(found) >= len(expected)

    wait_for(is_complete, timeout=5, what=f"{len(expected)} packets, byte for byte")
    return found


def test_what_is_in_use(pair: OURS) -> None:
    """`show` lists it: everything, or nothing where the variable says so."""
    for daemon in (pair.client, pair.server):
        features = daemon.show()["features"]
        assert set(features) == {"tun_offload", "tun_uso", "bare_tcp", "udp_gso", "udp_gro"}
        off = daemon.env.get("GLORYTUN_TEST_OFFLOADS") == ""
        assert features["tun_offload"] is not off
        assert features["udp_gso"] is not off
        assert features["udp_gro"] is not off
        envs = [
            one.env.get("GLORYTUN_TEST_OFFLOADS", "bare_tcp") for one in (pair.client, pair.server)
        ]
        assert features["bare_tcp"] is all("bare_tcp" in env for env in envs)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("segment", [100, 1001, 1300])
def test_super_packets(taps: tuple[Tap, Tap], version: int, protocol: int, segment: int) -> None:
    """Of any size up to 64 KB, with all flags that may be on one."""
    random, sent = Random(f"{version} {protocol} {segment}"), list[bytes]()
    for size in (segment + 1, 3 * segment, 17 * segment + 5, 60_000 // segment * segment):
        packet = Packet(
            version=version,
            protocol=protocol,
            payload=random.randbytes(min(size, 60 * segment)),
            ports=(random.randrange(65536), 9),
            number=random.randrange(2**32),
            ident=random.randrange(65536) if version == 4 else 0,
            flags=ACK | (random.choice([0, PSH, FIN, CWR, PSH | CWR]) if protocol == TCP else 0),
            options=bytes.fromhex("0101080a0011223344556677") if protocol == TCP else b"",
        )
        taps[0].put(packet, segment)
        sent += [one.data() for one in packet.segments(segment)]
    assert arrived(taps[1], sent) == sent


BETWEEN = {
    "options": lambda protocol, data: Packet(
        protocol=protocol, payload=data, ip_options=bytes.fromhex("94040000 01010101"), ident=65534
    ),
    "extension": lambda protocol, data: Packet(
        version=6,
        protocol=protocol,
        payload=data,
        ip_options=bytes([protocol, 0, 1, 4, 0, 0, 0, 0]),
    ),
    "routing": routed,
}
"""What may stand between the headers of IP and of TCP or UDP."""


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("make", BETWEEN.values(), ids=BETWEEN)
def test_more_headers(
    taps: tuple[Tap, Tap], make: Callable[[int, bytes], Packet], protocol: int
) -> None:
    """What we make of super-packets is what the kernel makes of them where it isn't left to us."""
    packet = make(protocol, Random(protocol).randbytes(17 * 1000 + 5))
    taps[0].put(packet, 1000)
    sent = [one.data() for one in packet.segments(1000)]
    assert arrived(taps[1], sent) == sent


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [ECE, CWR, ECE | CWR, ECE | PSH, CWR | FIN])
def test_congestion_is_told(taps: tuple[Tap, Tap], version: int, flags: int) -> None:
    """ECE is on each segment, CWR on the first (RFC 3168): split, merged, and split again."""
    packet = Packet(
        version=version,
        payload=Random(flags).randbytes(20 * 1300),
        flags=ACK | flags,
        traffic_class=3,
    )
    taps[0].put(packet, 1300)
    for one in packet.segments(1300):
        taps[0].put(replace(one, ports=(1, 2)))
    whole = [one.data() for one in packet.segments(1300)]
    single = [replace(one, ports=(1, 2)).data() for one in packet.segments(1300)]
    found = arrived(taps[1], whole + single)
    assert [one for one in found if one in set(whole)] == whole
    assert [one for one in found if one in set(single)] == single


def test_flows_that_interleave(taps: tuple[Tap, Tap]) -> None:
    """Single packets of several flows, in between what can't be merged: each flow in order."""
    random, queues = Random(1), list[list[Packet]]()
    for number in range(6):
        packet = Packet(
            version=random.choice([4, 6]),
            protocol=random.choice([TCP, UDP]),
            payload=random.randbytes(20_000),
            ports=(number, 9),
        )
        queues.append(packet.segments(random.choice([500, 1300])))
    sent = []
    while any(queues):
        packet = random.choice([queue for queue in queues if queue]).pop(0)
        taps[0].put(packet)
        sent.append(packet.data())
    found = arrived(taps[1], sent)
    for number in range(6):
        port = number.to_bytes(2, "big") + b"\0\x09"
        assert [one for one in found if port in one[20:44]] == [
            one for one in sent if port in one[20:44]
        ]


@pytest.mark.parametrize("version", [4, 6])
def test_a_wrong_checksum_arrives_as_it_is(taps: tuple[Tap, Tap], version: int) -> None:
    """Whoever it is for is to find out."""
    random = Random(version)
    for protocol in (TCP, UDP):
        payload = random.randbytes(5000)
        packet = Packet(version=version, protocol=protocol, payload=payload, ports=(77, 9))
        rows = [one.data() for one in packet.segments(1000)]
        rows[2] = rows[2][:-1] + bytes([rows[2][-1] ^ 1])
        for row in rows:
            taps[0]._socket.send(bytes(10) + row)
        assert arrived(taps[1], rows) == rows


@pytest.mark.parametrize("version", [4, 6])
def test_a_checksum_is_left_to_the_device(taps: tuple[Tap, Tap], version: int) -> None:
    """Whoever does it in the end, it arrives right; also in what is neither first nor a run."""
    random, sent = Random(f"partial {version}"), list[bytes]()
    for protocol in (TCP, UDP):
        for size in (1, 150, 300, 1001, 300):
            payload = random.randbytes(size)
            packet = Packet(version=version, protocol=protocol, payload=payload, ports=(78, 9))
            taps[0].put_partial(packet)
            sent.append(packet.data())
    assert arrived(taps[1], sent) == sent


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("up", [True, False])
def test_transfer(pair: OURS, family: int, up: bool) -> None:
    """What TCP delivers is what was sent."""
    pair.transfer(4 if family == 4 else 6, up=up, size=20_000_000)


@pytest.mark.parametrize("version", [4, 6])
def test_mss_is_clamped(pair: OURS, taps: tuple[Tap, Tap], version: int) -> None:
    """A host that announces more than fits is made to announce what does."""
    most = 1450 - (40 if version == 4 else 60)

    def syn(value: int) -> Packet:
        option = b"\x02\x04" + value.to_bytes(2, "big")
        return Packet(version=version, flags=SYN, options=option, number=value)

    for value in (8960, 500):
        taps[0].put(syn(value))
    clamped = Packet(
        version=version, flags=SYN, options=b"\x02\x04" + most.to_bytes(2, "big"), number=8960
    )
    expected = [clamped.data(), syn(500).data()]
    assert arrived(taps[1], expected) == expected


def test_segments_that_are_too_big(pair: OURS, taps: tuple[Tap, Tap]) -> None:
    """So is the sender of a super-packet, by its first segment as it would have left."""
    packet = Packet(payload=bytes(5000), ports=(79, 9))
    taps[0].put(packet, 1430)
    quoted = packet.segments(1430)[0].data()[:500]
    wait_for(
        lambda: any(one[20:22] == b"\x03\x04" and quoted in one for one in taps[0].take()),
        timeout=5,
        what="the first segment, quoted in an ICMP error",
    )


@pytest.mark.parametrize("pair", [({}, {}), (NONE, NONE)], ids=["both", "neither"], indirect=True)
def test_overload(pair: OURS) -> None:
    """More than can be carried, both ways at once: nothing else suffers, and memory stays flat.

    A side with offloads can send many times what one without can take in; that isn't looked at.
    """
    before = [memory_of(daemon.pid) for daemon in (pair.client, pair.server)]
    with Flood(pair.client, pair.server), Flood(pair.server, pair.client):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for daemon in (pair.client, pair.server):
                (path,) = json.loads(daemon.command("path", "json"))["paths"]
                assert path["condition"] == "running"
                assert path["tx"]["loss"] < 0.05
    # What waits in the TUN's queue is still carried, and leaves no room for a moment.
    target = inside(4, pair.server.end)
    wait_for(lambda: pair.client.host.ping(target, count=1).received, timeout=10, what="room")
    pair.ping()
    for daemon, memory in zip((pair.client, pair.server), before, strict=True):
        assert memory_of(daemon.pid) < memory + 10_000_000


@pytest.mark.parametrize("family", [4, 6])
def test_too_big(pair: OURS, family: int) -> None:
    """A host whose device still has a larger MTU is told what fits."""
    pair.client.host.ip(f"link set {pair.client.dev} mtu 1500")
    try:
        to = inside(4 if family == 4 else 6, SERVER)
        words = ("ping", "-n", "-M", "do", "-s", "1440", "-c", "1", "-W", "2", to)
        said = pair.client.host.run(*words, check=False).stdout
        assert "mtu" in said.lower(), said
        assert "1450" in said
    finally:
        pair.client.host.ip(f"link set {pair.client.dev} mtu 1450")
