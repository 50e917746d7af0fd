"""What this host has and does: looked up once, before the first question.

From netlink, from the files in which the kernel and networkd tell of themselves, and over D-Bus.
Nothing is changed, and nothing is sent over a network.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from shutil import which
from typing import Any

from glorytun.config import is_device_name
from glorytun.errors import SetupError
from glorytun_setup.bus import Bus, UnitState
from glorytun_setup.kernel import read_sysctl
from glorytun_setup.model import (
    Facts,
    Gateway,
    Interface,
    Link,
    Manager,
    Network,
    Source,
)

# linux/if.h, linux/if_addr.h, linux/rtnetlink.h, linux/fib_rules.h
_IFF_LOOPBACK = 0x8
_IFA_F_TEMPORARY = 0x1
_IFA_F_DEPRECATED = 0x20
_IFA_F_TENTATIVE = 0x40
_RT_SCOPE_UNIVERSE = 0
_RTN_UNICAST = 1
_RTPROT_RA = 9
_RTPROT_DHCP = 16
_RT_TABLE_MAIN = 254
_RT_TABLE_LOCAL = 255
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

_OWN_TABLES = {253, 254, 255}
"""default, main, local."""
_NO_WAN = ("tun", "wireguard", "dummy", "ifb", "sit", "ip6tnl", "ipip", "gre", "vxlan", "vcan")
"""Kinds of devices that lead nowhere by themselves."""
_INNER = ("bridge", "veth")
"""Kinds that lead to the Internet only where a default route says so."""
_NETWORK_DIRECTORIES = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
_FORWARDING = {"net/ipv4/ip_forward": 4, "net/ipv6/conf/all/forwarding": 6}
_QDISCS = ("fq_codel", "cake", "fq", "fq_pie", "pie", "codel", "sfq")
_UNIT = "systemd/system/glorytun@.service"
_UNIT_DIRECTORIES = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
"""What systemd takes a unit from: the first that has it (systemd.unit(5))."""
_PACKAGE_DIRECTORIES = ("usr/lib", "lib")
_OUR_COMMAND = r"^ExecStart=\S*/glorytun run %i$"


def gather(bus: Bus | None, *, root: Path = Path("/")) -> Facts:
    """All of it; without a bus what the rest tells. Raises SetupError."""
    links, messages = _read_netlink()
    networkd = _unit(bus, "systemd-networkd.service")
    is_active = networkd is not None and networkd.is_active
    return Facts(
        is_root=os.geteuid() == 0,
        systemd_version=_systemd_version(bus, root),
        has_bus=bus is not None,
        has_networkd=networkd is not None and networkd.load == "loaded",
        networkd_masked=networkd is not None and networkd.load == "masked",
        networkd_active=is_active,
        networkd_enabled=networkd is not None and networkd.is_enabled,
        links=tuple(_describe_link(link, messages, root) for link in links),
        routes=tuple(sorted(set(_destinations(messages["routes"])), key=str)),
        tables=frozenset(_tables(messages, root)),
        rule_priorities=frozenset(_priorities(messages["rules"], root)),
        udp_ports=frozenset({*_udp_ports(root), *_configured_ports(root)}),
        tunnels=_tunnels(root),
        nameservers=_nameservers(bus),
        qdiscs=frozenset(_qdiscs(links, root)),
        default_qdisc=read_sysctl("net.core.default_qdisc") or "",
        rp_filter_all=_number(read_sysctl("net.ipv4.conf.all.rp_filter")),
        rp_filter_default=_number(read_sysctl("net.ipv4.conf.default.rp_filter")),
        dropping=tuple(_dropping()),
        leftovers=() if is_active else tuple(_leftovers(links, root)),
        forwards=frozenset(
            version for key, version in _FORWARDING.items() if read_sysctl(key) == "1"
        ),
        has_nft=(root / "usr/sbin/nft").exists(),
        program=find_program(),
        is_packaged=_is_packaged(root),
        foreign_unit=_foreign_unit(root),
    )


def managed_links(root: Path = Path("/")) -> list[str]:
    """The interfaces that networkd configures now, as far as it runs."""
    found = []
    for file in (root / "run/systemd/netif/links").glob("*"):
        state = _assignments(file)
        if state.get("NETWORK_FILE") and state.get("ADMIN_STATE") != "unmanaged":
            with suppress(OSError, ValueError):  # It has gone meanwhile.
                found.append(socket.if_indextoname(int(file.name)))
    return sorted(found)


def find_program() -> str:
    """The `glorytun` of this installation: beside our own command, else the one in $PATH."""
    for directory in (Path(sys.argv[0]).parent, Path(sys.executable).parent):
        program = (directory / "glorytun").absolute()
        if os.access(program, os.X_OK) and program.is_file():
            return str(program)
    return which("glorytun") or "/usr/bin/glorytun"


# systemd.


def _unit(bus: Bus | None, name: str) -> UnitState | None:
    return bus.unit(name) if bus else None


def _is_packaged(root: Path) -> bool:
    """Whether a package brought the unit; the original's has the same name."""
    return any(_matches(root / path / _UNIT, _OUR_COMMAND) for path in _PACKAGE_DIRECTORIES)


