"""The user's connection is found, and it is noticed when nobody is at its other end any more."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from glorytun_setup import terminal
from glorytun_setup.terminal import (
    Interrupted,
    SshSession,
    Watch,
    find_session,
    is_established,
    pending_bytes,
)
from tests.netns.wait import wait_for

CONNECTION = "2001:db8::7 50000 2001:db8::1 22"
SESSION = SshSession(client=("2001:db8::7", 50000), server=("2001:db8::1", 22))

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def connection(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """This host's end and the other; the last one is as sshd has IPv4."""
    address = str(request.param)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        with socket.socket(family) as other:
            other.connect(listener.getsockname())
            own = listener.accept()[0]
            with own:
                yield own, other


def session_of(connection: Ends) -> SshSession:
    """As sshd tells it: IPv4 as such."""
    own = connection[0]
    client, server = (
        (str(end[0]).removeprefix("::ffff:"), int(end[1]))
        for end in (own.getpeername(), own.getsockname())
    )
    return SshSession(client=client, server=server)


def fill(own: socket.socket) -> None:
    """Send until nothing more fits, as to somebody who acknowledges nothing."""
    own.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            own.send(bytes(65536))


def asked_in_child(environment: dict[str, str], *wrapper: str) -> str:
    """What a child of a process with this environment finds."""
    code = "from glorytun_setup.terminal import find_session; print(find_session())"
    path = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        ["sh", "-c", '"$@"; true', "sh", *wrapper, sys.executable, "-c", code],
        env={**path, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def test_the_session_is_found() -> None:
    assert asked_in_child({"SSH_CONNECTION": CONNECTION}) == str(SESSION)


def test_the_session_is_found_behind_sudo() -> None:
    """It keeps the variable from us, but our parents have it."""
    wrapper = ("env", "-u", "SSH_CONNECTION")
    assert asked_in_child({"SSH_CONNECTION": CONNECTION}, *wrapper) == str(SESSION)


@pytest.mark.parametrize("value", ["", "nonsense", "a 1 b 2", "1.2.3.4 x 1.2.3.4 22"])
def test_what_is_no_session_is_none(value: str) -> None:
    found = asked_in_child({"SSH_CONNECTION": value})
    outer = find_session()  # whoever runs the tests may be in one
    assert found == str(outer)


def test_what_is_not_acknowledged_is_counted(connection: Ends) -> None:
    own, other = connection
    session = session_of(connection)
    assert is_established(session)
    assert pending_bytes(session) == 0
    fill(own)
    assert pending_bytes(session)
    while pending_bytes(session):
        other.recv(1 << 20)


def test_a_connection_that_is_closed_is_none(connection: Ends) -> None:
    session = session_of(connection)
    assert pending_bytes(replace(session, server=(session.server[0], 1))) is None
    for end in connection:
        end.close()
    wait_for(lambda: not is_established(session), timeout=2, what="the end of the connection")


def test_a_connection_that_lives_interrupts_nothing(connection: Ends) -> None:
    with Watch(session_of(connection)) as watch:
        watch.check_connection()


def test_a_dead_connection_interrupts(connection: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PATIENCE", 0.2)
    fill(connection[0])
    with (
        Watch(session_of(connection)) as watch,
        pytest.raises(Interrupted, match="acknowledges nothing"),
    ):
        watch.check_connection()


def test_without_a_session_nothing_is_missed() -> None:
    """At the console, or in a session that outlived its connection (tmux)."""
    with Watch() as watch:
        watch.check_connection()
    with Watch(SESSION) as watch:
        watch.check_connection()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGHUP, "the connection to your terminal was lost"),
        (signal.SIGINT, "you interrupted it"),
        (signal.SIGQUIT, "you interrupted it"),
        (signal.SIGTERM, "you interrupted it"),
    ],
)
def test_signals_interrupt_at_the_next_check(number: signal.Signals, said: str) -> None:
    """And not in the middle of something; what handled them before does so again."""
    with handled(number, signal.SIG_DFL):
        with Watch() as watch:
            watch.check()
            os.kill(os.getpid(), number)
            with pytest.raises(Interrupted, match=said):
                watch.check()
            watch.go_deaf()
            watch.check()
        assert signal.getsignal(number) == signal.SIG_DFL


@contextmanager
def handled(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    """While in context, whatever the tests were started with."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_under_nohup_the_terminal_may_go() -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN), Watch() as watch:
        os.kill(os.getpid(), signal.SIGHUP)
        watch.check()
