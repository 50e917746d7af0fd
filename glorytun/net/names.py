"""Names of hosts: resolved at once, or in the background, where nothing waits for an answer."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread

from glorytun.core.address import Endpoint
from glorytun.errors import ResolveError
from glorytun.net.udp import endpoint_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a question."""

    host: str
    found: tuple[Endpoint, ...]
    """Best first, with port 0; none when there is an error."""
    error: str
    """In words; empty without."""


class Resolver:
    """Asks in a thread, since a name server may take many seconds; one question after another."""

    def __init__(self, *, v4: bool, v6: bool) -> None:
        """Asks for addresses of the families that are wanted."""
        self._v4 = v4
        self._v6 = v6
        self._asked: set[str] = set()
        self._questions: SimpleQueue[str | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = Lock()
        self._closed = False
        # A daemon: the end of the process doesn't wait for a name server.
        Thread(target=self._work, name="resolver", daemon=True).start()

    def fileno(self) -> int:
        """Readable when there are answers."""
        return self._wakeup

    def ask(self, host: str) -> None:
        """Nothing happens while the same host is asked for already."""
        if host not in self._asked:
            self._asked.add(host)
            self._questions.put(host)

    def answers(self) -> list[Answer]:
        """Those that came, each once."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        answers = []
        while not self._answers.empty():
            answers.append(self._answers.get())
        self._asked -= {answer.host for answer in answers}
        return answers

    def close(self) -> None:
        """Ask no more; what is under way comes to nothing."""
        self._questions.put(None)
        with self._closing:
            self._closed = True
            os.close(self._wakeup)

    def _work(self) -> None:
        while (host := self._questions.get()) is not None:
            self._answers.put(self.find(host))
            with self._closing:
                if not self._closed:
                    os.eventfd_write(self._wakeup, 1)

    def find(self, host: str) -> Answer:
        """The answer at once; for numeric addresses, which nobody has to be asked for."""
        try:
            found = resolve(host, 0, v4=self._v4, v6=self._v6)
        except ResolveError as error:
            return Answer(host=host, found=(), error=str(error))
        return Answer(host=host, found=tuple(found), error="")


def resolve(host: str, port: int, *, v4: bool, v6: bool) -> list[Endpoint]:
    """The addresses of a host, best first, of the families that are wanted. May block for seconds.

    Raises ResolveError.
    """
    family = socket.AF_UNSPEC if v4 and v6 else socket.AF_INET if v4 else socket.AF_INET6
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM)
    except UnicodeError as error:
        raise ResolveError(f"{host!r} can't be the name of a host") from error
    except socket.gaierror as error:
        raise _resolve_error(error, host, v4=v4, v6=v6) from error
    return [endpoint_of(entry[4]) for entry in found]


def _resolve_error(error: socket.gaierror, host: str, *, v4: bool, v6: bool) -> ResolveError:
    if error.errno == socket.EAI_AGAIN:
        return ResolveError(
            f"{host} can't be resolved now: no name server answers",
            hint="check the network and /etc/resolv.conf",
        )
    if error.errno not in {socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY}:
        return ResolveError(f"{host} can't be resolved: {error.strerror}")
    kind = "an" if v4 and v6 else "an IPv4" if v4 else "an IPv6"
    return ResolveError(
        f"{host} does not resolve to {kind} address",
        hint=f"check its spelling and `getent ahosts {host}`",
    )
