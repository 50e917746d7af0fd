"""A load that is more than a tunnel can carry, and what a process takes of memory meanwhile."""

import contextlib
import re
import socket
import threading
from pathlib import Path
from typing import Self

from tests.netns.tunnel import Tunnel, inside

_UDP_SEGMENT = 103
"""linux/udp.h."""


class Flood:
    """Small UDP packets as fast as they can be sent, to a port where nobody listens."""

    def __init__(self, source: Tunnel, target: Tunnel) -> None:
        self._socket = source.host.socket(4, socket.SOCK_DGRAM)
        self._to = (inside(4, target.end), 9)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._socket.setsockopt(socket.SOL_UDP, _UDP_SEGMENT, 64)

    def _send(self) -> None:
        data = bytes(64 * 60)
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                self._socket.sendto(data, self._to)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


def memory_of(pid: int) -> int:
    """Bytes of resident memory: VmRSS of proc_pid_status(5)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
