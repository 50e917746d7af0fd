"""Ours and glorytun 0.3.4, in both roles."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.emulator.model import Profile
from tests.netns.topology import FAMILIES, SERVER, Family, Lab, Link, Topology, direct, routed
from tests.netns.traffic import Stream
from tests.netns.tunnel import Daemon, Pair, Peer, Role, Tunnel, Tunnels, inside
from tests.netns.wait import wait_for
from tests.wan import DIRECTIONS, EmulatedLink, Wan

pytestmark = pytest.mark.interop

GONE = 1.0
"""Seconds after which neither sends to a path that was set down."""
RECOVERED = 5.0
"""Seconds after which traffic flows again when a path or a side comes back."""

UNUSED = 5000
"""Bytes of frames in half a second: beats have some 3000, datagrams of a stream ten times more."""

ROLES: tuple[Role, Role] = ("client", "server")
both_roles = pytest.mark.parametrize("role", ROLES, ids=lambda role: f"our-{role}")
both_families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"IPv{family}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """A tunnel between ours and 0.3.4."""

    topology: Topology
    pair: Pair[Daemon, Daemon]
    ours: Tunnel
    peer: Peer


def join(
    tunnels: Tunnels,
    topology: Topology,
    role: Role,
    *,
    family: Family = 4,
    links: int = 1,
    our_words: tuple[str, ...] = (),
    peer_words: tuple[str, ...] = (),
) -> Mixed:
    """Start both, ours in that role; the words are for ``glorytun bind``."""
    ours_is_client = role == "client"
    client: type[Daemon] = Tunnel if ours_is_client else Peer
    server: type[Daemon] = Peer if ours_is_client else Tunnel
    pair = tunnels.join(
        topology,
        client,
        server,
        family=family,
        links=links,
        client_options={"words": our_words if ours_is_client else peer_words},
        server_options={"words": peer_words if ours_is_client else our_words},
    )
    ours, peer = pair.client, pair.server
    if not ours_is_client:
        ours, peer = peer, ours
    assert isinstance(ours, Tunnel)
    assert isinstance(peer, Peer)
    return Mixed(topology=topology, pair=pair, ours=ours, peer=peer)


@pytest.fixture(scope="module", params=ROLES, ids=lambda role: f"our-{role}")
def role(request: pytest.FixtureRequest) -> Role:
    """The role of ours."""
    found: Role = request.param
    return found


@pytest.fixture(scope="module", params=["aegis", "our-chacha", "peer-chacha"])
def choice(request: pytest.FixtureRequest) -> str:
    """Who insists on ChaCha20, if anyone."""
    return str(request.param)


@pytest.fixture(scope="module")
def mixed(role: Role, choice: str) -> Iterator[Mixed]:
    """A tunnel over one link."""
    with Lab() as lab, Tunnels() as tunnels:
        mixed = join(
            tunnels,
            direct(lab),
            role,
            our_words=("chacha",) if choice == "our-chacha" else (),
            peer_words=("chacha",) if choice == "peer-chacha" else (),
        )
        mixed.pair.wait_running()
        yield mixed


def test_cipher(mixed: Mixed, choice: str) -> None:
    """Data is under AEGIS-256 when both want it, else under ChaCha20-Poly1305."""
    expected = "aegis256" if choice == "aegis" else "chacha20poly1305"
    assert mixed.ours.cipher() == expected


@both_families
def test_ping(mixed: Mixed, family: Family) -> None:
    """Every ping comes back, and so do those that fill the MTU."""
    mixed.pair.ping(family, count=10, interval=0.02)
    assert mixed.ours.mtu() == mixed.peer.mtu() == 1450
    size = str(1450 - (28 if family == 4 else 48))
    to = inside(family, SERVER)
    assert mixed.pair.client.host.ping(to, "-M", "do", "-s", size).received == 3


@both_families
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_tcp(mixed: Mixed, family: Family, *, up: bool) -> None:
    """TCP carries the same bytes to the other end, in either direction."""
    mixed.pair.transfer(family, up=up)


def test_nothing_dropped(mixed: Mixed) -> None:
    """Nothing that either sends is strange to the other."""
    assert not any(mixed.ours.bad(kind)["count"] for kind in ("decrypt", "keyx", "size"))
    assert mixed.peer.command("show", "bad") == ""


@both_roles
@pytest.mark.parametrize("word", ["aegis", "chacha"])
def test_rotation_loses_nothing(lab: Lab, tunnels: Tunnels, role: Role, word: str) -> None:
    """Keys change every two seconds under a ping of which nothing is lost."""
    mixed = join(tunnels, direct(lab), role, our_words=(word,))
    for daemon in (mixed.ours, mixed.peer):
        daemon.command("set", "kxtimeout", "2s")
    mixed.pair.wait_running()
    first = mixed.ours.show()["keys_exchanged_at"]
    mixed.pair.ping(count=120, interval=0.04)
    assert mixed.ours.show()["keys_exchanged_at"] - first > 3
    assert not mixed.ours.bad("decrypt")["count"]


@both_roles
def test_over_ipv6(lab: Lab, tunnels: Tunnels, role: Role) -> None:
    """The tunnel works over IPv6 too."""
    mixed = join(tunnels, direct(lab), role, family=6)
    mixed.pair.wait_mtu(1430, timeout=20)
    mixed.pair.wait_running()
    for family in FAMILIES:
        mixed.pair.ping(family)
        mixed.pair.transfer(family)


@both_roles
@both_families
def test_link_mtu_1400(lab: Lab, tunnels: Tunnels, role: Role, family: Family) -> None:
    """Both find the MTU behind a router that drops what is too big and says nothing."""
    mixed = join(tunnels, routed(lab, mtu=1400), role, family=family)
    expected = 1350 if family == 4 else 1330
    mixed.pair.wait_mtu(expected)
    mixed.pair.wait_running()
    to, size = inside(4, SERVER), str(expected - 28)
    assert mixed.pair.client.host.ping(to, "-M", "do", "-s", size).received == 3
    mixed.pair.transfer()


@both_roles
def test_backup(lab: Lab, tunnels: Tunnels, role: Role) -> None:
    """A backup path carries data only while the other link is cut."""
    mixed = join(tunnels, direct(lab, links=2), role, links=2)
    mixed.pair.client.path(mixed.topology.client_address(2), "backup")
    mixed.pair.wait_running(1)
    first, second = mixed.topology.links
    with (
        mixed.pair.stream(rate=250, size=1000) as up,
        mixed.pair.stream(up=False, rate=250, size=1000) as down,
    ):
        up.flow(100)
        down.flow(100)
        assert _uses(up, first, second)
        first.cut()
        up.flow(100)
        down.flow(100)
        assert _uses(up, second, first)
        first.mend()
        wait_for(lambda: _uses(up, first, second), timeout=RECOVERED, what="the first link")
        down.flow(100)


def _uses(stream: Stream, used: Link, unused: Link) -> bool:
    """Whether the next datagrams go over one link and not over the other."""
    before = used.carried(), unused.carried()
    stream.flow(50)
    return used.carried() - before[0] > 40_000 and unused.carried() - before[1] < 25_000


@both_roles
def test_down_and_up_again(lab: Lab, tunnels: Tunnels, role: Role) -> None:
    """A path that is set down is left by both sides; set up seconds later, it works at once."""
    mixed = join(tunnels, direct(lab, links=2), role, links=2)
    mixed.pair.wait_running(2)
    first, second = (mixed.topology.client_address(link) for link in (1, 2))
    _set_down(mixed, second)
    mixed.pair.client.path(second, "up")
    mixed.pair.wait_running(2, timeout=RECOVERED)
    mixed.pair.transfer()
    if role == "client":
        # A 0.3.4 client sends all data to a path that it set down, unless it is the last one.
        _set_down(mixed, first)


def _set_down(mixed: Mixed, address: str) -> None:
    """Set one of two paths down under traffic: soon nothing is lost any more."""
    with mixed.pair.stream() as up, mixed.pair.stream(up=False) as down:
        up.flow(50)
        down.flow(50)
        set_at = time.monotonic()
        mixed.pair.client.path(address, "down")
        mixed.pair.wait_running(1)
        up.flow(100)
        down.flow(100)
    for stream in (up, down):
        assert stream.report.lost_after(set_at) <= GONE, str(stream.report)


@both_roles
def test_order(lab: Lab, tunnels: Tunnels, role: Role) -> None:
    """A 0.3.4 sends over any path: what it sends comes in order, also what comes after a pause.

    All is as late as on the slowest path then: TCP with BBR believes the shortest time it ever saw.
    """
    with Wan(lab, Profile(rate=40, delay=5), Profile(rate=40, delay=30)) as wan:
        mixed = join(tunnels, wan.topology, role, links=2)
        mixed.pair.wait_running(2)
        up, overtaken = role == "server", {}
        for reorder in ("off", "50ms"):
            mixed.ours.command("set", "reorder", reorder)
            with mixed.pair.stream(up=up, rate=500) as stream:
                stream.flow(500)
            overtaken[reorder] = stream.report.overtaken
        assert overtaken["off"] > 50 > overtaken["50ms"] * 10
        with mixed.pair.stream(up=up, rate=1.5) as stream:
            stream.flow(8, timeout=10)
        assert min(stream.report.delays.values()) >= 0.030


@both_roles
def test_order_of_tcp(lab: Lab, tunnels: Tunnels, role: Role) -> None:
    """TCP from a 0.3.4 is put in order without being asked for, and what isn't TCP doesn't wait."""
    with Wan(lab, Profile(rate=40, delay=5), Profile(rate=20, delay=30)) as wan:
        mixed = join(tunnels, wan.topology, role, links=2)
        mixed.pair.wait_running(2)
        up, seconds = role == "server", {}
        for reorder in ("off", "auto"):
            mixed.ours.command("set", "reorder", reorder)
            seconds[reorder] = mixed.pair.transfer(up=up, size=10_000_000)
        assert seconds["auto"] < 0.85 * seconds["off"]
        assert mixed.ours.show()["received"]["held"] == "tcp"
        with mixed.pair.stream(up=up) as stream:
            stream.flow(100)
        assert min(stream.report.delays.values()) < 0.020


def test_delay_limit(lab: Lab, tunnels: Tunnels) -> None:
    """A link that takes too long is left both ways, though only ours knows a limit for that."""
    with Wan(lab, Profile(rate=20, delay=20), Profile(rate=20, delay=5)) as wan:
        mixed = join(tunnels, wan.topology, "client", links=2)
        link = wan.links[1]
        mixed.pair.client.path(wan.topology.client_address(2), "delaylimit", "60ms")
        mixed.pair.wait_running(2)
        with mixed.pair.stream() as up, mixed.pair.stream(up=False) as down:
            wait_for(lambda: min(_carried(link, up, down)) > UNUSED, timeout=20, what="its use")
            link.change(delay=50)
            mixed.ours.wait_running(1)
            up.flow(800, timeout=8)  # A 0.3.4 sends little there at first anyway.
            assert max(_carried(link, up, down)) < UNUSED
            link.change(delay=5)
            wait_for(lambda: min(_carried(link, up, down)) > UNUSED, timeout=20, what="use again")


def _carried(link: EmulatedLink, *streams: Stream) -> list[int]:
    """The bytes that it carries in each direction while each stream moves on."""
    before = [link.counters(way).sent_bytes for way in DIRECTIONS]
    for stream in streams:
        stream.flow(50)
    after = [link.counters(way).sent_bytes for way in DIRECTIONS]
    return [now - then for now, then in zip(after, before, strict=True)]


@both_roles
@pytest.mark.parametrize("how", ["we-stop", "we-die", "peer-stops", "peer-dies"])
def test_restart_survived(lab: Lab, tunnels: Tunnels, role: Role, how: str) -> None:
    """When either side is started again, traffic flows again without a hand on the other."""
    mixed = join(tunnels, direct(lab), role)
    mixed.pair.wait_running()
    mixed.pair.ping()
    daemon: Daemon = mixed.ours if how.startswith("we") else mixed.peer
    if how.endswith(("stop", "stops")):
        daemon.stop()
    else:
        daemon.kill()
    assert not mixed.pair.answers()
    daemon.start()
    wait_for(mixed.pair.answers, timeout=RECOVERED, what="a ping after the restart")
    mixed.pair.wait_running()
    mixed.pair.ping(count=10)
