"""The harness itself, with glorytun 0.3.4 on both sides: what is wrong here isn't ours."""

import pytest

from tests.netns.topology import Lab, direct, routed
from tests.netns.tunnel import Peer, Tunnels
from tests.netns.wait import wait_for

pytestmark = pytest.mark.interop


def test_ping_and_tcp(lab: Lab, tunnels: Tunnels) -> None:
    """A tunnel carries pings, TCP and a stream without loss."""
    topology = direct(lab)
    pair = tunnels.join(topology, Peer, Peer)
    pair.wait_running()
    pair.ping(4)
    pair.ping(6)
    pair.transfer(6, up=False)
    assert pair.transfer() < 5
    with pair.stream() as stream:
        stream.flow(100)
    assert not stream.report.lost
    assert stream.report.longest_gap < 0.3


def test_cut_and_mended(lab: Lab, tunnels: Tunnels) -> None:
    """A link that is cut carries nothing, though both of its ends stay up."""
    topology = direct(lab, links=2)
    pair = tunnels.join(topology, Peer, Peer, links=2)
    pair.wait_running(2)
    first, second = topology.links
    before = second.carried()
    second.cut()
    assert topology.client.ping(topology.client_address(2)).received == 3
    assert not topology.client.ping("10.9.2.2", count=1, wait=0.1).received
    second.mend()
    assert topology.client.ping("10.9.2.2").received == 3
    assert second.carried() > before
    assert first.carried()


@pytest.mark.parametrize("mtu", [1500, 1400])
def test_router_drops_silently(lab: Lab, tunnels: Tunnels, mtu: int) -> None:
    """The router drops what is too big to the byte and says nothing."""
    topology = routed(lab, mtu=mtu)
    to = topology.server_address()
    assert topology.client.ping(to, "-M", "do", "-s", str(mtu - 28)).received == 3
    if mtu < 1500:
        assert not topology.client.ping(to, "-M", "do", "-s", str(mtu - 27), wait=0.1).received
        assert topology.server.run("ip", "route", "get", to).stdout.count("mtu") == 0
    pair = tunnels.join(topology, Peer, Peer)
    pair.wait_mtu(mtu - 50)


def test_translated(lab: Lab, tunnels: Tunnels) -> None:
    """The router changes the port that the server sees, while traffic flows."""
    topology = routed(lab)
    assert topology.router
    topology.router.translate(40001)
    pair = tunnels.join(topology, Peer, Peer)
    pair.wait_running()
    pair.ping()
    assert {(path.remote, path.port) for path in pair.server.paths()} == {("10.9.2.1", 40001)}
    topology.router.translate(40002)
    wait_for(pair.answers, timeout=10, what="a ping after the port changed")
    assert 40002 in {path.port for path in pair.server.paths()}
