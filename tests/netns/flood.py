"""A load that is more than a tunnel can carry, and what a process takes of memory meanwhile."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.netns.tunnel import Tunnel, inside

_UDP_SEGMENT = 103
"""linux/udp.h."""


class Meanwhile:
    """What a thread does with a socket, again and again, while in context."""

    def __init__(self, used: socket.socket, work: Callable[[], object]) -> None:
        self._socket = used
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat)

    def _repeat(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                self._work()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


class Flood(Meanwhile):
    """Small UDP packets as fast as they can be sent, to a port where nobody listens."""

    def __init__(self, source: Tunnel, target: Tunnel) -> None:
        sender = source.host.socket(4, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_UDP, _UDP_SEGMENT, 64)
        data, to = bytes(64 * 60), (inside(4, target.end), 9)
        super().__init__(sender, lambda: sender.sendto(data, to))


def memory_of(pid: int) -> int:
    """Bytes of resident memory: VmRSS of proc_pid_status(5)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
