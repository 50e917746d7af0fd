"""What a user may set, how it is written, and within which bounds.

A `parse_*` function raises ValueError whose message goes on after the word it was given:
"tx '1mbitt' is no rate: …".
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, ip_address

from glorytun.core.address import format_address, pack_address
from glorytun.core.settings import NO_CLASS, REORDER_AUTO, SECOND, CipherChoice, PathSettings
from glorytun.core.stat import percentage
from glorytun.keyfile import mask_keys

DEFAULT_PORT = 5000

MAX_DEVICE_NAME = 15
"""Bytes: IFNAMSIZ, linux/if.h, less the ending zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BindOptions:
    """What ``glorytun bind`` was asked to run."""

    bind_address: str = "0.0.0.0"
    """An IPv4 or IPv6 address."""
    bind_port: int = DEFAULT_PORT
    peer_host: str | None = None
    """A name or an address; None: be a server."""
    peer_port: int = DEFAULT_PORT
    device: str | None = None
    """Of the TUN; None: one is chosen."""
    keyfile: str
    """`-` is standard input."""
    cipher: CipherChoice = CipherChoice.AUTO
    persist: bool = False
    """Whether the TUN outlives the process."""


class LocalKind(StrEnum):
    """What `Local=` of a path names."""

    INTERFACE = "interface"
    GLOB = "glob"
    """Every interface whose name matches (fnmatch)."""
    ADDRESS = "address"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelConfig:
    """What the [Tunnel] section of a configuration file says; times in µs."""

    bind: str
    """An address; `::` is all of IPv4 and IPv6."""
    port: int
    peer: str | None
    """A name or an address; None: be a server."""
    peer_port: int
    keyfile: str | None
    """None: `configfile.key_path` knows."""
    cipher: CipherChoice
    kxtimeout: int
    timetolerance: int
    keepalive: int
    traffic_class: int
    """The byte of the IP header (DSCP << 2)."""
    redundant: int
    """The traffic class of inner packets that are sent on two paths; `NO_CLASS` is none."""
    firewall_mark: int
    """Of every datagram (SO_MARK, socket(7)); 0 is none."""
    reorder: int
    """µs that received packets may be held back to come in order; 0 is off, or `REORDER_AUTO`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathConfig:
    """What a [Path] section says."""

    local: str
    kind: LocalKind
    """What `local` is."""
    peer: str | None
    """Another name or address of the server; None: the tunnel's."""
    settings: PathSettings
    quota: int
    """Bytes; 0 is none."""
    quota_day: int
    """Of the month, from when on it counts anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The lowest and the highest value that makes sense, both allowed."""

    low: int
    high: int
    text: str
    """Both in words."""

    def check(self, value: int) -> int:
        """The value itself. Raises ValueError, in words for the user, when out of bounds."""
        if not self.low <= value <= self.high:
            raise ValueError(f"must be {self.text}")
        return value


