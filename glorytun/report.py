"""What the log says: one plain sentence for each thing that happened."""

import logging
import os
import select
from typing import TextIO, assert_never

from glorytun.core.address import PathId
from glorytun.core.events import (
    DatagramsDropped,
    Event,
    KeysExchanged,
    PathAdded,
    PathChanged,
    PathMtuFound,
    PathRemoved,
    PathStateSet,
    PeerStopped,
    TunnelMtuChanged,
)
from glorytun.core.settings import SECOND
from glorytun.core.status import BadKind, Condition

_TROUBLE = {Condition.DEGRADED, Condition.LOSSY}


class PatientHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr, and drops lines while its reader doesn't keep up: traffic can't wait."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_writable():
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            text = f"{lost} lines of this log were lost, as nobody read it"
            super().emit(logging.makeLogRecord({"msg": text, "levelno": logging.WARNING}))
        super().emit(record)

    def _is_writable(self) -> bool:
        """Whether a line can be written without waiting: poll(2) grants PIPE_BUF bytes."""
        poll = select.poll()
        try:
            poll.register(self.stream.fileno(), select.POLLOUT)
        except (OSError, ValueError, AttributeError):
            return True  # No descriptor behind it: it is what a test puts there.
        return bool(poll.poll(0))


def sentence(event: Event) -> tuple[int, str]:
    """The logging level and the text of an event."""
    match event:
        case PathAdded(path=path):
            return logging.INFO, f"path {path} was added"
        case PathRemoved(path=path, reason=reason):
            return logging.INFO, f"path {path} was forgotten: {reason}"
        case PathChanged(path=path, new=new, reason=reason):
            level = logging.WARNING if new in _TROUBLE else logging.INFO
            return level, f"path {path} is {new}" + (f": {reason}" if reason else "")
        case PathStateSet(path=path, state=state):
            return logging.INFO, f"the peer set path {path} {state.name.lower()}"
        case PathMtuFound(path=path, mtu=mtu):
            return logging.INFO, f"path {path} takes packets of {mtu} bytes"
        case TunnelMtuChanged(mtu=mtu):
            return logging.INFO, f"the tunnel's MTU is {mtu} bytes"
        case KeysExchanged(cipher=cipher, first=first):
            verb = "exchanged" if first else "renewed"
            return logging.INFO, f"session keys were {verb}, data is sealed with {cipher}"
        case PeerStopped():
            return logging.WARNING, "the peer stopped"
        case DatagramsDropped():
            return logging.WARNING, _dropped(event)
        case _:
            assert_never(event)


def send_failure(path: PathId, failure: int) -> str:
    """The text for datagrams that the kernel didn't send."""
    return f"path {path} can't send: {os.strerror(failure)}"


def clock_difference(offset: int) -> str:
    """How far the peer's clock (µs, minus ours) is off, in words."""
    seconds = round(abs(offset) / SECOND)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    amount = " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"
    return f"{amount} {'ahead of' if offset > 0 else 'behind'} ours"


def _dropped(event: DatagramsDropped) -> str:
    what = f"{event.count} datagram{'s' if event.count != 1 else ''}"
    return f"dropped {what}, the last from {event.source}: {_reason(event)}"


def _reason(event: DatagramsDropped) -> str:
    match event.kind:
        case BadKind.DECRYPT:
            return "can't be opened; is the secret key the same on both sides?"
        case BadKind.DIFFTIME:
            return f"the peer's clock is {clock_difference(event.clock_offset)}; set both right"
        case BadKind.REPLAY:
            return "seen before, or too old to tell"
        case BadKind.KEYX:
            return "its public key can't be used"
        case BadKind.SIZE:
            return "no datagram of ours has that size"
        case BadKind.PATH:
            return "authentic, but on no path of ours"
        case _:
            assert_never(event.kind)
