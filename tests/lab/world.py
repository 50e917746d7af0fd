"""A home with two Internet links, its provider, and a rented server: what the wizard finds.

    ┌──────────────────────────────┐          ┌───────────────────────────┐         ┌──────────────┐
    │ client                       │          │ provider                  │         │ server       │
    │ wan0 by DHCP and RA, best    ├── wan0 ──┤ wan0 10.9.0.2  fd09::2    │         │              │
    │ wan1 10.9.1.1  fd09:1::1     ├── wan1 ──┤ wan1 10.9.1.2  fd09:1::2  │         │ up0 10.9.8.9 │
    │ lan0 192.168.7.1  (optional) │          │ up0  10.9.8.2  fd09:8::2  ├── up0 ──┤     fd09:8…  │
    └──────────────────────────────┘          │ lo 198.18.0.1 2001:db8::1 │         └──────────────┘
                                              └───────────────────────────┘
Somebody has set up rules, routes and an address on the client and the server by hand, which nobody
else is to touch. The provider is a router. Its last two addresses are "the Internet": some host in
there. The server has its IPv6 address and gateway from router advertisements.
"""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.lab.install import System
from tests.lab.node import Node, link, write
from tests.lab.tunnel import End, up
from tests.netns.topology import FAMILIES, Family, run
from tests.netns.wait import wait_for

SERVER_ADDRESS = "10.9.8.9"
INTERNET: dict[Family, str] = {4: "198.18.0.1", 6: "2001:db8::1"}
STATIC: dict[Family, str] = {4: "10.9.1.1", 6: "fd09:1::1"}
"""Addresses of the client's wan1."""
WAN_TABLE = "7101"
"""Of the first WAN of a host's first tunnel."""
_NETWORK = "/etc/systemd/network"

_CLIENT = {
    f"{_NETWORK}/20-wan0.network": """[Match]
Name=wan0
[Network]
DHCP=ipv4
IPv6DuplicateAddressDetection=0
[DHCPv4]
RouteMetric=100
""",
    f"{_NETWORK}/20-wan1.network": """[Match]
Name=wan1
[Network]
Address=10.9.1.1/24
Address=fd09:1::1/64
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0
[Route]
Gateway=10.9.1.2
Metric=200
[Route]
Gateway=fd09:1::2
Metric=2000
""",
    f"{_NETWORK}/20-lan0.network": """[Match]
Name=lan0
[Network]
Address=192.168.7.1/24
Address=fd07::1/64
IPv6AcceptRA=no
""",
}
_PROVIDER = {
    f"{_NETWORK}/20-wan0.network": """[Match]
Name=wan0
[Network]
Address=10.9.0.2/24
Address=fd09::2/64
DHCPServer=yes
IPv6SendRA=yes
[DHCPServer]
PoolOffset=33
PoolSize=50
EmitDNS=no
[IPv6Prefix]
Prefix=fd09::/64
""",
    f"{_NETWORK}/20-wan1.network": """[Match]
Name=wan1
[Network]
Address=10.9.1.2/24
Address=fd09:1::2/64
""",
    f"{_NETWORK}/20-up0.network": """[Match]
Name=up0
[Network]
Address=10.9.8.2/24
Address=fd09:8::2/64
IPv6SendRA=yes
[IPv6Prefix]
Prefix=fd09:8::/64
""",
    f"{_NETWORK}/10-lo.network": """[Match]
Name=lo
[Network]
Address=198.18.0.1/32
Address=2001:db8::1/128
""",
    "/etc/sysctl.d/50-router.conf": "net.ipv4.ip_forward=1\nnet.ipv6.conf.all.forwarding=1\n",
}
_SERVER = {
    f"{_NETWORK}/20-up0.network": """[Match]
Name=up0
[Network]
Address=10.9.8.9/24
[Route]
Gateway=10.9.8.2
""",
}


_RULES_BY_HAND = {
    "client": """
ip rule add from 198.51.100.7 table 500 priority 300
ip -6 rule add from 2001:db8:77::/64 table 500 priority 301
""",
    "server": """
ip rule add fwmark 0x80/0xff table 52 priority 5210
ip -6 rule add fwmark 0x80/0xff table 52 priority 5210
""",
}
_ROUTES_BY_HAND = {
    "client": """
ip address replace 10.9.1.55/24 dev wan1
ip route replace 203.0.113.0/24 via 10.9.1.2 dev wan1
ip -6 route replace 2001:db8:99::/48 via fd09:1::2 dev wan1
ip route replace 192.0.2.0/24 dev wan0 table 500
""",
    "server": "ip route replace 203.0.113.0/24 via 10.9.8.2 dev up0",
}


