"""The tunnel: one peer, several paths, one façade that is driven and never acts by itself.

The driver calls

- `receive_all(received, now)` with what the socket gave, and writes the packets it returns,
- `send(packets, now)` with what the TUN device gave, once `next_turn(now)` has come, and again
  with what it left,
- `on_timeout(now)` when `next_timeout()` has come,
- `next_packets(now)` when `next_packets_at()` has come, and writes what it returns,

and after each of them sends what `next_datagrams()` and handles what `next_events()` gives.
`now` is in µs since the epoch and never decreases.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from glorytun.core.address import PathId
from glorytun.core.backlog import Head
from glorytun.core.batch import Batch, joined
from glorytun.core.beats import Beats
from glorytun.core.conversation import MARK, Conversation
from glorytun.core.events import Event
from glorytun.core.exchange import KeyExchange
from glorytun.core.marked import first_alike
from glorytun.core.opening import Decrypted, Opener
from glorytun.core.outbox import Outbox, Outgoing
from glorytun.core.path import Path
from glorytun.core.paths import PATHS_MAX, Paths
from glorytun.core.resequence import Resequencer
from glorytun.core.scheduler import SEND_MAX, Turn
from glorytun.core.settings import (
    NO_CLASS,
    REORDER_AUTO,
    SECOND,
    PathChange,
    PathSettings,
    PathState,
    Settings,
    SettingsChange,
    refuse_wishes,
    with_change,
)
from glorytun.core.status import BadKind, BadStatus, PathStatus, TunnelStatus
from glorytun.core.wire import (
    CONTROL_BIT,
    OVERHEAD,
    TIME_SIZE,
    Capability,
    has_control,
    pull_time,
    unwrap_time,
)
from glorytun.errors import TunnelError

IDLE_AFTER = SECOND
"""Without data for so long, a client's requests go at `keepalive` (PROTOCOL 3)."""

# What this implementation chose.

MARK_SIZE = OVERHEAD + len(MARK)
"""Of the datagram of a mark."""
WAKE_INTERVAL = SECOND // 10
WAKE_TRIES = 10
"""Marks that a server sends on each path to make an idle client ask again."""


