"""Requests to a running tunnel and its answers: one line of JSON each, described in docs/json.md.

In JSON times are seconds, shares go from 0 to 1 and addresses are text; in the core they are µs,
0 to 255 and 16 bytes.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, assert_never

from glorytun.config import (
    BEAT,
    COST,
    DELAY_LIMIT,
    KEEPALIVE,
    KXTIMEOUT,
    LOSS_LIMIT,
    PREFERENCE,
    TIMETOLERANCE,
    TRAFFIC_CLASS,
    Bounds,
    check_rate,
    format_redundant,
    parse_redundant,
    parse_reorder,
    write_reorder,
)
from glorytun.core.address import Endpoint, format_address, pack_address
from glorytun.core.settings import (
    SECOND,
    PathChange,
    PathMode,
    PathState,
    Settings,
    SettingsChange,
)
from glorytun.core.status import BadKind, BadStatus, DirectionStatus, PathStatus, TunnelStatus
from glorytun.errors import GlorytunError, TunnelError

LINE_LIMIT = 65536
"""Bytes of a request or an answer, with the newline that ends it."""


@dataclass(frozen=True, slots=True)
class Show:
    """Describe the tunnel and its paths."""


@dataclass(frozen=True, slots=True)
class Bad:
    """Describe the datagrams that were dropped."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Describe the paths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPath:
    """Change the path from a local address, or make it."""

    address: bytes
    """16 bytes; IPv4 is mapped."""
    change: PathChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """Change the settings of the tunnel."""

    change: SettingsChange


@dataclass(frozen=True, slots=True)
class Reload:
    """Read the configuration file again."""


Request = Show | Bad | Paths | SetPath | Set | Reload


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFacts:
    """What the process around a tunnel knows of it."""

    device: str
    pid: int
    bind: Endpoint
    peer: Endpoint | None
    """None on a server that no client has talked to."""
    peer_host: str
    """As it was given on the command line; empty on a server."""
    started_at: int
    """µs since the epoch."""
    version: str
    traffic_class: int
    """The byte of the IP header (DSCP << 2)."""
    features: dict[str, bool]
    """What the kernel was probed for, and whether it is in use."""
    crowded_out: int
    """Packets that no path had credit for in time, or that were too many."""
    overflowed: int
    """Packets that the TUN device had no room for, since we were slower than who sent them."""
    undelivered: int
    """Packets received that were no IP packets, or that the TUN device didn't take."""


def encode_request(request: Request) -> bytes:
    """The line of a request."""
    match request:
        case Show():
            return _encode_line({"request": "show"})
        case Bad():
            return _encode_line({"request": "bad"})
        case Paths():
            return _encode_line({"request": "paths"})
        case Reload():
            return _encode_line({"request": "reload"})
        case SetPath():
            return _encode_line(
                {
                    "request": "set_path",
                    "address": format_address(request.address),
                    "change": _write_change(request.change, _PATH_FIELDS),
                }
            )
        case Set():
            return _encode_line(
                {"request": "set", "change": _write_change(request.change, _SETTINGS_FIELDS)}
            )
        case _:
            assert_never(request)


def decode_request(line: bytes) -> Request:
    """The request in a line, from whoever may open the socket. Raises TunnelError."""
    try:
        return _read_request(_decode_line(line))
    except ValueError as error:
        raise TunnelError(f"bad request: {error}") from None


def encode_answer(result: dict[str, Any]) -> bytes:
    """The line that answers a request."""
    return _encode_line({"ok": True, "result": result})


def encode_error(error: GlorytunError) -> bytes:
    """The line that refuses a request."""
    return _encode_line({"ok": False, "error": error.args[0], "hint": error.hint})


def decode_answer(line: bytes) -> dict[str, Any]:
    """The result in an answer. Raises TunnelError when the request was refused."""
    try:
        answer = _decode_line(line)
    except ValueError as error:
        raise TunnelError(f"the tunnel's answer makes no sense: {error}") from None
    match answer:
        case {"ok": True, "result": dict(result)}:
            return result
        case {"ok": False, "error": str(message), "hint": str(hint)}:
            raise TunnelError(message, hint=hint)
        case _:
            raise TunnelError("the tunnel's answer makes no sense")


