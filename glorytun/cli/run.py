"""`glorytun run`: run a tunnel as its configuration file says."""

from pathlib import Path
from typing import Any

from glorytun.cli.values import parse_file
from glorytun.cli.words import Keyword, Options, Positional, Value
from glorytun.config import parse_device
from glorytun.configfile import file_of
from glorytun.errors import ConfigError, KeyFileError

EX_CONFIG = 78
"""sysexits(3); the service is not started again after it, since it would only fail again."""

OPTIONS: Options = (
    Positional(
        value=Value(
            key="name", name="NAME", parse=parse_device, fits=lambda word: word != "config"
        ),
        needed="it is the TUN device's, and /etc/glorytun/NAME.conf is read",
        help="the name of the tunnel and of its TUN device.",
    ),
    Keyword(
        word="config",
        value=Value(key="file", name="FILE", parse=parse_file),
        help="the configuration file; /etc/glorytun/NAME.conf without (see docs/config.md).",
    ),
)


def run(found: dict[str, Any]) -> int:
    """Run the tunnel until it is told to stop."""
    from glorytun.daemon import run_configured  # loads the crypto libraries

    name = found["name"]
    file = Path(found["file"]) if "file" in found else file_of(name)
    try:
        return run_configured(name, file)
    except (ConfigError, KeyFileError) as error:
        error.exit_status = EX_CONFIG
        raise
