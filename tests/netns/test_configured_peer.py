"""Where a client that runs by its file finds its server, and what its datagrams carry.

The topology is `configured.home`.
"""

import json
import time
from collections.abc import Iterator

import pytest

from tests.netns.configured import REMOTE, Names, home, start
from tests.netns.topology import Host, Lab, Topology
from tests.netns.tunnel import Tunnels
from tests.netns.wait import wait_for

NAME = "vpn.example.net"
LINKS = ("Local=link1", "Local=link2")
FIRST, SECOND = "10.9.1.1", "10.9.2.1"
"""The client's addresses."""
ASKED_AGAIN = 15.0
"""Seconds after which a name was asked for again that nobody knew, or whose paths all fail."""
QUICK = 1.0
"""Seconds in which a command is answered, whatever the name servers do."""


@pytest.fixture
def named(lab: Lab) -> Iterator[tuple[Topology, Names]]:
    """The topology, and what names the client knows: none yet."""
    topology = home(lab)
    with Names(topology.client) as names:
        yield topology, names


def test_a_name_that_resolves(named: tuple[Topology, Names], tunnels: Tunnels) -> None:
    """Its first address of each family is used."""
    topology, names = named
    names.set(NAME, REMOTE, "10.9.99.8")
    pair = start(tunnels, topology, *LINKS, peer=NAME)
    pair.client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
    assert pair.client.show()["peer_host"] == NAME
    pair.ping()


def test_a_name_that_resolves_later(named: tuple[Topology, Names], tunnels: Tunnels) -> None:
    """The tunnel is ready before, says once what it waits for, and goes on by itself."""
    topology, names = named
    pair = start(tunnels, topology, *LINKS, peer=NAME)
    assert pair.client.show()["role"] == "client"
    assert not pair.client.paths()
    assert "READY=1" in pair.client.notifications()
    wait_for(lambda: NAME in pair.client.logged(), timeout=5, what="the log to name it")
    names.set(NAME, REMOTE)
    wait_for(
        lambda: pair.client.ends() == {(FIRST, REMOTE), (SECOND, REMOTE)},
        timeout=ASKED_AGAIN,
        what="paths to the name",
    )
    pair.ping()
    said = [line for line in pair.client.logged().splitlines() if "resolve" in line]
    assert len(said) <= 2, "it says the same again and again"


def test_a_server_that_moves(named: tuple[Topology, Names], tunnels: Tunnels) -> None:
    """While paths work the address stays; when none does the name is asked again."""
    topology, names = named
    names.set(NAME, REMOTE)
    pair = start(tunnels, topology, *LINKS, peer=NAME)
    pair.client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
    names.set(NAME, "10.9.99.7")
    pair.client.reload()
    pair.client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
    topology.server.ip("address add 10.9.99.7/32 dev lo", f"address del {REMOTE}/32 dev lo")
    wait_for(
        lambda: pair.client.ends() == {(FIRST, "10.9.99.7"), (SECOND, "10.9.99.7")},
        timeout=2 * ASKED_AGAIN,
        what="paths to the new address",
    )
    wait_for(pair.answers, timeout=5, what="a ping")


def test_the_next_address_of_a_name(named: tuple[Topology, Names], tunnels: Tunnels) -> None:
    """When the first of several doesn't answer, the next is taken."""
    topology, names = named
    names.set(NAME, "10.9.99.8", REMOTE)
    pair = start(tunnels, topology, *LINKS, peer=NAME)
    wait_for(
        lambda: pair.client.ends() == {(FIRST, REMOTE), (SECOND, REMOTE)},
        timeout=2 * ASKED_AGAIN,
        what="paths to the second address",
    )
    pair.ping()


def test_a_name_of_one_path(named: tuple[Topology, Names], tunnels: Tunnels) -> None:
    """One that doesn't resolve keeps only its own path away."""
    topology, names = named
    pair = start(tunnels, topology, "Local=link1", f"Local=link2\nPeer={NAME}")
    pair.client.wait_ends((FIRST, REMOTE))
    pair.ping()
    names.set(NAME, "10.9.2.2")
    wait_for(
        lambda: pair.client.ends() == {(FIRST, REMOTE), (SECOND, "10.9.2.2")},
        timeout=ASKED_AGAIN,
        what="the path to the name",
    )


