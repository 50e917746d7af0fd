"""`glorytun list`: list the running tunnels."""

from typing import Any

from glorytun.cli.common import JSON, print_json
from glorytun.cli.render import render_list
from glorytun.cli.words import Options
from glorytun.control.client import ask, find_tunnels
from glorytun.control.messages import Show
from glorytun.errors import NoTunnelError

OPTIONS: Options = (JSON,)

_KEYS = ("device", "pid", "role", "bind", "peer")


def run(found: dict[str, Any]) -> int:
    """Print a line for each tunnel."""
    tunnels = []
    for device in find_tunnels():
        try:
            tunnel = ask(Show(), device)["tunnel"]
        except NoTunnelError:
            continue  # stopped since it was found
        tunnels.append({key: tunnel[key] for key in _KEYS})
    if "json" in found:
        print_json({"tunnels": tunnels})
    else:
        print(render_list(tunnels))
    return 0
