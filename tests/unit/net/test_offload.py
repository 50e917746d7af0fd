"""Splitting and merging, against a reference that goes byte by byte."""

import tracemalloc
from collections import defaultdict
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.batch import SLACK, Batch, append_row
from glorytun.core.wire import OVERHEAD
from glorytun.net.checksum import row_sums, sum_of
from glorytun.net.offload import (
    PLAIN,
    ROWS_MAX,
    SuperPacket,
    Vnet,
    merge,
    split,
)
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
    Packet,
    routed,
    written,
)

OPTIONS = [b"", bytes.fromhex("0101080a0011223344556677"), bytes(40)]
"""TCP's: none, a timestamp, as many as there may be."""


@st.composite
def packets(draw: st.DrawFn, *, flags: int = FIN | PSH | CWR | ECE) -> Packet:
    """Any that may be a super-packet, with up to 3000 bytes."""
    version = draw(st.sampled_from([4, 6]))
    protocol = draw(st.sampled_from([TCP, UDP]))
    return Packet(
        version=version,
        protocol=protocol,
        payload=draw(st.randoms(use_true_random=False)).randbytes(draw(st.integers(1, 3000))),
        ports=(draw(st.integers(0, 65535)), draw(st.integers(0, 65535))),
        number=draw(st.integers(0, 2**32 - 1)),
        flags=ACK | (draw(st.integers(0, 255)) & flags),
        options=draw(st.sampled_from(OPTIONS)),
        ident=draw(st.integers(0, 65535)) if version == 4 else 0,
        fragment=draw(st.sampled_from([0, 0x4000])) if version == 4 else 0,
        traffic_class=draw(st.integers(0, 255)),
        ttl=draw(st.integers(1, 255)),
    )


def split_all(
    packet: Packet, segment: int, most: int = ROWS_MAX, *, bare: bool = False
) -> list[bytes]:
    """All segments, as `Tun.read` gets them."""
    data = packet.data(partial=True)
    vnet = packet.vnet(segment)
    buffer = bytearray(vnet + data + b"\xee" * (segment + 100))
    parsed = SuperPacket.parse(buffer, len(data), Vnet.pull(buffer))
    assert parsed
    into = bytearray(b"\xee" * (ROWS_MAX * (packet.header_size + segment + 30) + SLACK))
    rows: list[bytes] = []
    while len(rows) < parsed.segments:
        batch = split(parsed, first=len(rows), most=most, into=into, offset=6, bare=bare)
        assert batch.stride == batch.size + OVERHEAD
        assert batch.count <= min(most, ROWS_MAX)
        assert batch.count > 1 or batch.size == batch.last, "else it is sealed as `size` bytes"
        rows += [bytes(row) for row in batch.rows()]
    return rows


def laid_out(rows: list[bytes], *, gap: int = OVERHEAD, offset: int = 6) -> list[Batch]:
    """Rows as they come out of a tunnel: equal neighbours in one batch."""
    buffer = bytearray(b"\xdd" * (sum(map(len, rows)) + len(rows) * gap + offset + SLACK))
    batches: list[Batch] = []
    at = offset
    for row in rows:
        buffer[at : at + len(row)] = row
        at = append_row(batches, buffer, at, len(row), gap=gap)
    return batches


def merged(rows: list[bytes], *, udp: bool = True) -> list[list[bytes]]:
    """What is written for these rows: for each call the packets that the kernel makes of it."""
    calls = []
    for count, pieces in merge(laid_out(rows), udp=udp):
        whole = [PLAIN, pieces] if isinstance(pieces, memoryview) else pieces
        calls.append(written(list(map(bytes, whole))))
        assert len(calls[-1]) == count
    return calls


def by_flow(rows: list[bytes]) -> dict[bytes, list[bytes]]:
    """Rows by what must stay in order: the addresses, and the ports of whole packets."""
    flows = defaultdict(list)
    for row in rows:
        v6 = row[0] >> 4 == 6
        start, end = (8, 40) if v6 else (12, 20)
        protocol = row[6 if v6 else 9]
        is_whole = protocol in {TCP, UDP} and (v6 or (row[0] == 0x45 and not row[6] & 63 | row[7]))
        flows[row[start : end + 4] + bytes([protocol]) if is_whole else row[start:end]].append(row)
    return flows


