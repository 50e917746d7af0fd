"""A person sets up a server, invites a client, joins, boots both again, and takes all away."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.lab.install import System
from tests.lab.node import Node
from tests.lab.snapshot import Snapshot
from tests.lab.wizard import AGREE, SERVER, person
from tests.lab.world import INTERNET, World, world
from tests.netns.wait import wait_for
from tests.unit.setup.person import END, INTERRUPT
from tests.unit.setup.scan import scan

MOST_ANSWERS = 8
MOST_SECONDS = 15.0
"""Of machine time, from a fresh host to a ping that works."""
JOIN = ("invitation", "name", "wans", "through")
"""The questions to who was invited."""
KEPT = ("etc/glorytun", "etc/systemd", "etc/sysctl.d", "var/lib/glorytun")
"""What is there after a boot."""
MANIFEST = "/var/lib/glorytun/setup/{}.json"


@dataclass(frozen=True, slots=True)
class Fresh:
    """The world with nothing set up; each test leaves it so."""

    world: World
    server: Snapshot


@pytest.fixture(scope="module")
def fresh(system: System) -> Iterator[Fresh]:
    """Booted once."""
    with world(system) as made:
        yield Fresh(made, Snapshot(made.server))


def set_up_server(node: Node) -> int:
    """By Enter alone, but for the role; how many answers it took."""
    with person(node) as somebody:
        for name in SERVER:
            somebody.answer(name, "server" if name == "role" else "")
        somebody.confirm(AGREE)
        assert somebody.wait_end() == 0, somebody.seen
        return somebody.answers


def invite(node: Node, client: str, *words: str) -> str:
    """The invitation."""
    with person(node, "client", "add", "tun0", client, *words) as somebody:
        somebody.confirm(AGREE)
        assert somebody.wait_end() == 0, somebody.seen
        found = re.search(r"glorytun1-\S+", somebody.seen)
        assert found
        return found[0]


def join(node: Node, invitation: str) -> int:
    """By Enter alone once it is pasted; how many answers it took."""
    with person(node, "join") as somebody:
        for name in JOIN:
            somebody.answer(name, invitation if name == "invitation" else "")
        somebody.confirm(AGREE)
        assert somebody.wait_end() == 0, somebody.seen
        assert invitation[:30] not in somebody.seen
        return somebody.answers


def remove(node: Node, name: str) -> None:
    """Agreed to twice."""
    with person(node, "remove", name) as somebody:
        somebody.confirm(AGREE, "y")
        somebody.confirm("Shall it really go", "y")
        assert somebody.wait_end() == 0, somebody.seen


def revoke(node: Node, client: str) -> None:
    """Agreed to."""
    with person(node, "client", "revoke", client) as somebody:
        somebody.confirm(AGREE, "y")
        assert somebody.wait_end() == 0, somebody.seen


def said(node: Node, *words: str) -> str:
    """By a verb that asks nothing."""
    return node.run("glorytun-setup", *words).stdout


def answers(node: Node, address: str) -> bool:
    """Whether it does, a ping."""
    ping = ("ping", "-n", "-q", "-c", "1", "-W", "1", address)
    return node.run(*ping, check=False).returncode == 0


def wait_internet(made: World) -> None:
    """Until the client reaches the Internet through the tunnel, by both families."""
    for address in INTERNET.values():
        route = made.client.run("ip", "route", "get", address).stdout
        assert " dev tun0 " in route
        wait_for(partial(answers, made.client, address), timeout=20, what=f"an answer of {address}")


def save(node: Node, directory: Path) -> Path:
    """What is there after the next boot."""
    directory.mkdir()
    kept = [name for name in KEPT if node.path(name).exists()]
    with subprocess.Popen(
        ["tar", "-C", str(node.path("/")), "-c", *kept], stdout=subprocess.PIPE
    ) as tar:
        subprocess.run(["tar", "-C", str(directory), "-x"], stdin=tar.stdout, check=True)
    assert tar.returncode == 0
    return directory


def test_from_two_fresh_hosts_to_a_tunnel_that_survives_a_boot(
    system: System, tmp_path: Path
) -> None:
    with world(system) as made:
        before = Snapshot(made.client), Snapshot(made.server)
        began = time.monotonic()
        assert set_up_server(made.server) <= MOST_ANSWERS
        invitation = invite(made.server, "alice")
        assert join(made.client, invitation) <= MOST_ANSWERS
        wait_internet(made)
        assert time.monotonic() - began < MOST_SECONDS
        made.client.wait_running(2)
        assert "connected, 2 paths" in said(made.server, "client", "list")
        assert "active (2 of 2 paths running" in said(made.client, "list")
        trees = {str(end.role): save(end, tmp_path / end.role) for end in made.ends}
        remove(made.client, "tun0")
        revoke(made.server, "alice")
        remove(made.server, "tun0")
        for snapshot in before:
            snapshot.assert_same()
    with world(system, trees=trees) as again:
        again.client.wait_running(2, timeout=30)
        wait_internet(again)


@contextmanager
def server_and_client(fresh: Fresh, client: str, *words: str) -> Iterator[str]:
    """A server with a client; yields the invitation, and takes the server away."""
    set_up_server(fresh.world.server)
    yield invite(fresh.world.server, client, *words)
    remove(fresh.world.server, "tun0")
    fresh.server.assert_same()


@pytest.mark.parametrize(("key", "status"), [(INTERRUPT, 130), (END, 1)], ids=["Ctrl-C", "Ctrl-D"])
def test_to_end_it_at_any_question_changes_nothing(fresh: Fresh, key: str, status: int) -> None:
    for last in (*SERVER, AGREE):
        with person(fresh.world.server) as somebody:
            for name in SERVER:
                if name == last:
                    somebody.press(name, key)
                    break
                somebody.answer(name, "server" if name == "role" else "")
            else:
                somebody.wait_for(AGREE)
                somebody.wait_for(": ")
                somebody.send(key)
            assert somebody.wait_end() == status
            assert "Traceback" not in somebody.seen
    fresh.server.assert_same()


def test_who_disagrees_changes_nothing(fresh: Fresh) -> None:
    with person(fresh.world.server) as somebody:
        for name in SERVER:
            somebody.answer(name, "server" if name == "role" else "")
        somebody.confirm(AGREE, "n")
        assert somebody.wait_end() == 1
        assert "nothing is changed" in somebody.seen
    fresh.server.assert_same()


def test_a_dry_run_shows_and_changes_nothing(fresh: Fresh) -> None:
    shown = said(fresh.world.server, "--dry-run", "--yes", "--role=server")
    assert "/etc/glorytun/tun0.key is new (0600 root:root), a secret that is not shown" in shown
    assert shown.endswith("\nNothing was changed.\n")
    fresh.server.assert_same()


def test_without_a_terminal_somebody_has_to_agree(fresh: Fresh) -> None:
    result = fresh.world.server.run("glorytun-setup", "--role=server", check=False)
    assert result.returncode == 1
    assert "nobody is there to agree (--yes agrees, --dry-run only shows)" in result.stderr
    fresh.server.assert_same()


def test_who_is_not_root_is_told(fresh: Fresh) -> None:
    words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "glorytun-setup")
    result = fresh.world.server.run(*words, "--yes", "--role=server", check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert "this needs root" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_same_file_of_answers_twice_does_nothing_the_second_time(fresh: Fresh) -> None:
    server = fresh.world.server
    server.write("/run/answers.toml", 'role = "server"\nname = "gt0"\nport = 443\nshare = true\n')
    words = ("--yes", "--answers=/run/answers.toml")
    said(server, *words)
    unit = "glorytun@gt0.service"
    invocation = server.shown("InvocationID", unit)
    assert "Nothing to do: all of it is so already." in said(server, *words)
    assert server.shown("InvocationID", unit) == invocation
    assert "gt0" in said(server, "list")
    said(server, "remove", "gt0", "--yes")
    fresh.server.assert_same()


def test_the_same_answers_without_a_name_are_the_same_tunnel(fresh: Fresh) -> None:
    """And what changes no file is remembered nevertheless."""
    server = fresh.world.server
    words = ("--yes", "--role=server")
    said(server, *words)
    assert "Nothing to do: all of it is so already." in said(server, *words)
    assert "server: " in said(server, "edit", "tun0", "--yes", "--server=vpn.example.net")
    assert "vpn.example.net" in said(server, "list")
    assert "Nothing to do" in said(server, "edit", "tun0", "--yes")
    said(server, "remove", "tun0", "--yes")
    fresh.server.assert_same()


def test_what_was_answered_is_proposed_again(fresh: Fresh) -> None:
    server = fresh.world.server
    said(server, "--yes", "--role=server", "--port=5055", "--share=no")
    with person(server, "edit", "tun0") as somebody:
        for name in SERVER[2:]:
            somebody.answer(name, "yes" if name == "share" else "")
        somebody.confirm(AGREE)
        assert somebody.wait_end() == 0, somebody.seen
        assert "[5055]: " in somebody.seen
    assert "table inet glorytun-tun0" in server.run("nft", "list", "tables").stdout
    assert "listens on UDP port 5055" in said(server, "show", "tun0")
    remove(server, "tun0")
    fresh.server.assert_same()


def test_a_client_that_does_not_come_in_time_goes_again(fresh: Fresh) -> None:
    server = fresh.world.server
    with server_and_client(fresh, "bob", "--expires=1h") as invitation:
        name = "tun0-bob"
        assert "bob" in said(server, "client", "list")
        assert invitation in said(server, "client", "invite", "bob")
        assert "could not be set up" not in said(server, "show", name)
        timer = f"glorytun-invitation-{name}.timer"
        assert server.shown("ActiveState", timer) == "active"
        said(server, "client", "expire", name)
        assert "invited, for 1 h more" in said(server, "client", "list")
        _let_expire(server, name)
        server.systemctl("start", f"glorytun-invitation-{name}.service")
        assert "bob" not in said(server, "client", "list")
        assert server.shown("ActiveState", timer) == "inactive"


def test_a_client_that_came_and_went_stays(fresh: Fresh) -> None:
    """Nobody looked while it was there, and the server forgot its paths."""
    server, client = fresh.world.server, fresh.world.client
    with server_and_client(fresh, "bob", "--expires=1h") as invitation:
        join(client, invitation)
        remove(client, "tun0")
        server.systemctl("restart", "glorytun@tun0-bob.service")
        _let_expire(server, "tun0-bob")
        server.systemctl("start", "glorytun-invitation-tun0-bob.service")
        listed = said(server, "client", "list")
        assert "bob" in listed
        assert "away" in listed
        timer = "glorytun-invitation-tun0-bob.timer"
        assert server.shown("ActiveState", timer) == "inactive"
        server.systemctl("start", timer)
        edited = said(server, "edit", "tun0-bob", "--yes", "--port=5099")
        assert "Its client has to change too (port)" in edited
        assert "client add tun0-bob" not in edited
        assert server.shown("LoadState", timer) == "not-found"
        assert timer not in server.run("systemctl", "list-units", "--all", "--plain").stdout
        revoke(server, "bob")


def test_an_invitation_is_drawn(fresh: Fresh) -> None:
    server = fresh.world.server
    set_up_server(server)
    assert "There is no client yet" in said(server, "client", "list")
    shown = said(server, "client", "add", "tun0", "bob", "--qr", "--yes")
    line = re.search(r"^glorytun1-\S+$", shown, re.MULTILINE)
    assert line
    assert scan(shown) == [line[0]]
    assert "tun0 has clients, whose tunnels go first: tun0-bob." in said(
        server, "remove", "tun0", "--yes"
    )
    fresh.server.assert_same()


def _let_expire(server: Node, name: str) -> None:
    """An hour passes."""
    path = MANIFEST.format(name)
    manifest = json.loads(server.path(path).read_text())
    manifest["answers"]["invitation_expires"] = "1"
    server.write(path, json.dumps(manifest), 0o600)


def test_an_invitation_is_read_from_standard_input(fresh: Fresh) -> None:
    with server_and_client(fresh, "bob") as invitation:
        words = ("glorytun-setup", "join", "--dry-run")
        result = fresh.world.client.run(*words, input=f"{invitation}\n")
        assert "this host is the client of 10.9.8.9, UDP port 5001" in result.stdout
        assert invitation[:30] not in result.stdout
        revoke(fresh.world.server, "bob")


def test_a_configuration_of_the_original_is_taken_over(fresh: Fresh) -> None:
    server = fresh.world.server
    server.write("/etc/glorytun/tun5/env", "DEV=gt-tun5\nHOST=\nPORT=\nBIND_PORT=5555\n")
    server.write("/etc/glorytun/tun5/key", f"{'5a' * 32}\n", 0o600)
    with person(server) as somebody:
        somebody.confirm("Shall it be taken over")
        for name in ("server", "addresses", "share"):
            somebody.answer(name)
        somebody.confirm(AGREE)
        assert somebody.wait_end() == 0, somebody.seen
        assert "5a5a5a" not in somebody.seen
    assert server.run("cat", "/etc/glorytun/tun5.key").stdout == f"{'5a' * 32}\n"
    assert "\nPort=5555\n" in server.run("cat", "/etc/glorytun/tun5.conf").stdout
    remove(server, "tun5")
    server.run("rm", "-r", "/etc/glorytun/tun5")
    fresh.server.assert_same()
