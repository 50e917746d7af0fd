"""Packets that travel without checksums: they end up as they would have with them."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from glorytun.core.backlog import Backlog
from glorytun.core.flow import flow_key
from glorytun.core.marked import first_alike, traffic_class
from glorytun.core.wire import BARE_BIT
from glorytun.net.bare import complete, may_be_bare
from glorytun.net.offload import ROWS_MAX
from tests.unit.net.packets import TCP, UDP, Packet
from tests.unit.net.test_offload import by_flow, flat, laid_out, merged, packets, split_all

LONG_OPTIONS = bytes.fromhex("01010101")
PIECE = 0x2000
"""The flag of IPv4: more fragments follow."""


def tcp(packet: Packet) -> Packet:
    return packet if packet.protocol == TCP else replace(packet, protocol=TCP)


def completed(row: bytes) -> bytes:
    """As it is written to the TUN."""
    whole = bytearray(row)
    complete(whole)
    return bytes(whole)


def all_completed(rows: list[bytes]) -> list[bytes]:
    return [completed(row) for row in rows]


@given(packets().map(tcp), st.integers(1, 1500), st.integers(1, 100))
def test_what_was_split_is_completed(packet: Packet, segment: int, most: int) -> None:
    """Each segment goes without checksums, and is then what the reference makes, to the byte."""
    rows = split_all(packet, segment, most, bare=True)
    assert all(row[0] & BARE_BIT for row in rows)
    assert all_completed(rows) == [one.data() for one in packet.segments(segment)]


@given(packets().map(tcp), st.integers(1, 1500))
def test_what_was_split_is_merged(packet: Packet, segment: int) -> None:
    """In as few writes as there can be; what goes by itself is for `complete`."""
    rows = split_all(packet, segment, bare=True)
    calls = merged(rows)
    assert all_completed(flat(calls)) == [one.data() for one in packet.segments(segment)]
    assert len(calls) == -(-len(rows) // ROWS_MAX)


@given(
    st.lists(st.tuples(packets(), st.integers(60, 800), st.booleans()), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_bare_ones_beside_others(flows: list[tuple[Packet, int, bool]], random: Random) -> None:
    """Of other flows, or lost in between: nothing changes, and each flow stays in order."""
    queues = []
    for index, (packet, segment, is_bare) in enumerate(flows):
        one = replace(packet, ports=(index, 5))
        queues.append(split_all(one, segment, bare=is_bare and one.protocol == TCP))
        if random.random() < 0.5:
            queues[-1].pop(random.randrange(len(queues[-1])))
    rows = []
    while any(queues):
        rows.append(random.choice([queue for queue in queues if queue]).pop(0))
    assume(rows)
    assert by_flow(all_completed(flat(merged(rows)))) == by_flow(all_completed(rows))


@given(packets().map(tcp), st.integers(60, 800), st.randoms(use_true_random=False))
def test_both_in_one_flow(packet: Packet, segment: int, random: Random) -> None:
    """As a router has them: what it got by itself has checksums already."""
    whole = [one.data() for one in packet.segments(segment)]
    bare = split_all(packet, segment, bare=True)
    rows = [random.choice(pair) for pair in zip(whole, bare, strict=True)]
    assert all_completed(flat(merged(rows))) == whole


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("lone", [False, True])
def test_a_wrong_checksum_among_bare_ones(version: int, lone: bool) -> None:
    """It is passed on as it is, though those before it have none to be wrong."""
    packet = Packet(version=version, payload=bytes(5000 if lone else 9000))
    rows = split_all(packet, 1000, bare=True)
    whole = [one.data() for one in packet.segments(1000)]
    for index in range(2, len(rows)):
        rows[index] = whole[index][:-1] + b"x"
    # Tangled, or else as they are.
    assert all_completed(flat(merged(rows))) == whole[:2] + rows[2:]


@pytest.mark.parametrize(
    "packet",
    [
        Packet(protocol=UDP),
        Packet(version=6, protocol=UDP),
        Packet(ip_options=LONG_OPTIONS),
        Packet(version=6, ip_options=bytes([6, 0]) + bytes(6)),
        Packet(fragment=PIECE),
        Packet(fragment=1),
    ],
    ids=["udp4", "udp6", "options", "extension", "first-fragment", "fragment"],
)
def test_what_may_not_be_bare(packet: Packet) -> None:
    """Who gets it wouldn't find the checksum; so it isn't taken for bare there either."""
    data = bytearray(replace(packet, payload=b"x" * 50).data())
    assert not may_be_bare(data, 0, packet.ip_size)
    data[0] |= BARE_BIT
    before = bytes(data)
    assert not complete(data)
    assert data == before


@given(
    st.one_of(
        st.binary(max_size=100),
        st.tuples(packets(flags=255), st.integers(0, 59), st.integers(0, 255)).map(
            lambda drawn: (
                lambda data: data[: drawn[1]] + bytes([drawn[2]]) + data[drawn[1] + 1 :]
            )(drawn[0].data())
        ),
        packets(flags=255).map(lambda packet: packet.data()),
    ),
    st.booleans(),
)
def test_whatever_is_called_bare(data: bytes, is_bare: bool) -> None:
    """Nothing raises; nothing but checksums changes; what isn't bare isn't touched."""
    packet = bytearray(data)
    if packet and is_bare:
        packet[0] |= BARE_BIT
    before = bytes(packet)
    is_completed = complete(packet)
    if not is_completed:
        assert packet == before
        return
    assert before[0] & BARE_BIT
    assert packet[0] == before[0] & ~BARE_BIT
    checksum = (20 if packet[0] == 0x45 else 40) + 16
    places = {0, checksum, checksum + 1} | ({10, 11} if packet[0] == 0x45 else set())
    assert {at for at, byte in enumerate(packet) if byte != before[at]} <= places
    assert not complete(packet)


@given(packets().map(tcp))
def test_what_else_looks_at_packets(packet: Packet) -> None:
    """The flow and the traffic class of a bare one are the same."""
    [row] = split_all(packet, len(packet.payload), bare=True)
    plain = laid_out([packet.data()])[0]
    assert flow_key(bytearray(row), 0) == flow_key(bytearray(packet.data()), 0)
    marked = traffic_class(bytearray(packet.data()), 0)
    assert traffic_class(bytearray(row), 0) == marked
    other = replace(packet, traffic_class=packet.traffic_class ^ 4)
    rows = [row, row, *split_all(other, len(packet.payload), bare=True)]
    for wanted in (marked, marked ^ 4):
        alike, is_marked = first_alike(laid_out(rows)[0], wanted)
        assert is_marked == first_alike(plain, wanted)[1]
        assert alike.count == 2


@pytest.mark.parametrize("version", [4, 6])
def test_bare_ones_wait_by_flow(version: int) -> None:
    """As others do: two flows, each as one batch of its rows."""
    backlog = Backlog()
    for port in (1, 2):
        packet = Packet(version=version, payload=bytes(3000), ports=(port, 5))
        [batch] = laid_out(split_all(packet, 1000, bare=True))
        backlog.put(batch, 0, rate=10_000_000)
    taken = []
    while (rows := backlog.next(0)) is not None:
        taken.append((rows.count, flow_key(rows.buffer, rows.offset)))
        backlog.took(rows.count)
    assert [count for count, _ in taken] == [3, 3]
    assert len({key for _, key in taken}) == 2
