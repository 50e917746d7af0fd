"""A tunnel under test, and the other end of its wire made by hand, message by message."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.batch import Batch
from glorytun.core.conversation import MARK
from glorytun.core.crypto import (
    CHACHA,
    KeyPair,
    capabilities,
    make_aead,
    session_key,
    shared_secret,
)
from glorytun.core.events import Event
from glorytun.core.exchange import Session
from glorytun.core.settings import SECOND, CipherChoice, PathChange, PathState, Settings
from glorytun.core.status import BadKind, Condition, PathStatus
from glorytun.core.tunnel import Tunnel
from glorytun.core.wire import (
    CONTROL_BIT,
    REQUEST_SIZE,
    TAG_SIZE,
    TIME_SIZE,
    Capability,
    ControlMessage,
    Extensions,
    pull_control,
    pull_time,
    push_control,
    push_time,
)

PSK = bytes(range(32))
NOTHING = Capability(0)
NOW = 1_800_000_000 * SECOND
CLIENT = Endpoint(pack_address("198.51.100.1"), 4000)
SERVER = Endpoint(pack_address("192.0.2.1"), 5000)
STRANGER = Endpoint(pack_address("203.0.113.9"), 7000)
ELSEWHERE = PathId(SERVER.address, STRANGER)
"""A path that a server under test does not have."""
LOW_ORDER = bytes(32)
"""A public key with which anybody's shared secret is known (RFC 7748 6.1)."""
OURS = Extensions(capabilities=Capability.TIMESTAMPS, software="by hand")
"""What a peer of our kind says of itself."""
CLASSIC = Extensions()
"""What glorytun 0.3.4 says: nothing."""
EXTENSIONS = pytest.mark.parametrize("extensions", [OURS, CLASSIC], ids=["ours", "0.3.4"])


def make_tunnel(
    *,
    client: bool,
    seed: int = 1,
    now: int = NOW,
    ours: Capability = NOTHING,
    **settings: Any,
) -> Tunnel:
    """A tunnel that knows ChaCha20-Poly1305 only, and what is in `ours` beside."""
    return Tunnel(
        psk=PSK,
        settings=Settings(client=client, cipher=CipherChoice.CHACHA, **settings),
        ours=ours | capabilities(CipherChoice.CHACHA, aes_hardware=False),
        software="under test",
        entropy=Random(seed).randbytes,
        now=now,
    )


def seal_control(message: ControlMessage, *, time: int, size: int) -> bytes:
    """A control datagram of `size` bytes."""
    datagram = Batch.of(bytes(TIME_SIZE) + push_control(message, size=size) + bytes(TAG_SIZE))
    push_time(datagram.buffer, 0, time)
    make_aead(CHACHA, PSK).seal(datagram)
    return bytes(datagram.buffer)


def open_control(datagram: bytes) -> ControlMessage | None:
    """The message of a control datagram; None if it is something else."""
    if not datagram[0] & CONTROL_BIT:
        return None
    plain = bytearray(len(datagram))
    assert make_aead(CHACHA, PSK).open(Batch.of(datagram), plain) == [True]
    return pull_control(plain[TIME_SIZE:-TAG_SIZE])


def opened(datagram: bytes) -> ControlMessage:
    """The message of a datagram that must be a control datagram."""
    message = open_control(datagram)
    assert message is not None
    return message


def states_said(datagrams: list[bytes]) -> set[int]:
    """The states in the control messages among datagrams."""
    return {message.state for datagram in datagrams if (message := open_control(datagram))}


def is_request(datagram: bytes) -> bool:
    """Whether a datagram is a request."""
    message = open_control(datagram)
    return message is not None and message.is_request


