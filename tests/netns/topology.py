"""Hosts in network namespaces, and links between them.

Two hosts and N links (`direct`); the client reaches the server's one address, 10.9.1.2 or
fd09:1::2, over each link by the source address it sends from:

    ┌─────────────────────┐                         ┌─────────────────────┐
    │ client              │                         │ server              │
    │ link1 10.9.1.1      ├──────── link 1 ─────────┤ link1 10.9.1.2      │
    │       fd09:1::1     │                         │       fd09:1::2     │
    │ link2 10.9.2.1      ├──────── link 2 ─────────┤ link2 10.9.2.2      │
    │       fd09:2::1     │                         │       fd09:2::2     │
    └─────────────────────┘                         └─────────────────────┘

A router between them (`routed`) that drops what doesn't fit and says nothing about it, as its
ICMP errors are filtered; the hosts' own interfaces keep an MTU of 1500:

    ┌──────────────┐             ┌────────────────────────┐             ┌──────────────┐
    │ client       │             │ router                 │             │ server       │
    │ link1 MTU    ├─── link 1 ──┤ link1 MTU   link2 MTU  ├── link 2 ───┤ link2 MTU    │
    │       1500   │             │        1400       1400 │             │       1500   │
    │ 10.9.1.1     │             │ 10.9.1.2      10.9.2.1 │             │ 10.9.2.2     │
    └──────────────┘             └────────────────────────┘             └──────────────┘

`Router.translate` makes the router a NAT: the server sees 10.9.2.1 and a port that the test picks.
"""

import ctypes
import itertools
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

Family = Literal[4, 6]
FAMILIES: tuple[Family, Family] = (4, 6)

CLIENT, SERVER = 1, 2
"""Host part of the addresses of the two ends of a link."""

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


def address(family: Family, link: int, end: int) -> str:
    """Address of one end of a link."""
    return f"10.9.{link}.{end}" if family == 4 else f"fd09:{link}::{end}"


def run(
    *argv: str, check: bool = True, input: str | None = None, timeout: float = 20
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; when it fails, unless `check` is False, say what it said."""
    result = subprocess.run(argv, input=input, timeout=timeout, capture_output=True, text=True)
    if check and result.returncode:
        raise AssertionError(f"{' '.join(argv)}: {result.stderr or result.stdout}")
    return result


def within(namespace: str, work: Callable[[], _T]) -> _T:
    """Call `work` in a thread that is in a network namespace: setns(2) moves one thread only."""

    def enter() -> _T:
        with open(namespace) as file:
            if _libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()


@dataclass(frozen=True, slots=True)
class Ping:
    """What ``ping`` counted."""

    sent: int
    received: int


class Host:
    """A network namespace. `Lab` makes and removes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.netns = f"gt-{os.getpid()}-{next(_numbers)}-{name}"
        run("ip", "netns", "add", self.netns)
        self._processes: list[subprocess.Popen[str]] = []

    def setup(self) -> None:
        """Bring loopback up; don't let the host filter by source address or wait for DAD."""
        self.ip("link set lo up")
        for setting in ("ipv4/conf/all/rp_filter", "ipv6/conf/default/accept_dad"):
            self.sysctl(setting, 0)

    def remove(self) -> None:
        """Kill what still runs here and delete the namespace."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        run("ip", "netns", "delete", self.netns)

    def run(
        self, *argv: str, check: bool = True, input: str | None = None, timeout: float = 20
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Raises when it fails, unless `check` is False."""
        return run(
            *("ip", "netns", "exec", self.netns), *argv, check=check, input=input, timeout=timeout
        )

    def popen(self, *argv: str, log: Path, env: dict[str, str]) -> subprocess.Popen[str]:
        """Start a command, its output appended to `log`. ``ip netns exec`` becomes the command,
        so the process id is the command's own (ip-netns(8))."""
        with log.open("a") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.netns, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                text=True,
            )
        self._processes.append(process)
        return process

    def ip(self, *commands: str, family: Family | None = None) -> None:
        """Run commands of ip(8) in the namespace, in one process; `family` is for ``ip rule``,
        which doesn't see it from the addresses."""
        option = [f"-{family}"] if family else []
        run("ip", "-n", self.netns, *option, "-batch", "-", input="\n".join(commands))

    def nft(self, ruleset: str) -> None:
        """Apply a ruleset, all of it at once."""
        self.run("nft", "-f", "-", input=ruleset)

    def sysctl(self, name: str, value: int) -> None:
        """Set ``net/NAME``, which belongs to the namespace."""
        self.within(lambda: Path("/proc/sys/net", name).write_text(str(value)))

    def within(self, work: Callable[[], _T]) -> _T:
        """Call `work` in a thread that is in the namespace."""
        return within(f"/run/netns/{self.netns}", work)

    def socket(self, family: Family, kind: socket.SocketKind) -> socket.socket:
        """A socket of the namespace, for use in the test's own process."""
        numbers = {4: socket.AF_INET, 6: socket.AF_INET6}
        return self.within(lambda: socket.socket(numbers[family], kind))

    def device(self, name: str) -> dict[str, object] | None:
        """What ``ip -s -j link`` says of a device, or None."""
        shown = run("ip", "-n", self.netns, "-s", "-j", "link", "show", "dev", name, check=False)
        found: list[dict[str, object]] = json.loads(shown.stdout or "[]")
        return found[0] if found else None

    def mtu(self, device: str) -> int | None:
        """MTU of a device, or None without it."""
        found = self.device(device)
        return int(str(found["mtu"])) if found else None

    def ping(
        self, to: str, *words: str, count: int = 3, interval: float = 0.05, wait: float = 1
    ) -> Ping:
        """Ping and count the answers. No answer, or no route, is not an error."""
        result = self.run(
            *("ping", "-n", "-q", "-c", str(count), "-i", str(interval), "-W", str(wait)),
            *words,
            to,
            check=False,
            timeout=count * interval + wait + 20,
        )
        found = re.search(r"(\d+) packets transmitted, (\d+) received", result.stdout)
        return Ping(int(found[1]), int(found[2])) if found else Ping(count, 0)


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair. The device has the same name, ``linkN``, at both ends."""

    number: int
    hosts: tuple[Host, Host]

    @property
    def device(self) -> str:
        """Name of the device at both ends."""
        return f"link{self.number}"

    def cut(self) -> None:
        """Lose everything in both directions while both ends stay up. Neighbour discovery goes
        on, as it would when the line fails behind the next router."""
        for host in self.hosts:
            host.nft(f"""
                table netdev cut_{self.device} {{
                    chain in {{
                        type filter hook ingress device "{self.device}" priority 0
                        meta l4proto {{ udp, tcp, icmp }} drop
                    }}
                }}
            """)

    def mend(self) -> None:
        """Undo `cut`."""
        for host in self.hosts:
            host.nft(f"delete table netdev cut_{self.device}")

    def carried(self) -> int:
        """Bytes that the first host sent and received over the link."""
        found = self.hosts[0].device(self.device)
        assert found
        stats = found["stats64"]
        assert isinstance(stats, dict)
        return int(stats["tx"]["bytes"]) + int(stats["rx"]["bytes"])


class Lab:
    """Makes hosts and links; on leaving, all of them are gone, whatever happened."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def host(self, name: str) -> Host:
        """A new host, without links."""
        host = Host(name)
        self._stack.callback(host.remove)
        host.setup()
        return host

    def link(self, first: Host, second: Host, number: int) -> Link:
        """Join two hosts; the addresses are ``address(family, number, CLIENT or SERVER)``."""
        link = Link(number, (first, second))
        first.ip(f"link add {link.device} type veth peer name {link.device} netns {second.netns}")
        for host, end in ((first, CLIENT), (second, SERVER)):
            host.ip(
                f"addr add {address(4, number, end)}/24 dev {link.device}",
                f"addr add {address(6, number, end)}/64 dev {link.device} nodad",
                f"link set {link.device} up",
            )
        return link


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Two hosts and how they reach each other."""

    client: Host
    server: Host
    links: Sequence[Link]
    server_link: int
    """Number of the link whose address the server is called by."""
    router: "Router | None" = None

    def server_address(self, family: Family = 4) -> str:
        """Where the client finds the server."""
        return address(family, self.server_link, SERVER)

    def client_address(self, link: int = 1, family: Family = 4) -> str:
        """The client's address on a link: what makes a path."""
        return address(family, link, CLIENT)


