"""UDP sockets on a real link, IPv4 and IPv6. Each host has a second address on it:

┌──────────────────────┐                        ┌──────────────────────┐
│ client               │                        │ server               │
│ link1 10.9.1.1, .11  ├──────── link 1 ────────┤ link1 10.9.1.2, .12  │
│   fd09:1::1, ::11    │                        │   fd09:1::2, ::12    │
└──────────────────────┘                        └──────────────────────┘
"""

import ctypes
import errno
import fcntl
import os
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterator

import pytest

from glorytun.core.address import ANY, Endpoint, PathId, is_v4, pack_address
from glorytun.core.batch import Batch
from glorytun.errors import SocketError
from glorytun.net.names import resolve
from glorytun.net.udp import UdpSocket
from tests.netns.topology import Family, Host, Lab, routed
from tests.netns.wait import wait_for

PORT = 5000
IPV6_HEADERS, IPV4_HEADERS = 48, 28
"""IP and UDP together."""

BOUNDS = {"::", "0.0.0.0", "10.9.1.1", "fd09:1::1"}

Opener = Callable[[Host, str], UdpSocket]


def two_hosts(lab: Lab) -> tuple[Host, Host]:
    """What is drawn above."""
    client, server = lab.host("client"), lab.host("server")
    lab.link(client, server, 1)
    for host, end in ((client, 11), (server, 12)):
        host.ip(
            f"addr add 10.9.1.{end}/24 dev link1",
            f"addr add fd09:1::{end}/64 dev link1 nodad",
        )
    return client, server


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    with Lab() as lab:
        yield two_hosts(lab)


@pytest.fixture
def bind() -> Iterator[Opener]:
    """Opens sockets on PORT that are closed afterwards."""
    opened: list[UdpSocket] = []

    def open_one(host: Host, address: str) -> UdpSocket:
        opened.append(host.within(lambda: UdpSocket.open(address, PORT)))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def path(local: str, remote: str, port: int = PORT) -> PathId:
    return PathId(pack_address(local), Endpoint(pack_address(remote), port))


def receive(receiver: UdpSocket) -> tuple[bytes, PathId]:
    """The next datagram and where it came from."""
    received = wait_for(receiver.receive, timeout=5, what="a datagram")
    assert received
    batch, came_on = received[0]
    return bytes(next(batch.rows())), came_on


WAYS = [
    ("0.0.0.0", "0.0.0.0", "10.9.1.{}"),
    ("::", "0.0.0.0", "10.9.1.{}"),
    ("0.0.0.0", "::", "10.9.1.{}"),
    ("::", "::", "10.9.1.{}"),
    ("::", "::", "fd09:1::{}"),
]
"""What client and server are bound to, and the addresses between them."""


@pytest.mark.parametrize(("near", "far", "net"), WAYS)
@pytest.mark.parametrize("source", [1, 11])
@pytest.mark.parametrize("target", [2, 12])
def test_source_and_destination(
    hosts: tuple[Host, Host],
    bind: Opener,
    near: str,
    far: str,
    net: str,
    source: int,
    target: int,
) -> None:
    """A datagram leaves from the path's address, is seen on the same path at the other end, and
    the answer takes the way back."""
    client, server = bind(hosts[0], near), bind(hosts[1], far)
    there = path(net.format(source), net.format(target))
    assert client.send(there, Batch.of(b"ping")) == 0
    datagram, back = receive(server)
    assert datagram == b"ping"
    assert back == path(net.format(target), net.format(source))
    assert server.send(back, Batch.of(b"pong")) == 0
    assert receive(client) == (b"pong", there)


@pytest.mark.parametrize(("near", "far", "net"), WAYS)
def test_kernel_picks_the_source(
    hosts: tuple[Host, Host], bind: Opener, near: str, far: str, net: str
) -> None:
    """Without a local address the route decides."""
    client, server = bind(hosts[0], near), bind(hosts[1], far)
    anywhere = PathId(ANY, Endpoint(pack_address(net.format(2)), PORT))
    assert client.send(anywhere, Batch.of(b"x")) == 0
    assert receive(server)[1].remote.address in {pack_address(net.format(end)) for end in (1, 11)}


