"""`glorytun run` with what can't run: what it says, its exit status, and that nothing is left."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.configured import REMOTE, Configured
from tests.netns.topology import Host, Lab
from tests.netns.tunnel import Tunnels

EX_CONFIG = 78
CLIENT = f"[Tunnel]\nPeer={REMOTE}\n[Path]\nLocal=link1\n"


@pytest.fixture
def daemon(lab: Lab, tunnels: Tunnels) -> Configured:
    """A client that isn't started."""
    return tunnels.make(Configured, lab.host("host"), peer=REMOTE, paths=("Local=link1",))


def state(host: Host, directory: Path) -> tuple[str, list[str]]:
    """What a start that fails must leave as it is."""
    devices = host.run("ip", "-o", "address").stdout + host.run("ip", "-o", "rule").stdout
    links = re.sub(r"\S*,?LOWER_UP", "", host.run("ip", "-o", "link").stdout)
    files = sorted(f"{path} {path.lstat()}" for path in directory.rglob("*"))
    return devices + links, [re.sub(r"st_atime=\d+", "", file) for file in files]


def refusal(daemon: Configured, *words: str) -> tuple[int, str]:
    """The exit status of a start that fails, and what it said; nothing may have changed."""
    before = state(daemon.host, daemon.directory)
    result = daemon.glorytun(*(words or ("run", daemon.dev, "config", str(daemon.file))))
    daemon.notifications()  # else the TUN in there would live on
    assert not result.stdout
    assert "Traceback" not in result.stderr
    assert not re.search("[0-9a-f]{16}", result.stderr), "a part of a key"
    assert state(daemon.host, daemon.directory) == before
    return result.returncode, result.stderr


def test_a_file_that_is_missing(daemon: Configured) -> None:
    daemon.file.unlink()
    assert refusal(daemon) == (
        EX_CONFIG,
        f"glorytun: configuration {daemon.file}: No such file or directory "
        "(the line [Tunnel] alone makes a server)\n",
    )


def test_a_name_without_a_file(daemon: Configured) -> None:
    """The file is /etc/glorytun/NAME.conf, or in the directory that systemd gives."""
    assert refusal(daemon, "run", "nothing") == (
        EX_CONFIG,
        "glorytun: configuration /etc/glorytun/nothing.conf: No such file or directory "
        "(the line [Tunnel] alone makes a server)\n",
    )


def test_a_directory_as_the_file(daemon: Configured) -> None:
    daemon.file.unlink()
    daemon.file.mkdir()
    try:
        assert refusal(daemon) == (EX_CONFIG, f"glorytun: {daemon.file} is not a regular file\n")
    finally:
        daemon.file.rmdir()


def test_a_fifo_as_the_file(daemon: Configured) -> None:
    """It isn't waited for."""
    daemon.file.unlink()
    os.mkfifo(daemon.file)
    assert refusal(daemon) == (EX_CONFIG, f"glorytun: {daemon.file} is not a regular file\n")


def test_a_file_that_may_not_be_read(daemon: Configured) -> None:
    """It is somebody else's, and root has no special rights."""
    daemon.file.chmod(0o600)
    os.chown(daemon.file, 65534, 65534)
    daemon.program = (
        "setpriv",
        "--bounding-set",
        "-dac_override,-dac_read_search",
        *daemon.program,
    )
    assert refusal(daemon) == (
        EX_CONFIG,
        f"glorytun: configuration {daemon.file}: Permission denied\n",
    )


def test_a_wrong_file(daemon: Configured) -> None:
    """All errors and warnings at once, each with its place."""
    daemon.file.write_text("[Tunnel]\nPort=0\nPrt=1\n[Path]\nLocal=a b\n")
    assert refusal(daemon) == (
        EX_CONFIG,
        f"{daemon.file}:2:6: Port= '0' is no port: a number from 1 to 65535\n"
        "  Port=0\n"
        "       ^\n"
        f"{daemon.file}:3:1: warning: there is no Prt= in [Tunnel], and it is ignored: "
        "did you mean Port=?\n"
        "  Prt=\n"
        "  ^\n"
        f"{daemon.file}:4:1: a server takes no [Path], since its clients make its paths\n"
        "  [Path]\n"
        "  ^\n"
        "  hint: name the server in Peer=, or leave out [Path] if this is the server\n"
        f"{daemon.file}:5:7: Local= 'a b' is no address, and no name or glob of interfaces\n"
        "  Local=a b\n"
        "        ^\n",
    )


