"""The completion of shells: the table that is made, the script that reads it, and three shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from glorytun.cli.main import VERBS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs/completion"
BASH, ZSH, FISH = (
    SOURCE / name for name in ("bash/glorytun", "zsh/_glorytun", "fish/glorytun.fish")
)
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
PLACE = "/usr/share/glorytun/complete"
"""Where the package has the script; the shells' files name it."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all of it, where each part finds the others."""
    directory = tmp_path_factory.mktemp("completion")
    shutil.copy(SOURCE / "complete", directory)
    table = subprocess.run(
        [sys.executable, SOURCE / "commands.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    (directory / "commands.tsv").write_bytes(table)
    for source in (BASH, ZSH, FISH):
        text = source.read_text()
        assert PLACE in text
        (directory / source.parent.name).write_text(
            text.replace(PLACE, str(directory / "complete"))
        )
    return directory


def proposed(installed: Path, *words: str, command: str = "glorytun") -> list[str]:
    """What the script proposes for the last of the words."""
    result = subprocess.run(
        [installed / "complete", command, *words], capture_output=True, text=True, check=True
    )
    return [line.partition("\t")[0] for line in result.stdout.splitlines()]


def test_every_command_is_proposed(installed: Path) -> None:
    assert proposed(installed, "") == list(VERBS)


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        (["show", ""], {"dev", "bad", "json"}, {"up"}),
        # What was given isn't proposed again, nor what excludes it.
        (["show", "json", ""], {"dev", "bad"}, {"json"}),
        (["path", "up", ""], {"rate", "beat", "json"}, {"up", "down", "backup"}),
        # A group's words come after it.
        (["path", ""], {"rate"}, {"tx", "fixed"}),
        (["path", "rate", ""], {"tx", "rx", "fixed", "auto"}, {"rate", "up", "json"}),
        (["path", "rate", "tx", "5mbit", ""], {"rx", "fixed", "up"}, {"tx", "rate"}),
        # A value isn't taken for a word, whatever it is.
        (["show", "dev", "json", ""], {"bad", "json"}, {"dev"}),
        (["set", "tc", ""], {"CS0", "AF43", "EF"}, {"dev"}),
        (["bind", "keyfile", ""], {"/"}, {"to"}),
        (["bind", "to", ""], set(), {"dev"}),
        (["bind", "10.0.0.1", "5000", ""], {"to", "keyfile"}, {"5000"}),
        (["check", "tun0", ""], {"json"}, {"/"}),
        (["keygen", ""], set(), set(VERBS)),
        (["nothing", ""], set(), set(VERBS)),
        (["show", "dev", "up", "bad", ""], {"json"}, {"bad", "dev"}),
    ],
)
def test_what_may_follow(
    installed: Path, words: list[str], there: set[str], not_there: set[str]
) -> None:
    found = set(proposed(installed, *words))
    assert there <= found
    assert not not_there & found


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        ([""], {"join", "client", "--yes", "--role"}, {"add"}),
        (["--yes", ""], {"join", "--dry-run"}, {"--yes"}),
        (["--role", ""], {"client", "server"}, {"--role", "join"}),
        (["--answers", ""], {"/"}, {"join"}),
        (["--server", "client", ""], {"join", "--port"}, {"add"}),
        (["client", ""], {"add", "list", "revoke", "--yes"}, {"client", "join", "--role"}),
        (["--yes", "client", "add", "tun0", "home", ""], {"--qr", "--expires"}, {"--yes", "add"}),
        (["join", "--share", ""], {"yes", "no"}, {"--share"}),
        (["join", "--timeout", "5s", ""], {"--role"}, {"--timeout", "edit"}),
        (["--role=client", ""], {"join", "--port"}, {"--role", "server", "add"}),
        (["--role="], {"--role=client", "--role=server"}, {"client"}),
        (["join", "--share=y"], {"--share=yes"}, {"yes"}),
        (["--answers="], {"/"}, {"--answers=/"}),
        (["--yes=", ""], set(), {"--role"}),
        (["client", "add", "--expires=1d", ""], {"--qr"}, {"--expires"}),
    ],
)
def test_what_may_follow_in_the_wizard(
    installed: Path, words: list[str], there: set[str], not_there: set[str]
) -> None:
    found = set(proposed(installed, *words, command="glorytun-setup"))
    assert there <= found
    assert not not_there & found


