"""What the wizard passes from part to part: the host's facts, the plan, the files. Values only.

Facts ─┐
       ├─ answers.py ─▶ Plan ─ validate.py ─▶ Plan ─ render.py ─▶ {path: File} ─▶ apply.py
answers┘
"""

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
"""An address with the length of its network's prefix."""
Network = IPv4Network | IPv6Network


class Role(StrEnum):
    """Which end of the tunnel this host is."""

    CLIENT = "client"
    SERVER = "server"


class Through(StrEnum):
    """What of this host's traffic goes through the tunnel."""

    EVERYTHING = "everything"
    NETWORKS = "networks"
    """Chosen ones, `Plan.networks`."""
    NOTHING = "nothing"
    """But what is sent to the other end itself."""


class WanState(StrEnum):
    """What a WAN is used for."""

    UP = "up"
    BACKUP = "backup"


class Manager(StrEnum):
    """Who configures an interface."""

    NETWORKD = "networkd"
    NETPLAN = "netplan"
    """By networkd, from files that netplan writes."""
    NETWORK_MANAGER = "NetworkManager"
    IFUPDOWN = "ifupdown"
    NOBODY = "nobody"


class Source(StrEnum):
    """Where an interface has its gateway from."""

    STATIC = "static"
    DHCP = "dhcp"
    RA = "ra"
    """IPv6 router advertisements, with DHCPv6 or without."""


# The host.


_STRICT = 1
"""Of net.ipv4.conf.*.rp_filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """An interface's way to the Internet, of one family."""

    source: Source
    address: Address | None
    """None: it isn't known now, as the lease or the advertisement will name it."""
    metric: int = 0
    """Of the default route; the lowest is the one in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface of the host as it is now."""

    name: str
    manager: Manager
    network_file: str | None
    """Absolute path of the .network file that networkd configures it by."""
    addresses: tuple[Interface, ...] = ()
    """Of global scope (not link-local), the preferred ones of a family first."""
    gateway4: Gateway | None = None
    gateway6: Gateway | None = None
    rp_filter: int = 0
    """net.ipv4.conf.NAME.rp_filter: 0 off, 1 strict, 2 loose."""
    accept_ra: int = 0
    """net.ipv6.conf.NAME.accept_ra: 1 ends with forwarding, 2 doesn't. networkd leaves it 0."""
    is_physical: bool = True
    """Whether it may be a WAN: not loopback, no TUN, bridge, container's veth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """What a client's tunnel takes of this host's traffic."""

    name: str
    """The tunnel's."""
    priority: int
    """The first of its rules: of two tunnels the one with the lower number is asked first."""
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The host as it is now: all that defaults, checks and rendering need to know of it."""

    is_root: bool
    systemd_version: int
    """252 on Debian 12, 257 on Debian 13; 0: systemd doesn't run here."""
    has_bus: bool
    """Whether the system bus answers."""
    has_networkd: bool
    """Whether it is installed."""
    networkd_active: bool
    networkd_enabled: bool
    links: tuple[Link, ...]
    """All but loopback."""
    routes: tuple[Network, ...]
    """Destinations in all tables but `local`, without default routes."""
    tables: frozenset[int]
    """Routing tables that have routes, rules or a name."""
    rule_priorities: frozenset[int]
    udp_ports: frozenset[int]
    """Bound by somebody."""
    tunnels: tuple[str, ...]
    """Names with an /etc/glorytun/NAME.conf."""
    nameservers: tuple[Address, ...]
    """That resolved asks for all interfaces (DNS= in resolved.conf), and so by the routing table.
    Those of an interface are asked through that one."""
    has_nft: bool
    """Whether /usr/sbin/nft is there."""
    qdiscs: frozenset[str]
    """Queue disciplines that the kernel has or can load."""
    default_qdisc: str
    """net.core.default_qdisc: what a new device gets."""
    rp_filter_all: int
    """net.ipv4.conf.all.rp_filter: the higher of this and the interface's counts."""
    rp_filter_default: int
    """net.ipv4.conf.default.rp_filter: what a new device gets."""
    program: str
    """Absolute path of the `glorytun` that belongs to this `glorytun-setup`."""
    is_packaged: bool
    """Whether glorytun@.service and the user came with a package."""
    networkd_masked: bool = False
    """Whether somebody forbade to start it."""
    foreign_unit: str = ""
    """A glorytun@.service, such as the original's, that counts before the package's."""
    dropping: tuple[str, ...] = ()
    """Chains of nftables that drop what is forwarded unless a rule lets it: `ip filter FORWARD`."""
    routings: tuple[Routing, ...] = ()
    """Of the other tunnels that this wizard set up."""
    leftovers: tuple[tuple[str, str], ...] = ()
    """Interfaces, with files, that networkd would configure once it is started."""
    forwards: frozenset[int] = frozenset()
    """IP versions that this host forwards."""
    kept: tuple[Interface, ...] = ()
    """Addresses that the tunnel has already, of which it is."""

    def link(self, name: str) -> Link | None:
        """The interface of this name."""
        return next((link for link in self.links if link.name == name), None)

    def is_strict(self, rp_filter: int) -> bool:
        """Whether an interface with its own `rp_filter` drops what is to be sent by another.

        The higher of both counts (ip-sysctl.rst), so that 2 on the interface is enough.
        """
        return max(self.rp_filter_all, rp_filter) == _STRICT


