"""What a tunnel says of itself when asked: frozen snapshots."""

from dataclasses import dataclass
from enum import StrEnum

from glorytun.core.address import Endpoint
from glorytun.core.settings import PathSettings


class Condition(StrEnum):
    """How a path is doing. The transitions are in `path.py`."""

    DOWN = "down"
    """Set down by the user, or by the peer."""
    PROBING = "probing"
    """Its MTU isn't known yet."""
    DEGRADED = "degraded"
    """The peer doesn't answer on it."""
    LOSSY = "lossy"
    """It loses more than `loss_limit`."""
    LATE = "late"
    """Its round trips take longer than `delay_limit`."""
    WAITING = "waiting"
    """It works, but is a backup and another path is running, or would hold the others up."""
    RUNNING = "running"
    """Data is sent on it."""


class Limit(StrEnum):
    """What keeps us from sending more on a path."""

    APPLICATION = "application"
    """There is no more to send."""
    RATE = "rate"
    """The rate that the user or the peer gave."""
    QUEUE = "queue"
    """The link is full: more would queue up on the way."""
    ORDER = "order"
    """What waits would arrive behind what overtakes it on a path that takes less time."""
    LOSS = "loss"
    """It loses too much to be used, or others that lose less carry all there is."""
    DELAY = "delay"
    """Its round trips take too long to be used."""


class BadKind(StrEnum):
    """Why a received datagram was dropped."""

    DECRYPT = "decrypt"
    """Doesn't open: noise, altered on the way, or sealed with another secret key."""
    DIFFTIME = "difftime"
    """Authentic, but its time is further from our clock than `timetolerance`."""
    REPLAY = "replay"
    """Authentic, but seen before, or too old to tell."""
    KEYX = "keyx"
    """An authentic control message with a public key that can't be used."""
    SIZE = "size"
    """Too short or too long to be one of ours."""
    PATH = "path"
    """Authentic, but on no path, and none may be made: not by a server, or too many are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadStatus:
    """Datagrams of one kind that were dropped."""

    kind: BadKind
    count: int
    last: Endpoint | None
    """Where the last one came from."""
    last_at: int
    """When, µs since the epoch; 0 = never."""
    clock_offset: int = 0
    """difftime: the peer's clock minus ours, µs, in the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionStatus:
    """One direction of a path; `tx` is toward the peer."""

    rate: int
    """bytes/s: `tx` what we may send now, `rx` what we asked for (0 = no limit)."""
    loss: int
    """Share of lost datagrams, of 255."""
    bytes: int
    total: int
    """Datagrams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStatus:
    """One path."""

    settings: PathSettings
    condition: Condition
    reason: str
    """Why it isn't running, in words; empty when it is."""
    local: bytes
    """16 bytes; IPv4 is mapped."""
    remote: Endpoint
    public: Endpoint | None
    """Our own address as the peer sees it."""
    mtu: int
    """Size of an inner packet that fits, bytes; 0 = not known yet."""
    rtt: int
    """µs; 0 = not measured yet."""
    rttvar: int
    tx: DirectionStatus
    rx: DirectionStatus
    last_received_at: int
    """µs since the epoch; 0 = never."""
    limit: Limit = Limit.APPLICATION
    queue: int = 0
    """µs that what we send waits on the way."""


class Held(StrEnum):
    """Which received packets are held back, so that they come in order."""

    NONE = "none"
    TCP = "tcp"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelStatus:
    """The tunnel as a whole."""

    client: bool
    cipher: str
    """aegis256, aes256gcm, chacha20poly1305, or none before the first key exchange."""
    mtu: int
    """Of the TUN device; 0 = not known yet."""
    peer_software: str
    """Name and version the peer announced; empty for glorytun 0.3.4."""
    keys_exchanged_at: int
    """µs since the epoch; 0 = not yet."""
    sent_bytes: int
    """Inner packets."""
    sent_total: int
    received_bytes: int
    received_total: int
    held: Held
    copies_total: int
    """Datagrams of which another copy had come before."""
    unsent_total: int
    """Inner packets that were dropped because they fit no path."""
