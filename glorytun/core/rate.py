"""How fast a path may be sent on: the shaper that spaces datagrams, and the rate it uses."""

from glorytun.core.settings import SECOND

RATE_UNLIMITED = 1_250_000_000
"""bytes/s (10 Gbit/s): stands for no limit at all. 0.3.4 never sends on a path whose rate is 0,
so something has to be said to it."""

# What this implementation chose.

BURST = 5_000
"""µs of a path's rate that may leave at once."""
LINK_OVERHEAD = 38
"""Bytes of an Ethernet frame around the IP packet: preamble, header, checksum, gap."""
QUEUE_MAX = 30_000
"""µs of queueing on the way to the peer that we take as a sign of too much."""
_QUEUE_LOW = 5_000
_INTERVAL = SECOND // 5
_RATE_MIN = 250_000


class Shaper:
    """A token bucket in time: each datagram keeps the path busy for its length over the rate."""

    __slots__ = ("busy_until", "rate")

    def __init__(self) -> None:
        self.rate = RATE_UNLIMITED
        """bytes/s."""
        self.busy_until = 0

    def ready_at(self) -> int:
        """From when on the next datagram may leave."""
        return self.busy_until - BURST

    def charge(self, size: int, now: int) -> None:
        """`size` bytes of frames leave now."""
        if self.rate >= RATE_UNLIMITED:
            self.busy_until = now
            return
        self.busy_until = max(self.busy_until, now) + size * SECOND // self.rate


class RateEstimator:
    """Finds the rate of a path from what arrives and how long it queues, below a ceiling.

    Fed with each reply. Delays are differences of two clocks: only their changes mean something.
    """

    __slots__ = ("_at", "_bytes", "_delay_min", "_queue", "_queued", "ceiling", "rate")

    def __init__(self) -> None:
        self.ceiling = RATE_UNLIMITED
        self.rate = RATE_UNLIMITED
        """bytes/s."""
        self._delay_min: int | None = None
        self._at = 0
        self._bytes = 0
        self._queue: int | None = None
        """The shortest queue of the interval: jitter is no queue."""
        self._queued = 0

    def set_ceiling(self, ceiling: int) -> None:
        """Start again from a rate that the user or the peer gave, bytes/s."""
        self.ceiling = self.rate = ceiling

    def add(self, *, at: int, delay: int, received: int) -> None:
        """A reply left the peer at its time `at`, µs, after it had received `received` bytes.

        `delay` is the time on the peer's clock when our request arrived less that on ours when
        it left.
        """
        if self._delay_min is None or delay < self._delay_min:
            self._delay_min = delay
        queue = delay - self._delay_min
        self._delay_min += queue // 256  # Clocks drift and routes change: the floor may rise.
        self._queue = queue if self._queue is None else min(self._queue, queue)
        if at < self._at or received < self._bytes:
            self._at, self._bytes = at, received
            return
        if at - self._at < _INTERVAL:
            return
        delivered = (received - self._bytes) * SECOND // (at - self._at)
        first = not self._at
        queue = self._queue
        self._at, self._bytes, self._queue = at, received, None
        if not first:
            self._adjust(queue, delivered)

    def _adjust(self, queue: int, delivered: int) -> None:
        self._queued = self._queued + 1 if queue > QUEUE_MAX else 0
        if self._queued >= 2:  # One long delay may be a hiccup of either host.
            self._queued = 0
            self.rate = min(self.rate, max(delivered * 17 // 20, _RATE_MIN))
        elif delivered > self.rate * 7 // 10:
            self.rate += self.rate // (4 if queue < _QUEUE_LOW else 20)
        self.rate = min(self.rate, self.ceiling)
