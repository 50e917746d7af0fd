"""`glorytun show`: show a running tunnel and its paths."""

from typing import Any

from glorytun.cli.common import DEVICE, JSON, print_json
from glorytun.cli.render import render_bad, render_paths, render_tunnel
from glorytun.cli.words import Flag, Options
from glorytun.control.client import ask
from glorytun.control.messages import Bad, Show
from glorytun.net.clock import Clock

OPTIONS: Options = (
    DEVICE,
    Flag(word="bad", key="bad", help="show which datagrams were dropped, and why."),
    JSON,
)


def run(found: dict[str, Any]) -> int:
    """Print the tunnel and its paths, or what it dropped."""
    bad = "bad" in found
    document = ask(Bad() if bad else Show(), found.get("device"))
    if "json" in found:
        print_json(document)
        return 0
    now = Clock().now() / 1e6
    if bad:
        print(render_bad(document["bad"], now=now))
    else:
        print(render_tunnel(document["tunnel"], now=now), end="\n\n")
        print(render_paths(document["paths"]))
    return 0