def make_open(key: Path) -> str:
    key.chmod(0o640)
    return f"{key} is open to other users (mode 0640) (`chmod 600 {key}` mends it)"


def make_missing(key: Path) -> str:
    key.unlink()
    return f"key file {key}: No such file or directory (`glorytun keygen` makes a key)"


def make_short(key: Path) -> str:
    key.write_text(key.read_text()[:62] + "\n")
    return f"{key} does not hold a key of 64 hex digits: it has 62 hex digits"


def make_empty(key: Path) -> str:
    key.write_text("")
    return f"{key} does not hold a key of 64 hex digits: it has no hex digits"


def make_directory(key: Path) -> str:
    key.unlink()
    key.mkdir(mode=0o700)
    return f"{key} is not a regular file (`glorytun bind … keyfile -` reads from a pipe)"


@pytest.mark.parametrize("spoil", [make_open, make_missing, make_short, make_empty, make_directory])
def test_a_key_that_can_not_be_used(
    lab: Lab, tunnels: Tunnels, spoil: Callable[[Path], str]
) -> None:
    key = tunnels.make_key("spoilt")
    daemon = tunnels.make(Configured, lab.host("host"), key=key)
    message = spoil(key)
    assert refusal(daemon) == (EX_CONFIG, f"glorytun: {message}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("run",),
            "glorytun: a NAME is needed (it is the TUN device's, and /etc/glorytun/NAME.conf is "
            "read)\n",
        ),
        (
            ("run", "x" * 16),
            f"glorytun: NAME '{'x' * 16}' is no device name: 1 to 15 bytes without white space, / "
            "and : (see `glorytun run help`)\n",
        ),
    ],
    ids=["no name", "a long name"],
)
def test_a_command_that_makes_no_sense(
    daemon: Configured, words: tuple[str, ...], message: str
) -> None:
    assert refusal(daemon, *words) == (2, message)


def test_a_port_in_use(daemon: Configured) -> None:
    with daemon.host.socket(6, socket.SOCK_DGRAM) as other:
        other.bind(("::", 5000))
        assert refusal(daemon) == (
            1,
            "glorytun: port 5000 on :: is in use (`ss -ulpn` shows by which program; "
            "choose another port)\n",
        )


def test_an_address_that_is_not_here(daemon: Configured) -> None:
    daemon.configure("Local=192.0.2.9", tunnel="Bind=192.0.2.9\n")
    assert refusal(daemon) == (
        1,
        "glorytun: 192.0.2.9 is not an address of this host, or not ready yet "
        "(`ip address` lists them)\n",
    )


def test_a_device_that_is_no_tun(daemon: Configured) -> None:
    daemon.host.ip(f"link add {daemon.dev} type veth peer name other")
    assert refusal(daemon) == (
        1,
        f"glorytun: {daemon.dev} exists and is no TUN device (choose another name, or "
        f"remove it with `ip link delete {daemon.dev}`)\n",
    )


def test_something_else_in_the_place_of_the_socket(daemon: Configured) -> None:
    """Found when the TUN is there already, which is taken away again."""
    obstacle = daemon.directory / f"{daemon.dev}.sock"
    obstacle.write_text("mine")
    assert refusal(daemon) == (
        1,
        f"glorytun: control socket {obstacle}: something else is there\n",
    )


def test_a_tunnel_that_runs_already(daemon: Configured) -> None:
    """The second says so and does the first no harm."""
    daemon.start()
    assert refusal(daemon) == (
        1,
        "glorytun: port 5000 on :: is in use (`ss -ulpn` shows by which program; "
        "choose another port)\n",
    )
    daemon.configure("Local=link1", tunnel="Port=5001\n")
    assert refusal(daemon) == (
        1,
        f"glorytun: {daemon.dev} is in use by another process (choose another name; "
        "`glorytun list` shows running tunnels)\n",
    )
    assert daemon.show()["pid"] == daemon.pid


def test_stop_leaves_nothing(daemon: Configured) -> None:
    """No TUN and no socket file."""
    before = state(daemon.host, daemon.directory)[0], sorted(daemon.directory.iterdir())
    daemon.start()
    daemon.stop()
    daemon.log.unlink()
    daemon.notifications()  # else the TUN in there would live on
    assert (state(daemon.host, daemon.directory)[0], sorted(daemon.directory.iterdir())) == before
