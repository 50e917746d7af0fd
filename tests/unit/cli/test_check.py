"""`glorytun check` and `run`: what they print, and with what exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glorytun.cli import check, findings, words
from glorytun.cli import run as run_verb
from glorytun.errors import KeyFileError, ResolveError, UsageError

KEY = "0123456789abcdef" * 4
CLIENT = "[Tunnel]\nPeer=127.0.0.9\n[Path]\nLocal=lo\n[Path]\nLocal=192.0.2.77\nState=backup\n"
"""Of a host without links: what there is with some is tested in namespaces."""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of /etc/glorytun."""
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return tmp_path


@pytest.fixture
def key(directory: Path) -> Path:
    return write_key(directory / "tun0.key")


def write_key(path: Path, *, mode: int = 0o600, text: str = KEY) -> Path:
    path.touch(mode)
    path.chmod(mode)
    path.write_text(text)
    return path


def write(directory: Path, text: str) -> Path:
    path = directory / "tun0.conf"
    path.write_text(text)
    return path


def glorytun(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "glorytun", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert KEY not in done.stdout + done.stderr
    return done


def output(*words: str) -> str:
    done = glorytun(*words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def document(*words: str) -> Any:
    return json.loads(glorytun(*words, "json").stdout)


def rows(text: str) -> list[list[str]]:
    """What is set, and what is said of it."""
    return [line.strip().split("  ", 1) for line in text.splitlines() if line.startswith("  ")]


def note(text: str, setting: str) -> str:
    return next(row[1].strip() if row[1:] else "" for row in rows(text) if row[0] == setting)


class TestText:
    def test_every_option_is_shown_with_its_value(self, directory: Path, key: Path) -> None:
        path = write(directory, "[Tunnel]\nPort=7\nKeyRotation=5400\nFirewallMark=42\n")
        assert output("check", "tun0") == (
            f"{path}: a server\n"
            "\n"
            "[Tunnel]\n"
            "  Bind=::                           default\n"
            "  Port=7\n"
            "  Peer=                             default\n"
            "  PeerPort=5000                     default\n"
            f"  {f'KeyFile={key}':<32}  default, holds a key\n"
            "  Cipher=auto                       default\n"
            "  KeyRotation=1h 30min\n"
            "  TimeTolerance=10min               default\n"
            "  KeepAlive=25s                     default\n"
            "  TrafficClass=CS6                  default\n"
            "  Redundant=off                     default\n"
            "  FirewallMark=0x2a\n"
            "  Reorder=auto                      default\n"
        )

    def test_sections_without_a_link_make_no_path(self, directory: Path, key: Path) -> None:
        write(directory, CLIENT + "[Path]\nLocal=none*\n")
        text = output("check", "tun0")
        assert text.startswith(f"{directory}/tun0.conf: a client of 127.0.0.9\n")
        assert "\n  makes no path over lo: it leads nowhere but to this host\n" in text
        assert note(text, "Local=lo") == ""
        assert note(text, "Local=none*") == "this host has no such interface now"
        assert note(text, "Local=192.0.2.77") == (
            "no interface that is up and connected has this address now"
        )
        assert note(text, "State=backup") == ""
        assert text.count("\n[Path]\n") == 3

    def test_a_name_is_resolved(self, directory: Path, key: Path) -> None:
        write(directory, CLIENT.replace("127.0.0.9", "localhost") + "Peer=127.0.0.8\n")
        text = output("check", "tun0")
        assert "127.0.0.1" in note(text, "Peer=localhost")
        assert note(text, "Peer=127.0.0.8") == ""

    def test_a_file_is_checked_wherever_it_lies(self, directory: Path, key: Path) -> None:
        path = write(directory, "[Tunnel]\n")
        assert output("check", str(path)) == output("check", "tun0")


class TestWarnings:
    def test_they_go_to_standard_error(self, directory: Path, key: Path) -> None:
        path = write(directory, "[Tunnel]\nPrt=7\n")
        done = glorytun("check", "tun0")
        assert done.returncode == 0
        assert done.stderr == (
            f"{path}:2:1: warning: there is no Prt= in [Tunnel], and it is ignored: "
            "did you mean Port=?\n  Prt=\n  ^\n"
        )
        assert done.stdout.startswith(f"{path}: a server\n")

    def test_a_name_that_does_not_resolve_may_do_so_later(
        self,
        directory: Path,
        key: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail(host: str, port: int, **families: bool) -> None:
            raise ResolveError(f"{host} can't be resolved now")

        monkeypatch.setattr("glorytun.net.names.resolve", fail)
        write(directory, CLIENT.replace("127.0.0.9", "vpn.example.net"))
        assert check.run(words.parse("check", check.OPTIONS, ["tun0"])) == 0
        text, warnings = capsys.readouterr()
        assert warnings == "glorytun: warning: vpn.example.net can't be resolved now\n"
        assert note(text, "Peer=vpn.example.net") == "does not resolve now"

    def test_a_key_that_only_root_may_read_is_not_checked(
        self,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail(path: str) -> None:
            raise KeyFileError(f"key file {path}: Permission denied") from PermissionError()

        monkeypatch.setattr(findings, "load_key", fail)
        write(directory, "[Tunnel]\nKeyFile=/a/key\n")
        assert check.run(words.parse("check", check.OPTIONS, ["tun0"])) == 0
        text, warnings = capsys.readouterr()
        assert warnings == (
            "glorytun: warning: key file /a/key: Permission denied, so that it was not checked\n"
        )
        assert note(text, "KeyFile=/a/key") == "not checked"

    def test_a_key_that_the_service_cannot_read(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is good for who runs the check; the service is another user, who sees no homes."""
        monkeypatch.setattr(findings, "load_key", lambda _: bytes(32))
        service = SimpleNamespace(pw_uid=os.getuid() + 1)
        monkeypatch.setattr("glorytun.cli.findings.pwd.getpwnam", lambda _: service)
        key = directory / "other.key"
        key.touch()
        for path, message in (
            ("/root/key", "the service doesn't see /root/key (ProtectHome=)"),
            (str(key), f"the service runs as glorytun, to whom {key} doesn't belong"),
        ):
            write(directory, f"[Tunnel]\nKeyFile={path}\n")
            assert check.run(words.parse("check", check.OPTIONS, ["tun0"])) == 0
            assert capsys.readouterr().err == (
                f"glorytun: warning: {message} (leave out KeyFile=: systemd hands "
                "/etc/glorytun/NAME.key to the service)\n"
            )


class TestRefusals:
    def test_all_errors_go_to_standard_error(self, directory: Path) -> None:
        path = write(directory, "[Tunnel]\nPort=0\nPrt=1\nCipher=des\n")
        done = glorytun("check", "tun0")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"{path}:2:6: Port= '0' is no port: a number from 1 to 65535\n"
            "  Port=0\n"
            "       ^\n"
            f"{path}:3:1: warning: there is no Prt= in [Tunnel], and it is ignored: "
            "did you mean Port=?\n"
            "  Prt=\n"
            "  ^\n"
            f"{path}:4:8: Cipher= 'des' is not one of auto, aegis, aes, chacha\n"
            "  Cipher=des\n"
            "         ^\n"
        )

    def test_a_file_that_is_missing(self, directory: Path) -> None:
        done = glorytun("check", "tun0")
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            f"glorytun: configuration {directory}/tun0.conf: No such file or directory "
            "(the line [Tunnel] alone makes a server)\n",
        )

    def test_a_file_name_with_line_breaks_stays_on_one_line(self, directory: Path) -> None:
        (directory / "a\nb.conf").write_text("[Tunnel]\nPort=0\n")
        done = glorytun("check", str(directory / "a\nb.conf"))
        assert done.stderr.startswith(f"{directory}/a?b.conf:2:6: Port= '0' is no port")

    @pytest.mark.parametrize(
        ("text", "mode", "message"),
        [
            (KEY, 0o644, "is open to other users (mode 0644) (`chmod 600 {} ` mends it)"),
            ("x", 0o600, "does not hold a key of 64 hex digits: character 1 is no hex digit"),
        ],
    )
    def test_a_key_file_that_can_not_be_used(
        self, directory: Path, text: str, mode: int, message: str
    ) -> None:
        key = write_key(directory / "tun0.key", mode=mode, text=text)
        write(directory, "[Tunnel]\n")
        done = glorytun("check", "tun0")
        assert done.returncode == 1
        expected = message.format(key).replace(" ` mends", "` mends")
        assert done.stderr == f"glorytun: {key} {expected}\n"
        assert note(done.stdout, f"KeyFile={key}") == "default, can't be used"

    def test_a_key_file_that_is_missing(self, directory: Path) -> None:
        write(directory, "[Tunnel]\n")
        done = glorytun("check", "tun0")
        assert done.returncode == 1
        assert done.stderr == (
            f"glorytun: key file {directory}/tun0.key: No such file or directory "
            "(`glorytun keygen` makes a key)\n"
        )

    @pytest.mark.parametrize("verb", ["check", "run"])
    def test_a_name_is_needed(self, verb: str) -> None:
        done = glorytun(verb)
        assert (done.returncode, done.stdout) == (2, "")
        assert "glorytun: a NAME" in done.stderr

    @pytest.mark.parametrize("verb", ["check", "run"])
    def test_a_name_is_that_of_a_device(self, verb: str) -> None:
        done = glorytun(verb, "x" * 16)
        assert done.returncode == 2
        assert "is no device name" in done.stderr


class TestJson:
    def test_a_usable_file(self, directory: Path, key: Path) -> None:
        path = write(directory, CLIENT.replace("\n[", "\nReorder=auto\n[", 1) + "Quota=1K\n")
        found = document("check", "tun0")
        assert found["file"] == str(path)
        assert (found["usable"], found["errors"]) == (True, [])
        assert found["warnings"] == []
        assert found["tunnel"] == {
            "role": "client",
            "bind": "::",
            "port": 5000,
            "peer": "127.0.0.9",
            "peer_port": 5000,
            "peer_addresses": ["127.0.0.9"],
            "keyfile": str(key),
            "keyfile_problem": None,
            "cipher": "auto",
            "kxtimeout": 3600,
            "timetolerance": 600,
            "keepalive": 25,
            "traffic_class": 192,
            "redundant": "off",
            "firewall_mark": 0,
            "reorder": "auto",
        }
        assert found["paths"][0]["unused"] == {"lo": "it leads nowhere but to this host"}
        assert found["paths"][1] == {
            "local": "192.0.2.77",
            "kind": "address",
            "interfaces": {},
            "paths": [],
            "unused": {},
            "peer": None,
            "peer_addresses": ["127.0.0.9"],
            "state": "backup",
            "fixed_rate": False,
            "rate_tx": 0,
            "rate_rx": 0,
            "beat": 0.1,
            "loss_limit": 0.2,
            "delay_limit": 0,
            "preference": 0,
            "mode": "bulk",
            "cost": 0,
            "quota": 1024,
            "quota_day": 1,
        }

    def test_a_wrong_file(self, directory: Path) -> None:
        path = write(directory, "[Tunnel]\nPrt=1\nPort=0 # none\n")
        done = glorytun("check", "tun0", "json")
        assert done.returncode == 1
        assert done.stderr.startswith(f"{path}:2:1: warning: ")
        assert json.loads(done.stdout) == {
            "file": str(path),
            "usable": False,
            "errors": [
                {
                    "line": 3,
                    "column": 6,
                    "message": "Port= '0 # none' is no port: a number from 1 to 65535",
                    "hint": "a comment needs a line of its own",
                }
            ],
            "warnings": [
                {
                    "line": 2,
                    "column": 1,
                    "message": "there is no Prt= in [Tunnel], and it is ignored: "
                    "did you mean Port=?",
                    "hint": "",
                }
            ],
        }

    def test_a_file_that_is_missing(self, directory: Path) -> None:
        assert document("check", "tun0") == {
            "file": f"{directory}/tun0.conf",
            "usable": False,
            "errors": [
                {
                    "line": None,
                    "column": None,
                    "message": f"configuration {directory}/tun0.conf: No such file or directory",
                    "hint": "the line [Tunnel] alone makes a server",
                }
            ],
            "warnings": [],
        }

    def test_a_key_that_is_missing(self, directory: Path) -> None:
        write(directory, "[Tunnel]\n")
        found = document("check", "tun0")
        assert found["usable"] is False
        assert "No such file" in found["tunnel"]["keyfile_problem"]


class TestRun:
    """The daemon itself is tested in namespaces."""

    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
        started: list[tuple[str, Path]] = []

        def run_configured(name: str, file: Path) -> int:
            started.append((name, file))
            return 0

        monkeypatch.setattr("glorytun.daemon.run_configured", run_configured, raising=False)
        return started

    @pytest.mark.parametrize(
        ("line", "file"),
        [
            ("tun0", "{}/tun0.conf"),
            ("tun0 config /a/b", "/a/b"),
            ("config /a/b tun0", "/a/b"),
        ],
    )
    def test_the_daemon_is_told_the_name_and_the_file(
        self, started: list[tuple[str, Path]], directory: Path, line: str, file: str
    ) -> None:
        assert run_verb.run(words.parse("run", run_verb.OPTIONS, line.split())) == 0
        assert started == [("tun0", Path(file.format(directory)))]

    def test_one_name_is_enough(self) -> None:
        with pytest.raises(UsageError, match="given twice"):
            words.parse("run", run_verb.OPTIONS, ["tun0", "tun1"])
