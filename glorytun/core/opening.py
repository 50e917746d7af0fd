"""What becomes of data that is received: decrypted, and let through once."""

from glorytun.core.address import Endpoint
from glorytun.core.batch import Batch, Buffer
from glorytun.core.conversation import Conversation
from glorytun.core.exchange import KeyExchange, Session
from glorytun.core.outbox import Outbox
from glorytun.core.status import BadKind
from glorytun.core.wire import pull_time, pull_times, unwrap_time


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
        if len(self.plain) < len(datagrams.buffer):
            self.plain = Buffer(len(datagrams.buffer))
        likeliest = self._exchange.likeliest
        good = [False] * datagrams.count
        if likeliest is not None:
            good = likeliest.rx.open(datagrams, self.plain)
            many = datagrams.count > 1 and False not in good
            if many and self._accept_all(likeliest, datagrams, now):
                return good
        at = datagrams.offset
        for index, is_open in enumerate(good):
            session = likeliest if is_open else self._open_row(datagrams.run(index, 1))
            time = unwrap_time(pull_time(datagrams.buffer, at), now=now)
            good[index] = self._accept(session, time, source, now, size=datagrams.row_size(index))
            at += datagrams.stride
        return good

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

    def _open_row(self, datagram: Batch) -> Session | None:
        """The session that opens one datagram, which the likeliest did not."""
        for session in self._exchange.receiving()[1:]:
            if session.rx.open(datagram, self.plain)[0]:
                return session
        return None

    def _accept_all(self, session: Session, datagrams: Batch, now: int) -> bool:
        """Accept all rows at once if there is nothing to be said against any, else none of them."""
        times = pull_times(datagrams, now=now)
        tolerance = self._conversation.settings.timetolerance
        if not now - tolerance <= times[0] <= times[-1] <= now + tolerance:
            return False
        if not session.window.accept_newer(times):
            return False
        self._note_opened(session, now)
        return True

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
