"""The control messages of a server: what is believed, what follows, what is said."""

from typing import Any

import pytest

from glorytun.core.address import PathId
from glorytun.core.conversation import CHALLENGE_INTERVAL
from glorytun.core.crypto import KeyPair, confirmation
from glorytun.core.events import (
    DatagramsDropped,
    PathAdded,
    PathRemoved,
    PathStateSet,
)
from glorytun.core.path import BEAT_MAX, BEAT_MIN
from glorytun.core.paths import PATHS_MAX
from glorytun.core.settings import SECOND, PathState, SettingsChange
from glorytun.core.shaper import RATE_UNLIMITED
from glorytun.core.status import BadKind, Condition
from glorytun.core.wire import (
    CONTROL_BIT,
    CONTROL_DATAGRAM_SIZE,
    OVERHEAD,
    REQUEST_SIZE,
    TIME_MASK,
    Capability,
    Extensions,
    Wishes,
    pull_time,
    unwrap_time,
)
from tests.unit.core.peer import (
    CLASSIC,
    CLIENT,
    ELSEWHERE,
    EXTENSIONS,
    LOW_ORDER,
    NOW,
    SERVER,
    STRANGER,
    Peer,
    client_peer,
    opened,
    seal_control,
    server_peer,
    unknown_peer,
)

# A server answers.


@EXTENSIONS
@pytest.mark.parametrize("size", [147, 148, 150, 160, 164, 174, 175, 192, 600, 1302, 1472])
def test_reply_is_as_long_as_the_request(size: int, extensions: Extensions) -> None:
    """Each request has one reply, of its own length, with no more said than has room."""
    peer = server_peer(extensions=extensions)
    peer.say()
    replies = peer.say(size=size)
    assert [len(reply) for reply in replies] == [size]
    said = opened(replies[0]).extensions
    room = size - CONTROL_DATAGRAM_SIZE
    confirm = confirmation(peer.pair.public)
    expected: dict[str, tuple[object, int]] = {
        "capabilities": (Capability.TIMESTAMPS, 1),
        "confirm": (confirm, len(confirm)),
        "wishes": (Wishes(), 7),
        "software": ("under test", len("under test")),
    }
    for name, (value, takes) in expected.items():
        if 2 + takes <= room:
            assert getattr(said, name) == value
            room -= 2 + takes
        else:
            assert not getattr(said, name)


def test_reply_says_what_it_answers() -> None:
    """A reply echoes the request's time and totals, and where the request came from."""
    peer = server_peer()
    time = peer.next_time()
    message = opened(peer.say(time=time, tx_bytes=1234, tx_total=5)[0])
    assert message.sent_time == time & TIME_MASK
    assert (message.fw_bytes, message.fw_total) == (1234, 5)
    assert message.sent_to == CLIENT
    assert (message.beat, message.mtu, message.state) == (SECOND // 10, 1472, PathState.UP)


def test_totals_leave_out_what_is_answered() -> None:
    """As in 0.3.4, a reply doesn't count the request that it answers, nor itself."""
    peer = server_peer()
    first = opened(peer.say(size=200)[0])
    assert (first.rx_bytes, first.rx_total) == (REQUEST_SIZE, 1), "the reply that made the path"
    assert (first.tx_bytes, first.tx_total) == (0, 0)
    second = opened(peer.say(size=300)[0])
    assert (second.rx_bytes, second.rx_total) == (REQUEST_SIZE + 200, 2)
    assert (second.tx_bytes, second.tx_total) == (200, 1)


def test_server_does_not_answer_a_reply() -> None:
    """A beat is three datagrams: the client's reply has no answer, but it is measured."""
    peer = unknown_peer()
    [reply] = peer.say()
    peer.now += 30_000
    assert peer.reply(reply, loss=9) == []
    assert peer.status.rtt == NOW + 30_000 - unwrap_time(pull_time(reply), now=NOW)
    assert peer.status.rx.loss == 9


def test_server_learns_its_own_address() -> None:
    """What the client sends to is the server's public address."""
    peer = server_peer()
    peer.say(sent_to=STRANGER)
    assert peer.status.public == STRANGER


def test_path_is_made_by_the_first_answer() -> None:
    """The first message that answers the server's own makes a path, and that is an event."""
    peer = unknown_peer()
    [challenge] = peer.say()
    assert peer.tunnel.path_statuses() == []
    assert peer.events == []
    peer.reply(challenge)
    assert PathAdded(path=peer.path) in peer.events
    assert peer.condition() == Condition.PROBING
    assert peer.bad(BadKind.REPLAY) == 0, "that is the way of every client"


def test_path_is_made_by_any_message_of_a_known_client() -> None:
    """From then on the client's first request from a new address makes a path."""
    peer = server_peer()
    assert len(peer.say(path=ELSEWHERE)) == 1
    assert [status.remote for status in peer.tunnel.path_statuses()] == [CLIENT, STRANGER]


def test_farewell_makes_no_path() -> None:
    """A message that says a path is down makes none."""
    peer = server_peer()
    assert peer.say(state=PathState.DOWN, path=ELSEWHERE) == []
    assert [status.remote for status in peer.tunnel.path_statuses()] == [CLIENT]
    assert peer.bad(BadKind.PATH) == 1


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("state", 2, ("state", PathState.BACKUP)),
        ("state", 3, ("state", PathState.UP)),
        ("state", 0, ("state", PathState.UP)),
        ("state", 7, ("state", PathState.UP)),
        ("state", 255, ("state", PathState.UP)),
        ("beat", 250_000, ("beat", 250_000)),
        ("beat", 0, ("beat", BEAT_MIN)),
        ("beat", TIME_MASK, ("beat", BEAT_MAX)),
        ("loss_limit", 77, ("loss_limit", 77)),
        ("max_rate", 500_000, ("rate_tx", 500_000)),
        ("max_rate", 0, ("rate_tx", 0)),
        ("max_rate", RATE_UNLIMITED, ("rate_tx", 0)),
        ("max_rate", (1 << 64) - 1, ("rate_tx", 0)),
        ("fixed_rate", True, ("fixed_rate", False)),
    ],
)
def test_server_takes_over_the_clients_wishes(
    field: str, value: Any, expected: tuple[str, int]
) -> None:
    """What a request asks for holds on that path, as far as it makes sense."""
    peer = server_peer()
    peer.say()
    peer.say(**{field: value})
    name, wanted = expected
    assert getattr(peer.status.settings, name) == wanted


