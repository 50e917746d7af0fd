"""What `glorytun check` says of links: the paths that `glorytun run` would make.

The topology is `configured.home`, and a third link without a route to the server.
"""

import json
import os
from typing import Any

import pytest

from tests.netns.configured import REMOTE, Configured, Names, home
from tests.netns.topology import SERVER, Lab, Topology, address
from tests.netns.tunnel import Tunnels


@pytest.fixture
def topology(lab: Lab) -> Topology:
    topology = home(lab)
    topology.server.ip("address add fd09:99::2/128 dev lo")
    lab.link(topology.client, topology.server, 3)
    return topology


@pytest.fixture
def daemon(topology: Topology, tunnels: Tunnels) -> Configured:
    """A client that isn't started."""
    return tunnels.make(Configured, topology.client, peer=REMOTE)


def document(daemon: Configured) -> Any:
    """What ``check json`` prints."""
    result = daemon.glorytun("check", str(daemon.file), "json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def paths(found: Any) -> list[set[tuple[str, str, str]]]:
    """What paths each section makes: interface, local and remote address."""
    return [
        {(path["interface"], path["local"], path["remote"]["address"]) for path in section["paths"]}
        for section in found["paths"]
    ]


def text(daemon: Configured) -> tuple[str, str]:
    """The lines of ``check`` about paths, and its warnings."""
    result = daemon.glorytun("check", str(daemon.file))
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("  makes ")]
    return "\n".join(lines), result.stderr


def test_paths_that_would_be_made(daemon: Configured) -> None:
    """Of each section, over which interface, and from where to where."""
    daemon.configure("Local=link1", "Local=10.9.2.1\nPeer=10.9.2.2\nState=backup")
    assert text(daemon) == (
        "  makes the path 10.9.1.1 to 10.9.99.2:5000 over link1\n"
        "  makes the path 10.9.2.1 to 10.9.2.2:5000 over link2",
        "",
    )
    found = document(daemon)
    assert found["warnings"] == []
    assert found["paths"][0]["interfaces"]["link1"][0] == "10.9.1.1"
    assert found["paths"][0]["paths"] == [
        {
            "interface": "link1",
            "local": "10.9.1.1",
            "remote": {"address": REMOTE, "port": 5000},
            "route": True,
        }
    ]


def test_a_link_without_a_route(daemon: Configured) -> None:
    """The path would be made and never get an answer: that is said, and what mends it."""
    daemon.configure("Local=link1", "Local=link3")
    said, warned = text(daemon)
    assert said.splitlines()[1] == (
        "  makes the path 10.9.3.1 to 10.9.99.2:5000 over link3, which has no route there"
    )
    message = "there is no route to 10.9.99.2 over link3, so that nothing gets there from 10.9.3.1"
    hint = "a default route over link3 is enough, also with a high metric"
    assert warned == f"glorytun: warning: {message} ({hint})\n"
    assert document(daemon)["warnings"] == [
        {"line": None, "column": None, "message": message, "hint": hint}
    ]
    gateway = address(4, 3, SERVER)
    daemon.host.ip(f"route add default via {gateway} dev link3 metric 3")
    assert text(daemon)[1] == ""


def test_a_mark_counts_for_routes(daemon: Configured) -> None:
    daemon.host.ip("rule add fwmark 42 table 3", "route add default via 10.9.3.2 table 3")
    daemon.configure("Local=link3", tunnel="FirewallMark=42\n")
    assert text(daemon)[1] == ""
    daemon.configure("Local=link3", tunnel="FirewallMark=43\n")
    assert "no route" in text(daemon)[1]


def test_a_strict_filter(daemon: Configured) -> None:
    """It lets nothing in that the main table would send elsewhere."""
    for name in ("link1", "link2"):
        daemon.host.sysctl(f"ipv4/conf/{name}/rp_filter", 1)
    daemon.configure("Local=link1", "Local=link2")
    assert text(daemon)[1] == (
        "glorytun: warning: what 10.9.99.2 sends to 10.9.2.1 is dropped, since the route back "
        "leads over another interface than link2 (rp_filter) "
        "(`sysctl net/ipv4/conf/link2/rp_filter=2` mends it)\n"
    )


def test_an_address_that_the_tunnel_is_not_bound_to(daemon: Configured) -> None:
    """Its path would never get an answer."""
    daemon.configure("Local=link1", "Local=link2", tunnel="Bind=10.9.1.1\n")
    assert text(daemon)[1] == (
        "glorytun: warning: nothing can be received at 10.9.2.1, since the tunnel is bound to "
        "10.9.1.1 alone (Bind=:: is for all addresses)\n"
    )
    daemon.configure("Local=link1", "Local=link2", tunnel="Bind=0.0.0.0\n")
    assert text(daemon)[1] == ""


