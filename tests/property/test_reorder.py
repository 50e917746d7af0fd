"""Packets come in the order in which they were sent, where that was asked for; in virtual time."""

import pytest

from glorytun.core.resequence import MARGIN
from glorytun.core.settings import REORDER_AUTO, SECOND, SettingsChange
from tests.property.test_tunnel_scenarios import started
from tests.simulation import MILLISECOND, Simulation, Wire

RATE = 10_000_000
FAST, SLOW = 10 * MILLISECOND, 40 * MILLISECOND


def sent_in_turn(simulation: Simulation, count: int = 400) -> dict[bytes, int]:
    """Packets from the client, on both paths in turn.

    When each was sent, from where both paths are known to be used.
    """
    client = simulation.client
    times = {}
    for index in range(count):
        packet = simulation.packet(1000)
        for path in range(2):
            simulation.set_path(path, cost=(index + path) % 2, rate_tx=RATE, fixed_rate=True)
        assert simulation.send(client, packet)
        if index >= 40:
            times[packet] = simulation.now
        simulation.run(2 * MILLISECOND)
    simulation.run(SECOND)
    return times


def late(simulation: Simulation, times: dict[bytes, int]) -> list[int]:
    """µs that each packet took, in the order of delivery."""
    return [at - times[row] for at, row in simulation.server.arrivals if row in times]


def order(simulation: Simulation, times: dict[bytes, int]) -> list[bytes]:
    return [row for _, row in simulation.server.arrivals if row in times]


def asked(reorder: int, *wires: Wire) -> Simulation:
    simulation = started(*wires)
    simulation.server.tunnel.set(SettingsChange(reorder=reorder), simulation.now)
    return simulation


def test_they_are_in_order_and_as_late_as_on_the_slowest_path() -> None:
    simulation = asked(SECOND // 10, Wire(delay=FAST), Wire(delay=SLOW))
    times = sent_in_turn(simulation)
    assert order(simulation, times) == list(times)
    assert max(late(simulation, times)) <= SLOW + 5 * MILLISECOND
    assert min(late(simulation, times)) >= SLOW


@pytest.mark.parametrize("reorder", [0, REORDER_AUTO])
def test_else_none_waits(reorder: int) -> None:
    simulation = asked(reorder, Wire(delay=FAST), Wire(delay=SLOW))
    times = sent_in_turn(simulation)
    assert order(simulation, times) != list(times)
    assert set(late(simulation, times)) == {FAST, SLOW}


def test_a_lost_packet_stalls_none() -> None:
    simulation = asked(SECOND // 10, Wire(delay=FAST, loss=0.2), Wire(delay=SLOW, loss=0.2))
    times = sent_in_turn(simulation)
    arrived = order(simulation, times)
    assert 200 < len(arrived) < 390
    assert arrived == [packet for packet in times if packet in set(arrived)]
    assert max(late(simulation, times)) <= SLOW + 5 * MILLISECOND


def test_none_waits_longer_than_it_may() -> None:
    simulation = asked(10 * MILLISECOND, Wire(delay=FAST), Wire(delay=SLOW))
    times = sent_in_turn(simulation)
    assert set(late(simulation, times)) == {FAST + 10 * MILLISECOND, SLOW + MARGIN}


def test_nothing_waits_for_a_path_that_is_not_used() -> None:
    simulation = asked(SECOND // 10, Wire(delay=FAST), Wire(delay=SLOW))
    simulation.set_path(0, cost=0)
    simulation.set_path(1, cost=1)
    simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND)
    simulation.server.arrivals.clear()
    times = {}
    for _ in range(50):
        packet = simulation.packet()
        simulation.send(simulation.client, packet)
        times[packet] = simulation.now
        simulation.run(10 * MILLISECOND)
    simulation.run(SECOND)
    assert set(late(simulation, times)) == {FAST}


def test_clocks_do_not_matter() -> None:
    simulation = started(Wire(delay=FAST), Wire(delay=SLOW))
    simulation.server.clock_offset = 7 * SECOND
    simulation.server.tunnel.set(SettingsChange(reorder=SECOND // 10), simulation.now + 7 * SECOND)
    times = sent_in_turn(simulation)
    assert order(simulation, times) == list(times)
    assert max(late(simulation, times)) <= SLOW + 5 * MILLISECOND
