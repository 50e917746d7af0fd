"""What happened, in the past tense. `Tunnel.next_events` hands these out; the daemon logs them."""

from dataclasses import dataclass

from glorytun.core.address import Endpoint, PathId
from glorytun.core.settings import PathState
from glorytun.core.status import BadKind, Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class PathAdded:
    """A path was made: by the user, or by the first authentic message from a new address."""

    path: PathId


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRemoved:
    """A path was forgotten."""

    path: PathId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChanged:
    """A path's condition changed."""

    path: PathId
    old: Condition
    new: Condition
    reason: str
    """Why it isn't running; empty when it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStateSet:
    """The peer asked for another state of a path."""

    path: PathId
    state: PathState


@dataclass(frozen=True, slots=True, kw_only=True)
class PathMtuFound:
    """MTU discovery settled."""

    path: PathId
    mtu: int
    """Size of an inner packet that fits, bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelMtuChanged:
    """The TUN device should have this MTU, bytes."""

    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysExchanged:
    """Data is now sealed under a new session key."""

    cipher: str
    first: bool
    """True for the first exchange with this peer process, False for a rotation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStopped:
    """The peer said that it stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramsDropped:
    """Datagrams of one kind were dropped. Sent at most once a minute for each kind."""

    kind: BadKind
    source: Endpoint
    count: int
    """Since the last event of this kind."""
    clock_offset: int = 0
    """difftime: the peer's clock minus ours, µs."""


Event = (
    PathAdded
    | PathRemoved
    | PathChanged
    | PathStateSet
    | PathMtuFound
    | TunnelMtuChanged
    | KeysExchanged
    | PeerStopped
    | DatagramsDropped
)
