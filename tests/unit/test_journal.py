"""What arrives at a socket like journald's, and when the log goes elsewhere."""

import logging
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glorytun import journal
from glorytun.journal import JournalHandler, PatientHandler
from glorytun.report import fields

Entry = dict[str, str]

# A command whose journal is at the address that is its first argument.
COMMAND = """
import sys
from glorytun import journal
journal.SOCKET = sys.argv.pop(1)
from glorytun.cli.main import run
run()
"""


class Journald:
    """Takes entries as journald does."""

    def __init__(self, address: Path) -> None:
        self.address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(10)

    def read(self) -> Entry:
        """The next entry."""
        return parse(self._socket.recv(1 << 20))

    def waiting(self) -> list[Entry]:
        """All that are there."""
        found = []
        self._socket.setblocking(False)
        while True:
            try:
                found.append(self.read())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


def parse(data: bytes) -> Entry:
    """An entry, read as the protocol says: NAME=VALUE, or NAME, a length, and so many bytes."""
    entry: Entry = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, has_value, value = line.partition(b"=")
        if not has_value:
            (length,) = struct.unpack_from("<Q", data)
            value, end, data = (
                data[8 : 8 + length],
                data[8 + length : 9 + length],
                data[9 + length :],
            )
            assert end == b"\n"
        # What journald refuses: journal_field_valid() in its source.
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{,63}", name)
        assert name.decode() not in entry
        entry[name.decode()] = value.decode()
    return entry


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    journald = Journald(tmp_path / "socket")
    yield journald
    journald.close()


@pytest.fixture
def handler(journald: Journald) -> Iterator[JournalHandler]:
    handler = JournalHandler(journald.address)
    yield handler
    handler.close()


@pytest.fixture
def log(handler: JournalHandler) -> logging.Logger:
    """A logger that writes there alone."""
    log = logging.Logger("test", logging.DEBUG)
    log.addHandler(handler)
    return log


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, "7"),
        (logging.INFO, "6"),
        (logging.WARNING, "4"),
        (logging.ERROR, "3"),
        (logging.CRITICAL, "2"),
    ],
)
def test_a_line_is_an_entry_with_its_priority(
    log: logging.Logger, journald: Journald, level: int, priority: str
) -> None:
    log.log(level, "%s paths", 2)
    assert journald.read() == {
        "PRIORITY": priority,
        "SYSLOG_IDENTIFIER": "glorytun",
        "SYSLOG_FACILITY": "3",
        "MESSAGE": "2 paths",
    }


