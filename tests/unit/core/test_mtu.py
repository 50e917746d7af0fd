"""Path MTU discovery."""

from dataclasses import dataclass, field
from random import Random

import pytest

from glorytun.core.mtu import (
    CONFIRM_INTERVAL,
    LADDER,
    PROBE_FLOOR,
    PROBE_MAX,
    PROBE_MIN,
    RAISE_INTERVAL,
    MtuSearch,
)
from glorytun.core.settings import SECOND
from glorytun.core.wire import REQUEST_SIZE
from tests.unit.core.peer import NOW

INTERVAL = 20_000
EVERY_SIZE = range(PROBE_FLOOR, PROBE_MAX + 1)


@dataclass(kw_only=True)
class Link:
    """A search, driven over a link that passes datagrams of up to `size` bytes."""

    size: int
    loss: float = 0.0
    """Of a request or its answer."""
    trip: int = 0
    """µs until the answer, which comes with the next step at the soonest."""
    seed: int = 0
    search: MtuSearch = field(default_factory=MtuSearch)
    now: int = NOW
    probed: list[int] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    """The sizes that the search ended with, each once until another one came."""

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._answers: list[tuple[int, int, int]] = []

    def step(self, interval: int = INTERVAL) -> None:
        """What arrives, what is due, then the next requests, as a path does it."""
        self.now += interval
        while self._answers and self._answers[0][0] <= self.now:
            _, size, sent_at = self._answers.pop(0)
            self.search.on_answer(size, sent_at=sent_at, now=self.now)
        if self.search.probe and self.search.is_too_big():
            self.search.on_too_big(self.now)
        if not self.search.probe and self.settled[-1:] != [self.search.size]:
            self.settled.append(self.search.size)
        self.search.on_timeout(self.now)
        probes = self.search.take_probes(self.now)
        self.probed += probes
        for size in (REQUEST_SIZE, *probes) if probes else ():
            if size <= self.size and self._random.random() >= self.loss:
                self._answers.append((self.now + self.trip, size, self.now))

    def settle(self, *, steps: int = 3000, interval: int = INTERVAL) -> int:
        """Drive until nothing is asked any more; the size found."""
        for _ in range(steps):
            self.step(interval)
            if not self.search.probe:
                return self.search.size
        raise AssertionError(f"nothing is settled after {steps} steps")

    def pass_time(self, duration: int) -> None:
        """Steps of 100 ms, as while data is sent."""
        for _ in range(duration // 100_000):
            self.step(100_000)


def test_every_size_is_found() -> None:
    """Each size from the floor to the maximum is found, with a bounded number of probes."""
    most = 0
    for size in EVERY_SIZE:
        link = Link(size=size)
        assert link.settle() == size
        assert link.settled == [size]
        assert set(link.probed) <= set(EVERY_SIZE)
        most = max(most, len(link.probed))
    assert most <= 120


def test_full_size_is_found_at_once() -> None:
    """A ladder of sizes is asked for at once, so most links are known after one round trip."""
    link = Link(size=1500)
    link.step()
    assert sorted(link.probed) == list(LADDER)
    link.step()
    assert link.search.size == link.search.usable == PROBE_MAX
    assert link.search.probe == 0


@pytest.mark.parametrize("size", [PROBE_MIN, 1400, 1471])
def test_path_is_of_use_after_one_round_trip(size: int) -> None:
    """The largest step of the ladder that passes is used until the exact size is known."""
    link = Link(size=size)
    link.step()
    link.step()
    assert link.search.probe
    assert link.search.usable == max(step for step in LADDER if step <= size)
    link.settle()
    assert link.search.usable == size


def test_small_size_is_used_when_it_is_sure() -> None:
    """Less than IPv6 needs is used only when nothing larger passes."""
    link = Link(size=PROBE_MIN - 1)
    while link.search.probe:
        assert link.search.usable == 0
        link.step()
    assert link.search.usable == PROBE_MIN - 1


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.5])
def test_loss_is_not_taken_for_size(loss: float) -> None:
    """At up to half of everything lost, at most 1 search in 100 of 1000 ends at a wrong size."""
    wrong = []
    for seed in range(1000):
        size = Random(seed).choice(EVERY_SIZE)
        found = Link(size=size, loss=loss, seed=seed).settle()
        assert found <= size
        if found != size:
            wrong.append((seed, size, found))
    assert len(wrong) <= 10


