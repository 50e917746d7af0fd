"""One TCP transfer from host to host, every arrival of which is kept."""

import bisect
import contextlib
import itertools
import socket
import threading
import time
from types import TracebackType
from typing import Self

from tests.netns.topology import Host

BLOCK = bytes(1 << 16)


class Transfer:
    """Sends `size` bytes from a listener at `address` to another host while in context.

    Times are of the monotonic clock, in seconds; rates in bits/s.
    """

    def __init__(self, *, source: Host, target: Host, address: str, size: int) -> None:
        self.size = size
        self._times: list[float] = []
        self._totals: list[int] = []
        self._listener = source.socket(4, socket.SOCK_STREAM)
        self._listener.bind((address, 0))
        self._listener.listen(1)
        self._receiver = target.socket(4, socket.SOCK_STREAM)
        self._sender: socket.socket | None = None
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._note(0)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Wakes both threads, wherever they wait.
        for end in filter(None, (self._listener, self._sender, self._receiver)):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()

    @property
    def received(self) -> int:
        """Bytes so far."""
        return self._totals[-1]

    @property
    def done(self) -> bool:
        """Whether all of it came."""
        return self.received >= self.size

    @property
    def finished(self) -> float:
        """When the last bytes came."""
        return self._times[-1]

    def received_at(self, when: float) -> int:
        """Bytes that had come at a time."""
        return self._totals[max(0, bisect.bisect_right(self._times, when) - 1)]

    def rate(self, *, since: float, until: float) -> float:
        """Average between two times."""
        return 8 * (self.received_at(until) - self.received_at(since)) / max(until - since, 1e-9)

    def longest_pause(self, *, since: float, until: float) -> float:
        """The longest time without a byte between two times."""
        arrivals = [when for when in self._times if since < when < until]
        times = [since, *arrivals, until]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def _note(self, count: int) -> None:
        total = (self._totals[-1] if self._totals else 0) + count
        # A time is of use to a reader only once its total is there, so the total comes first.
        self._totals.append(total)
        self._times.append(time.monotonic())

    def _send(self) -> None:
        # An error is the other side gone, or the end of the context.
        with contextlib.suppress(OSError):
            self._sender = self._listener.accept()[0]
            left = self.size
            while left:
                left -= self._sender.send(BLOCK[:left])

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            self._receiver.connect(self._listener.getsockname())
            while count := len(self._receiver.recv(1 << 16)):
                self._note(count)
