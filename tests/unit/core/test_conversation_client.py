"""The control messages of a client, and what holds of both sides."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glorytun.core.address import Endpoint, PathId
from glorytun.core.batch import Batch
from glorytun.core.conversation import FAREWELLS
from glorytun.core.crypto import confirmation
from glorytun.core.events import (
    KeysExchanged,
    PeerStopped,
)
from glorytun.core.settings import SECOND, PathChange, PathState
from glorytun.core.shaper import RATE_UNLIMITED
from glorytun.core.status import BadKind, Condition
from glorytun.core.wire import (
    CONTROL_BIT,
    OVERHEAD,
    REQUEST_SIZE,
    TIME_MASK,
    Capability,
    ControlMessage,
    Extensions,
    pull_time,
    unwrap_time,
)
from tests.unit.core.peer import (
    CLASSIC,
    CLIENT,
    EXTENSIONS,
    LOW_ORDER,
    NOW,
    OURS,
    SERVER,
    STRANGER,
    Peer,
    client_peer,
    is_request,
    open_control,
    opened,
    seal_control,
    server_peer,
    states_said,
)
from tests.unit.core.test_wire import MESSAGES

# A client asks.


def test_client_asks_and_answers() -> None:
    """A request says nothing of another; the server's reply is answered once, in its own length."""
    peer = client_peer()
    [request] = peer.tick()
    message = opened(request)
    assert message.is_request
    assert len(request) == REQUEST_SIZE
    assert (message.state, message.mtu, message.sent_to) == (PathState.UP, 0, SERVER)
    assert message.max_rate == RATE_UNLIMITED, "0.3.4 sends nothing to who wishes for nothing"
    assert message.extensions.confirm == b"", "no key is known yet"
    sent = peer.reply(request, tx_bytes=77, tx_total=3)
    answers = [open_control(datagram) for datagram in sent]
    assert [answer.fw_total for answer in answers if answer] == [3]
    assert len(sent[0]) == len(request)
    later = opened(peer.tick(SECOND // 10)[0])
    assert later.extensions.confirm == confirmation(peer.pair.public)


def test_client_takes_its_next_key_into_use_at_once() -> None:
    """With its answer the client sends a packet of one byte, until the server has used the key."""
    peer = client_peer()
    [request] = peer.tick()
    sent = peer.reply(request)
    marks = [datagram for datagram in sent if open_control(datagram) is None]
    assert [len(mark) for mark in marks] == [OVERHEAD + 1]
    session = peer.session(opened(request).pkey)
    into = bytearray(len(marks[0]))
    assert session.rx.open(Batch.of(marks[0]), into) == [True]
    assert into[6:7] == b"\0"
    assert KeysExchanged(cipher="chacha20poly1305", first=True) in peer.events
    peer.send(session, b"\0")
    [request, *_] = peer.tick(SECOND // 10)
    assert all(open_control(datagram) for datagram in peer.reply(request))


def test_server_answers_the_first_use_of_a_key() -> None:
    """The server moves to the key with the packet of one byte, and sends one itself."""
    peer = server_peer()
    [reply] = peer.say()
    session = peer.session(opened(reply).pkey)
    assert peer.tunnel.next_turn(peer.now) is None
    assert peer.send(session, b"\0") == []
    [mark] = peer.take()
    assert session.rx.open(Batch.of(mark), bytearray(len(mark))) == [True]
    assert KeysExchanged(cipher="chacha20poly1305", first=True) in peer.events


def test_probes_are_not_answered_twice() -> None:
    """The reply to a probe of the MTU proves the size; the client doesn't send it back."""
    peer = client_peer()
    [request] = peer.tick()
    peer.reply(request)
    plain, probe, *_ = peer.tick(SECOND // 10)
    assert (len(plain), len(probe)) == (REQUEST_SIZE, 1472)
    assert not any(datagram[0] & CONTROL_BIT for datagram in peer.reply(probe))
    assert peer.status.mtu == 1450
    request = peer.tick(1000)[0]
    assert opened(request).mtu == 1472, "the server is told at once"


@EXTENSIONS
def test_client_says_down_as_the_peer_takes_it(extensions: Extensions) -> None:
    """A path that is set down is said to be down, but a backup to 0.3.4, which never recovers."""
    peer = client_peer(extensions=extensions)
    peer.connect()
    sent = peer.change(state=PathState.DOWN)
    while request := next((datagram for datagram in sent if is_request(datagram)), None):
        sent_then = peer.reply(request)
        assert states_said(sent) <= {1 if extensions == OURS else 2}
        sent = peer.tick(SECOND // 10)
        assert states_said(sent_then) <= {1 if extensions == OURS else 2}
    assert peer.condition() == Condition.DOWN
    assert peer.tick(60 * SECOND) == []


def test_down_is_repeated_until_answered() -> None:
    """A server that doesn't answer is told five times that a path is down."""
    peer = client_peer()
    peer.connect()
    said = [peer.change(state=PathState.DOWN)]
    said += [peer.tick(SECOND // 10) for _ in range(20)]
    assert [len(sent) for sent in said] == [1] * 5 + [0] * 16


@EXTENSIONS
@pytest.mark.parametrize("make", [client_peer, server_peer])
def test_close_is_said_to_who_takes_it_well(make: Any, extensions: Extensions) -> None:
    """Our kind is told of the end, more than once; 0.3.4 finds out by itself."""
    peer: Peer = make(extensions=extensions)
    peer.connect()
    peer.take()
    peer.tunnel.close(peer.now)
    said = peer.take()
    assert [opened(datagram).state for datagram in said] == [1] * (
        FAREWELLS if extensions == OURS else 0
    )


def test_close_says_nothing_on_a_path_that_is_down() -> None:
    """What is known needn't be said."""
    peer = client_peer()
    peer.connect()
    [request] = peer.change(state=PathState.DOWN)
    peer.reply(request)
    peer.tunnel.close(peer.now)
    assert peer.take() == []


def test_server_that_stops() -> None:
    """The server's farewell is an event, once, and no data goes there until it answers again."""
    peer = client_peer()
    peer.connect()
    for _ in range(3):
        assert peer.say(state=PathState.DOWN) == []
    assert peer.events.count(PeerStopped()) == 1
    assert peer.condition() == Condition.DEGRADED
    assert peer.status.reason == "the peer stopped"
    assert peer.tunnel.next_turn(peer.now) is None
    [request] = peer.tick(SECOND)
    peer.reply(request)
    assert peer.condition() == Condition.RUNNING


def test_server_makes_no_other_request() -> None:
    """A request of a server that doesn't say it stops is not acted on, nor answered."""
    peer = client_peer()
    peer.connect()
    before = peer.status.settings
    assert peer.say(state=PathState.BACKUP, max_rate=5, beat=1) == []
    assert peer.status.settings == before
    assert peer.condition() == Condition.RUNNING
    assert PeerStopped() not in peer.events


def test_client_has_no_path_but_its_own() -> None:
    """A server that answers from elsewhere makes no path."""
    peer = client_peer()
    [request] = peer.tick()
    assert peer.reply(request, path=PathId(CLIENT.address, STRANGER)) == []
    assert peer.bad(BadKind.PATH) == 1
    assert len(peer.tunnel.path_statuses()) == 1


def test_answer_from_before_the_path_was_down_says_nothing() -> None:
    """A path that was down works when it was heard again, not by what was still under way."""
    peer = client_peer()
    [request] = peer.tick()
    peer.reply(request)
    under_way = peer.tick(SECOND // 10)
    peer.change(state=PathState.DOWN)
    peer.now += 1000
    peer.tunnel.set_path(peer.path, PathChange(state=PathState.UP), peer.now)
    for datagram in reversed(under_way):
        peer.reply(datagram)
    assert peer.condition() == Condition.PROBING
    assert peer.status.rtt == 0


@pytest.mark.parametrize("distance", [-3600 * SECOND, -61 * SECOND, 3600 * SECOND])
def test_reply_to_nothing_recent_says_nothing(distance: int) -> None:
    """A reply that echoes a time of long ago, or of the future, measures and changes nothing."""
    peer = client_peer()
    peer.connect()
    peer.now += 3700 * SECOND
    before = peer.status
    peer.say(sent_time=((peer.now + distance) | CONTROL_BIT) & TIME_MASK, loss=99)
    assert peer.status.rtt == before.rtt
    assert peer.status.rx.loss == before.rx.loss == 0


@pytest.mark.parametrize(("late", "heard"), [(59, True), (61, False)])
def test_reply_that_took_a_minute(late: int, heard: bool) -> None:
    """An answer to what we said more than a minute ago is none."""
    peer = client_peer()
    peer.connect()
    [request] = peer.tick(SECOND // 10)
    peer.now += late * SECOND
    peer.reply(request, loss=99)
    assert (peer.status.rx.loss == 99) == heard


def test_times_of_a_side_increase() -> None:
    """Everything a side says has a time of its own, also when it is said at one instant."""
    peer = server_peer()
    times = [
        unwrap_time(pull_time(datagram), now=NOW) for _ in range(50) for datagram in peer.say()
    ]
    assert len(times) == 50
    assert times == sorted(set(times))


# Hostile peers that know the secret key.

EXTREMES: dict[str, list[Any]] = {
    "state": [0, 1, 7, 255],
    "mtu": [0, 1, 65535],
    "beat": [0, 1, TIME_MASK],
    "max_rate": [0, 1, (1 << 64) - 1],
    "fixed_rate": [True],
    "loss": [255],
    "loss_limit": [0],
    "tx_bytes": [(1 << 64) - 1],
    "tx_total": [(1 << 64) - 1],
    "rx_bytes": [(1 << 64) - 1],
    "rx_total": [(1 << 64) - 1],
    "fw_bytes": [(1 << 64) - 1],
    "fw_total": [(1 << 64) - 1],
    "sent_time": [1, TIME_MASK],
    "sent_to": [Endpoint(bytes(16), 0), Endpoint(b"\xff" * 16, 65535)],
    "pkey": [LOW_ORDER, b"\xff" * 32],
}


def live_on(peer: Peer) -> None:
    """Time passes, data is offered, the user looks: nothing raises."""
    for after in (0, 1000, SECOND, 70 * SECOND):
        peer.tick(after)
        peer.tunnel.next_turn(peer.now)
        peer.tunnel.status()
        peer.tunnel.path_statuses()
        after_at = peer.tunnel.next_timeout()
        assert after_at is None or after_at > peer.now


@pytest.mark.parametrize("make", [client_peer, server_peer])
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in EXTREMES.items() for value in values]
)
def test_extreme_values(make: Any, field: str, value: Any) -> None:
    """No value of any field makes a tunnel raise, in a request or a reply."""
    peer: Peer = make()
    peer.connect()
    peer.say(**{field: value})
    for datagram in peer.tick(SECOND // 10) + peer.say():
        if datagram[0] & CONTROL_BIT:
            peer.reply(datagram, **{field: value})
    live_on(peer)


@pytest.mark.parametrize("make", [client_peer, server_peer])
@settings(max_examples=100)
@given(
    said=st.lists(
        st.tuples(
            MESSAGES, st.integers(147, 1500), st.booleans(), st.sampled_from([0, 10**4, 10**6])
        ),
        max_size=8,
    )
)
def test_any_messages(make: Any, said: list[tuple[ControlMessage, int, bool, int]]) -> None:
    """No messages of a peer that knows the secret key make a tunnel raise."""
    peer: Peer = make()
    newest = 0
    for message, size, is_reply, after in said:
        for datagram in peer.tick(after):
            newest = pull_time(datagram) if datagram[0] & CONTROL_BIT else newest
        if is_reply:
            message = replace(message, sent_time=newest)
        for datagram in peer.give(seal_control(message, time=peer.next_time(), size=size)):
            assert datagram[0] & CONTROL_BIT == 0 or len(datagram) == size
    live_on(peer)


def test_state_in_use_is_said_to_0_3_4() -> None:
    """What a 0.3.4 client asks for, but the end, comes back to it as it was asked."""
    peer = server_peer(extensions=CLASSIC)
    for state in (PathState.UP, PathState.BACKUP):
        assert states_said(peer.say(size=147, state=state)) == {state}


@pytest.mark.parametrize("ours", [Capability.BARE, Capability(0)])
def test_bare_packets_are_for_who_asks_for_them(ours: Capability) -> None:
    """A peer that was restarted, as a 0.3.4 even, has to say it again; and we must want them too:
    who switches them off has none on the wire."""
    peer = client_peer(ours=ours)
    assert not peer.tunnel.may_send_bare
    peer.connect()
    assert not peer.tunnel.may_send_bare
    for capabilities in (Capability.BARE, Capability(0), Capability.BARE, None):
        [request] = peer.tick(SECOND // 10)
        peer.reply(request, extensions=Extensions(capabilities=capabilities))
        assert peer.tunnel.may_send_bare is bool(ours and capabilities)
