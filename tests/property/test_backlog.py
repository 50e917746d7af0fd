"""What waits for a path, against an obvious model: nothing is lost, doubled, or out of order."""

from random import Random

import pytest

from glorytun.core import backlog as module
from glorytun.core.backlog import JOINED_TIME, LIMIT_MIN, WAIT_MAX, Backlog
from glorytun.core.batch import Batch, append
from glorytun.core.flow import flow_key
from glorytun.core.settings import SECOND
from glorytun.core.wire import OVERHEAD, TAG_SIZE, TIME_SIZE

NOW = 1_800_000_000 * SECOND
UDP = 17
FLOWS = 6
STEPS = 300


def packet(flow: int, number: int, size: int) -> bytes:
    """Every other flow is of IPv6; the number is where it doesn't say of which flow it is."""
    ports = flow.to_bytes(2, "big") + b"\x00\x35"
    if flow % 2:
        head = b"\x60" + bytes(5) + bytes([UDP, 64]) + bytes(32) + ports
    else:
        head = bytes([0x45]) + bytes(8) + bytes([UDP]) + bytes(10) + ports
    return (head.ljust(44, b"h") + number.to_bytes(4, "big")).ljust(size, b"p")


def laid_out(packets: list[bytes]) -> list[Batch]:
    """As the TUN has them: in one buffer, with room around each."""
    buffer = bytearray(sum(map(len, packets)) + OVERHEAD * len(packets))
    batches: list[Batch] = []
    at = TIME_SIZE
    for one in packets:
        buffer[at : at + len(one)] = one
        at = append(batches, Batch(buffer, at, len(one) + OVERHEAD, 1, len(one), len(one)))
    return batches


