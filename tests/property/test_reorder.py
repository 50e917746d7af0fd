"""Packets come in the order in which they were sent, where that was asked for; in virtual time."""

from typing import Any

import pytest

from glorytun.core.batch import Batch
from glorytun.core.conversation import Conversation
from glorytun.core.outbox import Outgoing
from glorytun.core.resequence import MARGIN
from glorytun.core.settings import (
    REORDER_AUTO,
    SECOND,
    PathMode,
    PathState,
    SettingsChange,
)
from glorytun.core.status import Held
from glorytun.core.wire import TAG_SIZE, TIME_SIZE
from tests.property.test_tunnel_scenarios import started
from tests.simulation import MILLISECOND, Simulation, Wire

RATE = 10_000_000
FAST, SLOW = 10 * MILLISECOND, 40 * MILLISECOND


KNOWN = 150
"""Packets after which both paths are known."""
UDP, TCP = 17, 6
EF = 184


def sent_in_turn(
    simulation: Simulation, count: int = 500, *, protocol: int = UDP, mark: int = 0
) -> dict[bytes, int]:
    """Packets from the client, on both paths in turn.

    When each was sent, from where both paths are known to be used.
    """
    client = simulation.client
    for index in range(2):
        simulation.set_path(index, rate_tx=RATE, fixed_rate=True)
    times = {}
    for index in range(count):
        packet = _packet(simulation, protocol, mark)
        batch = Batch.of(packet, headroom=TIME_SIZE, tailroom=TAG_SIZE)
        for outgoing in client.tunnel.send(batch, simulation.now):
            path = simulation.client_path(index % 2)
            simulation.transmit(client, Outgoing(path, outgoing.datagrams))
        if index >= KNOWN:
            times[packet] = simulation.now
        simulation.run(2 * MILLISECOND)
    simulation.run(SECOND)
    return times


def _packet(simulation: Simulation, protocol: int, mark: int) -> bytes:
    packet = bytearray(simulation.packet(1000))
    packet[1], packet[9] = mark, protocol
    return bytes(packet)


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


@pytest.fixture
def classic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers are like a 0.3.4, which says nothing of itself."""
    monkeypatch.setattr(Conversation, "is_extended", False)


@pytest.mark.usefixtures("classic")
@pytest.mark.parametrize("slow", [FAST + 6 * MILLISECOND, SLOW, FAST + 99 * MILLISECOND])
def test_tcp_of_a_peer_that_keeps_no_order_is_put_in_order(slow: int) -> None:
    simulation = asked(REORDER_AUTO, Wire(delay=FAST), Wire(delay=slow))
    times = sent_in_turn(simulation, protocol=TCP)
    assert order(simulation, times) == list(times)
    assert {round(at, -2) for at in late(simulation, times)} == {slow + MARGIN}
    assert simulation.server.tunnel.status().held is Held.TCP


@pytest.mark.usefixtures("classic")
@pytest.mark.parametrize(("protocol", "mark"), [(UDP, 0), (UDP, EF), (TCP, EF)])
def test_what_may_be_in_a_hurry_does_not_wait(protocol: int, mark: int) -> None:
    simulation = asked(REORDER_AUTO, Wire(delay=FAST), Wire(delay=SLOW))
    times = sent_in_turn(simulation, protocol=protocol, mark=mark)
    assert set(late(simulation, times)) == {FAST, SLOW}


@pytest.mark.usefixtures("classic")
@pytest.mark.parametrize("slow", [FAST, FAST + 2 * MILLISECOND, FAST + 160 * MILLISECOND])
def test_nothing_waits_where_that_is_no_help(slow: int) -> None:
    """As delays are alike, or too far from each other."""
    simulation = asked(REORDER_AUTO, Wire(delay=FAST), Wire(delay=slow))
    times = sent_in_turn(simulation, protocol=TCP)
    assert set(late(simulation, times)) == {FAST, slow}
    assert simulation.server.tunnel.status().held is Held.NONE


@pytest.mark.usefixtures("classic")
def test_what_waits_does_so_as_long_as_it_may_help() -> None:
    """Delays that are about as much apart as it takes don't have it begin and end all the time."""
    simulation = asked(REORDER_AUTO, Wire(delay=FAST), Wire(delay=FAST + 4 * MILLISECOND))
    sent_in_turn(simulation, protocol=TCP)
    assert simulation.server.tunnel.status().held is Held.NONE
    for delay, held in ((7, Held.TCP), (4, Held.TCP), (2, Held.NONE), (4, Held.NONE)):
        simulation.wires[1].delay = FAST + delay * MILLISECOND
        sent_in_turn(simulation, count=3000, protocol=TCP)
        assert simulation.server.tunnel.status().held is held


def test_a_lost_packet_stalls_none() -> None:
    simulation = asked(SECOND // 10, Wire(delay=FAST, loss=0.2), Wire(delay=SLOW, loss=0.2))
    times = sent_in_turn(simulation)
    arrived = order(simulation, times)
    assert 200 < len(arrived) < 340
    assert arrived == [packet for packet in times if packet in set(arrived)]
    assert max(late(simulation, times)) <= SLOW + 5 * MILLISECOND


def test_none_waits_longer_than_it_may() -> None:
    simulation = asked(10 * MILLISECOND, Wire(delay=FAST), Wire(delay=SLOW))
    times = sent_in_turn(simulation)
    allowed = FAST + 10 * MILLISECOND, SLOW + MARGIN
    assert {round(at, -2) for at in late(simulation, times)} == set(allowed)


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


def after_silence(simulation: Simulation) -> set[int]:
    """µs that packets take of which each comes after half a minute without any."""
    times = {}
    for _ in range(5):
        simulation.run(30 * SECOND)
        packet = simulation.packet(1000)
        assert simulation.send(simulation.client, packet)
        times[packet] = simulation.now
        simulation.run(SECOND)
    assert order(simulation, times) == list(times)
    return {round(at, -2) for at in late(simulation, times)}


def test_the_first_packet_waits_already() -> None:
    """Or TCP takes its round trip for the shortest there is."""
    simulation = asked(SECOND // 10, Wire(delay=FAST), Wire(delay=SLOW))
    assert after_silence(simulation) == {SLOW + MARGIN}


def test_the_first_packet_waits_for_no_backup() -> None:
    simulation = asked(SECOND // 10, Wire(delay=FAST), Wire(delay=SLOW))
    simulation.set_path(1, state=PathState.BACKUP)
    simulation.run(SECOND)
    assert after_silence(simulation) == {FAST}


@pytest.mark.parametrize("mode_or_cost", [{"mode": PathMode.REDUNDANT}, {"cost": 1}])
def test_the_first_packet_waits_for_none_that_has_no_packets_of_its_own(
    mode_or_cost: dict[str, Any],
) -> None:
    simulation = asked(SECOND // 10, Wire(delay=FAST), Wire(delay=SLOW))
    simulation.set_path(1, **mode_or_cost)
    simulation.run(SECOND)
    assert after_silence(simulation) == {FAST}


def test_clocks_do_not_matter() -> None:
    simulation = started(Wire(delay=FAST), Wire(delay=SLOW))
    simulation.server.clock_offset = 7 * SECOND
    simulation.stream(simulation.client, count=1000, interval=10 * MILLISECOND)
    simulation.server.tunnel.set(SettingsChange(reorder=SECOND // 10), simulation.now + 7 * SECOND)
    times = sent_in_turn(simulation)
    assert order(simulation, times) == list(times)
    assert max(late(simulation, times)) <= SLOW + 5 * MILLISECOND
