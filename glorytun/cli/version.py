"""`glorytun version`: show the version."""

from typing import Any

from glorytun import __version__
from glorytun.cli.words import Options

OPTIONS: Options = ()


def run(found: dict[str, Any]) -> int:
    """Print the version alone, for scripts."""
    print(__version__)
    return 0
