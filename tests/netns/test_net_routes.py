"""Whether the paths of a tunnel have routes, and get answers, as a kernel has it."""

import pytest

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.net.routes import drops_answers, has_route
from tests.netns.configured import REMOTE, home
from tests.netns.topology import FAMILIES, SERVER, Host, Lab, address

REMOTE_V6 = "fd09:99::2"
MARK = 42


@pytest.fixture
def client(lab: Lab) -> Host:
    """Default routes over link 1 and 2, none over link 3."""
    topology = home(lab)
    client = topology.client
    lab.link(client, topology.server, 3)
    client.ip(
        *(f"route add default via fd09:{n}::2 dev link{n} metric {n}" for n in (1, 2)), family=6
    )
    return client


def path(local: str, remote: str) -> PathId:
    return PathId(pack_address(local), Endpoint(pack_address(remote), 5000))


def routes(client: Host, mark: int = 0) -> list[list[bool]]:
    """Whether there is a route over each link, for IPv4 and for IPv6."""
    return client.within(
        lambda: [
            [
                has_route(path(f"10.9.{n}.1", REMOTE), f"link{n}", mark=mark),
                has_route(path(f"fd09:{n}::1", REMOTE_V6), f"link{n}", mark=mark),
            ]
            for n in (1, 2, 3)
        ]
    )


def test_routes_by_metric(client: Host) -> None:
    """One with a higher metric is as good; the kernel's guess without any is not."""
    assert routes(client) == [[True, True], [True, True], [False, False]]


def test_a_route_to_the_next_network(client: Host) -> None:
    """A server on the link itself needs no other."""
    assert client.within(lambda: has_route(path("10.9.3.1", "10.9.3.2"), "link3"))
    assert client.within(lambda: has_route(path("fd09:3::1", "fd09:3::2"), "link3"))


def test_a_route_of_several_hops(client: Host) -> None:
    """As some hosts share traffic out with."""
    client.ip(
        *(f"route delete default dev link{n}" for n in (1, 2)),
        "route add default nexthop via 10.9.1.2 dev link1 nexthop via 10.9.2.2 dev link2",
    )
    assert [row[0] for row in routes(client)] == [True, True, False]


def test_routes_by_source(client: Host) -> None:
    """A rule gives the third link its own table."""
    client.ip("rule add from 10.9.3.1 table 3", "route add default via 10.9.3.2 table 3")
    client.ip(
        "rule add from fd09:3::1 table 3", "route add default via fd09:3::2 table 3", family=6
    )
    assert routes(client)[2] == [True, True]


def test_routes_by_mark(client: Host) -> None:
    """A rule gives marked datagrams a table of their own."""
    for family in FAMILIES:
        gateway = address(family, 3, SERVER)
        client.ip(
            f"rule add fwmark {MARK} table 3",
            f"route add default via {gateway} table 3",
            family=family,
        )
    assert routes(client)[2] == [False, False]
    assert routes(client, MARK)[2] == [True, True]


def test_an_interface_that_is_gone(client: Host) -> None:
    assert not client.within(lambda: has_route(path("10.9.1.1", REMOTE), "wan0"))


@pytest.mark.parametrize(
    ("everywhere", "here", "drops"),
    [(0, 0, False), (0, 1, True), (1, 0, True), (2, 1, False), (1, 2, False), (0, 2, False)],
)
def test_answers_of_a_second_link(client: Host, everywhere: int, here: int, *, drops: bool) -> None:
    """A strict rp_filter drops them, as the best route leads elsewhere."""
    client.sysctl("ipv4/conf/all/rp_filter", everywhere)
    for number in (1, 2):
        client.sysctl(f"ipv4/conf/link{number}/rp_filter", here)
    assert not client.within(lambda: drops_answers(path("10.9.1.1", REMOTE), "link1"))
    assert client.within(lambda: drops_answers(path("10.9.2.1", REMOTE), "link2")) is drops
    # A rule for the source mends it.
    client.ip("rule add from 10.9.2.1 table 2", "route add default via 10.9.2.2 table 2")
    assert not client.within(lambda: drops_answers(path("10.9.2.1", REMOTE), "link2"))


def test_answers_over_ipv6(client: Host) -> None:
    """IPv6 has no such filter."""
    assert not client.within(lambda: drops_answers(path("fd09:2::1", REMOTE_V6), "link2"))
