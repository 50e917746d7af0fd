"""A running tunnel: puts the parts together, and keeps them going until it is told to stop."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, assert_never

from glorytun import __version__, journal
from glorytun.config import BindOptions, PathConfig, TunnelConfig
from glorytun.configfile import Configuration, key_path, load
from glorytun.control.client import control_socket
from glorytun.control.messages import (
    Bad,
    DaemonFacts,
    Paths,
    Reload,
    Request,
    Set,
    SetPath,
    Show,
    describe_bad,
    describe_path,
    describe_tunnel,
)
from glorytun.control.server import ControlServer
from glorytun.core.address import ANY, Endpoint, PathId, format_address, is_v4
from glorytun.core.crypto import capabilities
from glorytun.core.events import Event, PathChanged, PathRemoved, TunnelMtuChanged
from glorytun.core.settings import SECOND, CipherChoice, PathChange, Settings, SettingsChange
from glorytun.core.status import Condition
from glorytun.core.tunnel import Tunnel
from glorytun.core.wire import Capability
from glorytun.errors import ConfigError, DeviceError, TunnelError
from glorytun.follow import wanted_paths
from glorytun.keyfile import load_key
from glorytun.net import links
from glorytun.net.clock import Clock, entropy
from glorytun.net.features import aes_hardware, probe
from glorytun.net.links import LinkEvents
from glorytun.net.loop import Loop
from glorytun.net.names import resolve
from glorytun.net.pump import Pump
from glorytun.net.tun import Tun
from glorytun.net.udp import UdpSocket
from glorytun.notify import notify, watchdog_interval
from glorytun.report import log_error, log_event, log_problem, log_send_failure

TRAFFIC_CLASS = 192
"""CS6, as 0.3.4 has it."""
CHECK_INTERVAL = 5 * SECOND
CLOCK_BEHIND = SECOND
"""A step back of the system clock that is worth a line in the log."""

log = logging.getLogger("glorytun")


def run(options: BindOptions) -> int:
    """Run a tunnel until SIGTERM, SIGINT or SIGHUP; the exit status.

    Raises GlorytunError, with everything cleaned up, when it can't start.
    """
    return _run(options, None)


def run_configured(name: str, file: Path) -> int:
    """Run the tunnel of a configuration file on the device `name`; otherwise as `run`."""
    configuration = load(file)
    tunnel = configuration.tunnel
    options = BindOptions(
        bind_address=tunnel.bind,
        bind_port=tunnel.port,
        peer_host=tunnel.peer,
        peer_port=tunnel.peer_port,
        device=name,
        keyfile=key_path(tunnel, name),
        cipher=tunnel.cipher,
    )
    return _run(options, configuration)


def _run(options: BindOptions, configuration: Configuration | None) -> int:
    journal.start()
    with ExitStack() as stack:
        daemon = Daemon(options, stack)
        if configuration is not None:
            daemon.follow(configuration, stack)
        daemon.run()
    return 0


class Daemon:
    """One tunnel with its device, sockets and signals."""

    def __init__(self, options: BindOptions, stack: ExitStack) -> None:
        """Open everything; `stack` closes it in reverse order."""
        key = load_key(options.keyfile)
        self._clock = Clock()
        self._loop = Loop()
        stack.callback(self._loop.close)
        self._udp = UdpSocket.open(
            options.bind_address, options.bind_port, traffic_class=TRAFFIC_CLASS
        )
        stack.callback(self._udp.close)
        self._traffic_class = TRAFFIC_CLASS
        self._peer_host = options.peer_host or ""
        self._peers = self._resolve(options)
        # Names may take long, and until here a signal may end us just so.
        self._signals = stack.enter_context(_signals())
        self._tun = Tun.open(options.device, persist=None)
        stack.callback(self._tun.close)
        journal.set_device(self._tun.name)
        self._tunnel = self._make_tunnel(options, key)
        self._pump = Pump(
            tunnel=self._tunnel,
            tun=self._tun,
            udp=self._udp,
            clock=self._clock,
            loop=self._loop,
            on_send_failure=self._on_send_failure,
        )
        self._features = dict.fromkeys(probe(), False)
        """Kernel features, and whether they are in use: none yet, every batch is of one."""
        self._configs: tuple[PathConfig, ...] = ()
        """The paths of a configuration file."""
        self._file: Path | None = None
        self._started_with: TunnelConfig | None = None
        self._send_failures: dict[PathId, int] = {}
        self._started_at = self._clock.now()
        server = ControlServer(control_socket(self._tun.name), self._answer, self._loop)
        stack.callback(server.close)
        if options.persist:
            self._tun.set_persist(True)
        self._loop.add_reader(self._signals.fileno(), self._on_signal)
        self._stopping = 0
        """The signal that ends us."""
        self._checked_at = self._started_at
        self._clock_behind = 0
        self._check_interval = min(CHECK_INTERVAL, watchdog_interval() or CHECK_INTERVAL)

    def _resolve(self, options: BindOptions) -> dict[bool, Endpoint]:
        """The peer's best address of each family, IPv4 under True; none: we are a server."""
        if options.peer_host is None:
            return {}
        found = resolve(options.peer_host, options.peer_port, v4=self._udp.v4, v6=self._udp.v6)
        return {is_v4(endpoint.address): endpoint for endpoint in reversed(found)}

    def _make_tunnel(self, options: BindOptions, key: bytes) -> Tunnel:
        ours = capabilities(options.cipher, aes_hardware=aes_hardware())
        if options.cipher is CipherChoice.AEGIS and Capability.AEGIS not in ours:
            log.warning(
                "AEGIS-256 is not to be had here, data will be sealed with ChaCha20-Poly1305: it "
                "takes AES instructions of the processor, and `pip install pyaegis`"
            )
        return Tunnel(
            psk=key,
            settings=Settings(client=bool(self._peers), cipher=options.cipher),
            ours=ours,
            software=f"glorytun {__version__}",
            entropy=entropy,
            now=self._clock.now(),
        )

    # Following a configuration.

    def follow(self, configuration: Configuration, stack: ExitStack) -> None:
        """Take the settings of a file, and make and end its paths as interfaces come and go."""
        self._file = configuration.source
        self._started_with = configuration.tunnel
        self._take(configuration)
        events = LinkEvents()
        stack.callback(events.close)

        def on_change() -> None:
            events.drain()
            self._follow_links()

        self._loop.add_reader(events.fileno(), on_change)

    def _take(self, configuration: Configuration) -> None:
        """Let a configuration be in force, as far as that takes no new sockets."""
        for problem in configuration.warnings:
            log_problem(log, problem)
        tunnel = configuration.tunnel
        change = SettingsChange(
            kxtimeout=tunnel.kxtimeout,
            timetolerance=tunnel.timetolerance,
            keepalive=tunnel.keepalive,
            traffic_class=tunnel.traffic_class,
        )
        self._set(change)
        self._configs = configuration.paths
        self._follow_links(is_new=True)

    def _reload(self) -> None:
        """Read the file again; a wrong one is refused as a whole, and said. Raises ConfigError."""
        if self._file is None:
            raise TunnelError(
                "this tunnel has no configuration file", hint="`glorytun run` runs one that has"
            )
        try:
            configuration = load(self._file)
        except ConfigError as error:
            log_error(log, error)
            notify(STATUS=f"{self._summary()}; reload refused: {_first_line(error)}")
            raise
        fixed = [
            name
            for name in ("bind", "port", "peer", "peer_port", "keyfile", "cipher")
            if getattr(configuration.tunnel, name) != getattr(self._started_with, name)
        ]
        if fixed:
            log.warning("changed, and in force after a restart only: %s", ", ".join(fixed))
        self._take(configuration)
        log.info("%s was read again", self._file)
        notify(STATUS=self._summary())

    def _follow_links(self, *, is_new: bool = False) -> None:
        """Make and end paths, so that they are those of the file on the addresses of now.

        With a new file the paths that stay get its settings; else they keep what a user set.
        """
        if not self._peers:
            return  # A server's paths are its clients'.
        now = self._clock.now()
        addresses = links.local_addresses()
        self._udp.set_interfaces(links.interface_indices(addresses))
        wanted = wanted_paths(self._configs, addresses, self._peers, own=self._tun.name)
        there = {PathId(path.local, path.remote) for path in self._tunnel.path_statuses()}
        for path in there - wanted.keys():
            reason = "the file no longer has it" if is_new else "its address is gone"
            self._tunnel.remove_path(path, reason, now)
        for path, settings in wanted.items():
            if is_new or path not in there:
                self._tunnel.set_path(path, PathChange(**asdict(settings)), now)

    # Running.

    def run(self) -> None:
        """Until a signal ends it; then the peer is told."""
        self._say_what_runs()
        self._set_up_device()
        notify(READY=1)
        while not self._stopping:
            self._pump.turn(at_most=self._check_interval)
            self._handle_events()
            self._check()
        notify(STOPPING=1)
        log.info("stopped by %s", signal.Signals(self._stopping).name)
        if self._stopping == signal.SIGHUP:
            self._tun.set_persist(True)
        self._tunnel.close(self._clock.now())
        self._pump.flush()

    def _say_what_runs(self) -> None:
        peers = " and ".join(str(peer) for peer in self._peers.values())
        role = f"client of {peers}" if peers else "server"
        log.info(
            "glorytun %s runs on %s as a %s, bound to %s, process %d",
            __version__,
            self._tun.name,
            role,
            self._udp.bound,
            os.getpid(),
        )
        for peer in self._peers.values() if not self._configs else ():
            source = links.source_address(peer)
            if source:
                log.info("no path yet: `glorytun path up %s` makes one", format_address(source))

    def _set_up_device(self) -> None:
        """Switched on here, so that netlink's library is loaded before anything waits for it."""
        try:
            links.set_up(self._tun.name)
        except DeviceError as error:
            log.warning("%s", error)

    def _handle_events(self) -> None:
        events = self._tunnel.next_events()
        for event in events:
            log_event(log, event)
            self._act_on(event)
        if events:
            notify(STATUS=self._summary())

    def _act_on(self, event: Event) -> None:
        match event:
            case TunnelMtuChanged(mtu=mtu):
                self._set_mtu(mtu)
            case PathChanged(path=path, new=Condition.RUNNING) | PathRemoved(path=path):
                self._send_failures.pop(path, None)

    def _set_mtu(self, mtu: int) -> None:
        try:
            links.set_mtu(self._tun.name, mtu)
        except DeviceError as error:
            log.error("%s", error)

    def _on_send_failure(self, path: PathId, failure: int) -> None:
        """Said once for each path and reason, never for each datagram."""
        if self._send_failures.get(path) != failure:
            self._send_failures[path] = failure
            log_send_failure(log, path, failure)

    def _summary(self) -> str:
        paths = self._tunnel.path_statuses()
        running = sum(path.condition is Condition.RUNNING for path in paths)
        # A link that is away is missed: its section counts.
        return f"{running} of {max(len(paths), len(self._configs))} paths running"

    def _on_signal(self) -> None:
        self._stopping = self._signals.recv(1)[0]

    def _check(self) -> None:
        """Look, now and then, at what nobody tells us of."""
        now = self._clock.now()
        if now >= self._checked_at + self._check_interval:
            self._checked_at = now
            self._tun.check()
            self._check_clock()
            notify(WATCHDOG=1, STATUS=self._summary())

    def _check_clock(self) -> None:
        """A clock that was set back is not followed, since nonces must not repeat: say so."""
        behind = -self._clock.check_step()
        if behind > self._clock_behind + CLOCK_BEHIND:
            log.warning(
                "the system clock was set back and is %d s behind the tunnel's; "
                "restart the tunnel to follow it",
                behind // SECOND,
            )
        self._clock_behind = max(behind, 0)

    # The control socket.

    def _answer(self, request: Request) -> dict[str, Any]:
        match request:
            case Show():
                return {"tunnel": self._describe(), "paths": self._describe_paths()}
            case Paths():
                return {"paths": self._describe_paths()}
            case Bad():
                return {"bad": describe_bad(self._tunnel.bad_statuses())}
            case Reload():
                self._reload()
                return {}
            case SetPath(address=address, change=change):
                self._set_path(address, change)
                return {}
            case Set(change=change):
                self._set(change)
                return {}
            case _:
                assert_never(request)

    def _set(self, change: SettingsChange) -> None:
        self._tunnel.set(change, self._clock.now())
        if change.traffic_class is not None:
            self._udp.set_traffic_class(change.traffic_class)
            self._traffic_class = change.traffic_class

    def _describe(self) -> dict[str, Any]:
        facts = DaemonFacts(
            device=self._tun.name,
            pid=os.getpid(),
            bind=self._udp.bound,
            peer=next(iter(self._peers.values()), None) or self._newest_client(),
            peer_host=self._peer_host,
            started_at=self._started_at,
            version=__version__,
            traffic_class=self._traffic_class,
            features=self._features,
            undelivered=self._tun.skipped + self._tun.dropped,
        )
        return describe_tunnel(self._tunnel.status(), settings=self._tunnel.settings, facts=facts)

    def _newest_client(self) -> Endpoint | None:
        newest = max(
            self._tunnel.path_statuses(), key=lambda path: path.last_received_at, default=None
        )
        return newest.remote if newest else None

    def _describe_paths(self) -> list[dict[str, Any]]:
        return [describe_path(status) for status in self._tunnel.path_statuses()]

    def _set_path(self, address: bytes, change: PathChange) -> None:
        now = self._clock.now()
        for path in self._paths_from(address):
            self._tunnel.set_path(path, change, now)

    def _paths_from(self, address: bytes) -> list[PathId]:
        """A client has one path from an address, which may be new; a server those of clients."""
        if not self._peers:
            local = [s for s in self._tunnel.path_statuses() if s.local == address]
            if not local:
                raise TunnelError(
                    f"there is no path from {format_address(address)}",
                    hint="a server's paths are made by its clients; `glorytun path` lists them",
                )
            return [PathId(status.local, status.remote) for status in local]
        text = format_address(address)
        if address == ANY or not any(address[12:]):
            raise TunnelError(f"{text} is no address that a path can lead from")
        peer = self._peers.get(is_v4(address))
        if peer is None:
            known = next(iter(self._peers.values()))
            raise TunnelError(
                f"no path can lead from {text} to {known}",
                hint="one is IPv4 and the other IPv6",
            )
        return [PathId(address, peer)]


def _first_line(error: ConfigError) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that gives a byte, its number, for each signal that ends us."""
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    former = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield receiver
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in former.items():
            signal.signal(number, handler)
        receiver.close()
        sender.close()
