"""What doesn't work out leaves the host as it was; what works can be taken away without a trace."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.lab.install import System
from tests.lab.node import Node
from tests.lab.snapshot import Snapshot
from tests.lab.tunnel import UNIT
from tests.lab.wizard import KEY, KEY_FILE, remove, set_up_client, set_up_server, wizard
from tests.lab.world import (
    INTERNET,
    SERVER_ADDRESS,
    STATIC,
    WAN_TABLE,
    World,
    has_gateway,
    route_by_hand,
    world,
)
from tests.netns.topology import FAMILIES, Family
from tests.netns.wait import wait_for

OTHER_KEY = "ab" * 32
QUICK = "--timeout=5"
"""Nothing here takes longer when it works."""
_HOOK = "type filter hook input priority 0;"
_STATE = "/var/lib/glorytun/setup"


@dataclass(frozen=True, slots=True)
class Before:
    """The world with a server's tunnel, and the client as it came."""

    world: World
    client: Snapshot
    """To be so again after each test."""


@pytest.fixture(scope="module")
def made(system: System) -> Iterator[Before]:
    """Booted once: each test leaves it as it was, or fails."""
    with world(system) as made:
        before = Snapshot(made.client)
        set_up_server(made.server)
        yield Before(made, before)


@pytest.fixture(autouse=True)
def _online(made: Before) -> None:
    """After networkd has reconfigured links, router advertisements take a while to come again."""
    made.world.wait_online()
    wait_for(lambda: has_gateway(made.world.client, "wan1", 6), timeout=20, what="IPv6 on wan1")


@contextmanager
def firewall(node: Node, rule: str) -> Iterator[None]:
    """With a rule of nftables on what comes in."""
    node.run("nft", f"table inet lab {{ chain input {{ {_HOOK} {rule}; }}; }}")
    try:
        yield
    finally:
        node.run("nft", "delete table inet lab")


def failed(made: Before, *words: str, server: str = SERVER_ADDRESS, key: str = KEY) -> str:
    """What the wizard says when it can't make a client; then all is as before."""
    options = ("--through=everything", QUICK, *words)
    result = set_up_client(made.world.client, server, *options, key=key, check=False)
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    for secret in (KEY, OTHER_KEY):
        assert secret not in result.stdout + result.stderr
    made.client.assert_same()
    return result.stdout + result.stderr


# What doesn't work.


def test_a_server_that_is_not_there(made: Before) -> None:
    said = failed(made, server="10.9.8.77")
    assert "did not answer" in said
    assert re.search(r"no answer on wan0, wan1|no route", said)


def test_a_name_that_does_not_resolve(made: Before) -> None:
    assert "no-such-host.example does not resolve" in failed(made, server="no-such-host.example")


def test_another_key(made: Before) -> None:
    said = failed(made, key=OTHER_KEY)
    assert "no answer on wan0, wan1" in said
    assert "same key" in said


def test_a_firewall_that_drops(made: Before) -> None:
    with firewall(made.world.server, "udp dport 5000 drop"):
        said = failed(made)
    assert "no answer on wan0, wan1" in said
    assert "firewall" in said


def test_a_firewall_that_rejects(made: Before) -> None:
    with firewall(made.world.server, "udp dport 5000 reject"):
        assert f"{SERVER_ADDRESS} refuses UDP port 5000" in failed(made)


def test_a_server_that_runs_no_tunnel(made: Before) -> None:
    said = failed(made, "--port=5009")
    assert f"{SERVER_ADDRESS} refuses UDP port 5009" in said


def test_another_address_inside(made: Before) -> None:
    """The path works, the tunnel doesn't."""
    said = failed(made, "--addresses=10.99.0.2/24", "--peers=10.99.0.1")
    assert "the server answers, but not 10.99.0.1 to a ping" in said
    assert "no answer on" not in said


