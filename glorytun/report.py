"""What the log says: for each thing that happened a plain sentence, and fields for the journal.

A field is GLORYTUN_ and a key of docs/json.md in capitals, where it means the same; docs/journal.md
has them all.
"""

import logging
import os
from typing import Any, assert_never

from glorytun.configfile import Problem
from glorytun.core.address import PathId, format_address
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
from glorytun.errors import ConfigError, GlorytunError

_TROUBLE = {Condition.DEGRADED, Condition.LOSSY, Condition.LATE}

Extra = dict[str, dict[str, object]]
"""What the methods of a logger take as `extra`."""


def log_event(log: logging.Logger, event: Event, note: str = "") -> None:
    """Say that something happened, and what else there is to say of it."""
    level, text = sentence(event)
    log.log(level, "%s", f"{text}; {note}" if note else text, extra=_event_fields(event))


def log_send_failure(log: logging.Logger, path: PathId, failure: int) -> None:
    """Say that the kernel didn't send datagrams; `failure` is an errno."""
    extra = fields("send_failed", **_path(path))
    extra["fields"]["ERRNO"] = failure  # as systemd has it
    log.warning("path %s can't send: %s", path, os.strerror(failure), extra=extra)


def log_error(log: logging.Logger, error: GlorytunError) -> None:
    """Say what went wrong: for a file an entry for each problem, else one of one line."""
    if isinstance(error, ConfigError) and error.problems:
        for problem in error.problems:
            assert isinstance(problem, Problem)
            log_problem(log, problem)
    else:
        log.error("%s", " ".join(str(error).split()))


def log_problem(log: logging.Logger, problem: Problem) -> None:
    """Say what is wrong at a place of a file, in fields as systemd has them for its own files."""
    place: dict[str, object] = {
        "CONFIG_FILE": problem.file,
        "CONFIG_LINE": problem.line,
        "CONFIG_COLUMN": problem.column,
    }
    if problem.warning:
        log.warning("%s", problem.summary, extra={"fields": place})
    else:
        log.error("%s", problem, extra={"fields": place})


def first_problem(error: GlorytunError) -> str:
    """What is wrong, in one line; with a file: the first that is wrong with it."""
    for problem in error.problems if isinstance(error, ConfigError) else ():
        if isinstance(problem, Problem) and not problem.warning:
            return problem.summary
    return " ".join(str(error).split())


def fields(event: str, **values: object) -> Extra:
    """What goes with a line into the journal, if it goes there; what is None or empty doesn't.

    `event` says what happened, in the past tense, and never changes its name: users look for it.
    """
    named = {"event": event, **values}
    known = {name: value for name, value in named.items() if value is not None and value != ""}
    return {"fields": {f"GLORYTUN_{name.upper()}": value for name, value in known.items()}}


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


def _event_fields(event: Event) -> Extra:
    match event:
        case PathAdded(path=path):
            return fields("path_added", **_path(path))
        case PathRemoved(path=path, reason=reason):
            return fields("path_removed", **_path(path), reason=reason)
        case PathChanged(path=path, old=old, new=new, reason=reason):
            change = {"condition": new, "old_condition": old, "reason": reason}
            return fields("path_changed", **_path(path), **change)
        case PathStateSet(path=path, state=state):
            return fields("path_state_set", **_path(path), state=state.name.lower())
        case PathMtuFound(path=path, mtu=mtu):
            return fields("path_mtu_found", **_path(path), mtu=mtu)
        case TunnelMtuChanged(mtu=mtu):
            return fields("tunnel_mtu_changed", mtu=mtu)
        case KeysExchanged(cipher=cipher, first=first):
            return fields("keys_exchanged" if first else "keys_renewed", cipher=cipher)
        case PeerStopped():
            return fields("peer_stopped")
        case DatagramsDropped(kind=kind, source=source, count=count):
            what = {"kind": kind, "last_source": source, "dropped": count}
            return fields("datagrams_dropped", **what, clock_offset=_offset(event))
        case _:
            assert_never(event)


def _path(path: PathId) -> dict[str, Any]:
    return {"local": format_address(path.local), "remote": path.remote}


def _offset(event: DatagramsDropped) -> float | None:
    """Seconds, as in JSON."""
    return event.clock_offset / SECOND if event.kind is BadKind.DIFFTIME else None


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
