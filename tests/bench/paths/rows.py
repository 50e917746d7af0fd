"""What is measured: each row's links, load, and the bars it has to reach."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import NamedTuple

from tests.bench.paths.loads import LOST_PING, Action, Seen
from tests.bench.paths.scene import Options, Players, Scene, achievable
from tests.emulator.model import Profile
from tests.netns.traffic import Report, Stream
from tests.wan import DOWN, UP

USED = 0.02
"""Share of the load above which a path counts as used."""
SETTLED = 0.85
"""Share of what the links can carry at which a rate has settled, over two seconds: BBR itself is
silent for 0.2 s in ten."""
CALM = 30.0
"""ms above the base at which pings have settled."""
LATE = 5.0
"""ms above the median at which a packet of a stream is late."""
BEFORE_SILENCE = 8.0
"""s of a load that ends before BBR sends nearly nothing for 0.2 s (PROBE_RTT), as it does every
ten: that is 2.2 % of ten, more than some bars leave, whatever carries it."""
NONE = 0.5
"""A bar for what is counted: 0 stands for no bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number and the bar for it."""

    name: str
    unit: str
    value: float
    bar: float
    is_most: bool = False
    """Whether the bar is the most that it may be, not the least."""

    @property
    def is_reached(self) -> bool:
        return self.value <= self.bar if self.is_most else self.value >= self.bar


class Run(NamedTuple):
    """What came out of a row."""

    measures: list[Measure]
    late: float
    """See `Scene.late`."""
    seen: Seen | None = None
    """The course of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    work: Callable[[Players, bool, Options, float], Run]
    """Runs it for so many seconds, upwards or downwards."""
    seconds: float = 10.0
    only_ours: bool = False


def link(rate: float, trip: float, **more: float) -> Profile:
    """A link of so many Mbit/s both ways, and ms of a round trip."""
    return Profile(rate=rate, delay=trip / 2, **more)  # type: ignore[arg-type]  # all are numbers


def share(seen: Seen, possible: float, start: float, end: float, *, bar: float) -> list[Measure]:
    """The goodput, and what part of it was possible."""
    mbit = seen.mbit(start, end)
    return [
        Measure(name="TCP", unit="%", value=mbit / possible * 100, bar=bar),
        Measure(name="goodput", unit="Mbit/s", value=mbit, bar=0.0),
    ]


def base_of(seen: Seen, up: bool, *profiles: Profile) -> float:
    """The round trip, ms, of the slowest path that was used."""
    direction = UP if up else DOWN
    end = seen.received[-1][0]
    carried = [seen.carried(index, direction, 0, end) for index in range(len(profiles))]
    used = [
        2 * profile.delay
        for profile, mbit in zip(profiles, carried, strict=True)
        if mbit > USED * sum(carried)
    ]
    return max(used)


def calm(seen: Seen, base: float, start: float, *, mean: float, most: float = 0.0) -> list[Measure]:
    """Pings under the load: the mean of those that were answered, the worst of all."""
    pings = seen.pings_between(start, seen.received[-1][0] - 0.2)
    answered = [ms for ms in pings if ms < LOST_PING]
    average = statistics.mean(answered or [LOST_PING])
    found = [
        Measure(name="ping", unit="ms", value=average, bar=base + mean, is_most=True),
        Measure(name="pings lost", unit="", value=len(pings) - len(answered), bar=0),
    ]
    if most:
        found.append(
            Measure(name="worst", unit="ms", value=max(pings), bar=base + most, is_most=True)
        )
    return found


def bulk(
    *profiles: Profile,
    possible: float,
    bar: float,
    is_auto: bool = False,
    start: float = 2.0,
    ping: float = 15.0,
    worst: float = 0.0,
    congestion: str = "",
) -> Callable[[Players, bool, Options, float], Run]:
    """One flow, pings beside it."""

    def work(players: Players, up: bool, options: Options, seconds: float) -> Run:
        options = replace(options, congestion=congestion or options.congestion)
        with Scene(players, *profiles, up=up, is_auto=is_auto, options=options) as scene:
            seen = scene.flow(seconds + start)
        found = share(seen, possible, start, seconds + start, bar=bar)
        base = base_of(seen, up, *profiles)
        found += calm(seen, base, start, mean=ping, most=worst)
        return Run(found, scene.late, seen)

    return work


def settled(seen: Seen, start: float, end: float, *, possible: float, base: float) -> float:
    """Seconds from `start` after which goodput and pings stay as they ought to be until `end`."""
    at = start
    steps = int((end - start) * 10)
    for step in range(steps):
        moment = start + step / 10
        if moment + 2 <= end and seen.mbit(moment, moment + 2) < SETTLED * possible:
            at = max(at, moment + 1)
    for moment, ms in seen.pings:
        if start <= moment < end - 0.2 and ms > base + CALM:
            at = max(at, moment)
    return at - start


