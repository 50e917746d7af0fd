"""The UDP socket on loopback, and every message it has for a user."""

import errno
import os
import select
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from glorytun.core.address import ANY, Endpoint, PathId, pack_address
from glorytun.core.batch import Batch
from glorytun.errors import SocketError
from glorytun.net import udp
from glorytun.net.features import Offload
from glorytun.net.udp import UdpSocket
from tests.netns.wait import wait_for

LOOPBACK = pack_address("127.0.0.1")


def await_datagram(receiver: UdpSocket) -> tuple[Batch, PathId]:
    """The next datagrams."""
    received = wait_for(receiver.receive, timeout=5, what="a datagram")
    assert received
    return received[0]


def test_sends_every_row() -> None:
    """A batch of three rows is three datagrams, the last shorter."""
    sender, receiver = UdpSocket.open("127.0.0.1", 0), UdpSocket.open("127.0.0.1", 0)
    path = PathId(LOOPBACK, receiver.bound)
    assert sender.send(path, Batch(bytearray(b"-abc-def-g"), 1, 4, 3, 3, 1)) == 0
    received: list[bytes] = []
    while len(received) < 3:
        for batch, path in receiver.receive():
            received += [bytes(row) for row in batch.rows()]
            assert path == PathId(LOOPBACK, sender.bound)
    assert received == [b"abc", b"def", b"g"]
    assert receiver.receive() == []
    sender.close()
    receiver.close()


@pytest.mark.parametrize("size", [0, 1, 65507])
def test_any_size(size: int) -> None:
    """An empty datagram and the longest there is arrive whole."""
    both = UdpSocket.open("127.0.0.1", 0)
    assert both.send(PathId(LOOPBACK, both.bound), Batch.of(bytes(size))) == 0
    received = await_datagram(both)
    assert received[0].total() == size
    both.close()


def test_what_does_not_fit_a_datagram_is_an_error() -> None:
    """A row of more than UDP can carry."""
    both = UdpSocket.open("127.0.0.1", 0)
    assert both.send(PathId(LOOPBACK, both.bound), Batch.of(bytes(65508))) == errno.EMSGSIZE
    both.close()


def test_first_failure_is_returned_and_the_rest_sent() -> None:
    """A row that is too big doesn't keep back those behind it."""
    both = UdpSocket.open("127.0.0.1", 0)
    batch = Batch(bytearray(65600), 0, 65590, 2, 65508, 10)
    assert both.send(PathId(LOOPBACK, both.bound), batch) == errno.EMSGSIZE
    received = await_datagram(both)
    assert received[0].total() == 10
    both.close()


def test_family_that_is_not_served() -> None:
    """An IPv4 socket can't reach IPv6."""
    sender = UdpSocket.open("0.0.0.0", 0)
    path = PathId(ANY, Endpoint(pack_address("::1"), 5000))
    assert sender.send(path, Batch.of(b"x")) == errno.EAFNOSUPPORT
    sender.close()


def test_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many sources and destinations don't fill the memory, and all still work."""
    monkeypatch.setattr(udp, "_CACHED_PATHS", 3)
    hub = UdpSocket.open("127.0.0.1", 0)
    for _ in range(10):
        other = UdpSocket.open("127.0.0.1", 0)
        assert other.send(PathId(ANY, hub.bound), Batch.of(b"x")) == 0
        received = await_datagram(hub)
        assert received[1] == PathId(LOOPBACK, other.bound)
        assert hub.send(received[1], Batch.of(b"y")) == 0
        await_datagram(other)
        other.close()
    assert len(hub._received) <= 3
    assert len(hub._infos) <= 3
    assert len(hub._sent) <= 3
    hub.close()


def test_what_it_is_bound_to() -> None:
    """The port that the kernel picked, and the families served."""
    opened = UdpSocket.open("0.0.0.0", 0)
    assert opened.bound.address == pack_address("0.0.0.0")
    assert opened.bound.port > 0
    assert str(opened.bound).startswith("0.0.0.0:")
    assert (opened.v4, opened.v6) == (True, False)
    opened.close()


def test_port_in_use() -> None:
    """Two daemons on one port must not share it."""
    first = UdpSocket.open("127.0.0.1", 0)
    with pytest.raises(SocketError) as caught:
        UdpSocket.open("127.0.0.1", first.bound.port)
    assert str(caught.value) == (
        f"port {first.bound.port} on 127.0.0.1 is in use "
        "(`ss -ulpn` shows by which program; choose another port)"
    )
    first.close()


