"""What a configuration meets on this host, found out in the way the daemon does it."""

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from glorytun.config import PathConfig
from glorytun.configfile import Configuration, key_path
from glorytun.core.address import (
    EVERY_ADDRESS,
    Endpoint,
    PathId,
    format_address,
    is_v4,
    pack_address,
)
from glorytun.errors import KeyFileError, ResolveError
from glorytun.follow import Links, sections_of, sort_addresses, wanted_paths
from glorytun.keyfile import load_key

_SERVICE_USER = "glorytun"
_HIDDEN = ("/home/", "/root/", "/run/user/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """What may keep packets away, or can't be known now."""

    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPath:
    """A path that would be made now."""

    interface: str
    id: PathId
    has_route: bool
    """Whether what is sent can get to the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSection:
    """What a [Path] means now."""

    interfaces: dict[str, list[str]]
    """Those that its `Local=` means, with the addresses from which a path can lead."""
    paths: list[FoundPath]
    unused: dict[str, str]
    """Those of the interfaces over which it makes no path, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All of it."""

    key_file: str
    key_problem: KeyFileError | None
    addresses: dict[str, list[str]]
    """Of each peer that was resolved."""
    unresolved: dict[str, ResolveError]
    """Why a peer was not."""
    sections: tuple[FoundSection, ...]
    """One for each [Path]."""
    warnings: tuple[Warned, ...]

    @property
    def key_unreadable(self) -> bool:
        """Whether whoever runs the check may not read the key, which the service may."""
        return _is_unreadable(self.key_problem)

    @property
    def usable(self) -> bool:
        """Whether the tunnel would start."""
        return self.key_problem is None or self.key_unreadable


def find(configuration: Configuration, name: str) -> Findings:
    """Look at the host as it is now; `name` is that of the tunnel. Raises DeviceError."""
    key_file = key_path(configuration.tunnel, name)
    key_problem = _key_problem(key_file)
    peers, unresolved = _resolve_peers(configuration)
    warnings = [Warned(message=error.args[0], hint=error.hint) for error in unresolved.values()]
    if key_problem and _is_unreadable(key_problem):
        warnings.append(Warned(message=f"{key_problem.args[0]}, so that it was not checked"))
    if configuration.tunnel.keyfile is not None and key_problem is None:
        warnings += _what_the_service_cannot_read(configuration.tunnel.keyfile)
    sections: tuple[FoundSection, ...] = ()
    if configuration.paths:
        links = _Links(configuration, peers, own=name)
        sections = tuple(map(links.section, configuration.paths))
        warnings += links.warnings
    return Findings(
        key_file=key_file,
        key_problem=key_problem,
        addresses={
            host: [format_address(endpoint.address) for endpoint in found]
            for host, found in peers.items()
        },
        unresolved=unresolved,
        sections=sections,
        warnings=tuple(warnings),
    )


def _key_problem(key_file: str) -> KeyFileError | None:
    try:
        load_key(key_file)
    except KeyFileError as error:
        return error
    return None


def _is_unreadable(key_problem: KeyFileError | None) -> bool:
    return key_problem is not None and isinstance(key_problem.__cause__, PermissionError)


def _what_the_service_cannot_read(key_file: str) -> Iterator[Warned]:
    """A key file of the user's that is good for us, though not for the service."""
    hint = "leave out KeyFile=: systemd hands /etc/glorytun/NAME.key to the service"
    if key_file.startswith(_HIDDEN):
        yield Warned(message=f"the service doesn't see {key_file} (ProtectHome=)", hint=hint)
        return
    with suppress(KeyError, OSError):
        if os.stat(key_file).st_uid != pwd.getpwnam(_SERVICE_USER).pw_uid:
            message = f"the service runs as {_SERVICE_USER}, to whom {key_file} doesn't belong"
            yield Warned(message=message, hint=hint)


def _resolve_peers(
    configuration: Configuration,
) -> tuple[dict[str, list[Endpoint]], dict[str, ResolveError]]:
    """The addresses of each host that is named as a peer, best first, or why there are none."""
    from glorytun.net.names import resolve  # needed only for clients

    tunnel = configuration.tunnel
    only_v4 = is_v4(pack_address(tunnel.bind))
    found, unresolved = {}, {}
    for peer in dict.fromkeys((tunnel.peer, *(path.peer for path in configuration.paths))):
        if peer is None:
            continue
        v4 = only_v4 or tunnel.bind == "::"
        try:
            found[peer] = resolve(peer, tunnel.peer_port, v4=v4, v6=not only_v4)
        except ResolveError as error:
            unresolved[peer] = error
    return found, unresolved


class _Links:
    """The links of this host, and which sections make which paths over them."""

    def __init__(
        self, configuration: Configuration, peers: dict[str, list[Endpoint]], *, own: str
    ) -> None:
        from glorytun.net import links

        self._own = own
        self._tunnel = configuration.tunnel
        self._configs = configuration.paths
        self._peers = {
            host: {is_v4(endpoint.address): endpoint for endpoint in reversed(found)}
            for host, found in peers.items()
        }
        self._away = links.interfaces_away()
        self._links: Links = {}
        for name, addresses in links.local_addresses().items():
            server = self._peer_of(None).values()
            chosen = {links.source_address(endpoint, interface=name) for endpoint in server}
            self._links[name] = sort_addresses(addresses, used=(), chosen=chosen)
        self._wanted = wanted_paths(self._configs, self._links, self._peer_of, own=own)
        self.warnings: list[Warned] = []
        """Of the sections that were asked for."""

    def section(self, config: PathConfig) -> FoundSection:
        """What a section means."""
        paths = [
            self._found_path(path, wanted.owner.interface)
            for path, wanted in self._wanted.items()
            if (wanted.owner.local, wanted.owner.peer) == (config.local, config.peer)
        ]
        interfaces = {
            name: [format_address(address) for address in self._links.get(name, [])]
            for name in (*self._links, *self._away)
            if self._is_meant(name, config)
        }
        unused = interfaces.keys() - {path.interface for path in paths}
        return FoundSection(
            interfaces=interfaces,
            paths=paths,
            unused={name: self._why_unused(name, config) for name in interfaces if name in unused},
        )

    def _peer_of(self, host: str | None) -> dict[bool, Endpoint]:
        return self._peers.get(host or self._tunnel.peer or "", {})

    def _is_meant(self, name: str, config: PathConfig) -> bool:
        if name in ("lo", self._own):
            return name == config.local
        return bool(sections_of(name, self._links.get(name, []), (config,), own=self._own))

    def _why_unused(self, name: str, config: PathConfig) -> str:
        if name == self._own:
            return "it is the tunnel's own device"
        if name in self._away:
            return self._away[name]
        addresses = self._links[name]
        if not addresses:
            return "it has no address"
        peers = self._peer_of(config.peer)
        if not peers:
            return "the address of the server is not known"
        for v4 in peers:
            family = [address for address in addresses if is_v4(address) == v4]
            owners = sections_of(name, family, self._configs, own=self._own)
            if family and config not in owners:
                return f"it belongs to the [Path] with Local={owners[0].local}"
            if family:
                return "another [Path] makes the same path"
        return f"it has no {'IPv4' if True in peers else 'IPv6'} address, and the server no other"

    def _found_path(self, path: PathId, interface: str) -> FoundPath:
        """With a warning when no packets would come through."""
        from glorytun.net.routes import drops_answers, has_route

        bind = pack_address(self._tunnel.bind)
        found = has_route(path, interface, mark=self._tunnel.firewall_mark)
        server, local = format_address(path.remote.address), format_address(path.local)
        if bind not in (path.local, *EVERY_ADDRESS):
            self._warn(
                f"nothing can be received at {local}, since the tunnel is bound to "
                f"{self._tunnel.bind} alone",
                hint="Bind=:: is for all addresses",
            )
        elif not found:
            self._warn(
                f"there is no route to {server} over {interface}, so that nothing gets there "
                f"from {local}",
                hint=f"a default route over {interface} is enough, also with a high metric",
            )
        elif drops_answers(path, interface):
            self._warn(
                f"what {server} sends to {local} is dropped, since the route back leads over "
                f"another interface than {interface} (rp_filter)",
                hint=f"`sysctl net/ipv4/conf/{interface}/rp_filter=2` mends it",
            )
        return FoundPath(interface=interface, id=path, has_route=found)

    def _warn(self, message: str, *, hint: str) -> None:
        self.warnings.append(Warned(message=message, hint=hint))
