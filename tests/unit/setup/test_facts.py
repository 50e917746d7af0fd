"""What the host's files and netlink tell. Whole hosts are looked at in tests/lab."""

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from glorytun_setup import facts
from glorytun_setup.facts import gather
from glorytun_setup.model import Manager

MODULES = f"lib/modules/{os.uname().release}"


class Message(dict[str, Any]):
    """What pyroute2 makes of a netlink message: a header, and attributes."""

    def __init__(self, attributes: dict[str, Any], **header: Any) -> None:
        super().__init__(header)
        self._attributes = attributes

    def get_attr(self, name: str) -> Any:
        return self._attributes.get(name)


def link(index: int, name: str, kind: str = "", **attributes: Any) -> Message:
    """A device."""
    info = {"IFLA_LINKINFO": Message({"IFLA_INFO_KIND": kind})} if kind else {}
    return Message({"IFLA_IFNAME": name, **info, **attributes}, index=index, flags=1)


def route(family: int, oif: int, **more: Any) -> Message:
    """A default route in main, made by somebody."""
    header = {"dst_len": 0, "type": 1, "proto": 4, "table": 254, **more.pop("header", {})}
    return Message({"RTA_OIF": oif, "RTA_TABLE": 254, **more}, family=family, **header)


@pytest.fixture
def netlink(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is read from there, for a test to fill."""
    found: dict[str, Any] = {"links": [], "addresses": [], "routes": [], "rules": []}
    monkeypatch.setattr(facts, "_read_netlink", lambda: (found["links"], found))
    return found


def write(root: Path, path: str, text: str) -> None:
    """A file of the host."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize(
    ("path", "text", "manager", "file"),
    [
        (
            "run/systemd/netif/links/2",
            "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/a.network\n",
            Manager.NETWORKD,
            "/etc/systemd/network/a.network",
        ),
        (
            "run/systemd/netif/links/2",
            "ADMIN_STATE=configuring\nNETWORK_FILE=/run/systemd/network/10-netplan-a.network\n",
            Manager.NETPLAN,
            "/run/systemd/network/10-netplan-a.network",
        ),
        ("run/systemd/netif/links/2", "ADMIN_STATE=unmanaged\n", Manager.NOBODY, None),
        (
            "run/NetworkManager/devices/2",
            "[device]\nmanaged=true\n",
            Manager.NETWORK_MANAGER,
            None,
        ),
        ("run/NetworkManager/devices/2", "[device]\nmanaged=false\n", Manager.NOBODY, None),
        ("run/network/ifstate", "lo=lo\nhome=a\n", Manager.IFUPDOWN, None),
        ("run/network/ifstate", "lo=lo\na=other\n", Manager.NOBODY, None),
    ],
)
def test_who_configures_an_interface(
    tmp_path: Path,
    netlink: dict[str, Any],
    path: str,
    text: str,
    manager: Manager,
    file: str | None,
) -> None:
    netlink["links"] = [link(2, "a")]
    write(tmp_path, path, text)
    (found,) = gather(None, root=tmp_path).links
    assert (found.manager, found.network_file) == (manager, file)


@pytest.mark.parametrize(
    ("kind", "attributes", "has_gateway", "may"),
    [
        ("", {}, False, True),
        ("vlan", {}, False, True),
        ("tun", {}, True, False),
        ("wireguard", {}, True, False),
        ("bridge", {}, False, False),
        ("bridge", {}, True, True),
        ("veth", {}, False, False),
        ("veth", {}, True, True),
        ("veth", {"IFLA_MASTER": 7}, True, False),
        ("", {"IFLA_MASTER": 7}, False, False),
    ],
)
def test_what_may_be_a_wan(
    tmp_path: Path,
    netlink: dict[str, Any],
    kind: str,
    attributes: dict[str, Any],
    has_gateway: bool,
    may: bool,
) -> None:
    """No tunnel, no port of a bridge, and no inner device unless the Internet is behind it."""
    netlink["links"] = [link(2, "a", kind, **attributes)]
    netlink["routes"] = [route(2, 2, RTA_GATEWAY="10.0.0.1")] if has_gateway else []
    (found,) = gather(None, root=tmp_path).links
    assert found.is_physical == may


