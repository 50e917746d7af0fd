"""Every option of a configuration file, declared once: docs/config.md lists them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from glorytun.config import (
    BEAT,
    COST,
    DELAY_LIMIT,
    KEEPALIVE,
    KXTIMEOUT,
    PREFERENCE,
    QUOTA_DAY,
    TIMETOLERANCE,
    format_redundant,
    format_traffic_class,
    number_within,
    parse_address,
    parse_local,
    parse_mark,
    parse_peer,
    parse_port,
    parse_rate,
    parse_redundant,
    parse_reorder,
    parse_share,
    parse_size,
    parse_traffic_class,
    time_within,
    write_rate,
    write_reorder,
    write_share,
    write_size,
    write_time,
)
from glorytun.core.settings import SECOND, CipherChoice, PathMode, PathState


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One `Key=Value`."""

    key: str
    name: str
    """In TunnelConfig, PathConfig or PathSettings, in JSON and at the control socket."""
    parse: Callable[[str], Any]
    """Raises ValueError with a message that goes on after the value: "is no port"."""
    write: Callable[[Any], str] = str
    """The text from which `parse` makes the value again."""
    scale: int = 1
    """JSON has this part of the value."""
    as_text: bool = False
    """Whether JSON has it as it would be written."""
    default: str = ""
    """As it would be written."""
    unset: object = None
    """The value without any, where the default is empty."""
    idle: bool = False
    """Whether it is read, and nothing acts on it yet."""
    help: str

    @property
    def initial(self) -> Any:
        """The default value."""
        return self.parse(self.default) if self.default else self.unset

    def text(self, value: Any) -> str:
        """The value as it would be written; empty for none."""
        return "" if value == self.unset else self.write(value)

    def json(self, value: Any) -> object:
        """The value as JSON has it (docs/json.md)."""
        if self.as_text or isinstance(value, Enum):
            return self.write(value)
        return value / self.scale if self.scale > 1 else value