@pytest.mark.parametrize("address", ["10.9.1.11", "fd09:1::11"])
def test_bound_to_one_address(hosts: tuple[Host, Host], bind: Opener, address: str) -> None:
    """It serves that family alone, and sends from there."""
    v6 = ":" in address
    client, server = bind(hosts[0], address), bind(hosts[1], "::")
    assert (client.v4, client.v6) == (not v6, v6)
    assert client.bound == Endpoint(pack_address(address), PORT)
    assert client.send(path(address, "fd09:1::2" if v6 else "10.9.1.2"), Batch.of(b"x")) == 0
    assert receive(server)[1].remote == client.bound


def test_link_local(hosts: tuple[Host, Host], bind: Opener) -> None:
    """Such addresses come with the interface they are on, and go back there."""
    scope = hosts[0].within(lambda: socket.if_nametoindex("link1"))
    client, server = bind(hosts[0], "::"), bind(hosts[1], "::")
    near, far = (
        re.findall(r"inet6 (fe80::[0-9a-f:]+)", host.run("ip", "-6", "addr").stdout)[0]
        for host in hosts
    )
    there = PathId(pack_address(near), Endpoint(pack_address(far), PORT, scope))
    assert client.send(there, Batch.of(b"ping")) == 0
    back = receive(server)[1]
    assert back.remote.scope > 0
    assert server.send(back, Batch.of(b"pong")) == 0
    assert receive(client) == (b"pong", there)
    found = hosts[0].within(lambda: resolve(f"{far}%link1", PORT, v4=True, v6=True))
    assert found == [there.remote]


def test_bound_to_a_link_local_address(hosts: tuple[Host, Host], bind: Opener) -> None:
    """Its interface must be named."""
    near = re.findall(r"inet6 (fe80::[0-9a-f:]+)", hosts[0].run("ip", "-6", "addr").stdout)[0]
    with pytest.raises(SocketError, match="is link-local and needs its interface"):
        bind(hosts[0], near)
    assert bind(hosts[0], f"{near}%link1").bound.scope > 0


def fragments(host: Host) -> list[str]:
    """How often the host made fragments, of both families."""
    shown = host.run("cat", "/proc/net/snmp", "/proc/net/snmp6").stdout
    rows = [line.split() for line in shown.splitlines()]
    v4 = [row for row in rows if row[0] == "Ip:"]
    by_name = dict(zip(*v4, strict=True)) | {row[0]: row[1] for row in rows if len(row) == 2}
    return [by_name["FragCreates"], by_name["Ip6FragCreates"]]


@pytest.mark.parametrize(("near", "far", "net"), WAYS)
def test_too_big_for_the_link(
    hosts: tuple[Host, Host], bind: Opener, near: str, far: str, net: str
) -> None:
    """What fits is sent whole, a byte more is refused; nothing is ever fragmented."""
    for host in hosts:
        host.ip("link set link1 mtu 1400")
    client, server = bind(hosts[0], near), bind(hosts[1], far)
    there = path(net.format(1), net.format(2))
    fits = 1400 - (IPV4_HEADERS if is_v4(there.local) else IPV6_HEADERS)
    assert client.send(there, Batch.of(bytes(fits))) == 0
    assert len(receive(server)[0]) == fits
    for size in (fits + 1, 9000, 65000):
        assert client.send(there, Batch.of(bytes(size))) == errno.EMSGSIZE
    assert client.send(there, Batch.of(b"last")) == 0
    assert receive(server)[0] == b"last"
    assert fragments(hosts[0]) == ["0", "0"]


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
@pytest.mark.parametrize("family", [4, 6])
def test_icmp_does_not_set_the_mtu(bind: Opener, bound: str, family: Family) -> None:
    """A forged or wrong "too big" has no effect: the size is found by probing alone."""
    if bound == "0.0.0.0" and family == 6:
        bound = "fd09:1::1"
    with Lab() as lab:
        topology = routed(lab, mtu=1500)
        assert topology.router
        topology.router.host.nft("delete table inet silent")
        topology.router.host.ip("link set link2 mtu 1300")
        client = bind(topology.client, bound)
        there = path(topology.client_address(1, family), topology.server_address(family))
        datagram = Batch.of(bytes(1400))
        assert client.send(there, datagram) == 0

        def told() -> bool:
            route = topology.client.run("ip", "route", "get", topology.server_address(family))
            return "mtu 1300" in route.stdout

        wait_for(told, timeout=5, what="the client's kernel to be told 1300 by ICMP")
        assert client.send(there, datagram) == 0