def test_the_best_gateway_counts(tmp_path: Path, netlink: dict[str, Any]) -> None:
    """Of each family, from the main table alone, also where several share a route."""
    netlink["links"] = [link(2, "a"), link(3, "b")]
    hops = [
        Message({"RTA_GATEWAY": "10.1.0.1"}, oif=3),
        Message({"RTA_GATEWAY": "10.0.0.3"}, oif=2),
    ]
    netlink["routes"] = [
        route(2, 2, RTA_GATEWAY="10.0.0.1", RTA_PRIORITY=100, header={"proto": 16}),
        route(2, 2, RTA_GATEWAY="10.0.0.2", RTA_PRIORITY=50, RTA_TABLE=7),
        route(2, 0, RTA_MULTIPATH=hops, RTA_PRIORITY=200),
        route(10, 3, RTA_GATEWAY="fe80::1", RTA_PRIORITY=1024, header={"proto": 9}),
        route(2, 3, header={"type": 7}),
    ]
    a, b = gather(None, root=tmp_path).links
    assert a.gateway4
    assert (str(a.gateway4.address), a.gateway4.source, a.gateway4.metric) == (
        "10.0.0.1",
        "dhcp",
        100,
    )
    assert a.gateway6 is None
    assert b.gateway4
    assert (str(b.gateway4.address), b.gateway4.source, b.gateway4.metric) == (
        "10.1.0.1",
        "static",
        200,
    )
    assert b.gateway6
    assert (str(b.gateway6.address), b.gateway6.source) == ("fe80::1", "ra")


def test_addresses_that_will_not_last_are_left_out(tmp_path: Path, netlink: dict[str, Any]) -> None:
    def address(text: str, flags: int = 0, scope: int = 0) -> Message:
        return Message(
            {"IFA_ADDRESS": text, "IFA_FLAGS": flags}, index=2, scope=scope, flags=0, prefixlen=64
        )

    netlink["links"] = [link(2, "a")]
    netlink["addresses"] = [
        address("2001:db8::1"),
        address("2001:db8::2", flags=0x1),
        address("2001:db8::3", flags=0x20),
        address("2001:db8::4", flags=0x40),
        address("fe80::1", scope=253),
        Message(
            {"IFA_LOCAL": "10.0.0.1", "IFA_ADDRESS": "10.0.0.2"},
            index=2,
            scope=0,
            flags=0,
            prefixlen=32,
        ),
    ]
    (found,) = gather(None, root=tmp_path).links
    assert list(map(str, found.addresses)) == ["2001:db8::1/64", "10.0.0.1/32"]


def test_tables_and_priorities_that_files_take(tmp_path: Path, netlink: dict[str, Any]) -> None:
    """Also of links that aren't there now."""
    rule = Message({"FRA_TABLE": 11, "FRA_PRIORITY": 500}, table=11)
    netlink["rules"] = [rule]
    netlink["routes"] = [route(2, 2, RTA_TABLE=12, header={"table": 12})]
    write(tmp_path, "etc/iproute2/rt_tables", "# a comment\n255\tlocal\n13 isp\n")
    write(tmp_path, "etc/iproute2/rt_tables.d/x.conf", "14 other\n")
    write(
        tmp_path,
        "usr/lib/systemd/network/a.network",
        "[Route]\nTable=15\n[DHCPv4]\nRouteTable=16\n",
    )
    drop_in = "[RoutingPolicyRule]\nPriority=600\nTable = 17\n#Table=99\n"
    write(tmp_path, "run/systemd/network/a.network.d/b.conf", drop_in)
    write(tmp_path, "etc/systemd/networkd.conf.d/c.conf", "[Network]\nRouteTable=isp:18\n")
    found = gather(None, root=tmp_path)
    assert found.tables == {11, 12, 13, 14, 15, 16, 17, 18, 253, 254, 255}
    assert found.rule_priorities == {500, 600}


def test_destinations(tmp_path: Path, netlink: dict[str, Any]) -> None:
    """Of all tables but the kernel's own, and without what every link has."""

    def to(text: str, length: int, **more: Any) -> Message:
        family = 10 if ":" in text else 2
        header = {"dst_len": length, **more.pop("header", {})}
        return route(family, 2, RTA_DST=text, header=header, **more)

    netlink["routes"] = [
        route(2, 2),
        to("10.1.0.0", 16),
        to("10.2.0.0", 16, RTA_TABLE=77),
        to("10.3.0.1", 32, RTA_TABLE=255),
        to("fe80::", 64),
        to("ff00::", 8, header={"type": 5}),
        to("2001:db8::", 32),
    ]
    expected = ("10.1.0.0/16", "10.2.0.0/16", "2001:db8::/32")
    assert gather(None, root=tmp_path).routes == tuple(map(ip_network, expected))


