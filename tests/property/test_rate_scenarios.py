"""Rates that are found: two tunnels in virtual time over links that carry so much and no more."""

from collections import deque

import pytest

from glorytun.core.events import PathChanged
from glorytun.core.settings import SECOND, PathChange, PathState
from glorytun.core.shaper import LINK_OVERHEAD
from glorytun.core.wire import OVERHEAD
from tests.simulation import MILLISECOND, V4_HEADERS, Simulation, Wire

MBIT = 125_000
SIZE = 1400
FRAME = SIZE + OVERHEAD + V4_HEADERS + LINK_OVERHEAD
GIVEN_UP = SECOND // 4
"""After so long a packet is taken for lost."""

both_ways = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def link(mbit: float, *, delay: int = 5, buffer: int = 50, jitter: int = 0) -> Wire:
    """A link of so many Mbit/s; `delay` each way, `buffer` and `jitter` in ms."""
    return Wire(
        delay=delay * MILLISECOND,
        rate=round(mbit * MBIT),
        queue=buffer * MILLISECOND,
        jitter=jitter * MILLISECOND,
    )


class Load:
    """As many packets as may be under way at once, and more when some have arrived."""

    def __init__(self, *wires: Wire, up: bool, window: int) -> None:
        self.simulation = simulation = Simulation(*wires)
        simulation.up()
        sides = (simulation.client, simulation.server)
        simulation.wait_for(lambda: all(simulation.can_send(side) for side in sides))
        simulation.run(2 * SECOND)
        self._up = up
        self._window = window
        self.sender, self.receiver = sides if up else reversed(sides)
        self._sent: deque[tuple[int, bytes]] = deque()
        self.queue = 0
        """The mean of what a datagram had to wait for the line of the slowest link, µs."""

    def run(self, duration: int) -> float:
        """The share of what all links carry that arrived."""
        simulation, wires = self.simulation, self.simulation.wires
        before, end, waits = sum(self.receiver.delivered.values()), simulation.now + duration, []
        while simulation.now < end:
            self._send()
            simulation.run(MILLISECOND)
            now = simulation.now
            waits.append(max(wire.waiting(up=self._up, now=now) for wire in wires))
        self.queue = sum(waits) // len(waits)
        arrived = (sum(self.receiver.delivered.values()) - before) * FRAME
        return arrived * SECOND / duration / sum(wire.rate for wire in wires)

    def _send(self) -> None:
        now, delivered = self.simulation.now, self.receiver.delivered
        self._sent = deque(
            (at, packet)
            for at, packet in self._sent
            if packet not in delivered and at > now - GIVEN_UP
        )
        while len(self._sent) < self._window:
            packet = self.simulation.packet(SIZE)
            if not self.simulation.send(self.sender, packet):
                return
            self._sent.append((now, packet))


@both_ways
@pytest.mark.parametrize(
    ("rates", "delay", "window"),
    [
        pytest.param((40, 20), 5, 60, id="two, by no more than fits"),
        pytest.param((40, 20), 5, 200, id="two, by more than they can queue"),
        pytest.param((50, 5), 10, 150, id="one much slower"),
        pytest.param((20, 10, 5), 5, 100, id="three"),
        pytest.param((4, 2), 20, 60, id="two slow ones"),
        pytest.param((30,), 10, 200, id="one"),
    ],
)
def test_all_links_are_filled(
    rates: tuple[float, ...], delay: int, window: int, *, up: bool
) -> None:
    """Whichever side sends, and however many links there are, within three seconds."""
    load = Load(*(link(rate, delay=delay) for rate in rates), up=up, window=window)
    load.run(3 * SECOND)
    for _ in range(2):
        assert load.run(SECOND) > 0.95
        assert load.queue < 12 * MILLISECOND


@both_ways
def test_a_link_that_had_nearly_nothing_for_long_is_full_soon_after(*, up: bool) -> None:
    """It was used in vain again and again meanwhile: each time that showed at once."""
    load = Load(link(10), link(10, delay=10), up=up, window=150)
    load.run(3 * SECOND)
    load.simulation.wires[1].rate = 3 * MBIT // 10
    load.run(20 * SECOND)
    load.simulation.wires[1].rate = 10 * MBIT
    load.run(9 * SECOND)
    assert load.run(SECOND) > 0.95


@both_ways
@pytest.mark.parametrize("buffer", [50, 400])
def test_one_of_two_links_falls_and_returns(buffer: int, *, up: bool) -> None:
    """From 30 to 6 Mbit/s it takes 2 s until both are used as far as they go; back, 5 s."""
    wires = tuple(link(rate, delay=10, buffer=buffer) for rate in (30, 15))
    load = Load(*wires, up=up, window=100)
    load.run(4 * SECOND)
    wires[0].rate = 6 * MBIT
    load.run(2 * SECOND)
    assert load.run(SECOND) > 0.95
    assert load.queue < 12 * MILLISECOND
    wires[0].rate = 30 * MBIT
    load.run(5 * SECOND)
    assert load.run(SECOND) > 0.95


