"""Where the log goes: to the journal with priorities and fields, else to stderr as plain text.

The journal takes datagrams of fields (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/). Libraries for
that are C extensions around libsystemd, whose socket waits while journald doesn't read: traffic
can't. So these are our own few lines.
"""

import fcntl
import logging
import os
import select
import socket
import struct
import termios
from collections.abc import Mapping
from typing import TextIO

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "glorytun"

_STDERR = 2
_DAEMON = 3
"""LOG_DAEMON of syslog(3): what systemd gives to lines of a service's stderr."""
_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
_MOST_CHARACTERS = 4096
"""Of a value. All fields together stay below what the socket takes at once, 208 KiB."""
_LAST_LOOKS = 50
_LAST_LOOK_EVERY = 0.01
"""How long to wait in the end for journald, seconds."""


def stderr_is_journal() -> bool:
    """Whether what is written to stderr ends up in the journal: $JOURNAL_STREAM, systemd.exec(5).

    It is inherited by children whose stderr is something else, so the descriptor is looked at.
    """
    try:
        found = os.fstat(_STDERR)
    except OSError:
        return False  # It is closed.
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def handler() -> logging.Handler:
    """What writes the log of this process to where its stderr goes."""
    return JournalHandler(SOCKET) if stderr_is_journal() else PatientHandler()


def start() -> None:
    """Let the log be written by `handler`; at the second call it is already."""
    logging.basicConfig(handlers=[handler()], format="%(message)s", level=logging.INFO)


def set_device(name: str) -> None:
    """Let each entry in the journal from now on name the tunnel it is about."""
    for found in logging.getLogger().handlers:
        if isinstance(found, JournalHandler):
            found.common["GLORYTUN_DEVICE"] = name


class PatientHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr, and drops lines while its reader doesn't keep up: traffic can't wait."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_writable():
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            super().emit(_loss(lost))
        super().emit(record)

    def _is_writable(self) -> bool:
        """Whether a line can be written without waiting: poll(2) grants PIPE_BUF bytes."""
        poll = select.poll()
        try:
            poll.register(self.stream.fileno(), select.POLLOUT)
        except (OSError, ValueError, AttributeError):
            return True  # No descriptor behind it: it is what a test puts there.
        return bool(poll.poll(0))


class JournalHandler(logging.Handler):
    """Sends each line to the journal, with the mapping of fields that a record has in `fields`.

    Lines that journald doesn't take in time are dropped and counted. Where its socket can't be
    reached at all, they go to stderr.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.common: dict[str, str] = {}
        """Fields of every entry."""
        self._address = address
        self._stderr = PatientHandler()
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost and self._send(_loss(self._lost)):
            self._lost = 0
        if self._lost or not self._send(record):
            self._lost += 1

    def close(self) -> None:
        """Wait, but not for long, until all is read: journald asks /proc whose line it reads.

        Of a process that is gone it doesn't know the unit any more (systemd's issue 2913), so its
        last words would be missing in `systemctl status`.
        """
        for _ in range(_LAST_LOOKS):
            if self._socket.fileno() == -1 or not self._unread():
                break
            select.select([], [], [], _LAST_LOOK_EVERY)
        self._socket.close()
        super().close()

    def _send(self, record: logging.LogRecord) -> bool:
        """Whether the line is there now."""
        data = _encode(
            {
                "PRIORITY": _PRIORITIES[record.levelno],
                "SYSLOG_IDENTIFIER": IDENTIFIER,
                "SYSLOG_FACILITY": _DAEMON,
                **self.common,
                **getattr(record, "fields", {}),
                "MESSAGE": self.format(record),
            }
        )
        try:
            # By name each time: another journald may have bound it again.
            self._socket.sendto(data, self._address)
        except BlockingIOError:
            return False
        except OSError:
            self._stderr.emit(record)
        return True

    def _unread(self) -> int:
        """Bytes that were sent and not read: unix_ioctl() in Linux' net/unix/af_unix.c."""
        (found,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))
        return int(found)


def _loss(lines: int) -> logging.LogRecord:
    text = f"{lines} lines of this log were lost, as nobody read it"
    return logging.makeLogRecord({"msg": text, "levelno": logging.WARNING})


def _encode(fields: Mapping[str, object]) -> bytes:
    """One entry. A value of several lines has its length before it and can't forge a field."""
    data = bytearray()
    for name, value in fields.items():
        encoded = str(value)[:_MOST_CHARACTERS].encode(errors="backslashreplace")
        if b"\n" in encoded:
            data += name.encode() + b"\n" + struct.pack("<Q", len(encoded)) + encoded + b"\n"
        else:
            data += name.encode() + b"=" + encoded + b"\n"
    return bytes(data)
