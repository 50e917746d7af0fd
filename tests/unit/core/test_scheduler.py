"""Which path takes the next packets."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.address import PathId
from glorytun.core.backlog import Head
from glorytun.core.inorder import SLACK
from glorytun.core.leftout import left_out
from glorytun.core.path import LAST_RESORT, Path
from glorytun.core.scheduler import SPARSE, TOGETHER, Scheduler
from glorytun.core.settings import SECOND, PathMode, PathSettings
from glorytun.core.shaper import BURST_GIVEN, BURST_MAX, Shaper
from glorytun.core.stat import OneWay
from glorytun.core.status import Condition, Limit
from tests.unit.core.peer import NOW, SERVER

SIZE = 1400


def make_path(
    name: int,
    *,
    rate: int = 0,
    rtt: int = 20_000,
    mtu: int = 1472,
    condition: Condition = Condition.RUNNING,
    heard_at: int = NOW,
) -> Path:
    """A path as a server has it, in a condition of our choice."""
    path = Path(
        PathId(bytes(15) + bytes([name]), SERVER),
        PathSettings(rate_tx=rate, fixed_rate=bool(rate)),
        client=False,
    )
    path.mtu_told = mtu
    path.delay.add(rtt // 2)
    path.condition = condition
    path.rx_at = heard_at
    return path


def scheduler(*paths: Path, now: int = NOW) -> Scheduler:
    made = Scheduler()
    made.refresh(paths, now)
    return made


def run(chooser: Scheduler, duration: int) -> dict[PathId, int]:
    """Send as fast as it says for `duration` µs; the datagrams on each path."""
    counts: dict[PathId, int] = {}
    now = NOW
    while now < NOW + duration:
        path = chooser.pick(size=SIZE, now=now)
        assert path is not None
        counts[path.id] = counts.get(path.id, 0) + 1
        path.count_sent(size=SIZE, count=1, now=now)
        now = max(now, ready_at(chooser, now))
    return counts


def ready_at(chooser: Scheduler, now: int, waiting: int | None = None) -> int:
    """When packets may leave."""
    turn = chooser.turn(now, None if waiting is None else Head(b"flow", waiting, SIZE))
    assert turn is not None
    return turn.at


def ahead(chooser: Scheduler, now: int) -> int:
    """Bytes that should leave before what may leave now, when enough of them waits."""
    turn = chooser.turn(now, Head(b"flow", SECOND, SIZE))
    assert turn is not None
    return turn.ahead


def test_paths_fill_in_proportion_to_their_rates() -> None:
    """Two paths of 4 and 1 MB/s take datagrams in that proportion, and both are full."""
    fast, slow = make_path(1, rate=4_000_000), make_path(2, rate=1_000_000)
    counts = run(scheduler(fast, slow), SECOND)
    per_second = 5_000_000 // (SIZE + fast.overhead)
    assert sum(counts.values()) == pytest.approx(per_second, rel=0.05)
    assert counts[fast.id] / counts[slow.id] == pytest.approx(4, rel=0.1)


def test_first_to_arrive_is_chosen() -> None:
    """While all are free, the path of the shortest delay takes the packet, whatever its rate."""
    near, far = make_path(1, rate=1_000_000, rtt=10_000), make_path(2, rate=9_000_000, rtt=80_000)
    chooser = scheduler(far, near)
    assert chooser.pick(size=SIZE, now=NOW) is near
    near.shaper.charge(40_000, NOW)
    assert chooser.pick(size=SIZE, now=NOW) is far


class TestSpread:
    """Many packets that leave at once."""

    def test_equal_paths_take_turns(self) -> None:
        paths = [make_path(index, rate=6_250_000) for index in (1, 2)]
        chooser = scheduler(*paths)
        shares = chooser.spread(paths[0], size=SIZE, count=10, now=NOW)
        assert [path for path, _ in shares] == [paths[turn % 2] for turn in range(len(shares))]
        assert [count for _, count in shares] == [1, 2, 2, 2, 2, 1]

    def test_what_is_far_off_waits_for_its_turn(self) -> None:
        """While the near path is full, the far one takes what comes behind that, and little more:
        what the near one takes next comes between."""
        near, far = make_path(1, rate=5_000_000), make_path(2, rate=5_000_000, rtt=60_000)
        chooser = scheduler(near, far)
        frame = SIZE + near.overhead
        burst = 1 + BURST_GIVEN * 5 // frame
        assert chooser.spread(near, size=SIZE, count=100, now=NOW) == [(near, burst)]
        near.count_sent(size=20 * frame, count=20, now=NOW)
        assert ahead(chooser, NOW) > SIZE
        most = 1 + TOGETHER * 5 // frame
        assert chooser.spread(far, size=SIZE, count=100, now=NOW) == [(far, most)]

    def test_what_costs_more_takes_nothing_away(self) -> None:
        """A cheap path that is free takes as many as it may, though a dear one is faster."""
        cheap = make_path(1, rate=5_000_000, rtt=60_000)
        dear = make_path(2, rate=5_000_000, rtt=10_000)
        cheap.settings = replace(cheap.settings, cost=1)
        dear.settings = replace(dear.settings, cost=2)
        chooser = scheduler(cheap, dear)
        chooser._usable = [cheap, dear]  # as once the cheap one has been full
        burst = 1 + BURST_GIVEN * 5 // (SIZE + cheap.overhead)
        assert chooser.spread(cheap, size=SIZE, count=burst, now=NOW) == [(cheap, burst)]

    @pytest.mark.parametrize("count", [1, 5, 256])
    def test_without_a_limit_one_takes_all(self, count: int) -> None:
        free, slow = make_path(1), make_path(2, rate=1_000_000)
        chooser = scheduler(free, slow)
        assert chooser.spread(free, size=SIZE, count=count, now=NOW) == [(free, count)]

    @given(
        st.lists(
            st.tuples(
                st.integers(20_000, 20_000_000),  # bytes/s
                st.integers(0, 100_000),  # µs of round trip
                st.integers(-5_000, 30_000),  # bytes that it still has to send
            ),
            min_size=1,
            max_size=4,
        ),
        st.integers(1, 256),
    )
    def test_they_arrive_in_order(self, links: list[tuple[int, int, int]], count: int) -> None:
        """But for what a full path could have, less than one packet; each leaves with credit."""
        paths = [make_path(index, rate=link[0], rtt=link[1]) for index, link in enumerate(links)]
        for path, (*_, busy) in zip(paths, links, strict=True):
            path.shaper.charge(max(0, busy), NOW)
        chooser = scheduler(*paths)
        first = chooser.pick(size=SIZE, now=NOW)
        assert first is not None
        credits = {path.id: path.shaper.credit(NOW) for path in paths}
        shares = chooser.spread(first, size=SIZE, count=count, now=NOW)
        assert shares[0][0] is first
        assert all(number > 0 for _, number in shares)
        assert 1 <= sum(number for _, number in shares) <= count
        arrivals = []
        for path, number in shares:
            assert path is first or path.shaper.credit(NOW) >= -count  # parts of µs
            for _ in range(number):
                arrivals.append((path.arrival(size=SIZE, now=NOW), path.duration(SIZE)))
                path.count_sent(size=SIZE, count=1, now=NOW)
        for path in paths:
            taken = credits[path.id] - path.shaper.credit(NOW)
            assert taken <= max(0, credits[path.id]) + path.duration(SIZE) + len(arrivals)
        longest = max(path.duration(SIZE) for path in paths) + len(arrivals)
        assert all(later - earlier >= -longest for (earlier, _), (later, _) in pairwise(arrivals))


@pytest.mark.parametrize(
    ("rates", "trips", "out"),
    [
        ((40, 20), (10, 60), []),
        ((50, 2), (20, 300), [1]),
        ((2, 50), (300, 20), [0]),
        ((50, 2), (20, 22), []),
        ((20, 20), (10, 250), []),
        ((20, 20), (10, 700), [1]),
        ((20, 20, 1), (10, 10, 100), [2]),
        ((0, 0), (10, 60), []),
        ((5,), (900,), []),
    ],
)
def test_a_path_that_would_hurt_is_left_out(
    rates: tuple[int, ...], trips: tuple[int, ...], out: list[int]
) -> None:
    """Which carries little beside the faster ones, and that much later."""
    paths = [
        make_path(index, rate=rate * 125_000, rtt=trip * 1000)
        for index, (rate, trip) in enumerate(zip(rates, trips, strict=True))
    ]
    assert list(left_out(paths)) == [paths[index] for index in out]


def test_a_path_comes_back_a_little_later_than_it_went() -> None:
    fast, slow = make_path(1, rate=4_000_000), make_path(2, rate=400_000, rtt=69_000)
    assert slow not in left_out([fast, slow])
    slow.is_left_out = True
    assert left_out([fast, slow]) == {slow: 24_500}


def test_a_path_of_unknown_rate_is_not_left_out_for_that() -> None:
    """It begins slowly beside others, and may carry as much as was given."""
    fast, slow = make_path(1, rate=5_000_000), make_path(2, rtt=200_000)
    for is_alone in (False, True):
        slow.note_alone(is_alone=is_alone)
        assert not left_out([fast, slow])


@pytest.mark.parametrize("rate", [0, 1_250_000])
def test_it_is_not_a_rival_of_others_for_what_it_may_carry(rate: int) -> None:
    """Until that is found it counts as no more than the others, alone or not."""
    slow, slowest, fast = make_path(1, rate=rate), make_path(2, rate=rate), make_path(3)
    slow.delay.add(300_000)
    slowest.delay.add(4_000_000)
    for is_alone in (False, True):
        fast.note_alone(is_alone=is_alone)
        assert list(left_out([fast, slow, slowest])) == [slowest]


@pytest.mark.parametrize(("costs", "out"), [((1, 0), []), ((1, 1), [1]), ((0, 1), [1])])
def test_a_path_is_not_left_out_for_a_dearer_one(costs: tuple[int, int], out: list[int]) -> None:
    """A link that costs nothing carries what it can, though another is much faster."""
    paths = [make_path(1, rate=6_250_000), make_path(2, rate=250_000, rtt=60_000)]
    for path, cost in zip(paths, costs, strict=True):
        costly(path, cost)
    assert list(left_out(paths)) == [paths[index] for index in out]


def test_a_redundant_path_is_not_left_out_and_leaves_none_out() -> None:
    """It is there for copies, however late."""
    for index in (0, 1):
        paths = [make_path(1, rate=6_250_000), make_path(2, rate=125_000, rtt=80_000)]
        assert left_out(paths) == {paths[1]: 30_000}
        redundant(paths[index])
        assert not left_out(paths)


def test_it_says_when_to_go_on() -> None:
    """A path is ready again when no more than a burst is left to be sent."""
    path = make_path(1, rate=2_000_000)
    chooser = scheduler(path)
    path.shaper.charge(40_000, NOW)
    assert ready_at(chooser, NOW) == NOW + 20_000 - BURST_GIVEN


@pytest.mark.parametrize(
    ("conditions", "usable"),
    [
        ([Condition.RUNNING, Condition.WAITING], 0),
        ([Condition.LOSSY, Condition.RUNNING], 1),
        ([Condition.DEGRADED, Condition.LOSSY], 1),
        ([Condition.LOSSY, Condition.LATE], 1),
        ([Condition.DEGRADED, Condition.PROBING], 0),
        ([Condition.PROBING, Condition.DOWN], None),
        ([], None),
    ],
)
def test_best_group_is_used(conditions: list[Condition], usable: int | None) -> None:
    """Paths that run are used alone; else late, lossy, or those that were heard just now."""
    paths = [make_path(index, condition=condition) for index, condition in enumerate(conditions)]
    chooser = scheduler(*paths)
    picked = chooser.pick(size=SIZE, now=NOW)
    assert picked is (None if usable is None else paths[usable])
    assert (chooser.turn(NOW) is None) == (usable is None)


def test_last_resort_ends() -> None:
    """A path that isn't heard is given up after a while, even as the only one."""
    path = make_path(1, condition=Condition.DEGRADED)
    assert scheduler(path, now=NOW + LAST_RESORT).turn(NOW) is not None
    assert scheduler(path, now=NOW + LAST_RESORT + 1).turn(NOW) is None


