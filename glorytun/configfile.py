"""`/etc/glorytun/NAME.conf`, written as systemd's files are (systemd.syntax(7)).

Reads a file, and finds all that is wrong with it at once; each problem says where it is. What each
option means is declared in options.py. Nothing that may be the secret key is ever shown.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import hexdigits
from typing import Any

from glorytun.config import (
    LocalKind,
    PathConfig,
    TunnelConfig,
    is_numeric,
    local_kind,
    nearest,
    quote,
)
from glorytun.core.address import V4_PREFIX, is_v4, pack_address
from glorytun.core.settings import PathSettings
from glorytun.errors import ConfigError
from glorytun.options import SECTIONS, Option

CREDENTIAL = "key"
"""Name of the secret key among a service's credentials (systemd.exec(5), LoadCredential=)."""

MOST_BYTES = 65536
MOST_PROBLEMS = 100
"""A file with so many was hardly meant for us."""

_BLANK = " \t"
_END_OF_LINE = re.compile(r"\r\n|\n|\r")
_KEY_RUN = re.compile(r"[0-9A-Fa-f]{32}")
_WIDTH = 100
"""Characters of a line that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong at one place of a file."""

    file: str
    line: int
    column: int
    """In characters; both from 1."""
    message: str
    hint: str = ""
    """The next step, where the message doesn't imply it."""
    excerpt: str = ""
    """The line and, below, a caret; nothing secret."""
    warning: bool = False
    """Whether the file can be used nevertheless."""

    @property
    def summary(self) -> str:
        """All on one line, without the excerpt."""
        hint = f" ({self.hint})" if self.hint else ""
        return self._headline() + hint

    def __str__(self) -> str:
        lines = [self._headline()]
        lines += [f"  {line}" for line in self.excerpt.splitlines()]
        lines += [f"  hint: {self.hint}"] if self.hint else []
        return "\n".join(lines)

    def _headline(self) -> str:
        kind = "warning: " if self.warning else ""
        return f"{self.file}:{self.line}:{self.column}: {kind}{self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a file says, with defaults where it says nothing."""

    tunnel: TunnelConfig
    paths: tuple[PathConfig, ...]
    source: Path
    warnings: tuple[Problem, ...]


def file_of(name: str) -> Path:
    """Where the configuration of a tunnel lies."""
    return _directory() / f"{name}.conf"


def key_path(tunnel: TunnelConfig, name: str) -> str:
    """The key file that a tunnel uses: the one named, the service's credential, or NAME.key."""
    if tunnel.keyfile is not None:
        return tunnel.keyfile
    credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if credentials:
        credential = os.path.join(credentials, CREDENTIAL)
        # An empty one stands for none: the unit's SetCredential=.
        if os.path.exists(credential) and os.path.getsize(credential) > 1:
            return credential
    return str(_directory() / f"{name}.key")


def load(path: Path) -> Configuration:
    """Read a file. Raises ConfigError, which lists all that is wrong with it."""
    return parse(_read(path), path)


def parse(data: bytes, source: Path) -> Configuration:
    """The configuration in the bytes of a file. Raises ConfigError."""
    reader = _Reader(source)
    reader.read(data)
    problems = sorted(reader.problems, key=lambda problem: (problem.line, problem.column))
    if reader.tunnel is None or not all(problem.warning for problem in problems):
        raise ConfigError("\n".join(map(str, problems)), problems=tuple(problems))
    return Configuration(
        tunnel=TunnelConfig(**reader.tunnel.values()),
        paths=tuple(map(_path_config, reader.paths)),
        source=source,
        warnings=tuple(problems),
    )


def option_values(config: TunnelConfig | PathConfig) -> Iterator[tuple[Option, Any]]:
    """Every option of a section with its value."""
    if isinstance(config, TunnelConfig):
        for option in SECTIONS["Tunnel"]:
            yield option, getattr(config, option.name)
        return
    for option in SECTIONS["Path"]:
        holder = config.settings if hasattr(config.settings, option.name) else config
        yield option, getattr(holder, option.name)


def _directory() -> Path:
    # systemd.exec(5), ConfigurationDirectory=
    return Path(os.environ.get("CONFIGURATION_DIRECTORY") or "/etc/glorytun")


def _path_config(section: "_Section") -> PathConfig:
    values = section.values()
    settings = {item.name: values.pop(item.name) for item in fields(PathSettings)}
    kind = local_kind(values["local"])
    return PathConfig(**values, kind=kind, settings=PathSettings(**settings))


