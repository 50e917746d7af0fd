"""The user's terminal: what is asked there and shown, also where it is none."""

import io
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from glorytun.errors import SetupError
from glorytun_setup.terminal import Interrupted

_LONGEST = 8192
"""Characters of an answer."""


class Screen:
    """Standard input and output."""

    def __init__(self) -> None:
        if sys.stdin is None or sys.stdout is None:
            raise SetupError("standard input or output is closed")
        if isinstance(sys.stdout, io.TextIOWrapper):
            # An answer may have what this terminal's encoding can't show.
            sys.stdout.reconfigure(errors="backslashreplace")
        self.can_ask = sys.stdin.isatty() and sys.stdout.isatty()
        """Whether somebody is there to be asked."""
        self._is_within = False
        """Whether the line of a step has still to be ended."""

    def show(self, text: str = "") -> None:
        """Some lines."""
        self._end_line()
        print(text, flush=True)

    def ask(self, prompt: str) -> str:
        """A line that is typed, without its end. Raises Interrupted when none comes."""
        print(f"{prompt}: ", end="", flush=True)
        return self._read()

    def ask_secret(self, prompt: str) -> str:
        """The same, of which nothing is shown. Raises SetupError where that can't be."""
        with _unseen():
            print(f"{prompt}: ", end="", flush=True)
            try:
                return self._read()
            finally:
                print(flush=True)  # The end of the line that isn't shown either.

    def confirm(self, prompt: str, *, default: bool) -> bool:
        """Whether the user agrees."""
        choices = "Y/n" if default else "y/N"
        while True:
            word = self.ask(f"{prompt} [{choices}]").strip().lower()
            if not word:
                return default
            if word in ("y", "yes", "n", "no"):
                return word[0] == "y"
            self.show("  yes or no?")

    def begin(self, text: str) -> None:
        """A step begins."""
        self._end_line()
        print(f"  {text} ... ", end="", flush=True)
        self._is_within = True

    def end(self, seconds: float, *, is_done: bool) -> None:
        """It is done, or failed."""
        self._is_within = False
        print(f"{'done' if is_done else 'FAILED'} ({seconds:.1f} s)", flush=True)

    def _end_line(self) -> None:
        if self._is_within:
            self._is_within = False
            print(flush=True)

    def _read(self) -> str:
        try:
            line = checked(sys.stdin.readline(_LONGEST))
        except UnicodeError:
            # Not a word of it is shown.
            return "\N{REPLACEMENT CHARACTER}"
        if not line:
            raise Interrupted("there was no answer, and nothing is changed")
        return line.rstrip("\n")


def checked(text: str) -> str:
    """A text that is one: Python lets bytes that are none pass in the locale C.

    Raises UnicodeError.
    """
    text.encode()
    return text


def read_secret(prompt: str) -> str:
    """All that standard input has; on a terminal a line, of which nothing is shown.

    Standard output may be no terminal. Raises SetupError.
    """
    try:
        if not sys.stdin.isatty():
            return checked(sys.stdin.read(_LONGEST))
        with _unseen():
            print(f"{prompt}: ", end="", file=sys.stderr, flush=True)
            try:
                return checked(sys.stdin.readline(_LONGEST))
            finally:
                print(file=sys.stderr, flush=True)
    except UnicodeError:
        raise SetupError("what standard input has is no text in UTF-8") from None


@contextmanager
def _unseen() -> Iterator[None]:
    """The terminal doesn't show what is typed (termios(3), ECHO)."""
    try:
        before = termios.tcgetattr(sys.stdin)
    except termios.error as error:
        raise SetupError(
            "this terminal can't keep a secret: it would show it",
            hint="give the name of a file that holds it, as --help says",
        ) from error
    hidden = before.copy()
    hidden[3] &= ~termios.ECHO
    # Or what ends us would leave a terminal that shows nothing.
    handlers = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGQUIT, signal.SIGTERM)
    }
    termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, hidden)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
