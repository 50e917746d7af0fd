"""What becomes of data that is received: decrypted, and let through once."""

from typing import NamedTuple

from glorytun.core.address import Endpoint
from glorytun.core.batch import Batch, Buffer
from glorytun.core.conversation import Conversation
from glorytun.core.exchange import KeyExchange, Session
from glorytun.core.outbox import Outbox
from glorytun.core.status import BadKind
from glorytun.core.wire import OVERHEAD, TIME_SIZE, pull_time, pull_times, unwrap_time


class Decrypted(NamedTuple):
    """What became of rows with the session that was likeliest to open them."""

    session: Session | None
    good: list[bool]
    """Which of the rows it opened."""


class Opener:
    """Opens datagrams with whichever session fits, and refuses what is late or came before."""

    __slots__ = ("_conversation", "_copies", "_exchange", "_has_moved", "_outbox", "plain")

    def __init__(self, exchange: KeyExchange, conversation: Conversation, outbox: Outbox) -> None:
        self._exchange = exchange
        self._conversation = conversation
        self._outbox = outbox
        self._copies: list[int] = []
        self._has_moved = False
        self.plain = Buffer(0)
        """Where packets are, each where its datagram is in its own buffer."""

    def open(self, datagrams: Batch, source: Endpoint, now: int) -> list[bool]:
        """Decrypt rows into `plain`, each at its place; which of them are to be delivered."""
        decrypted = self.decrypt(datagrams)
        if datagrams.count > 1 and self.accept_all(decrypted, datagrams, now):
            return decrypted.good
        return self.judge(decrypted, datagrams, source, now)

    def decrypt(self, datagrams: Batch) -> Decrypted:
        """Decrypt rows into `plain`, and judge none: `accept_all` and `judge` do."""
        if len(self.plain) < len(datagrams.buffer):
            self.plain = Buffer(len(datagrams.buffer))
        session = self._exchange.likeliest
        if session is None:
            return Decrypted(None, [False] * datagrams.count)
        return Decrypted(session, session.rx.open(datagrams, self.plain))

    def packets(self, datagrams: Batch) -> Batch:
        """What rows became that were decrypted."""
        return Batch(
            self.plain,
            datagrams.offset + TIME_SIZE,
            datagrams.stride,
            datagrams.count,
            datagrams.size - OVERHEAD,
            datagrams.last - OVERHEAD,
        )

    def accept_all(self, decrypted: Decrypted, datagrams: Batch, now: int) -> bool:
        """Accept all rows at once if there is nothing to be said against any, else none of them.

        Of several paths each has its delay, so that only the times of one path must increase.
        """
        session, good = decrypted
        if session is None or False in good:
            return False
        times = pull_times(datagrams, now=now)
        tolerance = self._conversation.settings.timetolerance
        first, last = now - tolerance, now + tolerance
        window = session.window
        # In order the ends tell of all, and finding the least of many takes longer.
        is_accepted = first <= times[0] and times[-1] <= last and window.accept_newer(times)
        if not is_accepted and first <= times.min() and times.max() <= last:
            is_accepted = window.accept_mixed(times)
        if not is_accepted:
            return False
        self._note_opened(session, now)
        return True

    def judge(
        self, decrypted: Decrypted, datagrams: Batch, source: Endpoint, now: int
    ) -> list[bool]:
        """Which rows are to be delivered, each by itself; those of other sessions are opened."""
        tried, good = decrypted
        at = datagrams.offset
        judged = []
        for index, is_open in enumerate(good):
            session = tried if is_open else self._open_row(datagrams.run(index, 1), tried)
            time = unwrap_time(pull_time(datagrams.buffer, at), now=now)
            size = datagrams.row_size(index)
            judged.append(self._accept(session, time, source, now, size=size))
            at += datagrams.stride
        return judged

    def take_copies(self) -> list[int]:
        """The sizes of datagrams whose other copy had come before; each is told once."""
        if not self._copies:
            return []
        taken, self._copies = self._copies, []
        return taken

    def take_move(self) -> bool:
        """Whether the peer has begun to use another session; told once."""
        moved, self._has_moved = self._has_moved, False
        return moved

    def _open_row(self, datagram: Batch, tried: Session | None) -> Session | None:
        """The session that opens one datagram, which `tried` did not.

        Which is likeliest may have changed since that was tried, with the row before.
        """
        for session in self._exchange.receiving():
            if session is not tried and session.rx.open(datagram, self.plain)[0]:
                return session
        return None

    def _accept(
        self, session: Session | None, time: int, source: Endpoint, now: int, *, size: int
    ) -> bool:
        """Whether data that opened with `session` is to be delivered."""
        if session is None:
            # No event: while keys change or after a restart this is what one expects.
            self._outbox.drop(BadKind.DECRYPT, source, now, is_reported=False)
            return False
        if not self._conversation.is_timely(time, source, now):
            return False
        if not session.window.accept(time):
            if self._conversation.expects_copies:
                self._copies.append(size)
                return False
            self._outbox.drop(BadKind.REPLAY, source, now)
            return False
        self._note_opened(session, now)
        return True

    def _note_opened(self, session: Session, now: int) -> None:
        """Let the next session take over when the peer uses it."""
        if session is self._exchange.current:
            return
        before = self._exchange.sending
        if not self._exchange.opened_with(session, now):
            return
        if before is not session:
            self._conversation.note_exchange(session, first=before is None, now=now)
        self._has_moved = True
