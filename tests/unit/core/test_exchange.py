"""The key exchange: which session is used for what, and when."""

from random import Random
from typing import Any

import pytest

from glorytun.core.batch import Batch
from glorytun.core.crypto import AEGIS, AES_GCM, CHACHA, confirmation, has_aegis
from glorytun.core.exchange import LAST_KEPT, KeyExchange, Session
from glorytun.core.settings import SECOND
from glorytun.core.wire import TAG_SIZE, TIME_SIZE, Capability, ControlMessage, Extensions
from tests.unit.core.peer import NOW, PSK, server_peer

PLAIN = Capability.TIMESTAMPS
LOW_ORDER = bytes(32)


def make(*, client: bool, seed: int = 1, ours: Capability = PLAIN) -> KeyExchange:
    entropy = Random(seed).randbytes
    return KeyExchange(psk=PSK, client=client, ours=ours, entropy=entropy, now=NOW)


def message(sender: KeyExchange, **fields: Any) -> ControlMessage:
    """What one side says, with the confirmation of the key it knows."""
    confirm = confirmation(sender.remote) if sender.remote else b""
    extensions = Extensions(capabilities=PLAIN, confirm=confirm)
    values: dict[str, Any] = {"pkey": sender.pair.public, "extensions": extensions}
    return server_peer().message(**values | fields)


def passes(sender: Session | None, receiver: Session | None) -> bool:
    """Whether what one side seals the other opens."""
    assert sender is not None
    assert receiver is not None
    packet = Batch.of(b"packet", headroom=TIME_SIZE, tailroom=TAG_SIZE)
    datagram = sender.seal(packet, NOW)
    assert datagram is not None
    into = bytearray(len(datagram.buffer))
    return receiver.rx.open(datagram, into) == [True] and b"packet" in into


class Pair:
    """A client and a server that talk without loss."""

    def __init__(self) -> None:
        self.client = make(client=True, seed=1)
        self.server = make(client=False, seed=2)
        self.now = NOW

    def talk(self) -> None:
        """A request and its reply."""
        self.now += SECOND
        assert self.server.heard_client(message(self.client), self.now, renew_after=0)
        assert self.client.heard_server(message(self.server), echo=self.now, now=self.now)

    def confirm(self) -> None:
        """Data under the next session, both ways."""
        assert self.server.next is not None
        assert self.server.opened_with(self.server.next, self.now)
        assert self.client.next is not None
        assert self.client.opened_with(self.client.next, self.now)

    def rotate(self) -> None:
        self.now += SECOND
        self.client.rotate(self.now, after=self.now)
        self.talk()


@pytest.fixture
def pair() -> Pair:
    """Two sides that have one session."""
    made = Pair()
    made.talk()
    made.confirm()
    return made


@pytest.mark.parametrize("client", [True, False])
def test_nothing_before_the_first_exchange(client: bool) -> None:
    """There is nothing to seal or open data with: never the secret key."""
    exchange = make(client=client)
    assert exchange.sending is None
    assert exchange.receiving() == []
    assert exchange.remote == b""
    assert exchange.next_timeout() is None


def test_first_exchange() -> None:
    """The client sends first; the server does when data has opened; then the client knows, too."""
    pair = Pair()
    client, server = pair.client, pair.server
    assert server.heard_client(message(client), NOW, renew_after=0)
    assert server.sending is None
    assert server.receiving() == [server.next]
    assert client.heard_server(message(server), echo=NOW, now=NOW)
    assert client.sending is client.next
    assert client.is_unconfirmed
    assert passes(client.sending, server.next)
    assert server.next is not None
    assert server.opened_with(server.next, NOW)
    assert server.sending is server.current
    assert passes(server.sending, client.next)
    assert client.next is not None
    assert client.opened_with(client.next, NOW)
    assert client.sending is client.current
    assert not client.is_unconfirmed
    assert client.remote == server.pair.public
    assert server.remote == client.pair.public


def test_same_keys_again_change_nothing(pair: Pair) -> None:
    """Messages that carry the keys in use leave sessions and pairs alone."""
    before = (pair.client.sending, pair.server.sending, pair.server.pair)
    pair.talk()
    assert (pair.client.sending, pair.server.sending, pair.server.pair) == before
    assert pair.client.next is pair.server.next is None


