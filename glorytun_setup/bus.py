"""systemd and systemd-networkd over D-Bus: the few things that the wizard asks of them.

`Bus` is what the rest sees, synchronous; `SystemBus` is the real one, and the only user of the
D-Bus library. It calls with low-level messages alone, so that the library can be replaced. What is
waited for is asked again and again rather than listened for: a signal may be sent before we listen,
and on systemd 252 networkd answers Reload before it has begun to reconfigure.

Nothing secret is ever passed here.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar

from glorytun.errors import SetupError

_T = TypeVar("_T")

CALL_TIMEOUT = 10.0
"""Seconds for an answer."""
INTERVAL = 0.05
"""Seconds between two looks at what is waited for."""

SYSTEMD = "org.freedesktop.systemd1"
NETWORKD = "org.freedesktop.network1"
_SYSTEMD_PATH = "/org/freedesktop/systemd1"
_NETWORKD_PATH = "/org/freedesktop/network1"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitState:
    """What systemd says of a unit."""

    load: str
    """loaded, not-found, masked …"""
    active: str
    """active, activating, inactive, failed …"""
    sub: str
    result: str
    """success, exit-code, timeout …"""
    status: str
    """What the service says of itself, or empty."""
    file: str
    """enabled, disabled, static … or empty without a file."""

    @property
    def is_active(self) -> bool:
        return self.active in {"active", "reloading"}

    @property
    def is_enabled(self) -> bool:
        return self.file == "enabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkDetails:
    """What networkd knows of a link."""

    network_file: str = ""
    """By which it configures it; empty: none."""
    addresses: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()
    """Those of the addresses that are not by its configuration."""


class Bus(Protocol):
    """systemd and networkd. Everything raises SetupError with the next step when it fails."""

    def systemd_version(self) -> int:
        """252 on Debian 12."""

    def global_nameservers(self) -> list[bytes]:
        """Those that resolved asks by no interface of their own; packed addresses."""

    def unit(self, name: str) -> UnitState:
        """What systemd says of a unit, which need not exist."""

    def reload_units(self) -> None:
        """Let systemd read its units again."""

    def enable(self, *units: str) -> None:
        """Start them at boot; `reload_units` has to follow."""

    def disable(self, *units: str) -> None:
        """Don't start them at boot; `reload_units` has to follow."""

    def start(self, unit: str, *, timeout: float) -> None:
        """Start a unit and wait until it is ready. One that runs is left alone."""

    def restart(self, unit: str, *, timeout: float) -> None:
        """Stop and start a unit, and wait until it is ready."""

    def stop(self, unit: str, *, timeout: float) -> None:
        """Stop a unit and wait until it has."""

    def forget_failure(self, unit: str) -> None:
        """Let a unit that failed be as one that was never started."""

    def reload_networkd(self) -> None:
        """Let networkd read its files again; it reconfigures the links whose files changed."""

    def reconfigure(self, link: str, *, timeout: float) -> None:
        """Let networkd set a link up again, which may still have to appear."""

    def wait_configured(self, link: str, *, timeout: float) -> None:
        """Wait until networkd has set a link up."""

    def link_states(self, link: str) -> tuple[str, str]:
        """networkd's AdministrativeState and OperationalState; empty without the link."""

    def link_details(self, link: str) -> LinkDetails:
        """More of what networkd knows of a link, if it knows it."""

    def clock_synchronised(self) -> bool:
        """Whether somebody keeps this host's clock right."""

    def close(self) -> None:
        """Leave the bus."""