def flat(calls: list[list[bytes]]) -> list[bytes]:
    return [row for call in calls for row in call]


@given(packets(), st.integers(1, 1500), st.integers(1, 100))
def test_split(packet: Packet, segment: int, most: int) -> None:
    """Each segment is what the reference makes, to the byte, however many at a time."""
    assert split_all(packet, segment, most) == [one.data() for one in packet.segments(segment)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("segment", [1, 2, 3, 7, 8, 9, 1000, 1397, 1398, 1399, 1448])
def test_split_of_the_largest(version: int, protocol: int, segment: int) -> None:
    """Up to 64 KB, and sizes that are aligned and not; all numbers wrap."""
    payload = bytes(range(251)) * 260
    packet = Packet(
        version=version,
        protocol=protocol,
        payload=payload[: min(len(payload), 300 * segment) - 5],
        number=2**32 - 70,
        ident=65530 if version == 4 else 0,
        fragment=0x4000 if version == 4 else 0,
        flags=ACK | PSH | FIN | CWR,
        options=OPTIONS[1] if protocol == TCP else b"",
    )
    assert split_all(packet, segment) == [one.data() for one in packet.segments(segment)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
@pytest.mark.parametrize("segment", [1, 1398, 32000, 64000])
def test_no_sum_overflows(version: int, byte: bytes, segment: int) -> None:
    """Neither up nor down, on either side."""
    packet = Packet(version=version, payload=byte * 64001)
    packet = replace(packet, payload=packet.payload[: segment * 50 + 1])
    rows = [one.data() for one in packet.segments(segment)]
    assert split_all(packet, segment) == rows
    assert flat(merged(rows)) == rows


def test_split_keeps_ip_options_and_extension_headers() -> None:
    """They are repeated in each segment."""
    v4 = Packet(payload=bytes(range(100)), ip_options=bytes.fromhex("94040000"), ident=5)
    v6 = Packet(version=6, payload=bytes(range(100)), ip_options=bytes([TCP, 0, 1, 4, 0, 0, 0, 0]))
    for packet in (v4, v6):
        assert split_all(packet, 33) == [one.data() for one in packet.segments(33)]


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_split_goes_by_the_last_destination(protocol: int) -> None:
    """Which the address in IPv6's header is not, where there is a routing header."""
    packet = routed(protocol, bytes(range(100)))
    assert split_all(packet, 33) == [one.data() for one in packet.segments(33)]


def test_checksum_of_zero() -> None:
    """TCP writes 0, UDP 65535, as 0 stands for none there."""
    for protocol, expected in ((TCP, 0), (UDP, 0xFFFF)):
        base = Packet(protocol=protocol, payload=bytes(2))
        at = base.ip_size + (16 if protocol == TCP else 6)
        tuned = replace(base, payload=base.data()[at : at + 2])
        assert int.from_bytes(tuned.data()[at : at + 2], "big") == expected
        doubled = replace(tuned, payload=tuned.payload + b"xy")
        assert split_all(doubled, 2)[0] == replace(tuned, flags=ACK).data()


@pytest.mark.parametrize("kind", [0, 2, 3, 6])
def test_unknown_kinds(kind: int) -> None:
    """Nothing is made of what we don't know, such as UFO."""
    buffer = bytearray(Packet(payload=bytes(100)).data() + bytes(100))
    assert SuperPacket.parse(buffer, 140, Vnet(1, kind, 40, 30, 20, 16)) is None


@given(packets(), st.integers(1, 1500))
def test_what_was_split_is_merged(packet: Packet, segment: int) -> None:
    """In as few writes as there can be, and the kernel makes the same of it again."""
    rows = [one.data() for one in packet.segments(segment)]
    calls = merged(rows) if len(rows) > 1 else [rows]
    assert flat(calls) == rows
    assert len(calls) == -(-len(rows) // ROWS_MAX)


@given(
    st.lists(st.tuples(packets(), st.integers(60, 800)), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_flows_that_interleave(flows: list[tuple[Packet, int]], random: Random) -> None:
    """Each flow is merged for itself, stays in order, and nothing changes."""
    queues = [
        [one.data() for one in replace(packet, ports=(index, 5)).segments(segment)]
        for index, (packet, segment) in enumerate(flows)
    ]
    fewest = sum(-(-len(queue) // ROWS_MAX) for queue in queues)
    rows = []
    while any(queues):
        rows.append(random.choice([queue for queue in queues if queue]).pop(0))
    calls = merged(rows)
    assert by_flow(flat(calls)) == by_flow(rows)
    is_worth = len(rows) >= 8 and all(len(row) > 100 for row in rows)
    assert len(calls) == fewest or not is_worth or len(calls) <= len(rows) // 4


def test_one_long_row_among_many_takes_no_room_for_each() -> None:
    """They are passed on as they came then; with less of them they are put in order first."""
    long = Packet(payload=bytes(60_000)).data()
    flows = [Packet(payload=bytes(400), ports=(index % 20, 5)) for index in range(400)]
    rows = [long, *(packet.data() for packet in flows)]
    tracemalloc.start()
    assert merged(rows) == [[row] for row in rows]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@given(
    st.lists(st.tuples(packets(flags=255), st.integers(60, 800)), min_size=1, max_size=4),
    st.data(),
)
def test_whatever_comes_is_passed_on_unchanged(
    flows: list[tuple[Packet, int]], data: st.DataObject
) -> None:
    """Lost, doubled, altered, reordered, cut: the kernel makes of it what came, in order."""
    rows = []
    for packet, segment in flows:
        rows += [one.data() for one in packet.segments(segment)]
    for _ in range(data.draw(st.integers(0, 6))):
        index = data.draw(st.integers(0, len(rows) - 1))
        row = bytearray(rows[index])
        match data.draw(st.sampled_from(["alter", "lose", "double", "swap", "header", "cut"])):
            case "alter":
                row[data.draw(st.integers(0, len(row) - 1))] ^= 1 << data.draw(st.integers(0, 7))
                rows[index] = bytes(row)
            case "header":
                row[data.draw(st.integers(0, 59)) % len(row)] ^= data.draw(st.integers(1, 255))
                rows[index] = bytes(row)
            case "lose" if len(rows) > 1:
                del rows[index]
            case "double":
                rows.insert(index, rows[index])
            case "swap":
                rows[0], rows[index] = rows[index], rows[0]
            case "cut":
                rows[index] = bytes(row[: data.draw(st.integers(1, len(row)))])
    calls = merged(rows)
    assert sorted(flat(calls)) == sorted(rows)
    assert by_flow_alike(flat(calls)) == by_flow_alike(rows)


def by_flow_alike(rows: list[bytes]) -> dict[bytes, list[bytes]]:
    """As `by_flow`, of rows that are whole enough to have a flow."""
    return by_flow([row for row in rows if len(row) >= 44 and row[0] in {0x45, 0x60}])


FIRST = Packet(payload=b"a" * 100, options=OPTIONS[1], number=1000, ident=7)


def following(**changes: object) -> Packet:
    """What would continue FIRST, but for the changes."""
    after = replace(FIRST, number=FIRST.number + 100, ident=FIRST.ident + 1)
    return replace(after, **changes)  # type: ignore[arg-type]  # the fields' types differ


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"payload": b"short"},
        {"flags": ACK | PSH},
        {"flags": ACK | FIN},
    ],
)
def test_what_continues(changes: dict[str, object]) -> None:
    """The end of a run may be shorter, and have PSH or FIN."""
    rows = [FIRST.data(), following(**changes).data()]
    assert merged(rows) == [rows]


@pytest.mark.parametrize(
    "changes",
    [
        {"number": FIRST.number + 99},
        {"number": FIRST.number + 101},
        {"number": FIRST.number},
        {"ack": 78},
        {"ports": (1000, 2001)},
        {"options": bytes.fromhex("0101080a0011223344556678")},
        {"options": b""},
        {"payload": b"a" * 101},
        {"payload": b""},
        {"ident": FIRST.ident},
        {"ident": FIRST.ident + 2},
        {"fragment": 0},
        {"fragment": 0x2000},
        {"ttl": 63},
        {"traffic_class": 3},
        {"flags": ACK | CWR},
        {"flags": ACK | ECE},
        {"flags": ACK | SYN},
        {"flags": ACK | RST},
        {"flags": ACK | URG},
        {"flags": PSH},
        {"ip_options": bytes.fromhex("94040000")},
    ],
)
def test_what_does_not_continue(changes: dict[str, object]) -> None:
    """It goes by itself."""
    rows = [FIRST.data(), following(**changes).data()]
    assert merged(rows) == [[rows[0]], [rows[1]]]


@pytest.mark.parametrize("flags", [ACK | PSH, ACK | FIN, ACK | SYN, ACK | URG])
def test_what_is_not_continued(flags: int) -> None:
    """The flag would move to the end."""
    rows = [replace(FIRST, flags=flags).data(), following(flags=flags).data()]
    assert merged(rows) == [[rows[0]], [rows[1]]]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("bad", range(5))
@pytest.mark.parametrize("where", [-1, 10])
def test_a_wrong_checksum_is_never_repaired(
    version: int, protocol: int, bad: int, where: int
) -> None:
    """Such a packet goes by itself, as it is; those around it are merged."""
    packet = Packet(version=version, protocol=protocol, payload=bytes(500), fragment=0)
    rows = [one.data() for one in packet.segments(100)]
    at = where % len(rows[bad]) if where < 0 or version == 4 else where - 20
    if version == 6 and where > 0:
        at = packet.ip_size + (16 if protocol == TCP else 6)
    rows[bad] = rows[bad][:at] + bytes([rows[bad][at] ^ 0x55]) + rows[bad][at + 1 :]
    calls = merged(rows)
    assert flat(calls) == rows
    assert [rows[bad]] in calls
    assert len(calls) < 5


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("what", ["transport", "ip"])
def test_what_is_wrong_alike_is_never_repaired(version: int, protocol: int, what: str) -> None:
    """As a NAT leaves it that forgets the checksum: by as much in every packet."""
    packet = Packet(version=version, protocol=protocol, payload=bytes(500), fragment=0)
    at = packet.ip_size + (16 if protocol == TCP else 6) if what == "transport" else 10
    if version == 6 and what == "ip":
        at = 24  # No checksum: another destination than the one that it was made for.
    rows = []
    for one in packet.segments(100):
        data = bytearray(one.data())
        value = int.from_bytes(data[at : at + 2], "big") + 0x1234
        data[at : at + 2] = (value % 0xFFFF).to_bytes(2, "big")
        rows.append(bytes(data))
    assert merged(rows) == [[row] for row in rows]


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(
    ("version", "ip_options"),
    [(4, bytes.fromhex("94040000")), (4, bytes(40)), (6, b"\0\0\1\4\0\0\0\0")],
)
def test_options_and_extension_headers_go_by_themselves(
    version: int, protocol: int, ip_options: bytes
) -> None:
    """Also where all packets have the same."""
    if version == 6:
        ip_options = bytes([protocol]) + ip_options[1:]
    packet = Packet(
        version=version, protocol=protocol, payload=bytes(500), fragment=0, ip_options=ip_options
    )
    rows = [one.data() for one in packet.segments(100)]
    assert merged(rows) == [[row] for row in rows]


@pytest.mark.parametrize("at", [10, 36])
def test_the_other_zero_is_not_corrected(at: int) -> None:
    """A checksum of 65535 is as right as one of 0, and the kernel would write the latter."""
    first = FIRST if at == 10 else replace(FIRST, options=b"")
    if at == 10:
        value = int.from_bytes(first.data()[10:12], "big")
        first = replace(first, ident=(first.ident + value) % 0xFFFF)
    else:
        value = int.from_bytes(first.data()[36:38], "big")
        number = int.from_bytes(first.payload[:2], "big")
        total = number + value
        payload = (total % 0xFFFF).to_bytes(2, "big") + first.payload[2:]
        first = replace(first, payload=payload)
    assert first.data()[at : at + 2] in {b"\0\0", b"\xff\xff"}
    other = first.data()[:at] + b"\xff\xff" + first.data()[at + 2 :]
    next_ = replace(
        first, number=first.number + 100, ident=first.ident + 1, payload=b"b" * 100
    ).data()
    assert merged([first.data()[:at] + b"\0\0" + first.data()[at + 2 :], next_]) == [
        [first.data()[:at] + b"\0\0" + first.data()[at + 2 :], next_]
    ]
    assert merged([other, next_]) == [[other], [next_]]


@pytest.mark.parametrize("version", [4, 6])
def test_udp_without_checksum_whose_checksum_would_be_zero(version: int) -> None:
    """0 says that there is none: the kernel would write 65535."""
    first = Packet(version=version, protocol=UDP, payload=bytes(100), fragment=0)
    at = first.ip_size + 6
    first = replace(first, payload=first.data()[at : at + 2] + bytes(98))
    assert first.data()[at : at + 2] == b"\xff\xff"
    rows = [replace(first, ident=index).data() for index in range(3 if version == 4 else 1)]
    rows = 3 * rows if version == 6 else rows
    assert merged(rows) == [rows]
    none = rows[1][:at] + b"\0\0" + rows[1][at + 2 :]
    assert merged([rows[0], none, rows[2]]) == [[rows[0]], [none], [rows[2]]]


def test_wrong_checksums_that_cancel_out() -> None:
    """That of the header is too large by what that of TCP is too small."""
    rows = [one.data() for one in Packet(payload=bytes(500)).segments(100)]
    bad = bytearray(rows[2])
    for at, change in ((10, 5), (36, -5)):
        value = (int.from_bytes(bad[at : at + 2], "big") + change) % 0xFFFF
        bad[at : at + 2] = value.to_bytes(2, "big")
    rows[2] = bytes(bad)
    calls = merged(rows)
    assert flat(calls) == rows
    assert [rows[2]] in calls


def test_padding_is_passed_on() -> None:
    """Behind every packet, as a link layer may add it."""
    packet = Packet(payload=bytes(500), fragment=0)
    rows = [one.data() + b"\0\0" for one in packet.segments(100)]
    assert merged(rows) == [[row] for row in rows]


def test_udp_is_merged_only_where_the_kernel_takes_it() -> None:
    """Before Linux 6.2 it does not."""
    rows = [one.data() for one in Packet(protocol=UDP, payload=bytes(300)).segments(100)]
    assert merged(rows) == [rows]
    assert merged(rows, udp=False) == [[row] for row in rows]


def test_udp_without_checksum_is_not_merged() -> None:
    """The kernel would write one."""
    rows = []
    for one in Packet(protocol=UDP, payload=bytes(300), fragment=0).segments(100):
        data = one.data()
        rows.append(data[:26] + b"\0\0" + data[28:])
    assert merged(rows) == [[row] for row in rows]


def test_no_more_than_a_packet_holds() -> None:
    """A run of more than 64 KB is several super-packets."""
    packet = replace(FIRST, payload=bytes(60 * 1448))
    rows = [one.data() for one in packet.segments(1448)]
    calls = merged(rows)
    assert flat(calls) == rows
    assert len(calls) == 2


@given(st.binary(min_size=3, max_size=200), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_row_sums(row: bytes, count: int, offset: int, gap: int) -> None:
    """As one by one, at any place and of any size, whatever lies between."""
    stride = len(row) + gap
    buffer = bytearray(b"\xcc" * (offset + count * stride + 8))
    for index in range(count):
        buffer[offset + index * stride : offset + index * stride + len(row)] = row
    sums = row_sums(Batch(buffer, offset, stride, count, len(row), len(row)))
    assert [total % 65535 for total in sums.tolist()] == [sum_of(row[2:])] * count


def test_row_sums_do_not_overflow() -> None:
    """Of the largest rows there are, all ones."""
    buffer = bytearray(b"\xff" * 70000)
    sums = row_sums(Batch(buffer, 6, 65528, 1, 65528, 65528))
    assert sums.tolist() == [65526 // 2 * 65535]
