"""Datagrams that came on several paths in turn: opened at once, and one by one."""

from itertools import groupby

from hypothesis import example, given
from hypothesis import strategies as st

from glorytun.core.address import PathId
from glorytun.core.batch import SLACK, Batch
from glorytun.core.conversation import MARK
from glorytun.core.crypto import KeyPair
from glorytun.core.exchange import Session
from glorytun.core.settings import NO_CLASS, SECOND, SettingsChange
from glorytun.core.wire import OVERHEAD, TAG_SIZE, TIME_SIZE, push_time
from tests.unit.core.peer import CLIENT, SERVER, open_control, seal_control, server_peer

PATHS = [
    PathId(SERVER.address, CLIENT),
    PathId(SERVER.address, CLIENT._replace(port=4001)),
    PathId(SERVER.address, CLIENT._replace(port=4002)),  # The server has no such path.
]
ROW_SIZE = 256
Row = tuple[int, str, int]
"""The number of its path, what it is, and by how many µs it is late."""
KINDS = ["data"] * 9 + ["short", "again", "forged", "next key", "old", "control", "mark", "stub"]
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(KINDS), st.sampled_from([0, 0, 8, 20_000])),
    min_size=1,
    max_size=40,
)
IN_TURN: list[Row] = [(number % 2, "data", 20_000 * (number % 2)) for number in range(40)]
"""On the second path all is late."""


class Server:
    """A peer with two paths and a key that is to be replaced; all of them are alike."""

    def __init__(self, settings: SettingsChange) -> None:
        self.peer = peer = server_peer()
        self.session = peer.connect()
        peer.say(path=PATHS[1])
        peer.pair = KeyPair(b"n" * 32)
        peer.now += SECOND
        answer = open_control(peer.say()[0])
        assert answer is not None
        self.next = peer.session(answer.pkey)
        peer.tunnel.set(settings, peer.now)
        self.is_put_in_order = bool(settings.reorder)
        peer.tick()
        self.sent: list[bytes] = []
        self.delivered: list[bytes] = []
        self.batches = 0
        """In which these were."""
        self.said: list[bytes] = []

    def datagram(self, number: int, kind: str, late: int) -> bytes:
        """What comes as row `number`."""
        peer = self.peer
        if kind == "again" and self.sent:
            return self.sent[number * 7 % len(self.sent)]
        if kind == "control":
            return seal_control(peer.message(), time=peer.next_time(), size=192)
        if kind == "stub":
            return bytes(OVERHEAD - number % 3)
        packet = {"mark": MARK, "short": b"short"}.get(kind, b"%3d" % number * 30)
        late += 11 * SECOND if kind == "old" else 0
        session = self.next if kind == "next key" else self.session
        datagram = _seal(session, packet, peer.now + 2 * number - late)
        self.sent.append(datagram)
        return datagram[:-1] + b"?" if kind == "forged" else datagram

    def receive(self, rows: list[tuple[int, bytes]], *, at_once: bool) -> None:
        """Rows of one buffer, those of one path and size as one batch if `at_once`."""
        buffer = bytearray(len(rows) * ROW_SIZE + SLACK)
        for number, (_, datagram) in enumerate(rows):
            buffer[number * ROW_SIZE : number * ROW_SIZE + len(datagram)] = datagram
        received: list[tuple[Batch, PathId]] = []
        # What is put in order goes by the last of those that come on one path together.
        are_runs = at_once or self.is_put_in_order

        def run_of(number: int) -> object:
            path, datagram = rows[number]
            return (path, len(datagram)) if are_runs else number

        numbers = groupby(range(len(rows)), run_of)
        for _, group in numbers:
            run = list(group)
            path, datagram = rows[run[0]]
            size = len(datagram)
            batch = Batch(buffer, run[0] * ROW_SIZE, ROW_SIZE, len(run), size, size)
            received.append((batch, PATHS[path]))
        tunnel, now = self.peer.tunnel, self.peer.now
        for part in [received] if at_once else [[one] for one in received]:
            packets = tunnel.receive_all(part, now)
            self.batches += len(packets)
            self.delivered += [bytes(row) for batch in packets for row in batch.rows()]
            self.said += self.peer.take()

    def seen(self) -> object:
        """All that there is to see of it."""
        tunnel = self.peer.tunnel
        held = [bytes(row) for _ in range(3) for row in self._held()]
        return (
            *(self.delivered, held, self.peer.events, self.said, tunnel.status()),
            *(tunnel.path_statuses(), tunnel.bad_statuses()),
        )

    def _held(self) -> list[bytes]:
        due_at = self.peer.tunnel.next_packets_at()
        if due_at is None:
            return []
        packets = self.peer.tunnel.next_packets(due_at)
        return [bytes(row) for batch in packets for row in batch.rows()]


def _seal(session: Session, packet: bytes, time: int) -> bytes:
    batch = Batch.of(packet, headroom=TIME_SIZE, tailroom=TAG_SIZE)
    whole = Batch(batch.buffer, 0, len(batch.buffer), 1, len(batch.buffer), len(batch.buffer))
    push_time(batch.buffer, 0, time)
    session.tx.seal(whole)
    return bytes(batch.buffer)


@example(batches=[IN_TURN], has_copies=False, is_put_in_order=False)
@example(batches=[IN_TURN, IN_TURN], has_copies=True, is_put_in_order=False)
@example(batches=[IN_TURN], has_copies=False, is_put_in_order=True)
@given(st.lists(ROWS, min_size=1, max_size=2), st.booleans(), st.booleans())
def test_at_once_as_one_by_one(
    batches: list[list[Row]], has_copies: bool, is_put_in_order: bool
) -> None:
    """The same packets in the same order, the same judged and counted, and the same said of it."""
    settings = SettingsChange(
        redundant=0 if has_copies else NO_CLASS, reorder=20_000 if is_put_in_order else 0
    )
    together, single = Server(settings), Server(settings)
    for batch in batches:
        for server, at_once in ((together, True), (single, False)):
            rows = [
                (path, server.datagram(number, kind, late))
                for number, (path, kind, late) in enumerate(batch)
            ]
            server.receive(rows, at_once=at_once)
    assert together.seen() == single.seen()


def test_paths_in_turn_are_opened_together() -> None:
    """Datagrams of two paths, in turn, are one batch to the cipher, and one for the device."""
    server = Server(SettingsChange())
    rows = [
        (path, server.datagram(at, kind, late)) for at, (path, kind, late) in enumerate(IN_TURN)
    ]
    before = [status.rx.total for status in server.peer.tunnel.path_statuses()]
    server.receive(rows, at_once=True)
    after = [status.rx.total for status in server.peer.tunnel.path_statuses()]
    assert [b - a for a, b in zip(before, after, strict=True)] == [20, 20]
    assert server.delivered == [b"%3d" % number * 30 for number in range(40)]
    assert server.batches == 1
