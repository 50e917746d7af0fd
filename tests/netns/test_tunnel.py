"""What a tunnel must do over real links."""

import json
import re
import time
from collections.abc import Iterator
from typing import Literal

import pytest

from tests.netns.topology import FAMILIES, SERVER, Family, Lab, Link, direct, routed
from tests.netns.traffic import Stream
from tests.netns.tunnel import ANY, RATE, Pair, Role, Tunnel, Tunnels, inside
from tests.netns.wait import wait_for

MOVED = 0.6
"""Seconds after which nothing is lost any more when a link fails, at the default beat."""
RETURNED = 3.0
"""Seconds after which a link that works again is used: a degraded path is tried every 10 beats."""
RECOVERED = 5.0
"""Seconds after which traffic flows again when a side was restarted."""

OVERHEAD = {4: 20 + 8 + 22, 6: 40 + 8 + 22}
"""Bytes of IP, UDP and tunnel around an inner packet, by outer family."""

Ours = Pair[Tunnel, Tunnel]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: f"over-IPv{family}")
def pair(request: pytest.FixtureRequest) -> Iterator[Ours]:
    """A tunnel over one link, whose outer family varies."""
    with Lab() as lab, Tunnels() as tunnels:
        pair = tunnels.join(direct(lab), Tunnel, Tunnel, family=request.param)
        pair.wait_running()
        yield pair


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"IPv{family}")
def test_ping(pair: Ours, family: Family) -> None:
    """Every ping comes back, small ones and those that fill the tunnel's MTU."""
    pair.ping(family, count=10, interval=0.02)
    mtu = pair.client.mtu()
    assert mtu == pair.server.mtu() == 1500 - OVERHEAD[pair.family]
    size = mtu - (28 if family == 4 else 48)
    filling = pair.client.host.ping(inside(family, SERVER), "-M", "do", "-s", str(size))
    assert filling.received == 3


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"IPv{family}")
@pytest.mark.parametrize("upload", [True, False], ids=["up", "down"])
def test_tcp(pair: Ours, family: Family, *, upload: bool) -> None:
    """TCP carries the same bytes to the other end, in either direction."""
    pair.transfer(family, up=upload, size=2_000_000)


def test_stream(pair: Ours) -> None:
    """Nothing is lost or doubled on a link that loses nothing."""
    with pair.stream(rate=500, size=1000) as stream:
        stream.flow(500)
    assert not stream.report.lost, str(stream.report)
    assert not stream.report.duplicates, str(stream.report)


def test_server_of_both_families(lab: Lab, tunnels: Tunnels) -> None:
    """A server bound to :: serves a client that comes over IPv4, then one over IPv6."""
    topology = direct(lab)
    server = tunnels.make(Tunnel, topology.server, bind="::").start()
    for family in FAMILIES:
        bind, to = ANY[family], topology.server_address(family)
        client = tunnels.make(Tunnel, topology.client, bind=bind, to=to).start()
        client.path(topology.client_address(1, family), "up", *RATE)
        pair = Pair(client=client, server=server, family=family)
        client.wait_running()
        wait_for(pair.answers, timeout=RECOVERED, what=f"a ping over IPv{family}")
        path = server.path_by(topology.client_address(1, family))
        assert path
        assert path.running
        pair.ping(6)
        client.stop()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"over-IPv{family}")
@pytest.mark.parametrize("mtu", [1500, 1400, 1350])
def test_mtu_found_without_icmp(lab: Lab, tunnels: Tunnels, mtu: int, family: Family) -> None:
    """Both TUNs get the largest MTU that passes a router which drops the rest silently."""
    pair = tunnels.join(routed(lab, mtu=mtu), Tunnel, Tunnel, family=family)
    expected = mtu - OVERHEAD[family]
    pair.wait_mtu(expected)
    pair.wait_running()
    filling = pair.client.host.ping(inside(4, SERVER), "-M", "do", "-s", str(expected - 28))
    assert filling.received == 3
    pair.transfer()


def test_backup_waits(lab: Lab, tunnels: Tunnels) -> None:
    """A backup path carries data only while no other path works."""
    topology = direct(lab, links=2)
    pair = tunnels.join(topology, Tunnel, Tunnel, links=2)
    pair.client.path(topology.client_address(2), "backup")
    pair.wait_running(1)
    backup = pair.client.path_by(topology.client_address(2))
    assert backup
    assert (backup.state, backup.condition) == ("backup", "waiting")
    first, second = topology.links
    with pair.stream(rate=250, size=1000) as stream:
        before = second.carried()
        stream.flow(200)
        assert second.carried() - before < 50_000
        first.cut()
        stream.flow(400)
        assert second.carried() - before > 200_000
        first.mend()
        pair.wait_running(1, timeout=RETURNED)
        wait_for(lambda: _uses(stream, first, second), timeout=RETURNED, what="the first link")


def _uses(stream: Stream, used: Link, unused: Link) -> bool:
    """Whether the next datagrams go over one link and not over the other."""
    before = used.carried(), unused.carried()
    stream.flow(50)
    return used.carried() - before[0] > 40_000 and unused.carried() - before[1] < 25_000