class _Refusal(Exception):
    """An error that was answered."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


class SystemBus:
    """The system's bus. `check` is called while it waits, and may raise to end the wait."""

    def __init__(self, *, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._subscribed = False
        self._loop = asyncio.new_event_loop()
        try:
            self._bus: Any = self._run(_connect())
        except BaseException:
            self._loop.close()
            raise

    def close(self) -> None:
        self._bus.disconnect()
        with suppress(Exception):  # It was broken already.
            self._loop.run_until_complete(self._bus.wait_for_disconnect())
        self._loop.close()

    # systemd.

    def systemd_version(self) -> int:
        shown = self._properties(SYSTEMD, _SYSTEMD_PATH, f"{SYSTEMD}.Manager")
        # As in 252.39-1~deb12u2 and 257~rc1.
        found = re.match(r"\d+", str(shown["Version"]).removeprefix("v"))
        return int(found[0]) if found else 0

    def global_nameservers(self) -> list[bytes]:
        name, path = "org.freedesktop.resolve1", "/org/freedesktop/resolve1"
        servers = self._properties(name, path, f"{name}.Manager")["DNS"]
        return [bytes(address) for interface, _, address in servers if interface == 0]

    def unit(self, name: str) -> UnitState:
        path = str(self._systemd("LoadUnit", "s", name))
        shown = self._properties(SYSTEMD, path, f"{SYSTEMD}.Unit")
        service = {}
        if name.endswith(".service"):
            service = self._properties(SYSTEMD, path, f"{SYSTEMD}.Service")
        return UnitState(
            load=str(shown["LoadState"]),
            active=str(shown["ActiveState"]),
            sub=str(shown["SubState"]),
            result=str(service.get("Result", "")),
            status=str(service.get("StatusText", "")),
            file=str(shown["UnitFileState"]),
        )

    def reload_units(self) -> None:
        self._systemd("Reload")

    def enable(self, *units: str) -> None:
        self._systemd("EnableUnitFiles", "asbb", list(units), False, True)

    def disable(self, *units: str) -> None:
        self._systemd("DisableUnitFiles", "asb", list(units), False)

    def start(self, unit: str, *, timeout: float) -> None:
        self._job("StartUnit", unit, "started", timeout)

    def restart(self, unit: str, *, timeout: float) -> None:
        self._job("RestartUnit", unit, "restarted", timeout)

    def stop(self, unit: str, *, timeout: float) -> None:
        with suppress(_NoSuchUnit):
            self._job("StopUnit", unit, "stopped", timeout)

    def forget_failure(self, unit: str) -> None:
        with suppress(SetupError):  # It isn't loaded, so that there is nothing to forget.
            self._systemd("ResetFailedUnit", "s", unit)

    def _job(self, method: str, unit: str, done: str, timeout: float) -> None:
        """Begin a job and wait for its end, which JobRemoved tells."""
        results: dict[str, str] = {}

        def on_message(message: Any) -> None:
            if message.member == "JobRemoved" and message.interface == f"{SYSTEMD}.Manager":
                results[message.body[1]] = message.body[3]

        self._subscribe()
        self._bus.add_message_handler(on_message)
        try:
            job = str(self._systemd(method, "ss", unit, "replace"))
            self._wait(lambda: job in results, timeout, f"{unit} was not {done}")
        finally:
            self._bus.remove_message_handler(on_message)
        if results[job] != "done":
            raise SetupError(
                f"{unit} was not {done}: {results[job]}", hint=f"`journalctl -u {unit}` says more"
            )

    def _systemd(self, method: str, signature: str = "", *arguments: object) -> Any:
        try:
            return self._call(
                SYSTEMD, _SYSTEMD_PATH, f"{SYSTEMD}.Manager", method, signature, *arguments
            )
        except _Refusal as error:
            kind = _NoSuchUnit if error.name.endswith("NoSuchUnit") else SetupError
            what = next((word for word in arguments if isinstance(word, str)), "")
            raise kind(
                f"systemd refused {method}{f' of {what}' if what else ''}: {error}",
                hint="`journalctl -b _PID=1` may say more",
            ) from None

    # networkd.

    def reload_networkd(self) -> None:
        self._networkd("Reload")

    def reconfigure(self, link: str, *, timeout: float) -> None:
        self._wait(lambda: self._link(link) is not None, timeout, f"networkd has no link {link}")
        self._networkd("ReconfigureLink", "i", int(self._networkd("GetLinkByName", "s", link)[0]))

    def wait_configured(self, link: str, *, timeout: float) -> None:
        def is_configured() -> bool:
            administrative = self.link_states(link)[0]
            if administrative == "failed":
                raise SetupError(
                    f"networkd could not set up {link}",
                    hint="`journalctl -u systemd-networkd` says why",
                )
            return administrative == "configured"

        self._wait(is_configured, timeout, f"networkd has not set up {link}")

    def link_states(self, link: str) -> tuple[str, str]:
        path = self._link(link)
        if path is None:
            return "", ""
        try:
            shown = self._properties(NETWORKD, path, f"{NETWORKD}.Link")
        except SetupError:
            return "", ""  # It has just gone.
        return str(shown["AdministrativeState"]), str(shown["OperationalState"])

    def link_details(self, link: str) -> LinkDetails:
        path = self._link(link)
        if path is None:
            return LinkDetails()
        index = int(self._networkd("GetLinkByName", "s", link)[0])
        found = json.loads(self._networkd("DescribeLink", "i", index))
        addresses = {
            str(ip_address(bytes(entry["Address"]))): entry["ConfigSource"]
            for entry in found.get("Addresses", ())
        }
        return LinkDetails(
            network_file=found.get("NetworkFile", ""),
            addresses=frozenset(addresses),
            foreign=frozenset(own for own, source in addresses.items() if source == "foreign"),
        )

    def _link(self, name: str) -> str | None:
        """The object of a link, or None without one."""
        try:
            return str(self._networkd("GetLinkByName", "s", name)[1])
        except _NoSuchLink:
            return None

    def _networkd(self, method: str, signature: str = "", *arguments: object) -> Any:
        try:
            return self._call(
                NETWORKD, _NETWORKD_PATH, f"{NETWORKD}.Manager", method, signature, *arguments
            )
        except _Refusal as error:
            # The error of networkd's has resolved's name, sic: bus-error.h.
            if error.name.endswith("NoSuchLink"):
                raise _NoSuchLink(str(error)) from None
            raise SetupError(
                f"networkd refused {method}: {error}",
                hint="`journalctl -u systemd-networkd` may say more",
            ) from None

    def clock_synchronised(self) -> bool:
        name, path = "org.freedesktop.timedate1", "/org/freedesktop/timedate1"
        try:
            return bool(self._properties(name, path, name)["NTPSynchronized"])
        except SetupError:
            return True  # Nobody can tell.

    # The bus.

    def _properties(self, service: str, path: str, interface: str) -> dict[str, Any]:
        try:
            variants = self._call(
                service, path, "org.freedesktop.DBus.Properties", "GetAll", "s", interface
            )
        except _Refusal as error:
            raise SetupError(f"{service} doesn't tell of {path}: {error}") from None
        return {name: variant.value for name, variant in variants.items()}

    def _subscribe(self) -> None:
        """To the ends of jobs."""
        if self._subscribed:
            return
        self._systemd("Subscribe")
        name = "org.freedesktop.DBus"
        rule = f"type='signal',interface='{SYSTEMD}.Manager',member='JobRemoved'"
        self._call(name, "/org/freedesktop/DBus", name, "AddMatch", "s", rule)
        self._subscribed = True

    def _call(
        self, service: str, path: str, interface: str, method: str, signature: str, *body: object
    ) -> Any:
        """What is answered: nothing, a value, or a list of several. Raises _Refusal."""
        from dbus_next.constants import MessageType
        from dbus_next.message import Message

        message = Message(
            destination=service,
            path=path,
            interface=interface,
            member=method,
            signature=signature,
            body=list(body),
        )
        try:
            answer = self._run(asyncio.wait_for(self._bus.call(message), CALL_TIMEOUT))
        except TimeoutError:
            raise SetupError(
                f"{service} did not answer {method} within {CALL_TIMEOUT:g} s",
                hint=f"`busctl status {service}` shows whether it runs",
            ) from None
        except (EOFError, OSError) as error:
            raise SetupError(
                f"the system bus broke off: {error}", hint="`systemctl status dbus` shows why"
            ) from None
        if answer.message_type is MessageType.ERROR:
            raise _Refusal(answer.error_name, str(answer.body[0]) if answer.body else "")
        return answer.body[0] if len(answer.body) == 1 else answer.body

    def _wait(self, condition: Callable[[], bool], timeout: float, failure: str) -> None:
        """Return when `condition` holds; signals come in meanwhile. Raises SetupError."""
        deadline = self._loop.time() + timeout
        while not condition():
            self._check()
            if self._loop.time() >= deadline:
                raise SetupError(f"{failure} within {timeout:.3g} s")
            self._run(asyncio.sleep(INTERVAL))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._loop.run_until_complete(work)


class _NoSuchUnit(SetupError):
    """systemd has no such unit."""


class _NoSuchLink(SetupError):
    """networkd has no such link."""


async def _connect() -> Any:
    """Raises SetupError."""
    from dbus_next.aio.message_bus import MessageBus
    from dbus_next.constants import BusType
    from dbus_next.errors import DBusError

    try:
        return await asyncio.wait_for(MessageBus(bus_type=BusType.SYSTEM).connect(), CALL_TIMEOUT)
    except (OSError, EOFError, DBusError, TimeoutError, asyncio.InvalidStateError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise SetupError(
            f"the system's D-Bus doesn't answer: {reason or type(error).__name__}",
            hint="`systemctl start dbus` starts it, `apt install dbus` installs it",
        ) from None