def test_why_there_is_no_path(daemon: Configured, topology: Topology) -> None:
    """Of each interface that a section means."""
    topology.client.ip(
        "link set link1 down",
        "address flush dev link3",
        "tuntap add wwan0 mode tun",
        "link set wwan0 up",
    )
    dev = daemon.dev
    daemon.configure("Local=link1", "Local=link?", "Local=wwan*", f"Local={dev}", "Local=lo")
    daemon.host.ip(f"tuntap add {dev} mode tun")
    assert text(daemon)[0] == (
        "  makes no path over link1: it is down\n"
        "  makes the path 10.9.2.1 to 10.9.99.2:5000 over link2\n"
        "  makes no path over link3: it has no address\n"
        "  makes no path over link1: it is down\n"
        "  makes no path over wwan0: it has no carrier\n"
        f"  makes no path over {dev}: it is the tunnel's own device\n"
        "  makes no path over lo: it leads nowhere but to this host"
    )


def test_a_more_specific_section_has_the_interface(daemon: Configured) -> None:
    daemon.configure("Local=link*", "Local=link1", "Local=10.9.2.1")
    found = document(daemon)
    assert paths(found) == [
        {("link3", "10.9.3.1", REMOTE)},
        {("link1", "10.9.1.1", REMOTE)},
        {("link2", "10.9.2.1", REMOTE)},
    ]
    assert found["paths"][0]["unused"] == {
        "link1": "it belongs to the [Path] with Local=link1",
        "link2": "it belongs to the [Path] with Local=10.9.2.1",
    }


def test_families(daemon: Configured, topology: Topology) -> None:
    """One path of each that the server has; an interface without it makes none."""
    topology.client.ip("address flush dev link2", "address add 10.9.2.1/24 dev link2")
    daemon.configure("Local=link1\nPeer=fd09:99::2", "Local=link2\nPeer=fd09:99::2")
    found = document(daemon)
    assert paths(found) == [{("link1", "fd09:1::1", "fd09:99::2")}, set()]
    assert found["paths"][1]["unused"] == {
        "link2": "it has no IPv6 address, and the server no other"
    }


def test_two_sections_for_one_path(daemon: Configured) -> None:
    daemon.configure("Local=link1", f"Local=link1\nPeer={REMOTE}")
    found = document(daemon)
    assert paths(found) == [{("link1", "10.9.1.1", REMOTE)}, set()]
    assert found["paths"][1]["unused"] == {"link1": "another [Path] makes the same path"}


def test_a_name_that_does_not_resolve(daemon: Configured) -> None:
    """It keeps away the paths to there only."""
    daemon.set_peer("vpn.invalid")
    daemon.configure("Local=link1", "Local=link2\nPeer=10.9.2.2")
    with Names(daemon.host):
        found = document(daemon)
    assert paths(found) == [set(), {("link2", "10.9.2.1", "10.9.2.2")}]
    assert found["paths"][0]["unused"] == {"link1": "the address of the server is not known"}
    [warning] = found["warnings"]
    assert "vpn.invalid" in warning["message"]


def test_a_glob_never_means_loopback_or_the_tunnel(daemon: Configured) -> None:
    daemon.configure("Local=*")
    daemon.host.ip(f"tuntap add {daemon.dev} mode tun")
    assert set(document(daemon)["paths"][0]["interfaces"]) == {"link1", "link2", "link3"}


def test_it_says_what_is_made(daemon: Configured, topology: Topology) -> None:
    """The running tunnel has the very paths, also where an interface has many addresses."""
    topology.client.ip(
        "address add 10.9.1.7/24 dev link1",
        "address add 10.9.99.1/24 dev link1",
        "address add 10.99.0.1/24 dev link2",
        *(f"address add fd09:1::{n}/64 dev link1 nodad" for n in range(20, 25)),
        "route add default via fd09:1::2 dev link1",
        "route add default via fd09:2::2 dev link2 metric 2000",
    )
    daemon.configure(
        "Local=link1",
        "Local=link1\nPeer=fd09:99::2",
        "Local=link*\nPeer=fd09:99::2",
        "Local=10.99.0.1",
    )
    daemon.start()
    expected = {path[1:] for section in paths(document(daemon)) for path in section}
    assert len(expected) == 5
    assert {(path.local, path.remote) for path in daemon.paths()} == expected


def test_it_needs_no_privileges(daemon: Configured) -> None:
    """Who may not read the key, and has no special rights, is told all but whether it is one."""
    daemon.configure("Local=link1", "Local=link3")
    os.chown(daemon.key, 65534, 65534)
    daemon.program = ("setpriv", "--bounding-set", "-all", *daemon.program)
    result = daemon.glorytun("check", str(daemon.file))
    assert result.returncode == 0, result.stderr
    assert "makes the path 10.9.1.1 to 10.9.99.2:5000 over link1\n" in result.stdout
    assert "no route to 10.9.99.2 over link3" in result.stderr
    assert "Permission denied, so that it was not checked" in result.stderr
