"""What can't work on a host, said before anything is changed."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network

import pytest

from glorytun_setup.model import Facts, Link, Manager, Plan, Role, Through
from glorytun_setup.validate import find_host_problems, find_problems
from tests.unit.setup.golden import SAMPLES, Sample
from tests.unit.setup.samples import (
    CLIENT,
    LAN0,
    SERVER,
    UPLINK,
    WAN0,
    WAN1,
    client_plan,
    facts,
    link,
    server_plan,
)

DUAL = "10.77.0.2/30 fd77::2/64"


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_plans_that_work_have_no_problem(sample: Sample) -> None:
    assert not find_host_problems(sample.host)
    found = find_problems(sample.plan(), sample.host)
    assert not [problem for problem in found if not problem.is_warning]


HOSTS = [
    ({"is_root": False}, "this needs root (`sudo glorytun-setup`)"),
    ({"systemd_version": 0}, "systemd doesn't run this host, so that there are no services"),
    ({"has_bus": False}, "the system bus doesn't answer (`apt install dbus`, `systemctl start"),
    ({"has_networkd": False}, "systemd-networkd isn't installed"),
    ({"has_networkd": False, "networkd_masked": True}, "(`systemctl unmask systemd-networkd`"),
    ({"is_packaged": False, "program": "/root/.venv/bin/glorytun"}, "is where a service can't see"),
    ({"is_packaged": False, "program": "/home/me/bin/glorytun"}, "(install it below /opt or"),
    ({"is_packaged": False, "program": "/opt/my venv/glorytun"}, "can't stand in a unit file"),
    ({"is_packaged": False, "program": "/opt/%i/glorytun"}, "'/opt/%i/glorytun' can't stand in"),
]


@pytest.mark.parametrize(("changes", "message"), HOSTS)
def test_a_host_that_lacks_something_is_told(changes: dict[str, object], message: str) -> None:
    found = find_host_problems(replace(CLIENT, **changes))  # type: ignore[arg-type]  # of a table
    assert [problem for problem in found if message in str(problem)]
    assert len(found) == 1


def test_a_packaged_program_may_lie_anywhere() -> None:
    assert not find_host_problems(replace(CLIENT, program="/root/bin/glorytun"))


def busy(*links: Link, **changes: object) -> Facts:
    """The client's host after it changed."""
    return replace(facts(WAN0, WAN1, *links), **changes)  # type: ignore[arg-type]  # of a table


SAME_FILE = replace(WAN1, network_file=WAN0.network_file)
ERRORS: list[tuple[Callable[[], Plan], Facts, str]] = [
    (client_plan, busy(tunnels=("tun0",)), "name 'tun0' is a tunnel already"),
    (client_plan, busy(udp_ports=frozenset({5000})), "port '5000' is taken by another program"),
    (client_plan, busy(tables=frozenset({7101})), "table '7101' is in use"),
    (client_plan, busy(rule_priorities=frozenset({7109})), "priority '7100' is too near to the"),
    (client_plan, facts(WAN0), "interface 'wan1' is no interface of this host"),
    (
        client_plan,
        busy(routes=(ip_network("10.105.144.225/32"),)),
        "address '10.105.144.226/30' overlaps 10.105.144.225/32",
    ),
    (
        client_plan,
        busy(link("lan0", "10.105.0.1/16")),
        "address '10.105.144.226/30' overlaps 10.105.0.0/16",
    ),
    (lambda: client_plan(server="10.105.144.225"), CLIENT, "lies inside the tunnel itself"),
    (lambda: replace(client_plan(), wans=()), CLIENT, "there is no interface to send by (name"),
    (lambda: replace(client_plan(), inside4=None), CLIENT, "the tunnel has no address (give it"),
    (
        lambda: client_plan(server="2001:db8:9::9", wans="wan0"),
        CLIENT,
        "wan0 has no IPv6, and the server 2001:db8:9::9 nothing else (name the server, or leave",
    ),
    (
        lambda: client_plan(through="2001:db8:aa::/48"),
        CLIENT,
        "2001:db8:aa::/48 can't go through the tunnel, which has no IPv6 addresses",
    ),
    (
        lambda: client_plan(through="10.105.144.224/31"),
        CLIENT,
        "10.105.144.224/31 is in the tunnel's own 10.105.144.224/30",
    ),
    (
        lambda: client_plan(through="10.9.1.128/25"),
        CLIENT,
        "10.9.1.128/25 would never go through the tunnel: this host has a route to 10.9.1.0/24",
    ),
    (
        lambda: client_plan(facts(WAN0, SAME_FILE)),
        facts(WAN0, SAME_FILE),
        "wan0 and wan1 are configured by one file, /etc/systemd/network/20-wan0.network",
    ),
    (server_plan, replace(SERVER, has_nft=False), "takes nft, which isn't installed (`apt install"),
    (
        lambda: replace(server_plan(), through=Through.EVERYTHING),
        SERVER,
        "a server can't send everything to its client",
    ),
]


@pytest.mark.parametrize(("make", "host", "message"), ERRORS, ids=[row[2] for row in ERRORS])
def test_what_speaks_against_a_plan_is_said(
    make: Callable[[], Plan], host: Facts, message: str
) -> None:
    found = [str(problem) for problem in find_problems(make(), host) if not problem.is_warning]
    assert [text for text in found if message in text], found


