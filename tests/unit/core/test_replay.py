"""Windows over received times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.replay import WINDOW, ControlWindow, ReplayWindow
from glorytun.core.settings import SECOND
from tests.unit.core.peer import NOW


class Model:
    """What a window must do, slowly: remember every time."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.newest = 0

    def accept(self, time: int) -> bool:
        if time in self.seen or time <= self.newest - WINDOW:
            return False
        self.seen.add(time)
        self.newest = max(self.newest, time)
        return True


NEAR = st.integers(-20, 20)
JUMPS = st.sampled_from([0, 0, 0, WINDOW // 2, WINDOW, -WINDOW // 2, -WINDOW, 3 * WINDOW])
DISTANCES = st.lists(st.builds(lambda jump, near: jump + 2 * near, JUMPS, NEAR), max_size=60)
"""From the newest time: near it, and where the ring meets its own end."""


@given(DISTANCES)
def test_window_is_the_model(distances: list[int]) -> None:
    """Each time is accepted once, and none that is too old to tell."""
    window, model = ReplayWindow(), Model()
    for distance in distances:
        time = (model.newest or NOW) + distance
        assert window.is_new(time) == (time not in model.seen and time > model.newest - WINDOW)
        assert window.accept(time) == model.accept(time)
        assert window.newest == model.newest


@given(st.lists(st.integers(-WINDOW // 2, WINDOW // 2), max_size=60))
def test_window_is_the_model_anywhere(halves: list[int]) -> None:
    """The same for times from all over the window."""
    window, model = ReplayWindow(), Model()
    for half in halves:
        time = NOW + 2 * half
        assert window.accept(time) == model.accept(time)


@pytest.mark.parametrize(
    ("late", "accepted"),
    [(2, True), (SECOND, True), (WINDOW - 2, True), (WINDOW, False), (600 * SECOND, False)],
)
def test_late_datagram(late: int, accepted: bool) -> None:
    """A packet may be a second late, and a little more; then it can't be told from a replay."""
    window = ReplayWindow()
    window.accept(NOW)
    assert window.is_new(NOW - late) == accepted
    assert window.accept(NOW - late) == accepted
    assert not window.accept(NOW - late)


def test_nothing_is_remembered_past_the_window() -> None:
    """A jump of the newest time, by a multiple of the window, leaves no trace of older ones."""
    window = ReplayWindow()
    for step in range(200):
        assert window.accept(NOW + 2 * step)
    assert window.accept(NOW + 5 * WINDOW + 1000)
    assert all(window.accept(NOW + 5 * WINDOW + 2 * step) for step in range(200))


@pytest.mark.parametrize(
    ("distance", "fresh", "admitted"),
    [
        (4, False, True),
        (4, True, True),
        (0, True, False),
        (-4, False, True),
        (-WINDOW - 4, False, False),
        (-WINDOW - 4, True, True),
        (-600 * SECOND, True, True),
        (600 * SECOND, False, True),
    ],
)
def test_only_proof_sets_the_control_window_back(
    distance: int, fresh: bool, admitted: bool
) -> None:
    """A time from before the window is admitted if it answers a message of ours, else never."""
    window = ControlWindow()
    assert window.admit(NOW, fresh=False)
    assert window.admit(NOW + distance, fresh=fresh) == admitted


def test_window_set_back_distrusts_what_was_seen() -> None:
    """After a peer's clock was set back, its times of before aren't admitted again unproven."""
    window = ControlWindow()
    heard = [NOW + step * SECOND for step in range(10)]
    assert all(window.admit(time, fresh=False) for time in heard)
    back = NOW - 300 * SECOND
    assert window.admit(back, fresh=True)
    assert window.admit(back + 4, fresh=False)
    assert not window.admit(back, fresh=True)
    assert not any(window.admit(time, fresh=False) for time in heard)
    assert all(window.is_doubtful(time) for time in heard)
    assert not window.is_doubtful(back + 8)
    assert window.admit(NOW + 20 * SECOND, fresh=False)
    assert not any(window.admit(time, fresh=False) for time in heard)


@given(
    st.lists(
        st.tuples(st.integers(-20, 20), st.sampled_from([0, 0, 0, -5 * WINDOW, 5 * WINDOW])),
        max_size=40,
    )
)
def test_control_window_without_proof_is_a_window(steps: list[tuple[int, int]]) -> None:
    """As long as nothing proves a clock set back, no time is admitted twice."""
    window = ControlWindow()
    admitted: set[int] = set()
    time = NOW
    for near, jump in steps:
        time = max(time, NOW - 3 * WINDOW) + jump + 4 * near
        if window.admit(time, fresh=False):
            assert time not in admitted
            admitted.add(time)