@pytest.mark.parametrize("trip", [100_000, SECOND // 2, 2 * SECOND])
def test_late_answers(trip: int) -> None:
    """Answers that come after many more requests left are understood all the same."""
    for seed in range(30):
        size = Random(seed).choice(EVERY_SIZE)
        link = Link(size=size, trip=trip, loss=0.1, seed=seed)
        assert link.settle(interval=trip // 4) == size


@pytest.mark.parametrize("late", [1400, 1450, PROBE_MAX])
def test_answer_that_comes_too_late_mends_the_search(late: int) -> None:
    """An answer of a size that was given up opens the search up to the top again."""
    link = Link(size=PROBE_MIN)
    while link.search.probe != PROBE_MIN + 1:
        link.step()
    assert link.search.on_answer(late, sent_at=link.now, now=link.now)
    link.size = 1460
    assert (link.search.probe == 0) == (late == PROBE_MAX)
    assert (link.settle() if link.search.probe else link.search.size) == max(late, 1460)


def test_answer_longer_than_any_probe() -> None:
    """No answer makes a size that is never asked for."""
    search = MtuSearch()
    search.take_probes(NOW)
    assert not search.on_answer(PROBE_MAX + 1, sent_at=NOW, now=NOW)
    assert search.size == 0


def test_silence_settles_nothing() -> None:
    """Where not even small requests are answered, no size is given up."""
    link = Link(size=0)
    for _ in range(1000):
        link.step()
    assert set(link.probed) == set(LADDER)
    assert (link.search.size, link.search.probe) == (0, PROBE_FLOOR)
    assert not link.search.is_fruitless
    link.size = PROBE_MAX
    assert link.settle() == PROBE_MAX


@pytest.mark.parametrize("size", [PROBE_MIN - 28, 1372])
def test_a_search_goes_on_after_an_outage(size: int) -> None:
    """What was lost then doesn't count for ever."""
    link = Link(size=size)
    while link.search.size < size - 30 or not link.search.probe:
        link.step()
    link.step()
    link.loss = 1
    for _ in range(500):
        link.step()
    link.loss = 0
    assert link.settle(steps=200) == size


def test_old_answers_are_no_sign_of_life() -> None:
    """Answers to requests from before the probe say nothing of the probe's silence."""
    search = MtuSearch()
    for _ in range(50):
        search.take_probes(NOW)
        search.on_answer(REQUEST_SIZE, sent_at=NOW - 1, now=NOW)
    assert not search.is_too_big()
    for _ in range(10):
        search.take_probes(NOW)
        search.on_answer(REQUEST_SIZE, sent_at=NOW, now=NOW)
    search.on_answer(REQUEST_SIZE, sent_at=NOW, now=NOW)


def test_nothing_passes() -> None:
    """A link that passes less than the floor is asked again for ever, and said to be fruitless."""
    link = Link(size=PROBE_FLOOR - 1)
    for _ in range(2000):
        link.step()
    assert link.search.usable == 0
    assert link.search.is_fruitless
    assert set(link.probed) == set(LADDER)
    assert link.probed.count(PROBE_MAX) >= 3
    link.size = 1000
    link.settle()
    assert not link.search.is_fruitless
    link.pass_time(RAISE_INTERVAL + 60 * SECOND)
    assert link.search.size == 1000


def test_settled_size_is_confirmed() -> None:
    """Every few seconds the size in use has to prove itself, and that is no news."""
    link = Link(size=1400)
    link.settle()
    del link.probed[:]
    link.pass_time(20 * SECOND)
    assert set(link.probed) == {1400}
    assert 3 <= len(link.probed) <= 8
    assert link.settled == [1400]
    assert link.search.size == 1400


def test_smaller_link_is_noticed() -> None:
    """When the size in use passes no more it is unknown, and then the new one is found."""
    link = Link(size=1472)
    link.settle()
    link.size = 1350
    link.pass_time(CONFIRM_INTERVAL + 5 * SECOND)
    assert link.search.size in (0, 1350)
    assert link.settle() == 1350
    assert link.settled == [1472, 1350]


@pytest.mark.parametrize(("loss", "most"), [(0.2, 2), (0.5, 15)])
def test_loss_unsettles_nothing(loss: float, most: int) -> None:
    """A settled size stays for ten minutes of loss, in all but a few runs of 100."""
    unsettled = 0
    for seed in range(100):
        link = Link(size=1400, loss=loss, seed=seed)
        link.settle()
        before = list(link.settled)
        link.pass_time(RAISE_INTERVAL - SECOND)
        unsettled += link.settled != before or link.search.size != before[-1]
    assert unsettled <= most


def test_larger_link_is_found() -> None:
    """Larger sizes are tried again every ten minutes, while the one in use stays in use."""
    link = Link(size=1400)
    link.settle()
    link.pass_time(RAISE_INTERVAL - SECOND)
    assert max(link.probed[-100:]) == 1400
    link.pass_time(2 * SECOND)
    assert max(link.probed[-10:]) > 1400
    assert link.search.usable == 1400
    assert link.settle() == 1400
    assert link.settled == [1400]
    link.size = 1450
    link.pass_time(RAISE_INTERVAL + 60 * SECOND)
    assert link.search.size == 1450
    assert link.settled == [1400, 1450]


def test_full_size_is_not_raised() -> None:
    """At the maximum there is nothing larger to try: it is confirmed only."""
    link = Link(size=1500)
    link.settle()
    del link.probed[:]
    link.pass_time(2 * RAISE_INTERVAL)
    assert set(link.probed) == {PROBE_MAX}


def test_kernel_says_too_big() -> None:
    """A probe that the kernel refuses to send is given up at once."""
    search = MtuSearch()
    asked: list[int] = []
    while search.probe:
        asked.append(search.probe)
        if search.probe > 1400:
            search.on_too_big(NOW)
        else:
            search.on_answer(search.probe, sent_at=NOW, now=NOW)
    assert search.size == 1400
    assert len(asked) == len(set(asked)) <= 15


def test_nothing_is_asked_when_settled() -> None:
    """After the search, answers and early timeouts change nothing."""
    search = MtuSearch()
    search.take_probes(NOW)
    assert search.on_answer(PROBE_MAX, sent_at=NOW, now=NOW)
    assert not search.on_answer(PROBE_MAX, sent_at=NOW, now=NOW)
    search.on_timeout(NOW + CONFIRM_INTERVAL - 1)
    assert search.probe == 0
    search.on_timeout(NOW + CONFIRM_INTERVAL)
    assert search.probe == PROBE_MAX
    search.on_timeout(NOW + CONFIRM_INTERVAL)
    assert search.probe == PROBE_MAX
