"""Options and output that several verbs share."""

import json

from glorytun.cli.words import Flag, Keyword, Value
from glorytun.config import parse_device

DEVICE = Keyword(
    word="dev",
    value=Value(key="device", name="NAME", parse=parse_device),
    help="the tunnel on this device; one that runs alone is found without.",
)

JSON = Flag(word="json", key="json", help="print one JSON document (see docs/json.md).")


def print_json(document: dict[str, object]) -> None:
    """One document on standard output."""
    print(json.dumps(document, indent=2))