def test_another_server_by_reload(named: tuple[Topology, Names], tunnels: Tunnels) -> None:
    """Peer= and PeerPort= of the tunnel are applied without a restart."""
    topology, names = named
    names.set(NAME, "10.9.2.2")
    pair = start(tunnels, topology, *LINKS)
    pair.client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
    client = pair.client
    before = client.pid
    client.set_peer(NAME)
    client.reconfigure(*LINKS)
    client.wait_ends((FIRST, "10.9.2.2"), (SECOND, "10.9.2.2"), timeout=ASKED_AGAIN)
    client.reconfigure(*LINKS, tunnel="PeerPort=5001\n")
    wait_for(lambda: {path.port for path in client.paths()} == {5001}, timeout=5, what="port 5001")
    assert not client.ends()
    client.reconfigure(*LINKS)
    client.wait_ends((FIRST, "10.9.2.2"), (SECOND, "10.9.2.2"))
    assert client.running
    assert client.pid == before
    pair.ping()


def test_name_servers_that_do_not_answer(named: tuple[Topology, Names], tunnels: Tunnels) -> None:
    """Neither start nor commands nor stop wait for them."""
    topology, names = named
    names.use_server("10.9.1.2")
    topology.server.nft("""
        table inet mute {
            chain in {
                type filter hook input priority 0
                udp dport 53 drop
            }
        }
    """)
    pair = start(tunnels, topology, *LINKS, peer=NAME)
    for words in ("show",), ("path",), ("show", "bad"):
        started = time.monotonic()
        pair.client.command(*words)
        assert time.monotonic() - started < QUICK
    pair.client.stop(timeout=QUICK)


# Firewall marks.


class Counter:
    """Counts the datagrams with a mark that leave a host for the server's port."""

    def __init__(self, host: Host, mark: int) -> None:
        self._host = host
        self._table = f"mark{mark}"
        host.nft(f"""
            table inet {self._table} {{
                chain out {{
                    type filter hook output priority 0
                    udp dport 5000 meta mark {mark} counter
                    udp dport 5000 meta mark != {mark} counter
                }}
            }}
        """)

    def read(self) -> tuple[int, int]:
        """With the mark, and without it, since it was made."""
        listed = self._host.run("nft", "-j", "list", "table", "inet", self._table).stdout
        with_mark, without = (
            item["counter"]["packets"]
            for rule in json.loads(listed)["nftables"]
            for item in rule.get("rule", {}).get("expr", [])
            if "counter" in item
        )
        return with_mark, without


def test_firewall_mark(lab: Lab, tunnels: Tunnels) -> None:
    """All datagrams carry it, from the first on; reload changes it, and takes it away."""
    topology = home(lab)
    counters = {mark: Counter(topology.client, mark) for mark in (0, 42, 0x2B)}
    pair = start(tunnels, topology, *LINKS, tunnel="FirewallMark=42\n")
    pair.wait_running(2)
    pair.ping()
    marked, others = counters[42].read()
    assert marked > 3
    assert not others
    for mark in (0x2B, 0):
        pair.client.reconfigure(*LINKS, tunnel=f"FirewallMark={mark}\n")
        before, others = counters[mark].read()
        pair.ping()
        after, others_after = counters[mark].read()
        assert after >= before + 3
        assert others_after == others


def test_firewall_mark_chooses_the_route(lab: Lab, tunnels: Tunnels) -> None:
    """As policy rules have it that lead all but the tunnel's own datagrams into the tunnel."""
    topology = home(lab)
    marked = "FirewallMark=42\n"
    pair = start(tunnels, topology, *LINKS, tunnel=marked)
    pair.wait_running(2)
    topology.client.ip(
        *(f"route add default via 10.9.{n}.2 dev link{n} metric {n} table 42" for n in (1, 2)),
        "rule add fwmark 42 table 42",
        *(f"route delete default dev link{n}" for n in (1, 2)),
        f"route add default dev {pair.client.dev}",
    )
    topology.server.ip("address add 192.0.2.5/32 dev lo")
    assert topology.client.ping("192.0.2.5", count=10).received == 10
    pair.client.reconfigure(*LINKS)
    pair.client.wait_running(0)
    pair.client.reconfigure(*LINKS, tunnel=marked)
    pair.wait_running(2)
    assert topology.client.ping("192.0.2.5").received == 3
