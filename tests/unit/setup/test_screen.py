"""What is read from standard input, be it a terminal or not."""

import os
import subprocess
import sys

import pytest

from tests.unit.setup.golden import PROJECT
from tests.unit.setup.person import Person
from tests.unit.setup.samples import KEY

_CODE = "from glorytun_setup import cli; print(len(cli._given({{'{}_file': '-'}})['{}']))"


@pytest.mark.parametrize("name", ["key", "invitation"])
def test_a_secret_is_not_shown_also_where_the_output_goes_elsewhere(name: str) -> None:
    code = _CODE.format(name, name)
    script = f'{sys.executable} -c "$1" | cat'
    with Person(["sh", "-c", script, "sh", code], cwd=PROJECT) as somebody:
        somebody.wait_for("(not shown): ")
        assert not somebody.shows_typing
        somebody.type(KEY.hex())
        assert somebody.wait_end() == 0
        assert "64" in somebody.seen
        assert KEY.hex()[:16] not in somebody.seen


@pytest.mark.parametrize("key", ["\x03", "\x1c"], ids=["Ctrl-C", "Ctrl-backslash"])
def test_the_terminal_shows_what_is_typed_again_whatever_ended_it(key: str) -> None:
    script = f'trap "" INT QUIT; env --default-signal=INT {sys.executable} -c "$1"; stty -a'
    code = _CODE.format("key", "key")
    with Person(["sh", "-c", script, "sh", code], cwd=PROJECT) as somebody:
        somebody.wait_for("(not shown): ")
        somebody.send(key)
        assert somebody.wait_end() == 0
        assert "KeyboardInterrupt" in somebody.seen
        assert " echo " in somebody.seen


@pytest.mark.parametrize("option", ["key_file", "invitation_file", "answers"])
@pytest.mark.parametrize("mode", ["utf8=0", "utf8=1"])
def test_bytes_that_are_no_text_are_refused_in_a_line(option: str, mode: str) -> None:
    code = f"from glorytun_setup import cli; cli._given({{'{option}': '-'}})"
    command = [sys.executable, "-X", mode, "-c", code]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        command, input=b"\xff\xfe", capture_output=True, cwd=PROJECT, env=environment
    )
    assert result.stderr.decode().splitlines()[-1].endswith("no text in UTF-8")
    assert b"SetupError" in result.stderr


@pytest.mark.parametrize("name", ["key", "invitation"])
def test_a_secret_comes_from_a_pipe(name: str) -> None:
    command = [sys.executable, "-c", _CODE.format(name, name)]
    result = subprocess.run(
        command, input=KEY.hex() + "\n", text=True, capture_output=True, cwd=PROJECT
    )
    assert (result.stdout, result.stderr) == ("64\n", "")
