"""The socket at which a running tunnel answers the commands of local users."""

import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from glorytun.control.messages import (
    LINE_LIMIT,
    Request,
    decode_request,
    encode_answer,
    encode_error,
)
from glorytun.errors import DeviceError, GlorytunError, SocketError

MAX_CLIENTS = 16
"""When one more comes, the oldest is dropped: no timer is needed against those that stay."""

_CHUNK = 4096


class Readers(Protocol):
    """The event loop. It must be level-triggered: what was left unread is reported again."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` can be read."""

    def remove_reader(self, fd: int) -> None:
        """Call back for `fd` no more."""


class ControlServer:
    """Listens at `path` and answers one request for each line that a client sends.

    `answer` returns the result of a request, or raises a GlorytunError that becomes the answer.
    Nothing that a client does can raise or wait: each callback reads and answers one line at the
    most, and a client that doesn't take its answers is dropped.

    Raises DeviceError when a tunnel already listens there, SocketError when it can't be done.
    """

    def __init__(
        self, path: Path, answer: Callable[[Request], dict[str, Any]], readers: Readers
    ) -> None:
        self._path = path
        self._answer = answer
        self._readers = readers
        self._clients: list[_Client] = []
        try:
            self._socket = _listen(path)
            self._inode = os.stat(path).st_ino
        except OSError as error:
            raise SocketError(f"control socket {path}: {error.strerror or error}") from error
        readers.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Drop the clients, and remove the socket unless it is another's by now."""
        for client in list(self._clients):
            self._drop(client)
        self._readers.remove_reader(self._socket.fileno())
        with suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                self._path.unlink()
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of descriptors, or the client has left. One descriptor less in use helps.
            if self._clients:
                self._drop(self._clients[0])
            return
        if len(self._clients) == MAX_CLIENTS:
            self._drop(self._clients[0])
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.append(client)
        self._readers.add_reader(connection.fileno(), lambda: self._serve(client))

    def _serve(self, client: "_Client") -> None:
        try:
            line = client.read_line()
            if line:
                client.write(self._reply(line))
            if len(line) > LINE_LIMIT:
                self._drop(client)
        except (OSError, EOFError):
            self._drop(client)

    def _reply(self, line: bytes) -> bytes:
        try:
            return encode_answer(self._answer(decode_request(line)))
        except GlorytunError as error:
            return encode_error(error)

    def _drop(self, client: "_Client") -> None:
        self._clients.remove(client)
        self._readers.remove_reader(client.socket.fileno())
        client.socket.close()


class _Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._line = bytearray()
        """The part of a line that came so far."""

    def read_line(self) -> bytes:
        """The line that has come to its end, or is too long, else b"".

        Raises EOFError when the client is gone.
        """
        try:
            chunk = self.socket.recv(_CHUNK, socket.MSG_PEEK)
            if not chunk:
                raise EOFError
            # What follows the line stays with the kernel, which reports it again.
            self._line += self.socket.recv(chunk.find(b"\n") + 1 or len(chunk))
        except BlockingIOError:
            return b""
        if not self._line.endswith(b"\n") and len(self._line) <= LINE_LIMIT:
            return b""
        line = bytes(self._line)
        self._line.clear()
        return line

    def write(self, answer: bytes) -> None:
        """Send an answer at once. Raises OSError when the client doesn't take it."""
        if self.socket.send(answer, socket.MSG_NOSIGNAL) < len(answer):
            raise BlockingIOError


def _listen(path: Path) -> socket.socket:
    """A socket with mode 0660 from the start, in place of one that nobody listens at."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _locked(path.parent), _umask(0o117):
            _remove_stale(path)
            listener.bind(str(path))
            listener.listen(MAX_CLIENTS)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that is gone. Raises DeviceError when it isn't gone."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SocketError(f"control socket {path}: something else is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink()
        return
    except BlockingIOError:
        pass  # its backlog is full: it listens
    raise DeviceError(
        f"a tunnel is already running on {path.stem}", hint="`glorytun list` shows it"
    )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other tunnels that start from taking each other's socket for a stale one."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
