"""The shaper of a path, which spaces datagrams as its rate allows."""

from glorytun.core.settings import SECOND

RATE_UNLIMITED = 1_250_000_000
"""bytes/s (10 Gbit/s): stands for no limit at all. 0.3.4 never sends on a path whose rate is 0,
so something has to be said to it."""

# What this implementation chose.

BURST, BURST_GIVEN = 2_500, 4_000
"""µs of a path's rate that may leave at once. More where the rate is given: a host with other work
comes back late, and that time is lost. Where it is to be found more would look like a queue."""
BURST_MAX = 5_000
"""The same with one packet more, which may leave then, or with marked copies, which don't wait."""
FRAME_MAX = 1538
"""Bytes of a packet on Ethernet, as long as most are there."""
FULL_AFTER = 3 * SECOND // 10
"""µs without much of a pause after which a path is full: dearer ones are used too, then."""
FULL = 83
"""% of that that it was busy."""
FULL_UNTIL = SECOND
"""µs after which it is no more, for one that is used too and costs no money: TCP with BBR sends
nearly nothing for 0.2 s every ten, and others halve their rate and come back."""
DEBT_MAX = SECOND // 2
"""µs that control messages, which don't wait, may keep data waiting on a slow path."""
LINK_OVERHEAD = 38
"""Bytes of an Ethernet frame around the IP packet: preamble, header, checksum, gap."""


class Shaper:
    """A token bucket in time: each datagram keeps the path busy for its length over the rate."""

    __slots__ = (
        "_charged_at",
        "_copies_until",
        "_full_at",
        "_pauses",
        "_rest",
        "_since",
        "_used",
        "_with_copies",
        "burst",
        "busy_until",
        "rate",
    )

    def __init__(self) -> None:
        self.rate = RATE_UNLIMITED
        """bytes/s."""
        self.burst = BURST
        """µs that a path may be busy for when another packet leaves."""
        self._with_copies = BURST_MAX - BURST
        """µs of marked copies that may leave besides."""
        self.busy_until = 0
        self._charged_at = 0
        """When something left the last time."""
        self._copies_until = 0
        """How long the path would be busy if it carried nothing but marked copies."""
        self._rest = 0
        """Of a µs, in parts of `rate`: without it a link's queue would grow and grow."""
        self._since = 0
        """When the stretch began over which `_pauses` are added up, µs."""
        self._pauses = 0
        self._full_at = 0
        """When it was full the last time."""
        self._used = 0
        """Share of the stretch before that it was busy, %."""

    def set_rate(self, rate: int, *, is_given: bool = False) -> None:
        """Change the rate; debts of a much slower one are forgiven."""
        if rate > 2 * self.rate:
            # No earlier: that it was busy until then is true, and is counted.
            self.busy_until = min(self.busy_until, self._charged_at)
        self.rate = rate
        most = BURST_GIVEN if is_given else BURST
        self._with_copies = BURST_MAX - most
        self.burst = min(most, max(BURST, BURST_MAX - FRAME_MAX * SECOND // rate))

    def ready_at(self) -> int:
        """From when on the next datagram may leave."""
        return self.busy_until - self.burst

    def credit(self, now: int) -> int:
        """µs of sending that may leave now before another packet: `burst` at the most."""
        return now + self.burst - max(self.busy_until, now)

    def credit_for_marked(self, now: int) -> int:
        """µs of marked copies that may leave now, whatever else the path has to carry."""
        return now + self._with_copies - max(self._copies_until, now)

    def used(self, now: int) -> int:
        """Share of its rate that it was used of late, %."""
        return self._used if now - self.busy_until < FULL_AFTER else 0

    def is_full(self, now: int) -> bool:
        """Whether it has been sent on for a while as fast as it may be."""
        return self.used(now) > FULL

    def was_full(self, now: int) -> bool:
        """The same, or not long ago."""
        return now - self._full_at < FULL_UNTIL

    def _note_pause(self, now: int) -> None:
        self._pauses += max(0, now - self.busy_until)
        length = now - self._since
        if length >= FULL_AFTER:
            self._used = 100 - 100 * self._pauses // length
            self._since, self._pauses = now, 0
            if self._used > FULL:
                self._full_at = now

    def charge(self, size: int, now: int) -> None:
        """`size` bytes of frames leave now."""
        self._note_pause(now)
        self._charged_at = now
        if self.rate >= RATE_UNLIMITED:
            self.busy_until = now
            return
        start = min(max(self.busy_until, now), now + DEBT_MAX)
        duration, self._rest = divmod(size * SECOND + self._rest, self.rate)
        self.busy_until = start + duration

    def charge_marked(self, size: int, now: int) -> None:
        """The same for marked copies."""
        self.charge(size, now)
        self._copies_until = max(self._copies_until, now) + size * SECOND // self.rate