def _one_of(choices: dict[str, Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return choices[text]

    return parse


def _parse_key_file(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("is no path that begins with /")
    return text


def _lower_name(value: Enum) -> str:
    return value.name.lower()


_TUNNEL = (
    Option(
        key="Bind",
        name="bind",
        parse=parse_address,
        default="::",
        help="The local address to listen on. `::` is all of IPv4 and IPv6, `0.0.0.0` all of IPv4.",
    ),
    Option(
        key="Port",
        name="port",
        parse=parse_port,
        default="5000",
        help="The local UDP port.",
    ),
    Option(
        key="Peer",
        name="peer",
        parse=parse_peer,
        help="The server, a name or an address. Without it this is the server.",
    ),
    Option(
        key="PeerPort",
        name="peer_port",
        parse=parse_port,
        default="5000",
        help="The server's UDP port.",
    ),
    Option(
        key="KeyFile",
        name="keyfile",
        parse=_parse_key_file,
        help="The file with the secret key, which only its owner may read: for the service its "
        "user `glorytun`. Without it: the service's credential `key`, that is root's "
        "`/etc/glorytun/NAME.key`.",
    ),
    Option(
        key="Cipher",
        name="cipher",
        parse=_one_of({choice.value: choice for choice in CipherChoice}),
        default="auto",
        help="How data is encrypted: `aegis` (AEGIS-256) or `aes` (AES-256-GCM) if the peer can "
        "too, `chacha` (ChaCha20-Poly1305), or `auto`, the fastest that both can.",
    ),
    Option(
        key="KeyRotation",
        name="kxtimeout",
        parse=time_within(KXTIMEOUT),
        write=write_time,
        scale=SECOND,
        default="1h",
        help=f"The age at which a session key is replaced, {KXTIMEOUT.text}.",
    ),
    Option(
        key="TimeTolerance",
        name="timetolerance",
        parse=time_within(TIMETOLERANCE),
        write=write_time,
        scale=SECOND,
        default="10min",
        help=f"How far the peer's clock may be from ours, {TIMETOLERANCE.text}.",
    ),
    Option(
        key="KeepAlive",
        name="keepalive",
        parse=time_within(KEEPALIVE),
        write=write_time,
        scale=SECOND,
        default="25s",
        help="The interval between a client's control messages while no data flows, "
        f"{KEEPALIVE.text}.",
    ),
    Option(
        key="TrafficClass",
        name="traffic_class",
        parse=parse_traffic_class,
        write=format_traffic_class,
        default="CS6",
        help="The traffic class of the tunnel's datagrams: `CS0` to `CS7`, `AF11` to `AF43`, `EF`.",
    ),
    Option(
        key="Redundant",
        name="redundant",
        parse=parse_redundant,
        write=format_redundant,
        as_text=True,
        default="off",
        help="The traffic class of packets inside that are sent on the two best paths at once, as "
        "`EF` for calls; by the server too, unless its file names another one. `off`: none.",
    ),
    Option(
        key="FirewallMark",
        name="firewall_mark",
        parse=parse_mark,
        write=hex,
        unset=0,
        help="The mark of the tunnel's datagrams, for policy rules and firewalls; "
        "a number such as `42` or `0x2a`.",
    ),
    Option(
        key="Reorder",
        name="reorder",
        parse=parse_reorder,
        write=write_reorder,
        as_text=True,
        default="auto",
        help="How long packets that are received may be held back at the most, so that they come "
        "in the order in which the peer sent them: `off`, or a time from 1ms to 1s. All then take "
        "as long as on the slowest path. With `auto` that is done only for TCP without a traffic "
        "class, from a glorytun 0.3.4, which sends each packet over any path, and while their "
        "delays differ by 5 to 100 ms.",
    ),
)

_PATH = (
    Option(
        key="Local",
        name="local",
        parse=parse_local,
        help="From where: an interface (`wan0`), a glob of interfaces (`wwan*`), or an address "
        "of this host. Always needed.",
    ),
    Option(
        key="Peer",
        name="peer",
        parse=parse_peer,
        help="Another name or address of the server for this path. Without it that of [Tunnel].",
    ),
    Option(
        key="State",
        name="state",
        parse=_one_of({"up": PathState.UP, "backup": PathState.BACKUP, "down": PathState.DOWN}),
        write=_lower_name,
        default="up",
        help="`up`: use it. `backup`: use it only while no path works that is up. "
        "`down`: don't use it.",
    ),
    Option(
        key="Rate",
        name="fixed_rate",
        parse=_one_of({"auto": False, "fixed": True}),
        write=lambda fixed: "fixed" if fixed else "auto",
        default="auto",
        help="`auto`: find out how fast the link is, up to `RateTx=`. "
        "`fixed`: send at `RateTx=`, which then is needed.",
    ),
    Option(
        key="RateTx",
        name="rate_tx",
        parse=parse_rate,
        write=write_rate,
        unset=0,
        help="What to send at the most, toward the peer: bytes per second, or with `kbit`, `mbit` "
        "or `gbit` as in `20mbit`. Without it there is no limit.",
    ),
    Option(
        key="RateRx",
        name="rate_rx",
        parse=parse_rate,
        write=write_rate,
        unset=0,
        help="What the peer is asked to send at the most.",
    ),
    Option(
        key="Beat",
        name="beat",
        parse=time_within(BEAT),
        write=write_time,
        scale=SECOND,
        default="100ms",
        help="The interval between control messages while data flows, "
        f"{BEAT.text}. A path is left alone after five without an answer.",
    ),
    Option(
        key="LossLimit",
        name="loss_limit",
        parse=parse_share,
        write=write_share,
        scale=255,
        default="20%",
        help="The loss above which the path is not used; `100%` is no limit.",
    ),
    Option(
        key="DelayLimit",
        name="delay_limit",
        parse=time_within(DELAY_LIMIT),
        write=write_time,
        scale=SECOND,
        unset=0,
        help="The round trip above which the path is not used, as in `150ms`. Without it there is "
        "no limit.",
    ),
    Option(
        key="Preference",
        name="preference",
        parse=number_within(PREFERENCE),
        default="0",
        help=f"Of several backups those with the lowest number are used first, {PREFERENCE.text}.",
    ),
    Option(
        key="Mode",
        name="mode",
        parse=_one_of({mode.value: mode for mode in PathMode}),
        default="bulk",
        help="`bulk`: packets of its own. `redundant`: a copy of each packet that goes over "
        "another path, as far as there is room; its own where no other path works.",
    ),
    Option(
        key="Cost",
        name="cost",
        parse=number_within(COST),
        default="0",
        help=f"What data costs here in comparison with other paths, {COST.text}: the path is used "
        "as far as those that cost less don't suffice.",
    ),
    Option(
        key="Quota",
        name="quota",
        parse=parse_size,
        write=write_size,
        unset=0,
        help="How much data may pass there in a month, both ways together: bytes, or with `K`, "
        "`M`, `G`, `T` (powers of 1024) or `kB`, `MB`, `GB`, `TB` (powers of 1000). Then the path "
        "counts as down. Without it there is no limit.",
    ),
    Option(
        key="QuotaDay",
        name="quota_day",
        parse=number_within(QUOTA_DAY),
        default="1",
        help=f"The day of the month on which the quota begins anew, {QUOTA_DAY.text}.",
    ),
)

SECTIONS = {"Tunnel": _TUNNEL, "Path": _PATH}
"""Their options, in the order of the documentation."""
