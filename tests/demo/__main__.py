"""`make demo`: run the demonstration, and leave nothing behind however it ends."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tests.demo.screen import Lines, Screen, Terminal
from tests.demo.story import Interrupted, Story, connect, make_key, two_hosts

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDED_BY_SIGNAL = 130


def main() -> int:
    """Exit status: 0, 1 when it failed, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--svg", type=Path, help="keep the last picture in this file")
    svg: Path | None = parser.parse_args().svg
    noted: list[int] = []
    # Only noted here: an exception in the middle of making a namespace would leave it behind.
    for number in SIGNALS:
        signal.signal(number, lambda number, _: noted.append(number))
    console = Console()
    screen = Terminal(console, svg=svg) if console.is_terminal or svg else Lines()
    problem = ""
    try:
        tell(screen, interrupted=lambda: bool(noted))
    except Exception as error:
        # A signal from the keyboard reaches the commands that run too, and makes them fail.
        problem = "interrupted" if noted or isinstance(error, Interrupted) else explain(error)
    finally:
        ignore_signals()
        screen.close()
        remove_namespaces()
    if problem:
        print(f"{problem}; nothing was left behind", file=sys.stderr)
    if noted:
        return ENDED_BY_SIGNAL
    return 1 if problem else 0


def tell(screen: Screen, *, interrupted: Callable[[], bool]) -> None:
    """The whole demonstration."""
    screen.say("two hosts in network namespaces and two links between them are made")
    with two_hosts() as (topology, tunnels, directory):
        try:
            key = make_key(directory / "key")
            screen.say("glorytun keygen made a secret key, glorytun bind runs on both hosts")
            pair = connect(topology, tunnels, key)
            screen.say("glorytun path up: a path over each link is running")
            story = Story(topology, pair.client, screen.show, screen.say, interrupted)
            screen.end(story.run())
            pair.client.stop()
            pair.server.stop()
        finally:
            ignore_signals()


def ignore_signals() -> None:
    """From now on, also in the commands that tidy up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def remove_namespaces() -> None:
    """Those of this process that are left, because it was interrupted while it made them."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        name = line.split()[0]
        if name.startswith(f"gt-{os.getpid()}-"):
            subprocess.run(["ip", "netns", "delete", name], check=True)


def explain(error: Exception) -> str:
    """What went wrong, in one line or with what the failed command said."""
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr or error.stdout or f"exit status {error.returncode}"
        return f"error: {' '.join(map(str, error.cmd))}: {said.strip()}"
    return f"error: {str(error).strip() or type(error).__name__}"


if __name__ == "__main__":
    sys.exit(main())
