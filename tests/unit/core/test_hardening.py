"""Mistakes that were made once: each of these failed before it was mended."""

from glorytun.core.batch import Batch
from glorytun.core.crypto import KeyPair
from glorytun.core.settings import SECOND, PathState
from glorytun.core.status import BadKind, Condition
from tests.simulation import MILLISECOND, Simulation, Wire
from tests.unit.core.peer import (
    CLASSIC,
    Peer,
    client_peer,
    open_control,
    seal_control,
    server_peer,
)
from tests.unit.core.test_rate import Link

UNUSABLE = bytes(32)
"""A public key of low order: RFC 7748, 6.1."""


def test_unusable_key_leaves_the_servers_pair_alone() -> None:
    """An unusable key of the client brings no new pair of the server, which nobody could use."""
    peer = server_peer()
    peer.now += 3600 * SECOND
    before = open_control(peer.say()[0])
    peer.say(pkey=UNUSABLE)
    after = open_control(peer.say()[0])
    assert before is not None
    assert after is not None
    assert after.pkey == before.pkey


def test_unusable_key_stops_no_traffic() -> None:
    """Nor does it, from whoever knows the secret key, end a tunnel at work."""
    simulation = Simulation(Wire(), kxtimeout=100 * SECOND)
    simulation.up()
    simulation.stream(simulation.client, count=600, interval=SECOND // 10)
    message = Peer(tunnel=simulation.server.tunnel, now=simulation.now).message(pkey=UNUSABLE)
    time = (simulation.now + 2000) // 4 * 4 | 1
    datagram = seal_control(message, time=time, size=192)
    simulation.receive(simulation.server, simulation.server_path(0), datagram)
    simulation.run(SECOND)
    sent, refused = simulation.stream(simulation.client, count=100, interval=10 * MILLISECOND)
    simulation.run(SECOND)
    assert not refused
    assert set(sent) <= set(simulation.server.delivered)


def test_short_control_message_behind_a_long_one() -> None:
    """Each message of a batch is answered at its own length, and counted with it."""
    peer = server_peer()
    long = seal_control(peer.message(), time=peer.next_time(), size=500)
    short = seal_control(peer.message(), time=peer.next_time(), size=192)
    before = peer.status.rx.bytes if peer.tunnel.path_statuses() else 0
    peer.tunnel.receive(Batch(bytearray(long + short), 0, 500, 2, 500, 192), peer.path, peer.now)
    assert [len(datagram) for datagram in peer.take()] == [500, 192]
    assert peer.status.rx.bytes - before == 692


def test_many_at_once_begin_the_next_key() -> None:
    """The first that is opened under it makes it the likeliest, and keeps none of the rest back."""
    peer = server_peer()
    peer.connect()
    peer.pair = KeyPair(b"n" * 32)
    peer.now += SECOND
    answer = open_control(peer.say()[0])
    assert answer is not None
    new = peer.session(answer.pkey)
    bad = peer.bad(BadKind.DECRYPT)
    packets = [b"<%d>" % number for number in range(4)]
    datagrams = b"".join(peer.seal(new, packet) for packet in packets)
    runs = peer.tunnel.receive(Batch(bytearray(datagrams), 0, 25, 4, 25, 25), peer.path, peer.now)
    assert [bytes(row) for run in runs for row in run.rows()] == packets
    assert peer.bad(BadKind.DECRYPT) == bad


def test_mark_behind_packets_is_no_packet() -> None:
    """The packet of one byte that says a key is used is not delivered, wherever it comes."""
    peer = server_peer()
    session = peer.connect()
    packet, mark = peer.seal(session, b"E" * 100), peer.seal(session, b"\0")
    batch = Batch(bytearray(packet + mark), 0, 122, 2, 122, 23)
    runs = peer.tunnel.receive(batch, peer.path, peer.now)
    assert [bytes(row) for run in runs for row in run.rows()] == [b"E" * 100]


def test_state_1_is_never_said_to_a_peer_without_extensions() -> None:
    """Not even to one that said it itself."""
    peer = server_peer(extensions=CLASSIC)
    peer.say(size=147)
    said = [open_control(datagram) for datagram in peer.say(size=147, state=PathState.DOWN)]
    assert all(message and message.state != PathState.DOWN for message in said)


def test_queue_that_stands_is_drained() -> None:
    """With a sender that always has data, the rate that is found keeps the link's buffer low."""
    link = Link().rest()
    link.run(5 * SECOND)
    queues = []
    for _ in range(400):
        link.run(SECOND // 10)
        queues.append(link.busy_until - link.now)
    assert sum(queues) / len(queues) < 100 * MILLISECOND


def test_reply_overtaken_by_a_farewell() -> None:
    """A reply from before the peer stopped doesn't make its path look alive."""
    peer = client_peer()
    peer.connect()
    [request, *_] = peer.tick(SECOND // 10)
    early = peer.next_time()
    peer.say(state=PathState.DOWN)
    peer.reply(request, time=early)
    assert peer.condition() == Condition.DEGRADED
