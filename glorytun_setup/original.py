"""Configurations of the original glorytun, to be taken over: /etc/glorytun/NAME/env and key."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from glorytun.config import DEFAULT_PORT
from glorytun.errors import SetupError
from glorytun_setup.model import Role

DIRECTORY = Path("/etc/glorytun")
_ALL_ADDRESSES = ("0.0.0.0", "::")
_ASSIGNMENT = re.compile(r"\s*([A-Z_]+)=[\"']?([^\"'\s]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """One of them."""

    name: str
    server: str
    """Empty: it is a server."""
    port: str
    """The server's."""
    key_file: Path
    lost: tuple[str, ...] = ()
    """What it has and is not taken over, in words."""

    @property
    def answers(self) -> Mapping[str, str]:
        """What it answers, by the question's name, but for the key."""
        role = Role.CLIENT if self.server else Role.SERVER
        server = {"server": self.server} if self.server else {}
        return {"role": role, "name": self.name, "port": self.port, **server}

    def __str__(self) -> str:
        role = f"a client of {self.server}" if self.server else "a server"
        return f"{self.name}, {role}, port {self.port}, from {self.key_file.parent}"


def find_originals(directory: Path = DIRECTORY) -> list[Original]:
    """Those that have not been taken over."""
    found = []
    for file in sorted(directory.glob("*/env")):
        name = file.parent.name
        if file.with_name("key").is_file() and not (directory / f"{name}.conf").exists():
            found.append(_read(name, file))
    return found


def find_original(name: str, directory: Path = DIRECTORY) -> Original:
    """The one of a name. Raises SetupError."""
    for original in find_originals(directory):
        if original.name == name:
            return original
    raise SetupError(
        f"there is no configuration {name!r} of the original glorytun to take over",
        hint=f"it would be {directory}/{name}/env and key, with no {directory}/{name}.conf",
    )


def _read(name: str, file: Path) -> Original:
    """As its unit reads it (systemd.exec(5), EnvironmentFile=)."""
    try:
        text = file.read_text(errors="replace")
    except OSError as error:
        raise SetupError(f"{file} can't be read: {error.strerror}") from error
    matches = filter(None, map(_ASSIGNMENT.match, text.splitlines()))
    values = {match[1]: match[2] for match in matches}
    server = values.get("HOST", "")
    port = values.get("PORT" if server else "BIND_PORT", "")
    return Original(
        name=name,
        server=server,
        port=port or str(DEFAULT_PORT),
        key_file=file.with_name("key"),
        lost=tuple(_lost(name, file, values)),
    )


def _lost(name: str, file: Path, values: Mapping[str, str]) -> Iterator[str]:
    device, local = values.get("DEV", ""), values.get("BIND", "")
    if device and device != name:
        yield f"the device is {name} and not {device} any more: change what names it, as firewalls"
    if local and local not in _ALL_ADDRESSES:
        yield f"BIND={local} in {file} is not taken over: Bind= in {name}.conf says the same"
    if file.with_name("post.sh").exists():
        yield f"{file.with_name('post.sh')} is not run any more: look for what is still needed"