@pytest.mark.parametrize(
    ("mtu", "expected"),
    [
        (0, 0),
        (1, 0),
        (597, 0),
        (598, 598 - OVERHEAD),
        (1472, 1450),
        (1473, 0),
        (65535, 0),
    ],
)
def test_server_takes_over_the_mtu(mtu: int, expected: int) -> None:
    """The client's MTU is used when a search could have found it."""
    peer = server_peer()
    peer.say(mtu=mtu)
    assert peer.status.mtu == expected


def test_fixed_rate_is_a_rate() -> None:
    """A fixed rate without a number is no fixed rate."""
    peer = server_peer()
    peer.say(max_rate=10**6, fixed_rate=True)
    assert peer.status.settings.fixed_rate
    assert peer.status.tx.rate == 10**6


def test_newer_wish_is_not_undone_by_an_older_one() -> None:
    """A request that was overtaken on its way changes nothing that a newer one has set."""
    peer = server_peer()
    older = peer.next_time()
    peer.say(state=PathState.BACKUP)
    assert len(peer.say(time=older, state=PathState.UP)) == 1
    assert peer.status.settings.state == PathState.BACKUP
    assert PathStateSet(path=peer.path, state=PathState.BACKUP) in peer.events


def test_pinned_rate_stays() -> None:
    """A rate that was set on the server isn't overwritten by the client."""
    peer = server_peer()
    peer.say(max_rate=10**6)
    peer.change(rate_tx=3 * 10**6, fixed_rate=True)
    peer.say(max_rate=5 * 10**6)
    assert peer.status.settings.rate_tx == peer.status.tx.rate == 3 * 10**6
    assert peer.status.settings.fixed_rate
    peer.say(loss_limit=9)
    assert peer.status.settings.loss_limit == 9, "the rest is still the client's"


def test_requests_alone_are_no_conversation() -> None:
    """A client that asks but never answers is not heard: after five its path is degraded."""
    peer = server_peer()
    peer.connect()
    assert peer.condition() == Condition.RUNNING
    for _ in range(5):
        assert peer.condition() == Condition.RUNNING
        [reply] = peer.say()
    assert peer.condition() == Condition.DEGRADED
    peer.reply(reply)
    assert peer.condition() == Condition.RUNNING


def test_down_is_said_by_the_client() -> None:
    """A path that the client sets down is down, and known anew when it is up again."""
    peer = server_peer()
    peer.connect()
    peer.say(state=PathState.DOWN)
    assert peer.condition() == Condition.DOWN
    peer.say(state=PathState.UP)
    assert peer.condition() == Condition.PROBING
    [reply] = peer.say()
    peer.reply(reply)
    assert peer.condition() == Condition.RUNNING


def test_key_that_cannot_be_used() -> None:
    """A public key of low order is counted, reported and not answered."""
    peer = server_peer()
    assert peer.say(pkey=LOW_ORDER) == []
    assert peer.bad(BadKind.KEYX) == 1
    kinds = [event.kind for event in peer.events if isinstance(event, DatagramsDropped)]
    assert kinds == [BadKind.KEYX]