@pytest.mark.parametrize(("near", "far", "net"), WAYS)
def test_traffic_class(
    hosts: tuple[Host, Host], bind: Opener, near: str, far: str, net: str
) -> None:
    """CS6 from the start, and what is set later, in IPv4 and IPv6."""
    client = bind(hosts[0], near)
    v4 = far == "0.0.0.0" or "." in net
    family: Family = 4 if v4 else 6
    with hosts[1].socket(family, socket.SOCK_DGRAM) as server:
        level = socket.IPPROTO_IP if v4 else socket.IPPROTO_IPV6
        server.setsockopt(level, socket.IP_RECVTOS if v4 else socket.IPV6_RECVTCLASS, 1)
        server.settimeout(5)
        server.bind((net.format(2), PORT))
        for traffic_class in (192, 184, 0):
            if traffic_class != 192:
                client.set_traffic_class(traffic_class)
            assert client.send(path(net.format(1), net.format(2)), Batch.of(b"x")) == 0
            ancillary = server.recvmsg(100, 100)[1]
            assert int.from_bytes(ancillary[0][2], sys.byteorder) == traffic_class


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("::", "::"),
        ("::", "0.0.0.0"),
        ("0.0.0.0", "::"),
        ("10.9.1.1", "0.0.0.0"),
        ("fd09:1::1", "fd09:1::1"),
    ],
)
def test_port_in_use(hosts: tuple[Host, Host], bind: Opener, first: str, second: str) -> None:
    """Two daemons on one port fail, also when one has a part of the other's addresses."""
    bind(hosts[0], first)
    with pytest.raises(SocketError) as caught:
        bind(hosts[0], second)
    assert str(caught.value) == (
        f"port {PORT} on {second} is in use "
        "(`ss -ulpn` shows by which program; choose another port)"
    )


def test_families_side_by_side(hosts: tuple[Host, Host], bind: Opener) -> None:
    """One IPv6 address leaves IPv4 to others."""
    bind(hosts[0], "fd09:1::1")
    bind(hosts[0], "0.0.0.0")


@pytest.mark.parametrize("address", ["10.9.1.2", "fd09:1::2"])
def test_address_of_the_other_host(hosts: tuple[Host, Host], bind: Opener, address: str) -> None:
    """An address that this host doesn't have."""
    with pytest.raises(SocketError, match=f"{address} is not an address of this host"):
        bind(hosts[0], address)


def test_privileged_port(hosts: tuple[Host, Host]) -> None:
    """Below 1024 without CAP_NET_BIND_SERVICE."""
    code = (
        "from glorytun.errors import SocketError\n"
        "from glorytun.net.udp import UdpSocket\n"
        "try:\n"
        "    UdpSocket.open('0.0.0.0', 80)\n"
        "except SocketError as error:\n"
        "    print(error)\n"
    )
    command = ("setpriv", "--bounding-set", "-net_bind_service", sys.executable, "-c", code)
    assert hosts[0].run(*command).stdout.strip() == (
        "no permission to bind port 80 on 0.0.0.0 (choose a port from 1024 on, or run as root)"
    )


SENDERS = [("0.0.0.0", "10.9.1.{}"), ("::", "10.9.1.{}"), ("::", "fd09:1::{}")]


