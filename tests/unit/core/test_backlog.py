"""Packets wait by flow, so that none waits behind another's."""

from collections import Counter
from collections.abc import Callable
from time import perf_counter

import pytest

from glorytun.core.backlog import FLOWS_MAX, LIMIT_MAX, LIMIT_MIN, QUANTUM, WAIT_MAX, Backlog
from glorytun.core.batch import Batch, append
from glorytun.core.flow import flow_key
from glorytun.core.settings import SECOND
from glorytun.core.wire import OVERHEAD, TAG_SIZE, TIME_SIZE

UDP = 17
NOW = 1_800_000_000 * SECOND


def packet(flow: int, number: int = 0, *, size: int = 1000, version: int = 4) -> bytes:
    """Of a flow over UDP."""
    ports = flow.to_bytes(2, "big") + b"\x00\x35"
    if version == 4:
        head = bytes([0x45, 0]) + bytes(7) + bytes([UDP]) + bytes(2) + bytes(8)
    else:
        head = b"\x60" + bytes(5) + bytes([UDP, 64]) + bytes(32)
    return (head + ports + bytes(4) + number.to_bytes(4, "big")).ljust(size, b"p")


def rows(*packets: bytes) -> list[Batch]:
    """As the TUN has them: in one buffer, with room around each."""
    buffer = bytearray(sum(map(len, packets)) + OVERHEAD * len(packets) + 64)
    batches: list[Batch] = []
    at = TIME_SIZE
    for one in packets:
        buffer[at : at + len(one)] = one
        at = append(batches, Batch(buffer, at, len(one) + OVERHEAD, 1, len(one), len(one)))
    return batches


def put(backlog: Backlog, *packets: bytes) -> None:
    for batch in rows(*packets):
        backlog.put(batch, NOW, rate=0)


def taken(backlog: Backlog, most: int = 1000) -> list[bytes]:
    """Packets in their turn, one at a time."""
    found: list[bytes] = []
    while len(found) < most and (batch := backlog.next(NOW)) is not None:
        found.append(bytes(next(batch.rows())))
        backlog.took(1)
    return found


def test_what_goes_in_comes_out_in_order() -> None:
    packets = [packet(1, number) for number in range(20)] + [packet(1, 20, size=100)]
    backlog = Backlog()
    put(backlog, *packets)
    assert backlog.size == sum(map(len, packets))
    assert taken(backlog) == packets
    assert not backlog
    assert backlog.next(NOW) is None


def test_what_waits_is_a_copy_with_room_to_seal() -> None:
    backlog = Backlog()
    (batch,) = rows(packet(1, 1), packet(1, 2), packet(1, 3, size=700))
    backlog.put(batch, NOW, rate=0)
    batch.buffer[:] = bytes(len(batch.buffer))
    found = backlog.next(NOW)
    assert found is not None
    assert [bytes(row)[:32] for row in found.rows()] == [packet(1, n)[:32] for n in (1, 2, 3)]
    assert found.offset >= TIME_SIZE
    end = found.offset + (found.count - 1) * found.stride + found.last
    assert len(found.buffer) >= end + TAG_SIZE
    assert found.stride >= found.size + OVERHEAD


@pytest.mark.parametrize("version", [4, 6])
def test_a_flow_that_was_silent_comes_first(version: int) -> None:
    backlog = Backlog()
    put(backlog, *(packet(1, number, version=version) for number in range(100)))
    assert len(taken(backlog, 10)) == 10
    ping = packet(2, size=100, version=version)
    put(backlog, ping)
    assert ping in taken(backlog, 4)


def test_flows_take_turns() -> None:
    """By bytes, not by packets."""
    backlog = Backlog()
    put(backlog, *(packet(1, number, size=1400) for number in range(60)))
    put(backlog, *(packet(2, number, size=200) for number in range(200)))
    found = taken(backlog, 100)
    sizes = Counter(one[20:22] for one in found for _ in range(len(one)))
    small, large = sorted(sizes.values())
    assert large - small <= 2 * QUANTUM


