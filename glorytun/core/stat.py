"""Smoothed estimates of what control messages measure."""

LOSS_FULL = 255
"""A loss of everything (PROTOCOL 2, `loss`)."""
_LOSS_MEMORY = 200
"""Datagrams over which the loss is averaged at the least, roughly."""
_LOSS_TIME = 2_000_000
"""µs over which it is, where more are sent: what is lost in a moment makes no link lossy."""
_LOSS_SAMPLE_MIN = 40
"""Datagrams before a loss is stated at all."""
_UNIT = 1024
"""Parts of a datagram: whole ones would be rounded away while old ones are forgotten."""


def percentage(share: int) -> float:
    """What a share of 255 was given as: a whole percentage, if one is rounded to it."""
    percent = share * 100 / LOSS_FULL
    is_whole = (2 * LOSS_FULL * round(percent) + 100) // 200 == share
    return round(percent) if is_whole else round(percent, 1)


class Smoothed:
    """A running mean and variation, as PROTOCOL 3 has them for the round-trip time; integers."""

    __slots__ = ("mean", "newest", "ready", "variation")

    def __init__(self) -> None:
        self.mean = 0
        self.newest = 0
        self.variation = 0
        self.ready = False

    def add(self, sample: int) -> None:
        self.newest = sample
        if not self.ready:
            self.ready, self.mean, self.variation = True, sample, sample // 2
            return
        distance = abs(sample - self.mean)
        self.variation += (distance - self.variation) // 4
        self.mean += (sample - self.mean) // 8


class OneWay(Smoothed):
    """How long packets take to the peer by two clocks, of which either may be set at any time."""

    __slots__ = ("_is_shifted",)

    def __init__(self) -> None:
        super().__init__()
        self._is_shifted = False

    def measured(self, sample: int, *, trips: int) -> int:
        """Add a sample; by how much a clock was set since the last one, where others tell as much.

        `trips` is what round trips took, this one and those before. No more than that can be due
        to the way: such a sample is begun with anew.
        """
        step = sample - self.mean if self.ready else 0
        is_step = abs(step) > trips
        if is_step:
            self.mean = sample
        self.add(sample)
        # After a shift it's this path alone that was wrong, or the one that was believed.
        is_news = is_step and not self._is_shifted
        self._is_shifted = False
        return step if is_news else 0

    def shift(self, step: int) -> None:
        """Another path has shown that a clock was set."""
        self.mean += step
        self._is_shifted = True


class LossEstimator:
    """The share of our datagrams that the peer did not count, from pairs of totals in replies."""

    __slots__ = ("_at", "_look", "_received", "_sent", "loss", "received", "sent")

    def __init__(self) -> None:
        self.loss = 0
        """Of 255."""
        self.sent = 0
        """Our total, as of the newest pair."""
        self.received = 0
        """The peer's total when it had that."""
        self._sent = 0
        self._received = 0
        self._at = 0
        self._look = 0, 0
        """The totals when a look began."""

    def skip(self, *, sent: int, received: int) -> None:
        """A reply that says nothing of the loss, since we sent what was not to arrive."""
        self.sent, self.received = sent, received

    def add(self, *, sent: int, received: int, now: int) -> None:
        """A reply: when we had sent `sent` datagrams, the peer had counted `received`."""
        if sent < self.sent:
            return  # A late reply: a newer one was taken already.
        if received < self.received or not self.sent:
            # The first pair, or the peer counts anew: it was restarted or forgot the path.
            self.sent, self.received = sent, received
            return
        self._forget(now)
        self._sent += (sent - self.sent) * _UNIT
        self._received += (received - self.received) * _UNIT
        self.sent, self.received = sent, received
        if self._sent >= _LOSS_SAMPLE_MIN * _UNIT:
            lost = max(0, self._sent - self._received)
            self.loss = min(LOSS_FULL, lost * LOSS_FULL // self._sent)

    @property
    def sample(self) -> int:
        """Datagrams that `loss` and `per_mille` are of, roughly."""
        return self._sent // _UNIT

    @property
    def per_mille(self) -> int:
        """The same as `loss` in ‰, rounded up."""
        if self.sample < _LOSS_SAMPLE_MIN:
            return 0
        return -(-1000 * max(0, self._sent - self._received) // self._sent)

    def look(self) -> None:
        """Begin to look at what is lost from now on: on average it is that of before for long."""
        self._look = self.sent, self.received

    @property
    def looked(self) -> int:
        """Datagrams that were sent since."""
        return self.sent - self._look[0]

    def believe_look(self, limit: int) -> None:
        """Forget what was before if little enough was lost since: of 255, `limit`."""
        sent, received = self.looked, self.received - self._look[1]
        if max(0, sent - received) * LOSS_FULL > limit * sent:
            return
        self._sent = _LOSS_MEMORY * _UNIT
        self._received = min(self._sent, self._sent * received // sent)
        self.loss = (self._sent - self._received) * LOSS_FULL // self._sent

    def _forget(self, now: int) -> None:
        elapsed, self._at = min(now - self._at, _LOSS_TIME), now
        kept = self._sent - self._sent * elapsed // _LOSS_TIME
        kept = max(kept, min(self._sent, _LOSS_MEMORY * _UNIT))
        if self._sent:
            self._received = self._received * kept // self._sent
            self._sent = kept