def test_the_device_is_in_each_entry_once_it_is_known(
    log: logging.Logger,
    handler: JournalHandler,
    journald: Journald,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    log.info("one")
    journal.set_device("tun0")
    log.info("two")
    log.info("three", extra=fields("peer_stopped"))
    devices = [entry.get("GLORYTUN_DEVICE") for entry in journald.waiting()]
    assert devices == [None, "tun0", "tun0"]


@pytest.mark.parametrize(
    "value",
    [
        "evil\nPRIORITY=0\n",
        "\n",
        "GLORYTUN_DEVICE\n\x03\0\0\0\0\0\0\0tun",
        "a=b=c",
        "\0\x1b[31m",
        "grün",
    ],
)
def test_a_value_can_not_forge_a_field(log: logging.Logger, journald: Journald, value: str) -> None:
    """Neither in a field nor in the text."""
    log.warning("%s", value, extra=fields("peer_stopped", reason=value))
    entry = journald.read()
    assert entry["MESSAGE"] == entry["GLORYTUN_REASON"] == value
    assert entry["PRIORITY"] == "4"
    assert "GLORYTUN_DEVICE" not in entry


def test_what_is_no_text_is_written_nevertheless(log: logging.Logger, journald: Journald) -> None:
    """Such as the name of a file in another encoding."""
    log.error("%s", os.fsdecode(b"/etc/\xff.conf"))
    assert journald.read()["MESSAGE"] == r"/etc/\udcff.conf"


def test_a_huge_line_is_cut(log: logging.Logger, journald: Journald) -> None:
    """Whatever its characters are."""
    for text in ("x" * 1_000_000, "\U0001f600" * 1_000_000, "\udcff" * 1_000_000):
        log.info("%s", text, extra=fields("peer_stopped", reason=text, cipher=text))
        entry = journald.read()
        assert 4000 < len(entry["MESSAGE"]) < 25_000
        assert len(entry["GLORYTUN_REASON"]) == len(entry["MESSAGE"])


def test_lines_that_nobody_reads_are_dropped_and_counted(
    log: logging.Logger, journald: Journald
) -> None:
    """Without waiting for a reader; that some are missing is said when it reads again."""
    for number in range(10_000):
        log.info("%d", number)
    before = [entry["MESSAGE"] for entry in journald.waiting()]
    assert before == [str(number) for number in range(len(before))]
    lost = 10_000 - len(before)
    assert lost > 0
    log.info("again", extra=fields("peer_stopped"))
    log.info("and again")
    loss, again, last = journald.waiting()
    assert loss["MESSAGE"] == f"{lost} lines of this log were lost, as nobody read it"
    assert loss["PRIORITY"] == "4"
    assert (again["MESSAGE"], again["GLORYTUN_EVENT"]) == ("again", "peer_stopped")
    assert last["MESSAGE"] == "and again"


def test_a_journal_that_is_away_leaves_stderr(
    log: logging.Logger, journald: Journald, capfd: pytest.CaptureFixture[str]
) -> None:
    """Line by line, so that one that is back gets the next."""
    handler = log.handlers[0]
    assert isinstance(handler, JournalHandler)
    handler._stderr.setStream(sys.stderr)
    journald.close()
    log.info("refused")
    Path(journald.address).unlink()
    log.info("absent", extra=fields("peer_stopped"))
    assert capfd.readouterr().err == "refused\nabsent\n"
    back = Journald(Path(journald.address))
    log.info("back")
    assert [entry["MESSAGE"] for entry in back.waiting()] == ["back"]
    assert capfd.readouterr().err == ""
    back.close()


def test_the_end_waits_for_the_reader(handler: JournalHandler, journald: Journald) -> None:
    """journald looks the process up when it reads, so it must still be there."""
    handler.handle(logging.makeLogRecord({"msg": "last words", "levelno": logging.ERROR}))
    closed = threading.Event()

    def close() -> None:
        handler.close()
        closed.set()

    closing = threading.Thread(target=close)
    closing.start()
    assert not closed.wait(0.05)
    assert journald.read()["MESSAGE"] == "last words"
    assert closed.wait(5)
    closing.join()


def test_the_end_waits_not_for_ever(handler: JournalHandler, journald: Journald) -> None:
    handler.handle(logging.makeLogRecord({"msg": "last words", "levelno": logging.ERROR}))
    started = time.monotonic()
    handler.close()
    handler.close()
    assert 0.1 < time.monotonic() - started < 2


# Which one it is.


def stream_of(descriptor: int) -> str:
    """What systemd would set JOURNAL_STREAM to."""
    found = os.fstat(descriptor)
    return f"{found.st_dev}:{found.st_ino}"


def said_with_stream(stream: str | None, *, close: bool = False) -> str:
    """What a process with this JOURNAL_STREAM, MATCHING for its stderr's, takes as its handler."""
    reader, writer = os.pipe()
    environment = dict(os.environ)
    environment.pop("JOURNAL_STREAM", None)
    if stream is not None:
        environment["JOURNAL_STREAM"] = stream_of(writer) if stream == "MATCHING" else stream
    code = "from glorytun.journal import handler; print(type(handler()).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=writer,
        preexec_fn=(lambda: os.close(2)) if close else None,
        text=True,
        check=True,
        timeout=60,
    )
    os.close(reader)
    os.close(writer)
    return done.stdout.strip()


def test_the_journal_is_taken_where_stderr_is_it() -> None:
    assert said_with_stream("MATCHING") == JournalHandler.__name__


@pytest.mark.parametrize("stream", [None, "", "8", "8:", ":", "a:b", "8:1", "1:2:3"])
def test_stderr_is_taken_where_the_journal_is_elsewhere(stream: str | None) -> None:
    """As in a shell of a user's session, which inherits the variable."""
    assert said_with_stream(stream) == PatientHandler.__name__


def test_a_closed_stderr_is_no_journal() -> None:
    assert said_with_stream("MATCHING", close=True) == PatientHandler.__name__


def test_plain_text_has_no_fields(capfd: pytest.CaptureFixture[str]) -> None:
    log = logging.Logger("test")
    log.addHandler(PatientHandler())
    log.info("the peer stopped", extra=fields("peer_stopped"))
    assert capfd.readouterr().err == "the peer stopped\n"