def test_one_flow_alone_has_all_its_rows_at_once() -> None:
    """Many of them leave in one call of the kernel."""
    backlog = Backlog()
    put(backlog, *(packet(1, number) for number in range(50)))
    found = backlog.next(NOW)
    assert found is not None
    assert found.count == 50
    put(backlog, packet(2))
    found = backlog.next(NOW)
    assert found is not None
    assert found.total() <= QUANTUM + 1000


@pytest.mark.parametrize("flows", [1, 2, 4])
def test_the_second_packet_of_the_flow_whose_turn_it_is_can_be_asked_for(flows: int) -> None:
    """As in a lesson: see `inorder.py`."""
    backlog = Backlog()
    for flow in range(flows):
        put(backlog, *(packet(flow, number) for number in range(20)))
    head = backlog.head(NOW)
    found = backlog.next(NOW, head.second)
    assert found is not None
    assert bytes(next(found.rows()))[:32] == packet(0, 1)[:32]


def test_what_is_too_much_is_taken_from_the_longest() -> None:
    """Its oldest: the rest comes in order, and the other flow loses nothing."""
    backlog = Backlog()
    call = [packet(2, number, size=200) for number in range(50)]
    put(backlog, *call)
    for number in range(0, 1000, 10):
        put(backlog, *(packet(1, each) for each in range(number, number + 10)))
        assert backlog.size <= LIMIT_MIN
    assert backlog.dropped == 1000 - (LIMIT_MIN - sum(map(len, call))) // 1000
    found = taken(backlog)
    assert [one for one in found if one in call] == call
    bulk = [int.from_bytes(one[28:32], "big") for one in found if one not in call]
    assert bulk == list(range(backlog.dropped, 1000))


def test_flows_in_one_batch_are_told_apart() -> None:
    mixed = [packet(flow, number) for number in range(8) for flow in (1, 2, 3)]
    backlog = Backlog()
    put(backlog, *mixed)
    found = taken(backlog)
    assert sorted(found) == sorted(mixed)
    for flow in (1, 2, 3):
        own = [one for one in found if one[20:22] == bytes([0, flow])]
        assert own == [packet(flow, number) for number in range(8)]


def test_flows_without_number_share_a_queue() -> None:
    """One that was there before has its own still."""
    backlog = Backlog()
    call = packet(1, size=100)
    put(backlog, call)
    put(backlog, *(packet(flow, size=100) for flow in range(2, 1200)))
    assert len(backlog._flows) <= FLOWS_MAX + 1
    assert len(taken(backlog)) == 1000


def test_nothing_is_kept_of_flows_that_have_ended() -> None:
    backlog = Backlog()
    for number in range(5000):
        put(backlog, packet(number % 60000, size=100))
        if number % 3 == 2:
            taken(backlog)
    taken(backlog)
    assert len(backlog._flows) == len(backlog._new) == len(backlog._old) == 0


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (packet(1), packet(1, 9, size=40), True),
        (packet(1), packet(2), False),
        (packet(1, version=6), packet(1, version=6, number=3), True),
        (packet(1, version=6), packet(2, version=6), False),
        (packet(1), packet(1, version=6), False),
        # Parts of a fragmented packet, which have no ports but for the first.
        (
            packet(1)[:6] + b"\x20\x00" + packet(1)[8:],
            packet(2)[:7] + b"\x09" + packet(2)[8:],
            True,
        ),
        # Nonsense is one flow.
        (b"\x00" * 20, b"\xf0" * 20, True),
    ],
)
def test_what_is_one_flow(one: bytes, other: bytes, is_same: bool) -> None:
    assert (flow_key(bytearray(one), 0) == flow_key(bytearray(other), 0)) is is_same


def test_short_packets_are_no_trouble() -> None:
    backlog = Backlog()
    short = [b"\x45", b"\x60" * 3, b"\x45" + bytes(8), b"\x61" + bytes(30)]
    put(backlog, *short, *short)
    assert sorted(taken(backlog)) == sorted(short * 2)


