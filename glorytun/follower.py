"""Keeps a client's paths where the file, this host's links and the server's names have them."""

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from glorytun.config import LocalKind, PathConfig, TunnelConfig, is_numeric
from glorytun.core.address import EVERY_ADDRESS, Endpoint, PathId, format_address, is_v4
from glorytun.core.settings import SECOND, PathChange, PathSettings, PathState, with_change
from glorytun.core.status import Condition
from glorytun.core.tunnel import Tunnel
from glorytun.errors import DeviceError, TunnelError
from glorytun.follow import Links, Owner, Wanted, sort_addresses, wanted_paths
from glorytun.net import links
from glorytun.net.links import LinkEvents
from glorytun.net.loop import Loop
from glorytun.net.names import Answer, Resolver
from glorytun.net.udp import UdpSocket
from glorytun.peers import Addresses, Peers
from glorytun.report import fields

SETTLE = SECOND // 20
"""Changes of links come in bursts: after a look the next one waits so long."""

_FAILED = (Condition.DEGRADED, Condition.DOWN)

log = logging.getLogger("glorytun")


class Follower:
    """Makes, moves and ends paths. A server needs none: its paths are its clients'."""

    def __init__(
        self,
        *,
        tunnel: Tunnel,
        udp: UdpSocket,
        loop: Loop,
        own: str,
        peer: str,
        port: int,
        stack: ExitStack,
    ) -> None:
        """`own` is the tunnel's device, `peer` the server's name or address."""
        self._tunnel = tunnel
        self._udp = udp
        self._loop = loop
        # By index: it may be renamed.
        self._own = links.interface_index(own)
        self._stack = stack
        self.peer = peer
        """The server, as the user named it."""
        self._peers = Peers([peer], port)
        self._before: Addresses = {}
        """Of the server that the file named before, while those of its new one aren't known."""
        self._resolver = Resolver(v4=udp.v4, v6=udp.v6)
        stack.callback(self._resolver.close)
        loop.add_reader(self._resolver.fileno(), self._on_answers)
        self._configs: tuple[PathConfig, ...] = ()
        self._links: Links = {}
        self._wanted: dict[PathId, Wanted] = {}
        self._made: dict[PathId, Owner] = {}
        """The paths that are there because of the file; all others were made by hand."""
        self._changes: dict[Owner, dict[str, Any]] = {}
        """What was set by hand on paths of the file, which they keep while their link is away."""
        self._refused: set[PathId] = set()
        self._events: LinkEvents | None = None
        self._links_changed = False
        self._look_at: int | None = None
        self._looked_at = 0
        self._answers: list[Answer] = []
        self.due_at: int | None = 0
        """When `on_time` is to be called, µs since the epoch; None: nothing is to come."""

    @property
    def addresses(self) -> Addresses:
        """The server's addresses that are in use."""
        return self._peers.get(self.peer)

    @property
    def trouble(self) -> str:
        """Why the server's address isn't known; empty when it is."""
        return "" if self.addresses else self._peers.error(self.peer)

    @property
    def missing(self) -> int:
        """The sections of the file that ought to have a path, and have none now.

        A glob needs none: it is for what may come.
        """
        there = {(owner.local, owner.peer) for owner in self._made.values()}
        return sum(
            (config.local, config.peer) not in there
            for config in self._configs
            if config.settings.state != PathState.DOWN and config.kind is not LocalKind.GLOB
        )

    # The file.

    def take(self, tunnel: TunnelConfig, configs: tuple[PathConfig, ...], now: int) -> None:
        """Let the paths be those of a file: the first, or one that was read again.

        Paths that stay get the settings of the file; those made by hand stay as they are.
        """
        if self._events is None:
            self._watch_links()
        assert tunnel.peer is not None
        self._before = self.addresses
        self.peer = tunnel.peer
        self._configs = configs
        hosts = {tunnel.peer, *(config.peer for config in configs if config.peer is not None)}
        self._peers.change(sorted(hosts), tunnel.peer_port)
        self._changes.clear()
        self._refused.clear()
        self._ask(now)
        self._look(now)
        self._follow(now, is_new=True)
        self.reschedule(now)

    def _watch_links(self) -> None:
        self._events = events = LinkEvents()
        self._stack.callback(events.close)

        def on_change() -> None:
            events.drain()
            self._links_changed = True
            self.due_at = 0

        self._loop.add_reader(events.fileno(), on_change)

    def link_of(self, path: PathId) -> str | None:
        """`Local=` of the section that a path belongs to."""
        owner = self._made.get(path)
        return owner.local if owner else None

    # By hand.

    def learn(self, found: Iterable[Endpoint], now: int) -> None:
        """Take the server's addresses, best first, from who has resolved its name already."""
        self._peers.learn(self.peer, found, now)

    def paths_from(self, local: bytes) -> list[PathId]:
        """Those that the file means, also while they are set down."""
        return [path for path in self._wanted if path.local == local]

    def set_by_hand(self, paths: Iterable[PathId], change: PathChange, now: int) -> None:
        """Make or change paths as the user wants them, all or none. Raises TunnelError."""
        values = {name: value for name, value in asdict(change).items() if value is not None}
        whole = {path: self._whole(path, values) for path in paths}
        made = [path for path in whole if self._is_for_now(path, whole[path])]
        for path, found in whole.items():
            if path in made:
                self._tunnel.check_path(path, found)
            else:
                with_change(PathSettings(), found)
        for path in made:
            self._tunnel.set_path(path, whole[path], now)
        for path in whole.keys() & self._wanted.keys():
            owner = self._wanted[path].owner
            self._changes[owner] = self._changes.get(owner, {}) | values
            if path in made:
                self._made[path] = owner

    def _whole(self, path: PathId, values: dict[str, Any]) -> PathChange:
        """What is changed, besides what the file says and what was changed before."""
        wanted = self._wanted.get(path)
        if wanted is None:
            return PathChange(**values)
        former = self._changes.get(wanted.owner, {})
        return PathChange(**asdict(wanted.settings) | former | values)

    def _is_for_now(self, path: PathId, change: PathChange) -> bool:
        """Not for a path of the file's that isn't there, and stays so."""
        is_kept_down = path in self._wanted and change.state == PathState.DOWN
        return not is_kept_down or path in self._tunnel.path_ids()

    # Following.

    def reschedule(self, now: int) -> None:
        """Find out anew when something is due: the conditions of paths have changed."""
        ask_at = self._peers.next_at(now, self._failing())
        times = [at for at in (self._look_at, ask_at) if at is not None]
        self.due_at = min(times, default=None)

    def on_time(self, now: int) -> None:
        """Do what is due."""
        if self._links_changed:
            self._links_changed = False
            self._look_at = max(now, self._looked_at + SETTLE)
        if self._answers:
            self._learn(now)
        if self._look_at is not None and now >= self._look_at and self._look(now):
            self._peers.hurry()
            self._follow(now)
        self._ask(now)
        self.reschedule(now)

    def _look(self, now: int) -> bool:
        """Take the addresses that links have now; whether they are others."""
        self._look_at = None
        self._looked_at = now
        try:
            found = links.local_addresses()
        except DeviceError as error:
            log.warning("%s", error)
            self._look_at = now + SECOND
            return False
        bound = self._udp.bound.address
        if bound not in EVERY_ADDRESS:
            found = {name: [bound] if bound in owned else [] for name, owned in found.items()}
        before, self._links = self._links, found
        return found != before

    def _follow(self, now: int, *, is_new: bool = False) -> None:
        """Make and end paths, so that they are the wanted ones.

        With a new file the paths that stay get its settings; else they keep what a user set.
        """
        there = set(self._tunnel.path_ids())
        found = {name: self._sort(name, addresses) for name, addresses in self._links.items()}
        own = links.interface_name(self._own)
        self._wanted = wanted_paths(self._configs, found, self._peer_of, own=own)
        self._bind_to_interfaces()
        for path in (self._made.keys() & there) - self._wanted.keys():
            self._tunnel.remove_path(path, self._why_gone(path, is_new=is_new), now)
        self._made = {path: owner for path, owner in self._made.items() if path in self._wanted}
        for path, wanted in self._wanted.items():
            is_moved = self._made.get(path, wanted.owner) != wanted.owner
            if is_new or is_moved or path not in there:
                self._set(path, wanted, now, is_there=path in there)

    def _sort(self, interface: str, addresses: list[bytes]) -> list[bytes]:
        """The addresses of an interface, the best first."""
        used = {path.local for path in self._made}
        chosen = {
            links.source_address(peer, interface=interface) for peer in self._peer_of(None).values()
        }
        return sort_addresses(addresses, used=used, chosen=chosen)

    def _bind_to_interfaces(self) -> None:
        """Let what is sent from an address leave by the interface that has it."""
        names = {address: name for name, owned in self._links.items() for address in owned}
        # Two interfaces may have one address: that counts which the file means.
        names |= {path.local: wanted.owner.interface for path, wanted in self._wanted.items()}
        self._udp.set_interfaces(
            {address: links.interface_index(name) for address, name in names.items()},
            unsourced={
                path
                for path, wanted in self._wanted.items()
                if not is_v4(path.local)
                and links.source_address(path.remote, interface=wanted.owner.interface)
                == path.local
            },
        )

    def _why_gone(self, path: PathId, *, is_new: bool) -> str:
        if not any(path.local in addresses for addresses in self._links.values()):
            return "its address is gone"
        return "the file no longer has it" if is_new else "another path takes its place"

    def _set(self, path: PathId, wanted: Wanted, now: int, *, is_there: bool) -> None:
        values = asdict(wanted.settings) | self._changes.get(wanted.owner, {})
        if values["state"] == PathState.DOWN and not is_there:
            return  # The core has no path that was never up.
        try:
            self._tunnel.set_path(path, PathChange(**values), now)
        except TunnelError as error:
            if path not in self._refused:
                self._refused.add(path)
                log.warning("path %s can't be made: %s", path, error, extra=fields("path_refused"))
            return
        self._made[path] = wanted.owner

    def _peer_of(self, host: str | None) -> Addresses:
        if host is None:
            return self.addresses or self._before
        return self._peers.get(host)

    # Names.

    def _failing(self) -> set[Endpoint]:
        """The server's addresses to which there are paths, and none that gets an answer."""
        tried, heard = set(), set()
        for path in self._tunnel.path_statuses():
            if path.settings.state != PathState.DOWN:
                tried.add(path.remote)
                if path.condition not in _FAILED:
                    heard.add(path.remote)
        return tried - heard

    def _ask(self, now: int) -> None:
        for host in self._peers.due(now, self._failing()):
            if is_numeric(host):
                # Nobody has to be asked, so that the answer is there at once.
                self._answers.append(self._resolver.find(host))
                self._learn(now)
            else:
                self._resolver.ask(host)

    def _on_answers(self) -> None:
        self._answers += self._resolver.answers()
        self.due_at = 0

    def _learn(self, now: int) -> None:
        failing = self._failing()
        for answer in self._answers:
            self._take_answer(answer, failing, now)
        self._answers.clear()

    def _take_answer(self, answer: Answer, failing: set[Endpoint], now: int) -> None:
        if answer.error:
            if self._peers.fail(answer.host, answer.error, now, failing=failing):
                host = fields("name_failed", peer_host=answer.host)
                log.warning("%s", answer.error, extra=host)
            return
        before = self._peers.get(answer.host)
        if not self._peers.learn(answer.host, answer.found, now, failing=failing):
            return
        after = self._peers.get(answer.host)
        if not is_numeric(answer.host):
            texts = (format_address(endpoint.address) for endpoint in after.values())
            host = fields("name_resolved", peer_host=answer.host)
            log.info("%s is %s", answer.host, " and ".join(texts), extra=host)
        for v4, endpoint in before.items():
            if after.get(v4) != endpoint:
                self._move_by_hand(endpoint, after.get(v4), now)
        self._follow(now)

    def _move_by_hand(self, old: Endpoint, new: Endpoint | None, now: int) -> None:
        """Let paths that no section means follow the server to another address."""
        for path in self._tunnel.path_statuses():
            there = PathId(path.local, path.remote)
            if path.remote == old and there not in self._made and new is not None:
                self._tunnel.remove_path(there, "the server has another address", now)
                change = PathChange(**asdict(path.settings))
                if path.settings.state != PathState.DOWN:
                    self._tunnel.set_path(PathId(path.local, new), change, now)
