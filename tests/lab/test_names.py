"""The server's name: it may resolve late, never answer, or come to mean another address."""

import socket
import time

import pytest

from tests.lab.install import System
from tests.lab.tunnel import SERVER_ADDRESS, SERVER_ADDRESS_6, UNIT, Pair, booted

NAME = "vpn.example.net"
OTHER_ADDRESS = "10.9.8.8"
"""A second one of the server's."""
MOVED = 15.0
"""Seconds from the loss of the server's address until the paths lead to its new one."""
PATIENCE = 30
"""Seconds that a question for a name waits for its answer: glibc's longest (resolv.conf(5))."""


@pytest.fixture
def movable(pair: Pair) -> Pair:
    """A tunnel whose server has a name and two addresses, the first of which is in use."""
    pair.server.run("ip", "address", "add", f"{OTHER_ADDRESS}/32", "dev", "lo")
    pair.client.name_hosts(vpn=SERVER_ADDRESS)
    pair.client.configure("Local=wan0", "Local=wan1", server=NAME)
    pair.start()
    return pair


def test_a_name_may_resolve_after_the_boot(system: System) -> None:
    """Until then the service runs, says so, and is not started again."""
    with booted(system, enabled=True, server=NAME) as pair:
        client = pair.client
        assert client.shown("ActiveState") == "active"
        client.wait_status(NAME)
        assert NAME in client.run("glorytun", "show").stdout
        assert NAME in client.journal()
        client.name_hosts(vpn=SERVER_ADDRESS)
        pair.wait_running(2)
        assert client.shown("NRestarts") == "0"
        client.wait_status("2 of 2 paths running")
        assert NAME not in client.shown("StatusText")


def test_a_silent_name_server_holds_up_nothing(pair: Pair) -> None:
    """Neither the start, nor a command, nor the paths that are there, nor the end."""
    client = pair.client
    options = f"options timeout:{PATIENCE} attempts:1"
    client.write("/etc/resolv.conf", f"nameserver 127.0.0.1\n{options}\n")
    client.configure("Local=wan0", f"Local=wan1\nPeer={NAME}")
    with client.socket(4, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 53))
        silent.settimeout(10)
        begun = time.monotonic()
        pair.start(1)
        assert silent.recv(512), "the name was not asked for"
        with pair.stream() as stream:
            stream.flow(100)
            client.reconfigure("Local=wan0\nBeat=50ms", f"Local=wan1\nPeer={NAME}")
            stream.flow(100)
        assert not stream.report.lost, str(stream.report)
        client.systemctl("stop", UNIT)
        assert client.shown("Result") == "success"
        assert time.monotonic() - begun < PATIENCE


def test_paths_follow_the_server_to_another_address(movable: Pair) -> None:
    """Its name means another address, the old one is dead: TCP goes on."""
    client, server = movable.client, movable.server
    with movable.flow() as flow:
        client.name_hosts(vpn=OTHER_ADDRESS)
        server.run("ip", "address", "delete", f"{SERVER_ADDRESS}/32", "dev", "lo")
        lost = time.monotonic()
        movable.wait_running(2)
        assert time.monotonic() - lost < MOVED
        flow.go_on()
    assert {path["remote"]["address"] for path in client.paths()} == {OTHER_ADDRESS}
    assert client.shown("NRestarts") == "0"


def test_an_address_that_works_is_kept(movable: Pair) -> None:
    """Though the name means another one by now, and is asked for again."""
    client = movable.client
    client.name_hosts(vpn=OTHER_ADDRESS)
    with movable.stream() as stream:
        client.systemctl("reload", UNIT)
        stream.flow(100)
        client.run("ip", "link", "set", "wan1", "down")
        client.wait_running(1)
        client.run("ip", "link", "set", "wan1", "up")
        client.wait_running(2)
        stream.flow(100)
    assert {path["remote"]["address"] for path in client.paths()} == {SERVER_ADDRESS}


def test_of_several_addresses_one_that_works_is_taken(movable: Pair) -> None:
    """The one in use dies: the next that the name means takes over."""
    client, server = movable.client, movable.server
    client.name_hosts(vpn=f"{SERVER_ADDRESS} {OTHER_ADDRESS}")
    client.systemctl("restart", UNIT)
    movable.wait_running(2)
    (used,) = {path["remote"]["address"] for path in client.paths()}
    server.run("ip", "address", "delete", f"{used}/32", "dev", "lo")
    with movable.stream() as stream:
        stream.flow(100, timeout=MOVED)
    (other,) = {path["remote"]["address"] for path in client.paths()}
    assert {used, other} == {SERVER_ADDRESS, OTHER_ADDRESS}


def test_a_reload_takes_another_server(movable: Pair) -> None:
    """`Peer=` of the file changed: the paths lead there, without a restart."""
    client, before = movable.client, movable.client.main_pid
    with movable.flow() as flow:
        client.reconfigure("Local=wan0", "Local=wan1", server=OTHER_ADDRESS)
        movable.wait_running(2)
        flow.go_on()
    assert {path["remote"]["address"] for path in client.paths()} == {OTHER_ADDRESS}
    assert client.main_pid == before


def test_both_families_are_used(pair: Pair) -> None:
    """A name with an IPv4 and an IPv6 address makes two paths of one interface."""
    client, server = pair.client, pair.server
    pair.use_ipv6()
    client.name_hosts(vpn=f"{SERVER_ADDRESS} {SERVER_ADDRESS_6}")
    client.configure("Local=wan0", server=NAME)
    pair.start()
    assert {path["remote"]["address"] for path in client.paths()} == {
        SERVER_ADDRESS,
        SERVER_ADDRESS_6,
    }
    with pair.stream() as stream:
        stream.flow(50)
        server.run("ip", "address", "delete", f"{SERVER_ADDRESS}/32", "dev", "lo")
        client.wait_running(1)
        stream.flow(100)
    assert client.path_from("fd00:9:a0::1")["condition"] == "running"
