"""A tunnel of a file, while everything that it follows changes at random.

The topology is `configured.home` with three links.
"""

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns.configured import Configured, Ours, add_default_route, home, start
from tests.netns.topology import CLIENT, Lab, Topology, address
from tests.netns.tunnel import Tunnels
from tests.netns.wait import wait_for

LASTS = 20.0
"""Seconds of changes."""
SETTLED = 15.0
"""Seconds afterwards until all is as the file has it."""
QUICK = 2.0
"""Seconds within which it answers, whatever happens, on a machine that has other things to do."""
NUMBERS = (1, 2, 3)
FILES = (
    ("Local=link1", "Local=link2", "Local=link3"),
    ("Local=link*", "Local=link2\nBeat=200ms"),
    ("Local=link1\nState=backup", "Local=link1\nPeer=10.9.1.2", "Local=link?\nState=down"),
    ("Local=10.9.1.1", "Local=10.9.2.1\nRateTx=50mbit", "Local=*"),
    ("Local=link3\nBeat=50ms",),
)
"""Any of these may be in force; the last is the first again."""


class Chaos:
    """What may happen to the client. All of it fails where it makes no sense just now."""

    def __init__(self, lab: Lab, topology: Topology, client: Configured, seed: int) -> None:
        self._lab = lab
        self._topology = topology
        self._client = client
        self._random = random.Random(seed)
        self.done: list[str] = []
        """What happened, for the report of a failure."""

    def act(self) -> None:
        """Do one thing."""
        what: Callable[[int], None] = self._random.choice(
            [
                self._flip_link,
                self._flip_carrier,
                self._flip_address,
                self._replace_address,
                self._make_anew,
                self._rename,
                self._add_foreign,
                self._reload,
                self._reload_wrong,
                self._set_path,
                self._cut_route,
            ]
        )
        number = self._random.choice(NUMBERS)
        self.done.append(f"{what.__name__} {number}")
        what(number)

    def _ip(self, *commands: str, server: bool = False) -> None:
        """Each by itself, whether it can be done or not."""
        host = self._topology.server if server else self._topology.client
        host.run("ip", "-force", "-batch", "-", input="\n".join(commands), check=False)

    def _flip_link(self, number: int) -> None:
        self._ip(f"link set link{number} {self._random.choice(['up', 'down'])}")

    def _flip_carrier(self, number: int) -> None:
        self._ip(f"link set link{number} {self._random.choice(['up', 'down'])}", server=True)

    def _flip_address(self, number: int) -> None:
        verb = self._random.choice(["add", "delete"])
        self._ip(f"address {verb} {address(4, number, CLIENT)}/24 dev link{number}")
        self._ip(f"address {verb} {address(6, number, CLIENT)}/64 dev link{number}")

    def _replace_address(self, number: int) -> None:
        last = self._random.randrange(10, 250)
        # The same address on another link, too.
        net = self._random.choice([number, number, self._random.choice(NUMBERS)])
        self._ip(
            f"address add 10.9.{net}.{last}/24 dev link{number}",
            f"address delete {address(4, number, CLIENT)}/24 dev link{number}",
        )

    def _make_anew(self, number: int) -> None:
        self._ip(f"link delete link{number}", f"link delete other{number}")
        self._lab.link(self._topology.client, self._topology.server, number)
        add_default_route(self._topology.client, number)

    def _rename(self, number: int) -> None:
        names = [f"link{number}", f"other{number}"]
        self._random.shuffle(names)
        self._ip(
            f"link set {names[0]} down",
            f"link set {names[0]} name {names[1]}",
            f"link set {names[1]} up",
        )

    def _add_foreign(self, number: int) -> None:
        name = f"f{self._random.randrange(4)}"
        self._ip(
            f"link add {name} type veth peer name {name}p",
            f"link set {name} up",
            f"link set {name}p up",
            f"address add {address(4, number, CLIENT)}/24 dev {name}",
            f"link delete {self._random.choice(['f0', 'f1', 'f2', 'f3'])}",
        )

    def _reload(self, _: int) -> None:
        self._client.reconfigure(*self._random.choice(FILES))

    def _reload_wrong(self, _: int) -> None:
        self._client.configure(*self._random.choice(FILES), tunnel="Port=none\n")
        assert self._client.try_reload().returncode == 1

    def _set_path(self, number: int) -> None:
        words = self._random.choice(["up", "down", "backup", "beat 70ms", "rate tx 9mbit"])
        self._client.glorytun("path", address(4, number, CLIENT), *words.split())

    def _cut_route(self, number: int) -> None:
        self._ip(f"route delete default dev link{number}")

    def restore(self) -> None:
        """Bring the links into the state that they had."""
        self._ip(*(f"link delete f{number}" for number in range(4)))
        for number in NUMBERS:
            self._make_anew(number)
        self._client.reconfigure(*FILES[0])


def planned(client: Configured) -> set[tuple[str, str]]:
    """Local and remote address of each path that ``glorytun check`` says there would be."""
    found = json.loads(client.glorytun("check", str(client.file), "json").stdout)
    return {
        (path["local"], path["remote"]["address"])
        for section in found["paths"]
        for path in section["paths"]
    }


def descriptors(client: Configured) -> int:
    return len(os.listdir(f"/proc/{client.pid}/fd"))


def threads(client: Configured) -> int:
    return len(os.listdir(f"/proc/{client.pid}/task"))


def memory(client: Configured) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{client.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_it_ends_up_as_the_file_has_it(lab: Lab, tunnels: Tunnels, seed: int) -> None:
    """Whatever happened on the way: the same process, the paths of the file, and traffic."""
    topology = home(lab, links=3)
    pair = start(tunnels, topology, *FILES[0])
    pair.wait_running(3)
    client, pid = pair.client, pair.client.pid
    before: list[Any] = [descriptors(client), threads(client)]
    chaos = Chaos(lab, topology, client, seed)
    ends = time.monotonic() + LASTS
    try:
        while time.monotonic() < ends:
            for _ in range(5):
                chaos.act()
            asked = time.monotonic()
            client.command("path")
            assert time.monotonic() - asked < QUICK, "it took long to answer"
        chaos.restore()
        _wait_settled(pair)
    except AssertionError as error:
        raise AssertionError(f"{error}\nafter: {', '.join(chaos.done)}") from error
    assert client.pid == pid
    assert client.running
    assert [descriptors(client), threads(client)] == before
    assert memory(client) < 80_000_000
    assert "Traceback" not in client.logged() + pair.server.logged()


def _wait_settled(pair: Ours) -> None:
    client = pair.client
    expected = {(address(4, number, CLIENT), "10.9.99.2") for number in NUMBERS}
    wait_for(
        lambda: client.ends() >= expected == planned(client),
        timeout=SETTLED,
        what="the paths of the file",
    )
    # What a user made by hand from an address that was none of the file's then may be left.
    wait_for(pair.answers, timeout=SETTLED, what="a ping")
    pair.wait_mtu(1450)
    pair.ping(count=20)
    pair.transfer()
