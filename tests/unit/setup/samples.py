"""Hosts and plans for the tests of the wizard."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import Any

from glorytun_setup.answers import settle
from glorytun_setup.invitation import Invitation
from glorytun_setup.model import (
    Address,
    Facts,
    Gateway,
    Inside,
    Link,
    Manager,
    Plan,
    Source,
)
from glorytun_setup.plan import make_plan
from glorytun_setup.questions import Known

KEY = bytes(range(32))
NOW = 1_800_000_000


def gateway(address: str | None, source: Source = Source.STATIC, metric: int = 100) -> Gateway:
    """Of either family."""
    known: Address | None = None
    if address:
        known = IPv6Address(address) if ":" in address else IPv4Address(address)
    return Gateway(source=source, address=known, metric=metric)


def link(name: str, *addresses: str, **more: Any) -> Link:
    """An interface that networkd configures by a file of its own."""
    values: dict[str, Any] = {
        "manager": Manager.NETWORKD,
        "network_file": f"/etc/systemd/network/20-{name}.network",
        **more,
    }
    return Link(name=name, addresses=tuple(map(ip_interface, addresses)), **values)


WAN0 = link("wan0", "192.168.1.23/24", gateway4=gateway("192.168.1.1", Source.DHCP, 100))
"""DHCP, IPv4 alone."""
WAN1 = link(
    "wan1",
    "10.9.1.1/24",
    "2001:db8:1::1/64",
    gateway4=gateway("10.9.1.2", metric=200),
    gateway6=gateway("2001:db8:1::2", metric=200),
)
"""Fixed, both families."""
WAN2 = link(
    "wan2",
    "100.64.7.9/10",
    "2001:db8:2:0:1234::1/64",
    "2001:db8:2:0:5678::1/64",
    gateway4=gateway("100.64.0.1", Source.DHCP, 300),
    gateway6=gateway("fe80::1", Source.RA, 300),
    network_file="/run/systemd/network/30-wan2.network",
)
"""DHCP and router advertisements."""
LAN0 = link("lan0", "192.168.7.1/24", "fd07::1/64")
"""No way out."""
UPLINK = link(
    "eth0",
    "203.0.113.9/32",
    "2001:db8:9::9/64",
    manager=Manager.IFUPDOWN,
    network_file=None,
    gateway4=gateway("203.0.113.1"),
    gateway6=gateway("fe80::1", Source.RA),
    accept_ra=1,
)
"""Of a rented server, whose kernel takes the router advertisements."""


def routes(*links: Link) -> tuple[Any, ...]:
    """What the addresses of links bring."""
    return tuple(address.network for each in links for address in each.addresses)


def facts(*links: Link, **changes: Any) -> Facts:
    """A Debian 12 with the package, where nothing is in the way."""
    found = Facts(
        is_root=True,
        systemd_version=252,
        has_bus=True,
        has_networkd=True,
        networkd_active=True,
        networkd_enabled=True,
        links=links,
        routes=routes(*links),
        tables=frozenset({253, 254, 255}),
        rule_priorities=frozenset({0, 32766, 32767}),
        udp_ports=frozenset({68}),
        tunnels=(),
        nameservers=(),
        has_nft=True,
        qdiscs=frozenset({"pfifo_fast", "fq_codel"}),
        default_qdisc="fq_codel",
        rp_filter_all=0,
        rp_filter_default=0,
        program="/usr/bin/glorytun",
        is_packaged=True,
    )
    return replace(found, **changes)


CLIENT = facts(WAN0, WAN1)
SERVER = facts(UPLINK)

INVITATION = Invitation(
    identity=bytes(8),
    expires_at=NOW + 3600,
    server_host="vpn.example.net",
    port=5001,
    key=KEY,
    inside4=Inside(own=ip_interface("10.77.0.2/30"), peer=IPv4Address("10.77.0.1")),
    inside6=Inside(own=ip_interface("fd77::2/64"), peer=IPv6Address("fd77::1")),
    shares4=True,
    shares6=True,
)


def known(host: Facts, **given: Any) -> Known:
    """What the wizard knows at its start."""
    return Known(facts=host, now=NOW, fresh_key=KEY, given=given)


def settled(host: Facts, texts: Mapping[str, str]) -> Known:
    """All questions answered."""
    return settle(texts, known(host))


def plan(host: Facts, **texts: str) -> Plan:
    """The plan of some answers, with defaults for the rest."""
    return make_plan(settled(host, texts))


def client_plan(host: Facts = CLIENT, **texts: str) -> Plan:
    """Of a client with the usual key."""
    return plan(host, **{"server": "vpn.example.net", "key": KEY.hex(), **texts})


def server_plan(host: Facts = SERVER, **texts: str) -> Plan:
    """Of a server with the usual key."""
    return plan(host, **{"role": "server", **texts})
