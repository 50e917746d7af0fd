"""The questions as somebody at a terminal meets them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from glorytun_setup.invitation import encode
from tests.unit.setup.golden import PROJECT
from tests.unit.setup.person import END, INTERRUPT, Person, question
from tests.unit.setup.samples import INVITATION, KEY

COMMAND = [sys.executable, "-m", "tests.unit.setup.asking"]
# The role is asked first, so that its answer is the first line of each.
CLIENT = {
    "role": "",
    "name": "",
    "invitation": "",
    "server": "vpn.example.net",
    "port": "",
    "key": KEY.hex(),
    "wans": "",
    "addresses": "",
    "through": "",
}
SERVER = {
    "role": "server",
    "name": "",
    "server": "",
    "port": "",
    "key": "",
    "addresses": "",
    "share": "",
}
"""What is typed; empty is Enter alone."""
WRONG = {
    "role": "king",
    "name": "a/b",
    "invitation": "glorytun1-nonsense",
    "server": "no name",
    "port": "99999",
    "key": "12345",
    "wans": "eth77",
    "addresses": "10.77.0.1",
    "through": "10.0.0.1/8",
    "share": "perhaps",
}


@contextmanager
def person(role: str) -> Iterator[Person]:
    """Before the first question."""
    with Person([*COMMAND, role], cwd=PROJECT) as found:
        yield found


ROLES = pytest.mark.parametrize(
    ("role", "answers"), [("client", CLIENT), ("server", SERVER)], ids=["client", "server"]
)
EACH = pytest.mark.parametrize(
    ("role", "answers", "name"),
    [("client", CLIENT, name) for name in CLIENT] + [("server", SERVER, name) for name in SERVER],
    ids=[f"client-{name}" for name in CLIENT] + [f"server-{name}" for name in SERVER],
)


@ROLES
def test_enter_takes_the_defaults(role: str, answers: dict[str, str]) -> None:
    with person(role) as somebody:
        for name, text in answers.items():
            somebody.answer(name, text)
        assert somebody.wait_end() == 0
        assert f"role={role}" in somebody.seen
        assert "name=tun0" in somebody.seen
        assert "key=fresh" in somebody.seen
        assert KEY.hex() not in somebody.seen


@ROLES
def test_wrong_answers_are_explained_and_asked_again(role: str, answers: dict[str, str]) -> None:
    with person(role) as somebody:
        for name, text in answers.items():
            somebody.answer(name, WRONG[name])
            somebody.wait_for("  No: ")
            somebody.answer(name, text)
        assert somebody.wait_end() == 0
        for name in answers:
            is_shown = f"{WRONG[name]!r}" in somebody.seen
            assert is_shown is not question(name).is_secret


@ROLES
def test_a_question_mark_explains(role: str, answers: dict[str, str]) -> None:
    with person(role) as somebody:
        for name, text in answers.items():
            somebody.answer(name, "?")
            somebody.wait_for(question(name).help)
            somebody.answer(name, text)
        assert somebody.wait_end() == 0


@EACH
def test_ctrl_c_ends_it_at_any_question(role: str, answers: dict[str, str], name: str) -> None:
    """And the terminal shows again what is typed."""
    with person(role) as somebody:
        for before, text in answers.items():
            if before == name:
                break
            somebody.answer(before, text)
        somebody.press(name, INTERRUPT)
        assert somebody.wait_end() == 130
        assert "key=" not in somebody.seen


@EACH
def test_the_end_of_input_ends_it_at_any_question(
    role: str, answers: dict[str, str], name: str
) -> None:
    with person(role) as somebody:
        for before, text in answers.items():
            if before == name:
                break
            somebody.answer(before, text)
        somebody.press(name, END)
        assert somebody.wait_end() == 1
        assert "ended: there was no answer, and nothing is changed" in somebody.seen


def test_what_has_no_default_is_asked_until_there_is_an_answer() -> None:
    with person("client") as somebody:
        for name in ("role", "name", "invitation", "server"):
            somebody.answer(name, "")
        somebody.wait_for(question("server").help)
        somebody.answer("server", "192.0.2.1")
        somebody.answer("port", "")


def test_an_invitation_answers_most_questions() -> None:
    line = encode(INVITATION)
    with person("client") as somebody:
        for name, text in {"role": "", "name": "", "invitation": line, "wans": ""}.items():
            somebody.answer(name, text)
        somebody.answer("through", "")
        assert somebody.wait_end() == 0
        assert "server=vpn.example.net" in somebody.seen
        assert line[:20] not in somebody.seen


@pytest.mark.parametrize("name", ["invitation", "key"])
def test_secrets_are_not_shown_while_they_are_typed(name: str) -> None:
    following = {"invitation": "server", "key": "wans"}[name]
    with person("client") as somebody:
        for before, text in CLIENT.items():
            if before == name:
                break
            somebody.answer(before, text)
        somebody.wait_for(question(name).prompt)
        assert not somebody.shows_typing
        somebody.type(CLIENT[name])
        somebody.wait_for(question(following).prompt)
        assert somebody.shows_typing


def test_without_a_terminal_nothing_secret_is_asked() -> None:
    """Its echo can't be switched off."""
    result = subprocess.run(
        [*COMMAND, "client"], cwd=PROJECT, input="\n\n", capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "ended: this terminal can't keep a secret: it would show it" in result.stdout
    assert not re.search("Traceback", result.stderr)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape", "ascii:strict"])
def test_what_is_no_text_is_refused(encoding: str) -> None:
    """Python's standard input has it one way or the other, as the locale is.

    And standard output, which may not be able to show it.
    """
    result = subprocess.run(
        [*COMMAND, "client"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        input=b"\xff\xfe\n\n\n",
        capture_output=True,
    )
    assert b"is not one of client, server." in result.stdout
    assert b"Traceback" not in result.stderr
