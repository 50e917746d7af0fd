"""An event loop that is just large enough for the control server, in a thread of its own."""

import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from glorytun.control.messages import Request
from glorytun.control.server import ControlServer


class EpollLoop:
    """Calls back for each descriptor that can be read, until it is told to stop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._wake, self._waker = os.pipe()
        self._running = True
        self.add_reader(self._wake, self._stop)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int) -> None:
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def readers(self) -> int:
        """How many descriptors are watched, without our own."""
        return len(self._callbacks) - 1

    def turn(self, timeout: float = 0) -> bool:
        """Call back once for each descriptor that is ready; False when none was."""
        events = self._epoll.poll(timeout)
        for fd, _ in events:
            if fd in self._callbacks:
                self._callbacks[fd]()
        return bool(events)

    def settle(self) -> None:
        """Turn until nothing is ready any more."""
        while self.turn(0.05):
            pass

    def run(self) -> None:
        while self._running:
            self.turn(10)

    def stop(self) -> None:
        """From another thread: let `run` return."""
        os.write(self._waker, b"x")

    def close(self) -> None:
        os.close(self._wake)
        os.close(self._waker)
        self._epoll.close()

    def _stop(self) -> None:
        os.read(self._wake, 1)
        self._running = False


@contextmanager
def answering(path: Path, answer: Callable[[Request], dict[str, Any]]) -> Iterator[None]:
    """A control server at `path` that runs in a thread."""
    loop = EpollLoop()
    server = ControlServer(path, answer, loop)
    thread = Thread(target=loop.run)
    thread.start()
    try:
        yield
    finally:
        loop.stop()
        thread.join()
        server.close()
        loop.close()
