"""A process that asks all questions, for tests to answer them on a terminal.

``python -m tests.unit.setup.asking ROLE`` prints what was answered, or how it ended.
"""

import sys

from glorytun.errors import SetupError
from glorytun_setup.answers import settle, written
from glorytun_setup.ask import Asker
from glorytun_setup.screen import Screen
from tests.unit.setup.samples import CLIENT, SERVER, known

INTERRUPTED = 130


def main(role: str) -> int:
    """Ask as `glorytun-setup` does."""
    host = SERVER if role == "server" else CLIENT
    try:
        found = settle({}, known(host), ask=Asker(Screen()))
    except KeyboardInterrupt:
        return INTERRUPTED
    except SetupError as error:
        print(f"\nended: {error}")
        return 1
    for name, text in written(found):
        print(f"{name}={text}")
    print(f"key={'fresh' if found.key == known(host).fresh_key else 'other'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