def describe_tunnel(
    status: TunnelStatus, *, settings: Settings, facts: DaemonFacts
) -> dict[str, Any]:
    """The tunnel as a whole; stable keys."""
    return {
        "device": facts.device,
        "pid": facts.pid,
        "version": facts.version,
        "started_at": facts.started_at / SECOND,
        "role": "client" if status.client else "server",
        "bind": _endpoint(facts.bind),
        "peer": _endpoint(facts.peer),
        "peer_host": facts.peer_host,
        "peer_software": status.peer_software,
        "cipher": status.cipher,
        "keys_exchanged_at": _time_or_none(status.keys_exchanged_at),
        "mtu": status.mtu or None,
        "sent": {
            "bytes": status.sent_bytes,
            "packets": status.sent_total,
            "dropped": status.unsent_total,
            "crowded_out": facts.crowded_out,
            "overflowed": facts.overflowed,
        },
        "received": {
            "bytes": status.received_bytes,
            "packets": status.received_total,
            "undelivered": facts.undelivered,
            "copies": status.copies_total,
            "held": status.held.value,
        },
        "settings": {
            "cipher": settings.cipher.value,
            "kxtimeout": settings.kxtimeout / SECOND,
            "timetolerance": settings.timetolerance / SECOND,
            "keepalive": settings.keepalive / SECOND,
            "traffic_class": facts.traffic_class,
            "redundant": format_redundant(settings.redundant),
            "reorder": write_reorder(settings.reorder),
        },
        "features": dict(facts.features),
    }


def describe_path(status: PathStatus, *, quota: dict[str, int] | None = None) -> dict[str, Any]:
    """One path; stable keys. For `quota` see `Meter.describe`."""
    settings = status.settings
    return {
        "local": format_address(status.local),
        "remote": _endpoint(status.remote),
        "public": _endpoint(status.public),
        "state": settings.state.name.lower(),
        "condition": status.condition.value,
        "reason": status.reason,
        "mtu": status.mtu or None,
        "rtt": _time_or_none(status.rtt),
        "rtt_variation": status.rttvar / SECOND if status.rtt else None,
        "limit": status.limit.value,
        "queue": status.queue / SECOND,
        "tx": _direction(status.tx),
        "rx": _direction(status.rx),
        "last_received_at": _time_or_none(status.last_received_at),
        "quota": quota,
        "settings": {
            "rate": "fixed" if settings.fixed_rate else "auto",
            "rate_tx": settings.rate_tx,
            "rate_rx": settings.rate_rx,
            "beat": settings.beat / SECOND,
            "loss_limit": settings.loss_limit / 255,
            "delay_limit": settings.delay_limit / SECOND,
            "mode": settings.mode.value,
            "preference": settings.preference,
            "cost": settings.cost,
        },
    }


def describe_bad(statuses: Iterable[BadStatus]) -> list[dict[str, Any]]:
    """The datagrams that were dropped, by kind; stable keys."""
    return [
        {
            "kind": status.kind.value,
            "count": status.count,
            "last_source": _endpoint(status.last),
            "last_at": _time_or_none(status.last_at),
            "clock_offset": (
                status.clock_offset / SECOND
                if status.kind is BadKind.DIFFTIME and status.count
                else None
            ),
        }
        for status in statuses
    ]


def _endpoint(endpoint: Endpoint | None) -> dict[str, Any] | None:
    if endpoint is None:
        return None
    return {"address": format_address(endpoint.address), "port": endpoint.port}


def _direction(status: DirectionStatus) -> dict[str, Any]:
    return {
        "rate": status.rate,
        "loss": status.loss / 255,
        "bytes": status.bytes,
        "datagrams": status.total,
    }


def _time_or_none(time: int) -> float | None:
    return time / SECOND if time else None