def test_rotation(pair: Pair) -> None:
    """A new session is next, then current; the one before is last for a while, then gone."""
    old = (pair.client.current, pair.server.current)
    publics = (pair.client.pair.public, pair.server.pair.public)
    pair.rotate()
    client, server = pair.client, pair.server
    assert (client.current, server.current) == old
    assert server.sending is old[1], "the server waits for data under the new one"
    assert client.sending is client.next
    assert passes(client.sending, server.next)
    assert client.receiving() == [old[0], client.next]
    pair.confirm()
    assert (client.last, server.last) == old
    assert client.receiving() == [client.current, old[0]]
    assert client.next is None
    assert passes(server.sending, client.current)
    assert client.pair.public != publics[0]
    assert server.pair.public != publics[1]


def test_replaced_session_opens_for_a_while(pair: Pair) -> None:
    """What is under way when keys change is opened for ten seconds, not for ever."""
    old = pair.server.current
    pair.rotate()
    pair.confirm()
    until = pair.now + LAST_KEPT
    assert pair.server.next_timeout() == until
    pair.server.on_timeout(until - 1)
    assert pair.server.last is old
    pair.server.on_timeout(until)
    assert pair.server.last is None
    assert pair.server.next_timeout() is None


def test_only_the_next_session_takes_over(pair: Pair) -> None:
    """Data under the current session or the last one changes nothing."""
    pair.rotate()
    pair.confirm()
    for session in (pair.server.current, pair.server.last):
        assert session is not None
        assert not pair.server.opened_with(session, pair.now)
    assert pair.server.next is None


def test_rotation_that_is_never_confirmed(pair: Pair) -> None:
    """If the client rotates again before data came back, the session it sent under still opens."""
    pair.rotate()
    unconfirmed = pair.client.next
    assert pair.server.next is not None
    pair.server.opened_with(pair.server.next, pair.now)
    pair.rotate()
    assert pair.client.current is unconfirmed
    assert passes(pair.server.sending, pair.client.current)
    assert passes(pair.client.sending, pair.server.next)


def test_reply_to_an_older_request_is_not_listened_to(pair: Pair) -> None:
    """A server that can't have seen the new key yet doesn't bring the old one back."""
    # Of 0.3.4, whose replies confirm nothing.
    reply = message(pair.server, extensions=Extensions())
    pair.client.rotate(pair.now, after=pair.now)
    before = pair.client.sending
    assert pair.client.heard_server(reply, echo=pair.now, now=pair.now)
    assert pair.client.sending is before
    assert pair.client.next is None


def test_wrong_confirmation_is_not_listened_to(pair: Pair) -> None:
    """A server that confirms another key than ours has not seen it: its own means nothing yet."""
    stale = Extensions(capabilities=PLAIN, confirm=confirmation(b"x" * 32))
    other = make(client=False, seed=9)
    before = pair.client.sending
    heard = message(other, extensions=stale)
    assert pair.client.heard_server(heard, echo=pair.now, now=pair.now)
    assert pair.client.sending is before
    assert pair.client.next is None


def test_peer_that_confirms_nothing_is_listened_to() -> None:
    """0.3.4 has no confirmation: its reply to a request with our key is enough."""
    pair = Pair()
    heard = message(pair.server, extensions=Extensions())
    assert pair.client.heard_server(heard, echo=NOW, now=NOW)
    assert pair.client.sending is not None


def test_client_restarts(pair: Pair) -> None:
    """The server takes the new client's key, and sends under the old one until that is used."""
    before = pair.server.sending
    pair.client = make(client=True, seed=7)
    pair.talk()
    assert pair.server.sending is before
    assert passes(pair.client.sending, pair.server.next)
    pair.confirm()
    assert passes(pair.server.sending, pair.client.current)
    assert pair.server.last is before


