"""What a path that waits is good for, and what it must not change: two tunnels in virtual time."""

from glorytun.core.settings import SECOND, PathState
from tests.property.test_multipath_scenarios import INTERVAL, sides, started
from tests.simulation import Simulation, Wire


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
