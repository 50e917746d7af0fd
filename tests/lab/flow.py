"""A TCP connection that carries bytes for as long as a test wants, and knows each of them."""

import contextlib
import itertools
import socket
import threading
import time
from types import TracebackType
from typing import Self

from tests.netns.traffic import Host
from tests.netns.wait import wait_for

_PERIOD = 0.01
"""Seconds between two chunks."""
_PATTERN = bytes(range(251)) * 300
"""Not a power of two: no power of two bytes can be missing unseen."""


class Flow:
    """Carries 16 Mbit/s while in context; then asserts that what was sent is what came."""

    def __init__(self, client: Host, server: Host, to: str, *, up: bool = True) -> None:
        """The client connects to `to`, an address of the server, and sends if `up`."""
        self.received = 0
        """Bytes so far."""
        self._sent = 0
        self._arrivals: list[float] = []
        self._failure: Exception | None = None
        self._stop = threading.Event()
        with server.socket(4, socket.SOCK_STREAM) as listener:
            listener.settimeout(10)
            listener.bind((to, 0))
            listener.listen(1)
            near = client.socket(4, socket.SOCK_STREAM)
            near.settimeout(10)
            near.connect(listener.getsockname())
            far = listener.accept()[0]
        self._source, self._target = (near, far) if up else (far, near)
        # Longer than any failure that a test makes.
        self._source.settimeout(30)
        self._target.settimeout(30)
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._source.close()
        self._target.close()
        if error is None:
            assert not self._failure, f"the connection broke: {self._failure!r}"
            assert self.received == self._sent, "other bytes arrived than were sent"

    def go_on(self, *, timeout: float = 10) -> None:
        """Wait until another 100 kB have come, over a connection that holds."""
        goal = self.received + 100_000
        wait_for(
            lambda: self.received >= goal or self._failure,
            timeout=timeout,
            what="the TCP connection to go on",
        )
        assert not self._failure, f"the connection broke: {self._failure!r}"

    def resumed_after(self, when: float) -> float:
        """Seconds from `when`, of the monotonic clock, until the next byte came."""
        return min(arrival for arrival in self._arrivals if arrival > when) - when

    def longest_pause(self, since: float) -> float:
        """Seconds between two arrivals, of which the later came after `since`."""
        arrivals = list(self._arrivals)
        return max(
            later - earlier for earlier, later in itertools.pairwise(arrivals) if later > since
        )

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stop.wait(_PERIOD):
                at = self._sent % 251
                self._source.sendall(_PATTERN[at : at + 20_000])
                self._sent += 20_000
            self._source.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        try:
            while chunk := self._target.recv(60_000):
                at = self.received % 251
                if chunk != _PATTERN[at : at + len(chunk)]:
                    raise ValueError("other bytes arrived than were sent")
                self.received += len(chunk)
                self._arrivals.append(time.monotonic())
        except (OSError, ValueError) as error:
            self._failure = error