# Times in µs.
BEAT = Bounds(low=SECOND // 100, high=10 * SECOND, text="from 10ms to 10s")
KEEPALIVE = Bounds(low=SECOND, high=50 * SECOND, text="from 1s to 50s")
"""A server forgets a path on which nothing came for 60 s (PROTOCOL 3)."""
KXTIMEOUT = Bounds(low=SECOND, high=7 * 86400 * SECOND, text="from 1s to 168h")
TIMETOLERANCE = Bounds(low=SECOND, high=86400 * SECOND, text="from 1s to 24h")

TRAFFIC_CLASS = Bounds(low=0, high=255, text="from 0 to 255")
DELAY_LIMIT = Bounds(low=0, high=60 * SECOND, text="from 0 to 60s")
LOSS_LIMIT = Bounds(low=0, high=255, text="from 0% to 100%")

PREFERENCE = Bounds(low=0, high=127, text="from 0 to 127")
COST = Bounds(low=0, high=10**6, text="from 0 to 1000000")
QUOTA = Bounds(low=0, high=2**60, text="at most 1048576T")
"""Bytes."""
QUOTA_DAY = Bounds(low=1, high=31, text="from 1 to 31")
REORDER = Bounds(low=SECOND // 1000, high=SECOND, text="from 1ms to 1s")
FIREWALL_MARK = Bounds(low=0, high=2**32 - 1, text="from 0 to 0xffffffff")

LOWEST_RATE = 8000
"""bytes/s; the control messages alone take 4400."""
HIGHEST_RATE = 10**12


def check_rate(rate: int) -> int:
    """A ceiling in bytes/s, 0 for none. Raises ValueError, in words for the user."""
    if rate != 0 and not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"is {rate} bytes/s, and must be 0 (no ceiling) or from 64kbit to 8000gbit"
        )
    return rate


def is_device_name(name: str) -> bool:
    """Whether the kernel takes it for a device (dev_valid_name, net/core/dev.c) and we print it."""
    return (
        0 < len(name.encode(errors="replace")) <= MAX_DEVICE_NAME
        and name not in (".", "..")
        and name.isprintable()
        and not any(char in "/:" or char.isspace() for char in name)
    )


_RATE_UNITS = {"kbit": 125, "mbit": 125_000, "gbit": 125_000_000}
_RATE_SPELLINGS = {"": 1, **_RATE_UNITS, **{f"{unit}/s": n for unit, n in _RATE_UNITS.items()}}

_TIME_UNITS = {
    "d": 86400 * SECOND,
    "h": 3600 * SECOND,
    "min": 60 * SECOND,
    "s": SECOND,
    "ms": SECOND // 1000,
    "us": 1,
}
"""The largest first."""
_TIME_SPELLINGS = {
    **_TIME_UNITS,
    **dict.fromkeys(("usec", "µs", "μs"), _TIME_UNITS["us"]),
    "msec": _TIME_UNITS["ms"],
    **dict.fromkeys(("", "sec", "second", "seconds"), _TIME_UNITS["s"]),
    **dict.fromkeys(("m", "minute", "minutes"), _TIME_UNITS["min"]),
    **dict.fromkeys(("hr", "hour", "hours"), _TIME_UNITS["h"]),
    **dict.fromkeys(("day", "days"), _TIME_UNITS["d"]),
    **dict.fromkeys(("w", "week", "weeks"), 7 * _TIME_UNITS["d"]),
}
"""As systemd.time(7) has them; 0.3.4 knows `m`."""
_TIME_PART = re.compile(r"[0-9.]+\s*[a-zµμ]+\s*")

_SIZE_UNITS = {
    unit: base**power
    for power, letter in enumerate("kmgt", 1)
    for unit, base in ((f"{letter}b", 1000), (letter, 1024), (f"{letter}ib", 1024))
}
_SIZE_SPELLINGS = {"": 1, "b": 1, **_SIZE_UNITS}
"""The bare letters count as they do in systemd's files (systemd.resource-control(5))."""

_NUMBER = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?\s*([a-zµμ/%]*)")
_MARK = re.compile(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,10}")
_LONGEST = 100
"""Characters of a number with its units."""

_TRAFFIC_CLASSES = {
    **{f"CS{n}": n << 5 for n in range(8)},  # RFC 2474 4.2.2
    **{f"AF{n}{p}": n << 5 | p << 3 for n in range(1, 5) for p in range(1, 4)},  # RFC 2597 6
    "EF": 46 << 2,  # RFC 3246 2.7
}

_DIGITS_AND_DOTS = re.compile(r"[0-9.]+", re.ASCII)
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
"""As DNS allows (RFC 1123 2.1), and the underscore that some have."""
_BROADCAST = IPv4Address("255.255.255.255")
_GLOB = re.compile(r"[^\s/:]+")


def parse_rate(text: str) -> int:
    """bytes/s; 0 = no ceiling."""
    rate = _scaled(text, _RATE_SPELLINGS)
    if rate is None:
        raise ValueError("is no rate: bytes/s, or a number with kbit, mbit or gbit as in 20mbit")
    return check_rate(rate)


def write_rate(rate: int) -> str:
    """What `parse_rate` takes for this rate."""
    return _exact(rate, _RATE_UNITS)


def time_within(bounds: Bounds) -> Callable[[str], int]:
    """A parser of times, which returns µs."""

    def parse(text: str) -> int:
        time = _parse_time(text.strip().lower())
        if time is None:
            raise ValueError("is no time: seconds, or as in 200ms, 10min, 1h 30min")
        return bounds.check(time)

    return parse


def write_time(time: int) -> str:
    """The time, µs, as systemd writes it: `1h 30min`."""
    parts = []
    for unit, size in _TIME_UNITS.items():
        number, time = divmod(time, size)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts) or "0"