def test_another_file_for_all_tunnels(made: Before) -> None:
    """networkd takes the first that fits."""
    client, file = made.world.client, "/etc/systemd/network/10-user.network"
    client.write(file, "[Match]\nName=tun*\n[Network]\nConfigureWithoutCarrier=yes\n")
    try:
        result = set_up_client(client, SERVER_ADDRESS, QUICK, check=False)
    finally:
        client.run("rm", file)
        client.run("networkctl", "reload")
    assert result.returncode == 1
    assert f"networkd sets up tun0 by {file} and not by" in result.stderr, result.stderr
    made.client.assert_same()


def test_the_journal_is_shown(made: Before) -> None:
    """A service that can't start says why."""
    drop_in = "/etc/systemd/system/glorytun@.service.d/lab.conf"
    client = made.world.client
    client.write(
        drop_in, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'echo a reason; sleep 0.5; exit 78'\n"
    )
    try:
        result = set_up_client(client, SERVER_ADDRESS, QUICK, check=False)
    finally:
        client.run("rm", "-r", os.path.dirname(drop_in))
        client.systemctl("daemon-reload")
    assert result.returncode == 1
    assert f"{UNIT} was not started" in result.stderr
    assert "a reason" in result.stderr
    made.client.assert_same()


# Interrupted.


@dataclass(frozen=True, slots=True)
class Running:
    """A wizard that waits for a server that doesn't answer."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """Of the wizard, which the node's `env` became."""
        pid = str(self.process.pid)
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = children[0]
        return int(pid)


