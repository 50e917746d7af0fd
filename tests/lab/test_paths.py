"""Paths follow their interfaces, as networkd changes these."""

import time

import pytest

from tests.lab.install import System
from tests.lab.tunnel import (
    PORT,
    SERVER_ADDRESS,
    SERVER_ADDRESS_6,
    UNIT,
    End,
    Pair,
    booted,
    wan_address,
    wan_file,
)
from tests.netns.topology import Family
from tests.netns.wait import wait_for

BACK = 2.0
"""Seconds from an address until the path from there runs."""


def test_a_new_address_moves_the_path(tunnel: Pair) -> None:
    """WAN address replaced, as by DHCP: the path runs from the new one in under 2 s."""
    client = tunnel.client
    client.reconfigure("Local=wan0\nBeat=200ms", "Local=wan1")
    with tunnel.flow() as flow, tunnel.stream() as stream:
        client.network(*wan_file(0, "client", address="10.9.0.33"))
        client.wait_address("10.9.0.33")
        replaced = time.monotonic()
        wait_for(
            lambda: client.path_from("10.9.0.33"), timeout=5, what="a path from the new address"
        )
        client.wait_running(2)
        assert time.monotonic() - replaced < BACK
        assert not client.path_from("10.9.0.1"), "the path from the old address is still there"
        assert client.path_from("10.9.0.33")["settings"]["beat"] == 0.2, "it lost its settings"
        stream.flow(100)
        flow.go_on()
    assert stream.report.lost_after(replaced) < BACK, str(stream.report)


def test_the_only_path_moves(pair: Pair) -> None:
    """The same with no other path to help: the transfer goes on."""
    pair.client.configure("Local=wan0")
    pair.start(1)
    with pair.flow() as flow, pair.stream() as stream:
        pair.client.network(*wan_file(0, "client", address="10.9.0.33"))
        pair.client.wait_address("10.9.0.33")
        replaced = time.monotonic()
        stream.flow(100, timeout=10)
        flow.go_on()
    assert stream.report.lost_after(replaced) < BACK, str(stream.report)
    assert flow.resumed_after(replaced) < BACK


def test_an_interface_comes_back(tunnel: Pair) -> None:
    """Removed and added again: its path ends, and is back in under 2 s."""
    client = tunnel.client
    with tunnel.flow() as flow:
        client.run("ip", "link", "delete", "wan1")
        client.wait_running(1)
        flow.go_on()
        tunnel.join("wan1")
        client.wait_address("10.9.1.1")
        back = time.monotonic()
        client.wait_running(2)
        assert time.monotonic() - back < BACK
        flow.go_on()


def test_the_only_interface_comes_back(pair: Pair) -> None:
    """The same with no other path to help: the transfer goes on."""
    pair.client.configure("Local=wan0")
    pair.start(1)
    with pair.flow() as flow, pair.stream() as stream:
        pair.client.run("ip", "link", "delete", "wan0")
        wait_for(lambda: not pair.client.ask("path")["paths"], timeout=5, what="no path")
        pair.join("wan0")
        pair.client.wait_address("10.9.0.1")
        back = time.monotonic()
        stream.flow(100, timeout=10)
        flow.go_on()
    assert stream.report.lost_after(back) < BACK, str(stream.report)
    assert flow.resumed_after(back) < BACK


def test_a_link_without_a_carrier_is_away(tunnel: Pair) -> None:
    """Its path ends at once, though networkd leaves the address; it is back in under 2 s."""
    client = tunnel.client
    client.network(*wan_file(1, "client", network="IgnoreCarrierLoss=yes\n"))
    client.wait_online("wan1")
    tunnel.wait_running(2)
    with tunnel.flow() as flow, tunnel.stream() as stream:
        stream.flow(50)
        tunnel.server.run("ip", "link", "set", "wan1", "down")
        cut = time.monotonic()
        wait_for(lambda: not client.path_from("10.9.1.1"), timeout=5, what="one path")
        stream.flow(100)
        assert "10.9.1.1" in client.run("ip", "-4", "address", "show", "dev", "wan1").stdout
        assert stream.report.lost_after(cut) < BACK, str(stream.report)
        tunnel.server.run("ip", "link", "set", "wan1", "up")
        back = time.monotonic()
        client.wait_running(2)
        assert time.monotonic() - back < BACK
        flow.go_on()


