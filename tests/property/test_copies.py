"""What is sent twice arrives once, whichever path fails; in virtual time."""

import pytest

from glorytun.core.batch import Batch
from glorytun.core.settings import SECOND, PathMode, SettingsChange
from glorytun.core.shaper import LINK_OVERHEAD
from glorytun.core.status import BadKind
from glorytun.core.wire import OVERHEAD, TIME_SIZE, Extensions
from tests.property.test_tunnel_scenarios import bad, started
from tests.simulation import MILLISECOND, V4_HEADERS, Side, Simulation, Wire

EF = 0xB8
INTERVAL = 10 * MILLISECOND


def ends(simulation: Simulation, *, client_sends: bool) -> tuple[Side, Side]:
    """Who sends, and who receives."""
    client, server = simulation.client, simulation.server
    return (client, server) if client_sends else (server, client)


def settle(simulation: Simulation) -> None:
    """Let the server hear what its client wishes."""
    simulation.stream(simulation.client, count=30, interval=INTERVAL)


def sent_on(side: Side) -> list[int]:
    """Datagrams on each path."""
    return [path.tx.total for path in side.paths()]


@pytest.mark.parametrize("client_sends", [True, False])
@pytest.mark.parametrize("cut", [0, 1])
def test_a_cut_path_costs_nothing(*, client_sends: bool, cut: int) -> None:
    """The redundant one, or the other: no packet is lost, and none is late, also on the return."""
    simulation = started(Wire(), Wire())
    simulation.set_path(1, mode=PathMode.REDUNDANT)
    settle(simulation)
    sender, receiver = ends(simulation, client_sends=client_sends)
    receiver.delivered.clear()
    sent: list[bytes] = []
    late: list[bytes] = []
    for is_cut in (False, True, False):
        simulation.wires[cut].cut = is_cut
        for _ in range(500):
            packet = simulation.packet()
            assert simulation.send(sender, packet)
            sent.append(packet)
            simulation.run(Wire().delay + 5 * MILLISECOND)
            if packet not in receiver.delivered:
                late.append(packet)
    simulation.run(SECOND)
    assert not late
    assert set(sent) == set(receiver.delivered)
    assert set(receiver.delivered.values()) == {1}


def test_copies_are_no_replays_and_no_loss() -> None:
    simulation = started(Wire(), Wire(delay=25 * MILLISECOND))
    simulation.set_path(1, mode=PathMode.REDUNDANT)
    settle(simulation)  # The first copies are ahead of the wish for them.
    server = simulation.server
    before = server.tunnel.status().copies_total
    replays = bad(server, BadKind.REPLAY)
    simulation.stream(simulation.client, count=500, interval=INTERVAL)
    simulation.run(SECOND)
    assert server.tunnel.status().copies_total - before == pytest.approx(500, abs=5)
    assert bad(server, BadKind.REPLAY) == replays <= 1
    assert [path.tx.loss for path in simulation.client.paths()] == [0, 0]


@pytest.mark.parametrize("client_sends", [True, False])
@pytest.mark.parametrize("client_asks", [True, False])
def test_a_class_of_traffic_goes_twice(*, client_sends: bool, client_asks: bool) -> None:
    """Whoever asked for it; a server that did not does as its client. The rest goes once."""
    simulation = started(Wire(), Wire(delay=15 * MILLISECOND))
    asking = simulation.client if client_asks else simulation.server
    asking.tunnel.set(SettingsChange(redundant=EF), simulation.now)
    settle(simulation)
    sender, receiver = ends(simulation, client_sends=client_sends)
    if not client_asks and client_sends:
        return  # A client follows nobody.
    before = receiver.tunnel.status().copies_total
    for index in range(200):
        packet = bytearray(simulation.packet())
        packet[1] = EF | 1 if index % 2 else 0
        simulation.send(sender, bytes(packet))
        simulation.run(INTERVAL)
    simulation.run(SECOND)
    assert receiver.tunnel.status().copies_total - before == 100
    assert set(receiver.delivered.values()) == {1}


@pytest.mark.parametrize("client_sends", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({0: {"mode": PathMode.REDUNDANT}}, id="all, on the better link"),
        pytest.param({1: {"mode": PathMode.REDUNDANT}}, id="all, on the link that is left out"),
        pytest.param({}, id="a class, on the link that is left out"),
        pytest.param({0: {"cost": 1}}, id="a class, on the dearer link"),
        pytest.param({1: {"cost": 1}}, id="a class, on the dearer link that is left out"),
    ],
)
def test_copies_take_links_that_nothing_else_takes(
    change: dict[int, dict[str, object]], *, client_sends: bool
) -> None:
    """50 Mbit/s and 1 Mbit/s that is 30 ms slower: whichever is cut, nothing is lost."""
    simulation = started(Wire(), Wire(delay=40 * MILLISECOND))
    for index, rate in enumerate((50, 1)):
        rates = {"rate_tx": rate * 125_000, "rate_rx": rate * 125_000, "fixed_rate": True}
        simulation.set_path(index, **rates, **change.get(index, {}))
    if not any("mode" in of for of in change.values()):
        simulation.client.tunnel.set(SettingsChange(redundant=EF), simulation.now)
    settle(simulation)
    simulation.run(SECOND)
    sender, receiver = ends(simulation, client_sends=client_sends)
    for cut in (0, 1):
        sent = []
        for is_cut in (False, True, False):
            simulation.wires[cut].cut = is_cut
            for _ in range(100):
                packet = bytearray(simulation.packet())
                packet[1] = EF
                sent += [bytes(packet)] if simulation.send(sender, bytes(packet)) else []
                simulation.run(INTERVAL)
        simulation.run(SECOND)
        assert len(sent) == 300
        assert sum(packet not in receiver.delivered for packet in sent) == 0


