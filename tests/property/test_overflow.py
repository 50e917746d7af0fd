"""What our own socket has no room for is no loss of a link's; two tunnels in virtual time."""

import pytest

from glorytun.core.settings import SECOND
from tests.property.test_tunnel_scenarios import started
from tests.simulation import MILLISECOND, Side, Simulation, Wire

CONTROL = 200
"""Bytes: control messages are larger than the data here."""


class Full(Simulation):
    """The server's socket loses every other datagram of data that came on the second link."""

    is_told = True
    lost = 0

    def deliver(self, side: Side, index: int, datagram: bytes) -> None:
        if side.client or index != 1 or len(datagram) > CONTROL:
            super().deliver(side, index, datagram)
            return
        self.lost += 1
        if self.lost % 2:
            super().deliver(side, index, datagram)
        elif self.is_told:
            side.tunnel.on_overflow(1, self.now)


@pytest.mark.parametrize("is_told", [True, False])
def test_no_path_is_lossy_for_what_our_socket_lost(*, is_told: bool) -> None:
    """Neither that on which it came, nor the other; without being told it looks like a loss."""
    simulation = started(Wire(), Wire())
    simulation.__class__ = Full
    assert isinstance(simulation, Full)
    simulation.is_told = is_told
    for index in range(2):
        simulation.set_path(index, rate_tx=100_000, fixed_rate=True)  # So that both are used.
    for _ in range(20):
        simulation.stream(simulation.client, count=100, interval=MILLISECOND)
    assert simulation.lost > 500
    losses = [path.tx.loss for path in simulation.client.paths()]
    assert losses[0] == 0
    assert (losses[1] < 5) == is_told, losses
    totals = [
        (ours.tx.total, theirs.rx.total)
        for ours, theirs in zip(simulation.client.paths(), simulation.server.paths(), strict=True)
    ]
    assert all(received <= sent for sent, received in totals)


def test_an_old_overflow_excuses_nothing() -> None:
    """A link that loses later is called lossy."""
    simulation = started(Wire())
    simulation.server.tunnel.on_overflow(10_000, simulation.now)
    simulation.run(5 * SECOND)
    simulation.wires[0].loss = 0.3
    simulation.stream(simulation.client, count=2000, interval=MILLISECOND)
    assert simulation.client.paths()[0].tx.loss > 25
