"""Clocks are set while tunnels run: paths stay comparable, so that none is left out for it."""

from heapq import heappop, heappush
from random import Random

import pytest

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.events import PathChanged
from glorytun.core.outbox import Outbox
from glorytun.core.path import Path
from glorytun.core.paths import Paths
from glorytun.core.settings import SECOND, PathSettings
from tests.property.test_multipath_scenarios import INTERVAL, sides, started
from tests.simulation import EPOCH, MILLISECOND, Wire

SERVER = Endpoint(pack_address("192.0.2.1"), 5000)


@pytest.mark.parametrize("step", [-SECOND // 2, SECOND // 2, 5 * SECOND, 50 * SECOND])
@pytest.mark.parametrize("cut", [0, 150])
@pytest.mark.parametrize("whose", [0, 1], ids=["client", "server"])
def test_no_path_is_left_out(whose: int, cut: int, step: int) -> None:
    """10 Mbit/s beside 20, 30 ms later, which may have been cut meanwhile for `cut` intervals."""
    wires = Wire(), Wire(delay=40 * MILLISECOND)
    simulation = started(*wires, rates=(20, 10))
    wires[1].cut = cut > 0
    simulation.stream(simulation.client, count=cut * 2 // 3, interval=INTERVAL)
    before = [len(side.events) for side in sides(simulation)]
    sides(simulation)[whose].clock_offset += step
    simulation.stream(simulation.client, count=cut // 3, interval=INTERVAL)
    wires[1].cut = False
    simulation.stream(simulation.client, count=300, interval=INTERVAL)
    for side, seen in zip(sides(simulation), before, strict=True):
        changes = [event for event in side.events[seen:] if isinstance(event, PathChanged)]
        assert "waiting" not in {event.new.value for event in changes}
        assert side.conditions() == ["running", "running"]


class Clocks:
    """Paths of a client, which asks on each every 100 ms; some ms of jitter."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = EPOCH
        self._ahead = [0, 0]
        """µs by which the clock of each side is."""
        self.paths = Paths(Outbox(), client=True)
        self.ways = [
            (random.randrange(1000, 200_000), random.randrange(1000, 200_000))
            for _ in range(random.randrange(2, 5))
        ]
        for index in range(len(self.ways)):
            address = PathId(pack_address(f"198.51.100.{index}"), SERVER)
            self.paths.add(address, PathSettings(), after=0)
        self._under_way: list[tuple[int, int, int, int | None]] = []
        """When each message arrives, its path, when the request left, and the peer's time."""

    def set(self, side: int, step: int) -> None:
        self._ahead[side] += step

    def run(self, duration: int, *, silent: int | None = None) -> None:
        """On path `silent` nothing is asked."""
        end = self._now + duration
        while self._now < end:
            self._now += MILLISECOND
            for index, (there, _) in enumerate(self.ways):
                is_due = self._now % (100 * MILLISECOND) == index * 7 * MILLISECOND
                if is_due and index != silent:
                    self._leaves(index, self._now + self._ahead[0], None, there)
            while self._under_way and self._under_way[0][0] <= self._now:
                _, index, sent_at, time = heappop(self._under_way)
                if time is None:
                    self._leaves(index, sent_at, self._now + self._ahead[1], self.ways[index][1])
                else:
                    self._arrives(list(self.paths)[index], sent_at, time)

    def _leaves(self, index: int, sent_at: int, time: int | None, delay: int) -> None:
        at = self._now + delay + self._random.randrange(3000)
        heappush(self._under_way, (at, index, sent_at, time))

    def _arrives(self, path: Path, sent_at: int, time: int) -> None:
        trip = max(0, self._now + self._ahead[0] - sent_at)
        self.paths.note_delay(path, time - sent_at, trip=trip, sent_at=sent_at)
        path.rtt.add(trip)

    def error(self) -> int:
        """By how much two paths are farther apart than they are, or less, at the most; µs."""
        wrong = [
            path.delay.mean - there for path, (there, _) in zip(self.paths, self.ways, strict=True)
        ]
        return max(wrong) - min(wrong)


@pytest.mark.parametrize("seed", range(40))
def test_paths_are_compared_as_before(seed: int) -> None:
    """After every round of replies, however long a path was silent when a clock was set."""
    random = Random(seed)
    clocks = Clocks(random)
    clocks.run(10 * SECOND)
    assert clocks.error() < 5 * MILLISECOND
    for _ in range(5):
        silent = random.choice([None, 0, 1])
        clocks.run(random.randrange(SECOND), silent=silent)
        clocks.set(random.randrange(2), random.randrange(SECOND, 100 * SECOND))
        clocks.run(SECOND, silent=silent)
        clocks.run(SECOND)
        assert clocks.error() < 30 * MILLISECOND
        clocks.run(5 * SECOND)
        assert clocks.error() < 5 * MILLISECOND


def test_a_clock_that_went_wrong_during_a_silence() -> None:
    """By more than what round trips take: it's the path that was silent which is set right."""
    clocks = Clocks(Random(1))
    clocks.ways = [(5000, 5000), (8000, 8000)]
    clocks.run(10 * SECOND)
    for _ in range(300):
        clocks.set(1, MILLISECOND)
        clocks.run(SECOND, silent=1)
    for _ in range(3):
        clocks.run(SECOND)
        assert clocks.error() < 5 * MILLISECOND
