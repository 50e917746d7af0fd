"""Which paths there should be: those of the configuration, on the addresses that links have now."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from glorytun.config import LocalKind, PathConfig
from glorytun.core.address import Endpoint, PathId, is_v4, pack_address
from glorytun.core.settings import PathSettings

Links = dict[str, list[bytes]]
"""Addresses of each interface, 16 bytes each, the preferred ones of a family first."""
PeerOf = Callable[[str | None], dict[bool, Endpoint]]
"""The server's address of each family, IPv4 under True, for the `Peer=` of a section."""

_SPECIFIC = (LocalKind.ADDRESS, LocalKind.INTERFACE, LocalKind.GLOB)
"""The most specific first."""


class Owner(NamedTuple):
    """What a path stands for, whichever addresses it has just now."""

    interface: str
    v4: bool
    local: str
    """`Local=` of its section."""
    peer: str | None
    """`Peer=` of its section."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A path that should be there."""

    owner: Owner
    settings: PathSettings


def sort_addresses(
    addresses: list[bytes], *, used: Container[bytes], chosen: Container[bytes | None]
) -> list[bytes]:
    """Of an interface: those in use before those the kernel would choose before the others."""
    return sorted(addresses, key=lambda address: (address not in used, address not in chosen))


def wanted_paths(
    configs: tuple[PathConfig, ...], links: Links, peer_of: PeerOf, *, own: str
) -> dict[PathId, Wanted]:
    """The paths, by what makes each one.

    An interface gives one path of each family at the most, as the peer has addresses. It belongs
    to the sections that name it most exactly: by an address of it, by its name, by a glob. `own`
    is the tunnel's device, which no glob means.
    """
    wanted: dict[PathId, Wanted] = {}
    for name, addresses in sorted(links.items()):
        for v4 in (True, False):
            family = [address for address in addresses if is_v4(address) == v4]
            for config in sections_of(name, family, configs, own=own):
                local = _local(config, family)
                peer = peer_of(config.peer).get(v4)
                if local is not None and peer is not None:
                    owner = Owner(name, v4, config.local, config.peer)
                    path = PathId(local, peer)
                    wanted.setdefault(path, Wanted(owner=owner, settings=config.settings))
    return wanted


def sections_of(
    name: str, addresses: list[bytes], configs: tuple[PathConfig, ...], *, own: str
) -> list[PathConfig]:
    """The sections that an interface belongs to, with its addresses of one family."""
    for kind in _SPECIFIC if name != own else ():
        found = [
            config
            for config in configs
            if config.kind is kind and _is_meant(config, name, addresses)
        ]
        if found:
            return found
    return []


def _is_meant(config: PathConfig, name: str, addresses: list[bytes]) -> bool:
    match config.kind:
        case LocalKind.ADDRESS:
            return pack_address(config.local) in addresses
        case LocalKind.INTERFACE:
            return name == config.local
        case LocalKind.GLOB:
            return fnmatchcase(name, config.local)


def _local(config: PathConfig, addresses: list[bytes]) -> bytes | None:
    """From where a section's path leads on an interface, with its addresses of one family."""
    if config.kind is LocalKind.ADDRESS:
        return pack_address(config.local)
    return addresses[0] if addresses else None
