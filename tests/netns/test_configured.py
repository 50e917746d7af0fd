"""A tunnel that runs by its file: reload, and paths that follow interfaces.

The topology is `configured.home`: links 1 and 2, and a default route over link 1.
"""

import re
import time

import pytest

from tests.netns.configured import (
    REMOTE,
    Configured,
    add_default_route,
    give_address,
    home,
    start,
)
from tests.netns.topology import CLIENT, Lab
from tests.netns.tunnel import Tunnels
from tests.netns.wait import wait_for

BACK = 2.0
"""Seconds from an address until the path from there carries packets."""
LINKS = ("Local=link1", "Local=link2")
FIRST, SECOND = "10.9.1.1", "10.9.2.1"
"""The client's addresses."""


# What a file says.


def test_paths_of_a_file(lab: Lab, tunnels: Tunnels) -> None:
    """Each section makes a path; both carry packets, each over its own link."""
    topology = home(lab)
    pair = start(tunnels, topology, *LINKS)
    pair.client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
    pair.server.wait_running(2)
    for link in topology.links:
        before = link.carried()
        link.cut()
        pair.wait_running(1)
        pair.ping()
        pair.transfer()
        assert link.carried() - before < 100_000
        link.mend()
        pair.wait_running(2)
    assert "READY=1" in pair.client.notifications()
    assert "Traceback" not in pair.client.logged()


def test_sections_set_their_paths(lab: Lab, tunnels: Tunnels) -> None:
    """What [Path] and [Tunnel] say is in force from the start."""
    pair = start(
        tunnels,
        home(lab),
        "Local=link1\nRate=fixed\nRateTx=20mbit\nRateRx=10mbit\nBeat=200ms\nLossLimit=40%\n"
        "DelayLimit=300ms\nMode=redundant\nCost=3",
        "Local=link2\nState=backup\nPreference=2",
        tunnel="KeepAlive=10s\nKeyRotation=5min\nTimeTolerance=1min\nTrafficClass=EF\n"
        "Redundant=AF41\nReorder=30ms\n",
    )
    pair.client.wait_running(1)
    assert pair.client.settings(FIRST) == {
        "state": "up",
        "rate": "fixed",
        "rate_tx": 2_500_000,
        "rate_rx": 1_250_000,
        "beat": 0.2,
        "loss_limit": 0.4,
        "delay_limit": 0.3,
        "mode": "redundant",
        "preference": 0,
        "cost": 3,
    }
    backup = pair.client.settings(SECOND)
    assert (backup["state"], backup["preference"]) == ("backup", 2)
    assert pair.client.show()["settings"] == {
        "cipher": "auto",
        "kxtimeout": 300,
        "timetolerance": 60,
        "keepalive": 10,
        "traffic_class": 184,
        "redundant": "AF41",
        "reorder": "30ms",
    }


def test_another_address_of_the_server(lab: Lab, tunnels: Tunnels) -> None:
    """Peer= of a section leads its path there; two such sections of one link make two paths."""
    paths = ("Local=link1", "Local=link1\nPeer=10.9.1.2", "Local=link2\nPeer=10.9.2.2")
    pair = start(tunnels, home(lab), *paths)
    pair.client.wait_ends((FIRST, REMOTE), (FIRST, "10.9.1.2"), (SECOND, "10.9.2.2"))
    pair.transfer()
    pair.client.reconfigure("Local=link1\nPeer=10.9.1.2", "Local=link2\nPeer=10.9.1.2")
    pair.client.wait_ends((FIRST, "10.9.1.2"), (SECOND, "10.9.1.2"))
    pair.ping()


def test_the_most_specific_section_counts(lab: Lab, tunnels: Tunnels) -> None:
    """Address before interface before glob, wherever they stand in the file."""
    pair = start(
        tunnels,
        home(lab, links=3),
        "Local=link*\nBeat=300ms",
        "Local=link2\nBeat=200ms",
        "Local=10.9.3.1\nBeat=400ms",
    )
    pair.client.wait_running(3)
    beats = [pair.client.settings(f"10.9.{link}.1")["beat"] for link in (1, 2, 3)]
    assert beats == [0.3, 0.2, 0.4]