def test_address_of_another_host() -> None:
    """192.0.2.0/24 is for documentation: RFC 5737."""
    with pytest.raises(SocketError) as caught:
        UdpSocket.open("192.0.2.1", 5000)
    assert str(caught.value) == (
        "192.0.2.1 is not an address of this host, or not ready yet (`ip address` lists them)"
    )


@pytest.mark.parametrize("text", ["", "example.org", "10.0.0.256", "fe80::1%no-such-device", "é"])
def test_what_is_no_address(text: str) -> None:
    """Names are not resolved here."""
    with pytest.raises(SocketError) as caught:
        UdpSocket.open(text, 5000)
    assert str(caught.value) == (
        f"{text!r} is no IP address of this host "
        "(0.0.0.0 stands for all IPv4 addresses, :: for all of IPv4 and IPv6)"
    )


@pytest.mark.parametrize(
    ("number", "address", "message"),
    [
        (
            errno.EAFNOSUPPORT,
            "::",
            ":: can't be used: this host has IPv6 switched off (bind 0.0.0.0 instead)",
        ),
        (
            errno.EACCES,
            "::",
            "no permission to bind port 80 on :: (choose a port from 1024 on, or run as root)",
        ),
        (
            errno.EINVAL,
            "fe80::1",
            "fe80::1 is link-local and needs its interface (for example fe80::1%eth0)",
        ),
        (errno.EMFILE, "::", "port 80 on :: can't be bound: Too many open files"),
    ],
)
def test_other_failures(
    monkeypatch: pytest.MonkeyPatch, number: int, address: str, message: str
) -> None:
    """One clear line for each."""

    def fail(*_: object) -> socket.socket:
        raise OSError(number, "")

    monkeypatch.setattr("glorytun.net.udp.socket.socket", fail)
    with pytest.raises(SocketError) as caught:
        UdpSocket.open(address, 80)
    assert str(caught.value) == message


def test_receiving_on_a_broken_socket() -> None:
    """Says so instead of spinning."""
    opened = UdpSocket.open("127.0.0.1", 0)
    opened.close()
    with pytest.raises(SocketError, match=r"nothing can be received on 127\.0\.0\.1:\d+ any more"):
        opened.receive()