WARNINGS: list[tuple[Callable[[], Plan], Facts, str]] = [
    (client_plan, CLIENT, "IPv6 goes past the tunnel, which has IPv4 addresses only"),
    (
        lambda: client_plan(server="2001:db8:9::9", addresses=DUAL),
        CLIENT,
        "wan0 has no IPv6, and the server 2001:db8:9::9 nothing else",
    ),
    (
        lambda: replace(server_plan(), share4=True),
        facts(replace(UPLINK, gateway4=None, gateway6=None)),
        "this host has no default route, so that it has no Internet to share",
    ),
    (
        lambda: server_plan(server="192.168.1.9"),
        SERVER,
        "192.168.1.9 is a private address, by which clients elsewhere don't reach this server",
    ),
    (
        server_plan,
        replace(SERVER, dropping=("ip filter FORWARD",)),
        "a firewall here drops what is forwarded (ip filter FORWARD of nftables), unless a rule "
        "lets it",
    ),
]


@pytest.mark.parametrize(("make", "host", "message"), WARNINGS, ids=[row[2] for row in WARNINGS])
def test_what_may_be_meant_so_is_a_warning(
    make: Callable[[], Plan], host: Facts, message: str
) -> None:
    found = find_problems(make(), host)
    assert [problem.message for problem in found] == [message]
    assert found[0].is_warning


FORWARDING = facts(WAN0, WAN1, LAN0, forwards=frozenset({4}))


def test_a_network_behind_a_client_is_not_cut_off_silently() -> None:
    """Without masquerade its packets come to a server that doesn't know where they are from."""
    assert not find_problems(client_plan(FORWARDING, through="172.16.0.0/12"), FORWARDING)
    plan = client_plan(FORWARDING, through="172.16.0.0/12", masquerade="no")
    (problem,) = find_problems(plan, FORWARDING)
    assert "this host forwards for 192.168.7.0/24, which gets no answer" in problem.message
    assert problem.is_warning
    bare = replace(FORWARDING, has_nft=False)
    (problem,) = find_problems(client_plan(bare, through="172.16.0.0/12"), bare)
    assert "`apt install nftables`" in problem.hint


def test_what_a_start_of_networkd_does_besides_is_said() -> None:
    host = replace(SERVER, leftovers=(("eth0", "/etc/systemd/network/20-x.network"),))
    (problem,) = find_problems(server_plan(host), host)
    assert "once networkd runs, it configures eth0 by /etc/systemd/net" in problem.message
    assert problem.is_warning


def test_a_server_without_ipv4_says_what_a_client_has_to() -> None:
    """Which proposes IPv4 by itself."""
    host = facts(replace(UPLINK, gateway4=None))
    plan = server_plan(host)
    assert [inside.own.version for inside in plan.insides] == [4, 6]
    (problem,) = find_problems(plan, host)
    assert "--through=::/0" in problem.hint


def test_the_unit_of_another_program_is_in_the_way() -> None:
    host = replace(CLIENT, foreign_unit="/etc/systemd/system/glorytun@.service")
    found = [str(each) for each in find_problems(client_plan(host), host) if not each.is_warning]
    assert len(found) == 1
    assert "glorytun@.service is another program's" in found[0]


def test_more_specific_local_routes_are_no_problem() -> None:
    """They stay local, within a network that goes through the tunnel."""
    host = busy(routes=(ip_network("172.16.5.0/24"), ip_network("172.0.0.0/16")))
    assert not find_problems(client_plan(host, through="172.16.0.0/12"), host)


@pytest.mark.parametrize("wide", [("10.0.0.0/8",), ("0.0.0.0/1", "128.0.0.0/1")])
def test_a_wider_route_is_less_specific_than_the_tunnels(wide: tuple[str, ...]) -> None:
    """Another tunnel's for everything, or a company's network; both ends still propose the same."""
    routes = (*SERVER.routes, *map(ip_network, wide))
    host = replace(SERVER, routes=routes)
    plan = server_plan(host)
    assert plan.insides == server_plan().insides
    assert not find_problems(plan, host)


def test_a_network_around_the_tunnels_own_may_go_through() -> None:
    """As the example of docs/setup.md, also once the tunnel is there."""
    plan = client_plan(through="10.64.0.0/10")
    assert not find_problems(plan, CLIENT)


def test_one_file_for_several_interfaces_is_enough_for_one_wan() -> None:
    """It needs no routes of its own."""
    host = facts(WAN0, SAME_FILE)
    assert not find_problems(client_plan(host, wans="wan0"), host)


@pytest.mark.parametrize("manager", [Manager.NETPLAN, Manager.NETWORK_MANAGER])
def test_one_wan_needs_no_networkd(manager: Manager) -> None:
    """It has the default route already; the tunnel's own files are enough."""
    host = facts(replace(WAN0, manager=manager, network_file=None))
    plan = client_plan(host)
    assert [wan.interface for wan in plan.wans] == ["wan0"]
    assert not find_problems(plan, host)
    strict = replace(host, rp_filter_all=1)
    assert "is configured by" in str(find_problems(plan, strict)[0])


def test_a_server_cares_for_no_wans() -> None:
    assert server_plan().role is Role.SERVER
    assert not find_problems(server_plan(), SERVER)
