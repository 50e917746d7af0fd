"""Waiting for a condition instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

INTERVAL = 0.02
"""Seconds between two looks."""


def wait_for(condition: Callable[[], _T], *, timeout: float, what: str) -> _T:
    """Return what `condition` returns as soon as that is true; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for: {what}")
        time.sleep(INTERVAL)
