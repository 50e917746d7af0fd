"""A tunnel over emulated links: who speaks on either side, and what its paths are told."""

from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.bench.paths.loads import Action, Flow, Pings, Seen, load
from tests.emulator.model import Profile
from tests.netns.topology import CLIENT, SERVER, Lab
from tests.netns.traffic import Stream
from tests.netns.tunnel import Daemon, Pair, Peer, Tunnel, Tunnels, inside
from tests.netns.wait import wait_for
from tests.wan import Wan

SHARE = 0.909
"""Of a link's rate that TCP inside the tunnel can get at MTU 1500: 1398 of 1538 bytes."""
CEILING = 100
"""Mbit/s given to a 0.3.4 that is to find a rate: without one it sends nothing."""

_WORKS = ("running", "waiting")
KINDS: dict[str, type[Daemon]] = {"ours": Tunnel, "0.3.4": Peer}


@dataclass(frozen=True, slots=True)
class Players:
    """Who sends the load, and who receives it."""

    sender: str
    receiver: str

    def __str__(self) -> str:
        if self.sender == self.receiver:
            return self.sender
        return f"{self.sender} to {self.receiver}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run is made."""

    congestion: str
    """How TCP inside finds its rate."""
    qdisc: str
    """Of the TUN devices; empty: the kernel's default."""
    reorder: str = ""
    """How long we may hold what is received to put it in order; empty: as it is by itself."""


def achievable(*rates: float) -> float:
    """Mbit/s of TCP payload."""
    return sum(rates) * SHARE


def wait_working(daemon: Daemon, count: int) -> None:
    """Wait until so many paths work: one that would hurt waits, and isn't running."""
    wait_for(
        lambda: sum(path.condition in _WORKS for path in daemon.paths()) >= count,
        timeout=20,
        what=f"{count} paths of the {daemon.role} that work",
    )


class Scene:
    """One tunnel; `up` says which side sends the load."""

    def __init__(
        self,
        players: Players,
        *profiles: Profile,
        up: bool,
        is_auto: bool,
        options: Options,
        words: tuple[str, ...] = (),
        seed: int = 1,
    ) -> None:
        self.up = up
        self.late = 0.0
        """% of the frames that the emulator let leave too late, once it has ended: the host had
        other work."""
        self._options = options
        self._stack = ExitStack()
        try:
            lab = self._stack.enter_context(Lab())
            self.wan = self._stack.enter_context(Wan(lab, *profiles, seed=seed))
            tunnels = self._stack.enter_context(Tunnels())
            self.pair = self._join(tunnels, players, profiles, is_auto=is_auto, words=words)
        except BaseException:
            self._stack.close()
            raise

    def _join(
        self,
        tunnels: Tunnels,
        players: Players,
        profiles: tuple[Profile, ...],
        *,
        is_auto: bool,
        words: tuple[str, ...],
    ) -> Pair[Daemon, Daemon]:
        sender, receiver = KINDS[players.sender], KINDS[players.receiver]
        kinds = (sender, receiver) if self.up else (receiver, sender)
        topology = self.wan.topology
        pair = tunnels.join(topology, kinds[0], kinds[1], links=0)
        for number, profile in enumerate(profiles, 1):
            rate = self._rate(kinds[0], profile, is_auto=is_auto)
            pair.client.path(topology.client_address(number), "up", *rate, *words)
        for daemon in (pair.client, pair.server):
            wait_working(daemon, len(profiles))
        pair.wait_mtu(min(profile.mtu for profile in profiles) - 50, timeout=20)
        for daemon in (pair.client, pair.server) if self._options.qdisc else ():
            qdisc = ("tc", "qdisc", "replace", "dev", daemon.dev, "root", self._options.qdisc)
            daemon.host.run(*qdisc)
        for daemon in (pair.client, pair.server) if self._options.reorder else ():
            if isinstance(daemon, Tunnel):
                daemon.command("set", "reorder", self._options.reorder)
        wait_for(pair.answers, timeout=10, what="a ping through the tunnel")
        return pair

    def _rate(self, client: type[Daemon], profile: Profile, *, is_auto: bool) -> tuple[str, ...]:
        if not is_auto:
            rate = f"{profile.rate:g}mbit"
            return ("rate", "fixed", "tx", rate, "rx", rate)
        if client is Peer:
            return ("rate", "auto", "tx", f"{CEILING}mbit", "rx", f"{CEILING}mbit")
        return ("rate", "auto")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None:
                counters = [one for link in self.wan.counters() for one in link]
                late, sent = sum(one.late for one in counters), sum(one.sent for one in counters)
                self.late = 100 * late / max(sent, 1)

    def flow(self, seconds: float, *actions: Action) -> Seen:
        """One flow of TCP with pings beside it."""
        client, server = self.pair.client.host, self.pair.server.host
        to = inside(4, SERVER if self.up else CLIENT)
        source, target = (client, server) if self.up else (server, client)
        flow = Flow(source, target, to, congestion=self._options.congestion)
        return load(self.wan, flow, Pings(source, to), seconds=seconds, actions=actions)

    def change_path(self, number: int, *words: str) -> None:
        """Tell the client's path over a link something more."""
        address = self.wan.topology.client_address(number)
        self.pair.client.path(address, "up", *words)
        for daemon in (self.pair.client, self.pair.server):
            wait_working(daemon, len(self.wan.links))

    def stream(self) -> Stream:
        """100 packets/s."""
        return self.pair.stream(up=self.up, rate=100)

    def says(self) -> str:
        """What both sides print of their paths."""
        return "".join(
            f"{daemon.role}:\n{daemon.glorytun('path', 'dev', daemon.dev).stdout}"
            for daemon in (self.pair.client, self.pair.server)
        )
