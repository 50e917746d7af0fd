"""The two sides of a tunnel as the tests handle them: ours, and 0.3.4's."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from tests.netns.topology import CLIENT, SERVER, Family, Host, Topology
from tests.netns.traffic import Stream, transfer
from tests.netns.wait import wait_for

Role = Literal["client", "server"]

PEER = os.environ.get("GLORYTUN_PEER", "")
"""The glorytun 0.3.4 to test against."""

READY_TIMEOUT = 5.0
"""Seconds for a process to start, and for a path to find its MTU and to exchange keys."""

ANY: dict[Family, str] = {4: "0.0.0.0", 6: "::"}
"""What to bind to."""

RATE = ("rate", "tx", "100mbit", "rx", "100mbit")

_numbers = itertools.count(1)

made: "list[Daemon]" = []
"""Every daemon that was made and not cleaned up yet: a failed test shows their logs."""


def inside(family: Family, end: int) -> str:
    """Address of a side on its TUN."""
    return f"10.77.0.{end}" if family == 4 else f"fd77::{end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathView:
    """One path, as either program shows it."""

    local: str
    remote: str
    port: int
    """Of the remote address."""
    state: str
    """What was asked for: up, backup or down."""
    condition: str
    """How it is doing; 0.3.4 says only running or degraded."""
    mtu: int
    """Of an inner packet; 0 while it is not known."""

    @property
    def running(self) -> bool:
        return self.condition == "running"


class Daemon:
    """One side of a tunnel: a process with a TUN device in a host. See `Tunnel` and `Peer`."""

    program: Sequence[str]

    def __init__(
        self,
        host: Host,
        *,
        key: Path,
        bind: str = "0.0.0.0",
        to: str | None = None,
        words: Sequence[str] = (),
        env: dict[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """`to` makes it a client; `words` are added to ``glorytun bind``; `directory` is where
        its control socket goes, a new one by default."""
        number = next(_numbers)
        self.host = host
        self.role: Role = "client" if to else "server"
        # 0.3.4 keeps the control sockets of all namespaces in one directory.
        self.dev = f"gt{os.getpid()}x{number}"
        self.directory = directory or Path(tempfile.mkdtemp(prefix="gt-"))
        self.log = self.directory / f"{self.dev}.log"
        self.env = {**os.environ, "RUNTIME_DIRECTORY": str(self.directory), **(env or {})}
        self.process: subprocess.Popen[str] | None = None
        self._made_directory = directory is None
        self._bind = ["bind", bind, *(("to", to) if to else ()), "dev", self.dev]
        self._bind += ["keyfile", str(key), *words]
        self._paths: list[Sequence[str]] = []

    @property
    def end(self) -> int:
        return CLIENT if self.role == "client" else SERVER

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Start the process, give its TUN addresses, add the paths it had before."""
        self.process = self.host.popen(*self.program, *self._bind, log=self.log, env=self.env)
        wait_for(self._ready, timeout=READY_TIMEOUT, what=f"{self.dev} to start")
        self.host.ip(
            f"addr replace {inside(4, self.end)}/24 dev {self.dev}",
            f"addr replace {inside(6, self.end)}/64 dev {self.dev} nodad",
            f"link set {self.dev} up",
        )
        for words in self._paths:
            self.command("path", *words)
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout: float = 3) -> None:
        """Ask the process to end; it must do so with exit status 0."""
        assert self.process
        self.process.send_signal(number)
        status = self.process.wait(timeout)
        assert status == 0, f"exit status {status} after {number.name}"

    def kill(self) -> None:
        """End the process without a chance to say so to anyone."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def cleanup(self) -> None:
        """Kill what still runs and remove the files."""
        if self.running:
            self.kill()
        if self._made_directory:
            for path in self.directory.iterdir():
                path.unlink()
            self.directory.rmdir()

    def glorytun(self, *words: str, timeout: float = 10) -> subprocess.CompletedProcess[str]:
        """Run a command of the same program in the host; its exit status isn't checked."""
        return subprocess.run(
            ["ip", "netns", "exec", self.host.netns, *self.program, *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def command(self, *words: str) -> str:
        """Run a command for this tunnel, which must succeed; returns what it prints."""
        result = self.glorytun(*words, "dev", self.dev)
        assert result.returncode == 0, f"glorytun {' '.join(words)}: {result.stderr}"
        return result.stdout

    def path(self, local: str, *words: str) -> None:
        """Add or change a path; kept for `start`."""
        self._paths.append((local, *words))
        self.command("path", local, *words)

    def paths(self) -> list[PathView]:
        """All paths."""
        raise NotImplementedError

    def cipher(self) -> str:
        """The cipher of the data."""
        raise NotImplementedError

    def path_by(self, address: str) -> PathView | None:
        """The path with a local or remote address, or None."""
        found = [path for path in self.paths() if address in (path.local, path.remote)]
        return found[-1] if found else None

    def mtu(self) -> int | None:
        """MTU of the TUN device."""
        return self.host.mtu(self.dev)

    def logged(self) -> str:
        """What the process printed so far."""
        return self.log.read_text() if self.log.exists() else ""

    def wait_running(self, count: int = 1, *, timeout: float = READY_TIMEOUT) -> None:
        """Wait until exactly `count` paths carry data and their keys are exchanged."""
        wait_for(
            lambda: sum(path.running for path in self.paths()) == count and self._keys_exchanged(),
            timeout=timeout,
            what=f"{count} running paths of {self.dev} ({self.role})",
        )

    def _ready(self) -> bool:
        assert self.process
        status = self.process.poll()
        assert status is None, f"exit status {status}: {self.logged()}"
        return self.glorytun("show", "dev", self.dev).returncode == 0

    def _keys_exchanged(self) -> bool:
        return True


D = TypeVar("D", bound=Daemon)
C = TypeVar("C", bound=Daemon)
S = TypeVar("S", bound=Daemon)


class Tunnel(Daemon):
    """Ours."""

    program: Sequence[str] = (sys.executable, "-m", "glorytun")

    def show(self) -> dict[str, Any]:
        """What ``show json`` says of the tunnel itself."""
        tunnel: dict[str, Any] = json.loads(self.command("show", "json"))["tunnel"]
        assert tunnel["device"] == self.dev
        return tunnel

    def paths(self) -> list[PathView]:
        """All paths."""
        return [
            PathView(
                local=path["local"],
                remote=path["remote"]["address"],
                port=path["remote"]["port"],
                state=path["state"],
                condition=path["condition"],
                mtu=path["mtu"] or 0,
            )
            for path in json.loads(self.command("path", "json"))["paths"]
        ]

    def bad(self, kind: str) -> dict[str, Any]:
        """What ``show bad json`` says of one kind: at least its count."""
        found = json.loads(self.command("show", "bad", "json"))["bad"]
        entries: list[dict[str, Any]] = [entry for entry in found if entry["kind"] == kind]
        return entries[0] if entries else {"kind": kind, "count": 0}

    def cipher(self) -> str:
        """The cipher of the data, ``none`` before the first key exchange."""
        return str(self.show()["cipher"])

    def _keys_exchanged(self) -> bool:
        return self.cipher() != "none"


_PEER_RUNNING = {("UP", "OK"), ("BACKUP", "OK")}


class Peer(Daemon):
    """A glorytun 0.3.4, which `PEER` names."""

    program = (PEER,)

    def paths(self) -> list[PathView]:
        """All paths. 0.3.4 prints nothing but the numbers when its output isn't a terminal."""
        found = []
        for line in self.command("path").splitlines():
            _, state, status, local, _, _, _, remote, port, mtu, *_ = line.split()
            found.append(
                PathView(
                    local=local,
                    remote=remote,
                    port=int(port),
                    state=state.lower(),
                    # A path that is down keeps the status it had.
                    condition="running" if (state, status) in _PEER_RUNNING else "degraded",
                    mtu=max(0, int(mtu) - 22),
                )
            )
        return found

    def cipher(self) -> str:
        """The cipher that this side would like."""
        return self.command("show").split()[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Generic[C, S]):
    """The two sides of one tunnel."""

    client: C
    server: S
    family: Family = 4
    """Of the outer packets."""

    def wait_running(self, count: int = 1, *, timeout: float = READY_TIMEOUT) -> None:
        """Wait until both sides have `count` paths that carry data."""
        self.client.wait_running(count, timeout=timeout)
        self.server.wait_running(count, timeout=timeout)

    def wait_mtu(self, mtu: int, *, timeout: float = 10) -> None:
        """Wait until both TUNs have this MTU."""
        wait_for(
            lambda: self.client.mtu() == self.server.mtu() == mtu,
            timeout=timeout,
            what=f"an MTU of {mtu}",
        )

    def ping(self, family: Family = 4, *, count: int = 3, interval: float = 0.05) -> None:
        """Ping from inside to inside: nothing may be lost."""
        ping = self.client.host.ping(inside(family, SERVER), count=count, interval=interval)
        assert ping.received == ping.sent == count

    def stream(self, *, up: bool = True, rate: float = 200, size: int = 200) -> Stream:
        """A stream of datagrams from the client to the server, or the other way."""
        source, target = self._direction(up=up)
        return Stream(source.host, target.host, inside(4, target.end), rate=rate, size=size)

    def transfer(self, family: Family = 4, *, up: bool = True, size: int = 1_000_000) -> float:
        """Bytes over TCP from the client to the server, or the other way; see `transfer`."""
        source, target = self._direction(up=up)
        to = inside(family, target.end)
        return transfer(source.host, target.host, to, family=family, size=size)

    def answers(self, family: Family = 4) -> bool:
        """Whether one ping comes back within 200 ms."""
        return self.client.host.ping(inside(family, SERVER), count=1, wait=0.2).received == 1

    def _direction(self, *, up: bool) -> tuple[Daemon, Daemon]:
        """The side that sends and the side that receives."""
        return (self.client, self.server) if up else (self.server, self.client)


class Tunnels:
    """Makes daemons with one key; on leaving, none of them is left."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gt-")))
        self.key = self.make_key("key")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def make_key(self, name: str) -> Path:
        """A file with a new secret key."""
        path = self._directory / name
        path.touch(mode=0o600)
        path.write_text(os.urandom(32).hex() + "\n")
        return path

    def make(self, program: type[D], host: Host, **options: Any) -> D:
        """A daemon that isn't started yet; the options are those of `Daemon`."""
        daemon = program(host, **{"key": self.key, **options})
        made.append(daemon)
        self._stack.callback(made.remove, daemon)
        self._stack.callback(daemon.cleanup)
        return daemon

    def join(
        self,
        topology: Topology,
        client: type[C],
        server: type[S],
        *,
        family: Family = 4,
        links: int = 1,
        rate: Sequence[str] = RATE,
        client_options: dict[str, Any] | None = None,
        server_options: dict[str, Any] | None = None,
    ) -> Pair[C, S]:
        """Start both sides, with a path over each of the first `links` links."""
        common = {"bind": ANY[family]}
        to = topology.server_address(family)
        pair = Pair(
            client=self.make(client, topology.client, **common, to=to, **(client_options or {})),
            server=self.make(server, topology.server, **common, **(server_options or {})),
            family=family,
        )
        pair.server.start()
        pair.client.start()
        for link in range(1, links + 1):
            pair.client.path(topology.client_address(link, family), "up", *rate)
        return pair
