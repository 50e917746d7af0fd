"""`glorytun keygen`: make a secret key."""

import os
import stat
import sys
from typing import Any

from glorytun.cli.words import Options
from glorytun.errors import KeyFileError
from glorytun.keyfile import KEY_SIZE, chmod_hint, open_bits
from glorytun.net.clock import entropy

OPTIONS: Options = ()


def run(found: dict[str, Any]) -> int:
    """Print a new key; warn when it goes into a file that others can read."""
    if sys.stdout is None:
        raise KeyFileError("standard output is closed", hint="`glorytun keygen > FILE`")
    print(entropy(KEY_SIZE).hex())
    status = os.fstat(sys.stdout.fileno())
    if stat.S_ISREG(status.st_mode) and open_bits(status.st_mode):
        print(f"glorytun: the key is open to other users ({_hint()})", file=sys.stderr)
    return 0


def _hint() -> str:
    try:
        return chmod_hint(os.readlink(f"/proc/self/fd/{sys.stdout.fileno()}"))
    except OSError:  # no /proc
        return chmod_hint("FILE")