def _encode_line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _decode_line(line: bytes) -> Any:
    """What is in a line. Raises ValueError, in words for the user."""
    if len(line) > LINE_LIMIT:
        raise ValueError(f"it is longer than {LINE_LIMIT} bytes")
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it is not JSON") from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _read_request(document: object) -> Request:
    match document:
        case {"request": "show", **rest} if not rest:
            return Show()
        case {"request": "bad", **rest} if not rest:
            return Bad()
        case {"request": "paths", **rest} if not rest:
            return Paths()
        case {"request": "reload", **rest} if not rest:
            return Reload()
        case {"request": "set_path", "address": str(text), "change": dict(change), **rest} if (
            not rest
        ):
            return SetPath(
                address=pack_address(text), change=PathChange(**_read_change(change, _PATH_FIELDS))
            )
        case {"request": "set", "change": dict(change), **rest} if not rest:
            return Set(change=SettingsChange(**_read_change(change, _SETTINGS_FIELDS)))
        case _:
            raise ValueError("it has an unknown form")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """How a value of a change looks in JSON."""

    write: Callable[[Any], object]
    read: Callable[[Any], object]
    """Raises ValueError, in words that go on after the field's name."""


def _write_change(
    change: PathChange | SettingsChange, table: dict[str, _Field]
) -> dict[str, object]:
    values = {field.name: getattr(change, field.name) for field in fields(change)}
    return {key: table[key].write(value) for key, value in values.items() if value is not None}


def _read_change(change: dict[Any, Any], table: dict[str, _Field]) -> dict[str, Any]:
    values = {}
    for key, value in change.items():
        if key not in table:
            raise ValueError(f"{key!r} can't be changed")
        try:
            values[key] = table[key].read(value)
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
    return values


def _scaled_field(scale: int, bounds: Bounds) -> _Field:
    """A whole number in the core that is a fraction of `scale` in JSON."""

    def read(value: Any) -> int:
        # Compared before it is scaled, since a large one would overflow.
        if type(value) not in (int, float) or not -1e9 < value < 1e9:
            raise ValueError(f"must be {bounds.text}")
        return bounds.check(round(value * scale))

    return _Field(write=lambda value: value / scale, read=read)


def _read_redundant(value: Any) -> int:
    if type(value) is not str:
        raise ValueError("must be the name of a traffic class, or off")
    return parse_redundant(value)


def _read_reorder(value: Any) -> int:
    if type(value) is not str:
        raise ValueError("must be off, auto or a time such as 50ms")
    return parse_reorder(value)


def _read_mode(value: Any) -> PathMode:
    for mode in PathMode:
        if value == mode.value:
            return mode
    raise ValueError("must be bulk or redundant")


def _number_field(bounds: Bounds) -> _Field:
    def read(value: Any) -> int:
        if type(value) is not int:
            raise ValueError(f"must be {bounds.text}")
        return bounds.check(value)

    return _Field(write=int, read=read)


def _read_rate(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("must be a whole number of bytes/s")
    return check_rate(value)


def _read_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _read_state(value: Any) -> PathState:
    for state in PathState:
        if value == state.name.lower():
            return state
    raise ValueError("must be up, backup or down")


_RATE = _Field(write=int, read=_read_rate)

_PATH_FIELDS = {
    "state": _Field(write=lambda state: state.name.lower(), read=_read_state),
    "rate_tx": _RATE,
    "rate_rx": _RATE,
    "fixed_rate": _Field(write=bool, read=_read_flag),
    "beat": _scaled_field(SECOND, BEAT),
    "loss_limit": _scaled_field(255, LOSS_LIMIT),
    "delay_limit": _scaled_field(SECOND, DELAY_LIMIT),
    "mode": _Field(write=lambda mode: mode.value, read=_read_mode),
    "preference": _number_field(PREFERENCE),
    "cost": _number_field(COST),
}

_SETTINGS_FIELDS = {
    "kxtimeout": _scaled_field(SECOND, KXTIMEOUT),
    "timetolerance": _scaled_field(SECOND, TIMETOLERANCE),
    "keepalive": _scaled_field(SECOND, KEEPALIVE),
    "traffic_class": _number_field(TRAFFIC_CLASS),
    "redundant": _Field(write=format_redundant, read=_read_redundant),
    "reorder": _Field(write=write_reorder, read=_read_reorder),
}
