"""What must hold of two tunnels in virtual time, scenario by scenario."""

import pytest

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.events import KeysExchanged, PathChanged, PathMtuFound, PeerStopped
from glorytun.core.settings import SECOND, CipherChoice, PathState
from glorytun.core.status import BadKind, Condition
from glorytun.core.wire import OVERHEAD
from tests.simulation import (
    MILLISECOND,
    SERVER,
    V4_HEADERS,
    V6_HEADERS,
    Side,
    Simulation,
    Wire,
)


def running(side: Side) -> int:
    return side.conditions().count(Condition.RUNNING)


def started(*wires: Wire, **settings: int) -> Simulation:
    """A simulation whose paths all run on both sides."""
    simulation = Simulation(*wires, seed=0, cipher=CipherChoice.CHACHA, **settings)
    simulation.up()
    simulation.wait_for(
        lambda: running(simulation.client) == running(simulation.server) == len(wires)
    )
    return simulation


def bad(side: Side, kind: BadKind) -> int:
    return next(status.count for status in side.tunnel.bad_statuses() if status.kind == kind)


def found(side: Side) -> list[int]:
    """The MTUs that discovery settled on."""
    return [event.mtu for event in side.events if isinstance(event, PathMtuFound)]


def wait_found(simulation: Simulation) -> None:
    simulation.wait_for(lambda: bool(found(simulation.client)))


def exchanges(side: Side) -> int:
    return sum(isinstance(event, KeysExchanged) for event in side.events)


@pytest.mark.parametrize("cipher", list(CipherChoice))
def test_packets_pass_both_ways(cipher: CipherChoice) -> None:
    """Whatever cipher is chosen, what one side sends the other delivers, once and unaltered."""
    simulation = Simulation(Wire(), cipher=cipher)
    simulation.up()
    simulation.run(SECOND)
    for side, other in (
        (simulation.client, simulation.server),
        (simulation.server, simulation.client),
    ):
        sent, refused = simulation.stream(side, count=50, interval=MILLISECOND)
        simulation.run(SECOND)
        assert not refused
        assert list(other.delivered) == sent
        assert set(other.delivered.values()) == {1}


def test_starts_fast() -> None:
    """With full-size links, a path carries data after three round trips."""
    simulation = Simulation(Wire(delay=20 * MILLISECOND))
    simulation.up()
    assert simulation.wait_for(lambda: simulation.can_send(simulation.client)) <= SECOND // 4
    assert simulation.wait_for(lambda: simulation.can_send(simulation.server)) <= SECOND // 4


def test_rotation_loses_nothing() -> None:
    """Keys are renewed every 2 s under traffic both ways, and every packet arrives."""
    simulation = started(
        Wire(delay=30 * MILLISECOND),
        Wire(delay=5 * MILLISECOND, jitter=20 * MILLISECOND),
        kxtimeout=2 * SECOND,
    )
    sent: dict[bool, list[bytes]] = {True: [], False: []}
    for _ in range(4000):
        for side in (simulation.client, simulation.server):
            packet = simulation.packet()
            assert simulation.send(side, packet)
            sent[side.client].append(packet)
        simulation.run(5 * MILLISECOND)
    simulation.run(SECOND)
    assert set(simulation.server.delivered) == set(sent[True])
    assert set(simulation.client.delivered) == set(sent[False])
    assert 9 <= exchanges(simulation.client) <= 12
    assert 9 <= exchanges(simulation.server) <= 12


def test_rotation_without_traffic() -> None:
    """An idle tunnel renews its keys on both sides too."""
    simulation = started(Wire(), kxtimeout=5 * SECOND, keepalive=2 * SECOND)
    simulation.run(60 * SECOND)
    assert exchanges(simulation.client) >= 8
    assert exchanges(simulation.server) >= 8


