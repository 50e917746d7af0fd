"""Paths follow their interfaces, as networkd changes these."""

import time

from tests.lab.install import System
from tests.lab.tunnel import UNIT, Pair, booted, wan_file
from tests.netns.wait import wait_for

BACK = 2.0
"""Seconds from an address until the path from there runs."""


def test_a_new_address_moves_the_path(tunnel: Pair) -> None:
    """WAN address replaced, as by DHCP: the path runs from the new one in under 2 s."""
    client = tunnel.client
    client.configure("Local=wan0\nBeat=200ms", "Local=wan1")
    client.systemctl("reload", UNIT)
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


def test_a_modem_joins(tunnel: Pair) -> None:
    """An interface that fits a glob becomes a path when it appears."""
    client = tunnel.client
    client.configure("Local=wan0", "Local=wan1", "Local=wwan*\nState=up")
    client.systemctl("reload", UNIT)
    for end in tunnel.ends:
        end.network(*wan_file(2, end.role, name="wwan0"))
    tunnel.join("wwan0")
    client.wait_running(3)
    assert client.path_from("10.9.2.1")["condition"] == "running"
    assert not client.complaints()


def test_each_path_leaves_by_its_own_interface(pair: Pair) -> None:
    """Though the default route is over wan0, what the path of wan1 sends goes over wan1."""
    pair.client.configure("Local=wan0\nState=backup", "Local=wan1")
    pair.start(1)
    before = {name: pair.client.sent(name) for name in ("wan0", "wan1")}
    with pair.stream(rate=200) as stream:
        stream.flow(400, timeout=10)
    sent = {name: pair.client.sent(name) - count for name, count in before.items()}
    assert sent["wan1"] > 400 * 200
    assert sent["wan0"] < sent["wan1"] / 4


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
