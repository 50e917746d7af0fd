"""A hundred thousand hostile datagrams of each kind are counted and dropped, and that is all."""

import resource
from collections.abc import Callable
from random import Random

import pytest

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.events import DatagramsDropped
from glorytun.core.settings import SECOND
from glorytun.core.status import BadKind, Condition
from glorytun.core.wire import OVERHEAD
from tests.simulation import MILLISECOND, PORT, Side, Simulation, Wire

COUNT = 100_000
STRANGER = Endpoint(pack_address("203.0.113.9"), PORT)

Maker = Callable[[bytes, Random], bytes]


def truncated(genuine: bytes, random: Random) -> bytes:
    return genuine[: random.randrange(len(genuine))]


def flipped(genuine: bytes, random: Random) -> bytes:
    altered = bytearray(genuine)
    altered[random.randrange(len(altered))] ^= 1 << random.randrange(8)
    return bytes(altered)


def noise(genuine: bytes, random: Random) -> bytes:
    return random.randbytes(random.randrange(OVERHEAD + 1, 400))


def oversized(genuine: bytes, random: Random) -> bytes:
    return genuine + bytes(random.randrange(1, 65507 - len(genuine)))


def replayed(genuine: bytes, random: Random) -> bytes:
    return genuine


KINDS: list[tuple[Maker, set[BadKind]]] = [
    (truncated, {BadKind.SIZE, BadKind.DECRYPT}),
    (flipped, {BadKind.DECRYPT, BadKind.SIZE}),
    (noise, {BadKind.DECRYPT, BadKind.SIZE}),
    (oversized, {BadKind.DECRYPT}),
    (replayed, {BadKind.REPLAY}),
]


Captured = list[tuple[Side, int, bytes]]


def started() -> tuple[Simulation, Captured]:
    """A tunnel at work, and datagrams that have arrived: for whom, on which path."""
    simulation = Simulation(Wire(), Wire())
    simulation.up()
    simulation.run(SECOND)
    for side in (simulation.client, simulation.server):
        simulation.stream(side, count=20, interval=10 * MILLISECOND)
    captured = simulation.captured
    simulation.run(50 * MILLISECOND)
    assert simulation.server.conditions() == [Condition.RUNNING] * 2
    return simulation, captured


def counts(side: Side) -> dict[BadKind, int]:
    return {status.kind: status.count for status in side.tunnel.bad_statuses()}


def paths(side: Side) -> list[PathId]:
    return [PathId(status.local, status.remote) for status in side.paths()]


def memory() -> int:
    """The most this process has used so far, KiB (getrusage(2))."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(("make", "kinds"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("is_client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("is_stranger", [True, False], ids=["stranger", "known"])
def test_hostile_datagrams(
    make: Maker, kinds: set[BadKind], is_client: bool, is_stranger: bool
) -> None:
    """None is delivered, makes a path or moves one; memory is flat, traffic goes on."""
    simulation, captured = started()
    random = Random(1)
    side = simulation.client if is_client else simulation.server
    other = simulation.server if is_client else simulation.client
    genuine = [(index, datagram) for receiver, index, datagram in captured if receiver is side]
    assert {datagram[0] & 1 for _, datagram in genuine} == {0, 1}, "both data and control"
    before, known = counts(side), paths(side)
    delivered = sum(side.delivered.values())

    def attack(count: int) -> None:
        for _ in range(count):
            index, datagram = random.choice(genuine)
            path = known[index]
            if is_stranger:
                path = PathId(path.local, STRANGER)
            simulation.receive(side, path, make(datagram, random))
            assert len(side.tunnel.next_datagrams()) == 0

    attack(COUNT // 10)
    used = memory()
    attack(COUNT - COUNT // 10)
    assert memory() - used < 1024

    assert sum(side.delivered.values()) == delivered
    assert paths(side) == known
    added = {kind: count - before[kind] for kind, count in counts(side).items()}
    assert sum(added.values()) == COUNT
    assert {kind for kind, count in added.items() if count} <= kinds
    reports = [event for event in side.events if isinstance(event, DatagramsDropped)]
    assert len(reports) <= len(kinds), "noise must not fill the log"

    sent, refused = simulation.stream(other, count=50, interval=10 * MILLISECOND)
    simulation.run(SECOND)
    assert not refused
    assert set(sent) <= set(side.delivered)
    assert side.conditions() == [Condition.RUNNING] * 2


def test_replays_later() -> None:
    """Old control messages, replayed from elsewhere at any later time, make no path."""
    simulation, captured = started()
    old = [item for item in captured if item[2][0] & 1]
    for minutes in (0, 1, 5, 9, 11, 30, 60):
        simulation.run(minutes * 60 * SECOND + 50 * MILLISECOND)
        for side, index, datagram in old:
            local = paths(side)[index].local
            simulation.receive(side, PathId(local, STRANGER), datagram)
        simulation.run(SECOND)
        assert len(simulation.server.paths()) == 2
        assert STRANGER not in {status.remote for status in simulation.server.paths()}
