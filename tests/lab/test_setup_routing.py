"""Where packets go once the wizard has sent everything through the tunnel; see docs/routing.md."""

import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.install import System
from tests.lab.node import Node
from tests.lab.tunnel import UNIT
from tests.lab.wizard import set_up_client, set_up_server, wizard
from tests.lab.world import (
    INTERNET,
    SERVER_ADDRESS,
    STATIC,
    Connection,
    World,
    address_of,
    has_gateway,
    world,
)
from tests.netns.topology import FAMILIES, Family
from tests.netns.wait import wait_for

LAN = "192.168.7.50"
"""A host behind the client, which is in a network namespace of the client's node."""
_MAKE_LAN = f"""
ip netns add lan
ip link add lan0 type veth peer name eth0 netns lan
ip -n lan addr add {LAN}/24 dev eth0
ip -n lan link set eth0 up
ip -n lan route add default via 192.168.7.1
echo 1 > /proc/sys/net/ipv4/ip_forward
"""
_PASSED = "cat /sys/class/net/tun0/statistics/tx_packets"
_CALL = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:
    print(connection.getsockname()[0])
"""


@dataclass(frozen=True, slots=True)
class Home:
    """The world with its tunnel, and connections to the client from before that."""

    world: World
    earlier: tuple[Connection, ...]

    def assert_connected(self) -> None:
        """All earlier connections still carry data."""
        for connection in self.earlier:
            connection.says(b"still here?")

    def wait_paths(self) -> None:
        """Until the paths of both WANs run."""
        self.world.client.wait_running(2, timeout=20)


@pytest.fixture(scope="module")
def home(system: System) -> Iterator[Home]:
    """Everything goes through the tunnel. A test leaves it as it found it."""
    with world(system) as made:
        made.client.run("sh", "-ec", _MAKE_LAN)
        earlier = [
            made.connect(4, made.dhcp_address()),
            *(made.connect(f, STATIC[f]) for f in FAMILIES),
        ]
        set_up_server(made.server, "--addresses=10.77.0.1/24,fd77::1/64")
        set_up_client(
            made.client,
            SERVER_ADDRESS,
            "--through=everything",
            "--addresses=10.77.0.2/24,fd77::2/64",
        )
        home = Home(made, tuple(earlier))
        home.wait_paths()
        made.wait_online()
        yield home
        for connection in earlier:
            connection.close()


def seen_from(node: Node, world: World, family: Family, *, netns: str = "") -> tuple[str, str]:
    """The address from which a connection comes to the Internet, and the one it was made from."""
    with world.provider.socket(family, socket.SOCK_STREAM) as listener:
        listener.settimeout(5)
        listener.bind((INTERNET[family], 0))
        listener.listen(1)
        port = str(listener.getsockname()[1])
        inside = ("ip", "netns", "exec", netns) if netns else ()
        call = ("python3", "-c", _CALL, INTERNET[family], port)
        with subprocess.Popen(node.command([*inside, *call]), stdout=subprocess.PIPE) as caller:
            connection, peer = listener.accept()
            connection.close()
            assert caller.stdout
            return str(peer[0]), caller.stdout.read().decode().strip()


def way(node: Node, *words: str) -> str:
    """The device that a packet leaves by; empty without a route."""
    shown = node.run("ip", "route", "get", *words, check=False).stdout
    found = re.search(r" dev (\S+)", shown)
    return found[1] if found else ""


def test_connections_from_before_go_on(home: Home) -> None:
    """Such as the SSH session that ran the wizard, over each WAN and in both families."""
    home.assert_connected()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_sent_comes_out_of_the_server(home: Home, family: Family) -> None:
    """Forwarded, with the server's own address."""
    inside = {4: "10.77.0.2", 6: "fd77::2"}
    outside = address_of(home.world.server, "up0", family)
    assert seen_from(home.world.client, home.world, family) == (outside, inside[family])


