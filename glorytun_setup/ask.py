"""The questions, asked on a terminal: Enter takes the default, a wrong answer is explained."""

from typing import Any

from glorytun_setup.questions import Known, Question
from glorytun_setup.screen import Screen


class Asker:
    """Asks one question after the other; it is what `answers.settle` takes as `ask`."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._is_begun = False

    def __call__(self, question: Question, known: Known, default: str, remark: str = "") -> Any:
        """The value of the answer. Raises Interrupted when none comes."""
        if not self._is_begun:
            self._is_begun = True
            self._screen.show("Enter takes what is in brackets, ? explains, Ctrl-C ends it all.")
        for line in (*question.found(known), *filter(None, [remark])):
            self._screen.show(f"  {line}")
        while True:
            text = self._read(question, default).strip() or default
            if text in ("", "?"):
                self._screen.show(f"  {question.help}")
                continue
            try:
                return question.answer(text, known)
            except ValueError as error:
                self._screen.show(f"  No: {question.complaint(text, error)}.")

    def _read(self, question: Question, default: str) -> str:
        prompt = f"{question.prompt} [{default}]" if default else question.prompt
        if question.is_secret:
            return self._screen.ask_secret(prompt)
        return self._screen.ask(prompt)
