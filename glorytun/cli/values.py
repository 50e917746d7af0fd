"""Values as users write and read them: rates, times, shares, addresses, names.

A `parse_*` function raises ValueError whose message goes on after the word it was given:
"tx '1mbitt' is no rate: …".
"""

import re
from collections.abc import Callable

from glorytun.config import LOSS_LIMIT, MAX_DEVICE_NAME, Bounds, check_rate, is_device_name
from glorytun.core.address import format_address, pack_address
from glorytun.core.settings import SECOND
from glorytun.keyfile import mask_keys

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


def parse_file(text: str) -> str:
    """The path of a file."""
    if not text:
        raise ValueError("is no file name")
    return text


def looks_like_address(word: str) -> bool:
    """Whether a word can only be meant as an address, right or wrong."""
    return "/" not in word and ("." in word or ":" in word)


def looks_like_number(word: str) -> bool:
    """Whether a word has digits only."""
    return word.isascii() and word.isdigit()


def quote(word: str) -> str:
    """A word for an error message: on one line, whatever it holds, and not too long or secret."""
    word = mask_keys(word)
    return repr(word if len(word) <= 60 else f"{word[:60]}...")


def format_rate(rate: int) -> str:
    """bytes/s in bit/s; 0 is no limit."""
    return f"{_prefixed(rate * 8)}bit/s" if rate else "unlimited"


def format_size(size: int) -> str:
    """Bytes."""
    return f"{_prefixed(size)}B"


def format_share(share: float) -> str:
    """A share from 0 to 1."""
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def format_time(seconds: float) -> str:
    """How long something takes or lies back, two units at the most."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds_left = divmod(round(seconds), 60)
    if minutes < 60:
        return _two(minutes, "min", seconds_left, "s")
    hours, minutes_left = divmod(minutes, 60)
    if hours < 48:
        return _two(hours, "h", minutes_left, "min")
    return _two(hours // 24, "days", hours % 24, "h")


def format_traffic_class(traffic_class: int) -> str:
    """Its name where it has one."""
    names = {value: name for name, value in _TRAFFIC_CLASSES.items()}
    return names.get(traffic_class, str(traffic_class))


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


def _prefixed(number: int) -> str:
    """Three digits and an SI prefix, ready for the unit to follow."""
    if number < 1000:
        return f"{number} "
    value = number / 1000
    prefixes = iter("kMGTPE")
    prefix = next(prefixes)
    while value >= 999.5:
        value /= 1000
        prefix = next(prefixes)
    return f"{value:.3g} {prefix}"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit}" + (f" {small} {small_unit}" if small else "")
