"""How a path is doing: its condition, from plain facts.

It changes in `Path.judge` only, to what the pure function `condition_of` says, along the
transitions of `LEGAL`.
"""

from dataclasses import dataclass

from glorytun.core.settings import PathState
from glorytun.core.stat import LOSS_FULL, percentage
from glorytun.core.status import Condition

# What this implementation chose.

LIMIT_BACK = 4, 5
"""A path that lost too much, or whose round trips took too long, is used again at this share of
its limit."""

OVER_LIMIT = {Condition.LOSSY, Condition.LATE}
"""The peer answers there, but not well enough."""
_STARTS_ANEW = {Condition.PROBING, Condition.DEGRADED} | OVER_LIMIT
WORKS = {Condition.WAITING, Condition.RUNNING}

LEGAL: dict[Condition, set[Condition]] = {
    Condition.PROBING: {Condition.DOWN, Condition.DEGRADED} | OVER_LIMIT | WORKS,
    Condition.DEGRADED: {Condition.DOWN, Condition.PROBING} | OVER_LIMIT | WORKS,
    Condition.LOSSY: {Condition.DOWN} | (_STARTS_ANEW - {Condition.LOSSY}) | WORKS,
    Condition.LATE: {Condition.DOWN} | (_STARTS_ANEW - {Condition.LATE}) | WORKS,
    Condition.WAITING: {Condition.DOWN, Condition.RUNNING} | _STARTS_ANEW,
    Condition.RUNNING: {Condition.DOWN, Condition.WAITING} | _STARTS_ANEW,
    # Nothing is known of a path that was down: it works only after it was heard again.
    Condition.DOWN: {Condition.PROBING, Condition.DEGRADED},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a path's condition depends on."""

    state: PathState
    is_spent: bool
    """Whether its quota is used up."""
    answered: bool
    """Whether the peer has answered since the path is up."""
    stopped: bool
    """Whether the peer said that it stops."""
    unanswered: int
    unanswered_max: int
    silent: bool
    """Whether nothing came for some beats while other paths were heard (server)."""
    mtu: int
    loss: int
    loss_limit: int
    was_lossy: bool
    """Whether it has lost more than this limit, and not much less since."""
    rtt: int
    """µs."""
    delay_limit: int
    """µs; 0 = none."""
    is_late: bool
    """Whether they have been above it for long enough."""
    was_late: bool
    """As `was_lossy`."""
    is_needed: bool
    """Whether no path that is up works, so that backups are used."""
    is_held: bool
    """Whether it had to be left again and again soon after it was used, and another one runs."""
    later: int
    """µs: what it carries comes so much later than on others that it is better left out."""


def condition_of(facts: Facts) -> tuple[Condition, str]:
    """How a path is doing, and why it isn't running."""
    if facts.is_spent:
        return Condition.DOWN, "its quota is used up"
    if facts.state == PathState.DOWN:
        return Condition.DOWN, "set down"
    if facts.stopped:
        return Condition.DEGRADED, "the peer stopped"
    if facts.unanswered >= facts.unanswered_max:
        return Condition.DEGRADED, "the peer does not answer"
    if facts.silent:
        return Condition.DEGRADED, "nothing arrives while other paths are heard"
    if not facts.answered:
        return Condition.PROBING, "no answer yet"
    if not facts.mtu:
        return Condition.PROBING, "its MTU is being found"
    if too_lossy := _too_lossy(facts):
        return Condition.LOSSY, too_lossy
    if too_late := _too_late(facts):
        return Condition.LATE, too_late
    if facts.state == PathState.BACKUP and not facts.is_needed:
        return Condition.WAITING, "a backup, and another path is running"
    if facts.later:
        return Condition.WAITING, f"{facts.later // 1000} ms slower than others, for too little"
    if facts.is_held:
        return Condition.WAITING, "left alone for a while: it did badly each time it was used"
    return Condition.RUNNING, ""


def _too_lossy(facts: Facts) -> str:
    """Why a path is not to be used for its loss; empty if it may be."""
    lost, limit = _percent(facts.loss), f"{percentage(facts.loss_limit):g} %"
    if facts.loss > facts.loss_limit:
        return f"loses {lost}, more than the limit of {limit}"
    if facts.was_lossy and facts.loss > back_at(facts.loss_limit):
        return f"lost more than the limit of {limit}, still loses {lost}"
    return ""


def _too_late(facts: Facts) -> str:
    """Why a path is not to be used for its round trips; empty if it may be."""
    limit = facts.delay_limit
    if not limit or facts.rtt <= (back_at(limit) if facts.was_late else limit):
        return ""
    if not facts.was_late and not facts.is_late:
        return ""
    what = "more than the limit of" if facts.rtt > limit else "after more than the limit of"
    return f"round trips take {_ms(facts.rtt)}, {what} {_ms(limit)}"


def back_at(limit: int) -> int:
    """What a path that was above a limit has to be at, or below, to be used again."""
    part, of = LIMIT_BACK
    return limit * part // of


def _percent(share: int) -> str:
    return f"{round(share * 100 / LOSS_FULL, 1):g} %"


def _ms(time: int) -> str:
    return f"{round(time / 1000, 1):g} ms"
