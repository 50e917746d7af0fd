"""The installed command: exit statuses, one-line errors, and its talk with a tunnel."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from glorytun import __version__
from glorytun.cli.bench import SIZES
from glorytun.cli.main import VERBS
from glorytun.control.messages import Set, SetPath
from glorytun.core.address import pack_address
from glorytun.core.crypto import available_ciphers
from glorytun.core.settings import PathChange, PathState, SettingsChange
from tests.unit.control.loop import answering
from tests.unit.control.samples import Daemon

COMMAND = [sys.executable, "-m", "glorytun"]
KEY = re.compile(r"[0-9a-f]{64}\n")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "run"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory))
    return directory


@pytest.fixture
def daemon(directory: Path) -> Iterator[Daemon]:
    """A tunnel's control socket, with a tunnel behind it that only remembers."""
    daemon = Daemon()
    with answering(directory / "tun0.sock", daemon.answer):
        yield daemon


def execute(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 60}
    return subprocess.run(command, check=False, **settings | options)


def glorytun(line: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return execute([*COMMAND, *line.split()], **options)


def output(line: str) -> str:
    done = glorytun(line)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


def failure(line: str, *, status: int = 1) -> str:
    done = glorytun(line)
    assert (done.returncode, done.stdout) == (status, "")
    assert re.fullmatch(r"glorytun: .+\n", done.stderr)
    return str(done.stderr)


@pytest.mark.parametrize("line", ["", "help", "--help"])
def test_alone_it_lists_the_commands(line: str) -> None:
    text = output(line)
    assert all(f"  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_explains_itself(verb: str) -> None:
    assert output(f"{verb} help").startswith(f"usage: glorytun {verb}")


@pytest.mark.parametrize("line", ["version", "--version"])
def test_the_version_stands_alone(line: str) -> None:
    assert output(line) == f"{__version__}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("showw", "unknown command 'showw': did you mean 'show'? (`glorytun` lists the commands)"),
        (
            "bind 0.0.0.0 keyfil K",
            "word 3 of the command, 'keyfil', is unknown: did you mean 'keyfile'? "
            "(see `glorytun bind help`)",
        ),
        (
            "bind 0.0.0.0",
            "a keyfile is needed (`glorytun keygen` makes the key that goes in there)",
        ),
        ("set", "there is nothing to set (see `glorytun set help`)"),
        ("set dev tun0", "there is nothing to set (see `glorytun set help`)"),
        (
            "path up beat 1s",
            "please name a path by its address (`glorytun path` lists them)",
        ),
    ],
)
def test_wrong_usage_exits_with_2(line: str, message: str) -> None:
    assert failure(line, status=2) == f"glorytun: {message}\n"


@pytest.mark.parametrize(
    "line", ["show", "show bad json", "path", "path 10.0.0.1 up", "set keepalive 20s"]
)
def test_without_a_tunnel_it_exits_with_1(line: str) -> None:
    assert (
        failure(line)
        == "glorytun: no tunnel is running (`systemctl start glorytun@NAME` starts one)\n"
    )


def test_a_key_file_that_is_missing_is_said() -> None:
    assert failure("bind 0.0.0.0 keyfile /nowhere/key") == (
        "glorytun: key file /nowhere/key: No such file or directory "
        "(`glorytun keygen` makes a key)\n"
    )


def test_an_error_is_one_line_whatever_it_names() -> None:
    done = execute([*COMMAND, "show", "dev", "a\nb"])
    assert done.stderr.count("\n") == 1


