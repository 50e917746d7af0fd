"""The event loop: epoll over a few descriptors. No protocol logic."""

import select
from collections.abc import Callable

_MILLISECOND = 1000


class Loop:
    """Calls back when descriptors can be read; level-triggered (epoll(7))."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` can be read, until `remove_reader`."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int) -> None:
        """Call back for `fd` no more."""
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def turn(self, timeout: int | None) -> None:
        """Wait up to `timeout` µs (None: for ever) and call back once for each ready descriptor."""
        self.call_back(self.wait(timeout))

    def wait(self, timeout: int | None) -> list[tuple[int, int]]:
        """The first half of `turn`; what it returns is for `call_back`."""
        # Rounded up: a timer that is called a little too early would spin until it is due.
        seconds = None if timeout is None else -(-max(timeout, 0) // _MILLISECOND) / 1000
        return self._epoll.poll(seconds)

    def call_back(self, ready: list[tuple[int, int]]) -> None:
        """The second half of `turn`."""
        for fd, _ in ready:
            callback = self._callbacks.get(fd)
            if callback is not None:  # An earlier callback of this turn may have removed it.
                callback()

    def close(self) -> None:
        self._epoll.close()