def _foreign_unit(root: Path) -> str:
    """The unit that counts before that of the package and is not ours, or nothing."""
    files = (root / directory / _UNIT for directory in _UNIT_DIRECTORIES)
    first = next((file for file in files if os.path.lexists(file)), None)
    if first is None or not _is_packaged(root) or _matches(first, _OUR_COMMAND):
        return ""
    return f"/{first.relative_to(root)}"


def _is_active(bus: Bus | None, name: str) -> bool:
    unit = _unit(bus, name)
    return unit is not None and unit.is_active


def _systemd_version(bus: Bus | None, root: Path) -> int:
    if not (root / "run/systemd/system").is_dir():
        return 0
    # Without a bus it isn't told which, and nothing is set up anyway.
    return bus.systemd_version() if bus else 1


def _nameservers(bus: Bus | None) -> tuple[Any, ...]:
    if bus is None or not _is_active(bus, "systemd-resolved.service"):
        return ()
    try:
        return tuple(ip_address(packed) for packed in bus.global_nameservers())
    except SetupError:
        return ()  # It was stopped meanwhile.


# netlink.


def _read_netlink() -> tuple[list[Any], dict[str, list[Any]]]:
    """The links without loopback, and addresses, routes and rules of both families."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        links = [link for link in route.get_links() if not link["flags"] & _IFF_LOOPBACK]
        readers = {
            "addresses": route.get_addr,
            "routes": route.get_routes,
            "rules": route.get_rules,
        }
        found = {
            name: [message for family in _FAMILIES for message in read(family=family)]
            for name, read in readers.items()
        }
    return links, found


def _describe_link(link: Any, messages: dict[str, list[Any]], root: Path) -> Link:
    index, name = int(link["index"]), str(link.get_attr("IFLA_IFNAME"))
    manager, file = _manager(index, name, root)
    gateways = {family: _gateway(index, family, messages["routes"]) for family in _FAMILIES}
    return Link(
        name=name,
        manager=manager,
        network_file=file,
        addresses=tuple(_addresses(index, messages["addresses"])),
        gateway4=gateways[socket.AF_INET],
        gateway6=gateways[socket.AF_INET6],
        rp_filter=_number(read_sysctl(f"net/ipv4/conf/{name}/rp_filter")),
        accept_ra=_number(read_sysctl(f"net/ipv6/conf/{name}/accept_ra")),
        is_physical=_may_be_wan(link, has_gateway=any(gateways.values())),
    )


def _may_be_wan(link: Any, *, has_gateway: bool) -> bool:
    info = link.get_attr("IFLA_LINKINFO")
    kind = "" if info is None else str(info.get_attr("IFLA_INFO_KIND"))
    if kind in _NO_WAN or link.get_attr("IFLA_MASTER"):
        return False
    return has_gateway or kind not in _INNER


def _addresses(index: int, messages: list[Any]) -> Iterator[Interface]:
    for message in messages:
        unusable = _IFA_F_TEMPORARY | _IFA_F_DEPRECATED | _IFA_F_TENTATIVE
        # IFA_FLAGS has all 32 bits, the header the lower 8.
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        if message["index"] != index or message["scope"] != _RT_SCOPE_UNIVERSE or flags & unusable:
            continue
        # Of a point-to-point link, IFA_ADDRESS is the other end (linux/if_addr.h).
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        yield ip_interface(f"{text}/{message['prefixlen']}")


def _gateway(index: int, family: int, routes: list[Any]) -> Gateway | None:
    """Of the best default route in the main table."""
    found = sorted(
        (
            (_metric(route), hop)
            for route in routes
            if route["family"] == family and _is_default(route) and _table(route) == _RT_TABLE_MAIN
            for hop in _hops(route)
            if hop[0] == index
        ),
        key=lambda entry: entry[0],
    )
    if not found:
        return None
    metric, (_, address, protocol) = found[0]
    return Gateway(
        source={_RTPROT_DHCP: Source.DHCP, _RTPROT_RA: Source.RA}.get(protocol, Source.STATIC),
        address=ip_address(address) if address else None,
        metric=metric,
    )


def _hops(route: Any) -> Iterator[tuple[int, str | None, int]]:
    """Interface, gateway and origin of each way of a route."""
    several = route.get_attr("RTA_MULTIPATH")
    for hop in several or [route]:
        index = hop["oif"] if several else route.get_attr("RTA_OIF")
        via = hop.get_attr("RTA_VIA")
        address = hop.get_attr("RTA_GATEWAY") or (via["addr"] if via else None)
        yield int(index or 0), str(address) if address else None, int(route["proto"])


def _metric(route: Any) -> int:
    return int(route.get_attr("RTA_PRIORITY") or 0)


def _table(message: Any, attribute: str = "RTA_TABLE") -> int:
    return int(message.get_attr(attribute) or message["table"])


def _is_default(route: Any) -> bool:
    return bool(route["dst_len"] == 0 and route["type"] == _RTN_UNICAST)


def _destinations(routes: list[Any]) -> Iterator[Network]:
    for route in routes:
        target = route.get_attr("RTA_DST")
        if target is None or _table(route) == _RT_TABLE_LOCAL or route["type"] != _RTN_UNICAST:
            continue
        network = ip_network(f"{target}/{route['dst_len']}", strict=False)
        if not network.is_link_local and not network.is_multicast:
            yield network


def _tables(messages: dict[str, list[Any]], root: Path) -> Iterator[int]:
    yield from _OWN_TABLES
    yield from (_table(route) for route in messages["routes"])
    yield from (_table(rule, "FRA_TABLE") for rule in messages["rules"])
    for directory in ("etc/iproute2", "usr/share/iproute2", "usr/lib/iproute2"):
        for file in [
            root / directory / "rt_tables",
            *(root / directory).glob("rt_tables.d/*.conf"),
        ]:
            yield from (int(line) for line in _matches(file, r"^\s*(\d+)\s+\S"))
    # What networkd will set up when a link comes that isn't there now.
    yield from (int(text) for text in _in_network_files(root, r"^\s*(?:Route)?Table\s*=\s*(\d+)"))
    for file in (root / "etc/systemd").glob("networkd.conf*/**/*.conf"):
        yield from (int(text) for text in _matches(file, r"^\s*RouteTable\s*=.*:(\d+)"))


def _priorities(rules: list[Any], root: Path) -> Iterator[int]:
    yield from (int(rule.get_attr("FRA_PRIORITY") or 0) for rule in rules)
    yield from (int(text) for text in _in_network_files(root, r"^\s*Priority\s*=\s*(\d+)"))


# Files.


def _in_network_files(root: Path, pattern: str) -> Iterator[str]:
    for directory in _NETWORK_DIRECTORIES:
        networks = root / directory / "systemd/network"
        for file in (*networks.glob("*.network"), *networks.glob("*.network.d/*.conf")):
            yield from _matches(file, pattern)


def _matches(file: Path, pattern: str) -> list[str]:
    try:
        return re.findall(pattern, file.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return []


def _leftovers(links: list[Any], root: Path) -> Iterator[tuple[str, str]]:
    """Who has a file in the directories of the administrator, by its name (systemd.network(5))."""
    files = {
        file.name: file
        for directory in ("run", "etc")
        for file in (root / directory / "systemd/network").glob("*.network")
    }
    for name in sorted(str(link.get_attr("IFLA_IFNAME")) for link in links):
        for _, file in sorted(files.items()):
            patterns = " ".join(_matches(file, r"^\s*Name\s*=\s*(.*)$")).split()
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                yield name, f"/{file.relative_to(root)}"
                break


def _manager(index: int, name: str, root: Path) -> tuple[Manager, str | None]:
    """Who configures an interface, and by which file of networkd's."""
    state = _assignments(root / f"run/systemd/netif/links/{index}")
    file = state.get("NETWORK_FILE")
    if file and state.get("ADMIN_STATE") != "unmanaged":
        is_netplans = file.startswith("/run/") and "netplan" in file
        return (Manager.NETPLAN if is_netplans else Manager.NETWORKD), file
    if _assignments(root / f"run/NetworkManager/devices/{index}").get("managed") == "true":
        return Manager.NETWORK_MANAGER, None
    if any(found == name for found in _matches(root / "run/network/ifstate", r"^[^=\s]+=(\S+)")):
        return Manager.IFUPDOWN, None
    return Manager.NOBODY, None


