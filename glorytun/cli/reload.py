"""`glorytun reload`: let a running tunnel read its configuration file again."""

from typing import Any

from glorytun.cli.words import Options, Positional, Value
from glorytun.config import parse_device
from glorytun.control.client import ask
from glorytun.control.messages import Reload

OPTIONS: Options = (
    Positional(
        value=Value(key="name", name="NAME", parse=parse_device, fits=lambda _: True),
        help="the name of the tunnel; one that runs alone is found without.",
    ),
)


def run(found: dict[str, Any]) -> int:
    """Return when the file is in force; else it is refused as a whole and the old one stays."""
    ask(Reload(), found.get("name"))
    return 0