def _read(path: Path) -> bytes:
    try:
        # O_NONBLOCK: the open of a FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{path} is not a regular file")
            data = os.read(fd, MOST_BYTES + 1)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        missing = isinstance(error, FileNotFoundError)
        hint = "the line [Tunnel] alone makes a server" if missing else ""
        raise ConfigError(f"configuration {path}: {reason}", hint=hint) from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path} has more than {MOST_BYTES} bytes", hint="is it the right file?")
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    line: int
    column: int
    text: str
    """The line itself."""
    secret: bool = False
    """Whether what begins here may be a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """A section's header or an assignment, which may go on over several lines."""

    text: str
    """All of it; a backslash at the end of a line has become a space."""
    lines: tuple[tuple[int, int, str], ...]
    """Where in `text` each line begins, its number, and the line itself."""

    def place(self, offset: int, *, end: int | None = None) -> _Place:
        """Of a character of the text; what follows `end` is not shown."""
        start, number, line = next(item for item in reversed(self.lines) if item[0] <= offset)
        return _Place(
            line=number,
            column=offset - start + 1,
            text=line[: None if end is None else max(end - start, 0)],
            secret=self.secret,
        )

    @property
    def first(self) -> int:
        """Where its first character is that is not blank."""
        return len(self.text) - len(self.text.lstrip(_BLANK))

    @property
    def secret(self) -> bool:
        """Whether it may be a key, however it is cut into words and lines."""
        parts = (self.text, self.text.partition("=")[2])
        return any(_holds_key("".join(part.split())) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What an assignment gave; the default when that is wrong."""

    value: Any
    place: _Place
    wrong: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    name: str
    place: _Place
    given: dict[str, _Given] = field(default_factory=dict)
    """By the option's name."""

    def values(self) -> dict[str, Any]:
        """Of every option, by name."""
        return {
            option.name: self.given[option.name].value
            if option.name in self.given
            else option.initial
            for option in SECTIONS[self.name]
        }

    def wrong(self, name: str) -> bool:
        """Whether an option was given, but with a value that is none."""
        return name in self.given and self.given[name].wrong


class _Reader:
    """What is read out of one file, and what is wrong with it."""

    def __init__(self, source: Path) -> None:
        self.problems: list[Problem] = []
        self.tunnel: _Section | None = None
        self.paths: list[_Section] = []
        self._file = _printable(str(source))
        self._section: _Section | None = None
        """The one that is being read; None: what is read is ignored."""
        self._begun = False
        """Whether there was the header of a section."""

    def read(self, data: bytes) -> None:
        if b"\0" in data:
            place = _Place(line=1, column=1, text="")
            self._error(place, "this is no text, or UTF-16", hint="save the file as UTF-8")
            return
        for statement in _statements(self._decode(data)):
            if len(self.problems) >= MOST_PROBLEMS:
                place = statement.place(statement.first)
                self._error(place, "so much is wrong that nothing is read from here on")
                return
            self._read_statement(statement)
        self._check()

    def _decode(self, data: bytes) -> str:
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            lines = _END_OF_LINE.split(data[: error.start].decode())
            text = data.decode(errors="replace")
            place = _Place(
                line=len(lines),
                column=len(lines[-1]) + 1,
                text=_END_OF_LINE.split(text)[len(lines) - 1],
            )
            self._error(place, "here is a byte that is no UTF-8", hint="save the file as UTF-8")
        return text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")  # a byte order mark

    def _error(self, place: _Place, message: str, *, hint: str = "", warning: bool = False) -> None:
        self.problems.append(
            Problem(
                file=self._file,
                line=place.line,
                column=place.column,
                message=message,
                hint=hint,
                excerpt=_excerpt(place),
                warning=warning,
            )
        )

    def _warn(self, place: _Place, message: str, *, hint: str = "") -> None:
        self._error(place, message, hint=hint, warning=True)

    # Statements.

    def _read_statement(self, statement: _Statement) -> None:
        if statement.text.lstrip(_BLANK).startswith("["):
            self._read_header(statement)
            return
        if self._begun and self._section is None:
            return
        key, equals, rest = statement.text.partition("=")
        place = statement.place(statement.first)
        if not equals:
            self._error(place, "this line is neither a [Section] nor Key=Value")
        elif not key.strip(_BLANK):
            self._error(place, "there is no key before the =")
        elif self._section is None:
            self._error(
                place, "this line is in no section", hint="put the line [Tunnel] or [Path] above it"
            )
            self._begun = True
        else:
            value = rest.strip(_BLANK)
            offset = len(statement.text) - len(rest.lstrip(_BLANK))
            self._read_assignment(self._section, statement, key.strip(_BLANK), value, offset)

    def _read_header(self, statement: _Statement) -> None:
        self._begun = True
        self._section = None
        header = statement.text.strip(_BLANK)
        place = statement.place(statement.first)
        if not header.endswith("]"):
            self._error(place, "the line of a section ends with ]")
            return
        name = header[1:-1]
        if name not in SECTIONS:
            near = nearest(name, SECTIONS)
            self._warn(
                place,
                f"there is no section [{_word(name)}], and all of it is ignored"
                + (f": did you mean [{near}]?" if near else ""),
            )
        elif name == "Tunnel":
            self.tunnel = self.tunnel or _Section(name=name, place=place)
            self._section = self.tunnel
        else:
            self._section = _Section(name=name, place=place)
            self.paths.append(self._section)

    def _read_assignment(
        self, section: _Section, statement: _Statement, key: str, value: str, offset: int
    ) -> None:
        """`offset` is where the value begins in the statement."""
        option = _find(section.name, key)
        if option is None:
            # The value may be another program's secret.
            end = statement.text.index("=") + 1
            place = statement.place(statement.first, end=end)
            self._warn(place, _unknown_key(section.name, key))
            return
        section.given.pop(option.name, None)
        if not value:
            return
        place = statement.place(offset)
        parsed, wrong = option.initial, True
        if place.secret:
            self._error(
                place,
                f"{key}= holds what may be a secret key",
                hint="put it into a file that only root can read, and name that in KeyFile=",
            )
        else:
            try:
                parsed, wrong = option.parse(value), False
            except ValueError as error:
                self._error(place, f"{key}= {quote(value)} {error}", hint=_hint(value))
        section.given[option.name] = _Given(value=parsed, place=place, wrong=wrong)

    # What belongs together.

    def _check(self) -> None:
        if self.tunnel is None:
            place = _Place(line=1, column=1, text="")
            self._error(place, "there is no section [Tunnel]", hint="put in the line [Tunnel]")
        else:
            self._check_tunnel(self.tunnel)
        first: dict[tuple[str, str | None], _Section] = {}
        for path in self.paths:
            self._check_path(path)
            self._check_twice(path, first)
        for section in filter(None, (self.tunnel, *self.paths)):
            self._check_idle(section)

    def _check_tunnel(self, tunnel: _Section) -> None:
        values = tunnel.values()
        if tunnel.wrong("peer"):
            return
        if values["peer"] is not None:
            self._check_family(tunnel, "peer")
            if not self.paths:
                self._warn(
                    tunnel.given["peer"].place,
                    "there is no [Path], so that nothing is sent",
                    hint="add a [Path] with Local= for each link to the Internet",
                )
            return
        if "peer_port" in tunnel.given:
            self._error(
                tunnel.given["peer_port"].place,
                "PeerPort= is of no use without Peer=",
                hint="name the server in Peer=, or leave out PeerPort= if this is the server",
            )
        if self.paths:
            self._error(
                self.paths[0].place,
                "a server takes no [Path], since its clients make its paths",
                hint="name the server in Peer=, or leave out [Path] if this is the server",
            )

    def _check_path(self, path: _Section) -> None:
        values = path.values()
        if "local" not in path.given:
            self._error(
                path.place,
                "this [Path] has no Local=",
                hint="Local= names an interface, a glob of such names, or an address",
            )
        if values["fixed_rate"] and not values["rate_tx"] and not path.wrong("rate_tx"):
            self._error(
                path.given["fixed_rate"].place,
                "Rate=fixed needs a RateTx=",
                hint="say in RateTx= how fast to send, or leave out Rate=",
            )
        self._check_family(path, "peer")
        self._check_family(path, "local")
        self._check_ends(path)

    def _check_family(self, section: _Section, name: str) -> None:
        """That an address can be used with what the tunnel is bound to."""
        given = section.given.get(name)
        if self.tunnel is None or given is None or given.wrong or self.tunnel.wrong("bind"):
            return
        bind = self.tunnel.values()["bind"]
        if not is_numeric(given.value) or bind == "::":
            return
        bound, address = pack_address(bind), pack_address(given.value)
        if is_v4(bound) != is_v4(address):
            self._error(
                given.place,
                f"this is an {_family(address)} address, and Bind={bind} is for "
                f"{_family(bound)} only",
                hint="Bind=:: is for both",
            )
        elif name == "local" and bound not in (address, V4_PREFIX + bytes(4)):
            self._error(
                given.place,
                f"nothing can be sent from here, since the tunnel is bound to {bind} alone",
                hint="Bind=:: is for all addresses",
            )

    def _check_ends(self, path: _Section) -> None:
        """That a path doesn't lead from IPv4 to IPv6."""
        sections = [path, self.tunnel] if self.tunnel else [path]
        peers = [section.given["peer"] for section in sections if "peer" in section.given]
        local = path.given.get("local")
        if local is None or local.wrong or not peers or peers[0].wrong:
            return
        peer = peers[0].value
        if local_kind(local.value) is not LocalKind.ADDRESS or not is_numeric(peer):
            return
        ours, theirs = pack_address(local.value), pack_address(peer)
        if is_v4(ours) != is_v4(theirs):
            self._error(
                local.place,
                f"no path leads from {_family(ours)} to {peer}, which is {_family(theirs)}",
                hint="Peer= of this [Path] may name another address of the server",
            )

    def _check_twice(self, path: _Section, first: dict[tuple[str, str | None], _Section]) -> None:
        """That no other path leads from here to the same server; `first` is who had it first."""
        local = path.given.get("local")
        if local is None or local.wrong or path.wrong("peer"):
            return
        other = first.setdefault((local.value, path.values()["peer"]), path)
        if other is not path:
            self._error(
                local.place,
                f"the [Path] in line {other.place.line} has this Local= too",
                hint="make one [Path] of both, or let each have another Peer=",
            )

    def _check_idle(self, section: _Section) -> None:
        for option in SECTIONS[section.name]:
            given = section.given.get(option.name)
            if option.idle and given and not given.wrong and given.value != option.initial:
                self._warn(given.place, f"{option.key}= has no effect yet")


def _statements(text: str) -> Iterator[_Statement]:
    """Comments left out, and lines joined that end with a backslash."""
    joined = ""
    lines: list[tuple[int, int, str]] = []
    for number, line in enumerate(_END_OF_LINE.split(text), 1):
        # Between lines that are joined, too.
        if line.lstrip(_BLANK).startswith(("#", ";")):
            continue
        lines.append((len(joined), number, line))
        if (len(line) - len(line.rstrip("\\"))) % 2:
            joined += line[:-1] + " "
            continue
        if (joined + line).strip(_BLANK):
            yield _Statement(text=joined + line, lines=tuple(lines))
        joined, lines = "", []
    if joined.strip(_BLANK):
        yield _Statement(text=joined, lines=tuple(lines))


def _find(section: str, key: str) -> Option | None:
    return next((option for option in SECTIONS[section] if option.key == key), None)


def _unknown_key(section: str, key: str) -> str:
    other = next(name for name in SECTIONS if name != section)
    if _find(other, key):
        return f"{key}= belongs to [{other}], and is ignored in [{section}]"
    near = nearest(key, (option.key for option in SECTIONS[section]))
    return f"there is no {_word(key)}= in [{section}], and it is ignored" + (
        f": did you mean {near}=?" if near else ""
    )


def _hint(value: str) -> str:
    """What often went wrong when a value is no value."""
    if re.search(r"[ \t][#;]", value):
        return "a comment needs a line of its own"
    if re.search(r"[ \t][A-Za-z]+=", value):
        return "each Key=Value needs a line of its own"
    if value[0] in "\"'":
        return "a value has no quotes"
    return ""


def _family(address: bytes) -> str:
    return "IPv4" if is_v4(address) else "IPv6"


# What may be shown.


def _holds_key(text: str) -> bool:
    """Whether a key may be in a text without white space, even one with typing errors."""
    if _KEY_RUN.search(text):
        return True
    digits = sum(char in hexdigits for char in text)
    # An IPv6 address has 32 at the most.
    return digits > 32 and digits > 0.6 * len(text)


def _word(word: str) -> str:
    if _holds_key(word):
        return "(a key)"
    return _printable(word if len(word) <= 60 else f"{word[:60]}...")


def _printable(text: str) -> str:
    """As many characters, without those that a terminal would obey."""
    return "".join(char if char.isprintable() else " " if char == "\t" else "?" for char in text)


def _excerpt(place: _Place) -> str:
    """The line, with a caret below the place unless a key was hidden before it."""
    before, after = place.text[: place.column - 1], place.text[place.column - 1 :]
    if place.secret:
        after = "(a key)"
    words = re.split(r"([\s=]+)", before + after)
    line = "".join("(a key)" if _KEY_RUN.search(word) else word for word in words)
    if not line.strip():
        return ""
    if not line.startswith(before):
        return _printable(line[:_WIDTH])
    skipped = max(place.column - _WIDTH // 2, 0)
    shown = _printable(line[skipped : skipped + _WIDTH])
    return f"{shown}\n{' ' * (place.column - 1 - skipped)}^"