# Reload.


def test_reload_loses_nothing(lab: Lab, tunnels: Tunnels) -> None:
    """Paths are added, changed and removed under traffic, both ways, without a packet lost."""
    pair = start(tunnels, home(lab), "Local=link1")
    pair.wait_running()
    client = pair.client
    with pair.stream() as up, pair.stream(up=False) as down:

        def flow() -> None:
            for stream in (up, down):
                stream.flow(100)

        flow()
        client.reconfigure(*LINKS)
        pair.wait_running(2)
        flow()
        client.reconfigure("Local=link1\nState=backup", "Local=link2\nBeat=50ms")
        assert client.settings(FIRST)["state"] == "backup"
        assert client.settings(SECOND)["beat"] == 0.05
        pair.wait_running(1)
        flow()
        client.reconfigure("Local=link2")
        assert client.locals() == [SECOND]
        assert client.settings(SECOND)["beat"] == 0.1, "the default is back"
        flow()
        client.reconfigure(*LINKS, tunnel="KeepAlive=3s\nTrafficClass=CS1\n")
        assert client.show()["settings"]["keepalive"] == 3
        assert client.show()["settings"]["traffic_class"] == 32
        pair.wait_running(2)
        flow()
    for stream in (up, down):
        assert not stream.report.lost, str(stream.report)
    assert client.logged().count("was read again") == 4


def test_reload_of_the_same_file_changes_nothing(lab: Lab, tunnels: Tunnels) -> None:
    """Paths keep their counters and condition; the log says only that it was read."""
    pair = start(tunnels, home(lab), *LINKS)
    pair.wait_running(2)
    before = pair.client.logged()
    with pair.stream() as stream:
        for _ in range(20):
            pair.client.reload()
            stream.flow(5)
    assert not stream.report.lost, str(stream.report)
    said = pair.client.logged().removeprefix(before).splitlines()
    assert said == [f"{pair.client.file} was read again"] * 20


def test_reload_refuses_a_wrong_file(lab: Lab, tunnels: Tunnels) -> None:
    """As a whole: also what is right in it is not in force; status and log say why."""
    pair = start(tunnels, home(lab), *LINKS)
    pair.wait_running(2)
    client = pair.client
    before = client.show()["settings"], client.settings(FIRST), client.settings(SECOND)
    client.configure("Local=link1\nBeat=soon", tunnel="KeepAlive=10s\n")
    place = f"{client.file}:{client.line_of('Beat')}:6"
    message = "Beat= 'soon' is no time: seconds, or as in 200ms, 10min, 1h 30min"
    with pair.stream() as stream:
        refused = client.try_reload()
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"{place}: {message}" in refused.stderr
        assert "Traceback" not in refused.stderr
        stream.flow(100)
        assert (client.show()["settings"], client.settings(FIRST), client.settings(SECOND)) == (
            before
        )
        stream.flow(100)
    assert not stream.report.lost, str(stream.report)
    assert f"{place}: {message}" in client.logged()
    refusal = f"; reload refused: {place}: {message}"
    assert client.status().endswith(refusal)
    # It stays until the next file is good, whatever happens meanwhile.
    client.host.ip("link set link2 down")
    assert client.wait_status("1 of 2 paths running").endswith(refusal)
    client.host.ip("link set link2 up")
    add_default_route(client.host, 2)
    client.reconfigure(*LINKS)
    wait_for(lambda: "refused" not in client.status(), timeout=2, what="a status without it")
    pair.wait_running(2)


def test_status_tells_the_error_and_not_a_warning(lab: Lab, tunnels: Tunnels) -> None:
    """A file has both: the error is why it was refused."""
    server = tunnels.make(Configured, lab.host("server")).start()
    server.configure(tunnel="Prt=1\nPort=0\n")
    assert server.try_reload().returncode == 1
    assert "Port= '0' is no port" in server.wait_status("waiting for a client; reload")


