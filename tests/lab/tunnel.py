"""Two systems and the tunnel between them, under systemd and networkd.

    ┌──────────── client ────────────┐           ┌──────────── server ────────────┐
    │ wan0 10.9.0.1  default route   ├── wan0 ───┤ wan0 10.9.0.2                  │
    │ wan1 10.9.1.1  default route,  ├── wan1 ───┤ wan1 10.9.1.2                  │
    │                metric higher   │           │   lo 10.9.9.9  to this address │
    │ tun0 10.77.0.1                 │           │ tun0 10.77.0.2                 │
    └────────────────────────────────┘           └────────────────────────────────┘

As at home: the default route alone would send everything to the server by wan0. On demand the WANs
have IPv6 too, fd00:9:a0::1 and so on, and the server fd00:9::9.
"""

import itertools
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tests.lab.flow import Flow
from tests.lab.install import System
from tests.lab.node import Node, link, write
from tests.netns.topology import Family
from tests.netns.traffic import Stream
from tests.netns.wait import wait_for

Role = Literal["client", "server"]
ENDS: dict[Role, int] = {"client": 1, "server": 2}
"""Host part of the addresses."""

TUNNEL = "tun0"
UNIT = f"glorytun@{TUNNEL}.service"
SERVER_ADDRESS = "10.9.9.9"
SERVER_ADDRESS_6 = "fd00:9::9"
PORT = 5000
KEY = f"/etc/glorytun/{TUNNEL}.key"
CONFIG = f"/etc/glorytun/{TUNNEL}.conf"

READY_TIMEOUT = 15.0
"""Seconds for all paths of both ends to run."""

_numbers = itertools.count()


def inside(role: Role) -> str:
    """Address of an end on its TUN."""
    return f"10.77.0.{ENDS[role]}"


def wan_address(wan: int, role: Role, family: Family = 4) -> str:
    """Address of an end on a WAN."""
    return f"10.9.{wan}.{ENDS[role]}" if family == 4 else f"fd00:9:a{wan}::{ENDS[role]}"


def wan_file(
    wan: int,
    role: Role,
    *,
    name: str = "",
    address: str = "",
    families: tuple[Family, ...] = (4,),
    network: str = "",
) -> tuple[str, str]:
    """Path and text of networkd's file for a WAN; `name` is ``wanN`` without.

    `address` stands for the usual one of its family; `network` is added to [Network].
    """
    name = name or f"wan{wan}"
    # Without a link-local address a host can't look for its neighbours.
    linklocal = "ipv6" if 6 in families else "no"
    text = f"""[Match]
Name={name}
[Network]
LinkLocalAddressing={linklocal}
IPv6AcceptRA=no
{network}"""
    for family in families:
        own = address if address and _family(address) == family else wan_address(wan, role, family)
        text += f"Address={own}/{24 if family == 4 else 64}\n"
    for family in families if role == "client" else ():
        gateway = wan_address(wan, "server", family)
        text += f"[Route]\nGateway={gateway}\nMetric={100 + wan}\n"
    return f"/etc/systemd/network/20-{name}.network", text


def _family(address: str) -> Family:
    return 6 if ":" in address else 4


