"""The service under systemd: start, stop, status and reload."""

import re

import pytest

from tests.lab.tunnel import CONFIG, KEY, UNIT, Pair, Role, config
from tests.netns.wait import wait_for


def test_it_carries_traffic(pair: Pair) -> None:
    """``systemctl start`` on each: ping and TCP, both ways, over both paths."""
    pair.start()
    assert pair.client.ping() == 3
    assert pair.server.ping() == 3
    for up in (True, False):
        with pair.flow(up=up) as flow:
            flow.go_on()


def test_it_is_ready_when_started(pair: Pair) -> None:
    """``systemctl start`` returns when the control socket answers and the TUN has its carrier."""
    pair.server.systemctl("start", UNIT)
    assert pair.server.ask("show")
    assert "LOWER_UP" in pair.server.device()["flags"]


def test_status_follows_the_paths(tunnel: Pair) -> None:
    """One line in ``systemctl status`` says how many paths run."""
    tunnel.client.wait_status("2 of 2 paths running")
    tunnel.client.run("ip", "link", "set", "wan1", "down")
    tunnel.client.wait_status("1 of 2 paths running")
    assert re.search(r"Status: .*1 of 2 paths", tunnel.client.systemctl("status", UNIT))


def test_status_says_how_much_flows(pair: Pair) -> None:
    """As seen from either end, and that nothing does."""
    for end in pair.ends:
        end.drop_in("WatchdogSec=2s")  # It looks twice as often.
    pair.start()
    with pair.flow():
        pair.client.wait_status(r"2 of 2 paths running, .*\d Mbit/s up")
        pair.server.wait_status(r"2 of 2 paths running, .*\d Mbit/s in")
    pair.client.wait_status("idle")


def test_reload_loses_nothing(tunnel: Pair) -> None:
    """A changed file is in force when ``systemctl reload`` returns; no packet is lost."""
    before = tunnel.client.main_pid
    with tunnel.flow() as flow, tunnel.stream() as stream:
        tunnel.client.reconfigure("Local=wan0\nBeat=200ms", "Local=wan1\nState=backup")
        beats = {path["local"]: path["settings"]["beat"] for path in tunnel.client.paths()}
        assert beats["10.9.0.1"] == 0.2
        assert tunnel.client.path_from("10.9.1.1")["state"] == "backup"
        stream.flow(100)
        flow.go_on()
        # A path that the file no longer has ends, one that is new begins.
        tunnel.client.reconfigure("Local=wan1")
        wait_for(lambda: len(tunnel.client.paths()) == 1, timeout=5, what="one path")
        stream.flow(100)
        tunnel.client.reconfigure("Local=wan0", "Local=wan1")
        tunnel.wait_running(2)
        stream.flow(100)
    assert not stream.report.lost, str(stream.report)
    assert tunnel.client.main_pid == before


def test_a_wrong_file_is_refused_as_a_whole(tunnel: Pair) -> None:
    """``systemctl reload`` fails and says why; the old file stays in force."""
    client, before = tunnel.client, tunnel.client.ask("show")["tunnel"]["settings"]
    with tunnel.stream() as stream:
        client.configure("Local=wan0\nBeat=soon", tunnel="KeepAlive=10s\n")
        assert client.run("systemctl", "reload", UNIT, check=False).returncode != 0
        assert client.ask("show")["tunnel"]["settings"] == before
        assert len(client.paths()) == 2
        for said in (client.journal(), client.systemctl("status", UNIT)):
            assert f"{CONFIG}:" in said
            assert "soon" in said
        stream.flow(50)
    assert not stream.report.lost, str(stream.report)
    # It goes on to be said while paths come and go, until the file is mended.
    client.run("ip", "link", "set", "wan1", "down")
    client.wait_status("1 of 2 paths.*soon")
    client.reconfigure("Local=wan0", "Local=wan1", tunnel="KeepAlive=10s\n")
    assert client.ask("show")["tunnel"]["settings"]["keepalive"] == 10
    assert "soon" not in client.shown("StatusText")


@pytest.mark.parametrize("role", ["client", "server"])
def test_stop_tells_the_peer(tunnel: Pair, role: Role) -> None:
    """The other side hears of it at once; systemd has nothing to complain of."""
    stopping, other = tunnel.client, tunnel.server
    if role == "server":
        stopping, other = other, stopping
    stopping.systemctl("stop", UNIT)
    said = "the peer set path .* down" if role == "client" else "the peer stopped"
    wait_for(lambda: re.search(said, other.journal()), timeout=2, what="the peer to say so")
    assert not other.paths()
    assert stopping.shown("Result") == "success"
    assert stopping.shown("ActiveState") == "inactive"


@pytest.mark.parametrize("what", ["config", "key"])
def test_what_is_missing_is_said(pair: Pair, what: str) -> None:
    """A start without its file fails, names it in the status, and isn't tried for ever."""
    name = CONFIG if what == "config" else KEY
    pair.client.path(name).unlink()
    assert pair.client.run("systemctl", "start", UNIT, check=False).returncode != 0
    pair.client.wait_state("failed")
    assert (pair.client.shown("ExecMainStatus"), pair.client.shown("NRestarts")) == ("78", "0")
    assert name in pair.client.systemctl("status", UNIT, check=False)
    assert "Traceback" not in pair.client.journal()


def test_a_keyfile_elsewhere_needs_no_credential(pair: Pair) -> None:
    server = pair.server
    key = server.path(KEY).read_text()
    server.path(KEY).unlink()
    server.write("/etc/glorytun/elsewhere", key, 0o600)
    server.run("chown", "glorytun", "/etc/glorytun/elsewhere")
    server.configure(tunnel="KeyFile=/etc/glorytun/elsewhere\n")
    pair.start()


def test_the_configuration_of_the_tests_is_sound(pair: Pair) -> None:
    """What stands in for it doesn't read it."""
    assert config("client", "Local=wan0") in pair.client.path(CONFIG).read_text()
    result = pair.client.run("glorytun", "check", "tun0", check=False)
    assert result.returncode == 0, result.stderr