def test_what_has_waited_too_long_is_dropped() -> None:
    """As there was no path: nobody waits for that any more."""
    backlog = Backlog()
    put(backlog, packet(1, 1), packet(1, 2), packet(2, 3))
    later = NOW + WAIT_MAX + 1
    for batch in rows(packet(1, 4)):
        backlog.put(batch, later, rate=0)
    found = backlog.next(later)
    assert found is not None
    assert [bytes(row) for row in found.rows()] == [packet(1, 4)]
    backlog.took(1)
    assert backlog.next(later) is None
    assert (backlog.size, backlog.dropped) == (0, 3)


@pytest.mark.parametrize(
    ("rate", "limit"), [(0, LIMIT_MIN), (2_500_000, 500_000), (1_250_000_000, LIMIT_MAX)]
)
def test_as_much_may_wait_as_leaves_in_a_while(rate: int, limit: int) -> None:
    backlog = Backlog()
    for batch in rows(*(packet(1, number) for number in range(3000))):
        backlog.put(batch, NOW, rate=rate)
    assert limit - 1000 < backlog.size <= limit


def number_of(one: bytes | memoryview) -> int:
    return int.from_bytes(one[28:32], "big")


def test_some_are_taken_from_further_behind() -> None:
    """For a path on which they take longer; the others stay as they were."""
    backlog = Backlog()
    for first in range(0, 60, 10):
        put(backlog, *(packet(1, number) for number in range(first, first + 10)))
    assert backlog.head(NOW).waiting == 60_000
    behind = []
    for ahead in (33_000, 33_000, 30_000, 0):
        found = backlog.next(NOW, ahead)
        assert found is not None
        behind += [number_of(row) for row in found.run(0, 2).rows()]
        backlog.took(2)
    assert behind == [33, 34, 35, 36, 30, 31, 0, 1]
    assert backlog.size == 52_000
    assert [number_of(one) for one in taken(backlog)] == sorted({*range(60)} - {*behind})


def test_the_last_is_taken_where_too_few_wait() -> None:
    backlog = Backlog()
    put(backlog, *(packet(1, number) for number in range(3)), packet(1, 3, size=400))
    for expected in (3, 2, 1, 0):
        found = backlog.next(NOW, 50_000)
        assert found is not None
        assert [number_of(row) for row in found.rows()] == [expected]
        backlog.took(1)
    assert not backlog


def test_what_leaves_ahead_is_of_other_flows_too() -> None:
    """Of two flows that take turns each has half of it; one that is sparse has next to nothing."""
    backlog = Backlog()
    for flow in (1, 2):
        put(backlog, *(packet(flow, number) for number in range(43)))
    taken(backlog, 6)
    assert backlog.head(NOW).waiting == 80_000
    found = backlog.next(NOW, 40_000)
    assert found is not None
    assert number_of(next(found.rows())) == 3 + 20
    backlog.took(found.count)
    call = packet(3, size=100)
    put(backlog, call)
    assert backlog.head(NOW).waiting == 3 * len(call)
    assert bytes(next((backlog.next(NOW) or found).rows())) == call
    backlog.took(1)
    assert backlog.head(NOW).waiting == backlog.size


def test_what_is_taken_from_behind_can_be_sealed_alone() -> None:
    """The room before and behind it is no other row's."""
    backlog = Backlog()
    put(backlog, *(packet(1, number) for number in range(8)))
    found = backlog.next(NOW, 3000)
    assert found is not None
    for at in found.run(0, 2).starts():
        found.buffer[at - TIME_SIZE : at] = b"t" * TIME_SIZE
        found.buffer[at + 1000 : at + 1000 + TAG_SIZE] = b"t" * TAG_SIZE
    backlog.took(2)
    assert taken(backlog) == [packet(1, number) for number in (0, 1, 2, 5, 6, 7)]


def test_small_packets_that_come_alone_leave_together() -> None:
    """To seal and send many costs little more than one."""
    backlog = Backlog()
    packets = [packet(flow, number, size=64) for number in range(200) for flow in (1, 2)]
    for one in packets:
        put(backlog, one)
    found: list[bytes] = []
    calls = 0
    while (batch := backlog.next(NOW)) is not None:
        found += map(bytes, batch.rows())
        backlog.took(batch.count)
        calls += 1
    assert calls < len(packets) / 20
    for flow in (1, 2):
        own = [one for one in found if one[20:22] == bytes([0, flow])]
        assert own == [packet(flow, number, size=64) for number in range(200)]


