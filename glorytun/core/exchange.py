"""The key exchange: which session keys there are, and when they take over from each other.

    client                                         server
    new pair c2 at start, every `kxtimeout`
    request(c2) ────────────────────────────────▶  sees a new key: makes a new pair s2,
                                                   next = session(c2, s2), goes on with current
    knows that the server has c2:       ◀───────── reply(s2)
    next = session(c2, s2), sends with it
    data under next ────────────────────────────▶  opens under next: next becomes current
    opens under next: next becomes current ◀────── data under current

The first data under a new key is a packet of one byte, so that neither side waits for traffic;
the server answers it with another. Nothing is ever sealed or opened under the secret key but
control messages (PROTOCOL 4: 0.3.4 does, and has no forward secrecy there).
"""

from collections.abc import Callable

from glorytun.core.batch import Batch
from glorytun.core.crypto import (
    Aead,
    KeyPair,
    choose_cipher,
    confirmation,
    make_aead,
    session_key,
    shared_secret,
)
from glorytun.core.nonce import TimeField
from glorytun.core.replay import ReplayWindow
from glorytun.core.settings import SECOND
from glorytun.core.wire import (
    KEY_SIZE,
    OVERHEAD,
    TIME_SIZE,
    Capability,
    ControlMessage,
    push_times,
)

LAST_KEPT = 10 * SECOND
"""How long the replaced session still opens: longer than any datagram is under way."""


class Session:
    """What two public keys agree on: how to seal and open data, and what was opened already."""

    __slots__ = ("cipher", "rx", "times", "tx", "window")

    def __init__(self, *, cipher: str, tx: Aead, rx: Aead) -> None:
        self.cipher = cipher
        self.tx = tx
        self.rx = rx
        self.times = TimeField.for_data()
        self.window = ReplayWindow()

    def seal(self, packets: Batch, now: int) -> Batch | None:
        """The datagrams of packets, sealed in place; None when the time field must wait.

        Each row has `TIME_SIZE` bytes before and `TAG_SIZE` bytes after it to fill in.
        """
        time = self.times.take(packets.count, now)
        if time is None:
            return None
        datagrams = Batch(
            packets.buffer,
            packets.offset - TIME_SIZE,
            packets.stride,
            packets.count,
            packets.size + OVERHEAD,
            packets.last + OVERHEAD,
        )
        push_times(datagrams, time, step=self.times.step)
        self.tx.seal(datagrams)
        return datagrams


class KeyExchange:
    """The sessions of one tunnel. Only its methods change which of them is which."""

    def __init__(
        self,
        *,
        psk: bytes,
        client: bool,
        ours: Capability,
        entropy: Callable[[int], bytes],
        now: int,
    ) -> None:
        self._psk = psk
        self._client = client
        self._ours = ours
        self._entropy = entropy
        self._agreed = (b"", b"")
        """Our public key and the peer's in the newest session."""
        self._sending_next = False
        self._last_until = 0
        self.pair = KeyPair(entropy(KEY_SIZE))
        self._former_public = b""
        self.renewed_at = now
        self.announced_after = 0
        """Requests with a later time carry our pair (client)."""
        self.current: Session | None = None
        self.next: Session | None = None
        self.last: Session | None = None

    def _renew(self, now: int, *, after: int) -> None:
        self._former_public = self.pair.public
        self.pair = KeyPair(self._entropy(KEY_SIZE))
        self.renewed_at = now
        self.announced_after = after

    @property
    def remote(self) -> bytes:
        """The peer's public key as far as we know; empty before its first message."""
        return self._agreed[1]

    def is_mine(self, public: bytes) -> bool:
        """Whether a public key is our own: then somebody sends our messages back to us."""
        return public in (self.pair.public, self._former_public)

    @property
    def sending(self) -> Session | None:
        """The session to seal data with; None before the first exchange."""
        return self.next if self._sending_next else self.current

    @property
    def is_unconfirmed(self) -> bool:
        """Whether we send with a session that the peer has not used yet."""
        return self._sending_next

    @property
    def likeliest(self) -> Session | None:
        """The first of `receiving`, for each datagram."""
        return self.current or self.next or self.last

    def receiving(self) -> list[Session]:
        """The sessions that may open data, the likeliest first."""
        return [session for session in (self.current, self.next, self.last) if session]

    def rotate(self, now: int, *, after: int) -> None:
        """The client's: make a new pair; `after` is the time of its last control message."""
        self._renew(now, after=after)

    def heard_client(self, message: ControlMessage, now: int, *, renew_after: int) -> bool:
        """The server's: the newest message of the client. False if its key can't be used.

        With a new key of the client, a pair of ours that is older than `renew_after` µs is
        replaced too. A younger one stays: a 0.3.4 client that changes its key with every message
        would never see ours twice, and that is what makes it begin.
        """
        if message.pkey == self.remote:
            return True
        if shared_secret(self.pair, message.pkey) is None:
            return False
        if now - self.renewed_at >= renew_after:
            self._renew(now, after=0)
        return self._agree(message, now)

    def heard_server(self, message: ControlMessage, *, echo: int, now: int) -> bool:
        """The client's: the server's newest message, which answers our request of time `echo`.

        False if its key can't be used. A server that can't know our pair yet is not listened to.
        """
        confirm = message.extensions.confirm
        if echo <= self.announced_after or (confirm and confirm != confirmation(self.pair.public)):
            return True
        if (self.pair.public, message.pkey) == self._agreed:
            return True
        if not self._agree(message, now):
            return False
        self._sending_next = True
        return True

    def opened_with(self, session: Session, now: int) -> bool:
        """Data was opened: True when that makes the next session the current one."""
        if session is not self.next:
            return False
        self._promote(now)
        return True

    def next_timeout(self) -> int | None:
        """When `on_timeout` has something to do."""
        return self._last_until if self.last else None

    def on_timeout(self, now: int) -> None:
        """Drop the replaced session when nothing can arrive under it any more."""
        if self.last and now >= self._last_until:
            self.last = None

    def forget(self, now: int) -> None:
        """Drop all sessions: the peer is gone, and what it said shall stay secret.

        Our pair goes with them: a client that is back and finds it again has no reason to begin
        anew, and we send nothing under a session before it does.
        """
        if not self.remote:
            return
        self.current = self.next = self.last = None
        self._agreed = (b"", b"")
        self._sending_next = False
        self._renew(now, after=0)

    def _promote(self, now: int) -> None:
        self.last, self.current, self.next = self.current, self.next, None
        self._sending_next = False
        self._last_until = now + LAST_KEPT

    def _agree(self, message: ControlMessage, now: int) -> bool:
        """Compute the next session from our pair and the key in a message."""
        shared = shared_secret(self.pair, message.pkey)
        if shared is None:
            return False
        if self._sending_next:
            self._promote(now)
        mine, theirs = self.pair.public, message.pkey
        cipher = choose_cipher(self._ours, _announced(message))
        tx = session_key(psk=self._psk, shared=shared, receiver=theirs, sender=mine)
        rx = session_key(psk=self._psk, shared=shared, receiver=mine, sender=theirs)
        self.next = Session(cipher=cipher, tx=make_aead(cipher, tx), rx=make_aead(cipher, rx))
        self._agreed = (mine, theirs)
        return True


def _announced(message: ControlMessage) -> Capability:
    """What the sender of a message can do; `aes` is the only way 0.3.4 says so."""
    said = message.extensions.capabilities or Capability(0)
    return said | Capability.AEGIS if message.aes else said & ~Capability.AEGIS
