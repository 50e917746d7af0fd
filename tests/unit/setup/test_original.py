"""Configurations of the original glorytun are found, and read as its unit did."""

from pathlib import Path

import pytest

from glorytun.errors import SetupError
from glorytun_setup.original import find_original, find_originals

CLIENT = """\
DEV=gtc-tun0
HOST=192.0.2.1
PORT=5002
BIND_PORT=
OPTIONS=v4only mtu auto
"""
SERVER = "DEV=gt-tun1\nHOST=\nPORT=\nBIND_PORT=5003\n"


def write(directory: Path, name: str, env: str) -> None:
    """As the original's script did."""
    (directory / name).mkdir()
    (directory / name / "env").write_text(env)
    (directory / name / "key").write_text("00" * 32 + "\n")


def test_clients_and_servers_are_found(tmp_path: Path) -> None:
    write(tmp_path, "tun0", CLIENT)
    write(tmp_path, "tun1", SERVER)
    client, server = find_originals(tmp_path)
    assert client.answers == {
        "role": "client",
        "name": "tun0",
        "port": "5002",
        "server": "192.0.2.1",
    }
    assert server.answers == {"role": "server", "name": "tun1", "port": "5003"}
    assert server.key_file == tmp_path / "tun1/key"
    assert str(client) == f"tun0, a client of 192.0.2.1, port 5002, from {tmp_path}/tun0"
    assert "a server" in str(server)


def test_what_is_not_taken_over_is_said(tmp_path: Path) -> None:
    write(tmp_path, "tun0", f"{CLIENT}BIND=192.0.2.7\n")
    (tmp_path / "tun0/post.sh").touch()
    device, local, script = find_original("tun0", tmp_path).lost
    assert device.startswith("the device is tun0 and not gtc-tun0 any more")
    assert local.startswith("BIND=192.0.2.7 in ")
    assert script.startswith(f"{tmp_path}/tun0/post.sh is not run any more")


def test_nothing_is_said_where_nothing_is_lost(tmp_path: Path) -> None:
    write(tmp_path, "tun0", "DEV=tun0\nHOST=vpn\nBIND=0.0.0.0\n")
    assert find_original("tun0", tmp_path).lost == ()


@pytest.mark.parametrize("line", ["HOST='vpn'", 'HOST="vpn"', "  HOST=vpn", "#HOST=x\nHOST=vpn"])
def test_spellings_of_environment_files(tmp_path: Path, line: str) -> None:
    write(tmp_path, "tun0", f"{line}\n")
    original = find_original("tun0", tmp_path)
    assert (original.server, original.port) == ("vpn", "5000")


def test_what_was_taken_over_is_not_found_again(tmp_path: Path) -> None:
    write(tmp_path, "tun0", CLIENT)
    (tmp_path / "tun0.conf").touch()
    assert not find_originals(tmp_path)
    with pytest.raises(SetupError, match="there is no configuration 'tun0' of the original"):
        find_original("tun0", tmp_path)


def test_other_directories_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write(tmp_path, "tun0", CLIENT)
    (tmp_path / "tun0/key").unlink()
    assert not find_originals(tmp_path)
    assert not find_originals(tmp_path / "missing")
