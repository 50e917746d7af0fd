"""The tunnel: data in and out, time, and what the user asks for."""

from typing import Any

import pytest

from glorytun.core.address import PathId
from glorytun.core.batch import Batch
from glorytun.core.conversation import MARK
from glorytun.core.crypto import CHACHA, KeyPair, make_aead
from glorytun.core.events import (
    DatagramsDropped,
    KeysExchanged,
    PathAdded,
    PathMtuFound,
    PathRemoved,
    TunnelMtuChanged,
)
from glorytun.core.exchange import LAST_KEPT, Session
from glorytun.core.paths import FORGET_AFTER, PATHS_MAX
from glorytun.core.settings import SECOND, PathChange, PathState, SettingsChange
from glorytun.core.status import BadKind, Condition
from glorytun.core.tunnel import WAKE_TRIES, Tunnel
from glorytun.core.wire import (
    CONTROL_BIT,
    OVERHEAD,
    REQUEST_SIZE,
    TAG_SIZE,
    TIME_SIZE,
    pull_time,
    unwrap_time,
)
from glorytun.errors import TunnelError
from tests.unit.core.peer import (
    CLIENT,
    NOW,
    PSK,
    SERVER,
    Peer,
    client_peer,
    open_control,
    seal_control,
    server_peer,
    unknown_peer,
)

ROLES = pytest.mark.parametrize("make", [client_peer, server_peer])
ELSEWHERE = {
    True: PathId(CLIENT.address, SERVER._replace(port=7000)),
    False: PathId(SERVER.address, CLIENT._replace(port=7000)),
}


def offer(peer: Peer, *packets: bytes) -> list[bytes]:
    """The datagrams that the tunnel makes of packets, all of one size but the last."""
    stride = len(packets[0]) + OVERHEAD
    buffer = bytearray(stride * len(packets))
    for index, packet in enumerate(packets):
        start = index * stride + TIME_SIZE
        buffer[start : start + len(packet)] = packet
    batch = Batch(buffer, TIME_SIZE, stride, len(packets), len(packets[0]), len(packets[-1]))
    sent = peer.tunnel.send(batch, peer.now)
    assert all(outgoing.path == peer.path for outgoing in sent)
    return [bytes(row) for outgoing in sent for row in outgoing.datagrams.rows()]


def opened(session: Session, datagram: bytes) -> bytes:
    """What the peer makes of a datagram of the tunnel."""
    into = bytearray(len(datagram))
    assert session.rx.open(Batch.of(datagram), into) == [True]
    return bytes(into[TIME_SIZE:-TAG_SIZE])


def together(*datagrams: bytes) -> Batch:
    """Datagrams as one batch, all as long but the last."""
    size = len(datagrams[0])
    return Batch(bytearray(b"".join(datagrams)), 0, size, len(datagrams), size, len(datagrams[-1]))


def rows(packets: list[Batch]) -> list[bytes]:
    return [bytes(row) for batch in packets for row in batch.rows()]


# Data.


@ROLES
def test_nothing_is_sealed_under_the_secret_key(make: Any) -> None:
    """Before keys are exchanged nothing is sent, and it is counted."""
    peer: Peer = make()
    peer.say()
    assert peer.tunnel.next_turn(peer.now) is None
    assert offer(peer, b"one", b"two") == []
    status = peer.tunnel.status()
    assert (status.unsent_total, status.sent_total, status.cipher) == (2, 0, "none")


@ROLES
@pytest.mark.parametrize("connected", [False, True])
def test_nothing_is_opened_under_the_secret_key(make: Any, connected: bool) -> None:
    """Data under the secret key itself, as 0.3.4 sends it at the start, is not delivered."""
    peer: Peer = make()
    peer.connect() if connected else peer.say()
    bad = peer.bad(BadKind.DECRYPT)
    under_psk = Session(cipher=CHACHA, tx=make_aead(CHACHA, PSK), rx=make_aead(CHACHA, PSK))
    assert peer.send(under_psk, b"packet") == []
    assert peer.bad(BadKind.DECRYPT) == bad + 1


