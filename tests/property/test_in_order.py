"""Packets of one flow arrive in order over links of different delays: two tunnels in virtual time.

Nothing holds them back on receipt: a slower link takes them from further behind in the queue.
"""

from itertools import pairwise

import pytest

from glorytun.core.backlog import Backlog
from glorytun.core.batch import Batch
from glorytun.core.settings import SECOND, SettingsChange
from glorytun.core.wire import TAG_SIZE, TIME_SIZE
from tests.simulation import MILLISECOND, Simulation, Wire

SIZE = 1400
STEP = 200


class Source:
    """A flow of which so many bytes wait always, sent as the pump does it."""

    def __init__(self, simulation: Simulation, *, waiting: int) -> None:
        self.sent: dict[bytes, int] = {}
        """Each packet's number."""
        self._waiting = waiting
        self._simulation = simulation
        self._backlog = Backlog()

    def run(self, duration: int) -> None:
        end = self._simulation.now + duration
        while self._simulation.now < end:
            self._fill()
            self._send()
            self._simulation.run(STEP)

    def _fill(self) -> None:
        while self._backlog.size < self._waiting:
            packet = self._simulation.packet(SIZE)
            # The number is where IP has none of a flow: see `flow_key`.
            packet = b"\x45" + bytes(31) + packet[1:9] + packet[9:-31]
            self.sent[packet] = len(self.sent)
            batch = Batch.of(packet, headroom=TIME_SIZE, tailroom=TAG_SIZE)
            self._backlog.put(batch, self._simulation.now, rate=0)

    def _send(self) -> None:
        simulation, backlog = self._simulation, self._backlog
        tunnel, now = simulation.client.tunnel, simulation.now
        while True:
            turn = tunnel.next_turn(now, backlog.head(now))
            if turn is None or turn.at > now:
                return
            packets = backlog.next(now, turn.ahead, turn.most)
            if packets is None:
                return
            sent = tunnel.send(packets, now)
            assert sent
            backlog.took(sum(outgoing.datagrams.count for outgoing in sent))
            for outgoing in sent:
                simulation.transmit(simulation.client, outgoing)


def started(*wires: Wire, rates: tuple[int, ...]) -> Simulation:
    simulation = Simulation(*wires)
    simulation.up()
    for index, rate in enumerate(rates):
        simulation.set_path(index, rate_tx=rate * 125_000, rate_rx=rate * 125_000, fixed_rate=True)
    simulation.wait_for(lambda: simulation.can_send(simulation.client))
    simulation.run(2 * SECOND)
    return simulation


def shares(simulation: Simulation, source: Source, duration: int) -> list[float]:
    """Of each path's rate that it was used at, with headers of the link."""
    before = [status.tx.bytes for status in simulation.client.paths()]
    source.run(duration)
    after = simulation.client.paths()
    return [
        (status.tx.bytes - then) * (1538 / 1472) * SECOND / duration / status.tx.rate
        for status, then in zip(after, before, strict=True)
    ]


def disorder(simulation: Simulation, source: Source) -> int:
    """µs that the latest packet came behind one that was sent after it."""
    numbers = [(at, source.sent[row]) for at, row in simulation.server.arrivals]
    times = [at for _, at in sorted((number, at) for at, number in numbers)]
    worst, latest = 0, 0
    for before, at in pairwise(times):
        latest = max(latest, before)
        worst = max(worst, latest - at)
    return worst


@pytest.mark.parametrize("slow", [0, 1])
@pytest.mark.parametrize(("rates", "delays"), [((40, 20), (5, 30)), ((20, 20), (10, 40))])
def test_two_links_are_full_and_packets_in_order(
    slow: int, rates: tuple[int, int], delays: tuple[int, int]
) -> None:
    """Whichever was there first; the server's clock has no part in it."""
    order = (1, 0) if slow == 0 else (0, 1)
    wires = [Wire(delay=delays[index] * MILLISECOND) for index in order]
    simulation = started(*wires, rates=(rates[order[0]], rates[order[1]]))
    source = Source(simulation, waiting=125_000)
    source.run(SECOND // 5)
    assert min(shares(simulation, source, 2 * SECOND)) > 0.95
    simulation.run(SECOND)
    assert disorder(simulation, source) < 6 * MILLISECOND


def test_a_short_queue_takes_the_slow_link_only_after_a_while() -> None:
    """It would be out of order, so it is used for what keeps its queue short all the time."""
    wires = (Wire(delay=5 * MILLISECOND), Wire(delay=30 * MILLISECOND))
    simulation = started(*wires, rates=(40, 20))
    source = Source(simulation, waiting=30_000)
    assert shares(simulation, source, SECOND // 4)[1] < 0.05
    assert disorder(simulation, source) < 6 * MILLISECOND
    source.run(3 * SECOND // 2)
    assert min(shares(simulation, source, 2 * SECOND)) > 0.9


def test_a_peer_that_puts_packets_in_order_gets_them_in_turn() -> None:
    """It goes by when they were sent: what was taken from behind would stay there."""
    wires = (Wire(delay=5 * MILLISECOND), Wire(delay=30 * MILLISECOND))
    simulation = started(*wires, rates=(40, 20))
    simulation.server.tunnel.set(SettingsChange(reorder=SECOND // 10), simulation.now)
    simulation.run(SECOND // 2)
    source = Source(simulation, waiting=125_000)
    source.run(SECOND // 5)
    assert min(shares(simulation, source, SECOND)) > 0.95
    simulation.run(SECOND)
    rows = [source.sent[row] for _, row in simulation.server.arrivals]
    assert len(rows) > 5000
    assert rows[1000:] == sorted(rows[1000:])
