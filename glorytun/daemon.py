"""A running tunnel: puts the parts together, and keeps them going until it is told to stop."""

import logging
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from glorytun import __version__, journal
from glorytun.config import BindOptions, TunnelConfig
from glorytun.configfile import Configuration, key_path, load
from glorytun.control.client import control_socket
from glorytun.control.server import ControlServer
from glorytun.core.address import PathId, format_address
from glorytun.core.crypto import capabilities
from glorytun.core.events import Event, PathChanged, PathRemoved, TunnelMtuChanged
from glorytun.core.settings import SECOND, CipherChoice, Settings, SettingsChange
from glorytun.core.status import Condition
from glorytun.core.tunnel import Tunnel
from glorytun.core.wire import Capability
from glorytun.errors import ConfigError, DeviceError, GlorytunError, SocketError, TunnelError
from glorytun.fdstore import DescriptorStore
from glorytun.follower import Follower
from glorytun.keyfile import load_key
from glorytun.meter import METER_INTERVAL, Date, Meter, usage_file
from glorytun.net import links
from glorytun.net.clock import Clock, entropy
from glorytun.net.features import Offload, aegis_advice, aes_hardware, allowed
from glorytun.net.loop import Loop
from glorytun.net.names import resolve
from glorytun.net.pump import Pump
from glorytun.net.tun import Tun
from glorytun.net.udp import UdpSocket
from glorytun.notify import is_watched, notify, watchdog_interval
from glorytun.options import SECTIONS
from glorytun.report import (
    fields,
    first_problem,
    log_error,
    log_event,
    log_problem,
    log_send_failure,
)
from glorytun.requests import Requests
from glorytun.restraint import Restraint
from glorytun.statusline import StatusLine

CHECK_INTERVAL = 5 * SECOND
CLOCK_BEHIND = SECOND
"""A step back of the system clock that is worth a line in the log."""
LATE = 2 * SECOND
"""A tunnel whose timers are overdue by so much hangs, though the loop turns."""
TRY_AGAIN = 2
"""Seconds."""
QUEUE_LENGTH = 2000
"""Packets that wait in the device while we do something else: 50 ms of 40,000 small ones a second,
of which the kernel's default loses some, and pings with them. Longer ones are TCP's, which has no
more under way than its buffers hold."""
GOODBYE_SPARE = SECOND // 50
GOODBYE_MAX = SECOND // 4
"""How long the last packets may take, µs: a round trip and a little more, but not for ever."""

_FIXED = ("bind", "port", "keyfile", "cipher")
"""What takes a restart, as the sockets and the key are not made anew."""

log = logging.getLogger("glorytun")


def run(options: BindOptions) -> int:
    """Run a tunnel until SIGTERM, SIGINT or SIGHUP; the exit status.

    Raises GlorytunError, with everything cleaned up, when it can't start.
    """
    return _run(options, None)


def run_configured(name: str, file: Path) -> int:
    """Run the tunnel of a configuration file on the device `name`; otherwise as `run`."""
    with _reasons():
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
    with _reasons(), ExitStack() as stack:
        Daemon(options, configuration, stack).run()
    return 0


@contextmanager
def _reasons() -> Iterator[None]:
    """Leave in `systemctl status` why the tunnel ended.

    What may mend itself, such as a port in use, is tried again by systemd, half a second after the
    end, as a crash has to be: here it takes longer.
    """
    try:
        yield
    except GlorytunError as error:
        notify(STATUS=first_problem(error))
        if isinstance(error, DeviceError | SocketError) and is_watched():
            select.select([], [], [], TRY_AGAIN)
        raise


