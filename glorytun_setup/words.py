"""How answers are written.

A `parse_*` function raises ValueError whose message goes on after the answer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import TypeVar

from glorytun.config import parse_peer, parse_rate, quote, write_rate
from glorytun.errors import KeyFileError
from glorytun.keyfile import KEY_SIZE, parse_key
from glorytun_setup.invitation import Invitation, decode, looks_like_invitation
from glorytun_setup.model import Address, Interface, Network, Role, Through, WanState

NONE = "none"
NEW_KEY, KEEP_KEY = "new", "keep"

_AUTO = "auto"
_Versioned = TypeVar("_Versioned", Interface, Address)


@dataclass(frozen=True, slots=True, kw_only=True)
class WanAnswer:
    """What was said about one WAN; rates in bytes/s, 0 where they are to be found out."""

    interface: str
    state: WanState = WanState.UP
    rate_tx: int = 0
    rate_rx: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughAnswer:
    """What goes through the tunnel."""

    through: Through
    networks: tuple[Network, ...] = ()
    """Where it is chosen ones."""


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that knows choices by their beginnings too."""

    def parse(text: str) -> str:
        found = [choice for choice in choices if text and choice.startswith(text.lower())]
        if len(found) != 1:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return found[0]

    return parse


def parse_role(text: str) -> Role:
    """`client` or `server`."""
    return Role(one_of(*Role)(text))


def parse_yes(text: str) -> bool:
    """`yes` or `no`."""
    return one_of("yes", "no")(text) == "yes"


def write_yes(value: bool) -> str:
    """What `parse_yes` takes."""
    return "yes" if value else "no"


def parse_invitation(text: str) -> Invitation | None:
    """An invitation, or `none`."""
    return None if text == NONE else decode(text)


def parse_server(text: str) -> str:
    """A name or an address, or `none`, which is empty."""
    return "" if text == NONE else parse_peer(text)


def parse_key_answer(text: str) -> bytes | str:
    """`new`, `keep`, or a key in hex digits."""
    if text in (NEW_KEY, KEEP_KEY):
        return text
    if looks_like_invitation(text):
        raise ValueError("is an invitation: `glorytun-setup join` takes it")
    try:
        return parse_key(text.encode(errors="replace"), name="this")
    except KeyFileError as error:
        reason = str(error).rpartition(": ")[2]
        raise ValueError(f"is no key, which has {2 * KEY_SIZE} hex digits: {reason}") from None


def parse_wans(text: str) -> tuple[WanAnswer, ...]:
    """Interfaces, as in `wan0 wan1:backup wan2:10mbit/50mbit wan3:backup:10mbit/auto`."""
    wans = tuple(map(_parse_wan, _words(text)))
    if not wans:
        raise ValueError("names no interface")
    if len({wan.interface for wan in wans}) < len(wans):
        raise ValueError("names an interface twice")
    return wans


def write_wans(wans: tuple[WanAnswer, ...]) -> str:
    """What `parse_wans` takes."""
    return " ".join(map(_write_wan, wans))


def parse_addresses(text: str) -> tuple[Interface, ...]:
    """An address of IPv4, of IPv6, or one of each; with the prefix of its network."""
    return _one_of_a_family(tuple(map(_parse_interface, _words(text))))


def parse_peers(text: str) -> tuple[Address, ...]:
    """An address of IPv4, of IPv6, or one of each; without a prefix."""
    return _one_of_a_family(tuple(map(_parse_address, _words(text))))


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks, or `none`."""
    return () if text == NONE else tuple(map(_parse_network, _words(text)))


def parse_through(text: str) -> ThroughAnswer:
    """`everything`, `nothing`, or networks."""
    if text.isalpha():
        choices = (Through.EVERYTHING.value, Through.NOTHING.value)
        try:
            return ThroughAnswer(through=Through(one_of(*choices)(text)))
        except ValueError:
            pass
    networks = tuple(map(_parse_network, _words(text)))
    if not networks:
        raise ValueError("is neither everything nor nothing nor a network")
    return ThroughAnswer(through=Through.NETWORKS, networks=networks)


def chosen_networks(answer: ThroughAnswer, versions: Iterable[int]) -> tuple[Network, ...]:
    """What goes through a tunnel that carries these versions of IP."""
    if answer.through is not Through.EVERYTHING:
        return answer.networks
    every = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
    return tuple(every[version] for version in versions)


def write_through(answer: ThroughAnswer) -> str:
    """What `parse_through` takes."""
    return write_all(answer.networks) or answer.through.value


def write_all(values: tuple[object, ...]) -> str:
    """Several of something."""
    return " ".join(map(str, values))


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _parse_wan(word: str) -> WanAnswer:
    interface, *rest = word.split(":")
    state, tx, rx = WanState.UP, 0, 0
    for part in rest:
        if part in tuple(WanState):
            state = WanState(part)
        elif "/" in part:
            tx, rx = map(_parse_wan_rate, part.split("/", 1))
        else:
            raise ValueError(
                f"has {quote(part)}, where up or backup may be, or the rates up and down as in "
                "10mbit/50mbit"
            )
    return WanAnswer(interface=interface, state=state, rate_tx=tx, rate_rx=rx)


def _parse_wan_rate(text: str) -> int:
    if text == _AUTO:
        return 0
    try:
        return parse_rate(text)
    except ValueError as error:
        raise ValueError(f"has {quote(text)}, which {error}") from None


def _write_wan(wan: WanAnswer) -> str:
    parts = [wan.interface]
    if wan.state is not WanState.UP:
        parts.append(wan.state.value)
    if wan.rate_tx or wan.rate_rx:
        rates = (wan.rate_tx, wan.rate_rx)
        parts.append("/".join(write_rate(rate) if rate else _AUTO for rate in rates))
    return ":".join(parts)


def _parse_interface(word: str) -> Interface:
    try:
        if "/" not in word or "%" in word:
            raise ValueError
        return ip_interface(word)
    except ValueError:
        raise ValueError(
            f"has {quote(word)}, which is no address with its prefix as in 10.77.0.1/30"
        ) from None


def _parse_address(word: str) -> Address:
    try:
        return ip_address(word)
    except ValueError:
        raise ValueError(f"has {quote(word)}, which is no address") from None


def _parse_network(word: str) -> Network:
    try:
        return ip_network(word)
    except ValueError:
        raise ValueError(f"has {quote(word)}, which is no network{_network_hint(word)}") from None


def _network_hint(word: str) -> str:
    try:
        return f": write {ip_interface(word).network}"
    except ValueError:
        return " as 10.0.0.0/8 or 2001:db8::/32 are"


def _one_of_a_family(found: tuple[_Versioned, ...]) -> tuple[_Versioned, ...]:
    """Those of IPv4 first."""
    if not found:
        raise ValueError("names no address")
    if len({one.version for one in found}) < len(found):
        raise ValueError("names several of one family: one of IPv4 and one of IPv6 are enough")
    return tuple(sorted(found, key=lambda one: one.version))
