"""What can't work on this host, and why.

A `check_*` function raises ValueError whose message goes on after the answer it was given:
"port '5000' is taken …".
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Interface, ip_address, ip_network

from glorytun.config import is_device_name, is_numeric, quote
from glorytun_setup.model import (
    RULES,
    Address,
    Facts,
    Interface,
    Link,
    Manager,
    Network,
    Plan,
    Role,
    Routing,
    Through,
    Wan,
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
"""Neither a glob (networkd's Name=) nor a specifier of systemd's, nor hidden as a file."""
_PROGRAM = re.compile(r"/[A-Za-z0-9/._+-]+", re.ASCII)
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    )
)
"""RFC 1918, RFC 6598, RFC 4193: addresses that need a router's help to be reached."""
_THIS_NETWORK = ip_network("0.0.0.0/8")
"""RFC 1122 3.2.1.3."""
_KERNEL_NAMES = ("all", "default", "lo")
"""The first two are directories of /proc/sys/net/ipv4/conf."""
_PRIVATE_DIRECTORIES = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")
"""Of which the service sees nothing (ProtectHome= and PrivateTmp= of its unit)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a plan can't be carried out, or a warning."""

    message: str
    hint: str = ""
    """The next step."""
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


# Single answers.


def check_name(name: str, facts: Facts) -> None:
    """That a tunnel may have this name."""
    if name.isdigit():
        raise ValueError("is no name for a tunnel: networkd takes a number alone for none")
    if not is_device_name(name) or not _NAME.fullmatch(name) or name in _KERNEL_NAMES:
        raise ValueError(
            "is no name for a tunnel: 1 to 15 letters, digits, - _ and ., as in tun0, since its "
            "device has it too"
        )
    if name in facts.tunnels:
        raise ValueError(f"is a tunnel already: `glorytun-setup edit {name}` changes it")
    if facts.link(name):
        raise ValueError("is another network device of this host")


def check_port(port: int, facts: Facts) -> None:
    """That a UDP port of this host is free."""
    if port in facts.udp_ports:
        raise ValueError("is taken by another program: `ss -ulpn` shows which")


def check_server(host: str, facts: Facts) -> None:
    """That a client's server isn't the client."""
    address = _address(host) if is_numeric(host) else None
    if address and (address.is_loopback or address.is_unspecified or address.is_multicast):
        raise ValueError("is not the address of another host")
    if address and address.version == 6 and address.is_link_local and "%" not in host:
        raise ValueError(f"needs its interface: {host}%wan0")
    if address in _own_addresses(facts):
        raise ValueError("is an address of this host itself")


def check_inside(own: Interface, facts: Facts) -> None:
    """That this end's address can be used inside the tunnel."""
    # Not of the interface: that looks at its network too.
    ip = own.ip
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback or ip.is_link_local:
        raise ValueError("is not the address of one host")
    if ip.version == 4 and (ip.is_reserved or ip in _THIS_NETWORK):
        raise ValueError("is in a part of IPv4 that nobody may use")
    network = own.network
    if network.num_addresses == 1:
        raise ValueError(f"leaves no room for the other end: write {own.ip}/{_usual(own)}")
    if network.num_addresses > 2 and own.ip == network.network_address:
        raise ValueError("is the network's own address: its hosts come after that")
    if isinstance(own, IPv4Interface) and network.num_addresses > 2:
        _check_broadcast(own)
    other = _overlapping(network, facts)
    if other and own not in facts.kept:
        raise ValueError(f"overlaps {other}, to which this host has a route already")


def _overlapping(network: Network, facts: Facts) -> Network | None:
    """What this host has that a tunnel with this network would take away."""
    near = {address.network for link in facts.links for address in link.addresses}
    for other in _known_networks(facts):
        # A wider route elsewhere is less specific than the tunnel's.
        if contains(network, other) or (other in near and contains(other, network)):
            return other
    return None


def _usual(own: Interface) -> int:
    return 30 if own.version == 4 else 64


def _check_broadcast(own: IPv4Interface) -> None:
    if own.ip == own.network.broadcast_address:
        raise ValueError("is the network's broadcast address")


def check_peer(peer: Address, own: Interface) -> None:
    """That the other end's address fits this end's."""
    if peer not in own.network:
        raise ValueError(f"is not in {own.network}, the network of this end's address")
    if peer == own.ip:
        raise ValueError("is this end's address")
    if own.network.num_addresses <= 2:
        return
    last = own.network.broadcast_address if own.version == 4 else None
    if peer in (own.network.network_address, last):
        raise ValueError("is not the address of one host")


def check_wan(interface: str, facts: Facts, *, is_alone: bool = False) -> Link:
    """That an interface can be a WAN, one of several or the only one; the interface."""
    link = facts.link(interface)
    if link is None:
        names = ", ".join(sorted(link.name for link in facts.links if link.is_physical))
        raise ValueError(f"is no interface of this host, which has {names or 'none'}")
    if not link.is_physical:
        raise ValueError("is no link to the Internet")
    is_networkds = link.manager is Manager.NETWORKD and link.network_file
    # The only one has the default route already, and needs nothing of networkd's.
    if not is_networkds and (facts.is_strict(link.rp_filter) or not is_alone):
        raise ValueError(_not_networkd(link))
    if link.gateway4 is None and link.gateway6 is None:
        if not is_networkds:
            raise ValueError("has no default route")
        raise ValueError(
            f"has no default route: {link.network_file} needs DHCP=yes or a [Route] with Gateway="
        )
    return link


def _not_networkd(link: Link) -> str:
    match link.manager:
        case Manager.NETPLAN:
            return (
                "is configured by netplan, which would undo what belongs to its routes: move it to "
                f"/etc/systemd/network/20-{link.name}.network first"
            )
        case Manager.NETWORK_MANAGER:
            return (
                "is configured by NetworkManager: give it to networkd first "
                f"(`nmcli device set {link.name} managed no`, and a file "
                f"/etc/systemd/network/20-{link.name}.network)"
            )
        case Manager.IFUPDOWN:
            return (
                "is configured by /etc/network/interfaces: move it to "
                f"/etc/systemd/network/20-{link.name}.network first"
            )
    return (
        "is not configured by networkd: it needs a file "
        f"/etc/systemd/network/20-{link.name}.network"
    )


def check_networks(networks: Iterable[Network]) -> None:
    """That what is to go through the tunnel makes sense, whatever this host has."""
    seen: list[Network] = []
    for network in networks:
        if network.is_multicast or network.is_loopback or network.is_link_local:
            raise ValueError(f"names {network}, which no tunnel can carry")
        for other in seen:
            if other.overlaps(network):
                raise ValueError(f"names {other} and {network}, which overlap")
        seen.append(network)


def check_behind(networks: Iterable[Network]) -> None:
    """That these can be behind a client, for a server that has its own way to the Internet."""
    networks = tuple(networks)
    check_networks(networks)
    for network in networks:
        if not network.prefixlen:
            raise ValueError(f"names {network}, and a server can't send everything to its client")


def check_table(table: int, facts: Facts) -> None:
    """That a routing table is free; networkd takes numbers from 1."""
    if table in facts.tables:
        raise ValueError("is in use: `ip route show table all` shows by what")


def check_priority(priority: int, facts: Facts) -> None:
    """That the priorities of a tunnel's rules are free."""
    for taken in sorted(facts.rule_priorities):
        if priority <= taken < priority + RULES:
            raise ValueError(f"is too near to the rule of priority {taken}: `ip rule` lists them")


# The host, and the whole plan.


def find_host_problems(facts: Facts) -> list[Problem]:
    """Why nothing can be set up on this host at all."""
    return list(_host_problems(facts))


def _host_problems(facts: Facts) -> Iterator[Problem]:
    if not facts.is_root:
        yield Problem(message="this needs root", hint="`sudo glorytun-setup`")
    if not facts.systemd_version:
        yield Problem(
            message="systemd doesn't run this host, so that there are no services and no networkd",
            hint="`glorytun bind` runs a tunnel without it",
        )
        return
    if not facts.has_bus:
        yield Problem(
            message="the system bus doesn't answer",
            hint="`apt install dbus`, `systemctl start dbus`",
        )
        return
    if facts.networkd_masked:
        yield Problem(
            message="systemd-networkd is masked, so that nothing can start it",
            hint="`systemctl unmask systemd-networkd` allows it",
        )
    elif not facts.has_networkd:
        yield Problem(
            message="systemd-networkd isn't installed", hint="it comes with systemd on Debian"
        )
    if not facts.is_packaged and not _PROGRAM.fullmatch(facts.program):
        yield Problem(
            message=f"{quote(facts.program)} can't stand in a unit file",
            hint="install glorytun below a directory without white space and signs",
        )
    if not facts.is_packaged and facts.program.startswith(_PRIVATE_DIRECTORIES):
        yield Problem(
            message=f"{facts.program} is where a service can't see it",
            hint="install it below /opt or /usr/local, for example `python3 -m venv /opt/glorytun`",
        )


def find_problems(plan: Plan, facts: Facts) -> list[Problem]:
    """What speaks against a plan; `facts` without what belongs to this tunnel already."""
    found = [*_broken_answers(plan, facts), *_unit_problems(facts), *_leftover_problems(facts)]
    found += _inside_problems(plan, facts)
    if plan.role is Role.CLIENT:
        found += _client_problems(plan)
        found += _lan_problems(plan, facts)
        found += _file_problems(plan, facts)
        found += _order_problems(plan, facts)
    else:
        found += _server_problems(plan, facts)
    return found + list(_network_problems(plan, facts))


def _leftover_problems(facts: Facts) -> Iterator[Problem]:
    for interface, file in facts.leftovers:
        yield Problem(
            message=f"once networkd runs, it configures {interface} by {file}",
            hint="move that away if something else configures it now",
            is_warning=True,
        )


def _unit_problems(facts: Facts) -> Iterator[Problem]:
    if facts.foreign_unit:
        yield Problem(
            message=f"{facts.foreign_unit} is another program's, and counts before our own",
            hint="move it away, and `systemctl daemon-reload`",
        )


_Check = tuple[str, object, Callable[..., object], tuple[object, ...]]
"""What is checked, its value, the function and its arguments."""


def _broken_answers(plan: Plan, facts: Facts) -> Iterator[Problem]:
    """What each answer was checked for: a plan may have come from elsewhere."""
    for what, value, check, arguments in _answer_checks(plan, facts):
        try:
            check(*arguments)
        except ValueError as error:
            yield Problem(message=f"{what} {quote(str(value))} {error}")


def _answer_checks(plan: Plan, facts: Facts) -> Iterator[_Check]:
    yield "name", plan.name, check_name, (plan.name, facts)
    yield "port", plan.local_port, check_port, (plan.local_port, facts)
    if plan.role is Role.CLIENT:
        yield "server", plan.server_host, check_server, (plan.server_host, facts)
    for inside in plan.insides:
        yield "address", inside.own, check_inside, (inside.own, facts)
        yield "peer", inside.peer, check_peer, (inside.peer, inside.own)
    for wan in plan.wans:
        check = partial(check_wan, is_alone=len(plan.wans) == 1)
        yield "interface", wan.interface, check, (wan.interface, facts)
    if plan.networks:
        yield "networks", " ".join(map(str, plan.networks)), check_networks, (plan.networks,)
    for table in filter(None, (plan.table, *(wan.table for wan in plan.wans))):
        yield "table", table, check_table, (table, facts)
    if plan.rule_priority:
        yield "priority", plan.rule_priority, check_priority, (plan.rule_priority, facts)


def _inside_problems(plan: Plan, facts: Facts) -> Iterator[Problem]:
    if not plan.insides:
        yield Problem(
            message="the tunnel has no address", hint="give it one of IPv4, of IPv6, or of both"
        )
    for inside in plan.insides:
        other = _overlapping(inside.own.network, facts) if inside.own in facts.kept else None
        if other:
            yield Problem(
                message=f"the tunnel's own {inside.own.network} overlaps {other}, to which this "
                "host has a route by now",
                hint="--addresses gives it others, on both ends",
                is_warning=True,
            )
        if is_numeric(plan.server_host) and _address(plan.server_host) in inside.own.network:
            yield Problem(
                message=f"the server's address {plan.server_host} lies inside the tunnel itself "
                f"({inside.own.network})",
                hint="choose other addresses for the tunnel",
            )


def _client_problems(plan: Plan) -> Iterator[Problem]:
    if not plan.wans:
        yield Problem(
            message="there is no interface to send by", hint="name one that leads to the Internet"
        )
    if is_numeric(plan.server_host):
        yield from _family_problems(plan, _address(plan.server_host).version)
    carried = {inside.own.version for inside in plan.insides}
    if plan.through is Through.EVERYTHING and carried == {4} and any(w.gateway6 for w in plan.wans):
        yield Problem(
            message="IPv6 goes past the tunnel, which has IPv4 addresses only",
            hint="give both ends of the tunnel IPv6 addresses",
            is_warning=True,
        )


def _lan_problems(plan: Plan, facts: Facts) -> Iterator[Problem]:
    """Of networks that this host forwards for."""
    lost = [
        str(network)
        for network in plan.answering
        if network.version in facts.forwards
        and network.version in {each.version for each in plan.networks}
        and network not in plan.masquerades
    ]
    if lost:
        yield Problem(
            message=f"this host forwards for {', '.join(lost)}, which gets no answer through the "
            "tunnel unless the server knows that it is there (--behind on the server)",
            hint="--masquerade=yes sends it with this host's address"
            + ("" if facts.has_nft else "; that takes `apt install nftables`"),
            is_warning=True,
        )


def _file_problems(plan: Plan, facts: Facts) -> Iterator[Problem]:
    """WANs whose drop-in would be another interface's too."""
    for wan in plan.wans if plan.routes_wans or plan.loosened else ():
        for link in facts.links:
            if link.network_file == wan.network_file and link.name != wan.interface:
                yield Problem(
                    message=f"{wan.interface} and {link.name} are configured by one file, "
                    f"{wan.network_file}, and need different routes",
                    hint=f"give {wan.interface} a file of its own, with Name={wan.interface}, such "
                    f"as /etc/systemd/network/20-{wan.interface}.network",
                )


def _family_problems(plan: Plan, version: int) -> Iterator[Problem]:
    """WANs by which an address of this version can't be reached."""
    lacking = [wan for wan in plan.wans if not _gateway(wan, version)]
    for wan in lacking:
        yield Problem(
            message=f"{wan.interface} has no IPv{version}, and the server "
            f"{plan.server_host} nothing else",
            hint="name the server, or leave this interface out",
            is_warning=len(lacking) < len(plan.wans),
        )


def _gateway(wan: Wan, version: int) -> object:
    return wan.gateway4 if version == 4 else wan.gateway6


def _server_problems(plan: Plan, facts: Facts) -> Iterator[Problem]:
    if plan.through is Through.EVERYTHING or not all(each.prefixlen for each in plan.networks):
        yield Problem(message="a server can't send everything to its client")
    if is_private(plan.server_host):
        yield Problem(
            message=f"{plan.server_host} is a private address, by which clients elsewhere don't "
            "reach this server",
            hint=f"name the public one with --server; a router before this host must pass on UDP "
            f"port {plan.port}",
            is_warning=True,
        )
    if plan.shares and facts.dropping:
        yield Problem(
            message=f"a firewall here drops what is forwarded ({', '.join(facts.dropping)} of "
            "nftables), unless a rule lets it",
            hint=f"let pass what comes from {plan.name} and what goes there",
            is_warning=True,
        )
    if plan.share6 and not plan.share4 and plan.inside4:
        yield Problem(
            message="this host has no way to the IPv4 Internet that a client could share",
            hint="a client that isn't invited has to say --through=::/0, and --addresses as here",
            is_warning=True,
        )
    if plan.shares and not facts.has_nft:
        yield Problem(
            message="to share the Internet takes nft, which isn't installed",
            hint="`apt install nftables`",
        )
    if plan.shares and not any(link.gateway4 or link.gateway6 for link in facts.links):
        yield Problem(
            message="this host has no default route, so that it has no Internet to share",
            is_warning=True,
        )


def _network_problems(plan: Plan, facts: Facts) -> Iterator[Problem]:
    """Of the networks that are to go through the tunnel."""
    carried = {inside.own.version for inside in plan.insides}
    for network in plan.networks:
        if network.version not in carried:
            yield Problem(
                message=f"{network} can't go through the tunnel, which has no IPv{network.version} "
                "addresses",
                hint=f"give both ends of the tunnel IPv{network.version} addresses",
            )
        for inside in plan.insides:
            if contains(inside.own.network, network):
                yield Problem(message=f"{network} is in the tunnel's own {inside.own.network}")
        for other in _known_networks(facts):
            # What is more specific here stays here, and that is as it should be.
            if contains(other, network):
                yield Problem(
                    message=f"{network} would never go through the tunnel: this host has a route "
                    f"to {other}, and local networks stay local",
                    hint="leave it out, or remove that route",
                )


def _order_problems(plan: Plan, facts: Facts) -> Iterator[Problem]:
    """Of two tunnels, the one whose rules come first takes all that is in its networks."""
    own = Routing(name=plan.name, priority=plan.rule_priority, networks=plan.networks)
    for other in facts.routings if plan.networks else ():
        first, second = sorted((own, other), key=lambda each: each.priority)
        for network in second.networks:
            if any(contains(each, network) for each in first.networks):
                yield Problem(
                    message=f"{network} would never go through {second.name}, since {first.name} "
                    "takes it",
                    hint="choose other networks, or for a part of them a lower --priority",
                )


def contains(network: Network, other: Network) -> bool:
    """Whether all of the other one is in a network."""
    return network.version == other.version and other.subnet_of(network)  # type: ignore[arg-type]  # one family


def _known_networks(facts: Facts) -> Iterator[Network]:
    """What this host can reach without a default route."""
    seen = set()
    for network in (*facts.routes, *(a.network for link in facts.links for a in link.addresses)):
        if network not in seen:
            seen.add(network)
            yield network


def _own_addresses(facts: Facts) -> set[Address]:
    return {address.ip for link in facts.links for address in link.addresses}


def is_private(host: str) -> bool:
    """Whether a server's host is an address that is none of the Internet's."""
    return is_numeric(host) and any(_address(host) in network for network in _NOT_PUBLIC)


def _address(host: str) -> Address:
    """Of a numeric host, without its interface."""
    return ip_address(host.partition("%")[0])