def test_reload_needs_the_file(lab: Lab, tunnels: Tunnels) -> None:
    """Without it the tunnel goes on as before."""
    pair = start(tunnels, home(lab), *LINKS)
    pair.wait_running(2)
    pair.client.file.unlink()
    refused = pair.client.try_reload()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"glorytun: configuration {pair.client.file}: No such file or directory "
        "(the line [Tunnel] alone makes a server)\n"
    )
    pair.wait_running(2)
    pair.ping()


def test_reload_says_what_takes_a_restart(lab: Lab, tunnels: Tunnels) -> None:
    """Port= and the like stay as they were; the rest of the file is in force."""
    pair = start(tunnels, home(lab), "Local=link1")
    pair.wait_running()
    pair.client.reconfigure("Local=link1\nBeat=200ms", tunnel="Port=5001\nCipher=chacha\n")
    assert pair.client.settings(FIRST)["beat"] == 0.2
    assert pair.client.show()["bind"]["port"] == 5000
    [said] = [line for line in pair.client.logged().splitlines() if "restart" in line]
    assert "port" in said.lower()
    assert "cipher" in said.lower()
    pair.ping()


# Interfaces.


def test_a_new_address_moves_the_path(lab: Lab, tunnels: Tunnels) -> None:
    """As by DHCP, on the only link: it runs from the new address, with its settings."""
    topology = home(lab, links=1)
    pair = start(tunnels, topology, "Local=link1\nBeat=200ms")
    pair.wait_running()
    pair.client.command("path", FIRST, "losslimit", "70")
    with pair.stream() as stream:
        stream.flow(20)
        give_address(topology.client, 1, CLIENT, last=33)
        replaced = time.monotonic()
        pair.client.wait_ends(("10.9.1.33", REMOTE))
        stream.flow(100)
    assert stream.report.lost_after(replaced) < BACK, str(stream.report)
    settings = pair.client.settings("10.9.1.33")
    assert settings["beat"] == 0.2
    assert settings["loss_limit"] == pytest.approx(0.7, abs=0.01)


def test_a_link_that_comes_back_keeps_what_was_set(lab: Lab, tunnels: Tunnels) -> None:
    """What `glorytun path` set is there again, until the next reload."""
    topology = home(lab)
    pair = start(tunnels, topology, *LINKS)
    pair.wait_running(2)
    client = pair.client
    client.command("path", SECOND, "beat", "300ms", "rate", "tx", "30mbit")
    with pair.stream() as stream:
        topology.client.ip("link set link2 down")
        wait_for(lambda: client.locals() == [FIRST], timeout=2, what="the path to end")
        topology.client.ip("link set link2 up")
        add_default_route(topology.client, 2)
        client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
        assert client.settings(SECOND)["beat"] == 0.3
        # The same with another address and another interface of that name.
        topology.client.ip("link delete link2")
        wait_for(lambda: client.locals() == [FIRST], timeout=2, what="the path to end")
        lab.link(topology.client, topology.server, 2)
        give_address(topology.client, 2, CLIENT, last=44)
        add_default_route(topology.client, 2)
        client.wait_ends((FIRST, REMOTE), ("10.9.2.44", REMOTE))
        stream.flow(100)
    settings = client.settings("10.9.2.44")
    assert (settings["beat"], settings["rate_tx"]) == (0.3, 3_750_000)
    client.reload()
    settings = client.settings("10.9.2.44")
    assert (settings["beat"], settings["rate_tx"]) == (0.1, 0)


def test_a_link_without_carrier_is_away(lab: Lab, tunnels: Tunnels) -> None:
    """When the other end of the cable goes down, its path ends; nothing is lost afterwards."""
    topology = home(lab)
    pair = start(tunnels, topology, *LINKS)
    pair.wait_running(2)
    with pair.stream() as stream:
        stream.flow(20)
        topology.server.ip("link set link1 down")
        cut = time.monotonic()
        pair.client.wait_ends((SECOND, REMOTE))
        stream.flow(100)
        topology.server.ip("link set link1 up")
        pair.client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
        stream.flow(50)
    assert stream.report.lost_after(cut) < BACK, str(stream.report)