@pytest.mark.parametrize("count", [1, 2])
def test_datagram_fits_its_path(count: int) -> None:
    """A datagram goes where it fits, and nowhere when it fits nowhere."""
    small = make_path(1, mtu=1000, rtt=1000)
    large = make_path(2, mtu=1300, rtt=50_000)
    chooser = scheduler(*[large, small][:count])
    assert chooser.pick(size=1300, now=NOW) is large
    assert chooser.pick(size=1301, now=NOW) is None
    assert chooser.pick(size=1000, now=NOW) is (small if count == 2 else large)


class TestOrder:
    """40 and 20 Mbit/s, 5 and 30 ms one way."""

    @staticmethod
    def busy(**far_settings: int) -> tuple[Path, Path, Scheduler]:
        """The near one has as much to send as may leave at once."""
        near, far = make_path(1, rate=5_000_000, rtt=10_000), make_path(2, rate=2_500_000)
        far.delay = OneWay()
        far.delay.add(30_000)
        far.settings = replace(far.settings, **far_settings)  # type: ignore[arg-type]  # all are numbers
        near.shaper.charge(40_000, NOW)
        return near, far, scheduler(near, far)

    def test_a_slower_path_is_ready_for_what_is_behind_enough(self) -> None:
        """What the near one carries until the far one's datagram would arrive, 17 ms later."""
        near, far, chooser = self.busy()
        before = 17_000 * 5
        assert ahead(chooser, NOW) == pytest.approx(before, rel=0.02)
        assert ready_at(chooser, NOW, 0) == near.shaper.ready_at()
        assert ready_at(chooser, NOW, before - SLACK * 5 - 2000) == near.shaper.ready_at()
        assert ready_at(chooser, NOW, before) == far.shaper.ready_at()
        assert ready_at(chooser, NOW) == far.shaper.ready_at()

    def test_a_path_that_is_spared_says_so(self) -> None:
        """Until two replies have come since."""
        near, far, chooser = self.busy()
        ready_at(chooser, NOW, 0)
        assert (near.status().limit, far.status().limit) == (Limit.APPLICATION, Limit.ORDER)
        for limit in (Limit.ORDER, Limit.APPLICATION):
            far.heard_reply(NOW)
            assert far.status().limit == limit

    def test_the_first_to_arrive_takes_what_is_next(self) -> None:
        near, far, chooser = self.busy()
        later = near.shaper.ready_at()
        assert chooser.pick(size=SIZE, now=later) is near
        assert ahead(chooser, later) == 0
        far.condition = Condition.DEGRADED
        chooser.refresh([near, far], NOW)
        assert ahead(chooser, NOW) == 0

    def test_delays_that_are_alike_are_no_matter(self) -> None:
        near, far = make_path(1, rate=5_000_000), make_path(2, rate=2_500_000, rtt=21_000)
        near.shaper.charge(20_000, NOW)
        assert ready_at(scheduler(near, far), NOW, 0) == far.shaper.ready_at()

    def test_a_cheap_path_waits_for_no_dear_one(self) -> None:
        """Though what it takes should be in order too, where there is a choice."""
        near, far, _ = self.busy()
        near.settings = replace(near.settings, cost=1)
        far.shaper._used = 100
        far.shaper.busy_until = NOW
        chooser = scheduler(near, far)
        assert ready_at(chooser, NOW, 0) == far.shaper.ready_at()
        assert ahead(chooser, NOW) == pytest.approx(17_000 * 5, rel=0.02)

    @pytest.mark.parametrize("waiting", [SPARSE - 1, 30_000])
    def test_order_is_given_up_for_a_queue_that_does_not_grow(self, waiting: int) -> None:
        """As a flow has that keeps it short: not at first, and never for what is sparse."""
        near, far, chooser = self.busy()
        used, lessons = [], []
        now = NOW
        while now < NOW + 4 * SECOND:
            sent = near.tx_bytes + far.tx_bytes
            turn = chooser.turn(now, Head(b"flow", waiting, SIZE), sent=sent)
            assert turn is not None
            if turn.at > now:
                now = turn.at
                continue
            path = chooser.pick(size=SIZE, now=now)
            assert path is not None
            if turn.most == 1:
                assert (path, turn.ahead) == (near, SIZE)
                lessons.append(now)
            path.count_sent(size=SIZE, count=1, now=now)
            if path is far:
                used.append(now)
        if waiting < SPARSE:
            assert not used
            assert not lessons
        else:
            assert NOW + SECOND // 2 < used[0] < NOW + 2 * SECOND
            assert far.tx_bytes > 2 * SECOND * 0.9 * far.shaper.rate // SECOND
            assert NOW <= lessons[0] < NOW + SECOND // 10
            assert len(lessons) > 20


