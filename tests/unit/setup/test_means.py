"""Undoing goes on, whatever fails."""

from pathlib import Path
from typing import cast

import pytest

from glorytun.errors import SetupError
from glorytun_setup.bus import Bus
from glorytun_setup.means import Means
from glorytun_setup.terminal import Watch


class Silent:
    """Shows nothing: the terminal is gone."""

    def begin(self, text: str) -> None:
        """Fail."""
        raise OSError

    def end(self, seconds: float, *, is_done: bool) -> None:
        """Fail."""
        raise OSError


@pytest.mark.parametrize("error", [SetupError("why"), KeyError("why"), OSError("why")])
def test_what_fails_is_noted_and_the_rest_is_tried(tmp_path: Path, error: Exception) -> None:
    means = Means(root=tmp_path, bus=cast(Bus, None), progress=Silent(), watch=Watch())
    left: list[str] = []
    with means.attempt("mending", left):
        raise error
    assert len(left) == 1
    assert left[0].startswith("mending: ")
    assert "why" in left[0]
