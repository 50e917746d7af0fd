"""How soon a path that lost too much is used again: two tunnels in virtual time."""

import pytest

from glorytun.core.events import PathChanged
from glorytun.core.settings import SECOND
from glorytun.core.status import Condition, Limit
from tests.property.test_multipath_scenarios import started
from tests.simulation import MILLISECOND, Side, Simulation, Wire

INTERVAL = 2 * MILLISECOND


def lossy(simulation: Simulation) -> list[Side]:
    """The sides that leave a path for its loss."""
    return [
        side
        for side in (simulation.client, simulation.server)
        if Condition.LOSSY in [status.condition for status in side.paths()]
    ]


@pytest.mark.parametrize("cut", [150, 300])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_path_is_used_again_soon_after_a_short_cut(cut: int, *, up: bool) -> None:
    """With a limit of 2 %, more than that is lost in a moment; the beats tell that it was one."""
    simulation = started(Wire(), Wire(), rates=(10, 10))
    simulation.set_path(0, loss_limit=5)
    sender = simulation.client if up else simulation.server
    simulation.stream(sender, count=2000, interval=INTERVAL)
    simulation.wires[0].cut = True
    simulation.stream(sender, count=cut // 2, interval=INTERVAL)
    simulation.wires[0].cut = False
    simulation.stream(sender, count=3000, interval=INTERVAL)
    assert not lossy(simulation)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_path_is_used_again_soon_after_its_loss(*, up: bool) -> None:
    simulation = started(Wire(), Wire(), rates=(10, 10))
    simulation.set_path(0, loss_limit=13)
    sender = simulation.client if up else simulation.server
    simulation.wires[0].loss = 0.3
    simulation.stream(sender, count=2500, interval=INTERVAL)
    assert sender in lossy(simulation)
    simulation.wires[0].loss = 0.0
    simulation.stream(sender, count=3500, interval=INTERVAL)
    assert not lossy(simulation)


@pytest.mark.parametrize("loss", [0.03, 0.05, 0.15])
def test_a_path_that_goes_on_losing_is_tried_more_and_more_rarely(loss: float) -> None:
    """A few beats that all arrive say little of a link that loses somewhat more than 2 %."""
    simulation = started(Wire(loss=loss), Wire(), rates=(10, 10))
    simulation.set_path(0, loss_limit=5)
    for _ in range(50 * 200):
        for side in (simulation.client, simulation.server):
            simulation.send(side, simulation.packet())
        simulation.run(20 * MILLISECOND)
    for side in (simulation.client, simulation.server):
        left = [event for event in side.events if isinstance(event, PathChanged)]
        assert 0 < sum(event.new == Condition.LOSSY != event.old for event in left) < 12


def loads(simulation: Simulation, side: Side, *, rate: int, seconds: int) -> list[int]:
    """Send so many Mbit/s; the bytes that each path carried in the second half of the time."""
    interval = 1000 * 8 // rate
    before: list[int] = []
    for _ in range(2):
        before = [status.tx.bytes for status in side.paths()]
        count = seconds * SECOND // 2 // interval
        simulation.stream(side, count=count, interval=interval, size=1000)
    return [now.tx.bytes - then for now, then in zip(side.paths(), before, strict=True)]


@pytest.mark.parametrize("is_auto", [False, True], ids=["given", "auto"])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_path_that_loses_more_has_what_others_do_not_carry(*, up: bool, is_auto: bool) -> None:
    """No packet is lost for it while they suffice, and says why; then it is as good as another."""
    wires = [Wire(loss=0.02, rate=1_250_000), Wire(rate=1_250_000)]
    simulation = started(*wires, rates=() if is_auto else (10, 10))
    sender = simulation.client if up else simulation.server
    bad, good = loads(simulation, sender, rate=7, seconds=12)
    assert bad < good / 30
    assert sender.paths()[0].limit is Limit.LOSS
    assert all(status.condition == Condition.RUNNING for status in sender.paths())
    bad, good = loads(simulation, sender, rate=19, seconds=12)
    assert bad > good / 2
    bad, good = loads(simulation, sender, rate=7, seconds=4)
    assert bad < good / 30
    wires[0].loss = 0.0
    loads(simulation, sender, rate=19, seconds=8)
    bad, good = loads(simulation, sender, rate=7, seconds=6)
    assert bad > good / 3
