"""Running the wizard in a booted system."""

import subprocess

from tests.lab.node import Node
from tests.unit.setup.person import Person

KEY = bytes(range(32)).hex()
KEY_FILE = "/run/lab-key"
"""Outside of what a snapshot compares."""
TIMEOUT = 80.0
SERVER = ("role", "name", "server", "port", "key", "addresses", "share")
"""The questions to who sets up a server."""
AGREE = "Shall all this be done"


def wizard(
    node: Node, *words: str, key: str = KEY, environment: tuple[str, ...] = (), check: bool = True
) -> subprocess.CompletedProcess[str]:
    """``glorytun-setup`` without a terminal; `key` is in KEY_FILE. Raises when it fails."""
    node.write(KEY_FILE, f"{key}\n", 0o600)
    command = ("env", *environment, "glorytun-setup", *words)
    return node.run(*command, check=check, timeout=TIMEOUT)


def person(node: Node, *words: str) -> Person:
    """Somebody who runs the wizard on a node."""
    # Ctrl-C is for the wizard alone, and not for nsenter, which waits for it in the foreground.
    inner = node.command(["env", "--default-signal=INT", "glorytun-setup", *words])
    return Person(["sh", "-c", 'trap "" INT; exec "$@"', "sh", *inner])


def set_up_server(node: Node, *words: str) -> None:
    """Make a server, that shares its Internet."""
    wizard(node, "--yes", "--role=server", f"--key-file={KEY_FILE}", *words)


def set_up_client(
    node: Node, server: str, *words: str, key: str = KEY, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Make a client of it."""
    options = ("--yes", "--role=client", f"--server={server}", f"--key-file={KEY_FILE}", *words)
    return wizard(node, *options, key=key, check=check)


def remove(node: Node, name: str = "tun0") -> None:
    """Take a tunnel away."""
    wizard(node, "remove", name, "--yes")