@pytest.mark.parametrize("seed", range(5))
def test_bad_network_never_loses_the_tunnel(seed: int) -> None:
    """Under 30 % loss, 200 ms jitter and reordering, packets can be sent at all times."""
    wires = [Wire(loss=0.3, jitter=200 * MILLISECOND, duplication=0.05) for _ in range(2)]
    simulation = Simulation(*wires, seed=seed, kxtimeout=10 * SECOND)
    simulation.up()
    simulation.wait_for(
        lambda: simulation.can_send(simulation.client) and simulation.can_send(simulation.server)
    )
    for _ in range(6000):
        for side in (simulation.client, simulation.server):
            assert simulation.can_send_within(side, 20 * MILLISECOND)
            simulation.send(side, simulation.packet())
        simulation.run(10 * MILLISECOND)
    for side in (simulation.client, simulation.server):
        assert sum(side.delivered.values()) == len(side.delivered)
        assert 0.6 * 6000 < len(side.delivered) < 0.8 * 6000
    assert exchanges(simulation.server) >= 5


@pytest.mark.parametrize("seed", range(5))
def test_single_bad_path_never_loses_the_tunnel(seed: int) -> None:
    """The same with one path, which is all there is."""
    wire = Wire(loss=0.3, jitter=200 * MILLISECOND, delay=50 * MILLISECOND)
    simulation = Simulation(wire, seed=seed)
    simulation.up()
    simulation.wait_for(
        lambda: simulation.can_send(simulation.client) and simulation.can_send(simulation.server)
    )
    for _ in range(6000):
        for side in (simulation.client, simulation.server):
            assert simulation.can_send_within(side, 20 * MILLISECOND)
            simulation.send(side, simulation.packet())
        simulation.run(10 * MILLISECOND)


MTUS = [
    *(
        (mtu, V4_HEADERS)
        for mtu in (640, 700, 1000, 1280, 1329, 1330, 1331, 1350, 1400, 1492, 1500)
    ),
    *((mtu, V6_HEADERS) for mtu in (1280, 1281, 1350, 1400, 1492, 1500)),
]


@pytest.mark.parametrize(("mtu", "headers"), MTUS)
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_mtu_is_found(mtu: int, headers: int, loss: float) -> None:
    """Discovery ends at the largest size that passes, also at 20 % loss, on both sides."""
    for seed in range(4):
        simulation = Simulation(Wire(mtu=mtu, headers=headers, loss=loss), seed=seed)
        simulation.up()
        wait_found(simulation)
        simulation.run(SECOND)
        expected = min(mtu - headers, 1472) - OVERHEAD
        assert simulation.client.paths()[0].mtu == expected
        assert simulation.server.paths()[0].mtu == expected


def test_every_mtu_is_found() -> None:
    """The same for every link MTU there is, without loss."""
    for mtu in range(640, 1501):
        simulation = Simulation(Wire(mtu=mtu))
        simulation.up()
        wait_found(simulation)
        assert simulation.client.paths()[0].mtu == mtu - V4_HEADERS - OVERHEAD


def busy(simulation: Simulation, duration: int) -> None:
    """Let time pass under light traffic."""
    simulation.stream(
        simulation.client, count=duration // (50 * MILLISECOND), interval=50 * MILLISECOND
    )


def test_mtu_rises_with_the_link() -> None:
    """A larger MTU of the link is found within a little more than ten minutes."""
    simulation = started(Wire(mtu=1400))
    simulation.wires[0].mtu = 1500
    busy(simulation, 620 * SECOND)
    assert simulation.client.paths()[0].mtu == 1450
    assert simulation.server.tunnel.mtu == 1450


def test_mtu_falls_with_the_link() -> None:
    """A smaller MTU of the link is noticed under traffic, though small datagrams still pass."""
    simulation = started(Wire(mtu=1500))
    simulation.wires[0].mtu = 1400
    busy(simulation, 10 * SECOND)
    assert simulation.client.paths()[0].mtu == 1400 - V4_HEADERS - OVERHEAD
    assert simulation.server.tunnel.mtu == 1400 - V4_HEADERS - OVERHEAD