@ROLES
def test_data_passes(make: Any) -> None:
    """What is offered is sealed under even times, what comes is delivered, and both are counted."""
    peer: Peer = make()
    session = peer.connect()
    before = peer.tunnel.status()
    datagrams = offer(peer, b"a packet", b"another.", b"short")
    assert [opened(session, datagram) for datagram in datagrams] == [
        b"a packet",
        b"another.",
        b"short",
    ]
    times = [unwrap_time(pull_time(datagram), now=peer.now) for datagram in datagrams]
    assert not any(time & CONTROL_BIT for time in times)
    assert times == [times[0], times[0] + 2, times[0] + 4]
    assert peer.send(session, b"packet") == [b"packet"]
    after = peer.tunnel.status()
    assert (after.sent_total - before.sent_total, after.sent_bytes - before.sent_bytes) == (3, 21)
    assert after.received_total - before.received_total == 1
    assert after.received_bytes - before.received_bytes == len(b"packet")
    assert (after.cipher, after.mtu, after.client) == (CHACHA, 1450, make is client_peer)


@ROLES
def test_datagrams_are_counted_on_their_path(make: Any) -> None:
    """A path counts whole UDP payloads, of every row."""
    peer: Peer = make()
    session = peer.connect()
    tx, rx = peer.status.tx, peer.status.rx
    offer(peer, bytes(100), bytes(50))
    assert peer.status.tx.total - tx.total == 2
    assert peer.status.tx.bytes - tx.bytes == 150 + 2 * OVERHEAD
    peer.tunnel.receive(
        together(peer.seal(session, bytes(100)), peer.seal(session, bytes(50))),
        peer.path,
        peer.now,
    )
    assert peer.status.rx.total - rx.total == 2
    assert peer.status.rx.bytes - rx.bytes == 150 + 2 * OVERHEAD


@ROLES
def test_packet_that_does_not_fit(make: Any) -> None:
    """A packet longer than the MTU is dropped and counted; one of its size goes."""
    peer: Peer = make()
    peer.connect()
    assert len(offer(peer, bytes(1450))) == 1
    assert offer(peer, bytes(1451)) == []
    assert peer.tunnel.status().unsent_total == 1


@ROLES
def test_batch_of_all_kinds(make: Any) -> None:
    """From a batch the good packets are delivered in order, whatever lies between them."""
    peer: Peer = make()
    session = peer.connect()
    size = REQUEST_SIZE
    packets = [bytes([index]) * (size - OVERHEAD) for index in range(5)]
    data = [peer.seal(session, packet) for packet in packets]
    control = seal_control(peer.message(sent_time=1), time=peer.next_time(), size=size)
    altered = data[2][:-1] + bytes([data[2][-1] ^ 1])
    noise = b"\0" * size
    last = peer.seal(session, b"short")
    batch = together(data[0], data[1], control, altered, data[3], noise, data[4], data[0], last)
    heard = peer.status.rx.total
    delivered = rows(peer.tunnel.receive(batch, peer.path, peer.now))
    assert delivered == [packets[0], packets[1], packets[3], packets[4], b"short"]
    assert peer.bad(BadKind.DECRYPT) == 2
    assert peer.bad(BadKind.REPLAY) == 1
    assert peer.status.rx.total == heard + 6


@pytest.mark.parametrize("size", [1, 6, 21, 22])
def test_datagram_that_is_too_short(size: int) -> None:
    """What has no room for time, tag and a byte is counted by its size."""
    peer = server_peer()
    peer.connect()
    assert peer.receive(bytes(size)) == []
    assert peer.bad(BadKind.SIZE) == 1


