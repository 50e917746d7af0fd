"""What the wizard did on this host, as JSON in /var/lib/glorytun/setup. Values and text only.

``NAME.json``, the manifest: what belongs to a tunnel that is set up, and what was there before it.
``NAME.journal``: a change under way, written before the change itself. A run that finds one finds
what another left behind that was killed: it undoes it, or goes on with it where that was a removal.

Both hold what was in files before, so they are root's alone. They never hold what is written.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from ipaddress import ip_address, ip_interface
from typing import Any

from glorytun.errors import SetupError
from glorytun_setup.model import Gateway, Link, Manager, Source

DIRECTORY = "/var/lib/glorytun/setup"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A file: what is in it, and whose it is."""

    content: bytes = field(repr=False)
    mode: int
    uid: int
    gid: int

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitBefore:
    """What a unit was."""

    enabled: bool
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is no file, as it was before."""

    units: Mapping[str, UnitBefore] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    has_device: bool = False
    foreign: tuple[bytes, ...] = ()
    """Rules, addresses and routes of somebody else's, as `foreign.remember` has them."""
    boot: str = ""
    """The boot in which they were there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of a tunnel that is set up."""

    digest: str
    """Of what was written."""
    original: Saved | None
    """What was there before the wizard; None: nothing."""
    shared: bool = False
    """Whether other tunnels have it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that belongs to a tunnel that is set up."""

    name: str
    entries: Mapping[str, Entry]
    """By absolute path."""
    directories: tuple[str, ...] = ()
    """Those that were made, outer ones first."""
    host: Host = Host()
    """Before the wizard."""
    tables: tuple[int, ...] = ()
    """Routing tables of its own."""
    links: tuple[str, ...] = ()
    """Interfaces, besides its own, that it has networkd configure otherwise."""
    priority: int = 0
    """The first of the `RULES` priorities of its rules; 0: it has none."""
    wans: tuple[Link, ...] = ()
    """A client's, as they were then: one that is down now still belongs to it."""
    answers: Mapping[str, str] = field(default_factory=dict)
    """By TOML key, without the secret one."""


class Purpose(StrEnum):
    """What a change is for."""

    SET_UP = "set up"
    """Undone when it was interrupted."""
    REMOVE = "remove"
    """Gone on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The change of one file."""

    path: str
    before: Saved | None
    digest: str | None
    """Of what it is to hold; None: it is to go."""
    in_place: bool = False
    """Whether it is written where it is to be, so that a part of it may be found there."""
    size: int = 0
    """Bytes of what it is to hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """A change under way."""

    name: str
    purpose: Purpose
    steps: tuple[Step, ...] = ()
    directories: tuple[str, ...] = ()
    """Those that are made, outer ones first."""
    host: Host = Host()
    """Before this change."""
    tables: tuple[int, ...] = ()
    """Routing tables that were of no use before it."""
    moved: tuple[int, ...] = ()
    """Those that were another interface's before it."""
    links: tuple[str, ...] = ()
    """Interfaces that networkd reconfigures, besides the tunnel's own."""
    priority: int = 0
    """As in the manifest, of rules that weren't there before it."""


def manifest_path(name: str) -> str:
    """Where a tunnel's manifest is."""
    return f"{DIRECTORY}/{name}.json"


def journal_path(name: str) -> str:
    """Where a tunnel's journal is."""
    return f"{DIRECTORY}/{name}.journal"


# As JSON.


def dump_manifest(manifest: Manifest) -> bytes:
    """As `load_manifest` reads it."""
    return _dump(
        {
            "version": VERSION,
            "name": manifest.name,
            "files": {
                path: {
                    "sha256": entry.digest,
                    "before": _dump_saved(entry.original),
                    "shared": entry.shared,
                }
                for path, entry in manifest.entries.items()
            },
            "directories": manifest.directories,
            "host": _dump_host(manifest.host),
            "tables": manifest.tables,
            "links": manifest.links,
            "priority": manifest.priority,
            "wans": [_dump_link(link) for link in manifest.wans],
            "answers": dict(manifest.answers),
        }
    )


