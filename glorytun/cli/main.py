"""The command line: finds the verb, and turns errors into one line and an exit status."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, Protocol, cast

from glorytun.cli import words
from glorytun.config import quote
from glorytun.errors import ConfigError, GlorytunError, UsageError

VERBS = {
    "bind": "run a tunnel",
    "run": "run a tunnel as its configuration file says",
    "reload": "let a running tunnel read its configuration file again",
    "check": "check a configuration file, and show what it means",
    "show": "show a running tunnel and its paths",
    "list": "list the running tunnels",
    "path": "list the paths of a tunnel, or change one",
    "set": "change the settings of a tunnel",
    "keygen": "make a secret key",
    "bench": "measure how fast this machine encrypts",
    "version": "show the version",
}
"""Every verb and what it does. Its module, of the same name, is imported when it is called."""

_HELP = ("help", "-h", "--help")

INTERRUPTED = 130
"""Exit status: 128 + SIGINT, as shells have it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE."""


class Verb(Protocol):
    """What the module of a verb has."""

    OPTIONS: words.Options
    run: Callable[[dict[str, Any]], int]
    """Takes the parsed values by key; returns the exit status."""


def run() -> NoReturn:
    """The console script."""
    try:
        status = main(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        status = BROKEN_PIPE
    except OSError as error:
        # What no layer below has words for, such as a full disk behind standard output.
        _discard_output()
        status = _complain(GlorytunError(str(error)))
    sys.exit(status)


def main(argv: list[str]) -> int:
    """Run the verb that `argv` begins with, and return the exit status."""
    # What NumPy brings would start a thread for each core, and has nothing to do here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return _dispatch(argv)
    except GlorytunError as error:
        return _complain(error)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in _HELP:
        print(_list_verbs())
        return 0
    name, *rest = argv
    if name == "--version":
        name = "version"
    if name not in VERBS:
        raise UsageError(
            f"unknown command {quote(name)}{words.did_you_mean(name, set(VERBS))}",
            hint="`glorytun` lists the commands",
        )
    verb = cast(Verb, importlib.import_module(f"glorytun.cli.{name}"))
    if rest and rest[0] in _HELP:
        print(_help(name, verb))
        return 0
    return verb.run(words.parse(name, verb.OPTIONS, rest))


def _list_verbs() -> str:
    rows = "\n".join(f"  {name:<8}  {text}" for name, text in VERBS.items())
    return (
        f"usage: glorytun COMMAND [...]\n\n{rows}\n\n"
        "`glorytun COMMAND help` explains a command. Words may come in any order."
    )


def _help(name: str, verb: Verb) -> str:
    text = f"{words.usage(name, verb.OPTIONS)}\n\n{VERBS[name].capitalize()}."
    return f"{text}\n\n{words.describe(verb.OPTIONS)}" if verb.OPTIONS else text


def _complain(error: GlorytunError) -> int:
    """Say on one line what is wrong, even if a file name breaks lines."""
    if "JOURNAL_STREAM" in os.environ and _log(error):
        return error.exit_status
    if isinstance(error, ConfigError) and error.problems:
        # It points at places in a file, over lines of its own.
        print(error, file=sys.stderr)
    else:
        print("glorytun:", " ".join(str(error).split()), file=sys.stderr)
    return error.exit_status


def _log(error: GlorytunError) -> bool:
    """Say it in the journal, with its priority and fields, where stderr leads there."""
    # Not at the top: it loads logging, and `show` is to answer at once.
    from glorytun import journal

    if not journal.stderr_is_journal():
        return False
    import logging

    from glorytun.report import log_error

    journal.start()
    log_error(logging.getLogger("glorytun"), error)
    return True


def _discard_output() -> None:
    """Let what is still buffered go nowhere, or its flush at exit would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
