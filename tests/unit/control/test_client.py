"""Commands find tunnels by their sockets, and say what is wrong when they can't."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from glorytun.control.client import ask, control_socket, find_tunnels, runtime_directory
from glorytun.control.messages import LINE_LIMIT, Bad, Set, Show
from glorytun.core.settings import SettingsChange
from glorytun.errors import NoTunnelError, SocketError, TunnelError
from tests.unit.control.loop import answering
from tests.unit.control.samples import Daemon


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Not below pytest's own, which other users may not enter."""
    with tempfile.TemporaryDirectory(prefix="gt-") as name:
        Path(name).chmod(0o755)
        monkeypatch.setenv("RUNTIME_DIRECTORY", name)
        yield Path(name)


@contextmanager
def running(*devices: str) -> Iterator[None]:
    if not devices:
        yield
        return
    with answering(control_socket(devices[0]), Daemon(devices[0]).answer), running(*devices[1:]):
        yield


@contextmanager
def replying(device: str, reply: bytes | None) -> Iterator[None]:
    """Something that accepts one connection and sends `reply`; None: nothing, and stays."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(control_socket(device)))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                if reply is None:
                    connection.recv(1)
                else:
                    connection.sendall(reply)

        thread = Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_the_usual_place_is_below_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert control_socket("tun0") == Path("/run/glorytun/tun0.sock")


def test_systemd_may_choose_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/a:/run/b")
    assert runtime_directory() == Path("/run/a")


@pytest.mark.usefixtures("directory")
def test_the_only_tunnel_is_found_by_itself() -> None:
    with running("tun0"):
        assert ask(Show(), None)["tunnel"]["device"] == "tun0"


@pytest.mark.usefixtures("directory")
def test_of_several_tunnels_one_is_named() -> None:
    with running("tun0", "tun1"):
        assert find_tunnels() == ["tun0", "tun1"]
        assert ask(Show(), "tun1")["tunnel"]["device"] == "tun1"
        with pytest.raises(NoTunnelError) as caught:
            ask(Show(), None)
    assert str(caught.value) == "several tunnels are running: tun0, tun1 (add `dev NAME`)"


def test_only_sockets_that_answer_are_tunnels(directory: Path) -> None:
    (directory / "file.sock").touch()
    (directory / "a b.sock").touch()
    (directory / "tun1").touch()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(directory / "stale.sock"))
    with running("tun0"):
        assert find_tunnels() == ["tun0"]


@pytest.mark.usefixtures("directory")
def test_no_tunnel_is_said() -> None:
    with pytest.raises(NoTunnelError) as caught:
        ask(Show(), None)
    assert str(caught.value) == "no tunnel is running (`systemctl start glorytun@NAME` starts one)"


def test_no_directory_is_no_tunnel(directory: Path) -> None:
    directory.rmdir()
    assert find_tunnels() == []


@pytest.mark.usefixtures("directory")
def test_a_named_tunnel_that_is_not_there_is_named() -> None:
    with pytest.raises(NoTunnelError) as caught:
        ask(Show(), "tun7")
    assert str(caught.value) == (
        "no tunnel is running on tun7 (`glorytun list` shows those that are)"
    )


@pytest.mark.usefixtures("directory")
def test_a_change_reaches_the_tunnel() -> None:
    daemon = Daemon()
    request = Set(change=SettingsChange(keepalive=20_000_000))
    with answering(control_socket("tun0"), daemon.answer):
        assert ask(request, "tun0") == {}
    assert daemon.changes == [request]


@pytest.mark.usefixtures("directory")
def test_what_the_tunnel_refuses_is_an_error() -> None:
    def refuse(request: object) -> dict[str, object]:
        raise TunnelError("not now", hint="later")

    with (
        answering(control_socket("tun0"), refuse),
        pytest.raises(TunnelError, match=r"^not now \(later\)$"),
    ):
        ask(Bad(), "tun0")


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (None, "the tunnel on tun0 didn't answer within 0.1 s"),
        (b"", "the tunnel on tun0 didn't answer: it closed the connection"),
        (b'{"ok":tr', "the tunnel on tun0 didn't answer: it closed the connection"),
        (b"garbage\n", "the tunnel's answer makes no sense: it is not JSON"),
        (
            b"x" * (LINE_LIMIT + 1),
            "the tunnel's answer makes no sense: it is longer than 65536 bytes",
        ),
    ],
)
def test_a_tunnel_that_does_not_answer_well_is_reported(reply: bytes | None, message: str) -> None:
    with replying("tun0", reply), pytest.raises(TunnelError) as caught:
        ask(Show(), "tun0", timeout=0.1)
    assert str(caught.value) == message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
class TestWithoutPermission:
    @pytest.fixture(autouse=True)
    def nobody(self, directory: Path) -> Iterator[None]:
        """Run as a user with no rights, who may get as far as to `directory`."""
        with running("tun0"):
            os.setegid(65534)
            os.seteuid(65534)
            try:
                yield
            finally:
                os.seteuid(0)
                os.setegid(0)

    @pytest.mark.parametrize("device", ["tun0", None])
    def test_a_closed_socket_is_said(self, directory: Path, device: str | None) -> None:
        with pytest.raises(SocketError) as caught:
            ask(Show(), device)
        assert str(caught.value) == (
            f"permission denied: {directory}/tun0.sock (run the command as root)"
        )

    def test_a_closed_directory_is_said(self, directory: Path) -> None:
        os.seteuid(0)
        directory.chmod(0o750)
        os.seteuid(65534)
        with pytest.raises(SocketError) as caught:
            find_tunnels()
        assert str(caught.value) == f"permission denied: {directory} (run the command as root)"