def test_a_link_that_was_left_out_for_a_dip_comes_back() -> None:
    """At 1 Mbit/s one that is 60 ms slower is no help; nothing is sent there that shows it grew."""
    wires = link(20), link(20, delay=65, buffer=200)
    load = Load(*wires, up=True, window=65)
    load.run(2 * SECOND)
    wires[1].rate = MBIT
    load.run(3 * SECOND)
    assert load.simulation.client.conditions() == ["running", "waiting"]
    wires[1].rate = 20 * MBIT
    before = load.simulation.client.paths()[1].tx.bytes
    load.run(6 * SECOND)
    assert load.simulation.client.conditions() == ["running", "running"]
    assert load.simulation.client.paths()[1].tx.bytes - before > 3 * SECOND * MBIT // SECOND


def test_a_link_that_fades_is_followed() -> None:
    """From 15 to 3 Mbit/s in 5 s, as for who walks away: no cut helps then, for that long."""
    load = Load(link(15, delay=20, buffer=500), up=True, window=60)
    load.run(3 * SECOND)
    most = 0
    for step in range(100):
        load.simulation.wires[0].rate = round((15 - 12 * step / 100) * MBIT)
        load.run(SECOND // 20)
        if step > 50:
            most = max(most, load.simulation.client.paths()[0].tx.rate)
    assert most < 12 * MBIT
    load.run(4 * SECOND)
    assert load.run(4 * SECOND) > 0.9
    assert load.queue < 40 * MILLISECOND


@both_ways
def test_a_link_that_fades_slowly_keeps_no_queue(*, up: bool) -> None:
    """A few percent a second: what would be 7/8 of its rate is all of it soon after."""
    load = Load(link(15, delay=20, buffer=500), up=up, window=60)
    load.run(3 * SECOND)
    queues = []
    for step in range(120):
        load.simulation.wires[0].rate = round((15 - 12 * step / 120) * MBIT)
        load.run(SECOND // 4)
        queues.append(load.queue)
    assert sum(queues[60:]) // 60 < 15 * MILLISECOND
    load.run(2 * SECOND)
    assert load.run(4 * SECOND) > 0.95
    assert load.queue < 12 * MILLISECOND


@both_ways
@pytest.mark.parametrize("rate", [0.3, 0.4])
def test_a_throttled_link_has_no_long_queue(rate: float, *, up: bool) -> None:
    """As a mobile one has that is slow for the rest of the month: its buffer isn't kept full."""
    load = Load(link(rate, delay=40, buffer=1000), up=up, window=30)
    load.run(10 * SECOND)
    assert load.run(10 * SECOND) > 0.5
    assert load.queue < 150 * MILLISECOND


@both_ways
def test_a_faster_link_that_joins_leaves_none_out(*, up: bool) -> None:
    """Nothing is known of what it carries, until as much is sent there."""
    load = Load(link(10, delay=30), link(20, delay=10), up=up, window=120)
    load.simulation.set_path(1, state=PathState.DOWN)
    load.run(3 * SECOND)
    load.simulation.set_path(1)
    before = len(load.sender.events)
    load.run(4 * SECOND)
    changes = [event for event in load.sender.events[before:] if isinstance(event, PathChanged)]
    assert "waiting" not in {event.new.value for event in changes}
    assert load.run(SECOND) > 0.9


@both_ways
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("is_found", [False, True])
def test_a_way_that_gets_longer_while_little_is_sent_costs_no_rate(
    count: int, *, is_found: bool, up: bool
) -> None:
    """As of satellites and mobile links: what was carried then says nothing of the link."""
    load = Load(*(link(20, delay=10) for _ in range(count)), up=up, window=150 * count)
    if is_found:
        load.run(3 * SECOND)
    simulation = load.simulation
    simulation.stream(load.sender, count=200, interval=10 * MILLISECOND)
    for wire in simulation.wires:
        wire.delay += 30 * MILLISECOND
    simulation.stream(load.sender, count=400, interval=10 * MILLISECOND)
    load.run(SECOND)
    assert load.run(SECOND) > 0.9


def test_burst_before_silence_does_not_cost_the_rate() -> None:
    """What a link carries is not what arrives while hardly anything is sent."""
    load = Load(link(50, delay=10), up=True, window=300)
    load.run(SECOND // 2)
    assert load.run(SECOND) > 0.9


def test_jitter_beside_bursts_is_not_taken_for_less() -> None:
    """Bursts that queue up nowhere leave a path its rate, whatever delays do."""
    wires = link(40, jitter=20), link(20, jitter=20)
    load = Load(*wires, up=True, window=200)
    load.run(5 * SECOND)
    for _ in range(10):
        load.simulation.run(SECOND // 4)
        load.run(SECOND // 4)
    load.run(SECOND)
    assert load.run(SECOND) > 0.8


def test_pinned_rate_of_a_server_holds_beside_one_that_is_found() -> None:
    """The server sends no more on that path than was said there, and all that fits on others."""
    load = Load(link(20), link(10), up=False, window=60)
    server = load.simulation.server.tunnel
    pinned = load.simulation.server_path(0)
    server.set_path(pinned, PathChange(rate_tx=5 * MBIT), load.simulation.now)
    load.run(3 * SECOND)
    share = load.run(2 * SECOND)
    assert 0.45 < share < 15.3 / 30
    assert server.path_statuses()[0].tx.rate == 5 * MBIT