def test_client_hears_a_key_that_cannot_be_used() -> None:
    """The same on a client, which goes on with what it has."""
    peer = client_peer()
    peer.connect()
    [request] = peer.tick(SECOND // 10)
    assert (
        peer.reply(request, pkey=LOW_ORDER, extensions=Extensions(capabilities=Capability(4))) == []
    )
    assert peer.bad(BadKind.KEYX) == 1
    assert peer.tunnel.next_turn(peer.now) is not None


# What isn't believed.


@pytest.mark.parametrize("size", [CONTROL_DATAGRAM_SIZE - 1, OVERHEAD + 1])
def test_message_that_is_too_short(size: int) -> None:
    """A datagram that no control message is as short as is counted by its size."""
    peer = server_peer()
    datagram = seal_control(peer.message(), time=peer.next_time(), size=REQUEST_SIZE)
    assert peer.give(datagram[:size]) == []
    assert peer.bad(BadKind.SIZE) == 1


def test_message_under_another_key() -> None:
    """What doesn't open is counted, once in the log, and makes no path."""
    peer = unknown_peer()
    datagram = bytearray(seal_control(peer.message(), time=peer.next_time(), size=REQUEST_SIZE))
    datagram[-1] ^= 1
    for _ in range(10):
        assert peer.give(bytes(datagram)) == []
    assert peer.bad(BadKind.DECRYPT) == 10
    assert peer.tunnel.path_statuses() == []
    assert [type(event) for event in peer.events] == [DatagramsDropped]


def test_replay_from_elsewhere_makes_no_path() -> None:
    """A message that was heard makes no path from another address, and is not answered there."""
    peer = server_peer()
    datagrams = [
        seal_control(peer.message(), time=peer.next_time(), size=REQUEST_SIZE) for _ in range(5)
    ]
    for datagram in datagrams:
        assert peer.give(datagram)
    for datagram in datagrams:
        assert peer.give(datagram, ELSEWHERE) == []
    assert peer.bad(BadKind.REPLAY) == 5
    assert [status.remote for status in peer.tunnel.path_statuses()] == [CLIENT]


def test_replay_after_the_window_makes_no_path() -> None:
    """Long after, a replay is answered at the most, and that has no consequence."""
    peer = server_peer()
    datagram = seal_control(peer.message(), time=peer.next_time(), size=REQUEST_SIZE)
    peer.give(datagram)
    peer.now += 5 * SECOND
    peer.say()
    for _ in range(20):
        peer.now += 10_000
        peer.give(datagram, ELSEWHERE)
    assert [status.remote for status in peer.tunnel.path_statuses()] == [CLIENT]
    assert peer.bad(BadKind.REPLAY) == 20


@pytest.mark.parametrize("make", [client_peer, server_peer])
def test_own_messages_sent_back(make: Any) -> None:
    """What a side has said itself, before or after a change of keys, is not heard by it."""
    peer: Peer = make()
    peer.connect()
    peer.tunnel.set(SettingsChange(kxtimeout=3 * SECOND), peer.now)
    said = peer.say() + [datagram for _ in range(40) for datagram in peer.tick(SECOND // 10)]
    said += peer.say(pkey=KeyPair(b"x" * 32).public, extensions=CLASSIC)
    own = [datagram for datagram in said if datagram[0] & CONTROL_BIT]
    assert len({opened(datagram).pkey for datagram in own}) == 2
    before = peer.bad(BadKind.REPLAY)
    for datagram in own:
        for path in (peer.path, PathId(peer.path.local, STRANGER)):
            assert peer.give(datagram, path) == []
    assert peer.bad(BadKind.REPLAY) == before + 2 * len(own)
    assert len(peer.tunnel.path_statuses()) == 1


@pytest.mark.parametrize(
    ("offset", "timely"), [(599, True), (601, False), (-599, True), (-601, False)]
)
def test_tolerance(offset: int, timely: bool) -> None:
    """A message is heard when its time is within ten minutes of ours; else the offset is said."""
    peer = unknown_peer()
    [challenge] = peer.say(time=(NOW + offset * SECOND) | CONTROL_BIT)
    assert peer.bad(BadKind.DIFFTIME) == (not timely)
    peer.reply(challenge, time=(NOW + offset * SECOND + 4) | CONTROL_BIT)
    assert len(peer.tunnel.path_statuses()) == timely
    offsets = [event.clock_offset for event in peer.events if isinstance(event, DatagramsDropped)]
    assert offsets == ([] if timely else [offset * SECOND + 1])


@pytest.mark.parametrize("size", [147, 160, 192, 300, 1472])
def test_challenge_is_not_longer_than_what_it_answers(size: int) -> None:
    """Nobody can have a stranger be sent more than they sent themselves."""
    peer = unknown_peer()
    assert [len(reply) for reply in peer.say(size=size)] == [min(size, REQUEST_SIZE)]


def test_captured_requests_make_no_path_after_a_restart() -> None:
    """A server that was just started is told nothing by replays, however fresh they are."""
    peer = unknown_peer()
    captured = [
        seal_control(peer.message(), time=peer.next_time(), size=REQUEST_SIZE) for _ in range(30)
    ]
    for datagram in captured:
        peer.now += 10_000
        assert len(peer.give(datagram, ELSEWHERE)) <= 1
    assert peer.tunnel.path_statuses() == []


def test_wishes_of_a_clock_set_back() -> None:
    """What a client asks for after its clock was set back holds, as what it asked for before."""
    peer = server_peer()
    peer.connect()
    peer.now += SECOND
    back = peer.now - 300 * SECOND
    [challenge] = peer.say(time=back | CONTROL_BIT)
    peer.reply(challenge, time=(back + 4) | CONTROL_BIT)
    peer.say(time=(back + 8) | CONTROL_BIT, state=PathState.BACKUP, mtu=1000)
    assert peer.status.settings.state == PathState.BACKUP
    assert peer.status.mtu == 1000 - OVERHEAD


@pytest.mark.parametrize("offset", [900 * SECOND, -900 * SECOND])
def test_wrong_clock_is_answered_now_and_then(offset: int) -> None:
    """The replies that tell a client of its wrong clock are few, whatever it sends."""
    peer = unknown_peer()
    times, replies = [], []
    for _ in range(1000):
        peer.now += 1000
        times.append((peer.next_time() + offset) | CONTROL_BIT)
        replies += peer.say(time=times[-1])
    assert 9 <= len(replies) <= SECOND // CHALLENGE_INTERVAL
    assert opened(replies[0]).sent_time == times[0] & TIME_MASK
    assert peer.bad(BadKind.DIFFTIME) == 1000
    assert peer.tunnel.path_statuses() == []


def test_wrong_clock_of_a_reply_is_not_answered() -> None:
    """Only requests are answered, or two peers would answer each other for ever."""
    peer = unknown_peer()
    assert peer.say(time=(NOW - 900 * SECOND) | CONTROL_BIT, sent_time=5) == []
    peer = client_peer()
    assert peer.say(time=(NOW - 900 * SECOND) | CONTROL_BIT) == []


def test_challenge_proves_a_clock_set_back() -> None:
    """A client whose clock was set back is heard once it has answered the server's answer."""
    peer = server_peer()
    peer.connect()
    peer.now += SECOND
    back = peer.now - 300 * SECOND
    [challenge] = peer.say(time=back | CONTROL_BIT)
    assert opened(challenge).sent_time == (back | CONTROL_BIT) & TIME_MASK
    heard = peer.status.rx.total
    peer.say(time=(back + 4) | CONTROL_BIT)
    assert peer.status.rx.total == heard, "no proof, not heard"
    peer.reply(challenge, time=(back + 8) | CONTROL_BIT)
    assert peer.status.rx.total == heard + 1
    peer.say(time=(back + 12) | CONTROL_BIT)
    assert peer.status.rx.total == heard + 2


def test_answer_to_an_old_challenge_proves_nothing() -> None:
    """An answer that took more than five seconds may have been kept back."""
    peer = server_peer()
    peer.connect()
    peer.now += SECOND
    [challenge] = peer.say(time=(peer.now - 300 * SECOND) | CONTROL_BIT)
    heard = peer.status.rx.total
    peer.now += 6 * SECOND
    peer.reply(challenge, time=(peer.now - 300 * SECOND) | CONTROL_BIT)
    assert peer.status.rx.total == heard


# How many paths.


def client_path(index: int) -> PathId:
    return PathId(SERVER.address, CLIENT._replace(port=CLIENT.port + index))


def full_server() -> Peer:
    """A server with as many paths as there may be, all heard just now."""
    peer = server_peer()
    for index in range(1, PATHS_MAX):
        assert peer.say(path=client_path(index))
    return peer


def test_one_path_too_many() -> None:
    """While all are in use no more paths are made than 32, and the message is counted."""
    peer = full_server()
    assert peer.say(path=client_path(99)) == []
    assert len(peer.tunnel.path_statuses()) == PATHS_MAX
    assert peer.bad(BadKind.PATH) == 1
    assert peer.say(path=client_path(0)), "the others go on"


def test_silent_path_makes_room() -> None:
    """The path that is silent longest gives its place to a new one."""
    peer = full_server()
    peer.now += SECOND
    for index in range(PATHS_MAX):
        if index != 5:
            peer.say(path=client_path(index))
    assert peer.say(path=client_path(99))
    assert len(peer.tunnel.path_statuses()) == PATHS_MAX
    removed = [event.path for event in peer.events if isinstance(event, PathRemoved)]
    assert removed == [client_path(5)]
