"""Two tunnels and a network that does whatever it likes, step by step."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.settings import SECOND, CipherChoice, PathState
from glorytun.core.status import Condition
from tests.simulation import MILLISECOND, PORT, Side, Simulation, Wire

WIRES = 2
wires = st.integers(0, WIRES - 1)
sides = st.booleans()


class TunnelMachine(RuleBasedStateMachine):
    """After each step: nothing raised, nothing delivered twice or altered, no timer in the past.

    At the end everything is mended, and then the tunnel must work again by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[bool, set[bytes]] = {True: set(), False: set()}

    @initialize(
        seed=st.integers(0, 2**32), cipher=st.sampled_from(CipherChoice), rotate=st.booleans()
    )
    def start(self, seed: int, cipher: CipherChoice, rotate: bool) -> None:
        self.simulation = Simulation(
            *(Wire() for _ in range(WIRES)),
            seed=seed,
            cipher=cipher,
            kxtimeout=SECOND if rotate else 3600 * SECOND,
        )
        self.simulation.up()
        self.simulation.run(300 * MILLISECOND)

    def side(self, is_client: bool) -> Side:
        return self.simulation.client if is_client else self.simulation.server

    @rule(is_client=sides, count=st.integers(1, 20), size=st.integers(20, 1400))
    def send(self, is_client: bool, count: int, size: int) -> None:
        for _ in range(count):
            packet = self.simulation.packet(size)
            if self.simulation.send(self.side(is_client), packet):
                self.sent[is_client].add(packet)

    @rule(duration=st.sampled_from([1, 10, 100, 500, 2000, 30_000, 70_000]))
    def wait(self, duration: int) -> None:
        self.simulation.run(duration * MILLISECOND)

    @rule(
        wire=wires,
        loss=st.sampled_from([0.0, 0.02, 0.3, 0.9]),
        jitter=st.sampled_from([0, 5, 200]),
        duplication=st.sampled_from([0.0, 0.3]),
        delay=st.sampled_from([0, 1, 20, 300]),
    )
    def change_wire(
        self, wire: int, loss: float, jitter: int, duplication: float, delay: int
    ) -> None:
        changed = self.simulation.wires[wire]
        changed.loss, changed.duplication = loss, duplication
        changed.jitter, changed.delay = jitter * MILLISECOND, delay * MILLISECOND

    @rule(wire=wires, mtu=st.integers(640, 1500))
    def change_mtu(self, wire: int, mtu: int) -> None:
        self.simulation.wires[wire].mtu = mtu

    @rule(wire=wires, cut=st.booleans())
    def cut(self, wire: int, cut: bool) -> None:
        self.simulation.wires[wire].cut = cut

    @rule(wire=wires, port=st.integers(1024, 65535))
    def rebind(self, wire: int, port: int) -> None:
        self.simulation.wires[wire].client_port = port

    @rule(
        wire=wires,
        state=st.sampled_from(PathState),
        loss_limit=st.sampled_from([0, 50, 255]),
        delay_limit=st.sampled_from([0, 30_000]),
        rate=st.sampled_from([0, 100_000, 10_000_000]),
        fixed=st.booleans(),
    )
    def set_path(
        self, wire: int, state: PathState, loss_limit: int, delay_limit: int, rate: int, fixed: bool
    ) -> None:
        if state == PathState.DOWN and self.simulation.client_path(wire) not in self.client_paths():
            return
        self.simulation.set_path(
            wire,
            state=state,
            loss_limit=loss_limit,
            delay_limit=delay_limit,
            rate_tx=rate,
            rate_rx=rate,
            fixed_rate=fixed and rate > 0,
        )

    def client_paths(self) -> set[PathId]:
        statuses = self.simulation.client.paths()
        return {PathId(status.local, status.remote) for status in statuses}

    @rule(is_client=sides, says_so=st.booleans())
    def restart(self, is_client: bool, says_so: bool) -> None:
        side = self.side(is_client)
        if says_so:
            side.tunnel.close(self.simulation.now + side.clock_offset)
            self.simulation.flush(side)
        side.start(self.simulation.now)
        if is_client:
            self.simulation.up()

    @rule(data=st.data())
    @precondition(lambda self: self.simulation.captured)
    def replay(self, data: st.DataObject) -> None:
        """Somebody sends what was captured again: where it was sent, from elsewhere, or back."""
        side, wire, datagram = data.draw(st.sampled_from(self.simulation.captured))
        match data.draw(st.sampled_from(["again", "elsewhere", "back", "altered"])):
            case "again":
                self.simulation.deliver(side, wire, datagram)
            case "elsewhere":
                stranger = Endpoint(pack_address("203.0.113.9"), PORT)
                local = (
                    self.simulation.client_path(wire).local
                    if side.client
                    else self.simulation.server_path(wire).local
                )
                self.simulation.receive(side, PathId(local, stranger), datagram)
            case "back":
                other = self.simulation.server if side.client else self.simulation.client
                self.simulation.deliver(other, wire, datagram)
            case "altered":
                at = data.draw(st.integers(0, len(datagram) - 1))
                altered = bytearray(datagram)
                altered[at] ^= data.draw(st.integers(1, 255))
                self.simulation.deliver(side, wire, bytes(altered))

    @rule(wire=wires, is_client=sides, garbage=st.binary(max_size=300))
    def noise(self, wire: int, is_client: bool, garbage: bytes) -> None:
        self.simulation.deliver(self.side(is_client), wire, garbage)

    @invariant()
    def nothing_twice_or_altered(self) -> None:
        for side in (self.simulation.client, self.simulation.server):
            assert set(side.delivered.values()) <= {1}
            assert set(side.delivered) <= self.sent[not side.client]

    @invariant()
    def timers_lie_ahead(self) -> None:
        for side in (self.simulation.client, self.simulation.server):
            due_at = side.tunnel.next_timeout()
            if due_at is not None and due_at < self.simulation.now:
                side.tunnel.on_timeout(self.simulation.now)
                after = side.tunnel.next_timeout()
                assert after is None or after > self.simulation.now
                self.simulation.flush(side)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.simulation.server.paths()) <= 32
        assert len(self.simulation.client.paths()) <= WIRES

    def teardown(self) -> None:
        if hasattr(self, "simulation"):
            self.mend()
        super().teardown()

    def mend(self) -> None:
        """With the network whole again, packets pass both ways, and both paths run."""
        simulation = self.simulation
        for index, wire in enumerate(simulation.wires):
            wire.loss = wire.duplication = 0.0
            wire.jitter, wire.delay, wire.mtu, wire.cut = 0, 10 * MILLISECOND, 1500, False
            simulation.set_path(
                index,
                state=PathState.UP,
                loss_limit=255,
                delay_limit=0,
                rate_tx=0,
                rate_rx=0,
                fixed_rate=False,
            )
        simulation.run(5 * SECOND)
        for side, other in (
            (simulation.client, simulation.server),
            (simulation.server, simulation.client),
        ):
            simulation.stream(side, count=100, interval=50 * MILLISECOND)
            # A rate found while much was lost is low, and probes of the MTU take their part.
            sent, refused = simulation.stream(
                side, count=20, interval=10 * MILLISECOND, wait=50 * MILLISECOND
            )
            simulation.run(SECOND)
            assert not refused
            assert set(sent) <= set(other.delivered)
        assert simulation.client.conditions() == [Condition.RUNNING] * WIRES


TestTunnelMachine = TunnelMachine.TestCase
TestTunnelMachine.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