@pytest.mark.parametrize(("bound", "net"), SENDERS)
def test_failures_of_sending(bind: Opener, bound: str, net: str) -> None:
    """Each is a number, never an exception, and sending works again when its cause is gone."""
    with Lab() as lab:
        host, _ = two_hosts(lab)
        client = bind(host, bound)
        there = path(net.format(1), net.format(2))

        def send(on: PathId) -> int:
            return client.send(on, Batch.of(b"x"))

        nowhere = "2001:db8::1" if ":" in net else "192.0.2.1"
        assert send(path(net.format(1), nowhere)) == errno.ENETUNREACH
        # An address that isn't ours: EINVAL; newer kernels say ENETUNREACH in IPv4.
        foreign = path(net.format(99), net.format(2))
        assert send(foreign) in {errno.EINVAL, errno.ENETUNREACH}
        host.nft(
            "table inet filter { chain out {"
            " type filter hook output priority 0; udp dport 5000 drop; }; }"
        )
        assert send(there) == errno.EPERM
        host.nft("delete table inet filter")
        assert send(there) == 0
        host.ip("link set link1 down")
        assert send(there) != 0
        # The kernel takes global IPv6 addresses away from a device that goes down.
        host.ip("link set link1 up", "addr replace fd09:1::1/64 dev link1 nodad")
        wait_for(lambda: send(there) == 0, timeout=5, what="sending to work again")


def test_a_device_that_refuses_segments(hosts: tuple[Host, Host], bind: Opener) -> None:
    """What it refuses as a whole leaves one by one, and from then on all does so."""
    server = bind(hosts[1], "0.0.0.0")
    code = (
        "from glorytun.core.batch import Batch\n"
        "from glorytun.net.udp import UdpSocket\n"
        "from tests.netns.refuse import refuse\n"
        "from tests.netns.test_net_udp import path\n"
        "udp = UdpSocket.open('0.0.0.0', 0)\n"
        "there = path('10.9.1.1', '10.9.1.2')\n"
        "refuse('sendmsg')\n"
        "for start in (b'a', b'b'):\n"
        "    batch = Batch(bytearray(start * 2950), 0, 1000, 3, 1000, 950)\n"
        "    print(udp.send(there, batch), *sorted(udp.offloads))\n"
        "print(udp.send(there, Batch.of(b'x')))\n"
    )
    said = hosts[0].run(sys.executable, "-c", code).stdout.splitlines()
    # One by itself finds that the refusal is for all.
    assert said == ["0 udp_gro", "0 udp_gro", str(errno.EIO)]
    found: list[bytes] = []
    while len(found) < 6:
        for batch, _ in wait_for(server.receive, timeout=5, what="what was sent") or []:
            found += [bytes(row) for row in batch.rows()]
    assert found == [start * size for start in (b"a", b"b") for size in (1000, 1000, 950)]


def test_a_device_without_checksums(hosts: tuple[Host, Host], bind: Opener) -> None:
    """It refuses segments, or the kernel fills in what it can't: Linux 6.11. Both arrive."""
    client, server = bind(hosts[0], "0.0.0.0"), bind(hosts[1], "0.0.0.0")
    checksums_off(hosts[0], "link1")
    try:
        batch = Batch(bytearray(b"a" * 2950), 0, 1000, 3, 1000, 950)
        assert client.send(path("10.9.1.1", "10.9.1.2"), batch) == 0
    finally:
        checksums_off(hosts[0], "link1", off=False)
    found: list[bytes] = []
    while len(found) < 3:
        for rows, _ in wait_for(server.receive, timeout=5, what="what was sent") or []:
            found += [bytes(row) for row in rows.rows()]
    assert found == [b"a" * 1000, b"a" * 1000, b"a" * 950]


def checksums_off(host: Host, device: str, *, off: bool = True) -> None:
    """`ethtool -K DEVICE tx off`, by ioctl: ETHTOOL_STXCSUM of linux/ethtool.h."""
    value = ctypes.create_string_buffer(struct.pack("=II", 0x17, not off))
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
    with host.socket(4, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, 0x8946, request)  # SIOCETHTOOL


def test_closed_port_is_no_error(hosts: tuple[Host, Host], bind: Opener) -> None:
    """An ICMP error about one path must not reach the others."""
    client = bind(hosts[0], "::")
    for net in ("10.9.1.{}", "fd09:1::{}"):
        for _ in range(3):
            assert client.send(path(net.format(1), net.format(2)), Batch.of(b"x")) == 0
    assert client.receive() == []