def fall(players: Players, up: bool, options: Options, seconds: float) -> Run:
    """A link falls from 50 to 10 Mbit/s and returns."""
    profile = link(50, 20)
    down, back, end = 8.0, 8.0 + seconds, 23.0 + seconds
    with Scene(players, profile, up=up, is_auto=True, options=options) as scene:
        actions: list[Action] = [
            (down, lambda: scene.wan.links[0].change(rate=10)),
            (back, lambda: scene.wan.links[0].change(rate=50)),
        ]
        seen = scene.flow(end, *actions)
    measures = [
        Measure(
            name="settled down",
            unit="s",
            value=settled(seen, down, back, possible=achievable(10), base=20),
            bar=3,
            is_most=True,
        ),
        Measure(
            name="settled up",
            unit="s",
            value=settled(seen, back, end, possible=achievable(50), base=20),
            bar=10,
            is_most=True,
        ),
        *share(seen, achievable(10), down + 3, back, bar=0),
    ]
    return Run(measures, scene.late, seen)


def cut_while(scene: Scene, stream: Stream, seconds: float) -> None:
    """Cut the link that a stream of 100 packets/s takes for a while."""
    direction = UP if scene.up else DOWN
    stream.flow(80)
    before = scene.wan.counters()
    stream.flow(20)  # It may have changed over before that: delays are alike.
    after = scene.wan.counters()
    used = [
        one[direction].sent_bytes - then[direction].sent_bytes
        for one, then in zip(after, before, strict=True)
    ]
    taken = scene.wan.links[used.index(max(used))]
    taken.change(cut=True)
    stream.flow(int(seconds * 100) - 50, timeout=seconds + 3)
    taken.change(cut=False)
    stream.flow(300, timeout=6)


def cut_stream(players: Players, up: bool, options: Options, seconds: float) -> Run:
    """A stream while one of two links is cut for a while."""
    profiles = (link(20, 10), link(20, 10))
    with Scene(players, *profiles, up=up, is_auto=False, options=options) as scene:
        with scene.stream() as stream:
            cut_while(scene, stream, seconds)
        report = stream.report
    gap = report.longest_gap * 1000
    measures = [
        Measure(name="lost", unit="packets", value=len(report.lost), bar=20, is_most=True),
        Measure(name="gap", unit="ms", value=gap, bar=250, is_most=True),
    ]
    return Run(measures, scene.late)


def cut_copied(players: Players, up: bool, options: Options, seconds: float) -> Run:
    """The same where one link has copies of what the other one carries."""
    profiles = (link(20, 10), link(20, 10))
    with Scene(players, *profiles, up=up, is_auto=False, options=options) as scene:
        scene.change_path(2, "mode", "redundant")
        with scene.stream() as stream:
            cut_while(scene, stream, seconds)
        report = stream.report
    delays = one_way(report)
    middle = statistics.median(delays)
    late = sum(delay > middle + LATE for delay in delays)
    missed = len(report.lost) + late
    measures = [
        Measure(name="lost or late", unit="packets", value=missed, bar=NONE, is_most=True),
        Measure(name="latest", unit="ms", value=max(delays) - middle, bar=0, is_most=True),
    ]
    return Run(measures, scene.late)


def one_way(report: Report, *, since: int = 0) -> list[float]:
    """ms that each packet of a stream took, of those that came, in that order."""
    received = sorted(report.received.items(), key=itemgetter(1))
    return [(at - report.sent[number]) * 1000 for number, at in received if number >= since]


def equalised(players: Players, up: bool, options: Options, seconds: float) -> Run:
    """A stream over two links of different delays, which both lose some, put in order."""
    profiles = (link(16, 10, loss=0.01), link(8, 60, loss=0.01))
    rate = 1700
    with Scene(players, *profiles, up=up, is_auto=False, options=options) as scene:
        receiver = scene.pair.server if up else scene.pair.client
        receiver.command("set", "reorder", "100ms")
        with scene.pair.stream(up=up, rate=rate, size=1200) as stream:
            stream.flow(int(seconds * rate * 0.95), timeout=2 * seconds)
        report = stream.report
    delays = one_way(report, since=rate)
    slowest = max(profile.delay for profile in profiles)
    most = statistics.quantiles(delays, n=100)[98]
    measures = [
        Measure(name="delay of 99 %", unit="ms", value=most, bar=slowest + 5, is_most=True),
        Measure(name="longest", unit="ms", value=max(delays), bar=0, is_most=True),
        Measure(name="overtaken", unit="packets", value=report.overtaken, bar=0, is_most=True),
        Measure(name="lost", unit="packets", value=len(report.lost), bar=0, is_most=True),
    ]
    return Run(measures, scene.late)