def costly(path: Path, cost: int) -> Path:
    path.settings = replace(path.settings, cost=cost)
    return path


def redundant(path: Path) -> Path:
    path.settings = replace(path.settings, mode=PathMode.REDUNDANT)
    return path


class TestCost:
    def test_a_dear_path_is_not_used_while_the_cheap_one_suffices(self) -> None:
        """Half of the cheap one's rate is asked for, in bursts that wait; the dear is faster."""
        cheap, dear = make_path(1, rate=1_000_000), costly(make_path(2, rate=4_000_000, rtt=2), 1)
        chooser, burst = scheduler(cheap, dear), 10
        for start in range(NOW, NOW + 3 * SECOND, 2 * burst * cheap.duration(SIZE)):
            now = start
            for _ in range(burst):
                now = max(now, ready_at(chooser, now))
                path = chooser.pick(size=SIZE, now=now)
                assert path is cheap
                path.count_sent(size=SIZE, count=1, now=now)
            assert now > start

    def test_it_is_used_for_what_the_cheap_one_does_not_carry(self) -> None:
        """From a third of a second on; then it stops being used when less is asked for."""
        cheap, dear = make_path(1, rate=2_000_000), costly(make_path(2, rate=1_000_000), 1)
        chooser = scheduler(cheap, dear)
        assert set(run(chooser, SECOND // 4)) == {cheap.id}
        cheap.shaper, dear.shaper = Shaper(), Shaper()
        cheap.apply_rate()
        dear.apply_rate()
        counts = run(chooser, 3 * SECOND)
        assert counts[dear.id] * 2 == pytest.approx(counts[cheap.id], rel=0.2)
        now = NOW + 4 * SECOND
        assert chooser.turn(now) is not None
        assert chooser.pick(size=SIZE, now=now) is cheap

    def test_the_dear_one_takes_all_when_the_cheap_one_fails(self) -> None:
        cheap, dear = (
            make_path(1, condition=Condition.DEGRADED, heard_at=0),
            costly(make_path(2), 9),
        )
        assert scheduler(cheap, dear).pick(size=SIZE, now=NOW) is dear

    def test_each_step_opens_when_the_one_before_is_full(self) -> None:
        paths = [costly(make_path(i, rate=1_000_000), i) for i in (3, 1, 2)]
        counts = run(scheduler(*paths), SECOND)
        by_cost = [counts[path.id] for path in sorted(paths, key=lambda path: path.settings.cost)]
        assert by_cost == sorted(by_cost, reverse=True)
        assert len(set(by_cost)) == 3


class TestLoss:
    """Of two paths one loses more: `lossier`."""

    def paths(self) -> tuple[Path, Path]:
        good, bad = make_path(1, rate=1_000_000), make_path(2, rate=1_000_000, rtt=18_000)
        bad.is_lossier = True
        return good, bad

    def test_it_has_what_the_other_does_not_carry(self) -> None:
        """The good one is full a third of a second after there is enough for it."""
        good, bad = self.paths()
        chooser = scheduler(good, bad)
        assert set(run(chooser, SECOND // 4)) == {good.id}
        counts = run(chooser, 3 * SECOND)
        assert counts[bad.id] == pytest.approx(counts[good.id], rel=0.2)

    @pytest.mark.parametrize("cost", [0, 1])
    @pytest.mark.parametrize("pause", [SECOND // 2, 2 * SECOND])
    def test_it_is_used_for_a_moment_longer(self, pause: int, cost: int) -> None:
        """BBR is silent for 0.2 s; but one that costs money, too, no longer."""
        good, bad = self.paths()
        costly(bad, cost)
        run(scheduler(good, bad), 2 * SECOND)
        now = NOW + 2 * SECOND + pause
        good.shaper.charge(good.shaper.rate // 100, now)  # Now it isn't free.
        picked = scheduler(good, bad, now=now).pick(size=SIZE, now=now)
        assert (picked is bad) == (pause < SECOND and not cost)

    def test_while_both_are_used_small_bursts_take_the_other(self) -> None:
        good, bad = self.paths()
        chooser = scheduler(good, bad)
        run(chooser, 2 * SECOND)
        now = NOW + 2 * SECOND + SECOND // 10
        picked = [chooser.pick(size=SIZE, now=now)]
        good.count_sent(size=SIZE, count=1, now=now)
        picked.append(chooser.pick(size=SIZE, now=now))
        assert picked == [good, good]
        good.count_sent(size=SIZE, count=1, now=now)
        good.count_sent(size=SIZE, count=1, now=now)
        assert chooser.pick(size=SIZE, now=now) is bad

    def test_no_money_is_spent_instead(self) -> None:
        """What only loses more comes before what costs more."""
        good, bad = self.paths()
        dear = costly(make_path(3, rate=1_000_000), 1)
        counts = run(scheduler(good, bad, dear), SECOND)
        assert counts[good.id] > counts[bad.id] > counts[dear.id] > 0


class TestCopies:
    def test_a_redundant_path_has_copies_and_nothing_of_its_own(self) -> None:
        own, other = make_path(1, rate=1_000_000), redundant(make_path(2, rate=1_000_000, rtt=2))
        chooser = scheduler(own, other)
        assert set(run(chooser, SECOND)) == {own.id}
        assert chooser.copies_all
        later = NOW + 2 * SECOND
        assert chooser.pick_copy(own, size=SIZE, is_marked=False, now=later) is other

    def test_it_takes_all_when_no_other_works(self) -> None:
        other = redundant(make_path(2))
        chooser = scheduler(make_path(1, condition=Condition.DEGRADED, heard_at=0), other)
        assert chooser.pick(size=SIZE, now=NOW) is other
        assert chooser.pick_copy(other, size=SIZE, is_marked=False, now=NOW) is None

    def test_two_redundant_paths_carry_all_twice(self) -> None:
        one, two = redundant(make_path(1)), redundant(make_path(2, rtt=2))
        chooser = scheduler(one, two)
        assert chooser.pick(size=SIZE, now=NOW) is two
        assert chooser.pick_copy(two, size=SIZE, is_marked=False, now=NOW) is one

    def test_what_is_marked_goes_where_nothing_else_does(self) -> None:
        """On a path that is left out or costs more, a cheap one rather; on no backup that waits."""
        own, waiting = make_path(1), make_path(2, rtt=80_000, condition=Condition.WAITING)
        dear = costly(make_path(3, rtt=2), 1)
        paths = [own, waiting, dear]
        for path in (dear, None):
            chooser = scheduler(*paths)
            assert chooser.pick_copy(own, size=SIZE, is_marked=False, now=NOW) is None
            assert chooser.pick_copy(own, size=SIZE, is_marked=True, now=NOW) is path
            waiting.is_left_out = True
            chooser = scheduler(*paths)
            assert chooser.pick_copy(own, size=SIZE, is_marked=True, now=NOW) is waiting
            assert chooser.pick(size=SIZE, now=NOW) is own
            waiting.is_left_out = False
            paths = [own, waiting]

    def test_a_full_path_takes_copies_of_what_is_marked_alone(self) -> None:
        """And no more of them than 1 ms of its rate, then as many as that carries."""
        own, other = make_path(1), redundant(make_path(2, rate=1_000_000))
        chooser = scheduler(own, other)
        other.count_sent(size=10 * SIZE, count=10, now=NOW)
        assert chooser.pick_copy(own, size=SIZE, is_marked=False, now=NOW) is None
        copies = dict.fromkeys(range(0, 100_000, 500), 0)
        for at in copies:
            while chooser.pick_copy(own, size=SIZE, is_marked=True, now=NOW + at) is other:
                copies[at] += 1
                other.count_sent(size=SIZE, count=1, now=NOW + at, is_marked_copy=True)
        frame = SIZE + other.overhead
        assert copies[0] == 1 + (BURST_MAX - BURST_GIVEN) // frame
        assert max(copies.values()) == copies[0]
        assert sum(copies.values()) == pytest.approx(100_000 / frame, abs=3)

    @pytest.mark.parametrize("is_marked", [True, False])
    def test_no_more_leave_together_than_the_copies_path_takes(self, is_marked: bool) -> None:
        """1 ms of its rate, if they are marked, else 4."""
        own, other = make_path(1), redundant(make_path(2, rate=4_000_000))
        chooser = scheduler(own, other)
        kind = {"size": SIZE, "is_marked": is_marked, "now": NOW}
        duration = BURST_MAX - BURST_GIVEN if is_marked else BURST_GIVEN
        most = duration * 4 // (SIZE + other.overhead)
        assert chooser.burst_of_copies(other, count=40, **kind) == most  # type: ignore[arg-type]  # a dict of several types
        other.count_sent(size=SIZE, count=1, now=NOW, is_marked_copy=is_marked)
        assert chooser.burst_of_copies(other, count=40, **kind) == most - 1  # type: ignore[arg-type]  # likewise

    def test_what_is_marked_goes_on_the_two_best(self) -> None:
        first, second, third = make_path(1, rtt=2), make_path(2, rtt=4000), make_path(3, rtt=9000)
        chooser = scheduler(third, second, first)
        assert chooser.pick(size=SIZE, now=NOW) is first
        assert chooser.pick_copy(first, size=SIZE, is_marked=True, now=NOW) is second
        assert chooser.pick_copy(first, size=SIZE, is_marked=False, now=NOW) is None
        assert chooser.pick_copy(first, size=2000, is_marked=True, now=NOW) is None