def _assignments(file: Path) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in _matches(file, r"^\w+=.*$"))


def _udp_ports(root: Path) -> Iterator[int]:
    for name in ("udp", "udp6"):
        for port in _matches(root / "proc/net" / name, r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4})"):
            yield int(port, 16)


def _configured_ports(root: Path) -> Iterator[int]:
    """Of tunnels that may be stopped now."""
    for file in (root / "etc/glorytun").glob("*.conf"):
        yield from (int(text) for text in _matches(file, r"^\s*Port\s*=\s*(\d{1,5})\s*$"))


def _dropping() -> Iterator[str]:
    """Chains that drop what is forwarded, as libnftables-json(5) has them."""
    command = ("/usr/sbin/nft", "--json", "list", "chains")
    with suppress(OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        result = subprocess.run(command, capture_output=True, text=True, timeout=5)
        for item in json.loads(result.stdout)["nftables"]:
            chain = item.get("chain", {})
            if chain.get("hook") == "forward" and chain.get("policy") == "drop":
                yield f"{chain['family']} {chain['table']} {chain['name']}"


def _tunnels(root: Path) -> tuple[str, ...]:
    with suppress(OSError):
        names = (file.stem for file in (root / "etc/glorytun").glob("*.conf"))
        return tuple(sorted(name for name in names if is_device_name(name)))
    return ()


def _qdiscs(links: Iterable[Any], root: Path) -> Iterator[str]:
    """In use, built in, or there as a module (modprobe(8)'s lists)."""
    yield from (str(link.get_attr("IFLA_QDISC")) for link in links if link.get_attr("IFLA_QDISC"))
    modules = root / "lib/modules" / os.uname().release
    for name in ("modules.builtin", "modules.dep"):
        for found in _matches(modules / name, r"/sch_(\w+)\.ko"):
            if found in _QDISCS:
                yield found


def _number(text: str | None) -> int:
    return int(text) if text and text.lstrip("-").isdigit() else 0
