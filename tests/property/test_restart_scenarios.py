"""What must hold when one of two tunnels in virtual time is started again."""

import pytest

from glorytun.core.settings import SECOND
from tests.property.test_tunnel_scenarios import running, started
from tests.simulation import MILLISECOND, Wire


@pytest.mark.parametrize("client_restarts", [True, False])
def test_peer_restart(client_restarts: bool) -> None:
    """After either side was killed and started again, traffic goes on by itself."""
    simulation = started(Wire(), Wire())
    restarted = simulation.client if client_restarts else simulation.server
    restarted.start(simulation.now)
    simulation.run(SECOND)
    if client_restarts:
        simulation.up()
    simulation.stream(simulation.client, count=300, interval=10 * MILLISECOND)
    assert running(simulation.client) == running(simulation.server) == 2
    for side, other in (
        (simulation.client, simulation.server),
        (simulation.server, simulation.client),
    ):
        sent, refused = simulation.stream(side, count=100, interval=10 * MILLISECOND)
        simulation.run(SECOND)
        assert not refused
        assert set(sent) <= set(other.delivered)


@pytest.mark.parametrize("pause", [300, 900, 1400])
def test_server_that_said_that_it_stops_is_found_as_soon_as_it_is_back(pause: int) -> None:
    """Most are restarted: it is asked at every beat for a while, not every second."""
    simulation = started(Wire())
    simulation.server.tunnel.close(simulation.now)
    simulation.flush(simulation.server)
    simulation.run(15 * MILLISECOND)
    simulation.wires[0].cut = True
    simulation.run(pause * MILLISECOND)
    assert simulation.client.conditions() == ["degraded"]
    simulation.wires[0].cut = False
    simulation.server.start(simulation.now)
    assert simulation.wait_for(lambda: simulation.can_send(simulation.client)) < SECOND // 5


def test_restart_with_an_earlier_clock() -> None:
    """A client whose clock was set back by five minutes is believed after a challenge."""
    simulation = started(Wire())
    simulation.client.clock_offset = -300 * SECOND
    simulation.client.start(simulation.now)
    simulation.up()
    simulation.wait_for(lambda: running(simulation.client) == 1, timeout=3 * SECOND)
    sent, refused = simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND)
    simulation.run(SECOND)
    assert not refused
    assert set(sent) <= set(simulation.server.delivered)


def test_server_restart_with_an_earlier_clock() -> None:
    """A server whose clock was set back by five minutes is believed: it answers our requests."""
    simulation = started(Wire())
    simulation.server.clock_offset = -300 * SECOND
    simulation.server.start(simulation.now)
    simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND)
    assert running(simulation.server) == 1
    sent, refused = simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND)
    simulation.run(SECOND)
    assert not refused
    assert set(sent) <= set(simulation.server.delivered)


@pytest.mark.parametrize("clock_jumps", [False, True], ids=["cut", "clock"])
def test_a_server_that_forgot_its_client_goes_on_by_itself(*, clock_jumps: bool) -> None:
    """After a minute without a link, or for its clock alone, though the client sends no data."""
    simulation = started(Wire(), Wire())
    server = simulation.server
    if clock_jumps:
        server.clock_offset += 61 * SECOND
    else:
        for wire in simulation.wires:
            wire.cut = True
        simulation.run(75 * SECOND)
        for wire in simulation.wires:
            wire.cut = False
    simulation.run(2 * SECOND)
    assert running(simulation.client) == running(server) == 2
    sent, refused = simulation.stream(server, count=100, interval=10 * MILLISECOND)
    simulation.run(SECOND)
    assert not refused
    assert set(sent) <= set(simulation.client.delivered)


def test_a_client_that_sends_all_the_time_loses_little_when_it_was_forgotten() -> None:
    """A server's clock that jumps by a minute costs no more than an exchange of keys takes."""
    simulation = started(Wire(), Wire())
    sent, _ = simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND)
    simulation.server.clock_offset += 61 * SECOND
    more, refused = simulation.stream(simulation.client, count=300, interval=10 * MILLISECOND)
    simulation.run(SECOND)
    assert not refused
    assert set(sent) <= set(simulation.server.delivered)
    assert sum(packet not in simulation.server.delivered for packet in more) < 25
