"""Many datagrams in one call, from several senders and of all sizes."""

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.address import PathId, pack_address
from glorytun.core.batch import SLACK, Batch, Buffer, joined
from glorytun.net.mmsg import RECEIVED_MAX, RECEIVED_SIZE, ROW_SIZE, SENT_MAX, ReceiveMany, parse
from glorytun.net.udp import UdpSocket
from tests.netns.wait import wait_for

SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from([ROW_SIZE - 1, ROW_SIZE, ROW_SIZE + 1, 9000, 65507]),
    st.just(1422),
)


def payload(size: int, number: int) -> bytes:
    return (number.to_bytes(4, "big") * (size // 4 + 1))[:size]


@given(st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=RECEIVED_MAX))
def test_what_is_sent_is_received(wanted: list[tuple[int, bool]]) -> None:
    """Each whole, in order, with the address it came from."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        for opened in (receiver, first, second):
            opened.bind(("127.0.0.1", 0))
        sent = []
        for number, (size, is_first) in enumerate(wanted):
            sender = first if is_first else second
            sender.sendto(payload(size, number), receiver.getsockname())
            sent.append((payload(size, number), sender.getsockname()))
        many = ReceiveMany(receiver.fileno(), Buffer(RECEIVED_SIZE + SLACK))
        received: list[tuple[bytes, object]] = []
        while len(received) < len(sent):
            for rows, info in many.receive():
                source, _ = parse(info)
                received += [(bytes(row), source) for row in rows.rows()]
        assert received == sent
        with pytest.raises(BlockingIOError):
            many.receive()


@pytest.mark.parametrize("address", ["127.0.0.2", "::1"])
@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
def test_rows_leave_from_their_path(address: str, bound: str) -> None:
    """More than one call takes, the last of them shorter, from the address that is asked for."""
    if bound == "0.0.0.0" and address == "::1":
        address = "127.0.0.3"
    sender = UdpSocket.open(bound, 0, allowed=frozenset())
    receiver = UdpSocket.open(bound, 0, allowed=frozenset())
    here = pack_address(address)
    path = PathId(here, receiver.bound._replace(address=here))
    count = 2 * SENT_MAX + 3
    rows = b"".join(payload(10, number) + b"??" for number in range(count))
    assert sender.send(path, Batch(bytearray(rows), 0, 12, count, 10, 4)) == 0
    received: list[bytes] = []
    while len(received) < count:
        for batch, came_on in wait_for(receiver.receive, timeout=5, what="datagrams") or []:
            assert came_on == PathId(here, sender.bound._replace(address=here))
            received += [bytes(row) for row in batch.rows()]
    assert received == [payload(10, number) for number in range(count - 1)] + [
        payload(4, count - 1)
    ]
    assert receiver.is_drained
    sender.close()
    receiver.close()


def test_senders_in_turn_fill_rows_that_continue_each_other() -> None:
    """So what came on several paths can be opened at once."""
    receiver = UdpSocket.open("127.0.0.1", 0, allowed=frozenset())
    to = ("127.0.0.1", receiver.bound.port)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
    ):
        for number in range(10):
            (second if number % 2 else first).sendto(payload(1422, number), to)
        received = receiver.receive()
        ports = [path.remote.port for _, path in received]
        assert ports == [first.getsockname()[1], second.getsockname()[1]] * 5
    [(together, _)] = joined(received)
    assert list(map(bytes, together.rows())) == [payload(1422, number) for number in range(10)]
    receiver.close()


def test_a_row_that_fails_keeps_none_back() -> None:
    """The error is that of the first; those before and behind it are sent."""
    both = UdpSocket.open("127.0.0.1", 0, allowed=frozenset())
    path = PathId(pack_address("127.0.0.1"), both.bound)
    assert both.send(path, Batch(bytearray(65600), 0, 65590, 2, 65508, 10)) == errno.EMSGSIZE
    (received,) = wait_for(both.receive, timeout=5, what="a datagram") or []
    assert received[0].total() == 10
    both.close()
