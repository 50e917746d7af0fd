"""Whether the tunnel works, and if not, why.

A client's tunnel works when one path has an authentic answer of the server's, and the other end
answers a ping inside. What a peer with another key is sent it drops without a word (PROTOCOL 3), so
that a wrong key, a closed firewall and a server that is off look the same from here: what can be
told apart is told, the rest is named.
"""

import errno
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from glorytun.control.client import ask
from glorytun.control.messages import Bad, Paths
from glorytun.core.address import format_address
from glorytun.errors import GlorytunError
from glorytun.net.links import local_addresses
from glorytun_setup.model import Address, Facts, Inside, Plan, Wan
from glorytun_setup.waiting import wait_until

_ICMP_ECHO = {4: (8, 0), 6: (128, 129)}
"""Type of a request and of its answer (RFC 792, RFC 4443)."""
_IPV4_HEADER = 20
_ECHO = struct.Struct("!BBHHH")
_PING_INTERVAL = 0.25
_PROBE_TIMEOUT = 0.5
"""Seconds for an ICMP error to come back."""
_PROBES = 4
"""A host sends one ICMP error a second (icmp_ratelimit)."""
_RESOLVE_TIMEOUT = 3.0
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM)
_LOG_LINES = 8

_CLOCK_HINT = "`timedatectl` shows the clock; more than TimeTolerance= (10min) apart is dropped"
_KEY_HINT = (
    "check on the server that its tunnel runs (`glorytun show`), that it has the same key "
    "(`glorytun show bad` counts what doesn't open), and that its firewall lets the UDP port in"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that may keep the tunnel from working."""

    text: str
    hint: str = ""
    """What to check next."""


# Whether.


def wait_path(name: str, *, timeout: float, check: Callable[[], None]) -> bool:
    """Whether some path has an authentic answer in time."""
    return bool(wait_until(lambda: _answered(paths_of(name)), timeout=timeout, check=check))


def wait_answer(name: str, *, timeout: float, check: Callable[[], None]) -> bool:
    """Whether the tunnel's daemon answers questions in time, as ours does and no other."""

    def answers() -> bool:
        try:
            ask(Paths(), name, timeout=1.0)
        except GlorytunError:
            return False
        return True

    return bool(wait_until(answers, timeout=timeout, check=check))


def is_running(name: str) -> bool:
    """Whether some path is in use now."""
    return any(path["condition"] == "running" for path in paths_of(name))


def wait_wan(name: str, wan: str, *, timeout: float, check: Callable[[], None]) -> bool:
    """Whether the path over one interface has an authentic answer in time."""
    return bool(wait_until(lambda: is_heard(name, wan), timeout=timeout, check=check))


def is_heard(name: str, wan: str) -> bool:
    """Whether the path over one interface has had an authentic answer."""
    own = {format_address(address) for address in local_addresses().get(wan, ())}
    return any(path["local"] in own for path in _answered(paths_of(name)))


def wait_ping(inside: Inside, *, timeout: float, check: Callable[[], None]) -> float | None:
    """Seconds that the other end took to answer, or None when it didn't in time."""
    numbers = iter(range(1, 1 << 16))
    found = wait_until(
        lambda: _ping(inside, next(numbers)), timeout=timeout, check=check, interval=0.01
    )
    return found[0] if found else None


def _answered(paths: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [path for path in paths if path["last_received_at"] is not None]


def paths_of(name: str) -> list[dict[str, Any]]:
    """Empty where the tunnel doesn't answer (yet)."""
    try:
        paths: list[dict[str, Any]] = ask(Paths(), name, timeout=1.0)["paths"]
    except GlorytunError:
        return []
    return paths


def _ping(inside: Inside, number: int) -> tuple[float] | None:
    """One request; returns how long its answer took."""
    from glorytun_setup.waiting import now

    version = inside.own.version
    request, answer = _ICMP_ECHO[version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    identity = os.getpid() & 0xFFFF
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        try:
            raw.bind((str(inside.own.ip), 0))
            raw.connect((str(inside.peer), 0))
            raw.send(_echo(request, identity, number, sum_up=version == 4))
        except OSError:
            return None
        sent = now()
        while (left := sent + _PING_INTERVAL - now()) > 0:
            if not select.select([raw], [], [], left)[0]:
                break
            data = raw.recv(2048)[_IPV4_HEADER if version == 4 else 0 :]
            if len(data) >= _ECHO.size:
                kind, _, _, theirs, echoed = _ECHO.unpack_from(data)
                if (kind, theirs, echoed) == (answer, identity, number):
                    return (now() - sent,)
    return None


def _echo(kind: int, identity: int, number: int, *, sum_up: bool) -> bytes:
    """An echo request; for IPv6 the kernel writes the checksum (RFC 3542)."""
    message = _ECHO.pack(kind, 0, 0, identity, number)
    if not sum_up:
        return message
    total = sum(struct.unpack("!4H", message))
    total = (total >> 16) + (total & 0xFFFF)
    return _ECHO.pack(kind, 0, ~total & 0xFFFF, identity, number)


# Why not.


def diagnose(
    plan: Plan, facts: Facts, *, clock_is_right: bool, hush: Callable[[], None]
) -> list[Finding]:
    """What may be the reason, the likeliest first. Takes seconds at the most.

    `hush` stops the tunnel's daemon once it was asked: it would use up the few errors that hosts
    send.
    """
    if not plan.wans:
        return []
    found = [*_dropped(plan.name)]
    paths = paths_of(plan.name)
    addresses = _servers(paths) or _resolve(plan.server_host)
    if not addresses:
        text = f"{plan.server_host} does not resolve to an address"
        return [*found, Finding(text=text, hint=f"`getent ahosts {plan.server_host}` asks again")]
    silent = []
    heard = {ip_address(path["local"]) for path in _answered(paths)}
    hush()
    for wan in plan.wans:
        if _has_any(facts, wan, heard):
            continue
        problem = _look_at(wan, plan, facts, addresses)
        if problem:
            found.append(problem)
        else:
            silent.append(wan.interface)
    if silent:
        where = ", ".join(silent)
        text = f"no answer on {where}: nothing came back from {plan.server_host} port {plan.port}"
        found.append(Finding(text=text, hint=_KEY_HINT))
    if not clock_is_right and not heard:
        text = "nobody keeps this host's clock right, and the server drops what is far from its own"
        found.append(Finding(text=text, hint=_CLOCK_HINT))
    return found


def last_lines(unit: str, *, since: float) -> list[str]:
    """What the journal has of a unit since a system time; empty without a journal."""
    return _journal(f"--unit={unit}", f"--lines={_LOG_LINES}", since=since)


def events(unit: str, event: str, *, since: float) -> list[str]:
    """The last one of its daemon's events of a kind since a system time (docs/journal.md)."""
    words = (f"_SYSTEMD_UNIT={unit}", f"GLORYTUN_EVENT={event}")
    return _journal(*words, "--lines=1", since=since)


def _journal(*words: str, since: float) -> list[str]:
    command = ("journalctl", "--output=cat", "--quiet", f"--since=@{since:.0f}", *words)
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return result.stdout.splitlines()


def _dropped(name: str) -> Iterator[Finding]:
    """What came and could not be used."""
    try:
        kinds = {entry["kind"]: entry for entry in ask(Bad(), name, timeout=1.0)["bad"]}
    except GlorytunError:
        return
    if kinds.get("difftime", {}).get("count"):
        offset = kinds["difftime"].get("clock_offset") or 0
        where = "ahead of" if offset > 0 else "behind"
        text = f"the server's clock is {abs(offset):.0f} s {where} this host's"
        yield Finding(text=text, hint=_CLOCK_HINT)
    if kinds.get("decrypt", {}).get("count"):
        source = kinds["decrypt"]["last_source"]["address"]
        text = f"what comes from {source} doesn't open: it has another key"
        yield Finding(text=text, hint="compare the key files of both ends")


def _has_any(facts: Facts, wan: Wan, addresses: set[Address]) -> bool:
    """Whether an interface has one of these."""
    link = facts.link(wan.interface)
    return link is not None and any(own.ip in addresses for own in link.addresses)


def _look_at(wan: Wan, plan: Plan, facts: Facts, addresses: list[Address]) -> Finding | None:
    """What is wrong with one WAN, as far as it can be seen from here."""
    link = facts.link(wan.interface)
    if link is None:
        text = f"{wan.interface}: there is no such interface"
        return Finding(text=text, hint="`ip link` lists them")
    usable = [
        (own.ip, server)
        for server in addresses
        for own in link.addresses
        if own.version == server.version
    ]
    if not usable:
        text = f"{wan.interface}: it has no address that fits {addresses[0]}"
        return Finding(text=text, hint=f"`networkctl status {wan.interface}` says why")
    problems = [_probe(wan.interface, own, server, plan) for own, server in usable[:2]]
    return problems[0] if all(problems) else None


def _probe(interface: str, own: Address, server: Address, plan: Plan) -> Finding | None:
    """Send the server's port one byte as the daemon would, and see whether an error comes back."""
    family = socket.AF_INET if own.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            probe.bind((str(own), 0))
            probe.connect((str(server), plan.port))
            for _ in range(_PROBES):
                probe.send(b"\0")
                if select.select([probe], [], [], _PROBE_TIMEOUT)[0]:
                    probe.recv(1)
        except ConnectionRefusedError:
            return Finding(
                text=f"{interface}: {server} refuses UDP port {plan.port}",
                hint="the server's tunnel doesn't run, listens on another port, or its firewall "
                "rejects it: `ss -ulpn` there shows who listens",
            )
        except OSError as error:
            if error.errno not in _NO_WAY:
                return None
            return Finding(
                text=f"{interface}: no route from {own} to {server}: "
                f"{os.strerror(error.errno or 0)}",
                hint=f"`ip route get {server} from {own} oif {interface}` shows the way",
            )
    return None


def _servers(paths: list[dict[str, Any]]) -> list[Address]:
    """The addresses that the daemon has paths to; it asked outside of the tunnel."""
    found = [ip_address(path["remote"]["address"].split("%")[0]) for path in paths]
    return list(dict.fromkeys(found))


def _resolve(host: str) -> list[Address]:
    """Its addresses; none when they aren't told in time. The user waits for their network."""
    found: list[Address] = []

    def work() -> None:
        with suppress(OSError, UnicodeError):
            for entry in socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM):
                found.append(ip_address(str(entry[4][0]).split("%")[0]))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_RESOLVE_TIMEOUT)
    return list(dict.fromkeys(found))
