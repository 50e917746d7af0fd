"""How often the log says that a path has changed."""

import re
from dataclasses import replace

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.events import PathChanged
from glorytun.core.settings import SECOND
from glorytun.core.status import Condition
from glorytun.restraint import MOST, STRETCH, STRETCH_MAX, Restraint

LOCAL = pack_address("192.0.2.1")
PATHS = [PathId(LOCAL, Endpoint(pack_address("192.0.2.2"), port)) for port in (5000, 5001)]


def change(path: PathId) -> PathChanged:
    return PathChanged(path=path, old=Condition.RUNNING, new=Condition.DEGRADED, reason="no answer")


def test_a_path_that_changes_now_and_then_is_always_said() -> None:
    restraint = Restraint()
    for number in range(200):
        assert restraint.note(change(PATHS[0]), number * 6 * SECOND) == ""


def test_one_that_flaps_is_said_ever_less() -> None:
    """Two changes a second for a day: as many as an hour has, but for the beginning."""
    restraint = Restraint()
    said = [
        (now, note)
        for now in range(0, 24 * 3600 * SECOND, SECOND // 2)
        if (note := restraint.note(change(PATHS[0]), now)) is not None
    ]
    assert [note for _, note in said[: MOST - 1]] == [""] * (MOST - 1)
    assert said[MOST - 1][1] == "it changes again and again: more of that is not said for 54 s"
    assert said[MOST] == (STRETCH, "after 108 more changes that were not said")
    assert len(said) < (24 + 7) * MOST
    assert said[-1][0] - said[-1 - MOST][0] >= STRETCH_MAX - SECOND


def test_it_is_said_again_once_it_flaps_no_more() -> None:
    restraint = Restraint()
    now = 0
    for _ in range(3 * MOST):
        restraint.note(change(PATHS[0]), now)
    now += STRETCH
    assert (
        restraint.note(change(PATHS[0]), now) == f"after {2 * MOST} more changes that were not said"
    )
    now += 2 * STRETCH
    assert restraint.note(change(PATHS[0]), now) == ""
    now += STRETCH
    for _ in range(MOST - 1):
        assert restraint.note(change(PATHS[0]), now) == ""
    assert "for 60 s" in (restraint.note(change(PATHS[0]), now) or "")


def test_how_it_ended_is_said_a_minute_later() -> None:
    """However long the silence would have been."""
    restraint = Restraint()
    now = 0
    for _ in range(4 * 3600 * 2):
        now += SECOND // 2
        restraint.note(change(PATHS[0]), now)
        assert not list(restraint.overdue(now))
    last = replace(change(PATHS[0]), reason="the last")
    assert restraint.note(last, now) is None
    assert not list(restraint.overdue(now + STRETCH - 1))
    ((said, note),) = restraint.overdue(now + STRETCH)
    assert said == last
    assert re.fullmatch(r"after \d{4} more changes that were not said", note)
    assert not list(restraint.overdue(now + 10 * STRETCH))


def test_what_was_said_is_not_said_again() -> None:
    restraint = Restraint()
    for _ in range(MOST):
        restraint.note(change(PATHS[0]), 0)
    assert not list(restraint.overdue(STRETCH))


def test_each_path_counts_by_itself_and_is_forgotten() -> None:
    restraint = Restraint()
    for _ in range(2 * MOST):
        restraint.note(change(PATHS[0]), 0)
    assert restraint.note(change(PATHS[0]), 1) is None
    assert restraint.note(change(PATHS[1]), 1) == ""
    restraint.forget(PATHS[0])
    assert restraint.note(change(PATHS[0]), 1) == ""