def test_cut_link_left_and_taken_again(lab: Lab, tunnels: Tunnels) -> None:
    """When a link fails, nothing is lost any more after 600 ms in either direction; when it works
    again it is used again: as it must be when then the other link fails."""
    topology = direct(lab, links=2)
    pair = tunnels.join(topology, Tunnel, Tunnel, links=2)
    pair.wait_running(2)
    for link in topology.links:
        with pair.stream() as up, pair.stream(up=False) as down:
            up.flow(50)
            down.flow(50)
            cut_at = time.monotonic()
            link.cut()
            up.flow(100)
            down.flow(100)
            pair.wait_running(1)
        for stream in (up, down):
            assert stream.report.lost_after(cut_at) <= MOVED, str(stream.report)
        link.mend()
        pair.wait_running(2, timeout=RETURNED)


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("role", ["client", "server"])
def test_restart_survived(
    lab: Lab, tunnels: Tunnels, role: Role, how: Literal["stopped", "killed"]
) -> None:
    """When either side is started again, traffic flows again without a hand."""
    pair = tunnels.join(direct(lab), Tunnel, Tunnel)
    pair.wait_running()
    pair.ping()
    daemon = pair.client if role == "client" else pair.server
    if how == "stopped":
        daemon.stop()
    else:
        daemon.kill()
    assert not pair.answers()
    daemon.start()
    wait_for(pair.answers, timeout=RECOVERED, what="a ping after the restart")
    pair.wait_running()
    pair.ping(count=20)


def test_rebinding_survived(lab: Lab, tunnels: Tunnels) -> None:
    """When a NAT gives the client another port, traffic goes on in both directions."""
    topology = routed(lab)
    assert topology.router
    topology.router.translate(40001)
    pair = tunnels.join(topology, Tunnel, Tunnel)
    pair.wait_running()
    assert [path.port for path in pair.server.paths()] == [40001]
    with pair.stream() as up, pair.stream(up=False) as down:
        up.flow(50)
        down.flow(50)
        topology.router.translate(40002)
        up.flow(100)
        down.flow(100)
    wait_for(
        lambda: [path.port for path in pair.server.paths() if path.running] == [40002],
        timeout=RETURNED,
        what="the new port alone",
    )


@pytest.mark.parametrize("offset", [300, -300])
def test_clocks_five_minutes_apart(lab: Lab, tunnels: Tunnels, offset: int) -> None:
    """Clocks that differ by less than `timetolerance` do no harm."""
    pair = tunnels.join(direct(lab), Tunnel, Tunnel, server_options=_clock(offset))
    pair.wait_running()
    pair.ping()
    assert not pair.server.bad("difftime")["count"]


@pytest.mark.parametrize("offset", [900, -900])
def test_clocks_fifteen_minutes_apart(lab: Lab, tunnels: Tunnels, offset: int) -> None:
    """Clocks that differ by more are refused; log and ``show bad`` say by how much."""
    pair = tunnels.join(direct(lab), Tunnel, Tunnel, server_options=_clock(offset))
    wait_for(lambda: pair.server.bad("difftime")["count"] > 2, timeout=5, what="refusals")
    assert pair.server.bad("difftime")["clock_offset"] == pytest.approx(-offset, abs=1)
    assert not pair.server.bad("decrypt")["count"]
    assert not pair.server.paths()
    assert not pair.answers()
    said = re.compile(r"clock.*\b(15 min|15m|900(\.\d+)? ?s|14:59|15:00)", re.I)
    wait_for(lambda: said.search(pair.server.logged()), timeout=2, what="the offset in the log")
    assert said.search(pair.server.command("show", "bad"))


@pytest.mark.parametrize("offset", [0, 900])
def test_wrong_key_told_from_wrong_clock(lab: Lab, tunnels: Tunnels, offset: int) -> None:
    """With another key nothing opens, and nothing is said of the clock: its offset would not be
    authentic."""
    other = tunnels.make_key("other")
    options = {"key": other, **_clock(offset)}
    pair = tunnels.join(direct(lab), Tunnel, Tunnel, server_options=options)
    wait_for(lambda: pair.server.bad("decrypt")["count"] > 2, timeout=5, what="refusals")
    assert not pair.server.bad("difftime")["count"]
    assert not pair.server.paths()
    assert not pair.answers()
    assert "clock" not in pair.server.logged()


def _clock(offset: int) -> dict[str, dict[str, str]]:
    """Options of a daemon whose clock is ahead by so many seconds."""
    return {"env": {"GLORYTUN_TEST_CLOCK_OFFSET": str(offset)}}


def test_server_pins_the_rate_of_one_link(lab: Lab, tunnels: Tunnels) -> None:
    """Named by the client's address; by its own the server means all of them."""
    topology = direct(lab, links=2)
    pair = tunnels.join(topology, Tunnel, Tunnel, links=2)
    pair.wait_running(2)
    server, own = pair.server, topology.server_address()
    first, second = topology.client_address(1), topology.client_address(2)

    def pinned() -> list[str]:
        """The clients' addresses to which the server sends at 5 Mbit/s."""
        paths = json.loads(server.command("path", "json"))["paths"]
        rates = {path["remote"]["address"]: path["settings"]["rate_tx"] for path in paths}
        return sorted(address for address, rate in rates.items() if rate == 625_000)

    server.command("path", second, "rate", "fixed", "tx", "5mbit")
    assert pinned() == [second]
    pair.ping()
    assert f"path {own} to {second}:" in server.command("path", second)
    assert first not in server.command("path", second)
    server.command("path", own, "rate", "fixed", "tx", "5mbit")
    assert pinned() == [first, second]
    server.command("path", first, "rate", "auto")
    assert pinned() == [second]
    wrong = server.glorytun("path", "10.9.77.1", "rate", "auto", "dev", server.dev)
    assert "there is no path from or to 10.9.77.1 (a server's paths" in wrong.stderr