def cut_flow(players: Players, up: bool, options: Options, seconds: float) -> Run:
    """A flow while one of two links is cut and returns."""
    profiles = (link(20, 10), link(20, 10))
    direction = UP if up else DOWN
    cut, back, end = 4.0, 9.0, 9.0 + seconds
    index = 0 if up else 1
    with Scene(players, *profiles, up=up, is_auto=False, options=options) as scene:
        actions: list[Action] = [
            (cut, lambda: scene.wan.links[index].change(cut=True)),
            (back, lambda: scene.wan.links[index].change(cut=False)),
        ]
        seen = scene.flow(end, *actions)
    moments = [cut + 1 + step / 10 for step in range(int((end - cut - 2) * 10))]
    worst = min(seen.mbit(moment, moment + 1) for moment in moments)
    used = next(
        (
            step / 10
            for step in range(int(seconds * 10))
            if seen.carried(index, direction, back + step / 10, back + step / 10 + 0.3) > 5
        ),
        seconds,
    )
    measures = [
        Measure(name="used again", unit="s", value=used, bar=3, is_most=True),
        Measure(name="worst second", unit="%", value=worst / achievable(20) * 100, bar=95),
        Measure(
            name="TCP at the end",
            unit="%",
            value=seen.mbit(end - 2, end) / achievable(20, 20) * 100,
            bar=0,
        ),
    ]
    return Run(measures, scene.late, seen)


def flapping(players: Players, up: bool, options: Options, seconds: float) -> Run:
    """A flow over a good link and one that is on for a second, and off for one."""
    profiles = (link(20, 10), link(20, 10))
    start = 2.0
    with Scene(players, *profiles, up=up, is_auto=False, options=options) as scene:
        bad = scene.wan.links[0 if up else 1]
        actions: list[Action] = [
            (start + second, lambda cut=second % 2 == 0: bad.change(cut=cut))  # type: ignore[misc]  # of the loop's turn
            for second in range(int(seconds))
        ]
        seen = scene.flow(start + seconds, *actions)
    return Run(share(seen, achievable(20), start, start + seconds, bar=95), scene.late, seen)


ROWS = (
    Row(
        name="equal",
        title="20 + 10 Mbit/s, 10 ms both, rates given",
        work=bulk(link(20, 10), link(10, 10), possible=achievable(20, 10), bar=97),
        seconds=BEFORE_SILENCE,
    ),
    Row(
        name="unequal",
        title="40 + 20, 10 and 60 ms, rates given",
        work=bulk(link(40, 10), link(20, 60), possible=achievable(40, 20), bar=94),
        seconds=BEFORE_SILENCE,
    ),
    Row(
        name="lossy",
        title="50 + 50, 10 ms, one with 2 % loss",
        work=bulk(link(50, 10), link(50, 10, loss=0.02), possible=achievable(50, 50), bar=92),
        seconds=BEFORE_SILENCE,
    ),
    Row(
        name="fragile",
        title="50 + 50, 10 ms, one with 2 % loss, CUBIC: of the good one",
        work=bulk(
            *(link(50, 10), link(50, 10, loss=0.02)),
            possible=achievable(50),
            bar=90,
            congestion="cubic",
        ),
    ),
    Row(
        name="hurtful",
        title="50 + 2, 20 and 300 ms",
        work=bulk(link(50, 20), link(2, 300), possible=achievable(50), bar=98),
        seconds=BEFORE_SILENCE,
    ),
    Row(
        name="auto",
        title="40 + 20, 10 ms both, auto",
        work=bulk(
            *(link(40, 10), link(20, 10)),
            possible=achievable(40, 20),
            bar=93,
            is_auto=True,
            start=5.0,
        ),
    ),
    Row(
        name="unequal-auto",
        title="40 + 20, 10 and 60 ms, auto",
        work=bulk(
            *(link(40, 10), link(20, 60)),
            possible=achievable(40, 20),
            bar=85,
            is_auto=True,
            start=5.0,
        ),
    ),
    Row(
        name="bloat",
        title="50 Mbit/s, 20 ms, 500 ms of buffer, auto",
        work=bulk(
            link(50, 20, queue=500.0),
            possible=achievable(50),
            bar=95,
            is_auto=True,
            start=5.0,
            ping=10.0,
            worst=30.0,
        ),
    ),
    Row(name="fall", title="50 to 10 Mbit/s and back, auto", work=fall, seconds=12.0),
    Row(name="cut", title="20 + 20, one cut for 5 s: a stream", work=cut_stream, seconds=5.0),
    Row(
        name="redundant",
        title="20 + 20, one cut for 5 s, copies: a stream",
        work=cut_copied,
        seconds=5.0,
        only_ours=True,
    ),
    Row(
        name="reorder",
        title="16 + 8, 10 and 60 ms, both lose 1 %, put in order: a stream",
        work=equalised,
        only_ours=True,
    ),
    Row(name="return", title="20 + 20, one cut and back: a flow", work=cut_flow, seconds=8.0),
    Row(name="flapping", title="20 + 20, one flapping", work=flapping, seconds=12.0),
)
