"""Which of the paths that work are better left out, and when one of them is tried again."""

from collections.abc import Iterable

from glorytun.core.path import Path
from glorytun.core.settings import SECOND

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

    They would carry little, and what they carry would come much later than on the others.
    """
    found: dict[Path, int] = {}
    taken = 0
    first: int | None = None
    for path in sorted(paths, key=lambda path: path.delay.mean):
        first = path.delay.mean if first is None else first
        later = path.delay.mean - first
        patience = max(PATIENCE_MIN, PATIENCE * path.rate_hoped // max(taken, 1))
        if path.is_left_out:
            patience = patience * PATIENCE_BACK[0] // PATIENCE_BACK[1]
        if taken and later > patience:
            found[path] = later
        else:
            taken += path.rate_hoped
    return found
