"""The service under systemd: start, stop, reload, restart, and what it survives."""

import re
import signal
import time

import pytest

from tests.lab.tunnel import CONFIG, KEY, UNIT, Pair, Role, config
from tests.netns.wait import wait_for

RECOVERED = 2.0
"""Seconds from a crash until packets go through again."""
RESUMED = 1.0
"""Seconds from the start of the new process until packets go through again."""
WATCHDOG = "/etc/systemd/system/glorytun@.service.d/50-watchdog.conf"
"""A drop-in of a user's."""


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
    wait_for(
        lambda: "2 of 2 paths" in tunnel.client.shown("StatusText"),
        timeout=5,
        what="2 paths in status",
    )
    tunnel.client.run("ip", "link", "set", "wan1", "down")
    wait_for(
        lambda: "1 of 2 paths" in tunnel.client.shown("StatusText"),
        timeout=5,
        what="1 path in status",
    )
    assert re.search(r"Status: .*1 of 2 paths", tunnel.client.systemctl("status", UNIT))


def test_reload_loses_nothing(tunnel: Pair) -> None:
    """A changed file is in force when ``systemctl reload`` returns; no packet is lost."""
    before = tunnel.client.main_pid
    with tunnel.flow() as flow, tunnel.stream() as stream:
        tunnel.client.configure("Local=wan0\nBeat=200ms", "Local=wan1\nState=backup")
        tunnel.client.systemctl("reload", UNIT)
        beats = {path["local"]: path["settings"]["beat"] for path in tunnel.client.paths()}
        assert beats["10.9.0.1"] == 0.2
        assert tunnel.client.path_from("10.9.1.1")["state"] == "backup"
        stream.flow(100)
        flow.go_on()
        # A path that the file no longer has ends, one that is new begins.
        tunnel.client.configure("Local=wan1")
        tunnel.client.systemctl("reload", UNIT)
        wait_for(lambda: len(tunnel.client.paths()) == 1, timeout=5, what="one path")
        stream.flow(100)
        tunnel.client.configure("Local=wan0", "Local=wan1")
        tunnel.client.systemctl("reload", UNIT)
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
        # What was refused is forgotten once it is mended.
        client.configure("Local=wan0", "Local=wan1", tunnel="KeepAlive=10s\n")
        client.systemctl("reload", UNIT)
        assert client.ask("show")["tunnel"]["settings"]["keepalive"] == 10
    assert not stream.report.lost, str(stream.report)
    assert "soon" not in client.shown("StatusText")


@pytest.mark.parametrize("role", ["client", "server"])
def test_restart_under_a_transfer(tunnel: Pair, role: Role) -> None:
    """TCP goes on within a second of the new process's start, on the same TUN."""
    end = tunnel.client if role == "client" else tunnel.server
    index = end.device()["ifindex"]
    with tunnel.flow() as flow, tunnel.stream() as stream:
        stream.flow(50)
        end.systemctl("restart", UNIT)
        started = end.main_started_at
        stream.flow(100, timeout=10)
        flow.go_on()
    assert stream.report.lost_after(started) < RESUMED, str(stream.report)
    assert flow.resumed_after(started) < RESUMED
    assert end.device()["ifindex"] == index


@pytest.mark.xfail(strict=True, reason="the daemon doesn't use systemd's descriptor store yet")
def test_restart_keeps_the_tun_open(tunnel: Pair) -> None:
    """The TUN waits for the new process with systemd: it never loses its carrier."""
    carrier = tunnel.client.carrier_changes()
    tunnel.client.systemctl("restart", UNIT)
    tunnel.wait_running(2)
    assert tunnel.client.carrier_changes() == carrier


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_crash_is_recovered(tunnel: Pair, role: Role) -> None:
    """After ``kill -9`` packets go through again in under 2 s, and TCP goes on."""
    end = tunnel.client if role == "client" else tunnel.server
    before = end.main_pid
    with tunnel.flow() as flow, tunnel.stream() as stream:
        stream.flow(50)
        killed = time.monotonic()
        end.kill(signal.SIGKILL)
        wait_for(lambda: end.main_pid not in (0, before), timeout=5, what="a new process")
        stream.flow(100, timeout=10)
        flow.go_on()
    assert stream.report.lost_after(killed) < RECOVERED, str(stream.report)
    assert flow.resumed_after(killed) < RECOVERED


def test_a_hung_loop_is_ended_by_the_watchdog(tunnel: Pair) -> None:
    client = tunnel.client
    assert client.shown("WatchdogUSec") == "10s"
    client.write(WATCHDOG, "[Service]\nWatchdogSec=2s\n")
    client.systemctl("daemon-reload")
    client.systemctl("restart", UNIT)
    tunnel.wait_running(2)
    before = client.main_pid
    # It answers in time for more than one period.
    started = time.monotonic()
    wait_for(lambda: time.monotonic() > started + 3, timeout=5, what="a period to pass")
    assert client.main_pid == before
    client.kill(signal.SIGSTOP)
    wait_for(lambda: client.main_pid not in (0, before), timeout=10, what="a new process")
    tunnel.wait_running(2)
    assert "Watchdog timeout" in client.journal()


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
