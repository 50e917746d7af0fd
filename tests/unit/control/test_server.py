"""The control server on real UNIX sockets: it answers, and nothing a client does can stop it."""

import os
import resource
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from glorytun.control.messages import (
    LINE_LIMIT,
    Request,
    SetPath,
    Show,
    decode_answer,
    encode_request,
)
from glorytun.control.server import MAX_CLIENTS, ControlServer
from glorytun.core.address import pack_address
from glorytun.core.settings import PathChange
from glorytun.errors import DeviceError, SocketError, TunnelError
from tests.unit.control.loop import EpollLoop

SHOW = encode_request(Show())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "tun0.sock"


@pytest.fixture
def loop() -> Iterator[EpollLoop]:
    loop = EpollLoop()
    yield loop
    loop.close()


def answer(request: Request) -> dict[str, Any]:
    if isinstance(request, SetPath):
        raise TunnelError("a server makes no paths", hint="the client does")
    return {"request": type(request).__name__}


@pytest.fixture
def server(path: Path, loop: EpollLoop) -> Iterator[ControlServer]:
    server = ControlServer(path, answer, loop)
    yield server
    server.close()
    assert loop.readers() == 0


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.settimeout(5)
        yield client


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def exchange(loop: EpollLoop, client: socket.socket, sent: bytes) -> bytes:
    client.sendall(sent)
    loop.settle()
    return client.recv(1 << 20)


@pytest.mark.usefixtures("server")
class TestAnswers:
    def test_a_request_is_answered(self, path: Path, loop: EpollLoop) -> None:
        with connected(path) as client:
            assert decode_answer(exchange(loop, client, SHOW)) == {"request": "Show"}

    def test_lines_of_one_connection_are_answered_in_order(
        self, path: Path, loop: EpollLoop
    ) -> None:
        with connected(path) as client:
            lines = exchange(loop, client, SHOW * 3 + b'{"request":"bad"}\n').splitlines()
        assert [decode_answer(line)["request"] for line in lines] == ["Show"] * 3 + ["Bad"]

    def test_each_callback_answers_one_line_at_the_most(self, path: Path, loop: EpollLoop) -> None:
        with connected(path) as client:
            client.sendall(SHOW * 5)
            loop.turn(1)  # accepts
            loop.turn(1)
            assert client.recv(1 << 20).count(b"\n") == 1

    def test_a_line_may_come_in_pieces(self, path: Path, loop: EpollLoop) -> None:
        with connected(path) as client:
            for byte in SHOW[:-1]:
                client.sendall(bytes([byte]))
                loop.settle()
            assert decode_answer(exchange(loop, client, SHOW[-1:])) == {"request": "Show"}

    def test_a_refusal_is_an_answer(self, path: Path, loop: EpollLoop) -> None:
        request = SetPath(address=pack_address("10.0.0.1"), change=PathChange())
        with connected(path) as client:
            line = exchange(loop, client, encode_request(request))
        with pytest.raises(TunnelError) as caught:
            decode_answer(line)
        assert str(caught.value) == "a server makes no paths (the client does)"

    def test_garbage_is_refused_and_the_next_request_answered(
        self, path: Path, loop: EpollLoop
    ) -> None:
        with connected(path) as client:
            first, second = exchange(loop, client, b"\x00\xff garbage\n" + SHOW).splitlines()
        with pytest.raises(TunnelError, match="bad request: it is not JSON"):
            decode_answer(first)
        assert decode_answer(second) == {"request": "Show"}

    def test_an_endless_line_is_refused_and_its_client_dropped(
        self, path: Path, loop: EpollLoop
    ) -> None:
        with connected(path) as client:
            client.sendall(b"x" * (LINE_LIMIT + 1))
            loop.settle()
            with pytest.raises(TunnelError, match="it is longer than 65536 bytes"):
                decode_answer(client.recv(1 << 20))
            assert client.recv(1) == b""