def test_what_was_set_by_hand_is_kept(tunnel: Pair) -> None:
    """While a link goes down and comes up, with another address too; a reload ends it."""
    client = tunnel.client

    def settings(address: str) -> tuple[float, int]:
        path = client.wait_path(address, timeout=BACK)
        return path["settings"]["beat"], path["settings"]["rate_tx"]

    client.run("glorytun", "path", "10.9.1.1", "beat", "300ms", "rate", "tx", "8mbit")
    with tunnel.flow() as flow:
        client.run("ip", "link", "set", "wan1", "down")
        wait_for(lambda: not client.path_from("10.9.1.1"), timeout=5, what="one path")
        client.run("ip", "link", "set", "wan1", "up")
        assert settings("10.9.1.1") == (0.3, 1_000_000)
        client.network(*wan_file(1, "client", address="10.9.1.33"))
        client.wait_address("10.9.1.33")
        assert settings("10.9.1.33") == (0.3, 1_000_000)
        client.systemctl("reload", UNIT)
        assert settings("10.9.1.33") == (0.1, 0)
        flow.go_on()


def test_a_path_that_was_made_by_hand_stays(pair: Pair) -> None:
    """The file doesn't mean its interface, and other links come and go."""
    client = pair.client
    client.configure("Local=wan0")
    pair.start(1)
    client.run("glorytun", "path", "up", "10.9.1.1")
    pair.wait_running(2)
    client.run("ip", "link", "set", "wan0", "down")
    pair.wait_running(1)
    assert client.path_from("10.9.1.1")["condition"] == "running"
    client.run("ip", "link", "set", "wan0", "up")
    pair.wait_running(2)


def test_a_path_may_have_its_own_peer(pair: Pair) -> None:
    """`Peer=` of a section: another address of the server, of its own or for a second path."""
    client = pair.client
    client.configure(
        "Local=wan0", "Local=wan1\nPeer=10.9.1.2", "Local=wan0\nPeer=10.9.0.2\nState=backup"
    )
    pair.start(2)
    assert _ends(client) == {
        ("10.9.0.1", SERVER_ADDRESS),
        ("10.9.1.1", "10.9.1.2"),
        ("10.9.0.1", "10.9.0.2"),
    }
    with pair.stream() as stream:
        stream.flow(50)
        client.reconfigure("Local=wan0\nPeer=10.9.0.2", "Local=wan1")
        client.wait_running(2)
        stream.flow(50)
    assert not stream.report.lost, str(stream.report)
    assert _ends(client) == {("10.9.0.1", "10.9.0.2"), ("10.9.1.1", SERVER_ADDRESS)}


def _ends(end: End) -> set[tuple[str, str]]:
    paths = end.ask("path")["paths"]
    return {(path["local"], path["remote"]["address"]) for path in paths}


def test_datagrams_carry_the_mark(pair: Pair) -> None:
    """`FirewallMark=`: a policy rule lets nothing pass to the server without it."""
    client = pair.client
    # Without a route the kernel looks for a neighbour (ip_route_output_key_hash_rcu()), in vain.
    pair.server.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")
    client.run("ip", "rule", "add", "priority", "10", "fwmark", "0x2a", "lookup", "main")
    client.run("ip", "rule", "add", "priority", "11", "to", SERVER_ADDRESS, "blackhole")
    client.configure("Local=wan0", "Local=wan1", tunnel="FirewallMark=42\n")
    pair.start()
    assert client.udp_sockets()[PORT]["fwmark"] == "0x2a"
    with pair.stream() as stream:
        client.reconfigure("Local=wan0", "Local=wan1")
        client.wait_running(0)
        client.reconfigure("Local=wan0", "Local=wan1", tunnel="FirewallMark=0x2a\n")
        stream.flow(100, timeout=10)