def test_what_is_forwarded_goes_through_the_tunnel(home: Home) -> None:
    """From a network behind the client, of which the server knows nothing."""
    seen = seen_from(home.world.client, home.world, 4, netns="lan")
    assert seen == (SERVER_ADDRESS, LAN)
    ping = ("ip", "netns", "exec", "lan", "ping", "-n", "-q", "-c", "1", "-W", "2")
    home.world.client.run(*ping, INTERNET[4])


def test_local_networks_stay_local(home: Home) -> None:
    client = home.world.client
    assert way(client, "192.168.7.50") == "lan0"
    assert way(client, "10.9.1.2") == "wan1"
    assert way(client, "fd09::2") == "wan0"


def test_each_path_leaves_by_its_own_gateway(home: Home) -> None:
    """Also by DHCP and router advertisements, in both families."""
    client = home.world.client
    wait_for(
        lambda: client.run("ip", "-6", "route", "show", "table", "7101").stdout,
        timeout=10,
        what="a router advertisement",
    )
    for device, family in (("wan0", 4), ("wan1", 4), ("wan0", 6), ("wan1", 6)):
        own = address_of(client, device, 4 if family == 4 else 6)
        to = INTERNET[4 if family == 4 else 6]
        assert way(client, to, "from", own) == device
        assert way(client, to, "from", own, "oif", device) == device
    assert way(client, INTERNET[4]) == way(client, INTERNET[6]) == "tun0"


def test_who_connects_is_answered_over_the_same_wan(home: Home) -> None:
    """New connections to each address, while everything goes through the tunnel."""
    made = home.world
    new = [made.connect(4, made.dhcp_address()), *(made.connect(f, STATIC[f]) for f in FAMILIES)]
    for connection in new:
        connection.says(b"hello")
        connection.close()


def test_strict_reverse_path_filters_let_it_work(home: Home) -> None:
    """On every interface, for what the host itself sends."""
    client = home.world.client
    files = "/proc/sys/net/ipv4/conf/*/rp_filter"
    client.run("sh", "-c", f"for file in {files}; do echo 1 > $file; done")
    try:
        home.assert_connected()
        assert seen_from(client, home.world, 4)[0] == SERVER_ADDRESS
        home.wait_paths()
        test_who_connects_is_answered_over_the_same_wan(home)
    finally:
        client.run("sh", "-c", f"for file in {files}; do echo 0 > $file; done")


def test_datagrams_never_enter_the_tunnel(home: Home) -> None:
    """Even where there is no other way: all gateways are gone, and then the links."""
    client = home.world.client
    try:
        for family in FAMILIES:
            for table in ("main", "7101", "7102"):
                words = (f"-{family}", "route", "flush", "table", table, "0/0")
                client.run("ip", *words, check=False)
        for user in ("glorytun", "root"):
            passed = client.run("sh", "-c", _PASSED).stdout
            for to in INTERNET.values():
                client.run("setpriv", f"--reuid={user}", "python3", "-c", _SEND, to, check=False)
            now = client.run("sh", "-c", _PASSED).stdout
            assert (now == passed) == (user == "glorytun"), f"sent by {user}"
    finally:
        for device in ("wan0", "wan1"):
            client.run("networkctl", "reconfigure", device)
        home.world.wait_online()
        home.wait_paths()
    home.assert_connected()