# The plan.


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """The tunnel's addresses of one family."""

    own: Interface
    """This end's."""
    peer: Address
    """The other end's, in the same network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wan:
    """A link to the Internet that a client's paths leave by."""

    interface: str
    state: WanState = WanState.UP
    rate_tx: int = 0
    """bytes/s at the most, toward the peer; 0: found out."""
    rate_rx: int = 0
    table: int
    """A routing table of its own, whose only route leads to its gateway."""
    gateway4: Gateway | None = None
    """None: it has no IPv4."""
    gateway6: Gateway | None = None
    sources: tuple[Network, ...] = ()
    """The networks of its addresses today: what is sent from there leaves here."""
    network_file: str
    """The .network file that configures it today, which gets a drop-in; empty: none does, and none
    is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is to be, on one host, for one tunnel."""

    name: str
    """Of the tunnel, its device and its files."""
    role: Role
    server_host: str
    """A client's server; on a server what its clients are told, which may be empty."""
    port: int
    """The server's UDP port."""
    local_port: int
    """The UDP port on this host; on a server it is `port`."""
    key: bytes = field(repr=False)
    """The secret."""
    inside4: Inside | None
    inside6: Inside | None
    wans: tuple[Wan, ...] = ()
    """A client's."""
    through: Through = Through.NOTHING
    networks: tuple[Network, ...] = ()
    """Through.NETWORKS: these; on a server, what lies behind its client."""
    share4: bool = False
    """Server: whether clients reach the IPv4 Internet by it (forwarded, masqueraded)."""
    share6: bool = False
    """And the IPv6 Internet."""
    table: int = 0
    """The routing table of what goes through; 0: none."""
    rule_priority: int = 0
    """The first of the `RULES` priorities that the rules take (docs/routing.md); 0: none."""
    outside: tuple[Address, ...] = ()
    """Name servers that are asked outside the tunnel, since it may need them to begin."""
    answering: tuple[Network, ...] = ()
    """Networks of interfaces that lead nowhere else: who asks this host's address there through the
    tunnel is answered through the tunnel."""
    loosened: tuple[str, ...] = ()
    """Interfaces whose reverse-path filter would drop what comes by another way: made loose."""
    masquerades: tuple[Network, ...] = ()
    """Client: local networks whose packets enter the tunnel with this host's address."""
    keeps_ra: tuple[str, ...] = ()
    """Interfaces on which the kernel would ignore router advertisements once it forwards."""
    qdisc: str = ""
    """Of the TUN; empty: the one that it has."""
    expires_at: int = 0
    """Server: when the tunnel goes again unless its client comes, seconds since 1970; 0: never."""
    systemd_version: int
    starts_networkd: bool = False
    """Whether networkd didn't run before the wizard's tunnels, which is then to spare what others
    set up."""
    program: str = ""
    """Of an installation without a package, which needs the units too; empty: packaged."""
    answers: tuple[tuple[str, str], ...] = ()
    """What was answered, by TOML key, without the key: `edit` begins with it."""

    @property
    def insides(self) -> tuple[Inside, ...]:
        """Of the families that the tunnel carries."""
        return tuple(inside for inside in (self.inside4, self.inside6) if inside)

    @property
    def routes_wans(self) -> bool:
        """Whether its WANs need routes and rules of their own; one alone has the default route."""
        return len(self.wans) > 1

    @property
    def shares(self) -> bool:
        """Whether this server shares its Internet."""
        return self.share4 or self.share6

    @property
    def has_nft(self) -> bool:
        """Whether it has rules of nftables."""
        return self.shares or bool(self.masquerades)

    @property
    def unit(self) -> str:
        """The service that runs it."""
        return f"glorytun@{self.name}.service"


RULES = 10
"""Priorities that each tunnel's rules take, from `Plan.rule_priority` on."""


# The files.


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file to be written."""

    path: str
    """Absolute; written below a root directory."""
    text: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    secret: bool = False
    """Whether its text must never be shown."""
    shared: bool = False
    """Whether it is not this tunnel's alone, and stays as long as any other needs it."""

    def __repr__(self) -> str:
        size = len(self.text)
        return f"File({self.path!r}, {size} characters, {self.mode:04o} {self.owner}:{self.group})"
