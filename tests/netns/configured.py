"""Tunnels that run by a configuration file, and what systemd would hear of them."""

import json
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.netns.topology import SERVER, Host, Lab, Topology, address
from tests.netns.tunnel import Pair, Tunnel, Tunnels
from tests.netns.wait import wait_for

REMOTE = "10.9.99.2"
"""The server of `home`."""


class Configured(Tunnel):
    """``glorytun run``, by a file of its own."""

    def __init__(
        self, host: Host, *, peer: str | None = None, paths: tuple[str, ...] = (), **options: Any
    ) -> None:
        """`peer` makes it a client; for `paths` see `configure`."""
        super().__init__(host, to=peer, **options)
        self.file = self.directory / f"{self.dev}.conf"
        self.key: Path = options["key"]
        self._head = f"[Tunnel]\nKeyFile={self.key}\n"
        self._peer = peer
        self._bind = ["run", self.dev, "config", str(self.file)]
        self.configure(*paths)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notified.bind(str(self.directory / "notify"))
        self.env["NOTIFY_SOCKET"] = str(self.directory / "notify")
        self.env["GLORYTUN_TEST_USAGE"] = str(self.directory)
        self._said: list[str] = []

    def configure(self, *paths: str, tunnel: str = "") -> None:
        """Write the file: each of `paths` is what a [Path] says, `tunnel` what [Tunnel] says too.

        At once, as an editor does: a reader finds the former file or this one.
        """
        peer = f"Peer={self._peer}\n" if self._peer else ""
        text = self._head + peer + tunnel + "".join(f"\n[Path]\n{path}\n" for path in paths)
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    def set_peer(self, peer: str) -> None:
        """Let the file name another server, from the next `configure` on."""
        self._peer = peer

    def line_of(self, text: str) -> int:
        """The number of the line of the file that has this text."""
        lines = self.file.read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if text in line)

    def reload(self) -> None:
        """``glorytun reload``, which must succeed and say nothing."""
        result = self.try_reload()
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

    def try_reload(self) -> subprocess.CompletedProcess[str]:
        """``glorytun reload``."""
        return self.glorytun("reload", self.dev)

    def reconfigure(self, *paths: str, tunnel: str = "") -> None:
        """`configure` and `reload`."""
        self.configure(*paths, tunnel=tunnel)
        self.reload()

    def settings(self, local: str) -> dict[str, Any]:
        """What is set on the path from an address, with its state; there must be one such path."""
        found = json.loads(self.command("path", "json"))["paths"]
        [path] = [path for path in found if path["local"] == local]
        return {"state": path["state"], **path["settings"]}

    def quota(self, local: str) -> dict[str, int]:
        """What is used of it on the path from an address."""
        found = json.loads(self.command("path", "json"))["paths"]
        [quota] = [path["quota"] for path in found if path["local"] == local]
        assert isinstance(quota, dict)
        return quota

    def locals(self) -> list[str]:
        """The local addresses of all paths."""
        return sorted(path.local for path in self.paths())

    def ends(self) -> set[tuple[str, str]]:
        """Local and remote address of each path that is running."""
        return {(path.local, path.remote) for path in self.paths() if path.running}

    def wait_ends(self, *ends: tuple[str, str], timeout: float = 5) -> None:
        """Wait until these are the paths, and all of them run."""
        wait_for(
            lambda: self.ends() == set(ends) and len(self.paths()) == len(ends),
            timeout=timeout,
            what=f"the paths {ends}",
        )

    def notifications(self) -> list[str]:
        """Each ``NAME=value`` that systemd was told so far."""
        while True:
            try:
                self._said += self._notified.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self._said

    def status(self) -> str:
        """The status line that ``systemctl status`` would show."""
        said = [word for word in self.notifications() if word.startswith("STATUS=")]
        return said[-1].removeprefix("STATUS=") if said else ""

    def wait_status(self, start: str, *, timeout: float = 5) -> str:
        """Wait until the status line begins so; all of it."""
        return wait_for(
            lambda: self.status() if self.status().startswith(start) else "",
            timeout=timeout,
            what=f"the status {start!r}",
        )

    def cleanup(self) -> None:
        super().cleanup()
        self._notified.close()


Ours = Pair[Configured, Configured]


def start(
    tunnels: Tunnels, topology: Topology, *paths: str, peer: str = "", tunnel: str = ""
) -> Ours:
    """Start both sides; the client's `paths` are what its sections say."""
    peer = peer or topology.server_address()
    pair = Pair(
        client=tunnels.make(Configured, topology.client, peer=peer, paths=paths),
        server=tunnels.make(Configured, topology.server),
    )
    pair.client.configure(*paths, tunnel=tunnel)
    pair.server.start()
    pair.client.start()
    return pair


def home(lab: Lab, *, links: int = 2) -> Topology:
    """A client with a default route over each of its links, by metric, and no rules.

        client                                     server
        link1 10.9.1.1  metric 1  ─── link 1 ───   link1 10.9.1.2
        link2 10.9.2.1  metric 2  ─── link 2 ───   link2 10.9.2.2      lo 10.9.99.2

    As at home: the default route alone would send everything by link 1.
    """
    client, server = lab.host("client"), lab.host("server")
    joined = [lab.link(client, server, number) for number in range(1, links + 1)]
    server.ip(f"address add {REMOTE}/32 dev lo")
    # Without a route over an interface that is to be used, the kernel takes the server for a
    # neighbour there (ip_route_output_key_hash_rcu()); no real one would answer.
    server.sysctl("ipv4/conf/all/arp_ignore", 1)
    # Else the first address of a network takes the others with it (ip-sysctl); systemd sets it too.
    client.sysctl("ipv4/conf/all/promote_secondaries", 1)
    for link in joined:
        add_default_route(client, link.number)
    return Topology(client=client, server=server, links=joined, server_link=99)


def add_default_route(client: Host, number: int) -> None:
    """Of the client of `home`; the kernel removes it when the link goes down."""
    gateway = address(4, number, SERVER)
    client.ip(f"route replace default via {gateway} dev link{number} metric {number}")


def give_address(host: Host, number: int, end: int, *, last: int) -> None:
    """Give a link another IPv4 address in place of the one that it has."""
    host.ip(
        f"address add 10.9.{number}.{last}/24 dev link{number}",
        f"address delete {address(4, number, end)}/24 dev link{number}",
    )


class Names:
    """What ``/etc/hosts`` of a host says while in context (ip-netns(8)).

    There is no name server until `use_server`.
    """

    def __init__(self, host: Host) -> None:
        self._directory = Path("/etc/netns", host.netns)
        self._hosts = self._directory / "hosts"

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True)
        self.use_server("127.0.0.1")
        self.set()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._directory)
        with suppress(OSError):  # Others are there still.
            self._directory.parent.rmdir()

    def set(self, name: str = "", *addresses: str) -> None:
        """Let this name have these addresses, and no other name any."""
        # Not replaced: what is mounted over /etc/hosts is this very file.
        lines = [f"{found} {name}\n" for found in addresses]
        self._hosts.write_text("127.0.0.1 localhost\n" + "".join(lines))

    def use_server(self, address: str) -> None:
        """Let the processes that are started from now on ask this name server."""
        (self._directory / "resolv.conf").write_text(f"nameserver {address}\n")