class Daemon:
    """One tunnel with its device, sockets and signals."""

    def __init__(
        self, options: BindOptions, configuration: Configuration | None, stack: ExitStack
    ) -> None:
        """Open everything; `stack` closes it in reverse order."""
        key = load_key(options.keyfile)
        self._clock = Clock()
        self._loop = Loop()
        stack.callback(self._loop.close)
        store = DescriptorStore()
        bound = (options.bind_address, options.bind_port)
        offloads = allowed()
        self._udp = store.reuse(
            "udp",
            adopt=lambda descriptor: UdpSocket.adopt(descriptor, *bound, allowed=offloads),
            make=lambda: UdpSocket.open(*bound, allowed=offloads),
        )
        stack.callback(self._udp.close)
        server = []
        if options.peer_host is not None and configuration is None:
            # Whoever typed the name waits for it to be found wrong; a service goes on asking.
            server = resolve(options.peer_host, options.peer_port, v4=self._udp.v4, v6=self._udp.v6)
        # Names may take long, and until here a signal may end us just so.
        self._signals = stack.enter_context(_signals())
        self._tun = store.reuse(
            "tun",
            adopt=lambda descriptor: Tun.adopt(descriptor, options.device, allowed=offloads),
            make=lambda: Tun.open(options.device, persist=None, allowed=offloads),
        )
        stack.callback(self._tun.close)
        store.close()
        links.lengthen_queue(self._tun.name, QUEUE_LENGTH)
        self._dropped_before = links.queue_drops(self._tun.name)
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
        self._file: Path | None = None
        self._meter = Meter(usage_file(self._tun.name))
        self._started_with: TunnelConfig | None = None
        self._refusal = ""
        """What is wrong with the file, when it was to be read again."""
        self._send_failures: dict[PathId, int] = {}
        self._restraint = Restraint()
        self._checked_at = self._started_at = self._clock.now()
        self._said = ""
        """The last status."""
        self._status = StatusLine(client=options.peer_host is not None)
        self._follower = self._make_follower(options, stack)
        if self._follower and server:
            self._follower.learn(server, self._started_at)
        if configuration is not None:
            self._file = configuration.source
            self._started_with = configuration.tunnel
            self._udp.set_mark(configuration.tunnel.firewall_mark)
            self._take(configuration)
        control = ControlServer(
            control_socket(self._tun.name), self._make_requests().answer, self._loop
        )
        stack.callback(control.close)
        if options.persist:
            self._tun.set_persist(True)
        self._loop.add_reader(self._signals.fileno(), self._on_signal)
        self._pulse = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        stack.callback(os.close, self._pulse)
        self._loop.add_reader(self._pulse, self._on_pulse)
        self._stopping = 0
        """The signal that ends us."""
        self._clock_behind = 0
        self._check_interval = min(CHECK_INTERVAL, watchdog_interval() or CHECK_INTERVAL)

    def _make_tunnel(self, options: BindOptions, key: bytes) -> Tunnel:
        ours = capabilities(options.cipher, aes_hardware=aes_hardware())
        if Offload.BARE in self._tun.offloads:
            ours |= Capability.BARE
        if options.cipher is CipherChoice.AEGIS and Capability.AEGIS not in ours:
            log.warning(
                "AEGIS-256 is not to be had here, data will be sealed with ChaCha20-Poly1305: it "
                "takes AES instructions of the processor, and pyaegis (%s)",
                aegis_advice(),
            )
        return Tunnel(
            psk=key,
            settings=Settings(client=options.peer_host is not None, cipher=options.cipher),
            ours=ours,
            software=f"glorytun {__version__}",
            entropy=entropy,
            now=self._clock.now(),
        )

    def _make_follower(self, options: BindOptions, stack: ExitStack) -> Follower | None:
        if options.peer_host is None:
            return None
        return Follower(
            tunnel=self._tunnel,
            udp=self._udp,
            loop=self._loop,
            own=self._tun.name,
            peer=options.peer_host,
            port=options.peer_port,
            stack=stack,
        )

    def _make_requests(self) -> Requests:
        return Requests(
            tunnel=self._tunnel,
            tun=self._tun,
            udp=self._udp,
            clock=self._clock,
            crowded_out=lambda: self._pump.dropped,
            overflowed=self._overflowed,
            follower=self._follower,
            features=self._features,
            meter=self._meter,
            started_at=self._started_at,
            reload=self._reload,
            change=self._set,
        )

    def _overflowed(self) -> int:
        """Packets that the device had no room for since we began; it may be another one by now."""
        return max(0, links.queue_drops(self._tun.name) - self._dropped_before)

    def _features(self) -> dict[str, bool]:
        """Which offloads there are, and whether they are in use."""
        used = self._tun.offloads | self._udp.offloads
        if not self._tunnel.may_send_bare:
            used -= {Offload.BARE}
        return {offload.value: offload in used for offload in Offload}

    # The file.

    def _take(self, configuration: Configuration) -> None:
        """Let a configuration be in force, as far as that takes no new sockets."""
        tunnel = configuration.tunnel
        for problem in configuration.warnings:
            log_problem(log, problem)
        change = SettingsChange(
            kxtimeout=tunnel.kxtimeout,
            timetolerance=tunnel.timetolerance,
            keepalive=tunnel.keepalive,
            traffic_class=tunnel.traffic_class,
            redundant=tunnel.redundant,
            reorder=tunnel.reorder,
        )
        self._set(change)
        if self._follower and tunnel.peer is not None:
            self._measure()  # What passed until now counts as the former file has it.
            self._follower.take(tunnel, configuration.paths, self._clock.now())
            self._meter.take(configuration.paths)
            self._measure()

    def _set(self, change: SettingsChange) -> None:
        self._tunnel.set(change, self._clock.now())
        if change.traffic_class is not None:
            self._udp.set_traffic_class(change.traffic_class)

    def _reload(self) -> None:
        """Read the file again; a wrong one is refused as a whole, and said. Raises TunnelError."""
        if self._file is None:
            raise TunnelError(
                "this tunnel has no configuration file", hint="`glorytun run` runs one that has"
            )
        try:
            configuration = load(self._file)
            self._udp.set_mark(configuration.tunnel.firewall_mark)
        except (ConfigError, SocketError) as error:
            log_error(log, error)
            self._refusal = first_problem(error)
            self._say_status()
            more = f"`glorytun check {self._file}` shows all that is wrong"
            several = isinstance(error, ConfigError) and error.problems
            raise TunnelError(self._refusal, hint=more if several else "") from error
        self._refusal = ""
        self._warn_of_what_is_fixed(configuration.tunnel)
        self._take(configuration)
        log.info("%s was read again", self._file, extra=fields("file_read"))
        self._say_status()

    def _warn_of_what_is_fixed(self, tunnel: TunnelConfig) -> None:
        before = self._started_with
        assert before is not None
        fixed = [name for name in _FIXED if getattr(tunnel, name) != getattr(before, name)]
        if (tunnel.peer is None) != (before.peer is None):
            fixed.append("peer")
        if fixed:
            keys = [f"{option.key}=" for option in SECTIONS["Tunnel"] if option.name in fixed]
            log.warning(
                "changed, and in force after a restart only: %s",
                ", ".join(keys),
                extra=fields("restart_needed"),
            )

    # Running.

    def run(self) -> None:
        """Until a signal ends it; then the peer is told."""
        self._say_what_runs()
        self._set_up_device()
        notify(READY=1)
        self._say_status()
        while not self._stopping:
            self._turn()
        notify(STOPPING=1, STATUS="stopped")
        name = signal.Signals(self._stopping).name
        log.info("stopped by %s", name, extra=fields("stopped", signal=name))
        if self._stopping == signal.SIGHUP:
            self._tun.set_persist(True)
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Tell the peer, and deliver what it sent before it heard that.

        What it sends then waits in its TUN. So TCP loses nothing over a restart, where each loss
        would make it wait longer than the restart takes.
        """
        now = self._clock.now()
        self._pump.send_all()
        self._tunnel.close(now)
        self._pump.flush()
        under_way = max((path.rtt for path in self._tunnel.path_statuses()), default=0)
        self._pump.drain(now + min(under_way + GOODBYE_SPARE, GOODBYE_MAX))
        self._measure()
        self._meter.save()  # Last, since a disk may take its time.

    def _turn(self) -> None:
        """Wait until something is to be done, and do it."""
        follower = self._follower
        self._pump.turn(until=_earlier(self._next_check_at, follower.due_at if follower else None))
        now = self._clock.now()
        if follower and follower.due_at is not None and now >= follower.due_at:
            follower.on_time(now)
            self._say_status()  # It may know the server's address now, or why not.
        self._handle_events()
        if now >= self._next_check_at:
            self._check(now)

    def _say_what_runs(self) -> None:
        role = f"client of {self._describe_server()}" if self._follower else "server"
        log.info(
            "glorytun %s runs on %s as a %s, bound to %s, process %d",
            __version__,
            self._tun.name,
            role,
            self._udp.bound,
            os.getpid(),
            extra=fields("started", role="client" if self._follower else "server"),
        )
        if self._follower and self._file is None:
            for peer in self._follower.addresses.values():
                source = links.source_address(peer)
                if source:
                    log.info("no path yet: `glorytun path up %s` makes one", format_address(source))

    def _describe_server(self) -> str:
        """Its addresses as far as they are known, else its name."""
        assert self._follower
        addresses = self._follower.addresses.values()
        return " and ".join(map(str, addresses)) or self._follower.peer

    def _set_up_device(self) -> None:
        """Switched on here, so that netlink's library is loaded before anything waits for it."""
        try:
            links.set_up(self._tun.name)
        except DeviceError as error:
            log.warning("%s", error)

    def _handle_events(self) -> None:
        events = self._tunnel.next_events()
        for event in events:
            self._say(event)
            self._act_on(event)
        if events:
            if self._follower:
                self._follower.reschedule(self._clock.now())
            self._say_status()

    def _say(self, event: Event) -> None:
        note: str | None = ""
        if isinstance(event, PathChanged):
            note = self._restraint.note(event, self._clock.now())
        if note is not None:
            log_event(log, event, note)

    def _act_on(self, event: Event) -> None:
        match event:
            case TunnelMtuChanged(mtu=mtu):
                self._set_mtu(mtu)
            case PathChanged(path=path, new=Condition.RUNNING):
                self._send_failures.pop(path, None)
            case PathRemoved(path=path):
                self._send_failures.pop(path, None)
                self._restraint.forget(path)

    def _set_mtu(self, mtu: int) -> None:
        self._tun.mtu = mtu
        try:
            links.set_mtu(self._tun.name, mtu)
        except DeviceError as error:
            log.error("%s", error)

    def _on_send_failure(self, path: PathId, failure: int) -> None:
        """Said once for each path and reason, never for each datagram."""
        if self._send_failures.get(path) == failure:
            return
        if path in self._tunnel.path_ids():  # Else its last words, for which it may be too late.
            self._send_failures[path] = failure
            log_send_failure(log, path, failure)

    def _say_status(self) -> None:
        text = self._status.text(
            self._tunnel.path_statuses(),
            missing=self._follower.missing if self._follower else 0,
            trouble=self._follower.trouble if self._follower else "",
            refusal=self._refusal,
        )
        if text != self._said:
            self._said = text
            notify(STATUS=text)

    def _on_signal(self) -> None:
        self._stopping = self._signals.recv(1)[0]

    @property
    def _next_check_at(self) -> int:
        interval = self._check_interval
        return self._checked_at + (
            min(interval, METER_INTERVAL) if self._meter.is_needed else interval
        )

    def _check(self, now: int) -> None:
        """Look, now and then, at what nobody tells us of."""
        status = self._tunnel.status()
        self._status.measure(sent=status.sent_bytes, received=status.received_bytes, now=now)
        self._checked_at = now
        self._tun.check()
        if self._meter.is_needed:
            self._measure()
        self._check_clock()
        for event, note in self._restraint.overdue(now):
            log_event(log, event, note)
        self._say_status()
        os.eventfd_write(self._pulse, 1)

    def _measure(self) -> None:
        """See what links with a quota have carried, and leave those alone that have used it up."""
        if self._follower is None:
            return
        now = self._clock.now()
        statuses = self._tunnel.path_statuses()
        paths = [PathId(status.local, status.remote) for status in statuses]
        links = [self._follower.link_of(path) for path in paths]
        self._meter.add(zip(statuses, links, strict=True), Date(*self._clock.today()), now)
        for path, link in zip(paths, links, strict=True):
            self._tunnel.set_spent(path, is_spent=self._meter.is_spent(link), now=now)

    def _on_pulse(self) -> None:
        """What `_check` wrote came back through the loop: timers and descriptors are served."""
        os.eventfd_read(self._pulse)
        due_at = self._tunnel.next_timeout()
        if due_at is None or self._clock.now() < due_at + LATE:
            notify(WATCHDOG=1)

    def _check_clock(self) -> None:
        """A clock that was set back is not followed, since nonces must not repeat: say so."""
        behind = -self._clock.check_step()
        if behind > self._clock_behind + CLOCK_BEHIND:
            log.warning(
                "the system clock was set back and is %d s behind the tunnel's; "
                "restart the tunnel to follow it",
                behind // SECOND,
                extra=fields("clock_set_back", clock_offset=-behind / SECOND),
            )
        self._clock_behind = max(behind, 0)


def _earlier(one: int, other: int | None) -> int:
    return one if other is None else min(one, other)


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