def test_mtu_stays_on_a_lossy_link() -> None:
    """Loss alone never makes a settled MTU smaller."""
    simulation = started(Wire(loss=0.2))
    busy(simulation, 300 * SECOND)
    assert found(simulation.client) == [1450]


@pytest.mark.parametrize("sender_is_client", [True, False])
def test_failover(sender_is_client: bool) -> None:
    """A cut path is left within 600 ms, and used again after its return."""
    simulation = started(Wire(delay=10 * MILLISECOND), Wire(delay=15 * MILLISECOND))
    sender = simulation.client if sender_is_client else simulation.server
    receiver = simulation.server if sender_is_client else simulation.client
    simulation.stream(sender, count=100, interval=10 * MILLISECOND)
    simulation.wires[0].cut = True
    cut_at = simulation.now
    sent, refused = simulation.stream(sender, count=300, interval=10 * MILLISECOND)
    simulation.run(SECOND // 10)
    assert not refused
    lost = [index for index, packet in enumerate(sent) if packet not in receiver.delivered]
    assert max(lost, default=0) * 10 * MILLISECOND <= 600 * MILLISECOND
    assert simulation.now - cut_at >= 3 * SECOND
    assert running(sender) == 1
    simulation.wires[0].cut = False
    simulation.stream(sender, count=300, interval=10 * MILLISECOND)
    assert running(simulation.client) == running(simulation.server) == 2


def test_backup_is_used_only_when_needed() -> None:
    """A backup carries nothing while another path works, everything when none does."""
    simulation = started(Wire(), Wire())
    simulation.set_path(1, state=PathState.BACKUP)
    simulation.run(SECOND)
    assert simulation.client.conditions() == ["running", "waiting"]
    assert simulation.server.conditions() == ["running", "waiting"]
    before = simulation.client.paths()[1].tx.bytes
    simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND, size=1000)
    assert simulation.client.paths()[1].tx.bytes - before < 20_000
    simulation.wires[0].cut = True
    simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND)
    assert simulation.client.conditions() == ["degraded", "running"]
    sent, _ = simulation.stream(simulation.client, count=50, interval=10 * MILLISECOND)
    simulation.run(SECOND // 10)
    assert set(sent) <= set(simulation.server.delivered)
    simulation.wires[0].cut = False
    simulation.stream(simulation.client, count=300, interval=10 * MILLISECOND)
    assert simulation.client.conditions() == ["running", "waiting"]


def test_backups_are_used_by_preference() -> None:
    """The best that works alone, on both sides."""
    simulation = started(Wire(), Wire(), Wire())
    simulation.set_path(1, state=PathState.BACKUP, preference=2)
    simulation.set_path(2, state=PathState.BACKUP, preference=1)
    client, server = simulation.client, simulation.server
    for cut, used in ((None, 0), (0, 2), (2, 1)):
        if cut is not None:
            simulation.wires[cut].cut = True
        for side in (client, server):
            simulation.stream(side, count=100, interval=20 * MILLISECOND)
            before = [path.tx.bytes for path in side.paths()]
            simulation.stream(side, count=50, interval=MILLISECOND, size=1000)
            sent = [path.tx.bytes - start for path, start in zip(side.paths(), before, strict=True)]
            assert max(range(3), key=sent.__getitem__) == used
            assert sorted(sent)[1] < 10_000 < sorted(sent)[2]


def test_path_set_down_and_up() -> None:
    """The peer is told of a path that is set down, and it works again when it is set up."""
    simulation = started(Wire(), Wire())
    simulation.set_path(1, state=PathState.DOWN)
    simulation.run(SECOND // 2)
    assert simulation.client.conditions() == ["running", "down"]
    assert simulation.server.conditions() == ["running", "down"]
    simulation.set_path(1, state=PathState.UP)
    simulation.run(2 * SECOND)
    assert simulation.client.conditions() == ["running", "running"]
    assert simulation.server.conditions() == ["running", "running"]


def test_losslimit() -> None:
    """A path that loses more than its limit is left, and taken back when it is better."""
    simulation = started(Wire(), Wire())
    for index in (0, 1):
        simulation.set_path(index, loss_limit=25)
    simulation.wires[1].loss = 0.3
    simulation.stream(simulation.client, count=1000, interval=10 * MILLISECOND)
    assert simulation.client.conditions() == ["running", "lossy"]
    simulation.wires[1].loss = 0
    simulation.stream(simulation.client, count=6000, interval=10 * MILLISECOND)
    assert simulation.client.conditions() == ["running", "running"]


@pytest.mark.parametrize("loss", [0.17, 0.2])
def test_loss_about_at_the_limit(loss: float) -> None:
    """A link that loses about as much as it may is not left and taken every few seconds."""
    simulation = started(Wire(), Wire())
    for index in (0, 1):
        simulation.set_path(index, loss_limit=51)
    simulation.wires[1].loss = loss
    sides = simulation.client, simulation.server
    for _ in range(20_000):
        for side in sides:
            simulation.send(side, simulation.packet())
        simulation.run(10 * MILLISECOND)
    for side in sides:
        left = [event for event in side.events if isinstance(event, PathChanged)]
        assert sum(event.new == Condition.LOSSY != event.old for event in left) < 40
        assert sum(event.new == Condition.RUNNING for event in left) < 20


@pytest.mark.parametrize("sender_is_client", [True, False])
@pytest.mark.parametrize("cut", [100, 250, 3000])
def test_outage_under_load_is_no_loss(cut: int, sender_is_client: bool) -> None:
    """A link that was cut for so many ms is used as soon as it is back, with a usual limit."""
    simulation = started(Wire(), Wire(delay=20 * MILLISECOND))
    for index in (0, 1):
        simulation.set_path(index, loss_limit=51)
    sender = simulation.client if sender_is_client else simulation.server
    simulation.stream(sender, count=2500, interval=MILLISECOND)
    simulation.wires[0].cut = True
    simulation.stream(sender, count=cut, interval=MILLISECOND)
    simulation.wires[0].cut = False
    simulation.stream(sender, count=1500, interval=MILLISECOND)
    sender.events.clear()
    simulation.stream(sender, count=1000, interval=MILLISECOND)
    assert running(sender) == 2
    assert sender.events == []


def test_lossy_path_is_better_than_none() -> None:
    """The only path is used, whatever its loss."""
    simulation = started(Wire())
    simulation.set_path(0, loss_limit=25)
    simulation.wires[0].loss = 0.3
    _, refused = simulation.stream(simulation.client, count=2000, interval=10 * MILLISECOND)
    assert not refused


def test_nat_rebinding() -> None:
    """When a NAT changes the source port, traffic goes on both ways within a second."""
    simulation = started(Wire())
    simulation.stream(simulation.client, count=50, interval=10 * MILLISECOND)
    simulation.wires[0].client_port = 6000
    simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND)
    for side, other in (
        (simulation.client, simulation.server),
        (simulation.server, simulation.client),
    ):
        sent, refused = simulation.stream(side, count=100, interval=10 * MILLISECOND)
        simulation.run(SECOND)
        assert not refused
        assert set(sent) <= set(other.delivered)
    simulation.run(60 * SECOND)
    assert len(simulation.server.paths()) == 1


def test_server_forgets_silent_paths() -> None:
    """A server forgets a path on which nothing came for a minute, and its keys with the last."""
    simulation = started(Wire())
    simulation.wires[0].cut = True
    simulation.run(61 * SECOND)
    assert simulation.server.paths() == []
    assert simulation.server.tunnel.status().cipher == "none"


def test_clock_difference() -> None:
    """Five minutes of difference are fine; fifteen are refused, counted and said."""
    simulation = Simulation(Wire())
    simulation.client.clock_offset = 300 * SECOND
    simulation.client.start(simulation.now)
    simulation.up()
    simulation.wait_for(lambda: running(simulation.client) == 1)

    simulation = Simulation(Wire())
    simulation.client.clock_offset = 900 * SECOND
    simulation.client.start(simulation.now)
    simulation.up()
    simulation.run(3 * SECOND)
    assert simulation.server.paths() == []
    assert bad(simulation.server, BadKind.DECRYPT) == 0
    statuses = {status.kind: status for status in simulation.server.tunnel.bad_statuses()}
    assert statuses[BadKind.DIFFTIME].count > 10
    assert abs(statuses[BadKind.DIFFTIME].clock_offset - 900 * SECOND) < SECOND
    statuses = {status.kind: status for status in simulation.client.tunnel.bad_statuses()}
    assert abs(statuses[BadKind.DIFFTIME].clock_offset + 900 * SECOND) < SECOND
    assert not simulation.can_send(simulation.client)


def test_idle_tunnel_is_quiet() -> None:
    """Without data a path costs a few datagrams in 25 s, and both sides keep all paths."""
    simulation = started(Wire(), Wire(delay=40 * MILLISECOND))
    simulation.run(5 * SECOND)
    before = [status.tx.total for status in simulation.client.paths()]
    simulation.run(250 * SECOND)
    after = [status.tx.total for status in simulation.client.paths()]
    assert all(20 <= b - a <= 70 for a, b in zip(before, after, strict=True))
    assert running(simulation.client) == running(simulation.server) == 2


def test_close_is_said() -> None:
    """A side that stops says so on every path, and the other knows at once."""
    simulation = started(Wire(), Wire())
    simulation.client.tunnel.close(simulation.now)
    simulation.flush(simulation.client)
    simulation.client.start(simulation.now)
    simulation.run(100 * MILLISECOND)
    assert simulation.server.conditions() == ["down", "down"]

    simulation = started(Wire(), Wire())
    simulation.server.tunnel.close(simulation.now)
    simulation.flush(simulation.server)
    simulation.server.start(simulation.now)
    simulation.run(30 * MILLISECOND)
    assert simulation.client.conditions() == ["degraded", "degraded"]
    assert PeerStopped() in simulation.client.events
    simulation.wait_for(lambda: running(simulation.client) == 2, timeout=3 * SECOND)


def test_server_that_wakes_finds_the_dead_path() -> None:
    """One of two paths died while both sides were idle: the server's first packets find out."""
    for seed in range(8):
        simulation = started(Wire(), Wire(delay=20 * MILLISECOND))
        simulation.run((5 + 3 * seed) * SECOND)
        simulation.wires[0].cut = True
        simulation.run(SECOND)
        simulation.stream(simulation.server, count=80, interval=10 * MILLISECOND)
        sent, refused = simulation.stream(simulation.server, count=50, interval=10 * MILLISECOND)
        simulation.run(SECOND // 10)
        assert not refused
        assert set(sent) <= set(simulation.client.delivered)


def test_mtu_that_fell_while_idle() -> None:
    """The server's large packets pass again soon after the link's MTU fell while both were idle."""
    simulation = started(Wire())
    simulation.run(10 * SECOND)
    simulation.wires[0].mtu = 1400
    simulation.run(40 * SECOND)
    sent, refused = simulation.stream(
        simulation.server, count=50, interval=10 * MILLISECOND, size=simulation.server.tunnel.mtu
    )
    simulation.run(SECOND // 10)
    assert not refused
    assert set(sent) <= set(simulation.client.delivered)


@pytest.mark.parametrize("delay", [10, 50, 150])
def test_small_packets_pass_while_the_mtu_is_found_again(delay: int) -> None:
    """A fall of the link's MTU stops small packets for a few round trips at the most."""
    simulation = started(Wire(delay=delay * MILLISECOND))
    busy(simulation, 2 * SECOND)
    simulation.wires[0].mtu = 1400
    _, refused = simulation.stream(simulation.client, count=2000, interval=10 * MILLISECOND)
    assert len(refused) * 10 <= 4 * delay + 100


def test_slow_path_beside_a_fast_one() -> None:
    """A path that is slower than another by more than a second works, and is left alone."""
    simulation = Simulation(Wire(), Wire(delay=1500 * MILLISECOND))
    simulation.up()
    simulation.run(5 * SECOND)
    simulation.stream(simulation.client, count=1000, interval=10 * MILLISECOND)
    assert simulation.client.conditions() == ["running", "waiting"]
    assert simulation.server.conditions() == ["running", "waiting"]


def test_outage_is_no_loss() -> None:
    """A path with a loss limit is used again as soon as its link is back."""
    simulation = started(Wire(), Wire())
    for index in (0, 1):
        simulation.set_path(index, loss_limit=50)
    simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND)
    simulation.wires[0].cut = True
    simulation.stream(simulation.client, count=200, interval=10 * MILLISECOND)
    simulation.wires[0].cut = False
    simulation.stream(simulation.client, count=200, interval=10 * MILLISECOND)
    assert simulation.client.conditions() == ["running", "running"]


def test_replays_to_a_server_that_starts() -> None:
    """What was captured before a server was restarted makes no path from elsewhere."""
    simulation = started(Wire())
    old = [datagram for side, _, datagram in simulation.captured if side is simulation.server]
    simulation.run(50 * MILLISECOND)
    simulation.wires[0].cut = True
    simulation.server.start(simulation.now)
    stranger = PathId(SERVER, Endpoint(pack_address("203.0.113.9"), 6666))
    for datagram in old:
        simulation.receive(simulation.server, stranger, datagram)
        simulation.run(150 * MILLISECOND)
    assert simulation.server.paths() == []
    simulation.wires[0].cut = False
    simulation.stream(simulation.client, count=300, interval=10 * MILLISECOND)
    assert simulation.server.conditions() == ["running"]


def test_wishes_of_a_client_that_was_set_back() -> None:
    """A client that stopped, had its clock set back and starts again is not held to be down."""
    simulation = started(Wire())
    simulation.client.tunnel.close(simulation.now)
    simulation.flush(simulation.client)
    simulation.client.start(simulation.now)
    simulation.run(100 * MILLISECOND)
    assert simulation.server.conditions() == ["down"]
    simulation.client.clock_offset = -300 * SECOND
    simulation.client.start(simulation.now)
    simulation.up()
    simulation.stream(simulation.client, count=200, interval=10 * MILLISECOND)
    assert simulation.server.conditions() == ["running"]


def test_clocks_that_drift_or_step() -> None:
    """A clock that drifts or was set forward makes nobody send more slowly."""
    simulation = started(Wire(delay=5 * MILLISECOND))
    for offset in (100 * MILLISECOND, 3 * SECOND, 30 * SECOND):
        simulation.server.clock_offset = offset
        simulation.stream(simulation.client, count=2000, interval=MILLISECOND, size=1400)
        assert simulation.client.paths()[0].tx.rate == 0
        simulation.stream(simulation.server, count=2000, interval=MILLISECOND, size=1400)
        assert simulation.server.paths()[0].tx.rate == 0


def test_path_set_up_again_before_late_answers() -> None:
    """Answers to what was sent before a path was set down and up change nothing."""
    simulation = Simulation(Wire(delay=100 * MILLISECOND))
    simulation.up()
    simulation.run(450 * MILLISECOND)
    simulation.set_path(0, state=PathState.DOWN)
    simulation.set_path(0, state=PathState.UP)
    simulation.run(50 * MILLISECOND)
    assert simulation.client.conditions() == ["probing"]
    simulation.run(2 * SECOND)
    assert simulation.client.conditions() == ["running"]


def test_debts_of_a_slow_rate_are_forgiven() -> None:
    """A path whose rate was very low can send at once when it is raised."""
    simulation = started(Wire())
    simulation.set_path(0, rate_tx=8000)
    simulation.stream(simulation.client, count=6000, interval=10 * MILLISECOND)
    simulation.set_path(0, rate_tx=12_500_000)
    assert simulation.can_send_within(simulation.client, 10 * MILLISECOND)
