"""Which paths there should be: those of the configuration, on the addresses that links have now."""

from fnmatch import fnmatchcase

from glorytun.config import LocalKind, PathConfig
from glorytun.core.address import Endpoint, PathId, is_v4, pack_address
from glorytun.core.settings import PathSettings

Addresses = dict[str, list[bytes]]
"""Of each interface, 16 bytes each, the preferred ones of a family first."""
Peers = dict[bool, Endpoint]
"""The server's address of each family, IPv4 under True."""


def wanted_paths(
    configs: tuple[PathConfig, ...], addresses: Addresses, peers: Peers, *, own: str
) -> dict[PathId, PathSettings]:
    """The paths and their settings; where two sections mean one path, the first has it.

    An interface gives one path of each family at the most, as the peer has addresses. `own` is
    the tunnel's device, which no glob means.
    """
    wanted: dict[PathId, PathSettings] = {}
    for config in configs:
        for local in _locals(config, addresses, own=own):
            peer = peers.get(is_v4(local))
            if peer is not None:
                wanted.setdefault(PathId(local, peer), config.settings)
    return wanted


def _locals(config: PathConfig, addresses: Addresses, *, own: str) -> list[bytes]:
    """The local addresses that a section stands for now."""
    if config.kind is LocalKind.ADDRESS:
        address = pack_address(config.local)
        return [address] if any(address in found for found in addresses.values()) else []
    return [
        address
        for name, found in sorted(addresses.items())
        if name != own and fnmatchcase(name, config.local)
        for address in _one_of_each_family(found)
    ]


def _one_of_each_family(addresses: list[bytes]) -> list[bytes]:
    by_family = {is_v4(address): address for address in reversed(addresses)}
    return list(by_family.values())
