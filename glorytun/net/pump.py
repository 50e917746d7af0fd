"""Moves packets and datagrams between the TUN device, the tunnel and the UDP socket.

What waits for a path with credit is taken out of the TUN nevertheless, where it could only wait in
the order in which it came: `backlog.py` says why.
"""

import errno
from collections.abc import Callable

from glorytun.core.address import PathId
from glorytun.core.backlog import NOTHING, Backlog, Head
from glorytun.core.batch import MANY, Batch
from glorytun.core.scheduler import Turn
from glorytun.core.tunnel import Tunnel
from glorytun.net.bare import complete
from glorytun.net.clock import Clock
from glorytun.net.loop import Loop
from glorytun.net.toobig import too_big
from glorytun.net.tun import Tun
from glorytun.net.udp import UdpSocket

_NO_ROOM = {errno.EAGAIN, errno.ENOBUFS}
TURNS_IN, TURNS_OUT = 4, 2
"""Times that what waits in the socket, and in the TUN, is taken before the other has its turn.

What the socket has no room for is lost after it used up the path, control messages too, and looks
like a loss of the path's. What the TUN has no room for its sender learns of at once. So the socket
comes first, and the TUN has one turn as long as it is not empty.
"""
AWAKE = 10
"""µs. After a longer wait the first that comes is passed on before anybody looks for more: the next
turn, which doesn't wait if there is more, finds it anyway."""


