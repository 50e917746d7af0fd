"""What a user may set, how it is written, and within which bounds.

A `parse_*` function raises ValueError whose message goes on after the word it was given:
"tx '1mbitt' is no rate: …".
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from glorytun.core.address import format_address, pack_address
from glorytun.core.settings import SECOND, CipherChoice
from glorytun.keyfile import looks_like_key

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
LOSS_LIMIT = Bounds(low=0, high=255, text="from 0% to 100%")

LOWEST_RATE = 1000
"""bytes/s; the control messages alone take 4400."""
HIGHEST_RATE = 10**12


def check_rate(rate: int) -> int:
    """A ceiling in bytes/s, 0 for none. Raises ValueError, in words for the user."""
    if rate != 0 and not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"is {rate} bytes/s, and must be 0 (no ceiling) or from 8kbit to 8000gbit")
    return rate


def is_device_name(name: str) -> bool:
    """Whether the kernel takes it for a device (dev_valid_name, net/core/dev.c) and we print it."""
    return (
        0 < len(name.encode(errors="replace")) <= MAX_DEVICE_NAME
        and name not in (".", "..")
        and name.isprintable()
        and not any(char in "/:" or char.isspace() for char in name)
    )


_RATE_UNITS = {"": 1, "kbit": 125, "mbit": 125_000, "gbit": 125_000_000}
_TIME_UNITS = {"": SECOND, "s": SECOND, "ms": 1000, "m": 60 * SECOND, "h": 3600 * SECOND}
_NUMBER = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?([a-z%]*)", re.ASCII)

_TRAFFIC_CLASSES = {
    **{f"CS{n}": n << 5 for n in range(8)},  # RFC 2474 4.2.2
    **{f"AF{n}{p}": n << 5 | p << 3 for n in range(1, 5) for p in range(1, 4)},  # RFC 2597 6
    "EF": 46 << 2,  # RFC 3246 2.7
}

_DIGITS_AND_DOTS = re.compile(r"[0-9.]+", re.ASCII)
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
"""As DNS allows (RFC 1123 2.1), and the underscore that some have."""


def parse_rate(text: str) -> int:
    """bytes/s; 0 = no ceiling."""
    rate = _scaled(text, _RATE_UNITS)
    if rate is None:
        raise ValueError("is no rate: bytes/s, or a number with kbit, mbit or gbit as in 20mbit")
    return check_rate(rate)


def time_within(bounds: Bounds) -> Callable[[str], int]:
    """A parser of times, which returns µs."""

    def parse(text: str) -> int:
        time = _scaled(text, _TIME_UNITS)
        if time is None:
            raise ValueError("is no time: seconds, or a number with ms, s, m or h as in 200ms")
        return bounds.check(time)

    return parse


def parse_share(text: str) -> int:
    """A percentage as a share of 255, the way the protocol has it (PROTOCOL 2, `loss_limit`)."""
    share = _scaled(text, {"": 255, "%": 255}, divisor=100)
    if share is None:
        raise ValueError("is no percentage: a number from 0 to 100 as in 30%")
    return LOSS_LIMIT.check(share)


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
    if ":" in text or _DIGITS_AND_DOTS.fullmatch(text):
        _packed(text)
    elif len(text) > 253 or not _HOST_NAME.fullmatch(text):
        raise ValueError("is neither an address nor a name")
    return text


def parse_traffic_class(text: str) -> int:
    """The byte of the IP header (DSCP << 2)."""
    traffic_class = _TRAFFIC_CLASSES.get(text.upper())
    if traffic_class is None:
        raise ValueError("is no traffic class: CS0 to CS7, AF11 to AF43 or EF")
    return traffic_class


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


def looks_like_number(word: str) -> bool:
    """Whether a word has digits only."""
    return word.isascii() and word.isdigit()


def quote(word: str) -> str:
    """A word for an error message: on one line, whatever it holds, and not too long or secret."""
    if looks_like_key(word):
        return "(a key)"
    return repr(word if len(word) <= 60 else f"{word[:60]}...")


def _packed(text: str) -> bytes:
    try:
        return pack_address(text)
    except ValueError:
        raise ValueError("is no IPv4 or IPv6 address") from None


def _scaled(text: str, units: dict[str, int], *, divisor: int = 1) -> int | None:
    """A number times its unit, rounded, in whole numbers only; None when it isn't one."""
    match = _NUMBER.fullmatch(text.lower())
    if match is None or match[3] not in units:
        return None
    fraction = match[2] or ""
    scale: int = divisor * 10 ** len(fraction)
    return (2 * int(match[1] + fraction) * units[match[3]] + scale) // (2 * scale)