@dataclass(frozen=True, slots=True)
class World:
    """The three of them."""

    client: End
    provider: Node
    server: End

    @property
    def ends(self) -> tuple[End, End]:
        """Those with a tunnel, as in `Pair`."""
        return self.server, self.client

    def dhcp_address(self) -> str:
        """Of the client's wan0."""
        return address_of(self.client, "wan0", 4)

    def connect(self, family: Family, to: str) -> "Connection":
        """From the Internet to an address of the client's."""
        return Connection(self.client, self.provider, family, to)

    def wait_online(self) -> None:
        """Until everything has its addresses and gateways."""
        for node, device in ((self.client, "wan0"), (self.server, "up0")):
            for family in FAMILIES:
                wait_for(
                    partial(has_gateway, node, device, family),
                    timeout=20,
                    what=f"IPv{family} on {device} of {node.name}",
                )

    def wait_routed(self) -> None:
        """Until the client's first WAN has both gateways in its own table, of DHCP and RA."""
        for family in FAMILIES:
            command = ("ip", f"-{family}", "route", "show", "default", "table", WAN_TABLE)
            what = f"IPv{family} in table {WAN_TABLE}"
            wait_for(partial(self._says, *command), timeout=20, what=what)

    def _says(self, *command: str) -> str:
        return self.client.run(*command, check=False).stdout


class Connection:
    """A TCP connection from outside to the client, as of an SSH session."""

    def __init__(self, client: Node, outside: Node, family: Family, to: str) -> None:
        with client.socket(family, socket.SOCK_STREAM) as listener:
            # As sshd does it: not to the address, so that answers have to find their way.
            listener.bind(("::" if family == 6 else "0.0.0.0", 0))
            listener.listen(1)
            self._outside = outside.socket(family, socket.SOCK_STREAM)
            self._outside.bind((INTERNET[family], 0))
            self._outside.settimeout(10)
            self._outside.connect((to, listener.getsockname()[1]))
            self._inside = listener.accept()[0]
            self._inside.settimeout(10)

    @property
    def variable(self) -> str:
        """SSH_CONNECTION as sshd would set it."""
        client, server = self._inside.getpeername(), self._inside.getsockname()
        return f"{client[0]} {client[1]} {server[0]} {server[1]}"

    def says(self, word: bytes) -> None:
        """Assert that it carries a word there and back."""
        self._outside.sendall(word)
        assert self._inside.recv(100) == word
        self._inside.sendall(word)
        assert self._outside.recv(100) == word

    def print(self, text: bytes) -> None:
        """As the program of the session does."""
        self._inside.sendall(text)

    def hears(self, text: bytes) -> None:
        """Assert that what was printed arrives."""
        assert self._outside.recv(100) == text

    def close(self) -> None:
        """Both ends."""
        self._inside.close()
        self._outside.close()


def address_of(node: Node, device: str, family: Family) -> str:
    """The first global address of a device; empty without one."""
    shown = node.run("ip", f"-{family}", "-o", "addr", "show", "dev", device, "scope", "global")
    words = shown.stdout.split()
    return words[3].split("/")[0] if len(words) > 3 and "tentative" not in words else ""


def has_gateway(node: Node, device: str, family: Family) -> bool:
    """Whether it has an address on a device, and a default route over it."""
    shown = node.run("ip", f"-{family}", "route", "show", "default", "dev", device, check=False)
    return bool(shown.stdout and address_of(node, device, family))


def route_by_hand(end: End) -> None:
    """As somebody has done it, whose routes go with their interfaces."""
    end.run("sh", "-ec", _ROUTES_BY_HAND[end.role])


@contextmanager
def world(
    system: System,
    *,
    files: dict[str, dict[str, str]] | None = None,
    trees: dict[str, Path] | None = None,
) -> Iterator[World]:
    """All three, booted, joined, and online. `files` are more of them, by role, as are `trees`."""
    client, server = End("client"), End("server")
    made = World(client, Node(f"provider-{client.name}"), server)
    nodes = {"client": made.client, "provider": made.provider, "server": made.server}
    own = {"client": _CLIENT, "provider": _PROVIDER, "server": _SERVER}
    with ExitStack() as stack:
        up.append(made)
        stack.callback(up.remove, made)
        for role, node in nodes.items():
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gt-lab-")))
            directory.chmod(0o755)
            shutil.copytree(system.files, directory, symlinks=True, dirs_exist_ok=True)
            for path, text in {**own[role], **(files or {}).get(role, {})}.items():
                write(directory, path, text)
            if trees and role in trees:
                # Links, such as those of a package, may be there already: shutil would refuse them.
                run("cp", "-a", f"{trees[role]}/.", str(directory))
            stack.callback(node.down)
            node.start(system.root, files=directory, binds=system.binds)
        for node in nodes.values():
            node.wait_booted()
        link(made.client, made.provider, "wan0", "wan1")
        link(made.provider, made.server, "up0")
        made.wait_online()
        for end in made.ends:
            end.run("sh", "-ec", _RULES_BY_HAND[end.role])
            route_by_hand(end)
        yield made