class Pump:
    """Connects the three. `on_send_failure` is told the path and the errno."""

    def __init__(
        self,
        *,
        tunnel: Tunnel,
        tun: Tun,
        udp: UdpSocket,
        clock: Clock,
        loop: Loop,
        on_send_failure: Callable[[PathId, int], None],
    ) -> None:
        self._tunnel = tunnel
        self._tun = tun
        self._udp = udp
        self._clock = clock
        self._loop = loop
        self._on_send_failure = on_send_failure
        self._is_behind = False
        """Whether more waits in the socket than was taken in its turn."""
        self._backlog = Backlog()
        self._send_at: int | None = None
        """When a path has credit for what waits, while that is known."""
        self._has_slept = True
        """Whether there was nothing to do before this turn."""
        loop.add_reader(udp.fileno(), self._on_udp)
        loop.add_reader(tun.fileno(), self._on_tun)

    @property
    def dropped(self) -> int:
        """Packets that no path had credit for in time, or that were too many."""
        return self._backlog.dropped

    def turn(self, *, until: int | None = None) -> None:
        """Wait for something to do, `until` then (µs since the epoch) at most, and do it."""
        before = self._clock.now()
        is_due = self._tun.has_more
        ready = self._loop.wait(0 if is_due else self._wait(before, until))
        self._has_slept = self._clock.now() - before > AWAKE
        self._loop.call_back(ready)
        if is_due and self._tun.fileno() not in dict(ready):
            self._on_tun()  # epoll knows of what the device has, not of what was read already.
        now = self._clock.now()
        due_at = self._tunnel.next_timeout()
        if due_at is not None and now >= due_at:
            self._tunnel.on_timeout(now)
        self._deliver_held(now)
        self.flush()
        if self._backlog:
            self._send_backlog(now)

    def send_all(self) -> None:
        """Send what waits for credit, or was read already: it would be lost with the process."""
        now = self._clock.now()
        while self._tun.has_more:
            for kept in self._tun.take_kept():
                self._backlog.put(kept, now, rate=self._tunnel.rate)
        while (packets := self._backlog.next(now)) is not None:
            self._backlog.took(self._forward(packets, now))

    def drain(self, until: int) -> None:
        """Only deliver what still arrives, until then (µs since the epoch), and send nothing."""
        self._loop.remove_reader(self._udp.fileno())
        self._loop.remove_reader(self._tun.fileno())
        self._loop.add_reader(self._udp.fileno(), self._deliver)
        while (now := self._clock.now()) < until:
            self._loop.turn(until - now)

    def flush(self) -> None:
        """Send what the tunnel has to say by itself."""
        for outgoing in self._tunnel.next_datagrams():
            self._send(*outgoing)

    def _wait(self, now: int, until: int | None) -> int | None:
        send_at = self._send_at if self._backlog else None
        due = (self._tunnel.next_timeout(), self._tunnel.next_packets_at(), send_at, until)
        times = [at for at in due if at is not None]
        return min(times) - now if times else None

    def _on_udp(self) -> None:
        if self._has_slept:
            self._deliver_some(1)
            self._forward_some(1)  # TCP, ping and others have answered by now, if they do at once.
        else:
            self._deliver()
        self.flush()

    def _deliver(self) -> None:
        self._is_behind = True
        for _ in range(TURNS_IN):
            self._deliver_some()
            if self._udp.is_drained:
                self._is_behind = False
                return

    def _deliver_some(self, most: int = MANY) -> None:
        now = self._clock.now()
        received = self._udp.receive(most)
        if self._udp.overflow:
            self._tunnel.on_overflow(self._udp.overflow, now)
        self._tun.write(self._tunnel.receive_all(received, now))
        self._deliver_held(now)

    def _deliver_held(self, now: int) -> None:
        """What was held back to come in order."""
        due_at = self._tunnel.next_packets_at()
        if due_at is not None and now >= due_at:
            self._tun.write(self._tunnel.next_packets(now))

    def _on_tun(self) -> None:
        if self._has_slept:
            self._forward_some(1)
            return
        for _ in range(1 if self._is_behind else TURNS_OUT):
            self._forward_some()
            if self._tun.is_drained:
                return

    def _forward_some(self, most: int = MANY) -> None:
        """Take what waits in the TUN, and send as much of it as paths have credit for."""
        now = self._clock.now()
        self._tun.leaves_bare = self._tunnel.may_send_bare
        for packets in self._tun.read(most, is_paced=bool(self._backlog)):
            rest: Batch | None = packets
            while rest is not None and not self._backlog and self._may_send(now, NOTHING):
                rest = _behind(rest, self._forward(rest, now))
            if rest is not None:
                self._backlog.put(rest, now, rate=self._tunnel.rate)

    def _send_backlog(self, now: int) -> None:
        """Send what waits, as far as paths have credit."""
        backlog = self._backlog
        while turn := self._may_send(now, backlog.head(now)):
            packets = backlog.next(now, turn.ahead, turn.most)
            if packets is None:
                return
            backlog.took(self._forward(packets, now))

    def _forward(self, packets: Batch, now: int) -> int:
        """Send the first packets; how many of them need not be tried again."""
        sent = self._tunnel.send(packets, now)
        if not sent:
            self._answer_too_big(packets)
            return packets.count
        if len(sent) == 1:
            self._send(*sent[0])
            return sent[0].datagrams.count
        runs: dict[PathId, list[Batch]] = {}
        for path, datagrams, _ in sent:
            runs.setdefault(path, []).append(datagrams)
        for path, on_path in runs.items():
            self._send_on(path, on_path)
        return sum(outgoing.datagrams.count for outgoing in sent)

    def _answer_too_big(self, packets: Batch) -> None:
        """Tell the sender of packets that were dropped what fits, if that is why."""
        mtu = self._tunnel.mtu
        if packets.size > mtu > 0:
            packet = bytearray(next(packets.rows()))
            complete(packet)
            answer = too_big(bytes(packet), mtu)
            if answer is not None:
                self._tun.write([Batch.of(answer)])

    def _may_send(self, now: int, head: Head) -> Turn | None:
        """What may leave now; None: nothing."""
        turn = self._tunnel.next_turn(now, head)
        self._send_at = None if turn is None else turn.at
        return turn if turn is not None and turn.at <= now else None

    def _send(self, path: PathId, datagrams: Batch, copy_path: PathId | None = None) -> None:
        self._send_on(path, [datagrams])
        if copy_path is not None:
            self._send_on(copy_path, [datagrams], is_copy=True)

    def _send_on(self, path: PathId, runs: list[Batch], *, is_copy: bool = False) -> None:
        failure = self._udp.send(path, *runs)
        if failure == errno.EMSGSIZE:
            self._tunnel.on_too_big(path, runs[0].size, self._clock.now())
        elif failure in _NO_ROOM:
            for datagrams in self._udp.unsent:
                self._tunnel.on_unsent(path, datagrams, is_copy=is_copy)
        elif failure:
            self._on_send_failure(path, failure)


def _behind(packets: Batch, count: int) -> Batch | None:
    """Those behind the first ones, if any."""
    return packets.run(count, packets.count - count) if count < packets.count else None
