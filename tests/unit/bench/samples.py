"""A load whose numbers are known."""

from tests.bench.paths.loads import LOST_PING, Seen
from tests.emulator.model import Counters
from tests.wan import DOWN, UP

SECONDS = 10
FALL = 5
"""When the first of two links falls from 8 Mbit/s to nothing; the second has 4 throughout."""
LOST_AT, SLOW_AT, SLOW = 6.0, 7.0, 60.0
"""A ping that isn't answered, and one that takes so many ms, where others take 20."""


def seen() -> Seen:
    """10 s upwards: all that the links carry arrives."""
    found = Seen()
    sent = [0.0, 0.0]
    for tick in range(SECONDS * 20 + 1):
        at = tick / 20
        counters = [[Counters(), Counters()] for _ in sent]
        for one, total, queue_ms in zip(counters, sent, (at, 2.0), strict=True):
            one[UP] = Counters(sent_bytes=round(total), queue_ms=queue_ms)
            one[DOWN] = Counters(sent_bytes=round(total / 100), queue_ms=0.0)
        found.samples.append((at, counters))
        found.received.append((at, round(sum(sent))))
        sent[0] += 1e6 / 20 if at < FALL else 0.0
        sent[1] += 0.5e6 / 20
    special = {LOST_AT: LOST_PING, SLOW_AT: SLOW}
    times = [tick / 10 for tick in range(SECONDS * 10)]
    found.pings = [(at, special.get(at, 20.0)) for at in times]
    return found
