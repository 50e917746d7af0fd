"""What a tunnel and its paths can be told: plain values, checked by whoever reads them in."""

from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from glorytun.errors import TunnelError

SECOND = 1_000_000
"""Microseconds: the unit of every time in the core."""


class CipherChoice(StrEnum):
    """Which ciphers a tunnel may use for data."""

    AUTO = "auto"
    """AEGIS-256 if both sides can, else AES-256-GCM if both can, else ChaCha20-Poly1305."""
    AEGIS = "aegis"
    """AEGIS-256 if the peer can too, else ChaCha20-Poly1305."""
    AES = "aes"
    """AES-256-GCM if the peer can too, else ChaCha20-Poly1305."""
    CHACHA = "chacha"
    """ChaCha20-Poly1305 only."""


class PathState(IntEnum):
    """What the user wants of a path; the numbers are the wire's (PROTOCOL 2, `state`)."""

    DOWN = 1
    BACKUP = 2
    UP = 3


class PathMode(StrEnum):
    """What a path is for."""

    BULK = "bulk"
    REDUNDANT = "redundant"
    """It carries copies of what goes over others."""


REORDER_AUTO = -1
"""Of `Settings.reorder`: only where it helps, see `resequence`."""
NO_CLASS = 255
"""No traffic class: of one the last two bits, which are ECN's, are 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of a tunnel as a whole; times in µs."""

    client: bool
    """Whether we know the peer's address and make the paths."""
    cipher: CipherChoice = CipherChoice.AUTO
    kxtimeout: int = 3600 * SECOND
    """Age at which a key pair is replaced."""
    timetolerance: int = 600 * SECOND
    """How far the peer's clock may be from ours."""
    keepalive: int = 25 * SECOND
    """Interval between a client's control messages on an idle path."""
    redundant: int = NO_CLASS
    """The traffic class (DSCP << 2) of packets that are sent on two paths."""
    reorder: int = REORDER_AUTO
    """µs that a received packet may be held back to come in order; 0: none is, `REORDER_AUTO`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChange:
    """What ``glorytun set`` changes; None leaves a value as it is."""

    kxtimeout: int | None = None
    timetolerance: int | None = None
    keepalive: int | None = None
    traffic_class: int | None = None
    """The byte of the IP header (DSCP << 2), for the sockets; the core doesn't use it."""
    redundant: int | None = None
    reorder: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSettings:
    """Of one path."""

    state: PathState = PathState.UP
    rate_tx: int = 0
    """bytes/s we send at the most; 0 = not limited by the user."""
    rate_rx: int = 0
    """bytes/s we ask the peer to send at the most; 0 = not limited by the user."""
    fixed_rate: bool = False
    """True: send at `rate_tx`. False: find the rate, with `rate_tx` as a ceiling."""
    beat: int = SECOND // 10
    """µs between a client's control messages."""
    loss_limit: int = 255
    """Share of lost datagrams, of 255, above which the path is not used; 255 = no limit."""
    delay_limit: int = 0
    """µs of a round trip above which the path is not used; 0 = no limit."""
    mode: PathMode = PathMode.BULK
    cost: int = 0
    """A path is used as far as those that cost less don't suffice."""
    preference: int = 0
    """Of backups those with the lowest are used first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChange:
    """What ``glorytun path`` changes; None leaves a value as it is."""

    state: PathState | None = None
    rate_tx: int | None = None
    rate_rx: int | None = None
    fixed_rate: bool | None = None
    beat: int | None = None
    loss_limit: int | None = None
    delay_limit: int | None = None
    mode: PathMode | None = None
    cost: int | None = None
    preference: int | None = None


def with_change(settings: PathSettings, change: PathChange) -> PathSettings:
    """The settings with a change. Raises TunnelError when that leaves nothing to go by."""
    values = {
        name: value for name in PathChange.__slots__ if (value := getattr(change, name)) is not None
    }
    found = replace(settings, **values)
    if found.fixed_rate and not found.rate_tx:
        raise TunnelError(
            "a path whose rate is fixed needs a rate to send at",
            hint="`rate fixed tx RATE` gives it, `rate auto` finds it",
        )
    return found


def refuse_wishes(change: PathChange) -> None:
    """Raise TunnelError at what a server can't be told of a path, since its client decides."""
    for name in PathChange.__slots__:
        if name not in ("rate_tx", "fixed_rate") and getattr(change, name) is not None:
            raise TunnelError(
                f"a server follows its client: {name} can't be set here",
                hint="set it on the client",
            )
