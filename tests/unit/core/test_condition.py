"""How a path is doing, from plain facts: the worst of them, and why in words."""

from dataclasses import fields, replace
from typing import Any

import pytest

from glorytun.core.condition import LEGAL, Facts, condition_of
from glorytun.core.path import UNANSWERED_MAX
from glorytun.core.settings import PathState
from glorytun.core.status import Condition

WELL = Facts(
    state=PathState.UP,
    is_spent=False,
    answered=True,
    stopped=False,
    unanswered=0,
    unanswered_max=UNANSWERED_MAX,
    silent=False,
    is_held=False,
    mtu=1472,
    loss=0,
    loss_limit=255,
    was_lossy=False,
    rtt=50_000,
    delay_limit=0,
    is_late=False,
    was_late=False,
    is_needed=False,
    later=0,
)


@pytest.mark.parametrize(
    ("change", "condition", "reason"),
    [
        ({}, Condition.RUNNING, ""),
        ({"state": PathState.DOWN}, Condition.DOWN, "set down"),
        ({"stopped": True}, Condition.DEGRADED, "the peer stopped"),
        ({"unanswered": UNANSWERED_MAX}, Condition.DEGRADED, "the peer does not answer"),
        ({"unanswered": UNANSWERED_MAX - 1}, Condition.RUNNING, ""),
        ({"silent": True}, Condition.DEGRADED, "nothing arrives while other paths are heard"),
        ({"answered": False}, Condition.PROBING, "no answer yet"),
        ({"mtu": 0}, Condition.PROBING, "its MTU is being found"),
        (
            {"loss": 128, "loss_limit": 127},
            Condition.LOSSY,
            "loses 50.2 %, more than the limit of 49.8 %",
        ),
        ({"loss": 127, "loss_limit": 127}, Condition.RUNNING, ""),
        ({"loss": 255}, Condition.RUNNING, ""),
        ({"loss": 1, "loss_limit": 0}, Condition.LOSSY, "loses 0.4 %, more than the limit of 0 %"),
        (
            {"loss": 41, "loss_limit": 51, "was_lossy": True},
            Condition.LOSSY,
            "lost more than the limit of 20 %, still loses 16.1 %",
        ),
        ({"loss": 40, "loss_limit": 51, "was_lossy": True}, Condition.RUNNING, ""),
        ({"loss": 0, "loss_limit": 0, "was_lossy": True}, Condition.RUNNING, ""),
        ({"loss": 0, "loss_limit": 1, "was_lossy": True}, Condition.RUNNING, ""),
        ({"delay_limit": 50_000, "is_late": True}, Condition.RUNNING, ""),
        ({"delay_limit": 49_900, "is_late": False}, Condition.RUNNING, ""),
        (
            {"delay_limit": 49_900, "is_late": True},
            Condition.LATE,
            "round trips take 50 ms, more than the limit of 49.9 ms",
        ),
        (
            {"delay_limit": 60_000, "was_late": True},
            Condition.LATE,
            "round trips take 50 ms, after more than the limit of 60 ms",
        ),
        ({"delay_limit": 62_500, "was_late": True}, Condition.RUNNING, ""),
        ({"state": PathState.BACKUP}, Condition.WAITING, "a backup, and another path is running"),
        ({"state": PathState.BACKUP, "is_needed": True}, Condition.RUNNING, ""),
        ({"later": 260_000}, Condition.WAITING, "260 ms slower than others, for too little"),
        (
            {"is_held": True},
            Condition.WAITING,
            "left alone for a while: it did badly each time it was used",
        ),
    ],
)
def test_condition(change: dict[str, object], condition: Condition, reason: str) -> None:
    """Each fact by itself has its condition, and its reason in words."""
    facts = {item.name: getattr(WELL, item.name) for item in fields(Facts)} | change
    assert condition_of(Facts(**facts)) == (condition, reason)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"state": PathState.DOWN}, {"stopped": True}),
        ({"stopped": True}, {"unanswered": 9}),
        ({"unanswered": 9}, {"silent": True}),
        ({"silent": True}, {"answered": False}),
        ({"answered": False}, {"mtu": 0}),
        ({"mtu": 0}, {"loss": 9, "loss_limit": 8}),
        ({"loss": 9, "loss_limit": 8}, {"delay_limit": 1, "is_late": True}),
        ({"delay_limit": 1, "is_late": True}, {"state": PathState.BACKUP}),
    ],
)
def test_worst_fact_is_said(worse: dict[str, Any], better: dict[str, Any]) -> None:
    """Of two facts that both hold, the weightier one decides and is the reason."""
    both = replace(WELL, **(better | worse))
    alone = replace(WELL, **worse)
    assert condition_of(both) == condition_of(alone)


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (1, "0.4 %"), (12, "4.7 %"), (13, "5 %"), (77, "30 %")]
)
def test_a_limit_is_told_as_it_was_given(share: int, text: str) -> None:
    """It is rounded to 1/255 on the way; what was no whole percentage has one more digit."""
    assert condition_of(replace(WELL, loss=255, loss_limit=share))[1].endswith(f"limit of {text}")


def test_table_has_every_condition() -> None:
    """Each condition is left for others, and each but none other can be reached."""
    assert set(LEGAL) == set(Condition)
    assert all(condition not in targets for condition, targets in LEGAL.items())
    assert set().union(*LEGAL.values()) == set(Condition)
    assert LEGAL[Condition.DOWN] == {Condition.PROBING, Condition.DEGRADED}