class Tunnel:
    """See the module. Nothing that is received makes a method raise."""

    def __init__(
        self,
        *,
        psk: bytes,
        settings: Settings,
        ours: Capability,
        software: str,
        entropy: Callable[[int], bytes],
        now: int,
    ) -> None:
        """`psk` is the secret key, 32 bytes; `ours` is what `crypto.capabilities` says."""
        self._client = settings.client
        self._outbox = Outbox()
        self._paths = Paths(self._outbox, client=settings.client)
        self._exchange = KeyExchange(
            psk=psk, client=settings.client, ours=ours, entropy=entropy, now=now
        )
        self._conversation = Conversation(
            psk=psk,
            settings=settings,
            ours=ours,
            software=software,
            exchange=self._exchange,
            paths=self._paths,
            outbox=self._outbox,
            now=now,
        )
        self._beats = Beats(self._paths, self._conversation, is_idle=self._is_idle)
        self._opener = Opener(self._exchange, self._conversation, self._outbox)
        self._resequencer = Resequencer()
        self._data_at = 0
        """When data was sent or received the last time."""
        self._wake_at: int | None = None
        self._wake_tries = 0
        self._timeout_at: int | None = None
        self._sent_bytes = self._sent_total = 0
        self._received_bytes = self._received_total = 0
        self._unsent_total = 0
        self._redundant = NO_CLASS
        """The traffic class of packets that are sent on two paths."""
        self._is_put_in_order = False
        """Whether the peer puts in order what we send."""
        self.may_send_bare = False
        """Whether packets of TCP may be sent without checksums: both sides have said that they
        fill them in."""
        self._copies_total = 0

    # What a driver takes out.

    def next_datagrams(self) -> list[Outgoing]:
        """Control datagrams to send now; each is handed out once."""
        return self._outbox.take_datagrams()

    def next_events(self) -> list[Event]:
        """What happened since the last call."""
        return self._outbox.take_events()

    def next_packets_at(self) -> int | None:
        """When `next_packets` has some; None: none are held back."""
        return self._resequencer.next_at

    def next_packets(self, now: int) -> list[Batch]:
        """Packets that were held back to come in order, and are due; all in one buffer."""
        return self._resequencer.take(now)

    def next_timeout(self) -> int | None:
        """When `on_timeout` is due; it may be overdue."""
        return self._timeout_at

    def next_turn(self, now: int, head: Head | None = None) -> Turn | None:
        """From when on `send` takes up to `SEND_MAX` packets; None: there is no key, or no path.

        With `head` those of a backlog, in such order that they arrive so, or may.
        """
        session = self._exchange.sending
        if session is None:
            return None
        if self._is_put_in_order:
            head = None
        turn = self._paths.scheduler.turn(now, head, sent=self._sent_bytes)
        sealed_at = session.times.ready_at(SEND_MAX)
        if turn is None or turn.at >= sealed_at:
            return turn
        return turn._replace(at=sealed_at)

    @property
    def rate(self) -> int:
        """bytes/s of the paths that packets are sent on now, together."""
        return self._paths.scheduler.rate

    @property
    def mtu(self) -> int:
        """What the TUN device's MTU should be; 0 = not known yet."""
        return self._paths.mtu

    # Data.

    def send(self, packets: Batch, now: int) -> list[Outgoing]:
        """Seal the first packets in place, as many as may leave together, and say where they go.

        Each row has `TIME_SIZE` bytes before and `TAG_SIZE` bytes after it that are ours to fill.
        The rest of them is for another call, when `next_turn` has come again. Nothing: all packets
        were dropped, since they fit no path, or it had not come.
        """
        session = self._exchange.sending
        is_marked = False
        if self._redundant != NO_CLASS:
            packets, is_marked = first_alike(packets, self._redundant)
        size = packets.size + OVERHEAD
        scheduler = self._paths.scheduler
        path = scheduler.pick(size=size, now=now)
        if session is None or path is None:
            self._unsent_total += packets.count
            return []
        copy_path = None
        if is_marked or scheduler.copies_all:
            copy_path = self._pick_copy(path, size=size, is_marked=is_marked, now=now)
        shares = [(path, 1)]
        if packets.count > 1:
            count = min(packets.count, SEND_MAX)
            shares = scheduler.spread(path, size=size, count=count, now=now)
            if copy_path is not None:
                count = scheduler.burst_of_copies(
                    copy_path, size=size, count=shares[0][1], is_marked=is_marked, now=now
                )
                shares = [(path, count)]
            packets = packets.run(0, sum(count for _, count in shares))
        datagrams = session.seal(packets, now)
        if datagrams is None:
            self._unsent_total += packets.count
            return []
        total = datagrams.total()
        if copy_path is not None:
            copy_path.count_sent(
                size=total, count=datagrams.count, now=now, is_marked_copy=is_marked
            )
        self._sent_total += datagrams.count
        self._sent_bytes += total - datagrams.count * OVERHEAD
        if not self._client and self._is_idle(now):
            self._wake_at, self._wake_tries = now, 0
        self._note_data(now)
        return _share_out(datagrams, shares, copy_path, now)

    def _pick_copy(self, path: Path, *, size: int, is_marked: bool, now: int) -> Path | None:
        """Where datagrams go too, besides their path; the peer drops the later of the two."""
        if not self._conversation.is_extended:
            return None  # 0.3.4 would deliver both.
        return self._paths.scheduler.pick_copy(path, size=size, is_marked=is_marked, now=now)

    def on_unsent(self, path_id: PathId, datagrams: Batch, *, is_copy: bool = False) -> None:
        """The host had no room for what `send` returned last: no loss of the path's."""
        path = self._paths.get(path_id)
        if path is not None:
            path.tx_bytes -= datagrams.total()
            path.tx_total -= datagrams.count
        if not is_copy:
            self._unsent_total += datagrams.count

    def on_overflow(self, count: int, now: int) -> None:
        """The host had no room for so many datagrams: no loss of the paths that they came on."""
        self._conversation.overflow.add(count, now)

    def receive_all(self, received: Sequence[tuple[Batch, PathId]], now: int) -> list[Batch]:
        """`receive` for what lies in one buffer as it came: what came on several paths in turn is
        opened at once, in a fifth of the time."""
        packets: list[Batch] = []
        for datagrams, runs in joined(received):
            if len(runs) > 1 and datagrams.last > MARK_SIZE and not has_control(datagrams):
                packets += self._receive_together(datagrams, runs, now)
            else:
                for run, path_id in runs:
                    packets += self.receive(run, path_id, now)
        return packets

    def receive(self, datagrams: Batch, path_id: PathId, now: int) -> list[Batch]:
        """Open datagrams that came from `path_id.remote` to `path_id.local`; returns the packets.

        The packets lie in a buffer of the tunnel's own, each where its datagram lies in its own:
        they are valid until datagrams come at the same place, or in a longer buffer.
        """
        if datagrams.last > OVERHEAD and not has_control(datagrams):
            return self._receive_data(datagrams, path_id, now)
        buffer, at = datagrams.buffer, datagrams.offset
        is_data = [False] * datagrams.count
        for index in range(datagrams.count):
            if datagrams.row_size(index) <= OVERHEAD:
                self._outbox.drop(BadKind.SIZE, path_id.remote, now)
            elif buffer[at] & CONTROL_BIT:
                self._receive_control(datagrams.run(index, 1), path_id, now)
            else:
                is_data[index] = True
            at += datagrams.stride
        packets: list[Batch] = []
        for run in datagrams.runs(is_data):
            packets += self._receive_data(run, path_id, now)
        return packets

    def _receive_control(self, datagram: Batch, path_id: PathId, now: int) -> None:
        path = self._conversation.receive(datagram, path_id, now)
        if path is not None:
            self._resequencer.note(path_id, path.rx_delay, now)
            self._wake_at = None
            self._judge(now)

    def _receive_data(self, datagrams: Batch, path_id: PathId, now: int) -> list[Batch]:
        good = self._opener.open(datagrams, path_id.remote, now)
        return self._take(datagrams, good, path_id, now)

    def _receive_together(
        self, datagrams: Batch, runs: Sequence[tuple[Batch, PathId]], now: int
    ) -> list[Batch]:
        """Open rows of several paths at once: what is said of each path is as if it were alone."""
        opener = self._opener
        decrypted = opener.decrypt(datagrams)
        if opener.accept_all(decrypted, datagrams, now):
            return self._take_together(datagrams, runs, now)
        packets: list[Batch] = []
        first = 0
        for run, path_id in runs:
            good = decrypted.good[first : first + run.count]
            first += run.count
            good = opener.judge(Decrypted(decrypted.session, good), run, path_id.remote, now)
            packets += self._take(run, good, path_id, now)
        return packets

    def _take_together(
        self, datagrams: Batch, runs: Sequence[tuple[Batch, PathId]], now: int
    ) -> list[Batch]:
        """`_take` for rows of several paths, all of which are to be delivered."""
        if self._resequencer.limit:
            for run, path_id in runs:
                self._take(run, [True] * run.count, path_id, now)
            return []
        if self._opener.take_move():
            self._reschedule(now)
        sums: dict[PathId, tuple[int, int]] = {}
        for run, path_id in runs:
            size, count = sums.get(path_id, (0, 0))
            sums[path_id] = size + run.total(), count + run.count
        for path_id, (size, count) in sums.items():
            path = self._paths.get(path_id)
            if path is not None:
                self._count_received(path, size=size, count=count, now=now)
        packets = self._opener.packets(datagrams)
        self._note_received(size=packets.total(), count=packets.count, now=now)
        return [packets]

    def _take(self, datagrams: Batch, good: list[bool], path_id: PathId, now: int) -> list[Batch]:
        """Count rows that were opened; those to be delivered."""
        opener = self._opener
        path = self._paths.get(path_id)
        if copies := opener.take_copies():
            self._count_copies(copies, path, now)
        if opener.take_move():
            self._reschedule(now)
        if datagrams.last == MARK_SIZE:
            self._take_marks(datagrams, good, path, now)
        packets = opener.packets(datagrams)
        runs, count, size = [packets], datagrams.count, packets.total()
        if False in good:
            runs, count = list(packets.runs(good)), good.count(True)
            size = sum(run.total() for run in runs)
            if not count:
                return []
        if path is not None:
            self._count_received(path, size=size + count * OVERHEAD, count=count, now=now)
        self._note_received(size=size, count=count, now=now)
        if self._resequencer.limit:
            self._hold(datagrams, runs, path_id, now)
            return []
        return runs

    def _take_marks(self, datagrams: Batch, good: list[bool], path: Path | None, now: int) -> None:
        """Take rows that are no packets out of the good ones: the last, or all are as short."""
        for row in range(datagrams.count):
            if good[row] and datagrams.row_size(row) == MARK_SIZE:
                good[row] = False
                self._heard_mark(path, now)

    def _note_received(self, *, size: int, count: int, now: int) -> None:
        self._received_total += count
        self._received_bytes += size
        self._note_data(now)

    def _hold(self, datagrams: Batch, runs: list[Batch], path_id: PathId, now: int) -> None:
        """Keep packets until they are due: `next_packets` has them then."""
        for packets in runs:
            starts = [at - TIME_SIZE for at in packets.starts()]
            times = [unwrap_time(pull_time(datagrams.buffer, at), now=now) for at in starts]
            self._resequencer.put(packets, times, path_id, now)

    def _heard_mark(self, path: Path | None, now: int) -> None:
        """A client uses a new key, and is answered so that it need not wait; or a server wakes us.

        From an address we don't know yet, neither this nor other data makes a path: the next
        request does.
        """
        if path is not None:
            self._count_received(path, size=MARK_SIZE, count=1, now=now)
        if self._client:
            self._note_data(now)
        elif path is not None:
            self._conversation.send_mark(path, now)

    def _count_received(self, path: Path, *, size: int, count: int, now: int) -> None:
        path.count_received(size=size, count=count, now=now)
        self._paths.note_heard(path, now)

    def _count_copies(self, sizes: list[int], path: Path | None, now: int) -> None:
        """They are no loss of their path, and a sign that it works."""
        self._copies_total += len(sizes)
        if path is not None:
            self._count_received(path, size=sum(sizes), count=len(sizes), now=now)

    def _note_data(self, now: int) -> None:
        if self._is_idle(now):
            self._timeout_at = now  # The end of idleness: requests are due at every beat again.
        self._data_at = now

    def _is_idle(self, now: int) -> bool:
        """Whether there is nothing to ask for often, on any path: a server compares them."""
        if now - self._data_at < IDLE_AFTER:
            return False
        return not any(path.is_searching for path in self._paths)

    def _wake_client(self, now: int) -> None:
        """The server's, when it sends after an idle time: make the client ask on all its paths.

        One of them may have died meanwhile, and only the client's requests tell which.
        """
        self._wake_tries += 1
        self._wake_at = now + WAKE_INTERVAL if self._wake_tries < WAKE_TRIES else None
        for path in self._paths:
            if path.is_alive:
                self._conversation.send_mark(path, now)

    # Time.

    def on_timeout(self, now: int) -> None:
        """Do what is due. `next_datagrams` and `next_events` have the results."""
        exchange = self._exchange
        exchange.on_timeout(now)
        if self._client:
            if now >= exchange.renewed_at + self.settings.kxtimeout:
                exchange.rotate(now, after=self._conversation.sent_time)
            self._beats.send_due(now)
        else:
            self._paths.forget_silent(now)
            if not len(self._paths):
                exchange.forget(now)
            if self._wake_at is not None and now >= self._wake_at:
                self._wake_client(now)
        self._judge(now)

    def on_too_big(self, path_id: PathId, size: int, now: int) -> None:
        """The kernel did not send a datagram of `size` bytes: its interface's MTU is smaller."""
        path = self._paths.get(path_id)
        if path is None or path.search is None:
            return
        if size == path.search.probe:
            path.search.on_too_big(now)
            self._paths.report_mtu(path)
        elif size <= path.search.size:
            path.search.restart()
        self._judge(now)

    def _judge(self, now: int) -> None:
        self._redundant = self._conversation.redundant
        self._is_put_in_order = self._conversation.peer_does(Capability.IN_ORDER)
        self.may_send_bare = self._conversation.both_do(Capability.BARE)
        self._paths.judge(now)
        self._put_in_order()
        self._reschedule(now)

    def _put_in_order(self) -> None:
        """Hold what is received, or not: where nobody chose, what a 0.3.4 sends over any path."""
        reorder, is_ours = self.settings.reorder, self._conversation.is_extended
        self._resequencer.likely = self._paths.likely(at_random=not is_ours)
        if reorder != REORDER_AUTO:
            self._resequencer.hold_all(reorder)
        elif is_ours:
            self._resequencer.hold_all(0)
        else:
            self._resequencer.hold_what_it_helps()

    def _reschedule(self, now: int) -> None:
        """Find out when `on_timeout` is due next."""
        idle = self._is_idle(now)
        times = [
            self._exchange.next_timeout(),
            self._paths.next_timeout(now, idle=idle),
            self._wake_at,
        ]
        if self._client:
            times.append(self._exchange.renewed_at + self.settings.kxtimeout)
            times += [self._beats.due_at(path, idle=idle) for path in self._paths]
        self._timeout_at = min((at for at in times if at is not None), default=None)

    # What the user asks for.

    def check_path(self, path_id: PathId, change: PathChange) -> None:
        """See whether `set_path` can do that. Raises TunnelError."""
        path = self._paths.get(path_id)
        if path is None:
            if not self._client or change.state in (None, PathState.DOWN):
                raise TunnelError(
                    f"there is no path {path_id}",
                    hint="'glorytun path' lists them, 'glorytun path up ADDRESS' makes one",
                )
            if len(self._paths) >= PATHS_MAX:
                raise TunnelError(f"there are {PATHS_MAX} paths, and no more may be")
        if not self._client:
            refuse_wishes(change)
        with_change(path.settings if path else PathSettings(), change)

    def set_path(self, path_id: PathId, change: PathChange, now: int) -> None:
        """Make or change a path. Raises TunnelError, with nothing changed, when that can't be.

        A server decides on its own sending rate only, then against its client's wishes: see
        `Paths.pin`.
        """
        self.check_path(path_id, change)
        path = self._paths.get(path_id)
        if path is None:
            path = self._paths.add(path_id, PathSettings(), after=self._conversation.sent_time)
        if self._client:
            self._apply(path, change)
        else:
            self._paths.pin(path, change)
        self._judge(now)

    def set_spent(self, path_id: PathId, *, is_spent: bool, now: int) -> None:
        """The client's: the quota of a path is used up, or begins anew."""
        path = self._paths.get(path_id)
        if path is None or path.is_spent == is_spent:
            return
        path.is_spent = is_spent
        path.start_anew(self._conversation.sent_time)
        path.request_now()
        self._judge(now)

    def remove_path(self, path_id: PathId, reason: str, now: int) -> None:
        """The client's: end a path, and tell the peer if it still can be told."""
        path = self._paths.get(path_id)
        if path is not None:
            self._conversation.send_farewells(path, now)
            self._paths.remove(path, reason)
            self._judge(now)

    def _apply(self, path: Path, change: PathChange) -> None:
        was_down = path.settings.state == PathState.DOWN
        path.change(with_change(path.settings, change))
        if was_down != (path.settings.state == PathState.DOWN):
            path.start_anew(self._conversation.sent_time)
        path.request_now()

    def set(self, change: SettingsChange, now: int) -> None:
        """Change the tunnel's settings."""
        old = self._conversation.settings
        self._conversation.settings = replace(
            old,
            kxtimeout=change.kxtimeout or old.kxtimeout,
            timetolerance=change.timetolerance or old.timetolerance,
            keepalive=change.keepalive or old.keepalive,
            redundant=old.redundant if change.redundant is None else change.redundant,
            reorder=old.reorder if change.reorder is None else change.reorder,
        )
        self._put_in_order()
        self._timeout_at = now

    def close(self, now: int) -> None:
        """Tell the peer on every path that we stop; send what `next_datagrams` has, then end."""
        for path in self._paths:
            if path.state != PathState.DOWN:
                self._conversation.send_farewells(path, now)

    # What it says of itself.

    @property
    def settings(self) -> Settings:
        return self._conversation.settings

    def status(self) -> TunnelStatus:
        session = self._exchange.sending
        return TunnelStatus(
            client=self._client,
            cipher=session.cipher if session else "none",
            mtu=self._paths.mtu,
            peer_software=self._conversation.peer.software,
            keys_exchanged_at=self._conversation.exchanged_at,
            sent_bytes=self._sent_bytes,
            sent_total=self._sent_total,
            received_bytes=self._received_bytes,
            received_total=self._received_total,
            held=self._resequencer.held,
            copies_total=self._copies_total,
            unsent_total=self._unsent_total,
        )

    def path_ids(self) -> list[PathId]:
        return [path.id for path in self._paths]

    def path_statuses(self) -> list[PathStatus]:
        return [path.status() for path in self._paths]

    def bad_statuses(self) -> list[BadStatus]:
        return self._outbox.bad_statuses()


def _share_out(
    datagrams: Batch, shares: Sequence[tuple[Path, int]], copy_path: Path | None, now: int
) -> list[Outgoing]:
    """Say where each of them goes: so many on each path, in turn."""
    sent = []
    first = 0
    for path, count in shares:
        run = datagrams.run(first, count)
        first += count
        path.count_sent(size=run.total(), count=count, now=now)
        sent.append(Outgoing(path.id, run, None if copy_path is None else copy_path.id))
    return sent
