"""What a server was told to send at, whatever its clients and the NATs before them do."""

import pytest

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.outbox import Outbox
from glorytun.core.paths import PATHS_MAX, Paths
from glorytun.core.settings import SECOND, PathChange, PathSettings
from glorytun.errors import TunnelError
from tests.simulation import SERVER, Simulation, Wire

MBIT = 125_000
FIXED = PathChange(rate_tx=MBIT, fixed_rate=True)


def started(wires: int = 1) -> Simulation:
    simulation = Simulation(*(Wire() for _ in range(wires)))
    simulation.up()
    simulation.wait_for(lambda: len(simulation.server.paths()) == wires)
    return simulation


def pin(simulation: Simulation, change: PathChange, index: int = 0) -> None:
    simulation.server.tunnel.set_path(simulation.server_path(index), change, simulation.now)


def rates(simulation: Simulation) -> list[tuple[int, bool]]:
    """Of the server's paths, whether they are fixed too."""
    found = [path.settings for path in simulation.server.paths()]
    return [(settings.rate_tx, settings.fixed_rate) for settings in found]


def rebind(simulation: Simulation) -> None:
    """A NAT gives the client's first link another port, and the server hears from there."""
    before = len(simulation.server.paths())
    simulation.wires[0].client_port += 1
    simulation.wait_for(lambda: len(simulation.server.paths()) > before)


def test_another_port_of_the_client_has_the_pinned_rate() -> None:
    """A NAT that forgets the client doesn't let it send what it wants: neither path does."""
    simulation = started()
    pin(simulation, FIXED)
    rebind(simulation)
    simulation.set_path(0, rate_rx=9 * MBIT)
    simulation.run(SECOND)
    assert rates(simulation) == [(MBIT, True)] * 2
    pin(simulation, PathChange(rate_tx=2 * MBIT))
    assert rates(simulation) == [(2 * MBIT, True)] * 2
    simulation.run(61 * SECOND)
    assert rates(simulation) == [(2 * MBIT, True)]


def test_a_client_that_comes_back_has_the_pinned_rate() -> None:
    """Its path was forgotten meanwhile, and its process is another one."""
    simulation = started()
    pin(simulation, FIXED)
    simulation.wires[0].cut = True
    simulation.run(90 * SECOND)
    assert rates(simulation) == []
    simulation.wires[0].cut = False
    simulation.client.start(simulation.now)
    simulation.up()
    simulation.run(SECOND)
    assert rates(simulation) == [(MBIT, True)]


def test_other_links_are_not_pinned() -> None:
    simulation = started(2)
    pin(simulation, FIXED, 1)
    simulation.set_path(0, rate_rx=9 * MBIT)
    simulation.run(SECOND)
    rebind(simulation)
    simulation.run(SECOND)
    assert rates(simulation) == [(9 * MBIT, False), (MBIT, True), (9 * MBIT, False)]


def test_back_to_auto_the_client_decides_again() -> None:
    """On all paths of the link, and for those to come."""
    simulation = started()
    simulation.set_path(0, rate_rx=9 * MBIT)
    pin(simulation, FIXED)
    rebind(simulation)
    pin(simulation, PathChange(fixed_rate=False))
    simulation.run(SECOND)
    rebind(simulation)
    simulation.run(SECOND)
    assert rates(simulation)[1:] == [(9 * MBIT, False)] * 2


def test_a_ceiling_is_pinned_with_auto() -> None:
    """0 is one too: none, whatever the client wants."""
    for rate in (2 * MBIT, 0):
        simulation = started()
        pin(simulation, PathChange(fixed_rate=False, rate_tx=rate))
        simulation.set_path(0, rate_rx=9 * MBIT)
        simulation.run(SECOND)
        assert rates(simulation) == [(rate, False)]


@pytest.mark.parametrize("change", [PathChange(fixed_rate=True), PathChange(rate_tx=0)])
def test_a_fixed_rate_needs_one(change: PathChange) -> None:
    """Wrong words change nothing: what was pinned before stays so."""
    simulation = started()
    if change.fixed_rate is None:
        pin(simulation, FIXED)
    before = rates(simulation)
    with pytest.raises(TunnelError, match="a path whose rate is fixed needs a rate to send at"):
        pin(simulation, change)
    rebind(simulation)
    assert rates(simulation) == before * 2


def test_pins_are_bounded() -> None:
    """The oldest of those that no path has is forgotten, never one that is in use."""
    paths = Paths(Outbox(), client=False)
    links = [
        PathId(SERVER, Endpoint(pack_address(f"203.0.113.{number}"), 5000))
        for number in range(PATHS_MAX + 2)
    ]
    for link in links:
        path = paths.add(link, PathSettings(), after=0)
        paths.pin(path, FIXED)
        if link != links[0]:
            paths.remove(path, "its client is away")
    assert paths.get(links[0])
    for link in links[1:]:
        paths.add(link, PathSettings(), after=0)
    free = [path.id for path in paths if not path.is_pinned]
    assert free == links[1:3]