def fastest(act: Callable[[], object]) -> float:
    """Seconds, without what other processes took."""

    def once() -> float:
        begin = perf_counter()
        act()
        return perf_counter() - begin

    return min(once() for _ in range(5))


def full_of(flows: int) -> Backlog:
    """One that drops with each packet that comes."""
    backlog = Backlog()
    number = 0
    while not backlog.dropped:
        put(backlog, packet(number % flows, number, size=64))
        number += 1
    return backlog


def test_the_longest_of_many_queues_is_found_as_fast() -> None:
    """When it is too much that comes there is no time to look at all for each packet."""

    def act(flows: int) -> float:
        backlog = full_of(flows)
        batches = [batch for flow in range(flows) for batch in rows(packet(flow, size=64))]
        few = (batches * 500)[:500]

        def put_all() -> None:
            for batch in few:
                backlog.put(batch, NOW, rate=0)

        return fastest(put_all)

    assert act(500) < 3 * act(20)


def test_what_is_far_behind_is_found_as_fast() -> None:
    """Among many small packets, for a path on which they take longer."""

    def act(count: int) -> float:
        backlog = Backlog()
        for batch in [rows(packet(1, number, size=64))[0] for number in range(count)]:
            backlog.put(batch, NOW, rate=LIMIT_MAX * 5)
        ahead = backlog.size // 2
        return fastest(lambda: [backlog.next(NOW, ahead) for _ in range(50)])

    assert act(20_000) < 5 * act(2_000)


def test_no_flow_is_remembered_for_what_was_dropped_once() -> None:
    backlog = full_of(20)
    for number in range(20_000):
        put(backlog, packet(number, size=64))
        taken(backlog, 2)
    assert len(backlog._ranks) <= 4 * FLOWS_MAX


def test_little_is_kept_of_what_has_left() -> None:
    """One packet keeps no super-packet."""
    backlog = Backlog()
    for flow in range(100):
        for batch in rows(*(packet(flow, number) for number in range(60))):
            backlog.put(batch, NOW, rate=LIMIT_MAX * 5)
    while backlog.size > 100 * 1000:
        backlog.next(NOW)
        backlog.took(1)
    kept = [one.buffer for flow in backlog._flows.values() for *_, one in flow.rows]
    assert sum(map(len, kept)) <= 2 * (backlog.size + 100 * OVERHEAD)


@pytest.mark.parametrize("head", [b"\x46", b"\x4f"])
def test_flows_of_packets_with_options_are_told_apart(head: bytes) -> None:
    """Their ports are further behind."""
    length = 4 * (head[0] & 15)

    def with_options(flow: int) -> bytes:
        plain = packet(flow)
        return (head + plain[1:20]).ljust(length, b"\x01") + plain[20 : 1020 - length]

    backlog = Backlog()
    put(backlog, *map(with_options, (1, 2, 3)))
    assert len(backlog._flows) == 3


def test_fragments_have_no_ports_in_a_batch_either() -> None:
    """The first has some, but waits with the others; what follows it is of the flow again."""
    whole = [packet(1, number) for number in range(8)]
    part = bytearray(packet(1, 9))
    part[6] |= 0x20  # More fragments follow.
    backlog = Backlog()
    put(backlog, *whole[:6])
    put(backlog, bytes(part), *whole[6:])
    assert [one for one in taken(backlog) if not one[6]] == whole


@pytest.mark.parametrize("version", [4, 6])
def test_flows_of_both_versions_in_one_batch_are_told_apart(version: int) -> None:
    """The others are not looked at as if they were of the first one's."""
    backlog = Backlog()
    kinds = [(1, version), (1, 10 - version), (2, 10 - version), (2, version)]
    (batch,) = rows(*(packet(flow, version=each) for flow, each in kinds))
    backlog.put(batch, NOW, rate=0)
    assert len(backlog._flows) == 4