def parse_share(text: str) -> int:
    """A percentage as a share of 255, the way the protocol has it (PROTOCOL 2, `loss_limit`)."""
    share = _scaled(text, {"": 255, "%": 255}, divisor=100)
    if share is None:
        raise ValueError("is no percentage: a number from 0 to 100 as in 30%")
    return LOSS_LIMIT.check(share)


def write_share(share: int) -> str:
    """The percentage that `parse_share` takes for this share of 255."""
    return f"{percentage(share):g}%"


def parse_size(text: str) -> int:
    """Bytes."""
    size = _scaled(text, _SIZE_SPELLINGS)
    if size is None:
        raise ValueError("is no size: bytes, or a number with K, M, G, T or kB, MB, GB, TB")
    return QUOTA.check(size)


def write_size(size: int) -> str:
    """What `parse_size` takes for this size."""
    return _exact(size, _SIZE_UNITS).upper()


def parse_mark(text: str) -> int:
    """A firewall mark."""
    if not _MARK.fullmatch(text):
        raise ValueError("is no mark: a number such as 42 or 0x2a")
    # Not with base 0, which takes no leading zeros.
    return FIREWALL_MARK.check(int(text, 16 if text.startswith("0x") else 10))


def number_within(bounds: Bounds) -> Callable[[str], int]:
    """A parser of whole numbers."""

    def parse(text: str) -> int:
        if not looks_like_number(text) or len(text) > 10:
            raise ValueError(f"is no whole number {bounds.text}")
        return bounds.check(int(text))

    return parse


_REORDER_WORDS = {"off": 0, "auto": REORDER_AUTO}


def parse_reorder(text: str) -> int:
    """µs; 0 for `off`, and `REORDER_AUTO`."""
    if text in _REORDER_WORDS:
        return _REORDER_WORDS[text]
    if _parse_time(text.strip().lower()) is None:
        raise ValueError("is neither off nor auto nor a time such as 50ms")
    return time_within(REORDER)(text)


def write_reorder(reorder: int) -> str:
    """What `parse_reorder` takes for it."""
    words = {value: word for word, value in _REORDER_WORDS.items()}
    return words.get(reorder) or write_time(reorder)


def parse_port(text: str) -> int:
    """A UDP port."""
    if not looks_like_number(text) or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise ValueError("is no port: a number from 1 to 65535")
    return int(text)


def parse_address(text: str) -> str:
    """An IPv4 or IPv6 address, in its usual spelling."""
    packed = _packed(text)
    if "%" in text:
        raise ValueError("names an interface, which has no place here")
    return format_address(packed)


def parse_host(text: str) -> str:
    """An address, or a name that is resolved later."""
    if is_numeric(text):
        _packed(text)
        _, percent, interface = text.partition("%")
        if percent and not is_device_name(interface):
            raise ValueError("has no name of an interface after the %")
    elif len(text) > 253 or not _HOST_NAME.fullmatch(text):
        raise ValueError("is neither an address nor a name")
    return text


def is_numeric(host: str) -> bool:
    """Whether a host can only be meant as an address, right or wrong."""
    return ":" in host or _DIGITS_AND_DOTS.fullmatch(host) is not None


def parse_peer(text: str) -> str:
    """An address of one host, or a name that is resolved later."""
    host = parse_host(text)
    if is_numeric(host):
        _check_unicast(_packed(host))
    return host