@ROLES
def test_replayed_data(make: Any) -> None:
    """Data is delivered once, also when it comes late, and not at all when it is too late."""
    peer: Peer = make()
    session = peer.connect()
    packets = [b"one", b"two", b"three"]
    late = [peer.seal(session, packet) for packet in packets]
    too_late = peer.seal(session, b"four")
    peer.now += SECOND
    peer.send(session, b"newer")
    for packet, datagram in zip(packets, late, strict=True):
        assert peer.receive(datagram) == [packet]
        assert peer.receive(datagram) == []
    peer.now += SECOND
    peer.send(session, b"newest")
    assert peer.receive(too_late) == []
    assert peer.bad(BadKind.REPLAY) == 4


@ROLES
def test_data_of_a_wrong_time(make: Any) -> None:
    """Data from far away in time is not delivered, and it is said by how much."""
    peer: Peer = make()
    session = peer.connect()
    datagram = peer.seal(session, b"packet")
    peer.now += 601 * SECOND
    assert peer.receive(datagram) == []
    peer.take()
    offsets = [
        event.clock_offset
        for event in peer.events
        if isinstance(event, DatagramsDropped) and event.kind == BadKind.DIFFTIME
    ]
    assert len(offsets) == 1
    assert -601 * SECOND <= offsets[0] < -600 * SECOND


@ROLES
def test_data_makes_no_path(make: Any) -> None:
    """Data from a new address is delivered, since it is authentic, but makes or moves no path."""
    peer: Peer = make()
    session = peer.connect()
    path = ELSEWHERE[make is client_peer]
    before = peer.status
    assert peer.send(session, b"packet", path) == [b"packet"]
    assert peer.tunnel.path_statuses() == [before]


def test_data_under_the_replaced_key() -> None:
    """While keys change, data is opened under the old key and the new one; later the new only."""
    peer = server_peer()
    old = peer.connect()
    peer.pair = KeyPair(b"n" * 32)
    peer.now += SECOND
    peer.say()
    new = peer.connect()
    assert peer.send(old, b"old") == [b"old"]
    assert peer.send(new, b"new") == [b"new"]
    batch = together(
        peer.seal(old, b"<1>"),
        peer.seal(new, b"<2>"),
        peer.seal(old, b"<3>"),
        peer.seal(new, b"<4>"),
    )
    assert rows(peer.tunnel.receive(batch, peer.path, peer.now)) == [b"<1>", b"<2>", b"<3>", b"<4>"]
    peer.pair = KeyPair(b"o" * 32)
    peer.say()
    assert peer.send(old, b"last of three") == [b"last of three"]
    bad = peer.bad(BadKind.DECRYPT)
    peer.tick(LAST_KEPT)
    assert peer.send(old, b"old") == []
    assert peer.bad(BadKind.DECRYPT) == bad + 1
    assert peer.send(new, b"new") == [b"new"]
    exchanged = [event for event in peer.events if isinstance(event, KeysExchanged)]
    assert [event.first for event in exchanged] == [True, False]


# Time.


def test_nothing_is_due_at_first() -> None:
    """A server waits; a client does so until it has a path."""
    assert unknown_peer().tunnel.next_timeout() is None
    tunnel = Peer(tunnel=client_peer().tunnel).tunnel
    timeout = tunnel.next_timeout()
    assert timeout is not None
    assert timeout <= NOW


