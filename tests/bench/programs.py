"""The tunnels that are measured: how each is set up between two hosts that share link 1."""

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from nacl.public import PrivateKey

from tests.netns.topology import Host, Topology, run
from tests.netns.tunnel import Pair, Peer, Tunnel, Tunnels, inside
from tests.netns.wait import wait_for

WIREGUARD_MTU, FASTD_MTU, OPENVPN_MTU = 1420, 1426, 1420
"""What each is told to use on a link of 1500, as their manuals and tools have it."""


@dataclass(slots=True)
class Running:
    """A tunnel that carries packets."""

    client: tuple[int, ...] = ()
    """Processes of the client's side."""
    server: tuple[int, ...] = ()
    address: dict[int, str] = field(default_factory=lambda: {4: inside(4, 2), 6: inside(6, 2)})
    """Of the server inside the tunnel, by IP version."""


class Program:
    """A kind of tunnel. `missing` says why it can't run here."""

    name: str

    def missing(self) -> str:
        """Why it can't be measured on this machine, or an empty string."""
        return ""

    def start(self, topology: Topology, directory: Path, stack: ExitStack) -> Running:
        """Run it between both hosts; `stack` ends it."""
        raise NotImplementedError


class Bare(Program):
    """No tunnel: what the link itself carries."""

    name = "bare link"

    def start(self, topology: Topology, directory: Path, stack: ExitStack) -> Running:
        return Running(address={4: "10.9.1.2", 6: "fd09:1::2"})


class Ours(Program):
    """This project, with one cipher."""

    def __init__(self, cipher: str, *, without_offloads: bool = False) -> None:
        self.name = f"ours, {cipher}" + (", no offloads" if without_offloads else "")
        self._words = () if cipher == "aegis" else (cipher,)
        self._env = {"GLORYTUN_TEST_OFFLOADS": ""} if without_offloads else {}

    def start(self, topology: Topology, directory: Path, stack: ExitStack) -> Running:
        tunnels = stack.enter_context(Tunnels())
        options = {"words": self._words, "env": self._env}
        return _joined(
            tunnels.join(
                topology, Tunnel, Tunnel, rate=(), client_options=options, server_options=options
            )
        )


class Glorytun(Program):
    """The original, which `GLORYTUN_PEER` names."""

    name = "glorytun 0.3.4"

    def missing(self) -> str:
        return "" if Peer.program[0] else "GLORYTUN_PEER does not name one"

    def start(self, topology: Topology, directory: Path, stack: ExitStack) -> Running:
        tunnels = stack.enter_context(Tunnels())
        rate = ("rate", "fixed", "tx", "10gbit", "rx", "10gbit")
        return _joined(tunnels.join(topology, Peer, Peer, rate=rate))


def _joined(pair: Pair[Tunnel, Tunnel] | Pair[Peer, Peer]) -> Running:
    pair.wait_running()
    return Running(client=(pair.client.pid,), server=(pair.server.pid,))


class Command(Program):
    """A program of others, found in the search path."""

    command: str

    def missing(self) -> str:
        return "" if shutil.which(self.command) else f"no command {self.command}"

    def _run(
        self, host: Host, argv: Sequence[str], log: Path, stack: ExitStack, env: dict[str, str]
    ) -> int:
        process = host.popen(*argv, log=log, env={**os.environ, **env})
        stack.callback(_end, process)
        return process.pid


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(5)


def _give_addresses(host: Host, device: str, end: int, *, mtu: int = 0) -> None:
    wait_for(lambda: host.device(device), timeout=20, what=f"the device {device}")
    host.ip(
        f"addr replace {inside(4, end)}/24 dev {device}",
        f"addr replace {inside(6, end)}/64 dev {device} nodad",
        f"link set {device} up" + (f" mtu {mtu}" if mtu else ""),
    )


class WireguardGo(Command):
    """WireGuard in user space, set up through its UNIX socket: it takes no other program."""

    name = "wireguard-go"
    command = "wireguard-go"

    def start(self, topology: Topology, directory: Path, stack: ExitStack) -> Running:
        keys = [PrivateKey.generate(), PrivateKey.generate()]
        hosts = (topology.client, topology.server)
        pids = []
        for index, host in enumerate(hosts):
            device = f"wg{os.getpid()}x{index}"
            argv = (self.command, "--foreground", device)
            log = directory / f"{device}.log"
            pids.append(self._run(host, argv, log, stack, {"LOG_LEVEL": "error"}))
            control = Path("/var/run/wireguard", f"{device}.sock")
            wait_for(control.exists, timeout=5, what="wireguard-go")
            other = keys[1 - index].public_key
            _ask(
                control,
                f"private_key={bytes(keys[index]).hex()}",
                f"listen_port={51820 + index}",
                f"public_key={bytes(other).hex()}",
                f"endpoint=10.9.1.{2 - index}:{51821 - index}",
                "allowed_ip=0.0.0.0/0",
                "allowed_ip=::/0",
            )
            _give_addresses(host, device, index + 1, mtu=WIREGUARD_MTU)
        return Running(client=(pids[0],), server=(pids[1],))


