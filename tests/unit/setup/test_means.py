"""Undoing goes on, whatever fails."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from glorytun.errors import SetupError
from glorytun_setup import means as module
from glorytun_setup.bus import Bus
from glorytun_setup.means import Busy, Means, locked
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


class Networkd:
    """As the bus shows it: the states that a link goes through, one at each look."""

    def __init__(self, *states: tuple[str, str]) -> None:
        self.states = list(states)
        self.reconfigured = 0

    def link_states(self, link: str) -> tuple[str, str]:
        """The next, or the last for good."""
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def reconfigure(self, link: str, *, timeout: float) -> None:
        """Count."""
        self.reconfigured += 1


FAILED, GOOD = ("failed", "routable"), ("configured", "routable")
BUSY = ("configuring", "routable")


@pytest.mark.parametrize(
    ("states", "is_good", "times"),
    [
        ((BUSY, BUSY, GOOD), True, 0),
        ((BUSY, FAILED, FAILED, FAILED, BUSY, GOOD), True, 1),
        ((BUSY, FAILED), False, 1),
        ((BUSY,), True, 0),
        ((("", ""),), True, 0),
    ],
    ids=["good", "mended", "failed", "slow", "gone"],
)
def test_a_link_that_failed_is_tried_once_more(
    tmp_path: Path, states: tuple[tuple[str, str], ...], is_good: bool, times: int
) -> None:
    networkd = Networkd(*states)
    means = Means(root=tmp_path, bus=cast(Bus, networkd), progress=Silent(), watch=Watch())
    assert means.wait_routable("wan0", timeout=0.5) is is_good
    assert networkd.reconfigured == times


# One run at a time.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """With a place for the lock."""
    (tmp_path / "run").mkdir()
    return tmp_path


def take(root: Path) -> bool:
    """Whether it is to be had."""
    with locked(root):
        return True


def test_another_run_is_waited_for(root: Path) -> None:
    """Such as a timer's, which is short."""
    with ThreadPoolExecutor(1) as thread:
        with locked(root):
            other = thread.submit(take, root)
            assert not other.done()
        assert other.result(timeout=5)
    assert not list((root / "run").iterdir())


def test_but_not_for_ever(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with locked(root), pytest.raises(Busy, match="another glorytun-setup is changing this host"):
        take(root)
    assert take(root)
