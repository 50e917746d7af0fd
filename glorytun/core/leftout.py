"""Which of the paths that work are better left out. When one of them is tried again: `comeback`."""

from collections.abc import Iterable

from glorytun.core.path import Path
from glorytun.core.settings import SECOND, PathMode
from glorytun.core.status import Condition

# What this implementation chose.

PATIENCE = SECOND // 4
"""µs that packets may be later on a path that carries as much as all faster ones together. Less is
worth less: TCP takes what comes so late for lost, and slows down for all paths."""
PATIENCE_MIN = 5_000
"""µs: as much is no more than delays vary."""
PATIENCE_BACK = 4, 5
"""A path that was left out comes back at this share of it."""


def left_out(paths: Iterable[Path]) -> dict[Path, int]:
    """Those of the paths that work which cost more than they bring: by how much each is later, µs.

    They would carry little, and what they carry would come much later than on others that cost no
    more money. A redundant one is for copies: it is no rival, and has none.
    """
    found: dict[Path, int] = {}
    used: list[Path] = []
    own = [path for path in paths if path.settings.mode is not PathMode.REDUNDANT]
    for path in sorted(own, key=lambda path: path.delay.mean):
        rivals = [other for other in used if other.settings.cost <= path.settings.cost]
        later = path.delay.mean - rivals[0].delay.mean if rivals else 0
        if later > _patience(path, sum(_rate_beside(other, path) for other in rivals)):
            found[path] = later
        else:
            used.append(path)
    return found


def has_rival(path: Path, paths: Iterable[Path]) -> bool:
    """Whether another path runs that can do its work, and is no backup for it nor dearer."""
    return path.settings.mode is not PathMode.REDUNDANT and any(
        other.condition == Condition.RUNNING
        and other.settings.mode is not PathMode.REDUNDANT
        and other.rank <= path.rank
        and other.settings.cost <= path.settings.cost
        for other in paths
        if other is not path
    )


def _rate_beside(other: Path, path: Path) -> int:
    """bytes/s that `other` carries: until that is found, what it does now, or else as `path`."""
    if other.is_rate_known:
        return other.shaper.rate
    return max(other.estimator.rate, min(other.estimator.ceiling, path.rate_hoped))


def _patience(path: Path, taken: int) -> int:
    """µs that a path may be later than others that carry `taken` bytes/s."""
    patience = max(PATIENCE_MIN, PATIENCE * path.rate_hoped // max(taken, 1))
    return patience * PATIENCE_BACK[0] // PATIENCE_BACK[1] if path.is_left_out else patience
