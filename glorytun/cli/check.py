"""`glorytun check`: read a configuration file, and show what it means on this host."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from socket import if_nameindex
from typing import Any

from glorytun.cli.common import JSON, print_json
from glorytun.cli.words import Options, Positional, Value
from glorytun.config import LocalKind, PathConfig, TunnelConfig, parse_device
from glorytun.configfile import (
    Configuration,
    Problem,
    file_of,
    key_path,
    load,
    option_values,
)
from glorytun.core.address import format_address, is_v4, pack_address
from glorytun.errors import ConfigError, KeyFileError, ResolveError
from glorytun.keyfile import load_key


def _parse_target(word: str) -> tuple[str, Path]:
    """The name of a tunnel and its file, of which one is given."""
    if "/" in word or word.endswith(".conf"):
        return Path(word).stem, Path(word)
    return parse_device(word), file_of(word)


OPTIONS: Options = (
    Positional(
        value=Value(
            key="target", name="NAME|FILE", parse=_parse_target, fits=lambda word: word != "json"
        ),
        needed="NAME stands for /etc/glorytun/NAME.conf",
        help="the tunnel, or its file: what has a slash or ends in .conf.",
    ),
    JSON,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """What the configuration meets on this host."""

    key_file: str
    key_problem: KeyFileError | None
    addresses: dict[str, list[str]]
    """Of each peer that was resolved."""
    unresolved: dict[str, str]
    """Why a peer was not."""
    matches: tuple[dict[str, list[str]], ...]
    """For each path: the interfaces that it is for, with their addresses."""

    @property
    def key_unreadable(self) -> bool:
        """Whether whoever runs the check may not read the key, which the service may."""
        return self.key_problem is not None and isinstance(
            self.key_problem.__cause__, PermissionError
        )

    @property
    def usable(self) -> bool:
        """Whether the tunnel would start."""
        return self.key_problem is None or self.key_unreadable


def run(found: dict[str, Any]) -> int:
    """Print what was found, and warnings on standard error. Raises what keeps it from running."""
    name, file = found["target"]
    as_json = "json" in found
    try:
        configuration = load(file)
    except ConfigError as error:
        if as_json:
            print_json(_refusal(file, error))
        raise
    findings = _find(configuration, name)
    for warning in (*configuration.warnings, *_warnings(findings)):
        print(warning, file=sys.stderr)
    if as_json:
        print_json(_describe(configuration, findings))
    else:
        print(_render(configuration, findings))
    if findings.key_problem and not findings.usable:
        raise findings.key_problem
    return 0


# Looking.


def _find(configuration: Configuration, name: str) -> _Findings:
    tunnel = configuration.tunnel
    key_file = key_path(tunnel, name)
    key_problem = None
    try:
        load_key(key_file)
    except KeyFileError as error:
        key_problem = error
    addresses, unresolved = _resolve_peers(configuration)
    links = _local_addresses()
    return _Findings(
        key_file=key_file,
        key_problem=key_problem,
        addresses=addresses,
        unresolved=unresolved,
        matches=tuple(_matches(path, links, own=name) for path in configuration.paths),
    )


def _resolve_peers(configuration: Configuration) -> tuple[dict[str, list[str]], dict[str, str]]:
    from glorytun.net.names import resolve  # needed only for clients

    tunnel = configuration.tunnel
    bind = pack_address(tunnel.bind)
    addresses, unresolved = {}, {}
    for peer in dict.fromkeys((tunnel.peer, *(path.peer for path in configuration.paths))):
        if peer is None:
            continue
        try:
            found = resolve(
                peer,
                tunnel.peer_port,
                v4=is_v4(bind) or tunnel.bind == "::",
                v6=not is_v4(bind),
            )
        except ResolveError as error:
            unresolved[peer] = str(error)
        else:
            addresses[peer] = [format_address(endpoint.address) for endpoint in found]
    return addresses, unresolved


def _local_addresses() -> dict[str, list[str]]:
    """The addresses of each interface of this host."""
    from pyroute2 import IPRoute  # takes 0.1 s to import

    found: dict[str, list[str]] = {name: [] for _, name in if_nameindex()}
    names = dict(if_nameindex())
    with IPRoute() as route:
        for message in route.get_addr():
            # Of a point-to-point link, IFA_ADDRESS is the other end (linux/if_addr.h).
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            found.setdefault(names.get(message["index"], ""), []).append(str(address))
    return found


def _matches(path: PathConfig, links: dict[str, list[str]], *, own: str) -> dict[str, list[str]]:
    """The interfaces that a path is for; a glob never means the tunnel itself or loopback."""
    match path.kind:
        case LocalKind.ADDRESS:
            return {name: [path.local] for name, found in links.items() if path.local in found}
        case LocalKind.INTERFACE:
            return {name: found for name, found in links.items() if name == path.local}
        case LocalKind.GLOB:
            return {
                name: found
                for name, found in links.items()
                if name not in ("lo", own) and fnmatchcase(name, path.local)
            }


# Telling.


def _warnings(findings: _Findings) -> Iterator[str]:
    for problem in findings.unresolved.values():
        yield f"glorytun: warning: {problem}"
    if findings.key_unreadable:
        yield f"glorytun: warning: {findings.key_problem}, so that it was not checked"


def _render(configuration: Configuration, findings: _Findings) -> str:
    tunnel = configuration.tunnel
    role = "a server" if tunnel.peer is None else f"a client of {tunnel.peer}"
    blocks = [f"{configuration.source}: {role}", _block("Tunnel", _tunnel_rows(tunnel, findings))]
    for path, matches in zip(configuration.paths, findings.matches, strict=True):
        blocks.append(_block("Path", _path_rows(path, matches, findings)))
    return "\n\n".join(blocks)


def _block(title: str, rows: Iterator[tuple[str, str]]) -> str:
    return "\n".join([f"[{title}]", *(f"  {left:<32}  {note}".rstrip() for left, note in rows)])


def _tunnel_rows(tunnel: TunnelConfig, findings: _Findings) -> Iterator[tuple[str, str]]:
    for option, value in option_values(tunnel):
        text, notes = option.text(value), []
        if value == option.initial:
            notes.append("default")
        if option.name == "keyfile":
            text = findings.key_file
            notes.append(_key_note(findings))
        if option.name == "peer":
            notes += _peer_notes(tunnel.peer, findings)
        yield f"{option.key}={text}", ", ".join(notes)


def _path_rows(
    path: PathConfig, matches: dict[str, list[str]], findings: _Findings
) -> Iterator[tuple[str, str]]:
    for option, value in option_values(path):
        notes = ["default"] if value == option.initial else []
        if option.name == "local":
            notes.append(_match_note(path, matches))
        if option.name == "peer":
            notes += _peer_notes(path.peer, findings)
        yield f"{option.key}={option.text(value)}", ", ".join(notes)


def _key_note(findings: _Findings) -> str:
    if findings.key_problem is None:
        return "holds a key"
    return "not checked" if findings.key_unreadable else "can't be used"


def _peer_notes(peer: str | None, findings: _Findings) -> list[str]:
    if peer in findings.unresolved:
        return ["does not resolve now"]
    return [address for address in findings.addresses.get(peer or "", []) if address != peer]


def _match_note(path: PathConfig, matches: dict[str, list[str]]) -> str:
    if not matches:
        what = "address" if path.kind is LocalKind.ADDRESS else "interface"
        return f"this host has no such {what} now"
    if path.kind is LocalKind.ADDRESS:
        return f"on {', '.join(matches)}"
    found = {name: ", ".join(addresses) or "no address" for name, addresses in matches.items()}
    if path.kind is LocalKind.INTERFACE:
        return f"now {found[path.local]}"
    return "now " + "; ".join(f"{name}: {addresses}" for name, addresses in found.items())


def _describe(configuration: Configuration, findings: _Findings) -> dict[str, object]:
    tunnel = configuration.tunnel
    return {
        "file": str(configuration.source),
        "usable": findings.usable,
        "errors": [],
        "warnings": [_describe_problem(problem) for problem in configuration.warnings],
        "tunnel": {
            **{option.name: option.json(value) for option, value in option_values(tunnel)},
            "role": "server" if tunnel.peer is None else "client",
            "peer_addresses": findings.addresses.get(tunnel.peer or "", []),
            "keyfile": findings.key_file,
            "keyfile_problem": str(findings.key_problem) if findings.key_problem else None,
        },
        "paths": [
            {
                **{option.name: option.json(value) for option, value in option_values(path)},
                "kind": path.kind.value,
                "peer_addresses": findings.addresses.get(path.peer or tunnel.peer or "", []),
                "interfaces": matches,
            }
            for path, matches in zip(configuration.paths, findings.matches, strict=True)
        ],
    }


def _refusal(file: Path, error: ConfigError) -> dict[str, object]:
    """The document for a file that can't be used; the same keys as far as they are known."""
    problems = [problem for problem in error.problems if isinstance(problem, Problem)]
    errors = [_describe_problem(problem) for problem in problems if not problem.warning]
    if not problems:
        errors = [{"line": None, "column": None, "message": error.args[0], "hint": error.hint}]
    return {
        "file": str(file),
        "usable": False,
        "errors": errors,
        "warnings": [_describe_problem(problem) for problem in problems if problem.warning],
    }


def _describe_problem(problem: Problem) -> dict[str, object]:
    return {
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "hint": problem.hint,
    }