@dataclass(kw_only=True)
class Peer:
    """The other end of `tunnel`, in the role that the tunnel has not."""

    tunnel: Tunnel
    now: int = NOW
    extensions: Extensions = OURS
    pair: KeyPair = field(default_factory=lambda: KeyPair(Random(2).randbytes(32)))
    events: list[Event] = field(default_factory=list)
    _time: int = 0

    @property
    def path(self) -> PathId:
        """The path between the two, as the tunnel has it."""
        local, remote = (CLIENT, SERVER) if self.tunnel.settings.client else (SERVER, CLIENT)
        return PathId(local.address, remote)

    def next_time(self) -> int:
        """The next control time of this role."""
        role = 2 if self.tunnel.settings.client else 0
        self._time = max(self._time + 4, self.now - self.now % 4) | role | CONTROL_BIT
        return self._time

    def message(self, **fields: Any) -> ControlMessage:
        """A message that says nothing in particular."""
        values: dict[str, Any] = {
            "sent_time": 0,
            "state": PathState.UP,
            "aes": False,
            "pkey": self.pair.public,
            **dict.fromkeys(("tx_bytes", "tx_total", "rx_bytes", "rx_total"), 0),
            "max_rate": 0,
            "beat": SECOND // 10,
            "mtu": 1472,
            "loss": 0,
            "fixed_rate": False,
            "loss_limit": 255,
            "sent_to": self.path.remote,
            "extensions": self.extensions,
        }
        return ControlMessage(**(values | fields))

    def give(self, datagram: bytes, path: PathId | None = None) -> list[bytes]:
        """The tunnel receives a datagram; what it sends in consequence."""
        self.tunnel.receive(Batch.of(datagram), path or self.path, self.now)
        return self.take()

    def take(self) -> list[bytes]:
        """What the tunnel has to send."""
        self.events += self.tunnel.next_events()
        return [bytes(row) for out in self.tunnel.next_datagrams() for row in out.datagrams.rows()]

    def say(
        self,
        *,
        size: int = REQUEST_SIZE,
        time: int = 0,
        path: PathId | None = None,
        **fields: Any,
    ) -> list[bytes]:
        """The tunnel receives a message; what it sends in consequence."""
        message = self.message(**fields)
        return self.give(seal_control(message, time=time or self.next_time(), size=size), path)

    def reply(self, request: bytes, *, size: int = 0, **fields: Any) -> list[bytes]:
        """The tunnel receives the answer to a datagram of its own."""
        return self.say(size=size or len(request), **{"sent_time": pull_time(request), **fields})

    def tick(self, after: int = 0) -> list[bytes]:
        """Time passes; what the tunnel sends then."""
        self.now += after
        self.tunnel.on_timeout(self.now)
        return self.take()

    def session(self, public: bytes) -> Session:
        """What our pair and the tunnel's public key agree on, as this side has it."""
        shared = shared_secret(self.pair, public)
        assert shared is not None
        tx, rx = (
            session_key(psk=PSK, shared=shared, receiver=receiver, sender=sender)
            for receiver, sender in (
                (public, self.pair.public),
                (self.pair.public, public),
            )
        )
        return Session(cipher=CHACHA, tx=make_aead(CHACHA, tx), rx=make_aead(CHACHA, rx))

    def connect(self, **fields: Any) -> Session:
        """Exchange keys and data, and let the tunnel find its MTU; the session both now use."""
        if self.tunnel.settings.client:
            for _ in range(3):
                requests = [d for d in self.tick(SECOND // 10) if is_request(d)]
                for request in requests:
                    self.reply(request, **fields)
        else:
            requests = self.say(**fields)
            self.reply(requests[0], **fields)
        message = open_control(requests[0])
        assert message is not None
        session = self.session(message.pkey)
        self.send(session, MARK)
        self.send(session, b"data")
        self.take()
        return session

    def seal(self, session: Session, packet: bytes) -> bytes:
        """The datagram of a packet."""
        batch = Batch.of(packet, headroom=TIME_SIZE, tailroom=TAG_SIZE)
        assert session.seal(batch, self.now) is not None
        return bytes(batch.buffer)

    def send(self, session: Session, packet: bytes, path: PathId | None = None) -> list[bytes]:
        """The tunnel receives a packet; what it delivers."""
        return self.receive(self.seal(session, packet), path)

    def receive(self, datagram: bytes, path: PathId | None = None) -> list[bytes]:
        """The tunnel receives a datagram; what it delivers."""
        delivered = self.tunnel.receive(Batch.of(datagram), path or self.path, self.now)
        return [bytes(row) for packets in delivered for row in packets.rows()]

    @property
    def status(self) -> PathStatus:
        """How the tunnel says the path is doing."""
        return next(
            status
            for status in self.tunnel.path_statuses()
            if PathId(status.local, status.remote) == self.path
        )

    def condition(self) -> Condition:
        """How the path is doing."""
        return self.status.condition

    def bad(self, kind: BadKind) -> int:
        """How many datagrams of a kind the tunnel has dropped."""
        return next(bad.count for bad in self.tunnel.bad_statuses() if bad.kind == kind)

    def change(self, **change: Any) -> list[bytes]:
        """The user changes the path; what is sent at once."""
        self.tunnel.set_path(self.path, PathChange(**change), self.now)
        return self.tick()


def client_peer(*, ours: Capability = NOTHING, **arguments: Any) -> Peer:
    """The server of a client under test whose path is up; its first requests are not taken yet."""
    peer = Peer(tunnel=make_tunnel(client=True, ours=ours), **arguments)
    peer.tunnel.set_path(peer.path, PathChange(state=PathState.UP), peer.now)
    return peer


def unknown_peer(**arguments: Any) -> Peer:
    """The client of a server under test that hasn't heard of it yet."""
    return Peer(tunnel=make_tunnel(client=False), **arguments)


def server_peer(**arguments: Any) -> Peer:
    """The client of a server under test, which it has just proven to be: no replay can do that."""
    peer = unknown_peer(**arguments)
    [challenge] = peer.say()
    assert peer.reply(challenge) == []
    return peer