def test_ports_tunnels_and_queue_disciplines(tmp_path: Path, netlink: dict[str, Any]) -> None:
    netlink["links"] = [link(2, "a", IFLA_QDISC="mq")]
    line = "  {0}: {1} 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 x 0\n"
    write(tmp_path, "proc/net/udp", "  sl  local\n" + line.format(123, "0100007F:1388"))
    write(tmp_path, "proc/net/udp6", "  sl  local\n" + line.format(7, f"{'0' * 32}:0044"))
    for name in ("tun1.conf", "tun0.conf", "tun0.key", "not a name.conf"):
        write(tmp_path, f"etc/glorytun/{name}", "")
    write(tmp_path, f"{MODULES}/modules.builtin", "kernel/net/sched/sch_fq_codel.ko\n")
    write(tmp_path, f"{MODULES}/modules.dep", "kernel/net/sched/sch_cake.ko.xz:\nx/sch_htb.ko:\n")
    found = gather(None, root=tmp_path)
    assert found.udp_ports == {5000, 68}
    assert found.tunnels == ("tun0", "tun1")
    assert found.qdiscs == {"mq", "fq_codel", "cake"}


def test_a_host_without_anything(tmp_path: Path, netlink: dict[str, Any]) -> None:
    """No systemd, no bus, no package."""
    found = gather(None, root=tmp_path)
    assert not found.has_bus
    assert not found.has_networkd
    assert not found.is_packaged
    assert not found.has_nft
    assert found.systemd_version == 0
    assert found.links == ()


def test_this_host_can_be_read(tmp_path: Path) -> None:
    """Whatever it is: netlink of a real kernel."""
    found = gather(None)
    assert "lo" not in [each.name for each in found.links]
    assert {253, 254, 255} <= found.tables
    assert Path(found.program).is_absolute()


OURS = "[Service]\nExecStart=/usr/bin/glorytun run %i\n"
ORIGINAL = "[Service]\nExecStart=/usr/local/bin/glorytun-run %i\n"
PACKAGED = "usr/lib/systemd/system/glorytun@.service"
BEFORE_IT = "etc/systemd/system/glorytun@.service"


@pytest.mark.parametrize(
    ("units", "is_packaged", "foreign"),
    [
        ({PACKAGED: OURS}, True, ""),
        ({PACKAGED: ORIGINAL}, False, ""),
        ({PACKAGED: OURS, BEFORE_IT: ORIGINAL}, True, f"/{BEFORE_IT}"),
        ({PACKAGED: OURS, BEFORE_IT: f"{OURS}Environment=A=b\n"}, True, ""),
        ({PACKAGED: OURS, BEFORE_IT: ""}, True, f"/{BEFORE_IT}"),
        ({BEFORE_IT: ORIGINAL}, False, ""),
        ({}, False, ""),
    ],
)
def test_the_unit_that_counts_is_looked_at(
    tmp_path: Path,
    netlink: dict[str, Any],
    units: dict[str, str],
    is_packaged: bool,
    foreign: str,
) -> None:
    """The original's has the same name as ours, and so has one that is masked."""
    for path, text in units.items():
        write(tmp_path, path, text)
    found = gather(None, root=tmp_path)
    assert (found.is_packaged, found.foreign_unit) == (is_packaged, foreign)


def test_files_that_would_take_effect(tmp_path: Path, netlink: dict[str, Any]) -> None:
    """When networkd is started; the first in the order of their names, and not a vendor's."""
    netlink["links"] = [link(2, "eth0"), link(3, "wlan0"), link(4, "lan0")]
    write(tmp_path, "etc/systemd/network/20-b.network", "[Match]\nName=en* eth*\n")
    write(tmp_path, "run/systemd/network/10-a.network", "[Match]\nName = eth0\n")
    write(tmp_path, "usr/lib/systemd/network/80-c.network", "[Match]\nName=lan0\n")
    found = gather(None, root=tmp_path).leftovers
    assert found == (("eth0", "/run/systemd/network/10-a.network"),)


def test_ports_of_stopped_tunnels_are_taken(tmp_path: Path, netlink: dict[str, Any]) -> None:
    write(tmp_path, "etc/glorytun/tun0.conf", "[Tunnel]\nPeerPort=5001\nPort=5007\n")
    write(tmp_path, "etc/glorytun/tun1.conf", "[Tunnel]\n#Port=5008\n Port = 5009 \n")
    assert gather(None, root=tmp_path).udp_ports == {5007, 5009}
