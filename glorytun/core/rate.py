"""How fast a path may be sent on: the shaper that spaces datagrams, and the rate it uses."""

from glorytun.core.settings import SECOND

RATE_UNLIMITED = 1_250_000_000
"""bytes/s (10 Gbit/s): stands for no limit at all. 0.3.4 never sends on a path whose rate is 0,
so something has to be said to it."""

# What this implementation chose.

BURST = 5_000
"""µs of a path's rate that may leave at once."""
DEBT_MAX = SECOND // 2
"""µs that control messages, which don't wait, may keep data waiting on a slow path."""
LINK_OVERHEAD = 38
"""Bytes of an Ethernet frame around the IP packet: preamble, header, checksum, gap."""
QUEUE_MAX = 30_000
"""µs of queueing that we take as a sign of sending too much."""
_QUEUE_LOW = 5_000
_INTERVAL = SECOND // 5
_TRIP_MEMORY = 10 * SECOND
_RATE_MIN = 250_000


class Shaper:
    """A token bucket in time: each datagram keeps the path busy for its length over the rate."""

    __slots__ = ("busy_until", "rate")

    def __init__(self) -> None:
        self.rate = RATE_UNLIMITED
        """bytes/s."""
        self.busy_until = 0

    def set_rate(self, rate: int) -> None:
        """Change the rate; debts of a much slower one are forgiven."""
        if rate > 2 * self.rate:
            self.busy_until = 0
        self.rate = rate

    def ready_at(self) -> int:
        """From when on the next datagram may leave."""
        return self.busy_until - BURST

    def credit(self, now: int) -> int:
        """µs of sending that may leave now: BURST at the most."""
        return now + BURST - max(self.busy_until, now)

    def charge(self, size: int, now: int) -> None:
        """`size` bytes of frames leave now."""
        if self.rate >= RATE_UNLIMITED:
            self.busy_until = now
            return
        start = min(max(self.busy_until, now), now + DEBT_MAX)
        self.busy_until = start + size * SECOND // self.rate


class RateEstimator:
    """Finds the rate of a path from what arrives and how long it queues, below a ceiling.

    Fed with each reply. The rate falls only while we send more than arrives and the round trips
    are longer than the shortest of late: a silent application, a noisy link or a wrong clock is
    no reason.
    """

    __slots__ = (
        "_at",
        "_frames",
        "_queued",
        "_received",
        "_sent",
        "_sent_at",
        "_trip",
        "_trip_min",
        "_trip_min_before",
        "_trip_min_until",
        "ceiling",
        "rate",
    )

    def __init__(self) -> None:
        self.ceiling = RATE_UNLIMITED
        self.rate = RATE_UNLIMITED
        """bytes/s."""
        self._trip: int | None = None
        """The shortest round trip of the interval: jitter is no queue."""
        self._trip_min: int | None = None
        self._trip_min_before: int | None = None
        self._trip_min_until = 0
        self._sent_at = self._at = 0
        self._sent = self._frames = self._received = 0
        self._queued = 0

    def set_ceiling(self, ceiling: int) -> None:
        """Start again from a rate that the user or the peer gave, bytes/s."""
        self.ceiling = self.rate = ceiling

    def add(
        self, *, sent_at: int, sent: int, frames: int, at: int, received: int, trip: int
    ) -> None:
        """A reply came.

        At our time `sent_at`, µs, we had sent `sent` bytes, which took `frames` bytes of the link;
        at the peer's time `at` that had received `received` of them. `trip` is the round-trip
        time, µs.
        """
        self._note_trip(trip, sent_at)
        if sent_at <= self._sent_at or at <= self._at or received < self._received:
            return
        if self._at and sent_at - self._sent_at < _INTERVAL:
            return
        if self._at:
            # As frames, which the rate is about: of small datagrams most is overhead.
            pushed = frames - self._frames
            delivered = (received - self._received) * pushed // max(sent - self._sent, 1)
            self._adjust(
                pushed=pushed * SECOND // (sent_at - self._sent_at),
                delivered=delivered * SECOND // (at - self._at),
            )
        self._sent_at, self._sent, self._frames = sent_at, sent, frames
        self._at, self._received = at, received
        self._trip = None

    def _note_trip(self, trip: int, now: int) -> None:
        """Keep the shortest round trip of the last ten to twenty seconds."""
        if now >= self._trip_min_until:
            self._trip_min_before, self._trip_min = self._trip_min, None
            self._trip_min_until = now + _TRIP_MEMORY
        self._trip_min = trip if self._trip_min is None else min(self._trip_min, trip)
        self._trip = trip if self._trip is None else min(self._trip, trip)

    def _queue(self) -> int:
        """µs by which round trips are longer than the shortest of late."""
        shortest = [trip for trip in (self._trip_min, self._trip_min_before) if trip is not None]
        return (self._trip or 0) - min(shortest, default=0)

    def _adjust(self, *, pushed: int, delivered: int) -> None:
        queue = self._queue()
        too_much = queue > QUEUE_MAX and pushed > delivered + delivered // 16
        self._queued = self._queued + 1 if too_much else 0
        if self._queued >= 2:  # One long delay may be a hiccup of either host.
            self._queued = 0
            self.rate = min(self.rate, max(delivered * 17 // 20, _RATE_MIN))
        elif queue <= QUEUE_MAX and delivered > self.rate * 7 // 10:
            self.rate += self.rate // (4 if queue < _QUEUE_LOW else 20)
        self.rate = min(self.rate, self.ceiling)
