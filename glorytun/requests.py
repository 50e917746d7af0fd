"""What a running tunnel answers at its control socket."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

from glorytun import __version__
from glorytun.control.messages import (
    Bad,
    DaemonFacts,
    Paths,
    Reload,
    Request,
    Set,
    SetPath,
    Show,
    describe_bad,
    describe_path,
    describe_tunnel,
)
from glorytun.core.address import ANY, Endpoint, PathId, format_address, is_v4
from glorytun.core.settings import PathChange, SettingsChange
from glorytun.core.status import PathStatus
from glorytun.core.tunnel import Tunnel
from glorytun.errors import TunnelError
from glorytun.follower import Follower
from glorytun.meter import Meter
from glorytun.net.clock import Clock
from glorytun.net.tun import Tun
from glorytun.net.udp import UdpSocket


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Answers each request at once; raises TunnelError, or what `reload` does, to refuse it."""

    tunnel: Tunnel
    tun: Tun
    udp: UdpSocket
    clock: Clock
    crowded_out: Callable[[], int]
    overflowed: Callable[[], int]
    follower: Follower | None
    """None on a server."""
    features: Callable[[], dict[str, bool]]
    meter: Meter
    started_at: int
    reload: Callable[[], None]
    change: Callable[[SettingsChange], None]

    def answer(self, request: Request) -> dict[str, Any]:
        """The result, as JSON has it."""
        match request:
            case Show():
                return {"tunnel": self._describe(), "paths": self._describe_paths()}
            case Paths():
                return {"paths": self._describe_paths()}
            case Bad():
                return {"bad": describe_bad(self.tunnel.bad_statuses())}
            case Reload():
                self.reload()
            case SetPath(address=address, change=change):
                self._set_path(address, change)
            case Set(change=change):
                self.change(change)
            case _:
                assert_never(request)
        return {}

    # Describing.

    def _describe(self) -> dict[str, Any]:
        facts = DaemonFacts(
            device=self.tun.name,
            pid=os.getpid(),
            bind=self.udp.bound,
            peer=self._peer(),
            peer_host=self.follower.peer if self.follower else "",
            started_at=self.started_at,
            version=__version__,
            traffic_class=self.udp.traffic_class,
            features=self.features(),
            crowded_out=self.crowded_out(),
            overflowed=self.overflowed(),
            undelivered=self.tun.skipped + self.tun.dropped,
        )
        return describe_tunnel(self.tunnel.status(), settings=self.tunnel.settings, facts=facts)

    def _peer(self) -> Endpoint | None:
        """The server, or the client that was heard last."""
        if self.follower:
            return next(iter(self.follower.addresses.values()), None)
        newest = max(
            self.tunnel.path_statuses(), key=lambda path: path.last_received_at, default=None
        )
        return newest.remote if newest else None

    def _describe_paths(self) -> list[dict[str, Any]]:
        return [
            describe_path(status, quota=self._quota(status))
            for status in self.tunnel.path_statuses()
        ]

    def _quota(self, status: PathStatus) -> dict[str, int] | None:
        path = PathId(status.local, status.remote)
        return self.meter.describe(self.follower.link_of(path)) if self.follower else None

    # Changing.

    def _set_path(self, address: bytes, change: PathChange) -> None:
        """All paths that the address means, or none."""
        now = self.clock.now()
        if self.follower is None:
            for path in self._paths_of_clients(address, change):
                self.tunnel.set_path(path, change, now)
            return
        paths = [path for path in self.tunnel.path_ids() if path.local == address]
        known = dict.fromkeys([*paths, *self.follower.paths_from(address)])
        self.follower.set_by_hand(list(known) or [self._new_path(address)], change, now)

    def _paths_of_clients(self, address: bytes, change: PathChange) -> list[PathId]:
        """A server's, from its own address or to a client's, that can be changed so.

        Raises TunnelError.
        """
        found = [
            path for path in self.tunnel.path_ids() if address in (path.local, path.remote.address)
        ]
        if not found:
            raise TunnelError(
                f"there is no path from or to {format_address(address)}",
                hint="a server's paths are made by its clients; `glorytun path` lists them",
            )
        for path in found:
            self.tunnel.check_path(path, change)
        return found

    def _new_path(self, address: bytes) -> PathId:
        """A client's, to the server that the user named. Raises TunnelError."""
        assert self.follower
        text = format_address(address)
        if address == ANY or not any(address[12:]):
            raise TunnelError(f"{text} is no address that a path can lead from")
        peers = self.follower.addresses
        if not peers:
            raise TunnelError(f"the address of {self.follower.peer} isn't known yet")
        peer = peers.get(is_v4(address))
        if peer is None:
            known = next(iter(peers.values()))
            raise TunnelError(
                f"no path can lead from {text} to {known}",
                hint="one is IPv4 and the other IPv6",
            )
        return PathId(address, peer)
