"""Which of the server's addresses is in use: of each host that names it, one of each family.

An address stays in use as long as packets get there, whatever the name server says meanwhile. When
they don't, the name is asked for again, ever more seldom, and the next address is tried.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from glorytun.core.address import Endpoint, is_v4
from glorytun.core.settings import SECOND

ASK_AGAIN = 300 * SECOND
"""A name is asked for again after so long, though all is well."""
ASK_SOON = SECOND
"""And so long after an answer that doesn't help; each further one doubles it, up to ASK_LATE."""
ASK_LATE = 60 * SECOND

Addresses = dict[bool, Endpoint]
"""One of each family, IPv4 under True."""


@dataclass(slots=True)
class _Host:
    used: Addresses = field(default_factory=dict)
    error: str = ""
    asked: bool = False
    """Whether an answer is awaited."""
    answered_at: int | None = None
    pause: int = ASK_SOON

    def ask_at(self, now: int, *, fails: bool) -> int | None:
        """When to ask; None: it was asked."""
        if self.asked:
            return None
        if self.answered_at is None:
            return now
        return self.answered_at + (self.pause if fails else ASK_AGAIN)


class Peers:
    """What is known of some hosts; all of them have the same port."""

    def __init__(self, hosts: Iterable[str], port: int) -> None:
        self._port = port
        self._hosts = {host: _Host() for host in hosts}

    def __iter__(self) -> Iterator[str]:
        return iter(self._hosts)

    def get(self, host: str) -> Addresses:
        """What is in use; empty while nothing is known."""
        known = self._hosts.get(host)
        return known.used if known else {}

    def error(self, host: str) -> str:
        """Why the last question for a host came to nothing; empty when it didn't."""
        known = self._hosts.get(host)
        return known.error if known else ""

    def change(self, hosts: Iterable[str], port: int) -> None:
        """Name other hosts, or another port; all are asked for again.

        What is known of a host that stays is kept.
        """
        self._port = port
        self._hosts = {host: self._hosts.get(host, _Host()) for host in hosts}
        for known in self._hosts.values():
            known.answered_at = None
            known.used = {v4: used._replace(port=port) for v4, used in known.used.items()}

    # Asking.

    def next_at(self, now: int, failing: Container[Endpoint]) -> int | None:
        """When `due` will have something; no packets get to the `failing` addresses."""
        times = [known.ask_at(now, fails=_fails(known, failing)) for known in self._hosts.values()]
        return min((at for at in times if at is not None), default=None)

    def due(self, now: int, failing: Container[Endpoint]) -> list[str]:
        """The hosts to ask for now; `learn` or `fail` has to follow for each."""
        found = []
        for host, known in self._hosts.items():
            at = known.ask_at(now, fails=_fails(known, failing))
            if at is not None and now >= at:
                known.asked = True
                found.append(host)
        return found

    def hurry(self) -> None:
        """The network has changed, which may help: don't wait any longer."""
        for known in self._hosts.values():
            known.pause = 0

    def learn(
        self, host: str, found: Iterable[Endpoint], now: int, *, failing: Container[Endpoint] = ()
    ) -> bool:
        """Take an answer, best address first; whether another address is in use since."""
        known = self._hosts.get(host)
        if known is None:
            return False
        self._note_answer(known, now, fails=_fails(known, failing))
        known.error = ""
        endpoints = [endpoint._replace(port=self._port) for endpoint in found]
        before, known.used = known.used, {}
        for v4 in (True, False):
            family = [endpoint for endpoint in endpoints if is_v4(endpoint.address) == v4]
            chosen = _choose(before.get(v4), family, failing)
            if chosen is not None:
                known.used[v4] = chosen
        return known.used != before

    def fail(self, host: str, error: str, now: int, *, failing: Container[Endpoint] = ()) -> bool:
        """Take that there is no answer; whether that is news. What is in use stays so."""
        known = self._hosts.get(host)
        if known is None:
            return False
        self._note_answer(known, now, fails=_fails(known, failing))
        before, known.error = known.error, error
        return error != before

    def _note_answer(self, known: _Host, now: int, *, fails: bool) -> None:
        first = known.answered_at is None or not known.pause
        known.asked = False
        known.answered_at = now
        known.pause = min(known.pause * 2, ASK_LATE) if fails and not first else ASK_SOON


def _fails(known: _Host, failing: Container[Endpoint]) -> bool:
    return not known.used or any(endpoint in failing for endpoint in known.used.values())


def _choose(
    used: Endpoint | None, found: list[Endpoint], failing: Container[Endpoint]
) -> Endpoint | None:
    """The one in use as long as it works, else the one after it, else the best."""
    if used is not None and used not in failing:
        return used
    if used in found:
        return found[(found.index(used) + 1) % len(found)]
    return found[0] if found else None