def tun_files(role: Role) -> Iterator[tuple[str, str]]:
    """Paths and texts of networkd's files for the TUN."""
    device = f"""[NetDev]
Name={TUNNEL}
Kind=tun
[Tun]
User=glorytun
Group=glorytun
"""
    # IPv6AcceptRA=no: else networkd 252 stays "configuring" for ever.
    network = f"""[Match]
Name={TUNNEL}
[Link]
RequiredForOnline=no
[Network]
Address={inside(role)}/24
ConfigureWithoutCarrier=yes
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
    yield f"/etc/systemd/network/30-{TUNNEL}.netdev", device
    yield f"/etc/systemd/network/30-{TUNNEL}.network", network


def config(role: Role, *paths: str, tunnel: str = "", server: str = SERVER_ADDRESS) -> str:
    """A configuration; `paths` are the bodies of [Path] sections, `tunnel` is added to [Tunnel]."""
    peer = f"Peer={server}\n" if role == "client" else ""
    sections = "".join(f"\n[Path]\n{path}\n" for path in paths)
    return f"[Tunnel]\n{peer}{tunnel}{sections}"


class End(Node):
    """One system with its end of the tunnel."""

    def __init__(self, role: Role) -> None:
        super().__init__(f"{role}-{os.getpid()}-{next(_numbers)}")
        self.role = role

    def systemctl(self, *words: str, check: bool = True) -> str:
        """What ``systemctl`` prints; it must succeed unless `check` is False."""
        return self.run("systemctl", *words, check=check).stdout

    def shown(self, name: str, unit: str = UNIT) -> str:
        """What systemd shows as a property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    @property
    def main_pid(self) -> int:
        """Of the daemon, as the node numbers it; 0 without one."""
        return int(self.shown("MainPID"))

    @property
    def main_started_at(self) -> float:
        """When the daemon was started, in seconds of the monotonic clock, which nodes share."""
        return int(self.shown("ExecMainStartTimestampMonotonic")) / 1e6

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        self.run("sh", "-c", f"kill -{number.value} {self.main_pid}")

    def wait_state(self, state: str, *, timeout: float = 10) -> None:
        """Wait until the service is in a state: active, inactive, failed."""
        wait_for(
            lambda: self.shown("ActiveState") == state,
            timeout=timeout,
            what=f"{UNIT} to be {state}",
        )

    def wait_status(self, pattern: str, *, timeout: float = 4) -> None:
        """Wait until the line in ``systemctl status`` has what a regular expression says."""
        wait_for(
            lambda: re.search(pattern, self.shown("StatusText")),
            timeout=timeout,
            what=f"{pattern} in status",
        )

    def journal(self, *words: str) -> str:
        """What the journal has of the service; `words` are for ``journalctl``."""
        return self.run("journalctl", "-o", "cat", "-u", UNIT, *words).stdout

    def log(self) -> str:
        """The end of the journal, as far as it is about networks."""
        if not self.alive:
            return "it is down"
        units = ("--unit=glorytun*", "--unit=systemd-networkd")
        return self.run(
            "journalctl", "-o", "short-precise", "--lines=100", *units, check=False
        ).stdout

    def complaints(self) -> str:
        """What systemd doesn't understand in files of ours, which for it is only a warning."""
        found = self.run("journalctl", "-o", "cat", "_PID=1", "+", "_COMM=systemd-network").stdout
        pattern = re.compile(r"glorytun.*:\d+:|Unknown (key|section)|/network/.*ignoring", re.I)
        return "\n".join(filter(pattern.search, found.splitlines()))

    def configure(self, *paths: str, tunnel: str = "", server: str = SERVER_ADDRESS) -> None:
        """Write the configuration; see `config`."""
        self.write(CONFIG, config(self.role, *paths, tunnel=tunnel, server=server))

    def reconfigure(self, *paths: str, tunnel: str = "", server: str = SERVER_ADDRESS) -> None:
        """The same, and let it be in force."""
        self.configure(*paths, tunnel=tunnel, server=server)
        self.systemctl("reload", UNIT)

    def drop_in(self, text: str) -> None:
        """Add to the unit, as ``systemctl edit`` does."""
        self.write("/etc/systemd/system/glorytun@.service.d/50-lab.conf", f"[Service]\n{text}\n")
        self.systemctl("daemon-reload")

    def name_hosts(self, **hosts: str) -> None:
        """Let names of ``example.net`` stand for addresses, several separated by spaces."""
        lines = [
            f"{address} {name}.example.net\n"
            for name, addresses in hosts.items()
            for address in addresses.split()
        ]
        self.write("/etc/hosts", "".join(["127.0.0.1 localhost\n", *lines]))

    def network(self, path: str, text: str) -> None:
        """Write a file of networkd's, which takes it at once and touches no other device."""
        self.write(path, text)
        self.run("networkctl", "reload")

    def ask(self, *words: str) -> dict[str, Any]:
        """The JSON that a command of glorytun's answers; empty when nobody answers."""
        result = self.run("glorytun", *words, "dev", TUNNEL, "json", check=False)
        found: dict[str, Any] = json.loads(result.stdout) if result.returncode == 0 else {}
        return found

    def device(self, name: str = TUNNEL) -> dict[str, Any]:
        """What ``ip link`` says of a device; empty without it."""
        result = self.run("ip", "-s", "-j", "link", "show", "dev", name, check=False)
        found: list[dict[str, Any]] = json.loads(result.stdout or "[{}]")
        return found[0]

    def carrier_changes(self) -> int:
        """How often the TUN was opened and closed."""
        return int(self.run("cat", f"/sys/class/net/{TUNNEL}/carrier_changes").stdout)

    def udp_sockets(self) -> dict[int, dict[str, str]]:
        """By port, what ``ss`` says, such as the mark, and ``sk``, a socket's identity."""
        rows = self.run("ss", "-u", "-a", "-n", "-e", "-H", "-O").stdout.splitlines()
        found = [(row.split()[3], re.findall(r"(\w+):(\S+)", row)) for row in rows]
        return {
            int(local.rpartition(":")[2]): {"fwmark": "0x0", **dict(facts)}
            for local, facts in found
        }

    def sent(self, device: str) -> int:
        """Bytes that a device sent."""
        return int(self.device(device)["stats64"]["tx"]["bytes"])

    def wait_address(self, address: str) -> None:
        """Wait until a device has an address that can be used."""
        words = ("ip", "-o", "address", "show", "to", address, "-tentative")
        wait_for(lambda: self.run(*words).stdout, timeout=10, what=f"address {address}")

    def wait_online(self, *devices: str) -> None:
        """Wait until networkd has set devices up."""
        interfaces = [f"--interface={device}:routable" for device in devices]
        self.run("/usr/lib/systemd/systemd-networkd-wait-online", *interfaces, "--timeout=10")

    def paths(self, condition: str = "running") -> list[dict[str, Any]]:
        """The paths in a condition."""
        return [
            path for path in self.ask("path").get("paths", []) if path["condition"] == condition
        ]

    def path_from(self, address: str) -> dict[str, Any]:
        """The path from a local address; empty without one."""
        found = [path for path in self.ask("path").get("paths", []) if path["local"] == address]
        return found[0] if found else {}

    def wait_path(self, address: str, *, timeout: float = READY_TIMEOUT) -> dict[str, Any]:
        """The path from a local address, as soon as it runs."""
        wait_for(
            lambda: self.path_from(address).get("condition") == "running",
            timeout=timeout,
            what=f"the path from {address} to run",
        )
        return self.path_from(address)

    def wait_running(self, count: int, *, timeout: float = READY_TIMEOUT) -> None:
        """Wait until exactly `count` paths run."""
        what = f"{count} running paths of the {self.role}"
        wait_for(lambda: len(self.paths()) == count, timeout=timeout, what=what)

    def ping(self, *, count: int = 3) -> int:
        """How many answers come through the tunnel."""
        other: Role = "server" if self.role == "client" else "client"
        words = ("-n", "-q", "-c", str(count), "-i", "0.05", "-W", "1", inside(other))
        found = re.search(r"(\d+) received", self.run("ping", *words, check=False).stdout)
        return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends."""

    client: End
    server: End

    @property
    def ends(self) -> tuple[End, End]:
        """The one that starts first is first."""
        return self.server, self.client

    def join(self, *wans: str) -> None:
        """Join the nodes by these WANs."""
        link(self.client, self.server, *wans)

    def start(self, count: int = 2) -> None:
        """``systemctl start`` on each; returns when `count` paths run."""
        for end in self.ends:
            end.systemctl("start", UNIT)
        self.wait_running(count)

    def use_ipv6(self) -> None:
        """Give the WANs and the server IPv6 addresses, too."""
        for end in self.ends:
            for wan in range(2):
                end.write(*wan_file(wan, end.role, families=(4, 6)))
            end.run("networkctl", "reload")
        self.server.run("ip", "address", "add", f"{SERVER_ADDRESS_6}/128", "dev", "lo")
        for end in self.ends:
            for wan in range(2):
                end.wait_address(wan_address(wan, end.role, 6))

    def wait_running(self, count: int, *, timeout: float = READY_TIMEOUT) -> None:
        """Wait until both have exactly `count` paths that run, and packets go through."""
        for end in self.ends:
            end.wait_running(count, timeout=timeout)
        wait_for(lambda: self.client.ping(count=1), timeout=timeout, what="a ping")

    def stream(self, *, rate: int = 200) -> Stream:
        """Numbered datagrams from the client to the server."""
        return Stream(self.client, self.server, inside("server"), rate=rate)

    def flow(self, *, up: bool = True) -> Flow:
        """A TCP connection from the client to the server, that carries bytes there or back."""
        return Flow(self.client, self.server, inside("server"), up=up)


class Booted(Protocol):
    """Several systems."""

    @property
    def ends(self) -> tuple[End, ...]:
        """Those with a tunnel."""


up: list[Booted] = []
"""Those that are booted now: a failed test shows their journals."""


@contextmanager
def booted(
    system: System, *, wans: int = 2, enabled: bool = False, server: str = SERVER_ADDRESS
) -> Iterator[Pair]:
    """Both systems, booted, configured and joined by WANs that networkd has set up.

    With `enabled` the tunnel starts at boot. The client knows the server as `server`.
    """
    pair = Pair(End("client"), End("server"))
    key = os.urandom(32).hex() + "\n"
    with ExitStack() as stack:
        up.append(pair)
        stack.callback(up.remove, pair)
        for end in pair.ends:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="gt-lab-"))
            _write_files(Path(directory), system, end.role, key, server)
            if enabled:
                _enable(Path(directory))
            stack.callback(end.down)
            end.start(system.root, files=Path(directory), binds=system.binds)
        for end in pair.ends:
            end.wait_booted()
        names = [f"wan{number}" for number in range(wans)]
        pair.join(*names)
        for end in pair.ends if wans else ():
            end.wait_online(*names)
        yield pair


def _write_files(directory: Path, system: System, role: Role, key: str, server: str) -> None:
    """The installed project, and what belongs to this node."""
    directory.chmod(0o755)
    shutil.copytree(system.files, directory, symlinks=True, dirs_exist_ok=True)
    write(directory, KEY, key, 0o600)
    wans = ["Local=wan0", "Local=wan1"] if role == "client" else []
    files = dict([(CONFIG, config(role, *wans, server=server)), *tun_files(role)])
    files.update(wan_file(wan, role) for wan in range(2))
    if role == "server":
        address = f"[Match]\nName=lo\n[Network]\nAddress={SERVER_ADDRESS}/32\n"
        files["/etc/systemd/network/10-lo.network"] = address
    for path, text in files.items():
        write(directory, path, text)


def _enable(directory: Path) -> None:
    """What ``systemctl enable`` of the tunnel and the target does."""
    units = directory / "etc/systemd/system"
    for target, unit in ("multi-user.target", "glorytun.target"), ("glorytun.target", UNIT):
        template = unit.replace(f"@{TUNNEL}", "@")
        link = units / f"{target}.wants" / unit
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():  # the package enables the target
            link.symlink_to(f"/usr/lib/systemd/system/{template}")