def test_plain_text_waits_for_no_reader() -> None:
    """What a full pipe doesn't take is dropped, and counted when it is read again."""
    reader, writer = os.pipe()
    handler = PatientHandler()
    with open(reader) as lines, open(writer, "w") as stream:
        handler.setStream(stream)
        for number in range(10_000):
            handler.handle(logging.makeLogRecord({"msg": str(number) * 10}))
        os.set_blocking(reader, False)
        kept = lines.read().splitlines()
        handler.handle(logging.makeLogRecord({"msg": "again"}))
        loss, again = lines.read().splitlines()
    assert loss == f"{10_000 - len(kept)} lines of this log were lost, as nobody read it"
    assert again == "again"


# Errors that end a command.


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    return tmp_path


def command(*words: str, journald: Journald, matching: bool = True) -> tuple[int, str]:
    """Exit status and stderr of a command, with JOURNAL_STREAM set to its stderr or not."""
    reader, writer = os.pipe()
    with open(reader) as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, journald.address, *words],
            env=os.environ | {"JOURNAL_STREAM": stream_of(writer) if matching else "8:1"},
            stdout=subprocess.DEVNULL,
            stderr=writer,
        )
        os.close(writer)
        text = errors.read()
    return process.wait(60), text


def test_each_problem_of_a_file_is_an_entry(directory: Path, journald: Journald) -> None:
    file = directory / "tun0.conf"
    file.write_text("[Tunnel]\nPeer=10.0.0.1\nPrt=5\n[Path]\nLocal=eth0\nBeat=soon\nRateTx=x\n")
    assert command("run", "tun0", journald=journald) == (78, "")
    entries = journald.waiting()
    places = [(entry["PRIORITY"], entry["CONFIG_LINE"]) for entry in entries]
    assert places == [("4", "3"), ("3", "6"), ("3", "7")]
    assert {entry["CONFIG_FILE"] for entry in entries} == {str(file)}
    assert entries[1]["CONFIG_COLUMN"] == "6"
    assert entries[1]["MESSAGE"].startswith(f"{file}:6:6: ")
    assert "Beat=soon" in entries[1]["MESSAGE"]


def test_an_error_is_an_entry(directory: Path, journald: Journald) -> None:
    """One line, without the name of the program, that the journal shows already."""
    assert command("show", "dev", "a\nb", journald=journald)[0] == 2
    (entry,) = journald.waiting()
    assert entry["PRIORITY"] == "3"
    assert "\n" not in entry["MESSAGE"]
    assert not entry["MESSAGE"].startswith("glorytun")


def test_an_error_after_the_log_began_names_the_key(directory: Path, journald: Journald) -> None:
    (directory / "tun0.conf").write_text("[Tunnel]\nPeer=10.0.0.1\n")
    assert command("run", "tun0", journald=journald) == (78, "")
    (entry,) = journald.waiting()
    assert str(directory / "tun0.key") in entry["MESSAGE"]
    assert entry["PRIORITY"] == "3"


def test_an_error_elsewhere_is_plain_text(directory: Path, journald: Journald) -> None:
    """Though the variable is set, as in a shell of a user's session."""
    status, text = command("show", journald=journald, matching=False)
    assert (status, text) == (
        1,
        "glorytun: no tunnel is running (`systemctl start glorytun@NAME` starts one)\n",
    )
    assert not journald.waiting()


def test_an_error_without_a_journal_is_on_stderr(directory: Path, journald: Journald) -> None:
    Path(journald.address).unlink()
    assert command("show", journald=journald) == (
        1,
        "no tunnel is running (`systemctl start glorytun@NAME` starts one)\n",
    )


def test_a_command_loads_no_log_without_need(directory: Path) -> None:
    """`glorytun show` is to answer at once."""
    environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "glorytun", "show"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    loaded = set(re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "glorytun.control.client" in loaded
    assert not loaded & {"logging", "glorytun.journal", "glorytun.report"}


def test_what_it_says_is_there_when_it_is_gone(directory: Path, journald: Journald) -> None:
    """A command doesn't end before its error was read, if that doesn't take too long."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, journald.address, "show"],
        env=os.environ | {"JOURNAL_STREAM": stream_of(writer)},
        stderr=writer,
    )
    entry = journald.read()
    assert process.poll() is None
    assert entry["PRIORITY"] == "3"
    assert process.wait(60) == 1
    os.close(reader)
    os.close(writer)
