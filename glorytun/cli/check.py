"""`glorytun check`: read a configuration file, and show what it means on this host."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glorytun.cli.common import JSON, print_json
from glorytun.cli.findings import Findings, FoundPath, FoundSection, Warned, find
from glorytun.cli.words import Options, Positional, Value
from glorytun.config import LocalKind, PathConfig, TunnelConfig, parse_device
from glorytun.configfile import Configuration, Problem, file_of, load, option_values
from glorytun.core.address import format_address
from glorytun.errors import ConfigError


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
    findings = find(configuration, name)
    for problem in configuration.warnings:
        print(_printable(str(problem)), file=sys.stderr)
    for warning in findings.warnings:
        print(_printable(f"glorytun: warning: {warning}"), file=sys.stderr)
    if as_json:
        print_json(_describe(configuration, findings))
    else:
        print(_printable(_render(configuration, findings)))
    if findings.key_problem and not findings.usable:
        raise findings.key_problem
    return 0


# Telling.


def _printable(text: str) -> str:
    """Without what a terminal can't show: the kernel takes any bytes for an interface's name."""
    return text.encode(errors="replace").decode()


def _render(configuration: Configuration, findings: Findings) -> str:
    tunnel = configuration.tunnel
    role = "a server" if tunnel.peer is None else f"a client of {tunnel.peer}"
    blocks = [f"{configuration.source}: {role}", _block("Tunnel", _tunnel_rows(tunnel, findings))]
    for path, section in zip(configuration.paths, findings.sections, strict=True):
        block = _block("Path", _path_rows(path, section, findings))
        blocks.append("\n".join([block, *_path_lines(section)]))
    return "\n\n".join(blocks)


def _block(title: str, rows: Iterator[tuple[str, str]]) -> str:
    return "\n".join([f"[{title}]", *(f"  {left:<32}  {note}".rstrip() for left, note in rows)])


def _tunnel_rows(tunnel: TunnelConfig, findings: Findings) -> Iterator[tuple[str, str]]:
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
    path: PathConfig, section: FoundSection, findings: Findings
) -> Iterator[tuple[str, str]]:
    for option, value in option_values(path):
        notes = ["default"] if value == option.initial else []
        if option.name == "local":
            notes += _local_notes(path, section)
        if option.name == "peer":
            notes += _peer_notes(path.peer, findings)
        yield f"{option.key}={option.text(value)}", ", ".join(notes)


def _key_note(findings: Findings) -> str:
    if findings.key_problem is None:
        return "holds a key"
    return "not checked" if findings.key_unreadable else "can't be used"


def _peer_notes(peer: str | None, findings: Findings) -> list[str]:
    if peer in findings.unresolved:
        return ["does not resolve now"]
    return [address for address in findings.addresses.get(peer or "", []) if address != peer]


def _local_notes(path: PathConfig, section: FoundSection) -> list[str]:
    if section.interfaces:
        return []
    if path.kind is LocalKind.ADDRESS:
        return ["no interface that is up and connected has this address now"]
    return ["this host has no such interface now"]


def _path_lines(section: FoundSection) -> Iterator[str]:
    """Which paths a section makes, and over which interfaces it makes none."""
    for path in section.paths:
        note = "" if path.has_route else ", which has no route there"
        yield f"  makes the path {path.id} over {path.interface}{note}"
    for interface, reason in section.unused.items():
        yield f"  makes no path over {interface}: {reason}"


def _describe(configuration: Configuration, findings: Findings) -> dict[str, object]:
    tunnel = configuration.tunnel
    return {
        "file": str(configuration.source),
        "usable": findings.usable,
        "errors": [],
        "warnings": [
            *(_describe_problem(problem) for problem in configuration.warnings),
            *(_describe_warning(warning) for warning in findings.warnings),
        ],
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
                "interfaces": section.interfaces,
                "paths": [_describe_path(found) for found in section.paths],
                "unused": section.unused,
            }
            for path, section in zip(configuration.paths, findings.sections, strict=True)
        ],
    }


def _refusal(file: Path, error: ConfigError) -> dict[str, object]:
    """The document for a file that can't be used; the same keys as far as they are known."""
    problems = [problem for problem in error.problems if isinstance(problem, Problem)]
    errors = [_describe_problem(problem) for problem in problems if not problem.warning]
    if not problems:
        errors = [_describe_warning(Warned(message=error.args[0], hint=error.hint))]
    return {
        "file": str(file),
        "usable": False,
        "errors": errors,
        "warnings": [_describe_problem(problem) for problem in problems if problem.warning],
    }


def _describe_path(path: FoundPath) -> dict[str, object]:
    remote = path.id.remote
    return {
        "interface": path.interface,
        "local": format_address(path.id.local),
        "remote": {"address": format_address(remote.address), "port": remote.port},
        "route": path.has_route,
    }


def _describe_warning(warning: Warned) -> dict[str, object]:
    return {"line": None, "column": None, "message": warning.message, "hint": warning.hint}


def _describe_problem(problem: Problem) -> dict[str, object]:
    return {
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "hint": problem.hint,
    }