@contextmanager
def waiting(made: Before, *environment: str) -> Iterator[Running]:
    """While the client's tunnel is up and the server doesn't answer."""
    client = made.world.client
    client.write(KEY_FILE, OTHER_KEY, 0o600)
    options = ("--role=client", f"--server={SERVER_ADDRESS}", f"--key-file={KEY_FILE}")
    signals = "--default-signal=INT,HUP"
    command = client.command(["env", signals, *environment, "glorytun-setup", "--yes", *options])
    with subprocess.Popen(
        [*command, "--through=everything", "--timeout=30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        client.wait_state("active")
        yield Running(process)
        process.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_undoes_all(made: Before, number: signal.Signals) -> None:
    """SIGHUP comes when the terminal is closed, SIGINT for Ctrl-C."""
    with waiting(made) as running:
        os.kill(running.pid, number)
    assert running.process.returncode == 1
    made.client.assert_same()


def test_a_terminal_that_is_gone_undoes_all(made: Before) -> None:
    """Nobody reads any more, without a signal."""
    client = made.world.client
    client.write(KEY_FILE, KEY, 0o600)
    options = ("--role=client", f"--server={SERVER_ADDRESS}", f"--key-file={KEY_FILE}")
    script = f"glorytun-setup --yes {' '.join(options)} | head -n 2"
    client.run("sh", "-c", script, timeout=60)
    made.client.assert_same()


def test_a_dead_connection_undoes_all(made: Before) -> None:
    """The tunnel works, but the SSH session that ordered it has fallen silent."""
    connection = made.world.connect(4, STATIC[4])
    with firewall(made.world.provider, "ip saddr 10.9.1.1 tcp sport >= 1 drop"):
        connection.print(b"a step\n")
        options = ("--yes", "--role=client", f"--server={SERVER_ADDRESS}", f"--key-file={KEY_FILE}")
        variable = f"SSH_CONNECTION={connection.variable}"
        result = wizard(made.world.client, *options, environment=(variable,), check=False)
    assert result.returncode == 1
    assert "the connection to your terminal is lost" in result.stderr
    made.client.assert_same()
    connection.hears(b"a step\n")
    connection.says(b"back again")
    connection.close()


# Killed.

_KILLED_AT = """
import os, signal, sys
from glorytun_setup import apply, bus
CHANGES = "Reload ReconfigureLink EnableUnitFiles DisableUnitFiles StartUnit StopUnit".split()
left = int(sys.argv.pop(1))

def step():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

call = bus.SystemBus._call
def killed_call(self, service, path, interface, method, *rest):
    if method in CHANGES:
        step()
    answer = call(self, service, path, interface, method, *rest)
    if method in CHANGES:
        step()
    return answer
bus.SystemBus._call = killed_call

for name in ("write_files", "write_manifest", "close_journal"):
    def killed(*words, work=getattr(apply, name), **more):
        step()
        found = work(*words, **more)
        step()
        return found
    setattr(apply, name, killed)

from glorytun_setup.cli import run
run()
"""
"""The wizard, killed before its change of the host with this number; files: tests/unit/setup."""


def killed_at(node: Node, number: int, *words: str) -> bool:
    """Whether it was killed before it ended."""
    command = ("python3", "-c", _KILLED_AT, str(number), *words)
    result = node.run(*command, check=False, timeout=60)
    assert result.returncode in {0, 137, -signal.SIGKILL}, result.stderr
    return result.returncode != 0


def recover(node: Node) -> str:
    """What the next run says, whatever it is for."""
    return wizard(node, "remove", "no-tunnel", "--yes", check=False).stdout


@pytest.mark.timeout(300, func_only=True)
def test_killed_at_any_step_the_next_run_undoes_it(made: Before) -> None:
    client = made.world.client
    client.write(KEY_FILE, KEY, 0o600)
    words = ("--yes", "--role=client", f"--server={SERVER_ADDRESS}", f"--key-file={KEY_FILE}")
    number = 0
    while killed_at(client, number, *words, "--through=everything"):
        assert client.path(_STATE).exists(), "it knew nothing of what it had done"
        said = recover(client)
        if client.path(f"{_STATE}/tun0.json").exists():
            remove(client)  # It was complete.
        else:
            assert "undone" in said
        made.client.assert_same()
        number += 1
    assert number >= 12
    remove(client)
    made.client.assert_same()


@pytest.mark.timeout(300, func_only=True)
def test_killed_while_removing_the_next_run_finishes_it(made: Before) -> None:
    client = made.world.client
    number = 0
    set_up_client(client, SERVER_ADDRESS, "--through=everything")
    while killed_at(client, number, "remove", "tun0", "--yes"):
        is_complete = not client.path(f"{_STATE}/tun0.journal").exists()
        said = recover(client)
        assert is_complete or "finished" in said
        made.client.assert_same()
        set_up_client(client, SERVER_ADDRESS, "--through=everything")
        number += 1
    assert number >= 8
    made.client.assert_same()


# What works, and goes.


def test_removed_nothing_is_left(made: Before) -> None:
    """After edits, too; TCP connections from before go on."""
    client = made.world.client
    connection = made.world.connect(4, made.world.dhcp_address())
    set_up_client(client, SERVER_ADDRESS, "--through=everything")
    made.world.wait_routed()
    wizard(client, "edit", "tun0", "--yes", "--through=10.200.0.0/16", "--wans=wan1")
    assert client.ping(count=1) or client.paths()
    assert client.run("ip", "-6", "route", "show", "table", WAN_TABLE).stdout == ""
    connection.says(b"edited")
    remove(client)
    connection.says(b"removed")
    connection.close()
    made.client.assert_same()


def test_the_same_again_does_nothing(made: Before) -> None:
    """No file touched, nothing restarted."""
    client = made.world.client
    set_up_client(client, SERVER_ADDRESS, "--through=everything")
    made.world.wait_routed()
    between, pid = Snapshot(client), client.main_pid
    times = client.run("find", "/etc", "-newer", "/etc/glorytun/tun0.key").stdout
    said = wizard(client, "edit", "tun0", "--yes").stdout
    assert "Nothing to do" in said
    between.assert_same()
    assert client.main_pid == pid
    assert client.run("find", "/etc", "-newer", "/etc/glorytun/tun0.key").stdout == times
    remove(client)
    made.client.assert_same()


def test_an_edit_that_fails_leaves_the_tunnel_as_it_was(made: Before) -> None:
    client = made.world.client
    set_up_client(client, SERVER_ADDRESS, "--through=everything")
    made.world.wait_routed()
    between = Snapshot(client)
    client.write(KEY_FILE, OTHER_KEY, 0o600)
    result = wizard(
        client, "edit", "tun0", "--yes", QUICK, f"--key-file={KEY_FILE}", key=OTHER_KEY, check=False
    )
    assert result.returncode == 1
    between.assert_same()
    client.wait_running(2)
    remove(client)
    made.client.assert_same()


def test_a_dead_wan_is_said(made: Before) -> None:
    """The tunnel works over the other, and stays."""
    client = made.world.client
    with firewall(made.world.server, "ip saddr 10.9.1.1 drop"):
        said = set_up_client(client, SERVER_ADDRESS).stdout
    assert re.search(r"answers over wan0 \.\.\. done", said), said
    assert re.search(r"answers over wan1 \.\.\. FAILED", said), said
    assert "tun0 is up over wan0; no answer yet over wan1." in said
    remove(client)
    made.client.assert_same()


def lacks_gateway(node: Node, device: str, family: Family) -> bool:
    """Whether a device leads nowhere."""
    return not has_gateway(node, device, family)


def test_a_wan_that_is_down_is_not_left_out(made: Before) -> None:
    """By the same answers again, which do nothing, nor by an edit."""
    client, provider = made.world.client, made.world.provider
    drop_in = "/etc/systemd/network/20-wan1.network.d/50-glorytun-tun0.conf"
    options = ("--through=everything", f"--server={SERVER_ADDRESS}", f"--key-file={KEY_FILE}")
    set_up_client(client, SERVER_ADDRESS, "--through=everything")
    written = client.run("cat", drop_in).stdout
    provider.run("ip", "link", "set", "wan1", "down")
    try:
        for family in FAMILIES:
            wait_for(
                partial(lacks_gateway, client, "wan1", family),
                timeout=10,
                what=f"wan1 to be down in IPv{family}",
            )
        made.world.wait_online()
        said = wizard(client, "--yes", "--role=client", *options).stdout
        assert "Warning: wan1 leads nowhere now" in said
        assert "Nothing to do" in said
        wizard(client, "edit", "tun0", "--yes", "--through=10.0.0.0/8")
        assert client.run("cat", drop_in).stdout == written
    finally:
        provider.run("ip", "link", "set", "wan1", "up")
        wait_for(lambda: has_gateway(client, "wan1", 6), timeout=20, what="wan1 to be up")
        route_by_hand(client)
    client.wait_running(2, timeout=20)
    remove(client)
    made.client.assert_same()


def test_an_edit_while_the_server_is_away_stays(made: Before) -> None:
    client, server = made.world.client, made.world.server
    set_up_client(client, SERVER_ADDRESS)
    server.systemctl("stop", UNIT)
    try:
        wait_for(lambda: not client.paths(), timeout=30, what="the client to notice")
        said = wizard(client, "edit", "tun0", "--yes", QUICK, "--through=10.200.0.0/16").stdout
        assert "the server was away before" in said
        assert f"tun0 is set up, but {SERVER_ADDRESS} has not answered yet." in said
        assert "10.200.0.0/16" in client.run("ip", "route", "show", "table", "all").stdout
    finally:
        server.systemctl("start", UNIT)
    remove(client)
    made.client.assert_same()


def test_what_was_edited_by_hand(made: Before) -> None:
    """It stays, and isn't shown as if it went; but not what would break a WAN without the rest."""
    client = made.world.client
    set_up_client(client, SERVER_ADDRESS)
    drop_in = "/etc/systemd/network/20-wan1.network.d/50-glorytun-tun0.conf"
    config = "/etc/glorytun/tun0.conf"
    between = client.run("ip", "rule").stdout
    client.run("sh", "-c", f"echo '# mine' >> {config}")
    for path in (drop_in, "/etc/systemd/network/50-glorytun-tun0.network"):
        ours = client.run("cat", path).stdout
        client.run("sh", "-c", f"echo '# mine' >> {path}")
        result = wizard(client, "remove", "tun0", "--yes", check=False)
        assert result.returncode == 1
        assert f"{path} was edited by hand, and can't stay without the tunnel" in result.stderr
        assert client.run("ip", "rule").stdout == between
        client.write(path, ours)
    said = wizard(client, "remove", "tun0", "--yes").stdout
    assert f"{config} was edited by hand, and stays" in said
    assert f"{config} is removed" not in said
    client.run("rm", config)
    made.client.assert_same()


def test_the_server_goes_as_it_came(made: Before) -> None:
    """A second one beside the first: forwarding and its rules stay as long as either is there."""
    server = made.world.server
    one = Snapshot(server)
    wizard(server, "--yes", "--role=server", f"--key-file={KEY_FILE}", "--name=tun5", "--port=5005")
    assert "glorytun-tun5" in server.run("nft", "list", "tables").stdout
    remove(server, "tun5")
    one.assert_same()
    assert server.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "1\n"


def test_two_tunnels_of_one_client(made: Before) -> None:
    """One for a network beside one for everything, over the same WANs; the first goes first."""
    client, server = made.world.client, made.world.server
    wizard(server, "--yes", "--role=server", f"--key-file={KEY_FILE}", "--name=tun5", "--port=5005")
    set_up_client(client, SERVER_ADDRESS, "--through=everything")
    words = ("--name=tun5", "--port=5005", "--through=10.200.0.0/16")
    said = set_up_client(client, SERVER_ADDRESS, *words).stdout
    assert "tun5 is up over wan0, wan1." in said
    for address, device in {"10.200.0.1": "tun5", INTERNET[4]: "tun0"}.items():
        assert f" dev {device} " in client.run("ip", "route", "get", address).stdout
    remove(client)
    assert " dev tun5 " in client.run("ip", "route", "get", "10.200.0.1").stdout
    assert " dev wan0 " in client.run("ip", "route", "get", INTERNET[4]).stdout
    assert "active (2 of 2 paths running" in wizard(client, "list").stdout
    remove(client, "tun5")
    made.client.assert_same()
    remove(server, "tun5")


# What can't be written.


_MOUNT_ETC = """
cp -a /etc /tmp/etc
mount -t tmpfs -o size=10M lab /etc
cp -a /tmp/etc/. /etc
"""


@pytest.mark.parametrize("kind", ["read-only", "full"])
def test_a_disk_that_takes_nothing(made: Before, kind: str) -> None:
    """It is said, and nothing is changed."""
    client = made.world.client
    client.run("sh", "-ec", _MOUNT_ETC)
    try:
        if kind == "read-only":
            client.run("mount", "-o", "remount,ro", "/etc")
        else:
            client.run("sh", "-c", "cat /dev/zero > /etc/lab-fill", check=False)
        wait_for(
            lambda: client.shown("ActiveState", "etc.mount") == "active",
            timeout=5,
            what="systemd to see the mount",
        )
        before = Snapshot(client)
        result = set_up_client(client, SERVER_ADDRESS, check=False)
        assert result.returncode == 1
        words = {"read-only": "Read-only file system", "full": "No space left"}[kind]
        assert words in result.stderr
        before.assert_same()
    finally:
        client.run("sh", "-ec", "umount -l /etc; rm -r /tmp/etc")
    made.client.assert_same()


def test_a_port_that_is_taken_meanwhile(made: Before) -> None:
    """Between the question and the start."""
    client = made.world.client
    with client.socket(6, socket.SOCK_DGRAM) as taken:
        taken.bind(("::", 5000))
        result = set_up_client(client, SERVER_ADDRESS, "--local-port=5000", check=False)
    assert result.returncode == 1
    assert "taken" in result.stderr
    made.client.assert_same()


def test_two_at_once(made: Before) -> None:
    with waiting(made) as running:
        result = set_up_client(made.world.client, SERVER_ADDRESS, check=False)
        assert result.returncode == 1
        assert "another glorytun-setup" in result.stderr
        os.kill(running.pid, signal.SIGINT)
    made.client.assert_same()
