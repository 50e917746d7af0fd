"""Windows over received times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.replay import CONTROL_WINDOW, WINDOW, ControlWindow, ReplayWindow
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


def control_window() -> ControlWindow:
    """One that has begun."""
    window = ControlWindow()
    assert window.admit(NOW, fresh=True)
    return window


def test_control_window_begins_with_proof() -> None:
    """The first message has to answer one of ours: it may have been captured long ago."""
    window = ControlWindow()
    for time in (NOW, NOW + SECOND):
        assert not window.admit(time, fresh=False)
        assert window.is_doubtful(time)
    assert window.admit(NOW, fresh=True)
    assert window.admit(NOW + SECOND, fresh=False)
    assert window.newest == NOW + SECOND


@pytest.mark.parametrize(
    ("distance", "fresh", "admitted"),
    [
        (4, False, True),
        (4, True, True),
        (0, True, False),
        (-4, False, True),
        (4 - CONTROL_WINDOW, False, True),
        (-CONTROL_WINDOW, False, False),
        (-CONTROL_WINDOW, True, True),
        (-600 * SECOND, True, True),
        (600 * SECOND, False, True),
    ],
)
def test_only_proof_sets_the_control_window_back(
    distance: int, fresh: bool, admitted: bool
) -> None:
    """A time from before the window is admitted if it answers a message of ours, else never."""
    window = control_window()
    assert window.admit(NOW + distance, fresh=fresh) == admitted
    assert not window.admit(NOW + distance, fresh=False), "once"


def test_window_set_back_distrusts_what_was_seen() -> None:
    """After a peer's clock was set back, its times of before aren't admitted again unproven."""
    window = control_window()
    heard = [NOW + 4 * step * SECOND for step in range(10)]
    assert all(window.admit(time, fresh=False) for time in heard[1:])
    back = NOW - 300 * SECOND
    assert window.admit(back, fresh=True)
    assert window.admit(back + 4, fresh=False)
    assert not window.admit(back, fresh=True)
    assert not any(window.admit(time, fresh=False) for time in heard)
    for second in range(1, 299):
        assert window.admit(back + second * SECOND, fresh=False)
        assert not any(window.admit(time, fresh=False) for time in heard)
    assert window.admit(back + 400 * SECOND, fresh=False)


CONTROL_STEPS = st.lists(
    st.tuples(
        st.integers(-20, 20),
        st.sampled_from([0, 0, 0, CONTROL_WINDOW, -CONTROL_WINDOW, SECOND, -5 * SECOND]),
    ),
    max_size=100,
)


@given(CONTROL_STEPS)
def test_control_window_without_proof_is_a_window(steps: list[tuple[int, int]]) -> None:
    """As long as no clock was set back, a time is admitted once, and if it isn't too old."""
    window = control_window()
    admitted, newest = {NOW}, NOW
    for near, jump in steps:
        time = newest + jump + 4 * near
        expected = time not in admitted and time > newest - CONTROL_WINDOW
        assert window.admit(time, fresh=False) == expected
        if expected:
            admitted.add(time)
        newest = max(newest, time)
        assert window.newest == newest


@given(st.lists(st.tuples(st.integers(-300, 300), st.booleans()), max_size=200))
def test_control_time_is_admitted_once(steps: list[tuple[int, bool]]) -> None:
    """Without proof no time is admitted twice, however often the clock is set back with it."""
    window = control_window()
    admitted = {NOW}
    for distance, fresh in steps:
        time = NOW + distance * SECOND
        if window.admit(time, fresh=fresh):
            assert fresh or time not in admitted
            admitted.add(time)


def test_control_window_forgets() -> None:
    """What the window refuses anyhow isn't kept: memory is bounded by what comes in its width."""
    window = control_window()
    for step in range(1, 100_000):
        window.admit(NOW + step * SECOND // 10, fresh=False)
    assert len(window._seen) <= CONTROL_WINDOW // (SECOND // 10) + 1
    assert len(window._order) == len(window._seen)
