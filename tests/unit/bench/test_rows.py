"""What is made of a load: numbers, medians over the rounds, and whether a bar is reached."""

import argparse

import pytest

from tests.bench.paths import __main__ as bench
from tests.bench.paths.__main__ import middle, table
from tests.bench.paths.loads import LOST_PING
from tests.bench.paths.rows import ROWS, Measure, Run, base_of, calm, link, one_way, settled, share
from tests.bench.paths.scene import SHARE, achievable
from tests.netns.traffic import Report
from tests.unit.bench.samples import FALL, LOST_AT, SECONDS, SLOW_AT, seen


def measure(value: float, *, bar: float = 0.0, is_most: bool = False) -> Measure:
    return Measure(name="TCP", unit="%", value=value, bar=bar, is_most=is_most)


def test_share_is_of_what_was_possible() -> None:
    """12 Mbit/s for half of the time and 4 for the rest, of 16."""
    part, goodput = share(seen(), 16.0, 0.05, SECONDS, bar=60)
    assert goodput.value == pytest.approx(8, rel=0.01)
    assert part.value == pytest.approx(50, rel=0.01)
    assert not part.is_reached
    assert achievable(20, 10) == pytest.approx(30 * SHARE)


def test_the_base_is_of_the_slowest_link_that_is_used() -> None:
    profiles = link(8, 10), link(4, 60)
    assert base_of(seen(), True, *profiles) == 60
    unused = seen()
    for _, counters in unused.samples:
        counters[1] = counters[1][::-1]
    assert base_of(unused, True, *profiles) == 10


def test_pings_that_are_lost_are_counted_and_the_worst_of_all_is_said() -> None:
    mean, lost, worst = calm(seen(), 20.0, 0.0, mean=15, most=30)
    assert mean.value == pytest.approx(20.4, abs=0.1)
    assert (mean.bar, mean.is_reached) == (35, True)
    assert lost.value == 1
    assert (worst.value, worst.bar, worst.is_reached) == (LOST_PING, 50, False)


def test_settled_is_when_rate_and_pings_stay_as_they_ought_to() -> None:
    """After the fall 4 Mbit/s are all; the last ping that takes too long decides."""
    assert settled(seen(), FALL, SECONDS, possible=4, base=20) == pytest.approx(SLOW_AT - FALL)
    calmer = seen()
    calmer.pings = [ping for ping in calmer.pings if ping[0] not in {LOST_AT, SLOW_AT}]
    assert settled(calmer, FALL, SECONDS, possible=4, base=20) == 0
    assert settled(calmer, FALL, SECONDS, possible=12, base=20) > 3


def test_delays_of_a_stream_are_of_what_came_in_that_order() -> None:
    report = Report(sent=[1.0, 2.0, 3.0], received={2: 3.01, 0: 1.02})
    assert one_way(report) == pytest.approx([20, 10])
    assert one_way(report, since=1) == pytest.approx([10])


@pytest.mark.parametrize(
    ("values", "is_most", "found", "verdict"),
    [
        ((90, 97, 99), False, "97 % (90…99)", "≥ 95 reached"),
        ((90, 94, 99), False, "94 % (90…99)", "≥ 95 NOT reached"),
        ((90, 94, 99), True, "94 % (90…99)", "≤ 95 reached"),
        ((96,), True, "96 %", "≤ 95 NOT reached"),
    ],
)
def test_the_median_of_the_rounds_is_held_against_the_bar(
    values: tuple[float, ...], is_most: bool, found: str, verdict: str
) -> None:
    rounds = [Run([measure(value, bar=95, is_most=is_most)], late=0.1) for value in values]
    head, line = table({("cut", "ours", True): rounds}).splitlines()
    assert head.split() == ["row", "who", "way", "measure", "found", "bar"]
    assert " ".join(line.split()) == f"cut ours up TCP {found} {verdict}"


def test_what_has_no_bar_has_no_verdict() -> None:
    text = table({("cut", "ours", False): [Run([measure(5), measure(6, bar=7)], late=0)]})
    first, second = text.splitlines()[1:]
    assert "reached" not in first
    assert second.endswith("NOT reached")
    assert "down" in first
    assert "down" not in second


def test_a_bar_that_depends_on_the_round_is_their_median_too() -> None:
    rounds = [Run([measure(30, bar=bar, is_most=True)], late=0) for bar in (25, 35, 75)]
    assert (middle(rounds, 0).bar, middle(rounds, 0).is_reached) == (35, True)


def test_rounds_that_the_host_disturbed_are_counted() -> None:
    rounds = [Run([measure(96, bar=95)], late=late) for late in (0.09, 0.11, 5)]
    assert table({("cut", "ours", True): rounds}).endswith("reached  2 of 3 disturbed")


def test_what_the_host_disturbed_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as is allowed; the calmest counts, not the best."""
    arguments = argparse.Namespace(again=2)
    made: list[Run] = []

    def chosen(*shares: float) -> float:
        made[:] = [Run([measure(index)], late) for index, late in enumerate(shares)]
        found = bench.run_calm(ROWS[0], "ours", True, arguments)
        assert found is not None
        return found.late

    monkeypatch.setattr(bench, "run", lambda *_: made.pop(0))
    assert chosen(1.5, 0.05, 0.01) == 0.05
    assert chosen(4, 3, 5) == 3
    assert not made


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))