def test_client_renews_its_key() -> None:
    """After `kxtimeout` requests carry another key."""
    peer = client_peer()
    peer.tunnel.set(SettingsChange(kxtimeout=10 * SECOND), peer.now)
    session = peer.connect()
    keys = set()
    for _ in range(150):
        for datagram in peer.tick(SECOND // 10):
            if message := open_control(datagram):
                keys.add(message.pkey)
        peer.send(session, b"data")
    assert len(keys) == 2


def test_change_of_settings() -> None:
    """What is given changes, the rest stays, and the next timeout follows at once."""
    peer = client_peer()
    peer.tunnel.set(SettingsChange(timetolerance=5 * SECOND, keepalive=7 * SECOND), peer.now)
    settings = peer.tunnel.settings
    assert (settings.timetolerance, settings.keepalive) == (5 * SECOND, 7 * SECOND)
    assert settings.kxtimeout == 3600 * SECOND
    assert peer.tunnel.next_timeout() == peer.now


def test_idle_client_is_quiet() -> None:
    """A second without data, and requests go at the keepalive; with data, at every beat again."""
    peer = client_peer()
    session = peer.connect()
    for _ in range(12):
        for datagram in peer.tick(SECOND // 10):
            peer.reply(datagram)
    assert sum(len(peer.tick(SECOND // 10)) for _ in range(200)) == 0
    peer.send(session, b"data")
    assert peer.tunnel.next_timeout() == peer.now
    assert len(peer.tick()[0]) == REQUEST_SIZE


def test_server_wakes_an_idle_client() -> None:
    """Data after a rest is followed by packets of one byte, until the client asks or a second."""
    peer = server_peer()
    session = peer.connect()
    peer.tick(5 * SECOND)
    offer(peer, b"first")
    assert peer.tunnel.next_timeout() is not None
    marks = [peer.tick(after) for after in [0, *[SECOND // 10] * 19]]
    assert [len(sent) for sent in marks] == [1] * WAKE_TRIES + [0] * (20 - WAKE_TRIES)
    assert {opened(session, mark) for sent in marks for mark in sent} == {MARK}
    peer.tick(5 * SECOND)
    offer(peer, b"second")
    assert len(peer.tick()) == 1
    peer.say()
    assert peer.tick(SECOND // 10) == []


def test_server_that_is_busy_wakes_nobody() -> None:
    """While data flows the client asks at every beat anyhow."""
    peer = server_peer()
    peer.connect()
    for _ in range(20):
        offer(peer, b"data")
        assert peer.tick(SECOND // 10) == []


def test_idle_client_is_woken() -> None:
    """A packet of one byte makes an idle client ask at once, and is not answered with another."""
    peer = client_peer()
    session = peer.connect()
    for _ in range(12):
        for datagram in peer.tick(SECOND // 10):
            peer.reply(datagram)
    assert peer.tick(SECOND) == []
    assert peer.send(session, MARK) == []
    assert peer.tunnel.next_timeout() == peer.now
    assert all(datagram[0] & CONTROL_BIT for datagram in peer.tick())
    assert len(peer.tick(SECOND // 10)) >= 1


def test_server_forgets_who_is_gone() -> None:
    """A minute after the last message a path is forgotten, and the keys with the last one."""
    peer = server_peer()
    session = peer.connect()
    peer.tick(FORGET_AFTER - 1)
    assert len(peer.tunnel.path_statuses()) == 1
    peer.tick(1)
    assert peer.tunnel.path_statuses() == []
    assert [event.path for event in peer.events if isinstance(event, PathRemoved)] == [peer.path]
    assert peer.tunnel.status().cipher == "none"
    assert peer.send(session, b"packet") == []
    assert peer.tunnel.next_timeout() is None


def test_slow_beat_of_a_dead_path() -> None:
    """A client's requests to a peer that is gone become ten times rarer."""
    peer = client_peer()
    sent = [len(peer.tick(SECOND // 10)) for _ in range(200)]
    assert sum(sent[:15]) == 15
    assert 15 <= sum(sent[20:]) <= 20


# MTU.


def test_mtu_of_the_tunnel_is_the_smallest_that_works() -> None:
    """The TUN device's MTU is what fits every path that works, backups too."""
    peer = server_peer()
    peer.connect()
    other = PathId(SERVER.address, CLIENT._replace(port=4001))
    assert peer.tunnel.mtu == 1450
    [reply] = peer.say(path=other, mtu=1400)
    assert peer.tunnel.mtu == 1450
    peer.reply(reply, path=other, mtu=1400)
    assert peer.tunnel.mtu == 1378
    peer.say(path=other, mtu=1400, state=PathState.BACKUP)
    assert peer.tunnel.mtu == 1378
    peer.say(path=other, mtu=1400, state=PathState.DOWN)
    assert peer.tunnel.mtu == 1450
    changes = [event.mtu for event in peer.events if isinstance(event, TunnelMtuChanged)]
    assert changes == [1450, 1378, 1450]


def test_mtu_stays_while_nothing_works() -> None:
    """An outage is no reason to change the device."""
    peer = server_peer()
    peer.connect()
    peer.say(state=PathState.DOWN)
    assert peer.condition() == Condition.DOWN
    assert peer.tunnel.mtu == 1450


def test_kernel_refuses_a_probe() -> None:
    """A size that the kernel doesn't send is given up at once, other sizes and paths aren't."""
    peer = client_peer()
    [request] = peer.tick()
    peer.reply(request)
    for probe in peer.tick(SECOND // 10):
        if len(probe) < 1472:
            peer.reply(probe)
    peer.tunnel.on_too_big(ELSEWHERE[True], 1472, peer.now)
    peer.tunnel.on_too_big(peer.path, 1471, peer.now)
    assert len(peer.tick(SECOND // 10)[1]) == 1472
    peer.tunnel.on_too_big(peer.path, 1472, peer.now)
    assert 1452 < len(peer.tick(SECOND // 10)[1]) < 1472


@pytest.mark.parametrize("largest", [1302, 1303, 1400, 1401])
def test_kernel_refuses_what_is_too_long(largest: int) -> None:
    """The search may end with a refusal as with an answer, and either is an event."""
    peer = client_peer()
    [request] = peer.tick()
    peer.reply(request)
    for _ in range(30):
        for request in peer.tick(SECOND // 10):
            if len(request) > largest:
                peer.tunnel.on_too_big(peer.path, len(request), peer.now)
            else:
                peer.reply(request)
    peer.take()
    assert peer.status.mtu == largest - OVERHEAD
    found = [event.mtu for event in peer.events if isinstance(event, PathMtuFound)]
    assert found == [largest - OVERHEAD]
    assert peer.condition() == Condition.RUNNING


def test_kernel_refuses_less_than_is_in_use() -> None:
    """When the kernel refuses a size that has passed, nothing is known any more."""
    peer = client_peer()
    peer.connect()
    peer.tunnel.on_too_big(peer.path, 1473, peer.now)
    assert peer.status.mtu == 1450
    peer.tunnel.on_too_big(peer.path, 1400, peer.now)
    assert peer.status.mtu == 0
    assert peer.condition() == Condition.PROBING


def test_size_in_use_that_passes_no_more() -> None:
    """When the size that was found is refused, it is unknown until another one is found."""
    peer = client_peer()
    session = peer.connect()
    for _ in range(60):
        peer.send(session, b"data")
        sent = peer.tick(SECOND // 10)
        if len(sent) > 1:
            break
        peer.reply(sent[0])
    assert len(sent[1]) == 1472
    peer.tunnel.on_too_big(peer.path, 1472, peer.now)
    assert peer.status.mtu == 0
    assert peer.condition() == Condition.PROBING


# What the user asks for.


def refused(tunnel: Tunnel, path: PathId, **change: Any) -> str:
    with pytest.raises(TunnelError) as caught:
        tunnel.set_path(path, PathChange(**change), NOW)
    return str(caught.value)


@pytest.mark.parametrize("change", [{"state": PathState.DOWN}, {"loss_limit": 5}])
def test_unknown_path(change: dict[str, Any]) -> None:
    """Only setting a path up makes it; anything else is refused, and says what to do."""
    tunnel = client_peer().tunnel
    assert refused(tunnel, ELSEWHERE[True], **change) == (
        "there is no path 198.51.100.1 to 192.0.2.1:7000 "
        "('glorytun path' lists them, 'glorytun path up ADDRESS' makes one)"
    )


@pytest.mark.parametrize("rates", [{}, {"rate_tx": 0}])
def test_fixed_rate_needs_a_rate(rates: dict[str, int]) -> None:
    """Else nothing is changed, and no path is made."""
    peer = client_peer()
    before = peer.tunnel.path_statuses()
    for path in (peer.path, ELSEWHERE[True]):
        assert refused(peer.tunnel, path, state=PathState.UP, fixed_rate=True, **rates) == (
            "a path whose rate is fixed needs a rate to send at "
            "(`rate fixed tx RATE` gives it, `rate auto` finds it)"
        )
    assert peer.tunnel.path_statuses() == before
    peer.change(rate_tx=5000, fixed_rate=True)
    assert "needs a rate to send at" in refused(peer.tunnel, peer.path, rate_tx=0)
    peer.change(rate_tx=0, fixed_rate=False)
    assert not peer.status.settings.fixed_rate


def test_server_makes_no_path_of_its_own() -> None:
    """A server's paths are its client's."""
    assert "there is no path" in refused(server_peer().tunnel, ELSEWHERE[False], state=PathState.UP)


@pytest.mark.parametrize(
    ("name", "value"),
    [("state", PathState.UP), ("beat", 5000), ("loss_limit", 0), ("rate_rx", 0)],
)
def test_server_follows_its_client(name: str, value: int) -> None:
    """All but the sending rate is the client's to set."""
    peer = server_peer()
    peer.say()
    before = peer.status
    assert refused(peer.tunnel, peer.path, **{name: value}) == (
        f"a server follows its client: {name} can't be set here (set it on the client)"
    )
    assert peer.status == before


def test_too_many_paths() -> None:
    """A client has 32 paths at the most: none of them is given up for another one."""
    peer = client_peer()
    paths = [PathId(bytes(15) + bytes([index]), SERVER) for index in range(1, PATHS_MAX)]
    for path in paths:
        peer.tunnel.set_path(path, PathChange(state=PathState.UP), peer.now)
    peer.now += 60 * SECOND
    assert refused(peer.tunnel, ELSEWHERE[True], state=PathState.UP) == (
        "there are 32 paths, and no more may be"
    )
    assert len(peer.tunnel.path_statuses()) == PATHS_MAX


def test_change_of_a_path_is_told_at_once() -> None:
    """What the user changes is in the next request, which leaves now."""
    peer = client_peer()
    assert PathAdded(path=peer.path) in peer.tunnel.next_events()
    peer.tick()
    [request] = peer.change(
        state=PathState.BACKUP, rate_rx=4000, beat=300_000, loss_limit=9, rate_tx=5000
    )
    message = open_control(request)
    assert message is not None
    assert (message.state, message.max_rate, message.beat) == (PathState.BACKUP, 4000, 300_000)
    assert message.loss_limit == 9
    assert peer.status.settings.rate_tx == 5000
    assert peer.status.rx.rate == 4000


def test_rate_is_kept() -> None:
    """A path that is limited says when it takes the next packet."""
    peer = client_peer()
    peer.connect()
    peer.change(rate_tx=100_000, fixed_rate=True)
    peer.now += 10_000  # For the request that tells of it.
    turn = peer.tunnel.next_turn(peer.now)
    assert turn is not None
    assert turn.at <= peer.now
    for _ in range(3):
        offer(peer, bytes(1000))
    turn = peer.tunnel.next_turn(peer.now)
    assert turn is not None
    assert 20_000 < turn.at - peer.now < 40_000


def test_status_before_anything() -> None:
    """A tunnel that has just started has nothing to say of itself."""
    status = client_peer().tunnel.status()
    assert (status.cipher, status.mtu, status.peer_software) == ("none", 0, "")
    assert (status.keys_exchanged_at, status.sent_total, status.received_total) == (0, 0, 0)


@ROLES
def test_status_names_the_peer(make: Any) -> None:
    """The software that the peer announced, and when keys were exchanged."""
    peer: Peer = make()
    peer.connect()
    status = peer.tunnel.status()
    assert status.peer_software == "by hand"
    assert NOW <= status.keys_exchanged_at <= peer.now
