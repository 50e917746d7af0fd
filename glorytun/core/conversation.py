"""The control messages between the two sides: what is believed, what follows, what is said.

A client's request is answered by the server, and that reply by the client; so each side learns
its round-trip time and loss, and that the other is there. A server makes no requests, but the one
that says it stops.
"""

from dataclasses import replace
from typing import NamedTuple

from glorytun.core import crypto
from glorytun.core.address import Endpoint, PathId
from glorytun.core.batch import Batch
from glorytun.core.events import KeysExchanged, PathStateSet, PeerStopped
from glorytun.core.exchange import KeyExchange, Session
from glorytun.core.mtu import PROBE_FLOOR, PROBE_MAX
from glorytun.core.nonce import TimeField
from glorytun.core.outbox import Outbox, Outgoing
from glorytun.core.overflow import Overflow
from glorytun.core.path import BEAT_MAX, BEAT_MIN, Path
from glorytun.core.paths import Paths
from glorytun.core.replay import ControlWindow
from glorytun.core.settings import NO_CLASS, SECOND, PathMode, PathSettings, PathState, Settings
from glorytun.core.shaper import RATE_UNLIMITED
from glorytun.core.status import BadKind, Condition
from glorytun.core.wire import (
    CONTROL_DATAGRAM_SIZE,
    REQUEST_SIZE,
    TAG_SIZE,
    TIME_SIZE,
    Capability,
    ControlMessage,
    Extensions,
    Wishes,
    pull_control,
    pull_time,
    push_control,
    push_time,
    unwrap_time,
)

# What this implementation chose.

FAREWELLS = 3
"""Copies of the message that says we stop: nobody is there to repeat it."""
ECHO_MAX = 60 * SECOND
"""An answer to something older measures nothing."""
FRESH_MAX = 5 * SECOND
"""How old our message may be that proves the answer to it fresh."""
CHALLENGE_INTERVAL = SECOND // 10
MARK = b"\0"
"""A packet that no IP packet is as short as: PROTOCOL 4."""


class _Heard(NamedTuple):
    """An authentic message that was received."""

    message: ControlMessage
    time: int
    """When it left, by the peer's clock."""
    size: int
    """Of the datagram, bytes."""
    echo: int
    """When what it answers left, by our clock."""
    is_fresh: bool
    """Whether it answers a message of ours in a way that no replay can."""


