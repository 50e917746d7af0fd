"""A key comes from a private file alone, and never shows up in an error."""

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from glorytun.errors import KeyFileError
from glorytun.keyfile import load_key

DIGITS = "00112233445566778899aabbccddeeff" * 2
KEY = bytes.fromhex(DIGITS)


def key_file(directory: Path, *, content: str = DIGITS, mode: int = 0o600) -> Path:
    path = directory / "my key"
    path.write_text(content)
    path.chmod(mode)
    return path


def refusal(path: Path | str) -> str:
    with pytest.raises(KeyFileError) as caught:
        load_key(str(path))
    assert DIGITS[:8] not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("content", [DIGITS, f"{DIGITS}\n", f" \t{DIGITS.upper()} \r\n\n"])
def test_64_hex_digits_are_a_key_whatever_white_space_is_around(
    tmp_path: Path, content: str
) -> None:
    assert load_key(str(key_file(tmp_path, content=content))) == KEY


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    assert load_key(str(key_file(tmp_path, mode=mode))) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o666])
def test_a_file_open_to_others_is_refused_with_the_chmod_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    path = key_file(tmp_path, mode=mode)
    assert refusal(path) == (
        f"{path} is open to other users (mode {mode:04o}) (`chmod 600 '{path}'` mends it)"
    )


def test_a_file_that_holds_no_key_had_better_stay_as_it_is(tmp_path: Path) -> None:
    path = key_file(tmp_path, content="root:x:0:0", mode=0o644)
    assert "chmod" not in refusal(path)
    assert "does not hold a key" in refusal(path)


def test_a_link_is_as_good_as_the_file_behind_it(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(key_file(tmp_path))
    assert load_key(str(link)) == KEY
    link.resolve().chmod(0o644)
    assert "is open to other users" in refusal(link)


def test_a_credential_of_the_service_is_taken_with_the_mode_systemd_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_key(str(key_file(tmp_path, mode=0o440))) == KEY
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "is open to other users" in refusal(key_file(elsewhere, mode=0o440))


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, mode=0o600)
    for path in (fifo, tmp_path, Path("/dev/null")):
        assert (
            refusal(path)
            == f"{path} is not a regular file (`glorytun bind … keyfile -` reads from a pipe)"
        )


def test_a_missing_file_is_told_how_to_make_a_key(tmp_path: Path) -> None:
    assert refusal(tmp_path / "k") == (
        f"key file {tmp_path}/k: No such file or directory (`glorytun keygen` makes a key)"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    os.seteuid(65534)
    try:
        assert refusal(path) == (
            f"key file {path}: Permission denied "
            "(it must belong to whoever runs the tunnel; the service's user is glorytun)"
        )
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "it has no hex digits"),
        (DIGITS[:-1], "it has 63 hex digits"),
        (DIGITS * 2, "it has 128 hex digits"),
        (DIGITS[:10] + "g" + DIGITS[11:], "character 11 is no hex digit"),
        (DIGITS[:32] + "\n" + DIGITS[32:], "character 33 is no hex digit"),
        ("\0" * 64, "character 1 is no hex digit"),
        (DIGITS + " " * 5000, "it has more than 4096 characters"),
    ],
)
def test_what_is_wrong_with_the_content_is_said_without_it(
    tmp_path: Path, content: str, reason: str
) -> None:
    path = key_file(tmp_path, content=content)
    assert refusal(path) == f"{path} does not hold a key of 64 hex digits: {reason}"


def test_a_key_in_place_of_a_file_name_is_not_repeated() -> None:
    assert refusal(DIGITS) == "this is a key where the name of a key file is needed"


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(DIGITS.encode() + b"\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert load_key("-") == KEY
    assert refusal("-") == (
        "standard input does not hold a key of 64 hex digits: it has no hex digits"
    )


def test_closed_standard_input_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal("-") == "standard input is closed, and the key was to come from there"


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    load_key(str(key_file(tmp_path)))
    refusal(tmp_path)
    refusal(key_file(tmp_path, mode=0o644))
    assert os.listdir("/proc/self/fd") == before
