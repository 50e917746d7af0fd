"""Somebody at a terminal, who answers questions."""

import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pexpect

from glorytun_setup.questions import QUESTIONS, Question

INTERRUPT, END = "\x03", "\x04"
"""Ctrl-C and Ctrl-D."""
PATIENCE = 60
"""Seconds for anything to be shown."""


def question(name: str) -> Question:
    """By its name."""
    return next(each for each in QUESTIONS if each.name == name)


def _restore_signals() -> None:
    """A shell's background job ignores them, and so would what the tests start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Person:
    """While in context, the command runs on a terminal of its own."""

    def __init__(self, command: Sequence[str], *, cwd: Path | None = None) -> None:
        self._child = pexpect.spawn(
            command[0],
            list(command[1:]),
            cwd=str(cwd) if cwd else None,
            encoding="utf-8",
            timeout=PATIENCE,
            dimensions=(50, 120),
            preexec_fn=_restore_signals,
        )
        self.seen = ""
        """All that was shown so far."""
        self.answers = 0
        """How many were given."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.close(force=True)

    def wait_for(self, text: str) -> None:
        """Until it is shown."""
        self._child.expect_exact(text)
        self.seen += self._child.before + self._child.after

    def type(self, text: str) -> None:
        """And press Enter."""
        self.answers += 1
        self._child.sendline(text)

    def answer(self, name: str, text: str = "") -> None:
        """Wait for a question of the table, to its end, and answer it."""
        self._wait_for_question(name)
        self.type(text)

    def confirm(self, prompt: str, text: str = "") -> None:
        """Wait for what is to be agreed to, and say so."""
        self.wait_for(prompt)
        self._child.expect(r" \[./.\]: ")
        self.type(text)

    def press(self, name: str, key: str) -> None:
        """Wait for a question, and press a key alone."""
        self._wait_for_question(name)
        self.send(key)

    def send(self, key: str) -> None:
        """Press a key alone."""
        self._child.send(key)

    def wait_end(self) -> int:
        """The exit status."""
        self._child.expect(pexpect.EOF)
        self.seen += self._child.before
        self._child.close()
        status: int | None = self._child.exitstatus
        assert status is not None, self._child.signalstatus
        return status

    @property
    def shows_typing(self) -> bool:
        """Whether the terminal does."""
        shows: bool = self._child.getecho()
        return shows

    def _wait_for_question(self, name: str) -> None:
        self.wait_for(question(name).prompt)
        self._child.expect(r"( \[[^\r\n]*\])?: ")
        self.seen += self._child.before + self._child.after
