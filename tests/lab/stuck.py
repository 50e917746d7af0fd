"""Runs a tunnel that does nothing at its time any more as soon as /etc/lab-stuck is there.

A script of its own: it runs in the service, under the Python of a clean Debian.
"""

import os
import sys

from glorytun.cli.main import run
from glorytun.core.tunnel import Tunnel

_on_timeout = Tunnel.on_timeout


def on_timeout(tunnel: Tunnel, now: int) -> None:
    """As ever, unless it is to be stuck."""
    if not os.path.exists("/etc/lab-stuck"):
        _on_timeout(tunnel, now)


if __name__ == "__main__":
    Tunnel.on_timeout = on_timeout  # type: ignore[assignment, method-assign]  # what is tested
    sys.argv = ["glorytun", "run", sys.argv[1]]
    run()