def parse_local(text: str) -> str:
    """An address of one host, or the name of an interface, or a glob that matches such names."""
    match local_kind(text):
        case LocalKind.ADDRESS:
            address = parse_address(text)
            _check_unicast(pack_address(address))
            return address
        case LocalKind.GLOB:
            if len(text) > _LONGEST or not text.isprintable() or not _GLOB.fullmatch(text):
                raise ValueError("is no glob of interfaces, such as wwan*")
        case LocalKind.INTERFACE:
            if not is_device_name(text):
                raise ValueError("is no address, and no name or glob of interfaces")
    return text


def local_kind(text: str) -> LocalKind:
    """What `Local=` can only be meant as."""
    if is_numeric(text):
        return LocalKind.ADDRESS
    return LocalKind.GLOB if any(char in "*?[" for char in text) else LocalKind.INTERFACE


def parse_traffic_class(text: str) -> int:
    """The byte of the IP header (DSCP << 2)."""
    traffic_class = _TRAFFIC_CLASSES.get(text.upper())
    if traffic_class is None:
        raise ValueError("is no traffic class: CS0 to CS7, AF11 to AF43 or EF")
    return traffic_class


def parse_redundant(text: str) -> int:
    """The traffic class of what is sent twice; `NO_CLASS` for `off`."""
    return NO_CLASS if text == "off" else parse_traffic_class(text)


def format_redundant(traffic_class: int) -> str:
    """What `parse_redundant` takes for it."""
    return "off" if traffic_class == NO_CLASS else format_traffic_class(traffic_class)


def parse_device(text: str) -> str:
    """The name of a TUN device."""
    if not is_device_name(text):
        raise ValueError(
            f"is no device name: 1 to {MAX_DEVICE_NAME} bytes without white space, / and :"
        )
    return text


def format_traffic_class(traffic_class: int) -> str:
    """Its name where it has one."""
    names = {value: name for name, value in _TRAFFIC_CLASSES.items()}
    return names.get(traffic_class, str(traffic_class))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like one that isn't; case doesn't count."""
    from difflib import get_close_matches  # needed only here

    spellings = {name.lower(): name for name in sorted(known)}
    near = get_close_matches(word[:60].lower(), spellings, n=1, cutoff=0.5)
    return spellings[near[0]] if near else None


def looks_like_number(word: str) -> bool:
    """Whether a word has digits only."""
    return word.isascii() and word.isdigit()


def quote(word: str) -> str:
    """A word for an error message: on one line, whatever it holds, and not too long or secret."""
    word = mask_keys(word)
    return repr(word if len(word) <= 60 else f"{word[:60]}...")


def _packed(text: str) -> bytes:
    try:
        return pack_address(text)
    except ValueError:
        raise ValueError("is no IPv4 or IPv6 address") from None


def _check_unicast(packed: bytes) -> None:
    address = ip_address(format_address(packed))
    if address.is_unspecified or address.is_multicast or address == _BROADCAST:
        raise ValueError("is not the address of one host")


def _parse_time(text: str) -> int | None:
    """A number that is seconds, or a sum of numbers with units; None when it is neither."""
    parts = _TIME_PART.findall(text) if len(text) <= _LONGEST else []
    if not parts or "".join(parts) != text:
        return _scaled(text, _TIME_SPELLINGS)
    times = [_scaled(part.strip(), _TIME_SPELLINGS) for part in parts]
    return None if None in times else sum(time for time in times if time is not None)


def _exact(number: int, units: dict[str, int]) -> str:
    """A number in the largest unit of which it is a multiple."""
    fits = {number // n: unit for unit, n in reversed(units.items()) if number % n == 0}
    count = min(fits, default=number) if number else 0
    return f"{count}{fits.get(count, '') if number else ''}"


def _scaled(text: str, units: dict[str, int], *, divisor: int = 1) -> int | None:
    """A number times its unit, rounded, in whole numbers only; None when it isn't one."""
    match = _NUMBER.fullmatch(text.lower())
    if match is None or match[3] not in units:
        return None
    fraction = match[2] or ""
    scale: int = divisor * 10 ** len(fraction)
    return (2 * int(match[1] + fraction) * units[match[3]] + scale) // (2 * scale)