class Traffic:
    """Puts packets into a backlog and takes them out, and keeps count in lists."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.backlog = Backlog()
        self.now = NOW
        self.number = 0
        self.waiting: dict[int, list[tuple[bytes, int]]] = {flow: [] for flow in range(FLOWS)}
        """Packets of each flow, with the times when they came."""
        self.dropped = 0

    def size(self, flow: int) -> int:
        return sum(len(one) for one, _ in self.waiting[flow])

    @property
    def total(self) -> int:
        return sum(map(self.size, self.waiting))

    def kinds(self) -> list[tuple[int, int]]:
        """Flow and size of some packets: one by one, a super-packet, or flows in turn."""
        random = self.random
        flow, size = random.randrange(FLOWS), random.choice([48, 49, 300, 1400])
        match random.randrange(4):
            case 0:
                return [(flow, size)]
            case 1:
                return [(flow, size)] * random.randrange(60) + [(flow, random.randint(48, size))]
            case 2:
                return [(random.randrange(FLOWS), size) for _ in range(20)]
            case _:
                return [(flow, random.choice([48, 49, 1400])) for _ in range(20)]

    def put(self) -> None:
        packets: list[bytes] = []
        flows: list[int] = []
        for flow, size in self.kinds():
            self.number += 1
            packets.append(packet(flow, self.number, size))
            flows.append(flow)
        for batch in laid_out(packets):
            for row in batch.rows():
                self.waiting[flows.pop(0)].append((bytes(row), self.now))
            self.backlog.put(batch, self.now, rate=0)
            batch.buffer[batch.offset : batch.offset + batch.total()] = bytes(batch.total())
            self.drop()

    def drop(self) -> None:
        while self.total > LIMIT_MIN:
            longest = max(map(self.size, self.waiting))
            equals = [flow for flow in self.waiting if self.size(flow) == longest]
            # Of flows as long as each other it may be either.
            flow = next((one for one in equals if self.kept(one) < longest), equals[0])
            self.waiting[flow].pop(0)
            self.dropped += 1

    def kept(self, flow: int) -> int:
        """Bytes of a flow that the backlog has."""
        found = self.backlog._flows.get(flow_key(bytearray(packet(flow, 0, 48)), 0))
        return found.size if found else 0

    def expire(self) -> None:
        """What has waited too long is gone, when it would have been its turn; or a little less."""
        for flow, rows in self.waiting.items():
            while self.size(flow) > self.kept(flow):
                _, came_at = rows.pop(0)
                assert came_at < self.now - WAIT_MAX + JOINED_TIME
                self.dropped += 1

    def take(self) -> None:
        ahead = self.random.choice([0, 0, self.random.randrange(LIMIT_MIN)])
        waiting = self.backlog.head(self.now).waiting
        self.expire()
        found = self.backlog.next(self.now, ahead)
        if found is None:
            assert self.total == waiting == 0
            return
        rows = [bytes(row) for row in found.rows()]
        (flow,) = (one for one in self.waiting if rows[0] in [row for row, _ in self.waiting[one]])
        queue = [row for row, _ in self.waiting[flow]]
        assert waiting == min(self.size(flow) * len(self.backlog._flows), self.total)
        left, first = ahead * self.size(flow) // waiting, 0
        while first < len(queue) - 1 and left >= len(queue[first]):
            left -= len(queue[first])
            first += 1
        assert rows == queue[first : first + len(rows)]
        assert all(self.now - came_at <= WAIT_MAX for _, came_at in self.waiting[flow])
        self.leave(flow, first, found, self.random.randint(1, found.count))

    def leave(self, flow: int, first: int, found: Batch, count: int) -> None:
        """So many are sealed, which takes the room around them."""
        sent = found.run(0, count)
        for index, at in enumerate(sent.starts()):
            datagram = slice(at - TIME_SIZE, at + sent.row_size(index) + TAG_SIZE)
            found.buffer[datagram] = b"x" * (sent.row_size(index) + OVERHEAD)
        self.backlog.took(count)
        del self.waiting[flow][first : first + count]

    def check(self) -> None:
        assert self.backlog.size == self.total <= LIMIT_MIN
        assert self.backlog.dropped == self.dropped
        flows = self.backlog._flows.values()
        buffers = {id(rows.buffer): rows.buffer for flow in flows for _, _, rows in flow.rows}
        count = sum(map(len, self.waiting.values()))
        assert sum(map(len, buffers.values())) <= 2 * (self.total + count * OVERHEAD)


@pytest.mark.parametrize("seed", range(20))
def test_any_traffic_comes_out_as_it_went_in(seed: int) -> None:
    """Of each flow all that wasn't dropped, in order but for what is taken from behind."""
    traffic = Traffic(seed)
    for _ in range(STEPS):
        traffic.random.choice([traffic.put, traffic.take, traffic.take, traffic.take])()
        traffic.now += traffic.random.choice([0, 10, 1000, SECOND // 10])
        if traffic.random.randrange(50) == 0:
            traffic.now += SECOND
        traffic.check()
    while traffic.backlog:
        traffic.take()
        traffic.check()
    assert traffic.number > traffic.dropped > 0


@pytest.mark.parametrize("seed", range(20))
def test_order_is_kept_in_a_shared_queue(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a flow that was in there could have its own."""
    monkeypatch.setattr(module, "FLOWS_MAX", 2)
    backlog, random, last = Backlog(), Random(seed), dict.fromkeys(range(FLOWS), 0)
    for number in range(1, 2000):
        for batch in laid_out([packet(random.randrange(FLOWS), number, 100)]):
            backlog.put(batch, NOW + number, rate=0)
        while backlog.size > 10_000 or (backlog and random.random() < 0.5):
            found = backlog.next(NOW + number)
            assert found is not None
            row = bytes(next(found.rows()))
            flow = int.from_bytes(row[40:42] if row[0] >> 4 == 6 else row[20:22], "big")
            assert last[flow] < int.from_bytes(row[44:48], "big")
            last[flow] = int.from_bytes(row[44:48], "big")
            backlog.took(1)
    assert backlog.dropped == 0
