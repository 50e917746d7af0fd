"""The tunnel's answers as text for a terminal. Pure: `now` is in seconds since the epoch."""

from collections.abc import Iterable, Sequence
from typing import Any

from glorytun.cli.values import (
    format_rate,
    format_share,
    format_size,
    format_time,
)
from glorytun.config import format_traffic_class

_CIPHERS = {
    "aegis256": "AEGIS-256",
    "aes256gcm": "AES-256-GCM",
    "chacha20poly1305": "ChaCha20-Poly1305",
    "none": "none, no keys were exchanged yet",
}

_CONDITIONS = {
    "down": "not used",
    "probing": "probing, its MTU is not known yet",
    "degraded": "degraded",
    "lossy": "lossy, above its loss limit",
    "late": "late, above its delay limit",
    "waiting": "waiting, another path is running",
    "running": "running",
}

_BAD = {
    "decrypt": "can't be decrypted",
    "difftime": "the time is too far from ours",
    "replay": "seen before, or too late to tell",
    "keyx": "the public key can't be used",
    "size": "too short or too long",
    "path": "on no path, and none could be made",
}

_BAD_HINTS = {
    "decrypt": "noise from the Internet, or the peer has another secret key",
    "path": "a client makes its paths itself, and a server keeps 32 at the most",
}


_HELD = {
    "none": "",
    "tcp": "; TCP waits for slower paths, to be in order",
    "all": "; they wait for slower paths, to be in order",
}
"""What is said of packets that are held back."""


def render_tunnel(tunnel: dict[str, Any], *, now: float) -> str:
    """The tunnel as a whole."""
    title = (
        f"{tunnel['device']}: {tunnel['role']}, pid {tunnel['pid']}, "
        f"running for {_since(tunnel['started_at'], now=now)}, glorytun {tunnel['version']}"
    )
    settings = tunnel["settings"]
    return _block(
        title,
        [
            ("bind", endpoint(tunnel["bind"])),
            ("peer", _peer(tunnel)),
            ("cipher", _cipher(tunnel, now=now)),
            ("mtu", _mtu(tunnel["mtu"])),
            ("sent", _sent(tunnel["sent"])),
            ("received", _received(tunnel["received"])),
            (
                "settings",
                f"tc {format_traffic_class(settings['traffic_class'])}, "
                f"kxtimeout {format_time(settings['kxtimeout'])}, "
                f"timetolerance {format_time(settings['timetolerance'])}, "
                f"keepalive {format_time(settings['keepalive'])}"
                + "".join(
                    f", {name} {settings[name]}"
                    for name, usual in (("redundant", "off"), ("reorder", "auto"))
                    if settings[name] != usual
                ),
            ),
            ("kernel", _features(tunnel["features"])),
        ],
    )


def render_paths(paths: Sequence[dict[str, Any]]) -> str:
    """One block a path."""
    return "\n\n".join(map(_path, paths)) or "no paths"


def render_bad(kinds: Iterable[dict[str, Any]], *, now: float) -> str:
    """What was dropped, one block a kind."""
    blocks = [_bad(kind, now=now) for kind in kinds if kind["count"]]
    return "\n\n".join(blocks) or "nothing was dropped"


def render_list(tunnels: Sequence[dict[str, Any]]) -> str:
    """A line for each tunnel."""
    if not tunnels:
        return "no tunnel is running"
    header = ("DEVICE", "PID", "ROLE", "BIND", "PEER")
    rows = [
        (
            tunnel["device"],
            str(tunnel["pid"]),
            tunnel["role"],
            endpoint(tunnel["bind"]),
            endpoint(tunnel["peer"]),
        )
        for tunnel in tunnels
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )


def endpoint(value: dict[str, Any] | None) -> str:
    """An address and a port."""
    if value is None:
        return "-"
    address = value["address"]
    return f"[{address}]:{value['port']}" if ":" in address else f"{address}:{value['port']}"


def clock_difference(offset: float) -> str:
    """How the peer's clock differs from ours; `offset` in seconds, positive when it is ahead."""
    return f"the peer's clock is {format_time(abs(offset))} {'ahead' if offset > 0 else 'behind'}"


_LIMITS = {
    "application": "none, there is no more to send",
    "rate": "the rate that was given",
    "queue": "the link: more would queue up on the way",
    "order": "too little waits to arrive in order with what is faster",
    "loss": "the link loses too much",
    "delay": "round trips take too long",
}
"""What keeps us from sending more, as `core.status.Limit` has it."""

_USED = {"running", "lossy", "late"}
"""Of another path its condition says why no more is sent there."""