def test_a_modem_joins(tunnel: Pair) -> None:
    """An interface that fits a glob becomes a path when it appears."""
    client = tunnel.client
    client.reconfigure("Local=wan0", "Local=wan1", "Local=wwan*\nState=up")
    for end in tunnel.ends:
        end.network(*wan_file(2, end.role, name="wwan0"))
    tunnel.join("wwan0")
    client.wait_running(3)
    assert client.path_from("10.9.2.1")["condition"] == "running"
    assert not client.complaints()


@pytest.mark.parametrize("family", [4, 6])
def test_each_path_leaves_by_its_own_interface(pair: Pair, family: Family) -> None:
    """Though the default route is over wan0, what the path of wan1 sends goes over wan1."""
    client = pair.client
    if family == 6:
        pair.use_ipv6()
    server = SERVER_ADDRESS if family == 4 else SERVER_ADDRESS_6
    client.configure("Local=wan0\nState=backup", "Local=wan1", server=server)
    pair.start(1)
    client.wait_path(wan_address(1, "client", family))
    before = {name: client.sent(name) for name in ("wan0", "wan1")}
    with pair.stream(rate=200) as stream:
        stream.flow(400, timeout=10)
    sent = {name: client.sent(name) - count for name, count in before.items()}
    assert sent["wan1"] > 400 * 200
    assert sent["wan0"] < sent["wan1"] / 4


def test_a_deprecated_address_gives_way(pair: Pair) -> None:
    """IPv6 alone; a router announces another prefix, and soon withdraws the one in use."""
    client = pair.client
    pair.use_ipv6()
    client.configure("Local=wan1", server=SERVER_ADDRESS_6)
    pair.start(1)
    old, new = wan_address(1, "client", 6), "fd00:9:a1::33"
    lasting = ("valid_lft", "600", "preferred_lft")
    with pair.flow() as flow, pair.stream() as stream:
        client.run("ip", "address", "add", f"{new}/64", "dev", "wan1", *lasting, "600")
        client.wait_address(new)
        assert client.path_from(old), "the path moved though its address is as good as ever"
        deprecated = time.monotonic()
        client.run("ip", "address", "change", f"{old}/64", "dev", "wan1", *lasting, "0")
        client.wait_path(new, timeout=BACK)
        assert not client.path_from(old)
        stream.flow(100)
        flow.go_on()
    assert stream.report.lost_after(deprecated) < BACK, str(stream.report)


def test_networkd_may_restart(tunnel: Pair) -> None:
    """networkd restarted on both: no packet is lost."""
    with tunnel.stream() as stream:
        for end in tunnel.ends:
            end.systemctl("restart", "systemd-networkd")
            end.wait_online("wan0", "wan1")
            stream.flow(100)
    assert not stream.report.lost, str(stream.report)
    assert len(tunnel.client.paths()) == 2


def test_links_may_come_after_the_boot(system: System) -> None:
    """Boot doesn't wait for them, and the tunnel comes up by itself."""
    with booted(system, wans=0, enabled=True) as pair:
        for end in pair.ends:
            assert end.systemctl("is-system-running") == "running\n"
            assert end.shown("ActiveState") == "active"
        pair.join("wan1")
        pair.wait_running(1)
        pair.join("wan0")
        pair.wait_running(2)
        assert pair.client.shown("NRestarts") == "0"


def test_a_reboot_needs_nobody(system: System) -> None:
    """Enabled once, it is there after a boot, with the TUN that networkd made."""
    with booted(system, enabled=True) as pair:
        pair.wait_running(2)
        owner = pair.client.run("id", "-u", "glorytun").stdout
        assert pair.client.run("cat", "/sys/class/net/tun0/owner").stdout == owner