def _ask(control: Path, *lines: str) -> None:
    """https://www.wireguard.com/xplatform/"""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(control))
        connection.sendall("\n".join(["set=1", *lines, "", ""]).encode())
        answer = connection.recv(1000).decode()
    assert "errno=0" in answer, answer


class Fastd(Command):
    """With the fastest of its methods that are safe and work everywhere, as its manual says."""

    name = "fastd"
    command = "fastd"

    def start(self, topology: Topology, directory: Path, stack: ExitStack) -> Running:
        secrets = [self._make_secret() for _ in range(2)]
        hosts = (topology.client, topology.server)
        pids = [0, 0]
        for index in (1, 0):  # A client asks once at the start, and then not for a while.
            device = f"fd{os.getpid()}x{index}"
            public = self._public(secrets[1 - index])
            remote = "remote 10.9.1.2 port 10000; " if index == 0 else ""
            file = directory / f"{device}.conf"
            file.write_text(
                f'bind 0.0.0.0:10000; mode tun; interface "{device}"; mtu {FASTD_MTU};\n'
                'method "salsa2012+umac"; log to stderr level info;\n'
                f'secret "{secrets[index]}";\npeer "other" {{ {remote}key "{public}"; }}\n'
            )
            argv = (self.command, "--config", str(file))
            pids[index] = self._run(hosts[index], argv, directory / f"{device}.log", stack, {})
            _give_addresses(hosts[index], device, index + 1, mtu=FASTD_MTU)
        return Running(client=(pids[0],), server=(pids[1],))

    def _make_secret(self) -> str:
        made = run(self.command, "--generate-key").stdout
        return next(line for line in made.splitlines() if line.startswith("Secret: "))[8:]

    def _public(self, secret: str) -> str:
        shown = run(self.command, "--config", "-", "--show-key", input=f'secret "{secret}";')
        return shown.stdout.removeprefix("Public: ").strip()


class OpenVpn(Command):
    """With TLS and AES-256-GCM, its default; the certificates know each other by fingerprint."""

    name = "openvpn"
    command = "openvpn"

    def missing(self) -> str:
        return super().missing() or ("" if shutil.which("openssl") else "no command openssl")

    def start(self, topology: Topology, directory: Path, stack: ExitStack) -> Running:
        prints = [_certificate(directory / f"{index}") for index in range(2)]
        pids = []
        for index, host in enumerate((topology.client, topology.server)):
            device = f"ov{os.getpid()}x{index}"
            role = "--tls-client" if index == 0 else "--tls-server"
            argv = [self.command, "--dev", device, "--dev-type", "tun", role]
            if index == 0:
                argv += ["--nobind", "--remote", "10.9.1.2", "1194"]
            else:
                argv += ["--dh", "none", "--float", "--local", "10.9.1.2"]
            argv += ["--cert", f"{directory}/{index}.crt", "--key", f"{directory}/{index}.key"]
            argv += ["--peer-fingerprint", prints[1 - index], "--cipher", "AES-256-GCM"]
            argv += [
                "--data-ciphers",
                "AES-256-GCM",
                "--disable-dco",
                "--tun-mtu",
                str(OPENVPN_MTU),
            ]
            argv += ["--ifconfig", inside(4, index + 1), inside(4, 2 - index), "--verb", "1"]
            pids.append(self._run(host, argv, directory / f"{device}.log", stack, {}))
            _give_addresses(host, device, index + 1)
        return Running(client=(pids[0],), server=(pids[1],))


def _certificate(stem: Path) -> str:
    """A self-signed one in two files; its fingerprint."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    subject = ("-nodes", "-subj", "/CN=bench", "-days", "2")
    files = ("-keyout", f"{stem}.key", "-out", f"{stem}.crt")
    run("openssl", "req", "-x509", *curve, *subject, *files)
    shown = run("openssl", "x509", "-in", f"{stem}.crt", "-noout", "-fingerprint", "-sha256").stdout
    return shown.strip().partition("=")[2]