class TestKeygen:
    def test_a_key_is_64_hex_digits_and_never_the_same(self) -> None:
        keys = {output("keygen") for _ in range(3)}
        assert len(keys) == 3
        assert all(KEY.fullmatch(key) for key in keys)

    def test_a_file_that_others_can_read_is_warned_of(self, tmp_path: Path) -> None:
        path = tmp_path / "my key"
        path.touch()
        path.chmod(0o644)
        with path.open("w") as file:
            done = glorytun("keygen", stdout=file)
        assert done.returncode == 0
        assert done.stderr == (
            f"glorytun: the key is open to other users (`chmod 600 '{path}'` mends it)\n"
        )
        assert KEY.fullmatch(path.read_text())

    def test_a_private_file_is_fine(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        path.touch(mode=0o600)
        with path.open("w") as file:
            done = glorytun("keygen", stdout=file)
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_key_that_can_not_be_written_is_an_error(self) -> None:
        with open("/dev/full", "w") as full:
            done = glorytun("keygen", stdout=full)
        assert (done.returncode, done.stderr) == (
            1,
            "glorytun: [Errno 28] No space left on device\n",
        )

    def test_closed_output_is_an_error(self) -> None:
        done = glorytun("keygen", stdout=None, preexec_fn=lambda: os.close(1))
        assert done.returncode == 1
        assert done.stderr == "glorytun: standard output is closed (`glorytun keygen > FILE`)\n"


class TestWithATunnel:
    def test_show_prints_the_tunnel_and_its_paths(self, daemon: Daemon) -> None:
        text = output("show")
        assert text.startswith("tun0: client, pid 1234, running for ")
        assert text.count("\n\npath ") == 2

    def test_show_bad_prints_what_was_dropped(self, daemon: Daemon) -> None:
        text = output("show bad dev tun0")
        assert "the peer's clock is 15 min 2 s ahead" in text
        daemon.bad = []
        assert output("show bad") == "nothing was dropped\n"

    def test_list_prints_tunnels(self, daemon: Daemon) -> None:
        assert output("list").splitlines()[1].split() == [
            *("tun0", "1234", "client", "0.0.0.0:5000", "203.0.113.9:5000")
        ]

    @pytest.mark.parametrize(
        ("line", "shown"),
        [
            ("path", ["192.168.1.2", "2001:db8::2"]),
            ("path up", ["192.168.1.2"]),
            ("path backup dev tun0", ["2001:db8::2"]),
            ("path down", []),
            ("path 2001:DB8::2", ["2001:db8::2"]),
            ("path 2001:db8::1", ["2001:db8::2"]),
        ],
    )
    def test_path_lists_those_that_fit(self, daemon: Daemon, line: str, shown: list[str]) -> None:
        assert re.findall(r"^path (\S+)", output(line), re.MULTILINE) == shown
        document = json.loads(output(f"{line} json"))
        assert [path["local"] for path in document["paths"]] == shown
        assert daemon.changes == []

    def test_a_path_that_is_not_there_is_said(self, daemon: Daemon) -> None:
        assert failure("path 10.0.0.1") == (
            "glorytun: there is no path from or to 10.0.0.1 (`glorytun path` lists them)\n"
        )

    @pytest.mark.parametrize(
        "line",
        [
            "path up 192.168.1.2 rate tx 1mbit rx 20mbit",
            "path 192.168.1.2 up rate rx 20mbit tx 1mbit",
        ],
    )
    def test_a_change_of_a_path_is_sent(self, daemon: Daemon, line: str) -> None:
        assert output(line) == ""
        change = PathChange(state=PathState.UP, rate_tx=125_000, rate_rx=2_500_000)
        assert daemon.changes == [SetPath(address=pack_address("192.168.1.2"), change=change)]

    def test_a_change_of_a_path_shows_it_as_json(self, daemon: Daemon) -> None:
        document = json.loads(output("path 192.168.1.2 beat 200ms json"))
        assert [path["local"] for path in document["paths"]] == ["192.168.1.2"]
        assert len(daemon.changes) == 1

    def test_a_change_of_settings_is_sent(self, daemon: Daemon) -> None:
        assert output("set tc EF keepalive 20s") == ""
        change = SettingsChange(traffic_class=184, keepalive=20_000_000)
        assert daemon.changes == [Set(change=change)]

    @pytest.mark.parametrize(
        ("line", "keys"),
        [
            ("show json", {"tunnel", "paths"}),
            ("show bad json", {"bad"}),
            ("path json", {"paths"}),
            ("list json", {"tunnels"}),
        ],
    )
    def test_json_is_one_document(self, daemon: Daemon, line: str, keys: set[str]) -> None:
        assert json.loads(output(line)).keys() == keys

    def test_a_reader_that_leaves_is_no_error(self, daemon: Daemon) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        done = glorytun("show", stdout=writer)
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, "")


def test_an_interrupt_ends_without_a_traceback(directory: Path) -> None:
    done = subprocess.Popen(
        [*COMMAND, "bind", "keyfile", "-"],
        # A shell lets what it runs in the background ignore it, and all that this starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # It waits in read(2) of descriptor 0 when that is so for a while: proc_pid_syscall(5). Other
    # calls begin with a zero too, but return at once.
    call = Path(f"/proc/{done.pid}/syscall")
    waiting = 0
    while waiting < 10:
        assert done.poll() is None
        waiting = waiting + 1 if call.read_text().split()[1:2] == ["0x0"] else 0
        time.sleep(0.02)
    done.send_signal(signal.SIGINT)
    _, errors = done.communicate(timeout=30)
    assert (done.returncode, errors) == (130, "")


class TestBench:
    def test_every_cipher_is_measured(self) -> None:
        document = json.loads(output("bench json"))
        assert [entry["cipher"] for entry in document["ciphers"]] == available_ciphers()
        for entry in document["ciphers"]:
            assert [speed["size"] for speed in entry["speeds"]] == list(SIZES)
            assert all(speed["seal"] > 0 and speed["open"] > 0 for speed in entry["speeds"])

    def test_one_cipher_is_measured_alone(self) -> None:
        lines = output("bench chacha").splitlines()
        assert lines[0].split() == ["cipher", "bytes", "seal", "MB/s", "open", "MB/s"]
        assert {line.split()[0] for line in lines[1:]} == {"chacha20poly1305"}

    def test_a_cipher_that_is_missing_is_told_how_to_get(self) -> None:
        # A system without the package: one of its name is known to be absent.
        code = (
            "import importlib.util as util, sys\n"
            "find = util.find_spec\n"
            "util.find_spec = lambda name: None if name == 'pyaegis' else find(name)\n"
            "from glorytun.cli.main import run\n"
            "run()"
        )
        done = execute([sys.executable, "-c", code, "bench", "aegis"])
        assert done.returncode == 1
        assert done.stderr == (
            "glorytun: aegis256 is not available on this machine (`pip install pyaegis` adds it)\n"
        )


@pytest.mark.timing
def test_show_answers_at_once(daemon: Daemon) -> None:
    times = []
    for _ in range(5):
        start = monotonic()
        output("show")
        times.append(monotonic() - start)
    assert min(times) < 0.15


def test_show_loads_nothing_slow(daemon: Daemon) -> None:
    done = execute([sys.executable, "-X", "importtime", "-m", "glorytun", "show"])
    assert done.returncode == 0
    loaded = set(re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "glorytun.control.client" in loaded
    assert not loaded & {"argparse", "asyncio", "cryptography", "nacl", "numpy", "pyroute2", "rich"}
