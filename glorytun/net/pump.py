"""Moves packets and datagrams between the TUN device, the tunnel and the UDP socket.

Packets are read from the TUN only when a path has credit for them: the backlog waits in the
device's own queue, where the kernel manages it.
"""

import errno
from collections import deque
from collections.abc import Callable

from glorytun.core.address import PathId
from glorytun.core.batch import MANY, Batch
from glorytun.core.tunnel import Tunnel
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
        self._is_paused = False
        self._is_paced = False
        """Whether the paths' credit has ended since the TUN was empty."""
        self._is_behind = False
        """Whether more waits in the socket than was taken in its turn."""
        self._held: deque[Batch] = deque()
        """Packets that were read, and are sent when a path has credit for them."""
        self._send_at: int | None = None
        """When the TUN may be read again, while that is known."""
        self._served = 0
        """How often the TUN had its turn."""
        self._has_slept = True
        """Whether there was nothing to do before this turn."""
        loop.add_reader(udp.fileno(), self._on_udp)
        loop.add_reader(tun.fileno(), self._on_tun)

    def turn(self, *, until: int | None = None) -> None:
        """Wait for something to do, `until` then (µs since the epoch) at most, and do it."""
        before = self._clock.now()
        served = self._served
        is_due = self._tun.has_more and not self._is_paused
        ready = self._loop.wait(0 if is_due else self._wait(before, until))
        self._has_slept = self._clock.now() - before > AWAKE
        self._loop.call_back(ready)
        if is_due and self._served == served:
            self._on_tun()  # epoll knows of what the device has, not of what was read already.
        now = self._clock.now()
        due_at = self._tunnel.next_timeout()
        if due_at is not None and now >= due_at:
            self._tunnel.on_timeout(now)
        self._deliver_held(now)
        self.flush()
        if self._is_paused and not self._set_paused(now) and self._held:
            self._send_held(now)

    def drain(self, until: int) -> None:
        """Only deliver what still arrives, until then (µs since the epoch), and send nothing."""
        self._loop.remove_reader(self._udp.fileno())
        if not self._is_paused:
            self._loop.remove_reader(self._tun.fileno())
        self._loop.add_reader(self._udp.fileno(), self._deliver)
        while (now := self._clock.now()) < until:
            self._loop.turn(until - now)

    def flush(self) -> None:
        """Send what the tunnel has to say by itself."""
        for outgoing in self._tunnel.next_datagrams():
            self._send(*outgoing)

    def _wait(self, now: int, until: int | None) -> int | None:
        send_at = self._send_at if self._is_paused else None
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
        packets: list[Batch] = []
        received = self._udp.receive(most)
        if self._udp.overflow:
            self._tunnel.on_overflow(received[0][1], self._udp.overflow)
        for datagrams, path in received:
            packets += self._tunnel.receive(datagrams, path, now)
        self._tun.write(packets)
        self._deliver_held(now)

    def _deliver_held(self, now: int) -> None:
        """What was held back to come in order."""
        due_at = self._tunnel.next_packets_at()
        if due_at is not None and now >= due_at:
            self._tun.write(self._tunnel.next_packets(now))

    def _on_tun(self) -> None:
        self._served += 1
        if self._has_slept:
            self._forward_some(1)
            return
        for _ in range(1 if self._is_behind else TURNS_OUT):
            if not self._forward_some() or self._tun.is_drained:
                return

    def _forward_some(self, most: int = MANY) -> bool:
        """Send what waits in the TUN; False if no path has credit for more."""
        now = self._clock.now()
        if self._set_paused(now):
            return False
        if not self._held:
            self._held.extend(self._tun.read(most, is_paced=self._is_paced))
            self._is_paced = self._is_paced and not self._tun.is_drained
        self._send_held(now)
        return True

    def _send_held(self, now: int) -> None:
        """Send what was read, now that a path has credit, as far as that goes."""
        held = self._held
        while held:
            packets = held.popleft()
            sent = self._tunnel.send(packets, now)
            if sent is not None:
                rest = packets.count - sent.datagrams.count
                if rest:
                    held.appendleft(packets.run(sent.datagrams.count, rest))
                self._send(*sent)
            else:
                self._answer_too_big(packets)
            if held and self._set_paused(now):
                return

    def _answer_too_big(self, packets: Batch) -> None:
        """Tell the sender of packets that were dropped what fits, if that is why."""
        mtu = self._tunnel.mtu
        if packets.size > mtu > 0:
            answer = too_big(bytes(next(packets.rows())), mtu)
            if answer is not None:
                self._tun.write([Batch.of(answer)])

    def _set_paused(self, now: int) -> bool:
        """Stop reading the TUN, or read it again, as the tunnel takes packets or not."""
        self._send_at = self._tunnel.next_send_at(now)
        paused = self._send_at is None or self._send_at > now
        if paused != self._is_paused:
            self._is_paused = paused
            # Taken out altogether: epoll reports an error of the device even to who wants nothing.
            if paused:
                self._is_paced = True
                self._loop.remove_reader(self._tun.fileno())
            else:
                self._loop.add_reader(self._tun.fileno(), self._on_tun)
        return paused

    def _send(self, path: PathId, datagrams: Batch, copy_path: PathId | None = None) -> None:
        if copy_path is not None:
            self._send(copy_path, datagrams)
        failure = self._udp.send(path, datagrams)
        if failure == errno.EMSGSIZE:
            self._tunnel.on_too_big(path, datagrams.size, self._clock.now())
        elif failure in _NO_ROOM:
            self._tunnel.on_unsent(path, datagrams)
        elif failure:
            self._on_send_failure(path, failure)
