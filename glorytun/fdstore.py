"""Descriptors that systemd keeps for a service from one process to the next.

sd_notify(3), FDSTORE=1; sd_listen_fds(3); FileDescriptorStoreMax= in systemd.service(5). They are
kept over a restart and a crash, not over a stop.
"""

import os
import select
from collections.abc import Callable
from typing import Protocol, TypeVar

from glorytun.errors import GlorytunError
from glorytun.net.clock import monotonic_us
from glorytun.notify import notify

_FIRST = 3
"""SD_LISTEN_FDS_START."""
_PATIENCE = 1_000_000
"""µs that are tried for."""
_PAUSE = 0.02
"""Seconds between two tries."""
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


_Owner = TypeVar("_Owner", bound=_HasDescriptor)


class DescriptorStore:
    """What the last process left, and what the next one is to find."""

    def __init__(self) -> None:
        """Take over what systemd hands to this process."""
        self._left = _inherited()

    def reuse(
        self, name: str, *, adopt: Callable[[int], _Owner | None], make: Callable[[], _Owner]
    ) -> _Owner:
        """What `adopt` makes of the last process' descriptor, else a new one, for the next process.

        `adopt` returns None for one that doesn't fit any more.
        """
        left = self._left.pop(name, None)
        owner = None if left is None else adopt(left)
        if left is not None and owner is None:
            os.close(left)
            _drop(name)
            owner = _insist(make)
        if owner is None:
            owner = make()
        # Kept once, though it may be there already.
        notify(descriptor=owner.fileno(), FDSTORE=1, FDNAME=name)
        return owner

    def close(self) -> None:
        """Drop what nobody took."""
        for name in list(self._left):
            os.close(self._left.pop(name))
            _drop(name)


def _insist(make: Callable[[], _Owner]) -> _Owner:
    """Try again for a moment: until systemd has closed the old one, it is in the new one's way."""
    until = monotonic_us() + _PATIENCE
    while True:
        try:
            return make()
        except GlorytunError:
            # A try may itself have waited: a TUN that is in use does.
            if monotonic_us() >= until:
                raise
        select.select([], [], [], _PAUSE)


def _drop(name: str) -> None:
    notify(FDSTOREREMOVE=1, FDNAME=name)


def _inherited() -> dict[str, int]:
    pid, count, names = (os.environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, int] = {}
    for descriptor, name in enumerate(names.split(":")[: int(count)], _FIRST):
        os.set_inheritable(descriptor, False)
        if name in found:
            os.close(descriptor)
        else:
            found[name] = descriptor
    return found
