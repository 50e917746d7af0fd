"""Hosts that are not as the others: without networkd, or with NetworkManager."""

from collections.abc import Iterator

import pytest

from tests.lab.install import System
from tests.lab.node import Node
from tests.lab.snapshot import Snapshot
from tests.lab.tunnel import UNIT
from tests.lab.wizard import KEY_FILE, remove, set_up_client, set_up_server, wizard
from tests.lab.world import SERVER_ADDRESS, World, world
from tests.netns.wait import wait_for

_NETWORKD = ("systemd-networkd.service", "systemd-networkd.socket")
_WAIT_ONLINE = "systemd-networkd-wait-online.service"
# As ifupdown or a provider's script would do it.
_BY_HAND = """
rm /etc/systemd/network/20-up0.network
systemctl unmask systemd-networkd-wait-online.service
systemctl disable --now systemd-networkd.service systemd-networkd.socket
ip address flush dev up0
ip address add 10.9.8.9/24 dev up0
ip route add default via 10.9.8.2
ip -6 route flush exact default
ip address replace fd09:8::9/64 dev up0 nodad
ip route add default via fd09:8::2
"""


@pytest.fixture
def made(system: System) -> Iterator[World]:
    """Booted for one test."""
    with world(system) as made:
        yield made


def is_enabled(node: Node, unit: str) -> bool:
    """Whether a unit starts at boot."""
    return node.run("systemctl", "is-enabled", unit, check=False).stdout == "enabled\n"


def test_a_server_without_networkd_gets_it(made: World) -> None:
    """It is started for the tunnel alone, no boot waits for it, and it goes again."""
    server = made.server
    server.run("sh", "-ec", _BY_HAND)
    before = Snapshot(server)
    set_up_server(server)
    assert all(is_enabled(server, unit) for unit in _NETWORKD)
    assert not is_enabled(server, _WAIT_ONLINE)
    assert " 10.9.8.9/24 " in server.run("ip", "-4", "address", "show", "up0").stdout
    assert "fwmark 0x80/0xff lookup 52" in server.run("ip", "rule").stdout
    assert "Nothing to do" in wizard(server, "edit", "tun0", "--yes").stdout
    set_up_client(made.client, SERVER_ADDRESS, "--through=everything")
    remove(made.client)
    remove(server)
    before.assert_same()


def test_an_interface_of_somebody_elses_is_no_wan(made: World) -> None:
    """Said with the name of who has it, and nothing is changed."""
    client = made.client
    index = client.run("cat", "/sys/class/net/wan1/ifindex").stdout.strip()
    client.run("rm", "/etc/systemd/network/20-wan1.network")
    client.run("networkctl", "reload")
    wait_for(
        lambda: "unmanaged" in client.run("networkctl", "--no-legend", "list", "wan1").stdout,
        timeout=5,
        what="wan1 without networkd",
    )
    client.run("ip", "address", "flush", "dev", "wan1")
    client.run("ip", "address", "add", "10.9.1.1/24", "dev", "wan1")
    client.run("ip", "route", "add", "default", "via", "10.9.1.2", "metric", "200")
    client.write(f"/run/NetworkManager/devices/{index}", "[device]\nmanaged=true\n")
    before = Snapshot(client)
    result = set_up_client(client, SERVER_ADDRESS, "--wans=wan0,wan1", check=False)
    assert result.returncode == 1
    assert "NetworkManager" in result.stderr
    before.assert_same()


def test_the_unit_of_the_original_is_not_taken_for_ours(made: World) -> None:
    """It lies where it counts before the package's."""
    server = made.server
    unit = "/etc/systemd/system/glorytun@.service"
    server.write(unit, "[Service]\nExecStart=/bin/sleep infinity\n")
    server.systemctl("daemon-reload")
    before = Snapshot(server)
    result = wizard(server, "--yes", "--role=server", f"--key-file={KEY_FILE}", check=False)
    assert result.returncode == 1
    assert f"{unit} is another program's" in result.stderr
    before.assert_same()


def test_a_server_is_up_without_a_client(made: World) -> None:
    set_up_server(made.server)
    assert made.server.shown("ActiveState") == "active"
    assert is_enabled(made.server, UNIT)


def test_what_others_came_to_need_stays(made: World) -> None:
    """networkd, which has another interface by now, and forwarding, which another file sets."""
    server = made.server
    server.run("sh", "-ec", _BY_HAND)
    set_up_server(server)
    server.write("/etc/sysctl.d/90-mine.conf", "net.ipv4.ip_forward = 1\n")
    address = "Address=10.9.8.9/24\nIPv6AcceptRA=no\n[Route]\nGateway=10.9.8.2\n"
    server.write("/etc/systemd/network/20-up0.network", f"[Match]\nName=up0\n[Network]\n{address}")
    server.run("networkctl", "reload")
    wait_for(
        lambda: "unmanaged" not in server.run("networkctl", "--no-legend", "list", "up0").stdout,
        timeout=5,
        what="up0 with networkd",
    )
    dry = wizard(server, "remove", "tun0", "--dry-run").stdout
    said = wizard(server, "remove", "tun0", "--yes").stdout
    for text in (dry, said):
        assert "systemd-networkd stays as it is: it configures up0 too." in text
        assert "net/ipv4/ip_forward stays as it is: /etc/sysctl.d/90-mine.conf sets it" in text
        assert "net/ipv6/conf/all/forwarding becomes 0 again." in text
    assert is_enabled(server, _NETWORKD[0])
    assert server.shown("ActiveState", _NETWORKD[0]) == "active"
    forwarding = "cd /proc/sys/net; cat ipv4/ip_forward ipv4/conf/up0/forwarding"
    assert server.run("sh", "-c", forwarding).stdout == "1\n1\n"
    assert server.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").stdout == "0\n"


def test_removed_while_networkd_is_stopped_no_rule_is_left(made: World) -> None:
    client = made.client
    set_up_server(made.server)
    rules = ("sh", "-c", "ip -4 rule; ip -6 rule")
    before = client.run(*rules).stdout
    set_up_client(client, SERVER_ADDRESS, "--through=everything")
    assert client.run(*rules).stdout != before
    client.systemctl("stop", *_NETWORKD)
    remove(client)
    assert client.run(*rules).stdout == before
