"""Every question of the wizard, declared once.

An answer is a text, whether it was typed, given as an option or in a TOML file. `Question.answer`
makes a value of it or raises ValueError, whose message goes on after the text: "'70000' is no
port: …".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from glorytun.config import DEFAULT_PORT, Bounds, number_within, parse_port, quote
from glorytun_setup import defaults
from glorytun_setup.invitation import Invitation
from glorytun_setup.model import Facts, Inside, Interface, Link, Role, Through
from glorytun_setup.validate import (
    check_behind,
    check_inside,
    check_name,
    check_networks,
    check_peer,
    check_port,
    check_priority,
    check_server,
    check_table,
    check_wan,
    is_private,
)
from glorytun_setup.words import (
    KEEP_KEY,
    NEW_KEY,
    NONE,
    WanAnswer,
    chosen_networks,
    parse_addresses,
    parse_invitation,
    parse_key_answer,
    parse_networks,
    parse_peers,
    parse_role,
    parse_server,
    parse_through,
    parse_wans,
    parse_yes,
    write_all,
    write_through,
    write_wans,
    write_yes,
)

TABLE = Bounds(low=1, high=2**31 - 1, text="from 1 to 2147483647")
PRIORITY = Bounds(low=1, high=32000, text="from 1 to 32000")
"""Before those of the tables main and default, 32766 and 32767."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a question may depend on."""

    facts: Facts
    now: int
    """Seconds since 1970."""
    fresh_key: bytes = field(repr=False)
    """Random, in case that one is to be made."""
    old_key: bytes | None = field(default=None, repr=False)
    """The one that the tunnel has already."""
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Values by the question's name, of those that came before."""

    def and_also(self, name: str, value: object) -> "Known":
        """All of this, and one answer more."""
        return replace(self, given={**self.given, name: value})

    @property
    def is_server(self) -> bool:
        """Whether this host is to be one."""
        return self.given["role"] is Role.SERVER

    @property
    def invitation(self) -> Invitation | None:
        """The one that was given."""
        return cast(Invitation | None, self.given.get("invitation"))

    @property
    def key(self) -> bytes:
        """The tunnel's."""
        given = self.given["key"]
        if given == KEEP_KEY and self.old_key:
            return self.old_key
        return self.fresh_key if given == NEW_KEY else cast(bytes, given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question."""

    name: str
    """In a TOML file."""
    prompt: str
    help: str
    parse: Callable[[str], Any]
    write: Callable[[Any], str] = str
    """The text from which `parse` makes the value."""
    check: Callable[[Any, Known], object] = lambda value, known: None
    """Raises ValueError when the value can't be used on this host."""
    default: Callable[[Known], str] = lambda known: ""
    """The text that Enter stands for; empty: there must be an answer."""
    invited: Callable[[Invitation], str] | None = None
    """What an invitation answers."""
    found: Callable[[Known], list[str]] = lambda known: []
    """What there is on this host to choose from, one on a line."""
    applies: Callable[[Known], bool] = lambda known: True
    is_asked: bool = True
    """On a terminal; else it is an option only."""
    is_secret: bool = False
    """Whether the answer is never shown, and comes from a file and not from the command line."""

    @property
    def given_as(self) -> str:
        """Its name as an option and in a TOML file, where a secret is a file's name."""
        return f"{self.name}_file" if self.is_secret else self.name

    @property
    def option(self) -> str:
        """On the command line."""
        return f"--{self.given_as.replace('_', '-')}"

    def preset(self, known: Known) -> str:
        """What the invitation answers; empty: nothing."""
        return self.invited(known.invitation) if self.invited and known.invitation else ""

    def answer(self, text: str, known: Known) -> Any:
        """The value of an answer. Raises ValueError."""
        value = self.parse(text.strip())
        self.check(value, known)
        return value

    def complaint(self, text: str, error: ValueError) -> str:
        """What is wrong with an answer, in one line, without a secret."""
        return f"this {error}" if self.is_secret else f"{quote(text.strip())} {error}"


def _check_server(host: str, known: Known) -> None:
    if known.is_server:
        return
    if not host:
        raise ValueError("names no server, and a client needs one")
    check_server(host, known.facts)


def _check_port(port: int, known: Known) -> None:
    if known.is_server:
        check_port(port, known.facts)


def _check_key(key: bytes | str, known: Known) -> None:
    if key == KEEP_KEY and known.old_key is None:
        raise ValueError("can't be kept, since there is none yet")


def _check_invitation(invitation: Invitation | None, known: Known) -> None:
    if invitation and invitation.has_expired(known.now):
        raise ValueError("is an invitation that has expired: ask for another")


def _check_wans(wans: tuple[WanAnswer, ...], known: Known) -> None:
    for wan in wans:
        try:
            check_wan(wan.interface, known.facts, is_alone=len(wans) == 1)
        except ValueError as error:
            raise ValueError(f"can't be used: {wan.interface} {error}") from None


def _check_addresses(addresses: tuple[Interface, ...], known: Known) -> None:
    for own in addresses:
        try:
            check_inside(own, known.facts)
        except ValueError as error:
            raise ValueError(f"can't be used: {own} {error}") from None


def _check_peers(peers: tuple[Any, ...], known: Known) -> None:
    owns = {own.version: own for own in known.given["addresses"]}
    if {peer.version for peer in peers} != set(owns):
        raise ValueError("doesn't name one address for each of this end's")
    for peer in peers:
        try:
            check_peer(peer, owns[peer.version])
        except ValueError as error:
            raise ValueError(f"can't be used: {peer} {error}") from None


def _default_server(known: Known) -> str:
    return defaults.public_host(known.facts) or NONE if known.is_server else ""


def _found_server(known: Known) -> list[str]:
    host = defaults.public_host(known.facts) if known.is_server else ""
    if not is_private(host):
        return []
    return [f"{host} is a private address: name the public one, where clients are elsewhere"]


def _default_port(known: Known) -> str:
    return str(defaults.free_port(known.facts) if known.is_server else DEFAULT_PORT)


def _default_key(known: Known) -> str:
    if known.old_key:
        return KEEP_KEY
    return NEW_KEY if known.is_server else ""


def _default_wans(known: Known) -> str:
    links = defaults.wan_links(known.facts)
    return write_wans(tuple(WanAnswer(interface=link.name) for link in links))


def _found_wans(known: Known) -> list[str]:
    return [_found_wan(link, known) for link in known.facts.links if link.is_physical]


def _found_wan(link: Link, known: Known) -> str:
    addresses = f"{link.name} has {', '.join(map(str, link.addresses))}"
    note = ""
    try:
        check_wan(link.name, known.facts, is_alone=True)
        note = "; only alone: with others it"
        check_wan(link.name, known.facts)
    except ValueError as error:
        return f"{addresses}{note} {error}" if note else f"{link.name} {error}"
    return addresses


def _default_addresses(known: Known) -> str:
    role = known.given["role"]
    return write_all(tuple(defaults.inside_addresses(role, known.key, known.facts)))


def _default_peers(known: Known) -> str:
    return write_all(tuple(map(defaults.peer_of, known.given["addresses"])))


def _default_through(known: Known) -> str:
    invitation = known.invitation
    if invitation is None:
        return Through.EVERYTHING
    shared = {4: invitation.shares4, 6: invitation.shares6}
    carried = {own.version for own in known.given["addresses"]}
    if all(shared[version] for version in carried):
        return Through.EVERYTHING
    # The other family would end at the server.
    every = {4: "0.0.0.0/0", 6: "::/0"}
    return " ".join(every[v] for v in sorted(carried) if shared[v]) or Through.NOTHING


def _default_share(known: Known) -> str:
    return write_yes(bool(defaults.uplinks(known.facts)))


def _default_table(known: Known) -> str:
    return str(defaults.free_table(known.facts, needed=1 + len(known.given["wans"])))


def _default_priority(known: Known) -> str:
    versions = [own.version for own in known.given["addresses"]]
    networks = chosen_networks(known.given["through"], versions)
    return str(defaults.free_priority(known.facts, networks))


def _check_tables(table: int, known: Known) -> None:
    for number in range(table, table + 1 + len(known.given["wans"])):
        check_table(number, known.facts)


def _is_client(known: Known) -> bool:
    return not known.is_server


def _is_server(known: Known) -> bool:
    return known.is_server


def _invited_addresses(invitation: Invitation) -> str:
    insides: tuple[Inside | None, ...] = (invitation.inside4, invitation.inside6)
    return write_all(tuple(inside.own for inside in insides if inside))


def _invited_peers(invitation: Invitation) -> str:
    insides: tuple[Inside | None, ...] = (invitation.inside4, invitation.inside6)
    return write_all(tuple(inside.peer for inside in insides if inside))


QUESTIONS = (
    Question(
        name="role",
        prompt="Is this host the client or the server?",
        help="The client has the links to the Internet that are to be one; the server has a "
        "public address.",
        parse=parse_role,
        default=lambda known: Role.CLIENT,
    ),
    Question(
        name="name",
        prompt="Name of the tunnel",
        help="Its device, its files and its service have it too.",
        parse=str,
        check=lambda name, known: check_name(name, known.facts),
        default=lambda known: defaults.free_name(known.facts),
    ),
    Question(
        name="invitation",
        prompt="Invitation from the server (not shown while you paste it; Enter without one)",
        help="`glorytun-setup client add` on the server prints one, to paste here.",
        parse=parse_invitation,
        write=lambda invitation: NONE,
        check=_check_invitation,
        default=lambda known: NONE,
        applies=_is_client,
        is_secret=True,
    ),
    Question(
        name="server",
        prompt="Name or address of the server, as clients reach it",
        help="On a server it only stands in invitations, and may be none.",
        parse=parse_server,
        write=lambda host: host or NONE,
        check=_check_server,
        default=_default_server,
        found=_found_server,
        invited=lambda invitation: invitation.server_host,
    ),
    Question(
        name="port",
        prompt="UDP port of the server",
        help="It must be open in firewalls before the server.",
        parse=parse_port,
        check=_check_port,
        default=_default_port,
        invited=lambda invitation: str(invitation.port),
    ),
    Question(
        name="key",
        prompt="Secret key (not shown while you paste it)",
        help="The same on both ends: 64 hex digits, `new` for one to be made, or `keep` for that "
        "which is there.",
        parse=parse_key_answer,
        check=_check_key,
        default=_default_key,
        invited=lambda invitation: invitation.key.hex(),
        is_secret=True,
    ),
    Question(
        name="wans",
        prompt="Interfaces that lead to the Internet",
        help="Several are used together. `wan1:backup` is used while no other works; "
        "`wan0:10mbit/50mbit` is never loaded with more than that, up and down.",
        parse=parse_wans,
        write=write_wans,
        check=_check_wans,
        default=_default_wans,
        found=_found_wans,
        applies=_is_client,
    ),
    Question(
        name="addresses",
        prompt="Addresses of this end inside the tunnel",
        help="One of IPv4, of IPv6, or both, each with its prefix. They follow from the key, so "
        "that both ends propose what fits together.",
        parse=parse_addresses,
        write=write_all,
        check=_check_addresses,
        default=_default_addresses,
        invited=_invited_addresses,
    ),
    Question(
        name="peers",
        prompt="Addresses of the other end inside the tunnel",
        help="One for each of this end's.",
        parse=parse_peers,
        write=write_all,
        check=_check_peers,
        default=_default_peers,
        invited=_invited_peers,
        is_asked=False,
    ),
    Question(
        name="through",
        prompt="What goes through the tunnel: everything, nothing, or networks",
        help="Networks as in `10.0.0.0/8 2001:db8::/32`. Local networks stay local, and sessions "
        "over the interfaces above stay there.",
        parse=parse_through,
        write=write_through,
        check=lambda answer, known: check_networks(answer.networks),
        default=_default_through,
        applies=_is_client,
    ),
    Question(
        name="share",
        prompt="Share this server's Internet with the client",
        help="Forwards what the client sends, from this server's address (masquerade).",
        parse=parse_yes,
        write=write_yes,
        default=_default_share,
        applies=_is_server,
    ),
    Question(
        name="behind",
        prompt="Networks behind the client that this server reaches through the tunnel",
        help="As in `192.168.7.0/24`, or none.",
        parse=parse_networks,
        write=lambda networks: write_all(networks) or NONE,
        check=lambda networks, known: check_behind(networks),
        default=lambda known: NONE,
        applies=_is_server,
        is_asked=False,
    ),
    Question(
        name="masquerade",
        prompt="Send what is forwarded from local networks with this host's address",
        help="Where this host forwards; without it the server has to know those networks "
        "(--behind there).",
        parse=parse_yes,
        write=write_yes,
        default=lambda known: "yes",
        applies=_is_client,
        is_asked=False,
    ),
    Question(
        name="local_port",
        prompt="UDP port of this host",
        help="What the client sends from.",
        parse=parse_port,
        check=lambda port, known: check_port(port, known.facts),
        default=lambda known: str(defaults.free_port(known.facts)),
        applies=_is_client,
        is_asked=False,
    ),
    Question(
        name="table",
        prompt="First routing table",
        help="The tunnel takes it, and each interface one of those that follow.",
        parse=number_within(TABLE),
        check=_check_tables,
        default=_default_table,
        applies=_is_client,
        is_asked=False,
    ),
    Question(
        name="priority",
        prompt="First priority of the routing rules",
        help="Ten of them are taken (docs/routing.md).",
        parse=number_within(PRIORITY),
        check=lambda priority, known: check_priority(priority, known.facts),
        default=_default_priority,
        applies=_is_client,
        is_asked=False,
    ),
)
"""In the order in which they are asked: each may depend on those before."""