def direct(lab: Lab, *, links: int = 1) -> Topology:
    """Client and server with as many links between them."""
    client, server = lab.host("client"), lab.host("server")
    joined = [lab.link(client, server, number) for number in range(1, links + 1)]
    route_by_source(client, links)
    return Topology(client=client, server=server, links=joined, server_link=1)


def route_by_source(client: Host, links: int) -> None:
    """Let what the client sends from its address on a link take that link."""
    for number in range(2, links + 1):
        for family in FAMILIES:
            source, gateway = (address(family, number, end) for end in (CLIENT, SERVER))
            client.ip(
                f"rule add from {source} table {number}",
                f"route add default via {gateway} dev link{number} table {number}",
                family=family,
            )


def routed(lab: Lab, *, mtu: int = 1500) -> Topology:
    """Client and server with a router between them that has a smaller MTU."""
    client, host, server = (lab.host(name) for name in ("client", "router", "server"))
    links = [lab.link(client, host, 1), lab.link(host, server, 2)]
    for family in FAMILIES:
        client.ip(f"route add default via {address(family, 1, SERVER)}", family=family)
        server.ip(f"route add default via {address(family, 2, CLIENT)}", family=family)
    router = Router(host)
    router.set_mtu(mtu)
    return Topology(client=client, server=server, links=links, server_link=2, router=router)


class Router:
    """The middle of `routed`: forwards, tells nobody what it dropped, and can be a NAT."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.sysctl("ipv4/ip_forward", 1)
        host.sysctl("ipv6/conf/all/forwarding", 1)
        host.nft("""
            table inet silent {
                chain out {
                    type filter hook output priority 0
                    icmp type destination-unreachable drop
                    icmpv6 type { packet-too-big, destination-unreachable } drop
                }
            }
        """)

    def set_mtu(self, mtu: int) -> None:
        """Of both of the router's devices; the hosts' devices keep theirs."""
        self.host.ip(f"link set link1 mtu {mtu}", f"link set link2 mtu {mtu}")

    def translate(self, port: int) -> None:
        """Let the client's UDP port 5000 appear as `port` of the router from now on (IPv4).

        Without connection tracking, so that the mapping can change under running traffic, as it
        does when a NAT forgets it; what then comes for the old port is dropped.
        """
        inside, outside = address(4, 1, CLIENT), address(4, 2, CLIENT)
        self.host.nft(f"""
            table ip translate {{}}
            delete table ip translate
            table ip translate {{
                chain out {{
                    type filter hook postrouting priority 0
                    oifname "link2" ip saddr {inside} udp sport 5000 \\
                        ip saddr set {outside} udp sport set {port}
                }}
                chain in {{
                    type filter hook prerouting priority -300
                    iifname "link2" ip daddr {outside} udp dport {port} \\
                        ip daddr set {inside} udp dport set 5000
                }}
                chain local {{
                    type filter hook input priority 0
                    meta l4proto udp drop
                }}
            }}
        """)
