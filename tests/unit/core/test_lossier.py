"""Which paths come after others since they lose more."""

from dataclasses import replace

import pytest

from glorytun.core.lossier import SLOWER, lossier
from glorytun.core.path import Path
from glorytun.core.settings import SECOND, PathMode
from glorytun.core.stat import LossEstimator
from glorytun.core.status import Condition
from tests.unit.core.test_scheduler import make_path, redundant


def losing(path: Path, per_mille: int, *, datagrams: int = 2000) -> Path:
    """A path that has lost so much for a while, of so many datagrams in two seconds."""
    path.loss = LossEstimator()
    sent = received = 10
    for beat in range(100):
        path.loss.add(sent=sent, received=received, now=beat * SECOND // 10)
        sent += datagrams // 20
        received = 10 + (sent - 10) * (1000 - per_mille) // 1000
    return path


@pytest.mark.parametrize(
    ("lost", "found"),
    [((0, 20), [1]), ((20, 0), [0]), ((0, 5), [1]), ((0, 1), []), ((4, 20), [1]), ((9, 20), [])],
)
def test_what_loses_much_more(lost: tuple[int, int], found: list[int]) -> None:
    paths = [losing(make_path(index), share) for index, share in enumerate(lost)]
    assert lossier(paths) == {paths[index] for index in found}


def test_it_stays_one_until_it_loses_half_as_much() -> None:
    paths = [losing(make_path(1), 3), losing(make_path(2), 8)]
    assert not lossier(paths)
    paths[1].is_lossier = True
    assert lossier(paths) == {paths[1]}
    losing(paths[1], 1)
    assert not lossier(paths)


def test_few_datagrams_tell_nothing_new() -> None:
    """One of 200 that is lost by chance is 5 ‰; what was known before stays so."""
    paths = [losing(make_path(1), 0), losing(make_path(2), 20, datagrams=200)]
    assert not lossier(paths)
    paths[1].is_lossier = True
    assert lossier(paths) == {paths[1]}


@pytest.mark.parametrize(("slower", "is_found"), [(SLOWER, True), (2 * SLOWER, False)])
def test_not_for_others_that_are_much_slower(slower: int, *, is_found: bool) -> None:
    good, bad = losing(make_path(1, rtt=20_000 + 2 * slower), 0), losing(make_path(2), 20)
    assert bool(lossier([good, bad])) == is_found


def test_not_for_others_that_cannot_do_its_work() -> None:
    """One that costs more, is for copies alone, waits, or seems to be dead."""
    bad = losing(make_path(2), 20)
    good = losing(make_path(1), 0)
    assert lossier([good, bad]) == {bad}
    good.is_suspect = True
    assert not lossier([good, bad])
    good.is_suspect, good.condition = False, Condition.WAITING
    assert not lossier([good, bad])
    good.condition = Condition.RUNNING
    good.settings = replace(good.settings, cost=1)
    assert not lossier([good, bad])
    redundant(good).settings = replace(good.settings, cost=0, mode=PathMode.REDUNDANT)
    assert not lossier([good, bad])
    assert not lossier([bad])