def test_interfaces_are_proposed(installed: Path) -> None:
    found = proposed(installed, "--wans", "", command="glorytun-setup")
    assert sorted(found) == sorted(os.listdir("/sys/class/net"))


def test_addresses_of_this_host_are_proposed(installed: Path) -> None:
    """The same that `ip` shows: no loopback, no link-local ones."""
    shown = subprocess.run(
        ["ip", "-brief", "address", "show", "scope", "global"], capture_output=True, text=True
    ).stdout
    addresses = [word.split("/")[0] for word in shown.split() if "/" in word]
    found = [word for word in proposed(installed, "path", "") if "." in word or ":" in word]
    assert sorted(found) == sorted(addresses)


def test_every_word_has_its_help(installed: Path) -> None:
    for line in (installed / "commands.tsv").read_text().splitlines():
        fields = line.split("\t")
        assert len(fields) == 7
        assert all(fields)
        assert fields[-1] != "-"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file, alone in its directory."""
    file = tmp_path / "my_secret_key"
    file.touch()
    return file


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_the_file_for_bash_is_sound() -> None:
    """Without the first line of a script it isn't among those that the linters find."""
    subprocess.run(["shellcheck", str(BASH)], check=True)


def test_bash(installed: Path, key_file: Path) -> None:
    if not BASH_COMPLETION.exists():
        pytest.skip("bash-completion is not installed")
    shell = pexpect.spawn("bash", ["--norc", "--noprofile"], encoding="utf-8", timeout=10)
    shell.sendline(f"PS1='rea''dy '; bind 'set enable-bracketed-paste off'; . {BASH_COMPLETION}")
    shell.sendline(f". {installed}/bash; echo com''plete")
    shell.expect("complete")
    play(shell, key_file)


def test_zsh(installed: Path, key_file: Path, tmp_path: Path) -> None:
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "_glorytun").write_text((installed / "zsh").read_text())
    shell = pexpect.spawn("zsh", ["-f", "-i"], encoding="utf-8", timeout=10)
    shell.sendline(f"PS1='rea''dy '; unset zle_bracketed_paste; fpath=({functions} $fpath)")
    shell.sendline("autoload -Uz compinit; compinit -u -D; echo com''plete")
    shell.expect("complete")
    play(shell, key_file)


def play(shell: "pexpect.spawn[str]", key_file: Path) -> None:
    """Type what has one completion, and wait for it."""
    cases = {
        "glorytun pa": "path",
        "glorytun path rate f": "fixed",
        "glorytun set tc E": "EF",
        f"glorytun bind keyfile {key_file.parent}/my_": str(key_file),
        "glorytun-setup client rev": "revoke",
        "glorytun-setup --role s": "server",
        "glorytun-setup --role=cl": "--role=client",
        f"glorytun-setup --answers={key_file.parent}/my_": f"--answers={key_file}",
    }
    for typed, completed in cases.items():
        shell.expect("ready ")
        shell.send(f"{typed}\t")
        # What is typed comes back too, so only what was added is waited for.
        rest = completed.removeprefix(typed.split()[-1])
        shell.expect_exact(rest)
        shell.send("\x15\r")  # kills the line
    shell.sendeof()
    shell.close(force=True)


def test_fish(installed: Path, key_file: Path) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")

    def completed(line: str) -> list[str]:
        result = subprocess.run(
            ["fish", "--no-config", "-c", f"source {installed}/fish; complete -C $argv", line],
            capture_output=True,
            text=True,
            check=True,
        )
        return [line.partition("\t")[0] for line in result.stdout.splitlines()]

    assert completed("glorytun pa") == ["path"]
    assert completed("glorytun-setup client rev") == ["revoke"]
    assert completed("glorytun path rate ") == ["auto", "fixed", "rx", "tx"]
    assert completed(f"glorytun bind keyfile {key_file.parent}/") == [str(key_file)]
    assert completed("glorytun-setup --role=cl") == ["--role=client"]
    option = f"--answers={key_file.parent}/"
    assert completed(f"glorytun-setup {option}") == [f"{option}{key_file.name}"]
