"""What a path that waits is good for, and what it must not change: two tunnels in virtual time."""

from itertools import pairwise

import pytest

from glorytun.core.address import PathId
from glorytun.core.settings import SECOND, PathState
from glorytun.core.status import Condition
from tests.property.test_multipath_scenarios import INTERVAL, sides, started
from tests.simulation import MILLISECOND, Side, Simulation, Wire


def with_backups(*wires: Wire, preferences: tuple[int, ...] = (0,)) -> Simulation:
    """The first path up, each other one a backup; no rate is given."""
    simulation = started(*wires)
    for index, preference in enumerate(preferences, 1):
        simulation.set_path(index, state=PathState.BACKUP, preference=preference)
    simulation.run(SECOND)
    return simulation


def test_packets_wait_for_no_path_that_is_not_used() -> None:
    """Though its rate isn't known: the backlog is as long as the others' rate says."""
    simulation = with_backups(Wire(), Wire())
    simulation.set_path(0, rate_tx=1_250_000, rate_rx=1_250_000, fixed_rate=True)
    simulation.run(SECOND)
    for side in sides(simulation):
        assert side.tunnel.rate == 1_250_000
    simulation.wires[0].cut = True
    simulation.stream(simulation.client, count=100, interval=INTERVAL)
    for side in sides(simulation):
        assert side.tunnel.rate > 1_250_000
    simulation.wires[1].cut = True
    simulation.stream(simulation.client, count=500, interval=INTERVAL)
    assert simulation.client.tunnel.rate == 0


@pytest.mark.parametrize("phase", range(0, 100, 20))
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_cut_costs_less_than_200_ms_with_a_backup(phase: int, *, up: bool) -> None:
    """As it does with two that are up: a sign is enough to use it, if there is nothing better."""
    simulation = with_backups(Wire(delay=5 * MILLISECOND), Wire(delay=5 * MILLISECOND))
    sender, receiver = sides(simulation) if up else reversed(sides(simulation))
    simulation.stream(sender, count=100, interval=INTERVAL)
    simulation.run(phase * MILLISECOND)
    simulation.wires[0].cut = True
    sent, refused = simulation.stream(sender, count=100, interval=INTERVAL)
    simulation.run(SECOND)
    assert not refused
    came = [number for number, packet in enumerate(sent) if packet in receiver.delivered]
    assert len(sent) - len(came) <= 20
    assert max((b - a for a, b in pairwise([-1, *came])), default=99) <= 21


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_path_that_is_left_out_takes_over_as_fast(*, up: bool) -> None:
    """What it carries comes late, but it comes."""
    wires = (Wire(delay=10 * MILLISECOND), Wire(delay=150 * MILLISECOND))
    simulation = started(*wires, rates=(50, 2))
    sender, receiver = sides(simulation) if up else reversed(sides(simulation))
    simulation.stream(sender, count=200, interval=INTERVAL)
    assert sender.conditions() == ["running", "waiting"]
    wires[0].cut = True
    sent, _ = simulation.stream(sender, count=100, interval=INTERVAL)
    simulation.run(SECOND)
    assert sum(packet not in receiver.delivered for packet in sent) <= 25


@pytest.mark.parametrize("wire", [{"jitter": 60 * MILLISECOND}, {"loss": 0.02}])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_backup_is_not_used_for_a_late_or_lost_answer(wire: dict[str, float], up: bool) -> None:
    """It may cost money: what loses 2 % or is 60 ms late by chance is no reason for it."""
    simulation = with_backups(Wire(**wire), Wire())  # type: ignore[arg-type]  # a dict of several types
    sender = simulation.client if up else simulation.server
    backup = next(path for path in sender.tunnel._paths if path.condition == Condition.WAITING)
    used = 0
    for _ in range(60 * 100):
        before = backup.tx_bytes
        simulation.send(sender, simulation.packet(1400))
        used += backup.tx_bytes - before > 1400
        simulation.run(INTERVAL)
    assert used < 60


def test_the_best_backup_is_tried_first() -> None:
    """By preference, and only those that are heard."""
    wires = (Wire(), Wire(), Wire())
    simulation = with_backups(*wires, preferences=(2, 1))
    simulation.stream(simulation.client, count=20, interval=INTERVAL)
    for cut, used in ((0, 2), (2, 1)):
        wires[cut].cut = True
        simulation.run(300 * MILLISECOND)
        before = [status.tx.bytes for status in simulation.client.paths()]
        simulation.stream(simulation.client, count=20, interval=INTERVAL, size=1400)
        after = [status.tx.bytes for status in simulation.client.paths()]
        sent = [then - start for start, then in zip(before, after, strict=True)]
        assert sent[used] > 20_000 > sum(sent) - sent[used]


def sent_on(side: Side, path: PathId) -> int:
    """Bytes."""
    found = {PathId(status.local, status.remote): status.tx.bytes for status in side.paths()}
    return found[path]


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_path_that_is_left_out_comes_before_a_backup(*, up: bool) -> None:
    """While the better one is suspect as afterwards: it is up, and the backup may cost money."""
    wires = (Wire(), Wire(delay=150 * MILLISECOND), Wire())
    simulation = started(*wires, rates=(50, 2, 50))
    simulation.set_path(2, state=PathState.BACKUP)
    sender, receiver = sides(simulation) if up else reversed(sides(simulation))
    simulation.stream(sender, count=200, interval=INTERVAL)
    assert sorted(sender.conditions()) == ["running", "waiting", "waiting"]
    ids = [(simulation.client_path if up else simulation.server_path)(link) for link in range(3)]
    before = [sent_on(sender, path) for path in ids]
    wires[0].cut = True
    sent, _ = simulation.stream(sender, count=200, interval=INTERVAL, size=1000)
    simulation.run(SECOND)
    assert sum(packet not in receiver.delivered for packet in sent) <= 25
    used = [sent_on(sender, path) - start for path, start in zip(ids, before, strict=True)]
    assert used[2] < 20_000 < 150_000 < used[1]
