"""A limit for round trips: two tunnels in virtual time, over links that are too slow at times."""

import pytest

from glorytun.core.settings import SECOND, PathState
from tests.property.test_rate_scenarios import MBIT, Load, link
from tests.property.test_tunnel_scenarios import started
from tests.simulation import MILLISECOND, Wire


def test_delaylimit() -> None:
    """A path whose round trips take too long is left by both sides, and taken back."""
    simulation = started(Wire(), Wire())
    for index in (0, 1):
        simulation.set_path(index, delay_limit=100 * MILLISECOND)
    simulation.wires[1].delay = 60 * MILLISECOND
    simulation.stream(simulation.client, count=500, interval=10 * MILLISECOND)
    sides = simulation.client, simulation.server
    for side in sides:
        assert side.conditions() == ["running", "late"]
    simulation.wires[1].delay = 45 * MILLISECOND
    simulation.stream(simulation.client, count=500, interval=10 * MILLISECOND)
    for side in sides:
        assert side.conditions() == ["running", "late"]
    simulation.wires[1].delay = 30 * MILLISECOND
    simulation.stream(simulation.client, count=500, interval=10 * MILLISECOND)
    for side in sides:
        assert side.conditions() == ["running", "running"]


@pytest.mark.parametrize("is_backup", [False, True])
def test_a_late_path_is_better_than_none_but_a_backup_is_better(*, is_backup: bool) -> None:
    """What is late is used while nothing else works, and only then."""
    simulation = started(Wire(), Wire())
    simulation.set_path(0, delay_limit=100 * MILLISECOND, rate_tx=10**6, fixed_rate=True)
    simulation.set_path(1, state=PathState.BACKUP if is_backup else PathState.DOWN)
    simulation.wires[0].delay = 60 * MILLISECOND
    _, refused = simulation.stream(simulation.client, count=500, interval=10 * MILLISECOND)
    assert not refused
    assert simulation.client.conditions() == ["late", "running" if is_backup else "down"]


def test_idle_tunnel_with_a_late_path_is_quiet_too() -> None:
    """Both are asked alike, so that the server takes neither for silent beside the other."""
    simulation = started(Wire(), Wire(delay=60 * MILLISECOND))
    simulation.set_path(1, delay_limit=100 * MILLISECOND)
    simulation.stream(simulation.client, count=300, interval=10 * MILLISECOND)
    sides = simulation.client, simulation.server
    assert [side.conditions() for side in sides] == [["running", "late"]] * 2
    simulation.run(5 * SECOND)
    before = [status.tx.total for status in simulation.client.paths()]
    for side in sides:
        side.events.clear()
    simulation.run(250 * SECOND)
    after = [status.tx.total for status in simulation.client.paths()]
    assert all(20 <= b - a <= 70 for a, b in zip(before, after, strict=True))
    assert [side.events for side in sides] == [[], []]
    _, refused = simulation.stream(simulation.server, count=5, interval=SECOND)
    assert not refused
    assert [side.conditions() for side in sides] == [["running", "late"]] * 2


def test_a_late_path_of_another_mtu_is_used_as_it_can() -> None:
    """While nothing else works the tunnel's MTU is its."""
    simulation = started(Wire(), Wire(delay=60 * MILLISECOND, mtu=1400))
    simulation.set_path(1, delay_limit=100 * MILLISECOND)
    simulation.stream(simulation.client, count=300, interval=10 * MILLISECOND)
    assert simulation.client.conditions() == ["running", "late"]
    assert simulation.client.tunnel.mtu == 1450
    simulation.wires[0].cut = True
    simulation.stream(simulation.client, count=300, interval=10 * MILLISECOND)
    assert simulation.client.conditions() == ["degraded", "late"]
    assert simulation.client.tunnel.mtu == simulation.client.paths()[1].mtu == 1350


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_lone_path_that_is_flooded_goes_on(up: bool) -> None:
    """Its first queue lets the backup take over for a moment; then it is kept short."""
    load = Load(link(20, delay=10, buffer=500), link(5, delay=10), up=up, window=600)
    simulation, sender = load.simulation, load.sender
    simulation.set_path(0, delay_limit=80 * MILLISECOND)
    simulation.set_path(1, state=PathState.BACKUP)
    simulation.run(SECOND)
    load.run(2 * SECOND)
    before = [status.tx.bytes for status in sender.paths()]
    load.run(5 * SECOND)
    sent = [status.tx.bytes - of for status, of in zip(sender.paths(), before, strict=True)]
    assert sent[0] >= 0.9 * 5 * 20 * MBIT
    assert sent[1] < 40_000
    assert sender.conditions() == ["running", "waiting"]
