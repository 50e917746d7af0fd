"""What a user may set, and within which bounds; all checks of a value's range are in here."""

from dataclasses import dataclass

from glorytun.core.settings import SECOND, CipherChoice

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
