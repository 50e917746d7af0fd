"""The rate of a path is found from replies."""

from random import Random
from statistics import median

import pytest

from glorytun.core.rate import RateEstimator
from glorytun.core.settings import SECOND
from glorytun.core.shaper import RATE_UNLIMITED
from glorytun.core.status import Limit
from tests.unit.core.peer import NOW

LINK = 20_000_000 // 8
"""bytes/s of the simulated link."""


class Link:
    """A sender that always has data, a queue of `depth` µs, and replies every 100 ms."""

    def __init__(
        self, *, rate: int = LINK, delay: int = 20_000, jitter: int = 0, depth: int = 200_000
    ) -> None:
        self.rate, self.delay, self.jitter, self.depth = rate, delay, jitter, depth
        self.estimator = RateEstimator()
        self.random = Random(1)
        self.now = NOW
        self.busy_until = NOW
        self.loss = 0.0
        """The share of what the queue took that is lost on the way."""
        self.payload = 1.0
        """The share of what is sent that isn't overhead."""
        self.sent = 0
        self.taken = 0
        """What the queue had room for, which all arrives."""
        self.offered = RATE_UNLIMITED
        """What the sender has to send, bytes/s."""
        self.clock_offset = 0
        """µs by which the peer's clock is ahead."""
        self.used_delay = 0
        """µs that everything takes longer while the link is used at all."""
        self._replies: list[tuple[int, dict[str, int]]] = []

    def rest(self) -> "Link":
        """Let the estimator see the link without data first, as every tunnel does."""
        offered, self.offered = self.offered, 0
        self.run(SECOND)
        self.offered = offered
        return self

    def run(self, duration: int) -> None:
        """Steps of 1 ms."""
        end = self.now + duration
        while self.now < end:
            self.now += 1000
            self._send(min(self.estimator.allowed, self.offered) // 1000)
            if self.now % 100_000 == 0:
                self._request()
            while self._replies and self._replies[0][0] <= self.now:
                self.estimator.add(**self._replies.pop(0)[1])

    def _send(self, size: int) -> None:
        self.sent += size
        self.busy_until = max(self.busy_until, self.now)
        room = self.depth - (self.busy_until - self.now)
        size = max(0, min(size, room * self.rate // SECOND))
        self.busy_until += size * SECOND // self.rate
        self.taken += round(size * (1 - self.loss))

    def _request(self) -> None:
        """It waits in the queue behind all that was taken, so that arrives before."""
        arrived_at = max(self.busy_until, self.now) + self.delay
        arrived_at += self.random.randrange(self.jitter) if self.jitter else 0
        arrived_at += self.used_delay if self.offered else 0
        reply = {
            "sent_at": self.now,
            "sent": int(self.sent * self.payload),
            "frames": self.sent,
            "at": arrived_at + self.clock_offset,
            "received": int(self.taken * self.payload),
            "trip": arrived_at + self.delay - self.now,
        }
        self._replies.append((arrived_at + self.delay, reply))


@pytest.mark.parametrize("payload", [1.0, 0.5])
def test_estimator_finds_the_rate_of_a_link(payload: float) -> None:
    """From no limit at all, the rate of a 20 Mbit/s queue is found within a few seconds."""
    link = Link().rest()
    link.payload = payload
    link.run(5 * SECOND)
    rates = []
    for _ in range(200):
        link.run(SECOND // 10)
        rates.append(link.estimator.rate)
    assert all(LINK * 7 // 10 <= rate <= LINK * 16 // 10 for rate in rates)
    assert LINK * 8 // 10 <= sum(rates) // len(rates) <= LINK * 12 // 10


@pytest.mark.parametrize("depth", [8_000, 50_000, 500_000])
@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_link_is_kept_full_and_its_queue_short(depth: int, loss: float) -> None:
    """Whatever buffer a link has, what waits in it is a few ms; and lost datagrams cost no more."""
    link = Link(rate=6_250_000, delay=10_000, depth=depth).rest()
    link.loss = loss
    link.run(5 * SECOND)
    taken, queues = link.taken, []
    for _ in range(300):
        link.run(SECOND // 10)
        queues.append(max(0, link.busy_until - link.now))
    assert (link.taken - taken) // 30 >= 6_250_000 * (1 - loss) * 0.97
    assert max(queues) <= 15_000
    assert sum(queues) // 300 <= 6_000


@pytest.mark.parametrize("depth", [50_000, 500_000])
def test_fall_and_return_of_a_link(depth: int) -> None:
    """From 50 to 10 Mbit/s it takes 3 s until the queue is short; back, 6 s until all is used."""
    link = Link(rate=6_250_000, delay=10_000, depth=depth).rest()
    link.run(10 * SECOND)
    link.rate = 1_250_000
    link.run(3 * SECOND)
    for _ in range(80):
        link.run(SECOND // 10)
        assert link.busy_until - link.now <= 20_000
    assert link.estimator.limit == Limit.QUEUE
    link.rate = 6_250_000
    link.run(6 * SECOND)
    assert link.estimator.rate >= 6_250_000 * 95 // 100


def test_a_way_that_becomes_longer_is_no_queue_for_long() -> None:
    """After a change of the route cuts don't help, so the longer delay is taken as it is."""
    link = Link().rest()
    link.run(10 * SECOND)
    link.delay += 50_000
    link.run(5 * SECOND)
    before = link.taken
    link.run(20 * SECOND)
    assert (link.taken - before) // 20 >= LINK * 95 // 100


@pytest.mark.parametrize("delay", [6_000, 9_000, 15_000, 30_000])
def test_a_way_that_is_longer_while_it_is_used_is_no_queue(delay: int) -> None:
    """As radio links are, which send many packets at once: less of them makes it no shorter."""
    link = Link().rest()
    link.used_delay = delay
    link.run(10 * SECOND)
    before = link.taken
    link.run(30 * SECOND)
    assert (link.taken - before) // 30 >= LINK * 95 // 100


@pytest.mark.parametrize(
    ("ceiling", "offered", "limit"),
    [
        (RATE_UNLIMITED, 2 * LINK, Limit.QUEUE),
        (LINK // 2, 2 * LINK, Limit.RATE),
        (RATE_UNLIMITED, LINK // 4, Limit.APPLICATION),
    ],
)
def test_what_limits_is_known(ceiling: int, offered: int, limit: Limit) -> None:
    """The link, the rate that was given, or that there is no more to send."""
    link = Link().rest()
    link.estimator.set_ceiling(ceiling)
    link.offered = offered
    link.run(10 * SECOND)
    assert link.estimator.limit == limit


def test_jitter_is_no_queue() -> None:
    """Delays that vary by 30 ms, on a link that is far from full, cost no rate."""
    link = Link(jitter=30_000).rest()
    link.offered = LINK // 2
    link.run(60 * SECOND)
    assert link.estimator.allowed == RATE_UNLIMITED


@pytest.mark.parametrize(
    ("offered", "least"), [(LINK // 2, LINK * 49 // 100), (LINK * 2, LINK * 9 // 10)]
)
def test_jitter_costs_no_throughput(offered: int, least: int) -> None:
    """Delays that vary by 60 ms take next to nothing of what a link delivers."""
    taken = []
    for seed in range(5):
        link = Link(jitter=60_000)
        link.random = Random(seed)
        link.rest()
        link.offered = offered
        link.run(10 * SECOND)
        before = link.taken
        link.run(60 * SECOND)
        taken.append((link.taken - before) // 60)
    assert median(taken) >= least


@pytest.mark.parametrize("payload", [1.0, 0.5])
def test_estimator_grows_back(payload: float) -> None:
    """When a link that was slow for a while is fast again, so is the rate, within seconds."""
    link = Link(rate=LINK // 4).rest()
    link.payload = payload
    link.run(10 * SECOND)
    assert link.estimator.rate <= LINK // 2
    link.rate = LINK
    link.run(10 * SECOND)
    assert link.estimator.rate >= LINK * 7 // 10


def test_idle_path_does_not_grow() -> None:
    """A rate that isn't used says nothing of a larger one."""
    link = Link().rest()
    link.run(10 * SECOND)
    link.offered = LINK // 10
    link.run(SECOND)
    before = link.estimator.rate
    link.run(30 * SECOND)
    assert link.estimator.rate == before


@pytest.mark.parametrize("ceiling", [LINK // 10, LINK // 2, 300_000])
def test_ceiling_holds(ceiling: int) -> None:
    """A rate that the user or the peer gave is never exceeded, and is reached."""
    link = Link().rest()
    link.estimator.set_ceiling(ceiling)
    for _ in range(100):
        link.run(SECOND // 10)
        assert link.estimator.rate <= ceiling
    assert link.estimator.rate == ceiling


@pytest.mark.parametrize("step", [-300 * SECOND, -SECOND, 2 * SECOND, 300 * SECOND])
def test_clock_step_of_the_peer_costs_no_throughput(step: int) -> None:
    """Times of the peer are compared with each other only, and a step of its clock is passed."""
    link = Link().rest()
    link.run(10 * SECOND)
    link.clock_offset = step
    link.run(5 * SECOND)
    before = link.taken
    link.run(20 * SECOND)
    assert (link.taken - before) // 20 >= LINK * 8 // 10


def feed(estimator: RateEstimator, *, beats: range, trip: int = 40_000, first: int = 0) -> None:
    """Replies in which all arrives that is sent, at half the link's rate."""
    for beat in beats:
        total = (beat - first) * LINK // 20
        sent_at = NOW + beat * 100_000
        sent = beat * LINK // 20
        estimator.add(
            sent_at=sent_at, sent=sent, frames=sent, at=sent_at, received=total, trip=trip
        )


def test_peer_that_counts_anew() -> None:
    """A peer that was restarted delivers what it counts from then on, not less than nothing."""
    estimator = RateEstimator()
    estimator.set_ceiling(LINK)
    feed(estimator, beats=range(20))
    feed(estimator, beats=range(20, 60), first=20)
    assert estimator.rate == LINK


def test_long_delays_alone_are_no_sign() -> None:
    """While all that is sent arrives, round trips may be long: the rate isn't the reason."""
    estimator = RateEstimator()
    estimator.set_ceiling(LINK)
    feed(estimator, beats=range(20))
    feed(estimator, beats=range(20, 60), trip=300_000)
    assert estimator.rate == LINK


def test_what_is_overtaken_by_a_request_is_not_lost() -> None:
    """A link that carries any rate: by one reply a sixth is missing, by the next it is there."""
    estimator = RateEstimator()
    sent = 0
    for index, (more, late) in enumerate([(300, 0)] * 20 + [(190_000, 30_000), (300_000, 0)]):
        sent += more
        at = NOW + index * SECOND // 10
        times = {"sent_at": at, "at": at + 100, "trip": 200}
        estimator.add(sent=sent, frames=sent, received=sent - late, **times)
    assert not estimator.is_found
    assert estimator.allowed == RATE_UNLIMITED


@pytest.mark.parametrize(("hiccups", "falls"), [(1, False), (8, True)])
def test_one_long_delay_is_a_hiccup(hiccups: int, falls: bool) -> None:
    """A single interval in which less arrives, late, takes nothing away; two in a row do."""
    estimator = RateEstimator()
    estimator.set_ceiling(LINK)
    received = 0
    for beat in range(40):
        late = 10 <= beat < 10 + hiccups
        received += LINK // 40 if late else LINK // 20
        sent_at = NOW + beat * 100_000
        estimator.add(
            sent_at=sent_at,
            sent=beat * LINK // 20,
            frames=beat * LINK // 20,
            at=sent_at + 120_000 if late else sent_at + 20_000,
            received=received,
            trip=140_000 if late else 40_000,
        )
        if beat == 20:
            assert (estimator.rate < LINK) == falls


@pytest.mark.parametrize("queued", [1, 3, 5])
def test_an_echo_that_falls_is_no_reason_to_fail(queued: int) -> None:
    """Though there was a queue: it is the peer's to say, and may be anything."""
    estimator = RateEstimator()
    sent = received = 0
    for beat in range(12 + queued + 6):
        step = 12_500 if beat < 12 + queued else -1000
        late = 0 if beat < 12 else 50_000
        sent, received = sent + step, received + max(step, 0)
        at = NOW + beat * 100_000
        estimator.add(
            sent_at=at,
            sent=sent,
            frames=sent,
            at=at + 5000 + late,
            received=received,
            trip=10_000 + late,
        )
    assert 0 < estimator.allowed <= RATE_UNLIMITED


def test_a_way_that_is_longer_now_is_no_limit() -> None:
    """A path alone whose delay rises for good has no rate for that."""
    estimator = RateEstimator()
    for beat in range(80):
        late = 0 if beat < 12 else 50_000
        at = NOW + beat * 100_000
        estimator.add(
            sent_at=at,
            sent=beat * 12_500,
            frames=beat * 12_500,
            at=at + 5000 + late,
            received=beat * 12_500,
            trip=10_000 + late,
        )
    assert estimator.rate < RATE_UNLIMITED or not estimator.is_found
