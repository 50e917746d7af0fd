"""What the host is changed with, how the steps of that are shown, and how it fails."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TextIO

from glorytun.errors import SetupError
from glorytun_setup import foreign
from glorytun_setup.bus import Bus
from glorytun_setup.manifest import Host
from glorytun_setup.terminal import Watch
from glorytun_setup.verify import Finding
from glorytun_setup.waiting import now, wait_until

LINK_TIMEOUT = 10.0
"""Seconds for an interface to have its addresses again."""
_BEGINNING = 1.0
"""Seconds for networkd to begin with what it was told."""
_LOCK = "run/glorytun-setup.lock"
_PATIENCE = 5.0
"""Seconds that another run has for ending."""

TARGET = "glorytun.target"
NETWORKD = "systemd-networkd.service"
NETWORKD_SOCKET = "systemd-networkd.socket"
WAIT_ONLINE = "systemd-networkd-wait-online.service"
SHARED_UNITS = (TARGET, NETWORKD, NETWORKD_SOCKET, WAIT_ONLINE)
"""Of all tunnels."""


class Progress(Protocol):
    """Whoever shows the steps. What it raises (a terminal that is gone) interrupts the change."""

    def begin(self, text: str) -> None:
        """A step begins."""

    def end(self, seconds: float, *, is_done: bool) -> None:
        """It is done, or failed."""


class Busy(SetupError):
    """Another run changes the host."""


class SetupFailure(SetupError):
    """The tunnel could not be brought up, or not be removed."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        findings: Iterable[Finding] = (),
        log: Iterable[str] = (),
        left: Iterable[str] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.findings = tuple(findings)
        """What may be the reason."""
        self.log = tuple(log)
        """The last lines of the service's journal."""
        self.left = tuple(left)
        """What could not be undone, in words; empty: the host is as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What it is done with."""

    root: Path
    bus: Bus
    progress: Progress
    watch: Watch

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show a step and how long it takes; an interruption comes before it."""
        self.watch.check()
        self.progress.begin(text)
        started = now()
        try:
            yield
        except BaseException:
            with suppress(OSError):
                self.progress.end(now() - started, is_done=False)
            raise
        self.progress.end(now() - started, is_done=True)

    @contextmanager
    def attempt(self, text: str, left: list[str]) -> Iterator[None]:
        """The same for undoing: what fails is noted in `left`, and the next step follows.

        The terminal may be gone, and what is called may fail in ways that nobody thought of: none
        of it keeps the rest from being undone.
        """
        with suppress(OSError):
            self.progress.begin(text)
        started, is_done = now(), False
        try:
            yield
            is_done = True
        except Exception as error:
            left.append(f"{text}: {str(error) or type(error).__name__}")
        with suppress(OSError):
            self.progress.end(now() - started, is_done=is_done)

    def wait_routable(self, link: str, *, timeout: float) -> bool:
        """Until networkd has set a link up again; False: it failed, twice.

        That it takes longer is no failure: it may never have been up.
        """
        if self._waits_for(link, timeout) != "failed":
            return True
        self.bus.reconfigure(link, timeout=timeout)
        # On systemd 252 networkd answers before it has begun.
        wait_until(lambda: self.bus.link_states(link)[0] != "failed", timeout=_BEGINNING)
        return self._waits_for(link, timeout) != "failed"

    def with_foreign(self, host: Host, links: Iterable[str]) -> Host:
        """And what others set up, as far as networkd takes it away when it reconfigures links.

        Raises SetupError.
        """
        # To ask it anything would start it.
        asked = links if self.bus.unit(NETWORKD).is_active else ()
        addresses = {link: self.bus.link_details(link).foreign for link in asked}
        return replace(host, foreign=foreign.remember(addresses), boot=foreign.boot())

    def _waits_for(self, link: str, timeout: float) -> str:
        """The state that networkd has a link in, in the end."""

        def is_settled() -> bool:
            # With router advertisements, systemd 252 stays "configuring" for many seconds.
            administrative, operational = self.bus.link_states(link)
            return administrative == "failed" or operational == "routable"

        wait_until(is_settled, timeout=timeout, check=self.watch.check)
        return self.bus.link_states(link)[0]


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other runs from changing the host. Raises Busy while one does."""
    path = root / _LOCK
    # A timer's run is short.
    file = wait_until(lambda: _lock(path), timeout=_PATIENCE)
    if file is None:
        raise Busy("another glorytun-setup is changing this host", hint="wait until it has ended")
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path) -> TextIO | None:
    """The file, open and locked; None while another run has it. Raises SetupError."""
    try:
        file = path.open("a+")
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SetupError(f"{path} can't be opened: {reason}", hint="run it as root") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have ended, and removed it, just before.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except OSError:
        pass
    file.close()
    return None