_SEND = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (sys.argv[1], 9))
"""


def test_stopped_it_is_closed_until_it_is_opened(home: Home) -> None:
    """No packet gets past it, who connects gets through, and `networkctl down` lets all out."""
    client = home.world.client
    client.systemctl("stop", UNIT)
    try:
        assert way(client, INTERNET[4]) == way(client, INTERNET[6]) == "tun0"
        home.assert_connected()
        client.run("networkctl", "down", "tun0")
        wait_for(lambda: way(client, INTERNET[4]) != "tun0", timeout=5, what="an open tunnel")
        assert seen_from(client, home.world, 4)[0] == home.world.dhcp_address()
        home.assert_connected()
    finally:
        client.systemctl("start", UNIT)
        client.run("networkctl", "up", "tun0")
        home.wait_paths()
    wait_for(lambda: way(client, INTERNET[4]) == "tun0", timeout=5, what="a tunnel in use")
    assert seen_from(client, home.world, 4)[0] == SERVER_ADDRESS


def test_networkd_may_restart(home: Home) -> None:
    client = home.world.client
    show = "ip -4 rule; ip -6 rule"
    before = client.run("sh", "-c", show).stdout
    client.systemctl("restart", "systemd-networkd")
    client.wait_online("wan0", "wan1")
    assert sorted(client.run("sh", "-c", show).stdout.splitlines()) == sorted(before.splitlines())
    home.assert_connected()
    assert seen_from(client, home.world, 4)[0] == SERVER_ADDRESS


@pytest.mark.parametrize("verb", ["restart", "reload"])
def test_the_servers_firewall_may_load_its_rules_again(home: Home, verb: str) -> None:
    """They begin with `flush ruleset`, which takes ours too."""
    server = home.world.server
    server.systemctl("start", "nftables")
    server.systemctl(verb, "nftables")
    assert seen_from(home.world.client, home.world, 4)[0] == SERVER_ADDRESS


def test_the_server_keeps_its_gateway(home: Home) -> None:
    """That it has from router advertisements, also when networkd starts anew."""
    server = home.world.server
    server.systemctl("restart", "systemd-networkd")
    wait_for(lambda: has_gateway(server, "up0", 6), timeout=15, what="the server's IPv6 gateway")
    assert seen_from(home.world.client, home.world, 6)[0] == address_of(server, "up0", 6)


def test_a_server_reaches_what_it_knows_behind_the_client(home: Home) -> None:
    made = home.world
    wizard(made.server, "edit", "tun0", "--yes", "--behind=192.168.7.0/24")
    home.wait_paths()
    made.server.run("ping", "-n", "-q", "-c", "1", "-W", "2", LAN)
    wizard(made.client, "edit", "tun0", "--yes", "--masquerade=no")
    home.wait_paths()
    assert seen_from(made.client, made, 4, netns="lan") == (SERVER_ADDRESS, LAN)


def test_a_new_lease_is_followed(home: Home) -> None:
    """The provider gives the DHCP WAN an address in another network."""
    made = home.world
    file = made.provider.path("/etc/systemd/network/20-wan0.network")
    before = file.read_text()
    try:
        file.write_text(before.replace("10.9.0.2/24", "10.9.5.2/24"))
        made.provider.run("networkctl", "reload")
        wait_for(
            lambda: "10.9.5.2/" in made.provider.run("ip", "-4", "address").stdout,
            timeout=10,
            what="another network",
        )
        made.client.run("networkctl", "reconfigure", "wan0")
        wait_for(lambda: made.dhcp_address().startswith("10.9.5."), timeout=15, what="a new lease")
        home.wait_paths()
        own = made.dhcp_address()
        assert made.client.path_from(own)["condition"] == "running"
        assert way(made.client, SERVER_ADDRESS, "from", own, "oif", "wan0") == "wan0"
        assert seen_from(made.client, made, 4)[0] == SERVER_ADDRESS
    finally:
        file.write_text(before)
        made.provider.run("networkctl", "reload")
        wait_for(
            lambda: "10.9.0.2/" in made.provider.run("ip", "-4", "address").stdout,
            timeout=10,
            what="the usual network",
        )
        made.client.run("networkctl", "reconfigure", "wan0")
        wait_for(lambda: made.dhcp_address().startswith("10.9.0."), timeout=15, what="a lease")
        home.wait_paths()


def test_nothing_is_complained_of(home: Home) -> None:
    for end in home.world.ends:
        assert not end.complaints()