def test_large_buffers(hosts: tuple[Host, Host], bind: Opener) -> None:
    """With CAP_NET_ADMIN a burst of megabytes is not lost for want of room."""
    client, server = bind(hosts[0], "::"), bind(hosts[1], "::")
    there = path("10.9.1.1", "10.9.1.2")
    for _ in range(3000):
        assert client.send(there, Batch.of(bytes(1300))) == 0
    received = 0
    while batches := server.receive():
        received += sum(batch.count for batch, _ in batches)
    assert received == 3000


@pytest.mark.parametrize("bound", sorted(BOUNDS))
def test_a_socket_of_the_last_process(hosts: tuple[Host, Host], bind: Opener, bound: str) -> None:
    """It has received meanwhile, and is of use only for the same address and port."""
    first, server = bind(hosts[0], bound), bind(hosts[1], "::")
    left = os.dup(first.fileno())
    first.close()
    net = "10.9.1.{}" if first.v4 else "fd09:1::{}"
    there = path(net.format(2), net.format(1))
    assert server.send(there, Batch.of(b"waits")) == 0
    for address, port in ((bound, PORT + 1), *((other, PORT) for other in BOUNDS - {bound})):
        assert UdpSocket.adopt(left, address, port) is None
    adopted = UdpSocket.adopt(left, bound, PORT)
    assert adopted
    assert (adopted.v4, adopted.v6, adopted.bound) == (first.v4, first.v6, first.bound)
    received = wait_for(adopted.receive, timeout=5, what="what was sent meanwhile")
    assert received
    batch, came = received[0]
    assert [bytes(row) for row in batch.rows()] == [b"waits"]
    assert adopted.send(came, Batch.of(b"back")) == 0
    assert wait_for(server.receive, timeout=5, what="the answer")
    adopted.close()


def test_what_is_no_socket_of_ours(hosts: tuple[Host, Host]) -> None:
    """Nothing else is taken for one, and it stays open."""
    with hosts[0].socket(4, socket.SOCK_STREAM) as stream:
        stream.bind(("0.0.0.0", PORT))
        assert UdpSocket.adopt(stream.fileno(), "0.0.0.0", PORT) is None
        assert stream.getsockname()
    ends = os.pipe()
    assert UdpSocket.adopt(ends[0], "0.0.0.0", PORT) is None
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("mark", [1, 0xFFFFFFFF])
@pytest.mark.parametrize("bound", ["::", "0.0.0.0"])
def test_mark(hosts: tuple[Host, Host], bind: Opener, bound: str, mark: int) -> None:
    """What is sent carries it, and nothing does when it is 0 again."""
    client, server = bind(hosts[0], bound), bind(hosts[1], bound)
    there = path("10.9.1.1", "10.9.1.2")
    hosts[0].nft(
        "table inet marked { chain out {"
        f" type filter hook output priority 0; udp dport {PORT} meta mark {mark:#x} drop; }}; }}"
    )
    client.set_mark(mark)
    assert client.send(there, Batch.of(b"marked")) == errno.EPERM
    client.set_mark(0)
    assert client.send(there, Batch.of(b"plain")) == 0
    hosts[0].nft("delete table inet marked")
    received = wait_for(server.receive, timeout=5, what="the plain one")
    assert received
    assert [bytes(row) for row in received[0][0].rows()] == [b"plain"]


def test_mark_without_permission(hosts: tuple[Host, Host]) -> None:
    """The message says what is missing; no mark needs none."""
    code = (
        "from glorytun.errors import SocketError\n"
        "from glorytun.net.udp import UdpSocket\n"
        f"opened = UdpSocket.open('0.0.0.0', {PORT + 1})\n"
        "opened.set_mark(0)\n"
        "try:\n"
        "    opened.set_mark(0x2a)\n"
        "except SocketError as error:\n"
        "    print(error)\n"
    )
    lacking = ("setpriv", "--bounding-set", "-net_admin,-net_raw")
    said = hosts[0].run(*lacking, sys.executable, "-c", code).stdout
    assert said.strip() == (
        "datagrams can't be given the mark 0x2a: Operation not permitted "
        "(run as root, or with CAP_NET_ADMIN)"
    )
