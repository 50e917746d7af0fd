"""Which of the paths that run lose so much that others had better carry all they can.

A flow whose TCP takes each loss for a sign of a full link (CUBIC, Reno) gets little over a path
that loses 2 %, however fast it is, and no more over others beside it, since that is of all that it
sends. So such a path has what they don't carry, as one that costs more. A flow that copes (BBR),
and many together, fill both.
"""

from collections.abc import Iterable

from glorytun.core.path import Path
from glorytun.core.settings import PathMode
from glorytun.core.status import Condition

# What this implementation chose.

LOSSIER, LOSSIER_BACK = 4, 2
"""‰ that are lost from which on it is one, and below which it isn't any more."""
SAMPLE = 500
"""Datagrams from which that is told: fewer in two seconds are so slow that no loss matters."""
BETTER, BETTER_BACK = 4, 2
"""Others lose so many times less: to become one, and to stay one."""
SLOWER = 5_000
"""µs that others may take longer, or what they carry would be overtaken."""


def lossier(paths: Iterable[Path]) -> set[Path]:
    """Those of the paths that run which come after others that cost no more money."""
    own = [
        path
        for path in paths
        if path.condition == Condition.RUNNING and path.settings.mode is not PathMode.REDUNDANT
    ]
    return {path for path in own if _is_lossier(path, own)}


def _is_lossier(path: Path, paths: list[Path]) -> bool:
    if path.is_lossier:
        least, times = LOSSIER_BACK, BETTER_BACK
    else:
        least, times = LOSSIER, BETTER
        if path.loss.sample < SAMPLE:
            return False
    lost = path.loss.per_mille
    return lost >= least and any(
        other.loss.per_mille * times <= lost
        and other.settings.cost <= path.settings.cost
        and other.delay.mean <= path.delay.mean + SLOWER
        and not other.is_suspect
        for other in paths
        if other is not path
    )