@pytest.mark.parametrize(("age", "renewed"), [(59, False), (60, True)])
def test_server_renews_an_old_pair_only(pair: Pair, age: int, renewed: bool) -> None:
    """With a new key of the client the server's own pair is replaced when it is old enough."""
    before, now = pair.server.pair.public, pair.server.renewed_at + age * SECOND
    pair.client = make(client=True, seed=7)
    assert pair.server.heard_client(message(pair.client), now, renew_after=60 * SECOND)
    assert (pair.server.pair.public != before) == renewed
    assert pair.client.heard_server(message(pair.server), echo=now, now=now)
    assert passes(pair.client.sending, pair.server.next)


def test_server_restarts(pair: Pair) -> None:
    """The client takes the new server's key at once: only it can have answered."""
    pair.server = make(client=False, seed=8)
    pair.talk()
    assert passes(pair.client.sending, pair.server.next)
    pair.confirm()
    assert passes(pair.server.sending, pair.client.current)


def test_key_that_leaves_no_secret(pair: Pair) -> None:
    """A public key of low order is refused, and the sessions stay as they are."""
    for exchange in (pair.client, pair.server):
        before = (exchange.current, exchange.next, exchange.last, exchange.remote)
        heard = message(exchange, pkey=LOW_ORDER, extensions=Extensions())
        if exchange is pair.client:
            assert not exchange.heard_server(heard, echo=pair.now, now=pair.now)
        else:
            assert not exchange.heard_client(heard, pair.now, renew_after=SECOND)
        assert (exchange.current, exchange.next, exchange.last, exchange.remote) == before


def test_forget(pair: Pair) -> None:
    """When the peer is gone neither a session nor its secret is left; the client can come back."""
    pair.rotate()
    known = pair.server.pair.public
    pair.server.forget(NOW)
    assert pair.server.sending is None
    assert pair.server.receiving() == []
    assert pair.server.remote == b""
    assert pair.server.is_mine(known)
    anew = pair.server.pair.public
    assert anew != known
    pair.server.forget(NOW)
    assert pair.server.pair.public == anew
    pair.talk()
    assert pair.client.is_unconfirmed
    assert passes(pair.client.sending, pair.server.next)


def test_own_key_is_known(pair: Pair) -> None:
    """Our own key, and the one before it, are ours when they come back; the peer's isn't."""
    mine = pair.client.pair.public
    assert pair.client.is_mine(mine)
    assert not pair.client.is_mine(pair.server.pair.public)
    pair.rotate()
    assert pair.client.is_mine(mine)
    assert pair.client.is_mine(pair.client.pair.public)
    pair.rotate()
    assert not pair.client.is_mine(mine)


ALL = Capability.AEGIS | Capability.AES_GCM | PLAIN
NEEDS_AEGIS = pytest.mark.skipif(not has_aegis(), reason="pyaegis is not installed")


@pytest.mark.parametrize(
    ("ours", "theirs", "aes", "cipher"),
    [
        pytest.param(ALL, ALL, True, AEGIS, marks=NEEDS_AEGIS),
        (ALL, ALL & ~Capability.AEGIS, False, AES_GCM),
        (ALL & ~Capability.AEGIS, ALL, True, AES_GCM),
        (ALL, PLAIN, False, CHACHA),
        (PLAIN, ALL, True, CHACHA),
        pytest.param(ALL, None, True, AEGIS, marks=NEEDS_AEGIS),
        (ALL, None, False, CHACHA),
        # The flag of the protocol outweighs the extension.
        (ALL, Capability.AEGIS | PLAIN, False, CHACHA),
    ],
)
def test_cipher(ours: Capability, theirs: Capability | None, aes: bool, cipher: str) -> None:
    """The cipher is the best that both announce; `aes` alone speaks for AEGIS."""
    extensions = Extensions(capabilities=theirs)
    other = make(client=False, seed=9)
    client = make(client=True, ours=ours)
    heard = message(other, aes=aes, extensions=extensions)
    assert client.heard_server(heard, echo=NOW, now=NOW)
    assert client.sending is not None
    assert client.sending.cipher == cipher
    server = make(client=False, ours=ours)
    assert server.heard_client(heard, NOW, renew_after=0)
    assert server.next is not None
    assert server.next.cipher == cipher
