"""What the wizard proposes: what is free on this host, and what it finds there."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
)
from itertools import chain, count

from glorytun.config import DEFAULT_PORT
from glorytun_setup.model import RULES, Address, Facts, Interface, Link, Manager, Network, Role
from glorytun_setup.validate import check_inside, check_priority, contains

FIRST_NUMBER = 7100
"""Of routing tables and priorities: far from what others take by themselves."""

_TRIES = 64
_POOLS4 = tuple(
    map(IPv4Network, ("10.64.0.0/10", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"))
)
"""Taken in networks of four addresses. The first is seldom what routers at home have."""
_LENGTH4 = 30


def free_name(facts: Facts) -> str:
    """The first of tun0, tun1 … that is free."""
    taken = {*facts.tunnels, *(link.name for link in facts.links)}
    return next(name for name in (f"tun{number}" for number in count()) if name not in taken)


def free_port(facts: Facts) -> int:
    """The first UDP port from 5000 on."""
    return next(port for port in range(DEFAULT_PORT, 65536) if port not in facts.udp_ports)


def free_table(facts: Facts, *, needed: int) -> int:
    """The first of as many routing tables in a row."""
    for table in count(FIRST_NUMBER, 10):
        if facts.tables.isdisjoint(range(table, table + needed)):
            return table
    raise AssertionError


def free_priority(facts: Facts, networks: Sequence[Network] = ()) -> int:
    """The first of the priorities that a tunnel's rules take, for what it is to carry.

    Before those of a tunnel that carries these networks and more, after that takes nothing of them.
    """
    wider: list[int] = [
        routing.priority
        for routing in facts.routings
        if any(t != own and contains(t, own) for t in routing.networks for own in networks)
    ]
    before = range(min(wider) - RULES, 0, -RULES) if wider else range(0)
    for priority in chain(before, range(FIRST_NUMBER, 32000, RULES)):
        try:
            check_priority(priority, facts)
        except ValueError:
            continue
        return priority
    return FIRST_NUMBER


def uplinks(facts: Facts) -> list[Link]:
    """The links that lead to the Internet, the one in use first."""
    links = [link for link in facts.links if link.is_physical and _metrics(link)]
    return sorted(links, key=lambda link: (min(_metrics(link)), link.name))


def wan_links(facts: Facts) -> list[Link]:
    """The links that a client can send by: those that networkd configures, else one alone."""
    links = uplinks(facts)
    found = [
        link for link in links if link.manager is Manager.NETWORKD and link.network_file is not None
    ]
    return found or links[:1]


def _metrics(link: Link) -> list[int]:
    return [gateway.metric for gateway in (link.gateway4, link.gateway6) if gateway]


def public_host(facts: Facts) -> str:
    """By which address a server is likely reached; empty without any."""
    addresses = [address.ip for link in uplinks(facts) for address in link.addresses]
    # Before those of IPv6, which not every client has.
    addresses.sort(key=lambda address: (not address.is_global, address.version))
    return str(addresses[0]) if addresses else ""


def inside_addresses(role: Role, key: bytes, facts: Facts) -> list[Interface]:
    """This end's addresses in the tunnel, which follow from the key, so that both ends find them.

    The server is the first host and the client the second. IPv4 always, as the client can't know
    where the server leads; IPv6 where a server leads there. Those of
    a family are missing where this host has routes to all that could be proposed.
    """
    host = 1 if role is Role.SERVER else 2
    links = uplinks(facts) if role is Role.SERVER else []
    has_v6 = any(link.gateway6 for link in links)
    candidates = [_candidates4(key, host)] + [_candidates6(key, host)] * has_v6
    found = [next((a for a in each if _fits(a, facts)), None) for each in candidates]
    return [own for own in found if own]


def _candidates4(key: bytes, host: int) -> Iterator[Interface]:
    for pool in _POOLS4:
        bits = _LENGTH4 - pool.prefixlen
        for digest in _digests(key):
            index = int.from_bytes(digest, "big") >> (8 * len(digest) - bits)
            yield IPv4Interface((pool.network_address + 4 * index + host, _LENGTH4))


def _candidates6(key: bytes, host: int) -> Iterator[Interface]:
    """Of unique local networks, RFC 4193 3.1."""
    for digest in _digests(key):
        yield IPv6Interface((IPv6Address(b"\xfd" + digest + bytes(10)) + host, 64))


def _digests(key: bytes) -> Iterator[bytes]:
    for number in range(_TRIES):
        yield blake2b(bytes([number]), key=key, digest_size=5, person=b"gt-addresses").digest()


def _fits(address: Interface, facts: Facts) -> bool:
    try:
        check_inside(address, facts)
    except ValueError:
        return False
    return True


def peer_of(own: Interface) -> Address:
    """The other end's likely address: the first in the network, or the second for the first."""
    network = own.network
    first = network.network_address + (1 if network.num_addresses > 2 else 0)
    return first + 1 if own.ip == first else first
