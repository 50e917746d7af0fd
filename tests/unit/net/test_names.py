"""Names of hosts, and every message there is for a user about them."""

import select
import socket
import threading

import pytest

from glorytun.core.address import Endpoint, pack_address
from glorytun.errors import ResolveError
from glorytun.net.names import Answer, Resolver, resolve

LOOPBACK = pack_address("127.0.0.1")


def test_resolve_addresses() -> None:
    """Numeric addresses need no name server."""
    assert resolve("127.0.0.1", 5000, v4=True, v6=False) == [Endpoint(LOOPBACK, 5000)]
    assert resolve("::1", 7, v4=True, v6=True) == [Endpoint(pack_address("::1"), 7)]


def test_resolve_name() -> None:
    """A name, from /etc/hosts."""
    assert Endpoint(LOOPBACK, 5000) in resolve("localhost", 5000, v4=True, v6=False)


@pytest.mark.parametrize(
    ("host", "v4", "v6", "kind"),
    [("127.0.0.1", False, True, "an IPv6"), ("::1", True, False, "an IPv4")],
)
def test_resolve_other_family(host: str, v4: bool, v6: bool, kind: str) -> None:
    """An address of a family that the socket doesn't serve."""
    with pytest.raises(ResolveError) as caught:
        resolve(host, 5000, v4=v4, v6=v6)
    assert str(caught.value) == (
        f"{host} does not resolve to {kind} address (check its spelling and `getent ahosts {host}`)"
    )


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            socket.EAI_NONAME,
            "nowhere.invalid does not resolve to an address "
            "(check its spelling and `getent ahosts nowhere.invalid`)",
        ),
        (
            socket.EAI_AGAIN,
            "nowhere.invalid can't be resolved now: no name server answers "
            "(check the network and /etc/resolv.conf)",
        ),
        (socket.EAI_FAIL, "nowhere.invalid can't be resolved: why"),
    ],
)
def test_resolve_failures(monkeypatch: pytest.MonkeyPatch, number: int, message: str) -> None:
    """A wrong name is told apart from a network that isn't there."""

    def fail(*_: object) -> None:
        raise socket.gaierror(number, "why")

    monkeypatch.setattr("glorytun.net.names.socket.getaddrinfo", fail)
    with pytest.raises(ResolveError) as caught:
        resolve("nowhere.invalid", 5000, v4=True, v6=True)
    assert str(caught.value) == message


def test_resolve_nonsense() -> None:
    """What can't be encoded as a name."""
    with pytest.raises(ResolveError) as caught:
        resolve("a" * 64 + ".example", 5000, v4=True, v6=True)
    assert str(caught.value).endswith("can't be the name of a host")


def await_answers(resolver: Resolver) -> list[Answer]:
    """What comes next, within 5 s."""
    assert select.select([resolver], [], [], 5)[0]
    return resolver.answers()


def test_resolver_answers_in_the_background() -> None:
    """Each question once, with its addresses or with the reason why there are none."""
    resolver = Resolver(v4=True, v6=True)
    resolver.ask("127.0.0.1")
    assert await_answers(resolver) == [
        Answer(host="127.0.0.1", found=(Endpoint(LOOPBACK, 0),), error="")
    ]
    assert resolver.answers() == []
    resolver.ask("a" * 64 + ".example")
    (answer,) = await_answers(resolver)
    assert answer.found == ()
    assert answer.error.endswith("can't be the name of a host")
    resolver.close()


def test_resolver_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor asks twice for what it is asking for; what is under way when it is closed is dropped."""
    asked: list[str] = []
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(host: str, *_: object, **__: object) -> list[Endpoint]:
        asked.append(host)
        begun.set()
        assert go_on.wait(5)
        ended.set()
        return []

    monkeypatch.setattr("glorytun.net.names.resolve", slow)
    resolver = Resolver(v4=True, v6=True)
    for _ in range(3):
        resolver.ask("slow.example")
    assert begun.wait(5)
    assert resolver.answers() == []
    resolver.close()
    go_on.set()
    assert ended.wait(5)
    assert asked == ["slow.example"]
