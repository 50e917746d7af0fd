"""A rate that was given, and that the link doesn't have any more: two tunnels in virtual time."""

import pytest

from glorytun.core.events import PathChanged
from glorytun.core.settings import SECOND, PathState
from glorytun.core.status import Condition
from tests.property.test_rate_scenarios import MBIT, Load, both_ways, link

RATE = 10 * MBIT
GIVEN = {"rate_tx": RATE, "rate_rx": RATE, "fixed_rate": True}


@both_ways
@pytest.mark.parametrize(
    ("rate", "buffer"),
    [
        pytest.param(2, 1000, id="is late, and left out"),
        pytest.param(1, 1000, id="is late, and doesn't answer"),
        pytest.param(0.5, 300, id="loses, and doesn't answer"),
        pytest.param(0.2, 100, id="loses nearly all"),
    ],
)
def test_a_link_below_its_fixed_rate_is_left_for_longer_and_longer(
    rate: float, buffer: int, *, up: bool
) -> None:
    """As soon as it is left it does well: so it was used, and left again, 13 times in 20 s."""
    load = Load(link(10), link(10, buffer=buffer), up=up, window=200)
    for index in range(2):
        load.simulation.set_path(index, **GIVEN)
    load.run(2 * SECOND)
    load.simulation.wires[1].rate = round(rate * MBIT)
    before = len(load.sender.events)
    load.run(20 * SECOND)
    changes = [event for event in load.sender.events[before:] if isinstance(event, PathChanged)]
    assert sum(event.new == Condition.RUNNING for event in changes) <= 7
    # It is there again once it carries as much: after no more than it was left alone last.
    load.simulation.wires[1].rate = RATE
    load.run(18 * SECOND)
    assert load.sender.conditions() == ["running", "running"]
    assert load.run(SECOND) > 0.9


@both_ways
def test_a_link_that_is_cut_again_and_again_is_used_each_time(*, up: bool) -> None:
    """It doesn't fail of what is sent there."""
    load = Load(link(10), link(10), up=up, window=60)
    for index in range(2):
        load.simulation.set_path(index, **GIVEN)
    load.run(SECOND)
    wire = load.simulation.wires[1]
    for _ in range(6):
        wire.cut = True
        load.run(SECOND)
        assert "degraded" in load.sender.conditions()
        wire.cut = False
        load.run(SECOND // 2)
        assert load.sender.conditions() == ["running", "running"]
        load.run(SECOND // 2)


def held(first: dict[str, object] | None = None, *, up: bool = True) -> Load:
    """Two links of which the second has had less than its fixed rate for long."""
    load = Load(link(10), link(10, buffer=300), up=up, window=200)
    load.simulation.set_path(0, **GIVEN, **(first or {}))
    load.simulation.set_path(1, **GIVEN)
    load.run(2 * SECOND)
    load.simulation.wires[1].rate = MBIT // 2
    load.run(12 * SECOND)
    return load


def test_a_link_that_is_left_alone_takes_over_at_once() -> None:
    """It may do badly, but it is all there is."""
    load = held()
    load.simulation.wait_for(lambda: "waiting" in load.sender.conditions())
    load.simulation.wires[0].cut = True
    before = load.sender.paths()[1].tx.bytes
    load.run(SECOND)
    assert load.sender.conditions()[0] == "degraded"
    assert load.sender.paths()[1].tx.bytes - before > MBIT // 4


@pytest.mark.parametrize("worse", [{"cost": 1}, {"state": PathState.BACKUP}])
def test_no_link_is_left_alone_for_one_that_costs_more(worse: dict[str, object]) -> None:
    """Nor for a backup."""
    load = held(worse)
    events = [event for event in load.sender.events if isinstance(event, PathChanged)]
    assert not [event for event in events if event.reason.startswith("left alone")]


@both_ways
def test_a_link_that_is_left_alone_is_used_at_once_with_other_settings(*, up: bool) -> None:
    """Whoever sees that its rate isn't right, and says so, need not wait a minute."""
    load = held(up=up)
    load.simulation.wait_for(lambda: "waiting" in load.sender.conditions())
    load.run(SECOND)
    assert load.sender.paths()[1].reason.startswith("left alone")
    load.simulation.wires[1].rate = RATE // 2
    load.simulation.set_path(1, fixed_rate=False)
    took = load.simulation.wait_for(lambda: load.sender.conditions() == ["running", "running"])
    assert took < SECOND // 4
    load.run(6 * SECOND)
    assert load.run(SECOND) > 0.9
    assert load.sender.conditions() == ["running", "running"]
