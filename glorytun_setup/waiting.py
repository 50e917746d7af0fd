"""Waiting for what others do: the wizard's only reader of clocks."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

INTERVAL = 0.05
"""Seconds between two looks."""


def now() -> float:
    """Seconds, for measuring how long something took."""
    return time.monotonic()


def system_time() -> float:
    """What this host takes the time to be: seconds since 1970."""
    return time.time()


def sleep(seconds: float) -> None:
    """Let others do something."""
    time.sleep(seconds)


def wait_until(
    condition: Callable[[], _T],
    *,
    timeout: float,
    check: Callable[[], None] = lambda: None,
    interval: float = INTERVAL,
) -> _T | None:
    """What `condition` returns as soon as that is true; None after `timeout` seconds.

    `check` is called in between, and may raise.
    """
    deadline = now() + timeout
    while not (found := condition()):
        check()
        left = deadline - now()
        if left <= 0:
            return None
        sleep(min(interval, left))
    return found
