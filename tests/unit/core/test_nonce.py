"""The time field, which is the nonce."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.batch import Batch
from glorytun.core.crypto import CHACHA, make_aead
from glorytun.core.exchange import Session
from glorytun.core.nonce import AHEAD_MAX, TimeField
from glorytun.core.scheduler import SEND_MAX
from glorytun.core.settings import SECOND
from glorytun.core.wire import CONTROL_BIT, OVERHEAD, SERVER_BIT, TIME_SIZE, pull_time, unwrap_time
from tests.simulation import Simulation, Wire
from tests.unit.core.peer import NOW

FIELDS = st.sampled_from(
    [
        (2, 0, TimeField.for_data),
        (4, CONTROL_BIT, lambda: TimeField.for_control(client=True)),
        (4, CONTROL_BIT | SERVER_BIT, lambda: TimeField.for_control(client=False)),
    ]
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 3, 1000]) | st.integers(0, 2 * SECOND),
        st.sampled_from([1, 2, 64]) | st.integers(1, 100_000),
    ),
    max_size=30,
)


def session() -> Session:
    return Session(cipher=CHACHA, tx=make_aead(CHACHA, b"k" * 32), rx=make_aead(CHACHA, b"k" * 32))


def packets(count: int, *, size: int = 1) -> Batch:
    """A batch with room for what sealing adds."""
    stride = size + OVERHEAD
    return Batch(bytearray(count * stride), TIME_SIZE, stride, count, size, size)


@given(FIELDS, st.integers(NOW, NOW + 100), STEPS)
def test_times_keep_their_promises(
    kind: tuple[int, int, object], start: int, steps: list[tuple[int, int]]
) -> None:
    """Times increase by the step at least, carry the flags, and are neither late nor far ahead."""
    step, flags, make = kind
    assert callable(make)
    field: TimeField = make()
    now, newest = start, 0
    for wait, count in steps:
        now += wait
        first = field.take(count, now)
        if first is None:
            assert max(newest + step, now) + (count - 1) * step > now + AHEAD_MAX - step
            continue
        assert first % step == flags
        assert first > newest
        assert first > now - step
        newest = first + (count - 1) * step
        assert newest <= now + AHEAD_MAX


@given(FIELDS, STEPS, st.integers(1, 1000))
def test_ready_at_is_the_first_moment(
    kind: tuple[int, int, object], steps: list[tuple[int, int]], count: int
) -> None:
    """After any use, as many times as asked for are handed out from `ready_at` on, not before."""
    _, _, make = kind
    assert callable(make)
    field: TimeField = make()
    now = NOW
    assert field.take(1, now) is not None
    for wait, taken in steps:
        now += wait
        field.take(taken, now)
    ready_at = field.ready_at(count)
    assert field.take(count, ready_at - 1) is None
    assert field.take(count, ready_at) is not None


@pytest.mark.parametrize("batch", [1, 64])
def test_packets_sealed_at_one_instant_have_their_own_times(batch: int) -> None:
    """400 000 packets sealed at one instant have distinct, strictly increasing times."""
    sealing = session()
    newest, count = NOW - 1, 0
    while count < 400_000:
        datagrams = sealing.seal(packets(batch), NOW)
        assert datagrams is not None
        for row in datagrams.rows():
            time = unwrap_time(pull_time(row), now=NOW)
            assert time > newest
            assert not time & CONTROL_BIT
            newest = time
            count += 1
    assert newest <= NOW + AHEAD_MAX


def test_sealing_waits_rather_than_run_ahead() -> None:
    """When times would be more than 1 s ahead, nothing is sealed until the clock has followed."""
    sealing = session()
    for count in (1000, 1):
        while sealing.seal(packets(count), NOW) is not None:
            pass
    one = packets(1)
    ready_at = sealing.times.ready_at(1)
    assert NOW < ready_at <= NOW + 2
    assert sealing.seal(one, ready_at - 1) is None
    assert bytes(one.buffer) == bytes(len(one.buffer))
    datagram = sealing.seal(one, ready_at)
    assert datagram is not None
    assert unwrap_time(pull_time(datagram.buffer), now=NOW) == ready_at + AHEAD_MAX


def test_tunnel_waits_rather_than_run_ahead() -> None:
    """`next_turn` says when a tunnel that has used up its times goes on, and it does."""
    simulation = Simulation(Wire())
    simulation.up()
    simulation.run(SECOND)
    tunnel, now = simulation.client.tunnel, simulation.now
    count = 0
    while (turn := tunnel.next_turn(now)) is not None and turn.at <= now:
        assert tunnel.send(packets(SEND_MAX), now)
        count += SEND_MAX
    assert SECOND // 2 - 2000 < count <= SECOND // 2 + 1
    assert turn is not None
    assert now < turn.at <= now + 2 * SEND_MAX
    assert not tunnel.send(packets(SEND_MAX), turn.at - 2)
    assert tunnel.status().unsent_total == SEND_MAX
    assert tunnel.send(packets(SEND_MAX), turn.at)


@given(STEPS)
def test_control_times_of_both_roles_never_collide(steps: list[tuple[int, int]]) -> None:
    """Both roles seal under one key, with whatever clocks: none of their times are equal."""
    taken: set[int] = set()
    fields = [TimeField.for_control(client=client) for client in (True, False)]
    nows = [NOW, NOW]
    for index, (wait, count) in enumerate(steps):
        side = index % 2
        nows[side] += wait
        first = fields[side].take(min(count, 100), nows[side])
        if first is None:
            continue
        times = set(range(first, first + min(count, 100) * 4, 4))
        assert not times & taken
        assert {bool(time & SERVER_BIT) for time in times} == {bool(side)}
        taken |= times