def test_a_peer_that_would_deliver_both_is_sent_none() -> None:
    """0.3.4 has no window: it says nothing of itself."""
    simulation = started(Wire(), Wire())
    client = simulation.client
    simulation.set_path(1, mode=PathMode.REDUNDANT)
    client.tunnel.set(SettingsChange(redundant=EF), simulation.now)
    settle(simulation)
    client.tunnel._conversation.peer = Extensions()  # as of a peer that sends none
    client.tunnel.on_timeout(simulation.now)
    before = sent_on(client)
    packet = b"\x45" + bytes([EF]) + bytes(98)
    assert simulation.send(client, packet)
    after = sent_on(client)
    assert sum(after) - sum(before) == 1


def test_who_sends_no_copies_is_not_believed_to() -> None:
    """A captured datagram that comes again is a replay, and counts for no path."""
    simulation = started(Wire(), Wire())
    settle(simulation)
    receiver, index, datagram = next(
        item for item in reversed(simulation.captured) if not item[2][0] & 1 and not item[0].client
    )
    before = [path.rx.total for path in receiver.paths()]
    simulation.deliver(receiver, index, datagram)
    assert bad(receiver, BadKind.REPLAY) == 1
    assert [path.rx.total for path in receiver.paths()] == before


@pytest.mark.parametrize(("is_marked", "most"), [(False, 8), (True, 14)])
def test_a_slow_path_gets_no_more_copies_than_it_carries(*, is_marked: bool, most: int) -> None:
    """`most` ms of its 2 Mbit/s, of batches for one of 100: what else it carries goes on."""
    simulation = started(Wire(), Wire())
    for index, rate in enumerate((100, 2)):
        simulation.set_path(index, rate_tx=rate * 125_000, fixed_rate=True)
    if is_marked:
        simulation.client.tunnel.set(SettingsChange(redundant=EF), simulation.now)
    else:
        simulation.set_path(1, mode=PathMode.REDUNDANT)
    simulation.run(SECOND)
    tunnel, stride, copies = simulation.client.tunnel, 1400 + OVERHEAD, 0
    for _ in range(200):
        packet = b"\x45" + bytes([EF]) + bytes(1398 + OVERHEAD)
        batch = Batch(bytearray(TIME_SIZE) + packet * 30, TIME_SIZE, stride, 30, 1400, 1400)
        if simulation.can_send(simulation.client):
            sent = tunnel.send(batch, simulation.now)
            assert sent
            for outgoing in sent:
                if outgoing.copy_path == simulation.client_path(1):
                    copies += outgoing.datagrams.count
                simulation.transmit(simulation.client, outgoing)
        simulation.run(MILLISECOND)
    carried = 2 * 125_000 * (200 + most) // 1000 // (stride + V4_HEADERS + LINK_OVERHEAD)
    assert carried * 3 // 4 < copies <= carried


@pytest.mark.parametrize("rate", [2, 3, 4, 6, 9, 10, 40])
def test_a_slow_path_is_handed_no_more_than_5_ms_at_once(rate: int) -> None:
    """Or a packet of each kind: be it full of data, and thirty packets at once to go twice."""
    simulation = started(Wire(), Wire())
    for index, mbit in enumerate((100, rate)):
        simulation.set_path(index, rate_tx=mbit * 125_000, fixed_rate=True)
    client = simulation.client
    client.tunnel.set(SettingsChange(redundant=EF), simulation.now)
    simulation.run(SECOND)
    slow, stride, size = simulation.client_path(1), 1400 + OVERHEAD, 1400
    frame = stride + V4_HEADERS + LINK_OVERHEAD
    handed, copies = [], 0
    for step in range(1000):
        at_once = 0
        for traffic_class, most in ((EF, 30 if step % 20 == 0 else 0), (0, 300)):
            packet = b"\x45" + bytes([traffic_class]) + bytes(size - 2 + OVERHEAD)
            sent = 0
            while sent < most and simulation.can_send(client):
                count = min(30, most - sent)
                buffer = bytearray(TIME_SIZE) + packet * count
                batch = Batch(buffer, TIME_SIZE, stride, count, size, size)
                outgoings = client.tunnel.send(batch, simulation.now)
                assert outgoings
                for outgoing in outgoings:
                    count = outgoing.datagrams.count
                    sent += count
                    at_once += count * (slow in (outgoing.path, outgoing.copy_path))
                    copies += count * (slow == outgoing.copy_path)
                    simulation.transmit(client, outgoing)
        handed.append(at_once * frame)
        simulation.run(MILLISECOND)
    assert max(handed) <= max(rate * 125 * 5, 2 * frame)
    assert sum(handed) == pytest.approx(rate * 125_000, rel=0.1)
    assert copies >= 50
