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
    simulation.run(20 * SECOND)
    for side in sides:
        assert side.conditions() == ["running", "late"]
    simulation.wires[1].delay = 30 * MILLISECOND
    simulation.stream(simulation.client, count=500, interval=10 * MILLISECOND)
    for side in sides:
        assert side.conditions() == ["running", "running"]


def test_what_is_no_longer_late_for_long_is_used_again() -> None:
    """Though it is not much less: one of 90 ms would never be again, after a queue of its own."""
    simulation = started(Wire(), Wire())
    for index in (0, 1):
        simulation.set_path(index, rate_tx=10**6, rate_rx=10**6, fixed_rate=True)
    simulation.set_path(1, delay_limit=100 * MILLISECOND)
    simulation.wires[1].delay = 60 * MILLISECOND
    simulation.stream(simulation.client, count=300, interval=10 * MILLISECOND)
    simulation.wires[1].delay = 45 * MILLISECOND
    simulation.stream(simulation.client, count=320, interval=100 * MILLISECOND)
    for side in (simulation.client, simulation.server):
        assert side.conditions() == ["running", "running"]


@pytest.mark.parametrize("client_sends", [True, False])
@pytest.mark.parametrize("is_backup", [True, False])
def test_a_late_path_takes_over_as_fast_as_a_backup(*, client_sends: bool, is_backup: bool) -> None:
    """When the only other one is cut, not only once that is called degraded."""
    simulation = started(Wire(), Wire())
    if is_backup:
        simulation.set_path(1, state=PathState.BACKUP)
    else:
        rates = {"rate_tx": 10**6, "rate_rx": 10**6, "fixed_rate": True}
        simulation.set_path(1, delay_limit=100 * MILLISECOND, **rates)
        simulation.wires[1].delay = 60 * MILLISECOND
    ends = simulation.client, simulation.server
    sender, receiver = ends if client_sends else reversed(ends)
    simulation.stream(sender, count=300, interval=10 * MILLISECOND)
    assert sender.conditions()[0] == "running"
    simulation.wires[0].cut = True
    sent, refused = simulation.stream(sender, count=200, interval=10 * MILLISECOND)
    simulation.run(SECOND)
    assert not refused
    assert sum(packet not in receiver.delivered for packet in sent) <= 20


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
