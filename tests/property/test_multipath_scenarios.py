"""Which path takes what, as delays, rates and cuts of links say: two tunnels in virtual time."""

from itertools import pairwise

import pytest

from glorytun.core.settings import SECOND
from tests.simulation import MILLISECOND, Side, Simulation, Wire

INTERVAL = 10 * MILLISECOND


def started(*wires: Wire, rates: tuple[int, ...] = ()) -> Simulation:
    """All paths in use, at rates of so many Mbit/s, and their delays known."""
    simulation = Simulation(*wires)
    simulation.up()
    for index, rate in enumerate(rates):
        simulation.set_path(index, rate_tx=rate * 125_000, rate_rx=rate * 125_000, fixed_rate=True)
    simulation.wait_for(
        lambda: simulation.can_send(simulation.client) and simulation.can_send(simulation.server)
    )
    simulation.stream(simulation.client, count=300, interval=INTERVAL)
    return simulation


def totals(side: Side) -> list[int]:
    return [status.tx.bytes for status in side.paths()]


def sides(simulation: Simulation) -> tuple[Side, Side]:
    return simulation.client, simulation.server


@pytest.mark.parametrize("clock_offset", [0, 200 * SECOND, -200 * SECOND])
def test_each_direction_takes_the_way_that_is_shorter_for_it(clock_offset: int) -> None:
    """Though round trips are alike, one link is faster upwards, the other one downwards."""
    wires = (
        Wire(delay=5 * MILLISECOND, delay_down=60 * MILLISECOND),
        Wire(delay=60 * MILLISECOND, delay_down=5 * MILLISECOND),
    )
    simulation = Simulation(*wires)
    simulation.server.clock_offset = clock_offset
    simulation.server.start(simulation.now)
    simulation.up()
    simulation.wait_for(
        lambda: simulation.can_send(simulation.client) and simulation.can_send(simulation.server)
    )
    simulation.stream(simulation.client, count=100, interval=INTERVAL)
    for fastest, side in enumerate(sides(simulation)):
        before = totals(side)
        simulation.stream(side, count=100, interval=INTERVAL, size=1000)
        used = [after - then for then, after in zip(before, totals(side), strict=True)]
        assert used[fastest] > 100_000
        assert used[1 - fastest] < 50_000


@pytest.mark.parametrize("phase", range(0, 100, 20))
@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_cut_costs_less_than_200_ms(cut: int, phase: int, *, up: bool) -> None:
    """Whichever link it is, and whenever it happens between two beats."""
    wires = (Wire(delay=5 * MILLISECOND), Wire(delay=5 * MILLISECOND))
    simulation = started(*wires, rates=(20, 20))
    sender, receiver = sides(simulation) if up else reversed(sides(simulation))
    simulation.stream(sender, count=100, interval=INTERVAL)
    simulation.run(phase * MILLISECOND)
    wires[cut].cut = True
    sent, refused = simulation.stream(sender, count=100, interval=INTERVAL)
    simulation.run(SECOND)
    assert not refused
    came = [number for number, packet in enumerate(sent) if packet in receiver.delivered]
    assert len(sent) - len(came) <= 20
    assert max((b - a for a, b in pairwise([-1, *came])), default=99) <= 21


@pytest.mark.parametrize("phase", range(0, 100, 20))
@pytest.mark.parametrize("cut", [0, 1])
def test_a_cut_of_the_way_down_costs_less_than_250_ms(cut: int, phase: int) -> None:
    """The server hears requests as before, but its replies stay without an answer."""
    wires = (Wire(delay=5 * MILLISECOND), Wire(delay=5 * MILLISECOND))
    simulation = started(*wires, rates=(20, 20))
    simulation.stream(simulation.server, count=100, interval=INTERVAL)
    simulation.run(phase * MILLISECOND)
    wires[cut].cut_down = True
    sent, refused = simulation.stream(simulation.server, count=100, interval=INTERVAL)
    simulation.run(SECOND)
    assert not refused
    delivered = simulation.client.delivered
    came = [number for number, packet in enumerate(sent) if packet in delivered]
    assert len(sent) - len(came) <= 20
    assert max((b - a for a, b in pairwise([-1, *came])), default=99) <= 25


@pytest.mark.parametrize("loss", [0.02, 0.1])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_lost_answer_is_no_cut(loss: float, *, up: bool) -> None:
    """With 2 % of loss on one of two links both are used nearly always, and mostly with 10.

    Both are needed: what loses more has only what the other doesn't carry.
    """
    used = [0, 0]
    for seed in range(5):  # In one alone it is by chance.
        wires = Wire(loss=loss, delay=40 * MILLISECOND), Wire(delay=40 * MILLISECOND)
        simulation = started(*wires, rates=(20, 20))
        simulation.random.seed(seed)
        sender = simulation.client if up else simulation.server
        before = totals(sender)
        simulation.stream(sender, count=36_000, interval=280, size=1400)
        after = totals(sender)
        used = [sum(one) for one in zip(used, after, (-then for then in before), strict=True)]
    assert min(used) > max(used) * (1 - 2 * loss)


def test_a_path_that_would_hurt_says_so_and_comes_back() -> None:
    """2 of 52 Mbit/s that arrive 140 ms later are left alone; 40 of 90 are not."""
    wires = (Wire(delay=10 * MILLISECOND), Wire(delay=150 * MILLISECOND))
    simulation = started(*wires, rates=(50, 2))
    simulation.stream(simulation.client, count=200, interval=INTERVAL)
    for side in sides(simulation):
        first, second = side.paths()
        assert (first.condition.value, second.condition.value) == ("running", "waiting")
        assert second.reason.endswith(" ms slower than others, for too little")
    for index, rate in enumerate((50, 40)):
        simulation.set_path(index, rate_tx=rate * 125_000, rate_rx=rate * 125_000)
    simulation.stream(simulation.client, count=200, interval=INTERVAL)
    for side in sides(simulation):
        assert side.conditions() == ["running", "running"]


def test_the_path_that_is_left_out_takes_over() -> None:
    """When the better one is cut, it is all there is."""
    wires = (Wire(delay=10 * MILLISECOND), Wire(delay=400 * MILLISECOND))
    simulation = started(*wires, rates=(50, 2))
    assert simulation.client.conditions() == ["running", "waiting"]
    wires[0].cut = True
    simulation.stream(simulation.client, count=200, interval=INTERVAL)
    assert simulation.client.conditions() == ["degraded", "running"]
    delivered = sum(simulation.server.delivered.values())
    simulation.stream(simulation.client, count=200, interval=INTERVAL)
    assert sum(simulation.server.delivered.values()) - delivered > 150