def load_manifest(data: bytes, *, name: str) -> Manifest:
    """Raises DamagedError."""
    try:
        found = _load(data)
        return Manifest(
            name=_checked_name(found["name"], name),
            entries={
                _checked_path(path): Entry(
                    digest=entry["sha256"],
                    original=_load_saved(entry["before"]),
                    shared=entry["shared"],
                )
                for path, entry in found["files"].items()
            },
            directories=tuple(map(_checked_path, found["directories"])),
            host=_load_host(found["host"]),
            tables=tuple(map(int, found["tables"])),
            links=tuple(map(str, found["links"])),
            priority=int(found.get("priority", 0)),
            wans=tuple(map(_load_link, found.get("wans", ()))),
            answers=_checked_answers(found["answers"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(manifest_path(name)) from error


def dump_journal(journal: Journal) -> bytes:
    """As `load_journal` reads it."""
    return _dump(
        {
            "version": VERSION,
            "name": journal.name,
            "purpose": journal.purpose,
            "steps": [
                {
                    "path": step.path,
                    "before": _dump_saved(step.before),
                    "sha256": step.digest,
                    "in_place": step.in_place,
                    "size": step.size,
                }
                for step in journal.steps
            ],
            "directories": journal.directories,
            "host": _dump_host(journal.host),
            "tables": journal.tables,
            "moved": journal.moved,
            "links": journal.links,
            "priority": journal.priority,
        }
    )


def load_journal(data: bytes, *, name: str) -> Journal:
    """Raises DamagedError."""
    try:
        found = _load(data)
        return Journal(
            name=_checked_name(found["name"], name),
            purpose=Purpose(found["purpose"]),
            steps=tuple(
                Step(
                    path=_checked_path(step["path"]),
                    before=_load_saved(step["before"]),
                    digest=step["sha256"],
                    in_place=step["in_place"],
                    size=step["size"],
                )
                for step in found["steps"]
            ),
            directories=tuple(map(_checked_path, found["directories"])),
            host=_load_host(found["host"]),
            tables=tuple(map(int, found["tables"])),
            moved=tuple(map(int, found.get("moved", ()))),
            links=tuple(map(str, found["links"])),
            priority=int(found.get("priority", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(journal_path(name)) from error


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"


def _load(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)
    if found["version"] != VERSION:
        raise ValueError
    return found


def _dump_saved(saved: Saved | None) -> dict[str, Any] | None:
    if saved is None:
        return None
    content = b64encode(saved.content).decode()
    return {"content": content, "mode": saved.mode, "uid": saved.uid, "gid": saved.gid}


def _load_saved(found: dict[str, Any] | None) -> Saved | None:
    if found is None:
        return None
    content = b64decode(found["content"], validate=True)
    return Saved(content=content, mode=found["mode"], uid=found["uid"], gid=found["gid"])


def _dump_host(host: Host) -> dict[str, Any]:
    units = {
        name: {"enabled": unit.enabled, "active": unit.active} for name, unit in host.units.items()
    }
    return {
        "units": units,
        "sysctls": dict(host.sysctls),
        "has_device": host.has_device,
        "foreign": [b64encode(message).decode() for message in host.foreign],
        "boot": host.boot,
    }


def _load_host(found: dict[str, Any]) -> Host:
    units = {
        name: UnitBefore(enabled=unit["enabled"], active=unit["active"])
        for name, unit in found["units"].items()
    }
    return Host(
        units=units,
        sysctls=found["sysctls"],
        has_device=found["has_device"],
        foreign=tuple(b64decode(message) for message in found.get("foreign", ())),
        boot=found.get("boot", ""),
    )


def _dump_link(link: Link) -> dict[str, Any]:
    return {
        "name": link.name,
        "manager": link.manager,
        "network_file": link.network_file,
        "addresses": list(map(str, link.addresses)),
        "gateway4": _dump_gateway(link.gateway4),
        "gateway6": _dump_gateway(link.gateway6),
    }


def _load_link(found: dict[str, Any]) -> Link:
    return Link(
        name=found["name"],
        manager=Manager(found["manager"]),
        network_file=found["network_file"],
        addresses=tuple(map(ip_interface, found["addresses"])),
        gateway4=_load_gateway(found["gateway4"]),
        gateway6=_load_gateway(found["gateway6"]),
    )


def _dump_gateway(gateway: Gateway | None) -> dict[str, Any] | None:
    if gateway is None:
        return None
    address = str(gateway.address) if gateway.address else None
    return {"source": gateway.source, "address": address, "metric": gateway.metric}


def _load_gateway(found: dict[str, Any] | None) -> Gateway | None:
    if found is None:
        return None
    address = ip_address(found["address"]) if found["address"] else None
    return Gateway(source=Source(found["source"]), address=address, metric=found["metric"])


def _checked_name(found: object, name: str) -> str:
    if found != name:
        raise ValueError
    return name


def _checked_path(path: str) -> str:
    """Below the root directory, and nowhere else."""
    if not path.startswith("/") or {"", ".", ".."} & set(path.split("/")[1:]) or "\0" in path:
        raise ValueError
    return path


def _checked_answers(found: dict[str, str]) -> dict[str, str]:
    """With what every tunnel has."""
    texts = {str(key): str(text) for key, text in found.items()}
    for key in ("role", "name", "server", "port", "addresses"):
        texts[key]
    return texts


class DamagedError(SetupError):
    """What the wizard wrote about a tunnel can't be used."""


def _damaged(path: str) -> DamagedError:
    return DamagedError(
        f"{path} can't be read: it is damaged, or of a newer version",
        hint="restore it from a backup; or move it away, and remove by hand what it lists",
    )