def test_a_modem_joins(lab: Lab, tunnels: Tunnels) -> None:
    """An interface that fits a glob is a path as soon as it has an address; no restart."""
    topology = home(lab, links=1)
    pair = start(tunnels, topology, "Local=link1", "Local=link?\nBeat=200ms")
    pair.wait_running()
    with pair.stream() as stream:
        lab.link(topology.client, topology.server, 2)
        add_default_route(topology.client, 2)
        pair.client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
        stream.flow(50)
        assert pair.client.settings(SECOND)["beat"] == 0.2
        # One that is renamed leaves its section.
        renamed = time.monotonic()
        topology.client.ip("link set link2 down", "link set link2 name modem", "link set modem up")
        pair.client.wait_ends((FIRST, REMOTE))
        stream.flow(50)
    report = stream.report
    assert not [number for number in report.lost if report.sent[number] < renamed], str(report)
    assert report.lost_after(renamed) < BACK, str(report)


def test_it_starts_without_its_links(lab: Lab, tunnels: Tunnels) -> None:
    """Ready at once; each link is taken as it comes."""
    topology = home(lab, links=0)
    topology.client.ip("link add link1 type veth peer name other")
    pair = start(tunnels, topology, *LINKS)
    assert "READY=1" in pair.client.notifications()
    pair.client.wait_status("0 of 2 paths running")
    topology.client.ip("link delete link1")
    for number in (2, 1):
        lab.link(topology.client, topology.server, number)
        add_default_route(topology.client, number)
        pair.client.wait_running(3 - number)
    pair.client.wait_status("2 of 2 paths running")
    pair.ping()


def test_a_path_of_a_user_stays(lab: Lab, tunnels: Tunnels) -> None:
    """One that no section means is left alone by links and by reload."""
    topology = home(lab)
    pair = start(tunnels, topology, "Local=link1")
    pair.wait_running()
    pair.client.command("path", SECOND, "up")
    pair.wait_running(2)
    topology.client.ip("address add 192.0.2.1/32 dev link1", "address del 192.0.2.1/32 dev link1")
    pair.client.reconfigure("Local=link1\nBeat=200ms")
    assert pair.client.locals() == [FIRST, SECOND]


def test_one_path_of_each_family(lab: Lab, tunnels: Tunnels) -> None:
    """An interface with many addresses makes one IPv4 path and one IPv6 path."""
    topology = home(lab, links=1)
    topology.client.ip(
        *(f"address add 10.9.1.{last}/24 dev link1" for last in range(50, 60)),
        *(f"address add fd09:1::{last}/64 dev link1 nodad" for last in range(50, 60)),
    )
    pair = start(tunnels, topology, "Local=link1", "Local=link1\nPeer=fd09:1::2")
    pair.wait_running(2)
    v4, v6 = sorted(pair.client.locals())
    assert ("." in v4, ":" in v6) == (True, True)
    # The ones that are in use stay so, whichever the kernel now likes best.
    topology.client.ip("address add 10.9.1.9/16 dev link1", "address add fd09:1::9/64 dev link1")
    pair.client.reload()
    assert sorted(pair.client.locals()) == [v4, v6]


# Status.


@pytest.mark.slow
def test_the_status_line(lab: Lab, tunnels: Tunnels) -> None:
    """How many paths run, of how many that the file means; and how fast data flows."""
    topology = home(lab)
    pair = start(tunnels, topology, *LINKS, "Local=link3")
    pair.wait_running(2)
    pair.client.wait_status("2 of 3 paths running, idle")
    flowing = re.compile(r"2 of 3 paths running, [\d.]+ kbit/s down, [\d.]+ Mbit/s up")
    with pair.stream(rate=500, size=1000), pair.stream(up=False, rate=50):
        wait_for(lambda: flowing.fullmatch(pair.client.status()), timeout=15, what="rates")
    pair.client.wait_status("2 of 3 paths running, idle", timeout=15)