class Conversation:
    """One side of it. Nothing that is received makes a method raise."""

    def __init__(
        self,
        *,
        psk: bytes,
        settings: Settings,
        ours: Capability,
        software: str,
        exchange: KeyExchange,
        paths: Paths,
        outbox: Outbox,
        now: int,
    ) -> None:
        self._started_at = now
        self.settings = settings
        self._ours = ours
        self._software = software
        self._exchange = exchange
        self._paths = paths
        self._outbox = outbox
        self._aead = crypto.make_aead(crypto.CHACHA, psk)
        self._times = TimeField.for_control(client=settings.client)
        self._window = ControlWindow()
        self._plain = bytearray(0)
        self.sent_time = 0
        """The time of our newest message."""
        self.overflow = Overflow()
        self._echoed = now
        """The newest of our times that the peer has answered; none of before we started."""
        self._challenge_at = 0
        self.peer = Extensions()
        """What the peer said of itself."""
        self.exchanged_at = 0
        """When we began to send under the newest session."""

    @property
    def _client(self) -> bool:
        return self.settings.client

    # Receiving.

    def receive(self, datagram: Batch, path_id: PathId, now: int) -> Path | None:
        """Take one control datagram; the path on which something new was heard."""
        source, size = path_id.remote, datagram.size
        if size < CONTROL_DATAGRAM_SIZE:
            self._outbox.drop(BadKind.SIZE, source, now)
            return None
        plain = self._plain
        if len(plain) < len(datagram.buffer):
            plain = self._plain = bytearray(len(datagram.buffer))
        if not self._aead.open(datagram, plain)[0]:
            self._outbox.drop(BadKind.DECRYPT, source, now)
            return None
        start = datagram.offset
        time = unwrap_time(pull_time(datagram.buffer, start), now=now)
        message = pull_control(memoryview(plain)[start + TIME_SIZE : start + size - TAG_SIZE])
        heard = self._classify(message, time=time, size=size, now=now)
        if not self.is_timely(time, source, now):
            self._challenge(heard, path_id, now)
            return None
        if not self._admit(heard, path_id, now):
            return None
        path = self._path_of(heard, path_id, now)
        if path is not None:
            self.overflow.excuse(path, sent=message.tx_total, now=now)
            # Counted last, as 0.3.4 does: both totals of a reply leave out what it answers.
            self._act_on(heard, path, now)
            path.count_received(size=size, count=1, now=now)
            self._paths.note_heard(path, now)
        return path

    def _classify(self, message: ControlMessage, *, time: int, size: int, now: int) -> _Heard:
        echo = unwrap_time(message.sent_time, now=now)
        is_fresh = (
            not message.is_request
            and self._echoed < echo <= self.sent_time
            and now - echo <= FRESH_MAX
        )
        return _Heard(message, time, size, echo, is_fresh)

    def is_timely(self, time: int, source: Endpoint, now: int) -> bool:
        """Whether the time of an authentic datagram is near enough to our clock."""
        offset = time - now
        if abs(offset) <= self.settings.timetolerance:
            return True
        self._outbox.drop(BadKind.DIFFTIME, source, now, clock_offset=offset)
        return False

    def _admit(self, heard: _Heard, path_id: PathId, now: int) -> bool:
        """Whether a message is new: not a replay, and not one of ours sent back to us."""
        if self._exchange.is_mine(heard.message.pkey):
            self._outbox.drop(BadKind.REPLAY, path_id.remote, now)
            return False
        before = self._window.newest
        if self._window.admit(heard.time, fresh=heard.is_fresh):
            if self._window.newest < before:
                self._forget_wishes()
            return True
        is_doubtful = self._window.is_doubtful(heard.time)
        if before or not is_doubtful:
            self._outbox.drop(BadKind.REPLAY, path_id.remote, now)
        if is_doubtful:
            self._challenge(heard, path_id, now)
        return False

    def _forget_wishes(self) -> None:
        """The peer's clock was set back: no wish of before is newer than those to come."""
        for path in self._paths:
            path.settings_at = 0

    def _challenge(self, heard: _Heard, path_id: PathId, now: int) -> None:
        """The server's: answer a request that can't be believed by its time alone.

        It may be a replay, or come from a client that we hear for the first time, or whose clock
        is wrong or was set back: only the latter can answer this answer, and that proves it.
        """
        if self._client or not heard.message.is_request or now < self._challenge_at:
            return
        self._challenge_at = now + CHALLENGE_INTERVAL
        path = self._paths.get(path_id) or Path(path_id, PathSettings(), client=False)
        self._send(path, now, answered=heard, size=min(heard.size, REQUEST_SIZE))

    def _is_believed(self, heard: _Heard) -> bool:
        """Whether a message may make a path or bring a key: not while it could be a replay."""
        return heard.is_fresh or not self._window.is_distrusting

    def _path_of(self, heard: _Heard, path_id: PathId, now: int) -> Path | None:
        """The path a message came on; a server makes it for the first one from a new address."""
        path = self._paths.get(path_id)
        if path is not None:
            return path
        if not self._client and not self._is_believed(heard):
            self._challenge(heard, path_id, now)
            return None
        is_down = heard.message.state == PathState.DOWN
        if self._client or is_down or not self._paths.make_room(now):
            self._outbox.drop(BadKind.PATH, path_id.remote, now)
            return None
        return self._paths.add(path_id, PathSettings(), after=self._started_at)

    def _act_on(self, heard: _Heard, path: Path, now: int) -> None:
        """Follow a message that is authentic and new."""
        message = heard.message
        path.public = message.sent_to
        path.rx_delay = now - heard.time
        is_newest = heard.time == self._window.newest
        if is_newest:
            self.peer = message.extensions
        if not message.is_request:
            self._heard_reply(heard, path, now)
        elif self._client:
            self._heard_farewell(heard, path)
        else:
            self._heard_request(heard, path)
        if is_newest and self._is_believed(heard) and not self._heard_key(heard, now):
            self._outbox.drop(BadKind.KEYX, path.id.remote, now)
            return
        if self._client and not message.is_request:
            self._answer_reply(heard, path, now)
        elif message.is_request and not self._client:
            self._send(path, now, answered=heard, size=heard.size)

    def _answer_reply(self, heard: _Heard, path: Path, now: int) -> None:
        """The client's: let the server measure too, but not with each probe of the MTU."""
        if heard.size <= REQUEST_SIZE:
            self._send(path, now, answered=heard, size=heard.size)
        if self._exchange.is_unconfirmed:
            self.send_mark(path, now)

    def _heard_key(self, heard: _Heard, now: int) -> bool:
        """Take the key of the peer's newest message; False when it can't be used."""
        exchange = self._exchange
        if not self._client:
            # Half of it: with equal timeouts ours is a little younger when the client's is due.
            renew_after = self.settings.kxtimeout // 2
            return exchange.heard_client(heard.message, now, renew_after=renew_after)
        if heard.message.is_request:
            return True
        before = exchange.sending
        usable = exchange.heard_server(heard.message, echo=heard.echo, now=now)
        session = exchange.sending
        if session is not None and session is not before:
            self.note_exchange(session, first=before is None, now=now)
        return usable

    def _heard_reply(self, heard: _Heard, path: Path, now: int) -> None:
        message, echo = heard.message, heard.echo
        if not path.after < echo <= self.sent_time or now - echo > ECHO_MAX:
            return  # It answers nothing that we sent since the path began.
        self._echoed = max(self._echoed, echo)
        trip = max(0, now - echo)
        path.heard_reply(heard.time)
        path.rx_loss = message.loss
        self._paths.note_delay(path, heard.time - echo, trip=trip, sent_at=echo)
        path.heard_trip(trip, now)
        path.heard_totals(sent=message.fw_total, received=message.rx_total, now=now)
        path.estimator.add(
            sent_at=echo,
            sent=message.fw_bytes,
            frames=message.fw_bytes + message.fw_total * path.overhead,
            at=heard.time,
            received=message.rx_bytes,
            trip=trip,
        )
        path.apply_rate()
        if path.search is not None:
            path.search.on_answer(heard.size, sent_at=echo, now=now)
            self._paths.report_mtu(path)

    def _heard_request(self, heard: _Heard, path: Path) -> None:
        """The server's: what the client wishes for this path, unless a newer wish is known."""
        message = heard.message
        # Our clients answer no replies to probes, which come many at a time.
        if heard.size <= REQUEST_SIZE or not self.is_extended:
            path.unanswered += 1
        if heard.time < path.settings_at:
            return
        path.settings_at = heard.time
        old = path.settings
        rate = 0 if message.max_rate >= RATE_UNLIMITED else message.max_rate
        is_known = message.state in tuple(PathState)
        # A probe of the MTU may have no room for them.
        wishes = message.extensions.wishes or Wishes(
            mode=old.mode,
            preference=old.preference,
            cost=old.cost,
            delay_limit=old.delay_limit,
        )
        path.change(
            replace(
                old,
                state=PathState(message.state) if is_known else old.state,
                rate_tx=old.rate_tx if path.is_pinned else rate,
                fixed_rate=old.fixed_rate if path.is_pinned else message.fixed_rate and rate > 0,
                beat=min(max(message.beat, BEAT_MIN), BEAT_MAX),
                loss_limit=message.loss_limit,
                delay_limit=wishes.delay_limit,
                mode=wishes.mode,
                preference=wishes.preference,
                cost=wishes.cost,
            )
        )
        path.mtu_told = message.mtu if PROBE_FLOOR <= message.mtu <= PROBE_MAX else 0
        if path.settings.state != old.state:
            if PathState.DOWN in (old.state, path.settings.state):
                path.start_anew(self.sent_time)
            self._outbox.events.append(PathStateSet(path=path.id, state=path.settings.state))

    def _heard_farewell(self, heard: _Heard, path: Path) -> None:
        """The client's: the only request of a server says that it stops."""
        if heard.message.state != PathState.DOWN:
            return
        if not any(other.stopped for other in self._paths):
            self._outbox.events.append(PeerStopped())
        path.heard_farewell(heard.time)

    def note_exchange(self, session: Session, *, first: bool, now: int) -> None:
        """We send under a new session from now on."""
        self.exchanged_at = now
        self._outbox.events.append(KeysExchanged(cipher=session.cipher, first=first))

    # Sending.

    @property
    def is_extended(self) -> bool:
        """Whether the peer is one of ours, as far as it has said."""
        return self.peer.capabilities is not None

    @property
    def redundant(self) -> int:
        """The traffic class of packets to send on two paths: a server asks its client."""
        ours, wishes = self.settings.redundant, self.peer.wishes
        if not self.is_extended:
            return NO_CLASS
        return ours if ours != NO_CLASS or self._client or wishes is None else wishes.redundant

    @property
    def _capabilities(self) -> Capability:
        """Ours as we say them now."""
        return self._ours | (Capability.IN_ORDER if self.settings.reorder > 0 else Capability(0))

    def peer_does(self, what: Capability) -> bool:
        """Whether the peer has said that it does that."""
        return what in (self.peer.capabilities or Capability(0))

    def both_do(self, what: Capability) -> bool:
        """Whether both sides have said that they do that."""
        return what in self._ours and self.peer_does(what)

    @property
    def expects_copies(self) -> bool:
        """Whether the peer may send packets twice."""
        wishes = self.peer.wishes
        return (
            wishes is not None and (wishes.redundant != NO_CLASS or self.redundant != NO_CLASS)
        ) or any(path.settings.mode is PathMode.REDUNDANT for path in self._paths)

    def send_request(self, path: Path, now: int, *, size: int = REQUEST_SIZE) -> None:
        """The client's: ask for an answer of the same size."""
        self._send(path, now, size=size)

    def send_farewells(self, path: Path, now: int) -> None:
        """Say that we stop, to a peer that takes it well.

        A 0.3.4 server that is told `down` is deaf on that path for a minute, even if we start
        again; a 0.3.4 client deletes its path for good. They find out by themselves.
        """
        if self.is_extended:
            for _ in range(FAREWELLS):
                self._send(path, now, state=PathState.DOWN, size=REQUEST_SIZE)

    def send_mark(self, path: Path, now: int) -> None:
        """Make the peer use the session that we send under, with a packet that isn't one."""
        session = self._exchange.sending
        packet = Batch.of(MARK, headroom=TIME_SIZE, tailroom=TAG_SIZE)
        datagrams = session.seal(packet, now) if session else None
        if datagrams is not None:
            path.count_control(size=datagrams.size, now=now)
            self._outbox.datagrams.append(Outgoing(path.id, datagrams))

    def _state_to_say(self, path: Path) -> PathState:
        """A path that is down is a backup to a 0.3.4 peer: see `send_farewells`.

        So is one that is late, since such a peer knows no limit for that.
        """
        is_used = path.state != PathState.DOWN and path.condition != Condition.LATE
        return path.state if is_used or self.is_extended else PathState.BACKUP

    def _send(
        self,
        path: Path,
        now: int,
        *,
        answered: _Heard | None = None,
        size: int = REQUEST_SIZE,
        state: PathState | None = None,
    ) -> None:
        """A request of `size` bytes, or the reply to what was heard."""
        time = self._times.take(1, now)
        if time is None:
            return
        self.sent_time = time
        remote_key = self._exchange.remote
        message = ControlMessage(
            sent_time=answered.time if answered else 0,
            state=state or self._state_to_say(path),
            aes=Capability.AEGIS in self._ours,
            pkey=self._exchange.pair.public,
            tx_bytes=path.tx_bytes,
            tx_total=path.tx_total,
            rx_bytes=path.rx_bytes,
            rx_total=path.rx_total,
            fw_bytes=answered.message.tx_bytes if answered else 0,
            fw_total=answered.message.tx_total if answered else 0,
            max_rate=self._wished_rate(path),
            beat=path.settings.beat,
            mtu=path.size_max,
            loss=path.loss.loss,
            fixed_rate=path.settings.fixed_rate,
            loss_limit=path.settings.loss_limit,
            sent_to=path.id.remote,
            extensions=Extensions(
                capabilities=self._capabilities,
                software=self._software,
                confirm=crypto.confirmation(remote_key) if remote_key else b"",
                wishes=Wishes(
                    mode=path.settings.mode,
                    redundant=self.settings.redundant,
                    preference=path.settings.preference,
                    cost=path.settings.cost,
                    delay_limit=path.settings.delay_limit,
                ),
            ),
        )
        text = push_control(message, size=size)
        datagram = Batch.of(bytes(TIME_SIZE) + text + bytes(TAG_SIZE))
        push_time(datagram.buffer, 0, time)
        self._aead.seal(datagram)
        path.count_control(size=datagram.size, now=now)
        self._outbox.datagrams.append(Outgoing(path.id, datagram))

    def _wished_rate(self, path: Path) -> int:
        """`max_rate`: a 0.3.4 server never sends on a path whose client wishes for nothing."""
        return path.settings.rate_rx or (RATE_UNLIMITED if self._client else 0)