def _path(path: dict[str, Any]) -> str:
    settings = path["settings"]
    limit = settings["delay_limit"]
    return _block(
        f"path {path['local']} to {endpoint(path['remote'])}",
        [
            ("state", f"{path['state']}, {_condition(path)}"),
            ("public", endpoint(path["public"])),
            ("mtu", _mtu(path["mtu"])),
            ("rtt", _rtt(path)),
            ("tx", _direction(path["tx"], ceiling=settings["rate_tx"], mode=settings["rate"])),
            ("rx", _direction(path["rx"], ceiling=settings["rate_rx"], mode="")),
            *_limit(path),
            *([("quota", _quota(path["quota"]))] if path["quota"] else []),
            (
                "settings",
                f"beat {format_time(settings['beat'])}, "
                f"losslimit {format_share(round(settings['loss_limit'], 2))}"
                + (f", delaylimit {format_time(limit)}" if limit else "")
                + (", redundant" if settings["mode"] == "redundant" else "")
                + (f", cost {settings['cost']}" if settings["cost"] else "")
                + (f", preference {settings['preference']}" if settings["preference"] else ""),
            ),
        ],
    )


def _limit(path: dict[str, Any]) -> list[tuple[str, str]]:
    limit = path["limit"]
    return [("limit", _LIMITS.get(limit, limit))] if path["condition"] in _USED else []


def _quota(quota: dict[str, int]) -> str:
    used, limit = format_size(quota["used"]), format_size(quota["limit"])
    return f"{used} of {limit} used, anew on day {quota['day']} of the month"


def _bad(kind: dict[str, Any], *, now: float) -> str:
    name = kind["kind"]
    rows = [("why", _BAD.get(name, name)), ("last from", endpoint(kind["last_source"]))]
    if kind["last_at"] is not None:
        rows.append(("when", f"{_since(kind['last_at'], now=now)} ago"))
    if kind["clock_offset"] is not None:
        rows.append(("clocks", clock_difference(kind["clock_offset"])))
    if name in _BAD_HINTS:
        rows.append(("hint", _BAD_HINTS[name]))
    return _block(f"{name}: {_count(kind['count'], 'datagrams')}", rows)


def _block(title: str, rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join([title, *(f"  {name:<9} {_printable(text)}" for name, text in rows)])


def _printable(text: str) -> str:
    """Text, parts of which a peer chose, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _since(time: float, *, now: float) -> str:
    return format_time(max(now - time, 0))


def _peer(tunnel: dict[str, Any]) -> str:
    name = tunnel["peer_host"]
    if tunnel["peer"] is None:
        return f"{name}, whose address is not known yet" if name else "none yet"
    text = endpoint(tunnel["peer"])
    if name and name != tunnel["peer"]["address"]:
        text += f" ({name})"
    return f"{text}, {tunnel['peer_software']}" if tunnel["peer_software"] else text


def _cipher(tunnel: dict[str, Any], *, now: float) -> str:
    text: str = _CIPHERS.get(tunnel["cipher"], tunnel["cipher"])
    if tunnel["keys_exchanged_at"] is not None:
        text += f", keys are {_since(tunnel['keys_exchanged_at'], now=now)} old"
    return text


def _mtu(mtu: int | None) -> str:
    return "not known yet" if mtu is None else str(mtu)


def _amount(amount: dict[str, Any], unit: str) -> str:
    return f"{format_size(amount['bytes'])} in {_count(amount[unit], unit)}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit.removesuffix('s') if number == 1 else unit}"


def _received(received: dict[str, Any]) -> str:
    return _amount(received, "packets") + _HELD[received["held"]]


def _sent(amount: dict[str, Any]) -> str:
    text = _amount(amount, "packets")
    dropped = amount["dropped"]
    if dropped:
        text += f", {dropped} dropped that fit no path"
    if amount["crowded_out"]:
        text += f", {amount['crowded_out']} that were more than the paths carry"
    if amount["overflowed"]:
        text += f", {amount['overflowed']} that the device had no room for"
    return text


def _features(features: dict[str, bool]) -> str:
    used = [name for name, on in features.items() if on]
    missing = [name for name, on in features.items() if not on]
    return f"uses {', '.join(used) or 'nothing'}; without {', '.join(missing) or 'nothing'}"


def _condition(path: dict[str, Any]) -> str:
    condition, reason = path["condition"], path["reason"]
    if reason:
        return f"{condition}: {reason}"
    return str(_CONDITIONS.get(condition, condition))


def _rtt(path: dict[str, Any]) -> str:
    if path["rtt"] is None:
        return "not measured yet"
    return f"{format_time(path['rtt'])}, varies by {format_time(path['rtt_variation'])}"


def _direction(direction: dict[str, Any], *, ceiling: int, mode: str) -> str:
    rate = format_rate(direction["rate"])
    if mode == "auto" and ceiling:
        rate += f" (auto, at most {format_rate(ceiling)})"
    elif mode:
        rate += f" ({mode})"
    return f"{rate}, {format_share(direction['loss'])} lost, {_amount(direction, 'datagrams')}"
