"""Answers to all questions, and the files that they may come from."""

import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from glorytun.config import nearest, quote
from glorytun.errors import SetupError
from glorytun_setup.questions import QUESTIONS, Known, Question
from glorytun_setup.words import write_all, write_yes

_LARGEST = 2**63 - 1
"""What a number in TOML may be, and more than any answer is."""

Ask = Callable[[Question, Known, str, str], Any]
"""Asks a question, whose default is the first text, with a remark: returns the value."""


def settle(
    given: Mapping[str, str],
    known: Known,
    *,
    saved: Mapping[str, str] | None = None,
    ask: Ask | None = None,
) -> Known:
    """Every question answered: by a given text, else by the invitation, else asked.

    Without `ask` what was saved another time is taken, else the default, which are proposed
    otherwise. Raises SetupError for the first answer that is wrong or missing.
    """
    for question in QUESTIONS:
        if question.applies(known):
            value = _settle(question, given, known, saved or {}, ask)
            known = known.and_also(question.name, value)
        elif question.name in given:
            raise SetupError(f"{question.given_as}: a {known.given['role']} has no such thing")
    return known


def _settle(
    question: Question,
    given: Mapping[str, str],
    known: Known,
    saved: Mapping[str, str],
    ask: Ask | None,
) -> Any:
    if question.name in given:
        # Also the empty one: it is a wrong answer and not the default.
        return _checked(question, given[question.name], known, hint="")
    text = question.preset(known)
    if text:
        hint = f"it is the invitation that says so; {question.option} says otherwise"
        return _checked(question, text, known, hint=hint)
    text, remark = _proposed(question, known, saved)
    if ask and question.is_asked:
        return ask(question, known, text, remark)
    if remark and question.is_asked:
        raise SetupError(f"{question.given_as}: {remark}", hint=f"{question.option} says otherwise")
    if not text:
        raise SetupError(
            "; ".join(
                (
                    f"{question.given_as}: there is no answer, and none to propose",
                    *question.found(known),
                )
            ),
            hint=f"give it with {question.option}, or in the file of --answers",
        )
    return _checked(question, text, known, hint="")


def _checked(question: Question, text: str, known: Known, *, hint: str) -> Any:
    try:
        return question.answer(text, known)
    except ValueError as error:
        complaint = question.complaint(text, error)
        raise SetupError(f"{question.given_as}: {complaint}", hint=hint) from None


def _proposed(question: Question, known: Known, saved: Mapping[str, str]) -> tuple[str, str]:
    """What was saved, if it can still be, else the default and why."""
    text, remark = saved.get(question.name, ""), ""
    if text:
        try:
            question.answer(text, known)
            return text, ""
        except ValueError as error:
            remark = f"it was so till now, but {question.complaint(text, error)}"
    return question.default(known), remark


def written(known: Known) -> tuple[tuple[str, str], ...]:
    """The answers as texts by the question's name, without secrets."""
    return tuple(
        (question.name, question.write(known.given[question.name]))
        for question in QUESTIONS
        if question.name in known.given and not question.is_secret
    )


def read_toml(text: str) -> dict[str, str]:
    """The texts in a TOML file, by `Question.given_as`. Raises SetupError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # What it says is where, and no part of the text.
        raise SetupError(f"this is no TOML: {error}") from None
    except (ValueError, RecursionError):
        # Numbers of thousands of digits, lists of lists of lists …
        raise SetupError("this is no TOML with answers: it has what none of them has") from None
    names = [question.given_as for question in QUESTIONS]
    found = {}
    for name, value in document.items():
        if name not in names:
            raise SetupError(_unknown(name, names))
        found[name] = _text(name, value)
    return found


def _unknown(name: str, names: list[str]) -> str:
    if name in (question.name for question in QUESTIONS):
        return f"{name} is a secret, which has no place here: {name}_file names the file with it"
    near = nearest(name, names)
    return f"there is no question {quote(name)}" + (f": did you mean {near}?" if near else "")


def _text(name: str, value: object) -> str:
    match value:
        case bool():
            return write_yes(value)
        case str():
            return value
        case int() if abs(value) <= _LARGEST:
            return str(value)
        case list() if all(isinstance(item, str) for item in value):
            return write_all(tuple(value))
    raise SetupError(f"{name}: neither a text, a number, true, false, nor a list of texts")
