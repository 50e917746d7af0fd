"""The command line: what is said about wrong words, and that nothing secret is."""

import subprocess
import sys
from pathlib import Path

import pytest

from glorytun.errors import GlorytunError, SetupError
from glorytun_setup import cli
from glorytun_setup.clients import columns, parse_validity
from glorytun_setup.invitation import encode
from glorytun_setup.means import Busy, SetupFailure
from glorytun_setup.questions import QUESTIONS
from glorytun_setup.verify import Finding
from tests.unit.setup.samples import INVITATION, KEY

LINE = encode(INVITATION)


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit status, and the one line on standard error."""
    status = cli.main(list(words))
    said = capsys.readouterr().err
    assert said.startswith("glorytun-setup: ")
    assert said.count("\n") == 1
    return status, said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frob"], "invalid choice: 'frob'"),
        (["--frob"], "unrecognized arguments: --frob"),
        (["--nam=x"], "unrecognized arguments: --nam=x"),
        (["show"], "the following arguments are required: tunnel"),
        (["client", "add", "tun0"], "the following arguments are required: CLIENT"),
        (["client", "frob"], "invalid choice: 'frob' (choose from add, invite, list, revoke)"),
        (["--timeout", "soon"], "--timeout: 'soon' is no time"),
        (["--timeout", "1h"], "--timeout: '1h' must be from 1s to 10min"),
        ([f"--key={KEY.hex()}"], "unrecognized arguments: --key=(a key)"),
        (["--key", KEY.hex()], "invalid choice: '(a key)'"),
        ([LINE], "invalid choice: '(an invitation)'"),
        (["join", LINE], "unrecognized arguments: (an invitation)"),
    ],
)
def test_wrong_words_are_a_usage_error(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    status, said = complaint(capsys, *words)
    assert status == 2
    assert message in said
    assert KEY.hex() not in said
    assert LINE not in said


def test_help_names_every_question(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(question.option in shown for question in QUESTIONS)
    assert all(verb in shown for verb in ("join", "edit", "list", "show", "remove", "client"))


@pytest.mark.parametrize("verb", ["join", "edit", "list", "show", "remove", "client"])
def test_every_verb_has_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([verb, "--help"])
    assert f"glorytun-setup {verb}" in capsys.readouterr().out


def test_options_count_more_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "answers.toml"
    file.write_text('name = "a"\nport = 1\n')
    words = {"answers": str(file), "name": "b", "tunnel": "c"}
    assert cli._given(words) == {"name": "b", "port": "1"}


def test_secrets_are_read_from_their_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY.hex()}\n")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "invitation").write_text(f"\n {LINE}\n")
    names = {name: str(tmp_path / name) for name in ("key", "invitation")}
    words = {f"{name}_file": path for name, path in names.items()}
    assert cli._given(words) == {"key": KEY.hex(), "invitation": LINE}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("answers", "/no/such/file", "--answers: '/no/such/file' can't be read: No such file"),
        ("answers", "/", "--answers: '/' can't be read: Is a directory"),
        ("invitation_file", LINE, "invitation_file takes the name of a file"),
        ("invitation_file", KEY.hex(), "invitation_file takes the name of a file"),
        ("key_file", KEY.hex(), "this is a key where the name of a key file is needed"),
        ("answers", "a\0b", "'a\\x00b' is no name of a file"),
        ("invitation_file", "a\0b", "'a\\x00b' is no name of a file"),
        ("key_file", "a\0b", "'a\\x00b' is no name of a file"),
        ("key_file", "/no/such/file", "key file /no/such/file: No such file"),
    ],
)
def test_files_that_cannot_be_read(option: str, value: str, message: str) -> None:
    with pytest.raises(GlorytunError, match=r"\w") as caught:
        cli._given({option: value})
    assert message in str(caught.value)
    assert KEY.hex() not in str(caught.value)
    assert LINE not in str(caught.value)


def test_a_file_of_answers_is_not_read_in_part(tmp_path: Path) -> None:
    file = tmp_path / "answers.toml"
    file.write_text('name = "a"\n' + "#" * 70000)
    with pytest.raises(GlorytunError, match="more than 65536 characters"):
        cli._given({"answers": str(file)})


def test_how_an_invitation_begins_is_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._complain(SetupError("this is no invitation, which begins with glorytun1-")) == 1
    assert capsys.readouterr().err.endswith("which begins with glorytun1-\n")


def test_help_ends_no_sentence_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert not [sign for sign in ("?.", "..", ":.") if sign in capsys.readouterr().out]


def test_memory_is_for_nobody_else() -> None:
    code = (
        "import ctypes, resource; from glorytun_setup.cli import keep_memory; keep_memory();"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "(0, 0) 0\n", result.stderr


def test_a_failure_says_why_and_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    failure = SetupFailure(
        "vpn did not answer",
        findings=[Finding(text="no route", hint="look there")],
        log=["one", f"key {KEY.hex()}"],
    )
    assert cli._explain(failure) == 1
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "",
        "glorytun-setup: vpn did not answer",
        "  no route",
        "    look there",
        "  Last lines of its journal:",
        "    one",
        "    key (a key)",
        "The host is as it was.",
    ]


def test_what_could_not_be_put_back_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._explain(SetupFailure("it failed", left=["/etc/a stays"])) == 1
    said = capsys.readouterr().err
    assert "    /etc/a stays\n" in said
    assert "The host is as it was." not in said


def test_validity_is_a_time_or_never() -> None:
    assert parse_validity("7d") == 7 * 86400
    assert parse_validity("never") == 0
    with pytest.raises(ValueError, match="must be from 1min to 366d, or never"):
        parse_validity("1s")


def test_columns_are_aligned() -> None:
    assert columns([("A", "BB"), ("cccc", "d")]) == "A     BB\ncccc  d"


def test_who_thinks_over_an_answer_makes_no_timer_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise Busy("another glorytun-setup is changing this host")

    monkeypatch.setattr(cli, "open_session", refuse)
    assert cli.main(["client", "expire", "tun0-bob"]) == 0
    assert cli.main(["remove", "tun0"]) == 1
    assert "another glorytun-setup" in capsys.readouterr().err