def test_unprivileged_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CAP_NET_ADMIN the buffers are as large as the system allows."""
    tried: list[int] = []

    class Refusing:
        def setsockopt(self, _level: int, option: int, _value: int) -> None:
            tried.append(option)
            if option in {32, 33}:
                raise PermissionError(errno.EPERM, "")

    udp._set_options(Refusing(), v4=True, v6=False)  # type: ignore[arg-type]  # has what is used
    assert tried[-4:] == [33, socket.SO_RCVBUF, 32, socket.SO_SNDBUF]


def fill(sender: UdpSocket, receiver: UdpSocket, count: int) -> int:
    """Send so many datagrams to a socket with little room; how many it still gave."""
    receiver._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    path = PathId(LOOPBACK, receiver.bound)
    for _ in range(count):
        assert sender.send(path, Batch.of(bytes(1000))) == 0
    received = 0
    while batches := receiver.receive():
        received += sum(batch.count for batch, _ in batches)
    return received


def test_what_there_was_no_room_for_is_counted() -> None:
    """With the next datagram that comes."""
    sender, receiver = UdpSocket.open("127.0.0.1", 0), UdpSocket.open("127.0.0.1", 0)
    received = fill(sender, receiver, 50)
    assert 0 < received < 50
    assert receiver.overflow == 0
    assert sender.send(PathId(LOOPBACK, receiver.bound), Batch.of(b"x")) == 0
    await_datagram(receiver)
    assert receiver.overflow == 50 - received
    assert receiver.receive() == []
    assert receiver.overflow == 0
    sender.close()
    receiver.close()


def test_what_the_last_process_had_no_room_for_is_not_counted() -> None:
    """It is not known how much of that was counted then."""
    sender, first = UdpSocket.open("127.0.0.1", 0), UdpSocket.open("127.0.0.1", 0)
    assert fill(sender, first, 50) < 50
    left = os.dup(first.fileno())
    adopted = UdpSocket.adopt(left, "127.0.0.1", first.bound.port)
    first.close()
    assert adopted
    assert sender.send(PathId(LOOPBACK, adopted.bound), Batch.of(b"x")) == 0
    await_datagram(adopted)
    assert adopted.overflow == 0
    adopted.close()
    sender.close()


@pytest.mark.parametrize("allowed", [frozenset(Offload), frozenset[Offload]()])
@pytest.mark.parametrize("count", [2, 5, 40, 150])
@pytest.mark.parametrize("last", [1, 1000])
def test_runs_of_one_buffer_leave_together(
    allowed: frozenset[Offload], count: int, last: int
) -> None:
    """Rows that other paths have the ones between of arrive in order, each as it is."""
    sender = UdpSocket.open("127.0.0.1", 0, allowed=allowed)
    receivers = [UdpSocket.open("127.0.0.1", 0, allowed=allowed) for _ in range(2)]
    data = bytearray(os.urandom((count - 1) * 1000 + last))
    rows = Batch(data, 0, 1000, count, 1000, last)
    for first, receiver in enumerate(receivers):
        runs = [rows.run(at, 1) for at in range(first, count, 2)]
        assert sender.send(PathId(LOOPBACK, receiver.bound), *runs) == 0
        found: list[bytes] = []
        while len(found) < len(runs):
            wait_for(partial(_has_more, receiver), timeout=5, what="more")
            found += [bytes(row) for batch, _ in receiver.receive() for row in batch.rows()]
        assert found == [bytes(data[at : at + 1000]) for at in range(first * 1000, len(data), 2000)]
        receiver.close()
    sender.close()


@pytest.mark.parametrize("count", [2, 42, 43, 150])
def test_as_many_leave_in_one_call_as_the_kernel_takes(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short the runs are, with which they come."""
    sender, receiver = (UdpSocket.open("127.0.0.1", 0) for _ in range(2))
    if Offload.UDP_GSO not in sender.offloads:
        pytest.skip("the kernel has no UDP_SEGMENT")
    rows = Batch(bytearray(count * 300), 0, 100, 3 * count, 100, 100)
    runs = [rows.run(3 * at, 1 + at % 2) for at in range(count)]
    made: list[int] = []
    send_one = UdpSocket._send_one

    def counted(self: UdpSocket, data: Sequence[memoryview], *where: Any) -> int:
        made.append(sum(map(len, data)) // 100)
        return send_one(self, data, *where)

    monkeypatch.setattr(UdpSocket, "_send_one", counted)
    assert sender.send(PathId(LOOPBACK, receiver.bound), *runs) == 0
    total = sum(run.count for run in runs)
    assert sum(made) == total
    assert len(made) == -(-total // 64)
    assert not sender.unsent
    sender.close()
    receiver.close()


def test_what_was_not_sent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many, those for which the host had no room, and the first reason."""
    sender, receiver = (UdpSocket.open("127.0.0.1", 0, allowed=frozenset()) for _ in range(2))
    rows = Batch(bytearray(900), 0, 100, 9, 100, 100)
    runs = [rows.run(at, 1) for at in (0, 2, 4, 6, 8)]
    errors = iter([0, errno.ENOBUFS, 0, errno.EPERM, 0])
    monkeypatch.setattr(UdpSocket, "_send_one", lambda *_: next(errors))
    assert sender.send(PathId(LOOPBACK, receiver.bound), *runs) == errno.ENOBUFS
    assert [run.offset for run in sender.unsent] == [200, 600]
    sender.close()
    receiver.close()


def _has_more(receiver: UdpSocket) -> bool:
    return bool(select.select([receiver.fileno()], [], [], 0)[0])


@pytest.mark.parametrize("allowed", [frozenset(Offload), frozenset[Offload]()])
@pytest.mark.parametrize(("count", "last"), [(1, 1000), (2, 1), (64, 1000), (200, 999)])
def test_offloads_change_nothing(allowed: frozenset[Offload], count: int, last: int) -> None:
    """Many datagrams arrive as they were sent, in one call or in many."""
    sender = UdpSocket.open("127.0.0.1", 0, allowed=allowed)
    receiver = UdpSocket.open("127.0.0.1", 0, allowed=allowed)
    assert sender.offloads <= allowed
    data = os.urandom((count - 1) * 1000 + last)
    path = PathId(LOOPBACK, receiver.bound)
    assert sender.send(path, Batch(bytearray(data), 0, 1000, count, 1000, last)) == 0
    rows: list[bytes] = []
    while len(rows) < count:
        wait_for(partial(_has_more, receiver), timeout=5, what="more")
        rows += [bytes(row) for batch, _ in receiver.receive() for row in batch.rows()]
    assert rows == [data[at : at + 1000] for at in range(0, len(data), 1000)]
    sender.close()
    receiver.close()
