"""The clock that nonces are made of."""

import time

import pytest

from glorytun.net import clock
from glorytun.net.clock import Clock

SECOND = 1_000_000
EPOCH = 1_700_000_000 * SECOND


class Kernel:
    """The kernel's clocks, µs, turned by hand."""

    def __init__(self) -> None:
        self.boot = 100 * SECOND
        self.system = EPOCH

    def read(self, which: int) -> int:
        return {time.CLOCK_BOOTTIME: self.boot, time.CLOCK_REALTIME: self.system}[which] * 1000

    def advance(self, duration: int) -> None:
        self.boot += duration
        self.system += duration


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(clock, "clock_gettime_ns", kernel.read)
    monkeypatch.delenv("GLORYTUN_TEST_CLOCK_OFFSET", raising=False)
    return kernel


def test_starts_at_the_system_clock() -> None:
    """A real clock agrees with the system's."""
    assert Clock().now() == pytest.approx(time.time_ns() // 1000, abs=SECOND)


def test_advances_with_time_since_boot(kernel: Kernel) -> None:
    """Time that passes, suspended or not, is seen to the microsecond."""
    ours = Clock()
    assert ours.now() == EPOCH
    kernel.advance(1)
    assert ours.now() == EPOCH + 1
    kernel.advance(3600 * SECOND)
    assert ours.now() == EPOCH + 1 + 3600 * SECOND


def test_follows_a_step_forward_within_a_second(kernel: Kernel) -> None:
    """A host that boots with a wrong clock gets the right one as soon as the system has it."""
    ours = Clock()
    ours.now()
    kernel.system += 86_400 * SECOND
    kernel.advance(SECOND)
    assert ours.now() == kernel.system
    assert ours.check_step() == 0


def test_looks_at_the_system_clock_once_a_second(kernel: Kernel) -> None:
    """Between two looks a step is not noticed, which keeps now() cheap."""
    ours = Clock()
    ours.now()
    kernel.system += 86_400 * SECOND
    kernel.advance(SECOND - 1)
    assert ours.now() == EPOCH + SECOND - 1


def test_does_not_follow_a_step_backward(kernel: Kernel) -> None:
    """Time goes on as before, and the caller is told how far the system is behind."""
    ours = Clock()
    ours.now()
    kernel.system -= 600 * SECOND
    kernel.advance(2 * SECOND)
    assert ours.now() == EPOCH + 2 * SECOND
    assert ours.check_step() == -600 * SECOND


def test_does_not_follow_a_small_step(kernel: Kernel) -> None:
    """Up to a second of difference is left alone, however often it is looked at."""
    ours = Clock()
    kernel.system += SECOND
    for _ in range(3):
        kernel.advance(2 * SECOND)
        assert ours.now() == kernel.system - SECOND
        assert ours.check_step() == SECOND


def test_never_decreases(kernel: Kernel) -> None:
    """Whatever is done to the system clock."""
    ours = Clock()
    before = 0
    for step in (0, 5, -5, -3600, 7200, -1, 1, 0, 86_400, -86_400):
        kernel.system += step * SECOND
        kernel.advance(SECOND)
        now = ours.now()
        assert now > before
        before = now


@pytest.mark.parametrize(("text", "offset"), [("900", 900 * SECOND), ("-0.5", -SECOND // 2)])
def test_offset_for_tests(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, text: str, offset: int
) -> None:
    """The variable makes the clock wrong, and keeps it so."""
    monkeypatch.setenv("GLORYTUN_TEST_CLOCK_OFFSET", text)
    ours = Clock()
    assert ours.now() == EPOCH + offset
    kernel.advance(2 * SECOND)
    assert ours.now() == EPOCH + 2 * SECOND + offset
    assert ours.check_step() == 0


def test_monotonic_and_entropy() -> None:
    """Durations are measured in µs; entropy differs each time."""
    assert clock.monotonic_us() == pytest.approx(time.monotonic_ns() // 1000, abs=SECOND)
    assert len(clock.entropy(32)) == 32
    assert clock.entropy(32) != clock.entropy(32)
