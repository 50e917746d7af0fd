"""Which address of the server is in use, and when its name is asked for."""

import pytest

from glorytun.core.address import Endpoint, pack_address
from glorytun.core.settings import SECOND
from glorytun.peers import ASK_AGAIN, ASK_LATE, ASK_SOON, Peers

HOST = "vpn.example"
PORT = 5000
START = 1_000 * SECOND


def endpoints(*texts: str, port: int = 0) -> list[Endpoint]:
    return [Endpoint(pack_address(text), port) for text in texts]


def used(peers: Peers, host: str = HOST) -> set[Endpoint]:
    return set(peers.get(host).values())


def known(*texts: str) -> Peers:
    """A host that has been resolved."""
    peers = Peers([HOST], PORT)
    assert peers.due(START, ()) == [HOST]
    assert peers.learn(HOST, endpoints(*texts), START)
    return peers


def test_the_best_of_each_family_is_used() -> None:
    peers = known("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")
    assert used(peers) == set(endpoints("192.0.2.1", "2001:db8::1", port=PORT))


def test_what_works_stays() -> None:
    """Whatever the name server says meanwhile, in whatever order, or if it says nothing."""
    peers = known("192.0.2.1", "192.0.2.2")
    for answer in (endpoints("192.0.2.2", "192.0.2.1"), endpoints("192.0.2.9"), []):
        assert not peers.learn(HOST, answer, START)
        assert used(peers) == set(endpoints("192.0.2.1", port=PORT))


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (["192.0.2.9"], "192.0.2.9"),
        (["192.0.2.1", "192.0.2.2"], "192.0.2.2"),
        (["192.0.2.2", "192.0.2.1"], "192.0.2.2"),
        (["192.0.2.1"], "192.0.2.1"),
        (["2001:db8::1"], None),
    ],
    ids=["moved", "next", "next-around", "only", "family-gone"],
)
def test_what_fails_is_left(answer: list[str], then: str | None) -> None:
    """For the next address of the name, for the only one, or for none of its family."""
    peers = known("192.0.2.1")
    peers.learn(HOST, endpoints(*answer), START, failing=used(peers))
    expected = Endpoint(pack_address(then), PORT) if then else None
    assert peers.get(HOST).get(True) == expected


def test_a_name_is_asked_again_after_minutes() -> None:
    peers = known("192.0.2.1")
    assert peers.next_at(START, ()) == START + ASK_AGAIN
    assert peers.due(START + ASK_AGAIN - 1, ()) == []
    assert peers.due(START + ASK_AGAIN, ()) == [HOST]


def test_it_is_asked_once() -> None:
    """Until there is an answer."""
    peers = Peers([HOST], PORT)
    assert peers.due(START, ()) == [HOST]
    assert peers.due(START + ASK_AGAIN, ()) == []
    assert peers.next_at(START, ()) is None


def test_failure_asks_soon_then_more_seldom() -> None:
    """While nothing gets to the address, or there is none; at most once a minute in the end."""
    peers = known("192.0.2.1")
    now, pauses = START, []
    for _ in range(9):
        failing = used(peers)
        at = peers.next_at(now, failing)
        assert at is not None
        pauses.append((at - now) // SECOND)
        now = at
        assert peers.due(now, failing) == [HOST]
        peers.learn(HOST, endpoints("192.0.2.1"), now, failing=failing)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert ASK_SOON == SECOND
    assert ASK_LATE == 60 * SECOND
    # It works again: the next failure is asked for soon.
    peers.due(now + ASK_AGAIN, ())
    peers.learn(HOST, endpoints("192.0.2.1"), now + ASK_AGAIN)
    assert peers.next_at(now, used(peers)) == now + ASK_AGAIN + ASK_SOON


def test_a_change_of_links_asks_at_once() -> None:
    """Only what fails."""
    peers = Peers([HOST], PORT)
    peers.due(START, ())
    assert peers.fail(HOST, "no name server answers", START)
    assert peers.next_at(START, ()) == START + ASK_SOON
    peers.hurry()
    assert peers.due(START, ()) == [HOST]
    peers.learn(HOST, endpoints("192.0.2.1"), START)
    peers.hurry()
    assert peers.due(START, ()) == []


def test_an_error_is_news_once() -> None:
    """It doesn't take away what is in use."""
    peers = known("192.0.2.1")
    assert peers.fail(HOST, "no name server answers", START)
    assert not peers.fail(HOST, "no name server answers", START)
    assert peers.error(HOST) == "no name server answers"
    assert used(peers)
    peers.learn(HOST, endpoints("192.0.2.1"), START)
    assert peers.error(HOST) == ""


def test_other_hosts_and_ports() -> None:
    """What is known of a host stays, with the new port; answers for others come to nothing."""
    peers = known("192.0.2.1")
    peers.change([HOST, "other.example"], 6000)
    assert used(peers) == {Endpoint(pack_address("192.0.2.1"), 6000)}
    assert peers.due(START, ()) == [HOST, "other.example"]
    peers.change(["other.example"], 6000)
    assert list(peers) == ["other.example"]
    assert not peers.learn(HOST, endpoints("192.0.2.1"), START)
    assert not peers.fail(HOST, "no such name", START)
    assert peers.get(HOST) == {}
    assert peers.error(HOST) == ""
