"""Who runs the wizard, and whether they are still there.

A change of routes can cut the very connection that it was ordered over. A terminal that is closed
sends SIGHUP, but one behind a dead connection only falls silent: sshd notices minutes later. So
the connection itself is looked at: whether what was printed is acknowledged by the other side.
"""

import os
import re
import signal
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from glorytun.errors import SetupError
from glorytun_setup.waiting import wait_until

PATIENCE = 5.0
"""Seconds that the other side has for acknowledging what was printed."""
_SETTLING = 0.3
"""Seconds that sshd may take to pass on what was printed."""
_ESTABLISHED = "01"
"""include/net/tcp_states.h"""
_MOST_ANCESTORS = 32


class Interrupted(SetupError):
    """The user doesn't want to go on, or can't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshSession:
    """The connection by which the user is here."""

    client: tuple[str, int]
    """Address and port."""
    server: tuple[str, int]
    """This host's."""


class Watch:
    """While in context, signals that would end us are only noted; `check` raises then."""

    _SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

    def __init__(self, session: SshSession | None = None) -> None:
        self._session = session
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}
        self._is_deaf = False

    def __enter__(self) -> Self:
        for number in self._SIGNALS:
            # nohup(1) ignores it, so that the terminal may go.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises Interrupted when a signal came."""
        if self._signal is None or self._is_deaf:
            return
        if self._signal == signal.SIGHUP:
            raise Interrupted("the connection to your terminal was lost")
        raise Interrupted("you interrupted it")

    def check_connection(self) -> None:
        """Raises Interrupted also when what was printed doesn't arrive any more."""
        self.check()
        if self._session is None or not is_established(self._session):
            return  # It was so from the beginning, as with a session that outlives its connection.
        wait_until(lambda: False, timeout=_SETTLING, check=self.check)
        if not wait_until(self._is_heard, timeout=PATIENCE, check=self.check):
            raise Interrupted(
                f"the connection to your terminal is lost: {self._session.client[0]} acknowledges "
                "nothing any more"
            )

    def go_deaf(self) -> None:
        """From now on nothing interrupts: what was done is being undone."""
        self._is_deaf = True

    def _is_heard(self) -> bool:
        return self._session is not None and pending_bytes(self._session) == 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = self._signal or number


def find_session(pid: int | None = None) -> SshSession | None:
    """The SSH session that this process belongs to, as one of its ancestors has it (ssh(1)).

    sudo keeps SSH_CONNECTION from us, but not from its parents.
    """
    process = os.getpid() if pid is None else pid
    for _ in range(_MOST_ANCESTORS):
        session = _session_of(process)
        process = _parent(process)
        if session or process <= 1:
            return session
    return None


def is_established(session: SshSession) -> bool:
    """Whether the connection is there."""
    return pending_bytes(session) is not None


def pending_bytes(session: SshSession) -> int | None:
    """What was sent and is not acknowledged, as proc_net_tcp has it; None without connection."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, state, queues = line.split()[:5]
            ends = (_endpoint(local), _endpoint(remote))
            if ends == (_plain(session.server), _plain(session.client)) and state == _ESTABLISHED:
                return int(queues.split(":")[0], 16)
    return None


def _session_of(pid: int) -> SshSession | None:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    for variable in variables:
        match = re.fullmatch(rb"SSH_CONNECTION=(\S+) (\d+) (\S+) (\d+)", variable)
        if match:
            words = [group.decode(errors="replace") for group in match.groups()]
            try:
                ends = [(words[0], int(words[1])), (words[2], int(words[3]))]
                _plain(ends[0])
                _plain(ends[1])
            except ValueError:
                return None
            return SshSession(client=ends[0], server=ends[1])
    return None


def _parent(pid: int) -> int:
    try:
        # proc_pid_stat(5): the name, in parentheses, may have anything in it.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _endpoint(text: str) -> tuple[str, int]:
    """As the kernel writes it: words of 32 bits in the processor's order."""
    address, port = text.split(":")
    packed = b"".join(
        int(address[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(address), 8)
    )
    return _plain((str(ip_address(packed)), int(port, 16)))


def _plain(end: tuple[str, int]) -> tuple[str, int]:
    """An IPv4 address as such, also where an IPv6 socket has it. Raises ValueError."""
    address = ip_address(end[0].split("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address), end[1]