@pytest.mark.usefixtures("server")
class TestHostileClients:
    def test_one_that_does_not_read_is_dropped(self, path: Path, loop: EpollLoop) -> None:
        def push(client: socket.socket) -> None:
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                client.sendall(SHOW * 100_000)

        with connected(path) as client:
            pusher = Thread(target=push, args=(client,))
            pusher.start()
            while pusher.is_alive():
                loop.turn(0.05)
            pusher.join()
        loop.settle()
        assert loop.readers() == 1
        with connected(path) as other:
            assert exchange(loop, other, SHOW)

    def test_of_too_many_the_oldest_is_dropped(self, path: Path, loop: EpollLoop) -> None:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CLIENTS + 1)]
        for client in clients:
            client.connect(str(path))
            loop.settle()
        assert loop.readers() == 1 + MAX_CLIENTS
        assert clients[0].recv(1) == b""
        assert exchange(loop, clients[1], SHOW)
        assert exchange(loop, clients[-1], SHOW)
        for client in clients:
            client.close()

    def test_without_a_descriptor_left_the_oldest_makes_room(
        self, path: Path, loop: EpollLoop
    ) -> None:
        with connected(path) as old, connected(path) as new:
            loop.turn(1)  # accepts the old one
            with no_more_descriptors():
                loop.turn(1)
            assert old.recv(1) == b""
            assert exchange(loop, new, SHOW)

    def test_those_that_leave_are_forgotten(self, path: Path, loop: EpollLoop) -> None:
        for sent in (b"", b"half a line", SHOW, SHOW * 100):
            with connected(path) as client:
                client.sendall(sent)
        loop.settle()
        assert loop.readers() == 1


class TestSocketFile:
    @pytest.mark.usefixtures("server")
    def test_it_is_for_owner_and_group_alone(self, path: Path) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750

    @pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
    def test_its_mode_does_not_depend_on_the_umask(
        self, path: Path, loop: EpollLoop, mask: int
    ) -> None:
        before = os.umask(mask)
        try:
            server = ControlServer(path, answer, loop)
            assert os.umask(mask) == mask
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        server.close()

    def test_it_is_removed_at_the_end(self, path: Path, loop: EpollLoop) -> None:
        ControlServer(path, answer, loop).close()
        assert not path.exists()
        assert loop.readers() == 0

    def test_one_that_nobody_listens_at_is_replaced(self, path: Path, loop: EpollLoop) -> None:
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        server = ControlServer(path, answer, loop)
        with connected(path) as client:
            assert exchange(loop, client, SHOW)
        server.close()

    @pytest.mark.usefixtures("server")
    def test_a_live_one_is_refused_and_left_alone(self, path: Path, loop: EpollLoop) -> None:
        with pytest.raises(DeviceError) as caught:
            ControlServer(path, answer, loop)
        assert str(caught.value) == (
            "a tunnel is already running on tun0 (`glorytun list` shows it)"
        )
        with connected(path) as client:
            assert exchange(loop, client, SHOW)

    def test_one_with_a_full_backlog_is_live(self, path: Path, loop: EpollLoop) -> None:
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
            busy.bind(str(path))
            busy.listen(0)
            waiting.connect(str(path))
            with pytest.raises(DeviceError, match="already running"):
                ControlServer(path, answer, loop)

    def test_what_is_no_socket_is_left_alone(self, path: Path, loop: EpollLoop) -> None:
        path.parent.mkdir()
        path.write_text("precious")
        with pytest.raises(SocketError, match=r"tun0\.sock: something else is there"):
            ControlServer(path, answer, loop)
        assert path.read_text() == "precious"

    def test_one_that_is_another_tunnel_s_by_now_is_left_alone(
        self, path: Path, loop: EpollLoop
    ) -> None:
        server = ControlServer(path, answer, loop)
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            server.close()
            assert path.exists()

    def test_a_place_that_can_not_be_used_is_named(self, tmp_path: Path, loop: EpollLoop) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SocketError) as caught:
            ControlServer(tmp_path / "file" / "tun0.sock", answer, loop)
        assert str(caught.value) == f"control socket {tmp_path}/file/tun0.sock: File exists"
        with pytest.raises(SocketError, match="AF_UNIX path too long"):
            ControlServer(tmp_path / ("x" * 120) / "tun0.sock", answer, loop)
