"""The service ends and begins anew: a restart, a crash, a hang. TUN and socket outlive it."""

import signal
import time
from pathlib import Path

import pytest

from tests.lab.tunnel import PORT, TUNNEL, UNIT, End, Pair, Role
from tests.netns.wait import wait_for

RECOVERED = 2.0
"""Seconds from a crash until packets go through again."""
RESUMED = 1.0
"""Seconds from the start of the new process until packets go through again."""
_STUCK = "/usr/lib/lab-stuck.py"


def kept(end: End) -> dict[str, object]:
    """What has to be the same after a restart: the TUN, open all the time, and the socket."""
    device = end.device()
    return {
        "device": device["ifindex"],
        "carrier": end.carrier_changes(),
        "socket": end.udp_sockets()[PORT]["sk"],
        "stored": end.shown("NFileDescriptorStore"),
    }


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("role", ["client", "server"])
def test_restart_under_a_transfer(tunnel: Pair, role: Role, up: bool) -> None:
    """TCP goes on within a second of the new process's start; TUN and socket stay open."""
    end = tunnel.client if role == "client" else tunnel.server
    before = kept(end)
    with tunnel.flow(up=up) as flow, tunnel.stream() as stream:
        stream.flow(50)
        end.systemctl("restart", UNIT)
        started = end.main_started_at
        stream.flow(100, timeout=10)
        flow.go_on()
    assert stream.report.lost_after(started) < RESUMED, str(stream.report)
    assert flow.resumed_after(started) < RESUMED
    assert kept(end) == before
    assert before["stored"] == "2"


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_crash_is_recovered(tunnel: Pair, role: Role) -> None:
    """After ``kill -9`` packets go through again in under 2 s, and TCP goes on."""
    end = tunnel.client if role == "client" else tunnel.server
    pid, before = end.main_pid, kept(end)
    with tunnel.flow() as flow, tunnel.stream() as stream:
        stream.flow(50)
        killed = time.monotonic()
        end.kill(signal.SIGKILL)
        wait_for(lambda: end.main_pid not in (0, pid), timeout=5, what="a new process")
        stream.flow(100, timeout=10)
        flow.go_on()
    assert stream.report.lost_after(killed) < RECOVERED, str(stream.report)
    # What was lost TCP sends again ever more seldom: it waits for as long again at the most.
    assert flow.longest_pause(killed) < 2 * RECOVERED
    assert kept(end) == before


def test_both_may_restart_at_once(tunnel: Pair) -> None:
    """As after an update of both: TCP goes on."""
    with tunnel.flow() as flow:
        for end in tunnel.ends:
            end.systemctl("restart", "--no-block", UNIT)
        tunnel.wait_running(2)
        flow.go_on()


def test_stop_closes_what_was_kept(tunnel: Pair) -> None:
    """TUN and socket are closed, and a later start begins anew."""
    client = tunnel.client
    client.systemctl("stop", UNIT)
    assert PORT not in client.udp_sockets()
    assert "LOWER_UP" not in client.device()["flags"]
    client.systemctl("start", UNIT)
    tunnel.wait_running(2)


def test_a_socket_that_no_longer_fits_is_dropped(tunnel: Pair) -> None:
    """With another ``Port=`` a restart makes a new one, and keeps the TUN."""
    client = tunnel.client
    carrier = client.carrier_changes()
    client.reconfigure("Local=wan0", "Local=wan1", tunnel="Port=5999\n")
    assert "Port=" in client.journal("--lines=5"), "nobody said that it takes a restart"
    assert PORT in client.udp_sockets()
    client.systemctl("restart", UNIT)
    tunnel.wait_running(2)
    assert 5999 in client.udp_sockets()
    assert PORT not in client.udp_sockets()
    # The same port on other addresses: the old socket is in the way until systemd closes it.
    for bind in ("0.0.0.0", "::", "0.0.0.0"):
        client.reconfigure("Local=wan0", "Local=wan1", tunnel=f"Bind={bind}\nPort=5999\n")
        client.systemctl("restart", UNIT)
        tunnel.wait_running(2)
    assert client.shown("NRestarts") == "0"
    assert client.carrier_changes() == carrier
    assert client.shown("NFileDescriptorStore") == "2"


def test_a_device_that_was_deleted_is_made_anew(tunnel: Pair) -> None:
    """The TUN that was kept is of no use any more; networkd gives the new one its address."""
    client = tunnel.client
    before = client.device()["ifindex"]
    client.run("ip", "link", "delete", TUNNEL)
    wait_for(
        lambda: client.device().get("ifindex", before) != before, timeout=15, what="another TUN"
    )
    tunnel.wait_running(2)
    assert client.shown("NFileDescriptorStore") == "2"


def test_a_hung_loop_is_ended_by_the_watchdog(tunnel: Pair) -> None:
    client = tunnel.client
    assert client.shown("WatchdogUSec") == "10s"
    client.drop_in("WatchdogSec=2s")
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


def test_a_loop_that_turns_in_vain_is_ended_too(pair: Pair) -> None:
    """Nothing is done at its time any more, though the loop turns and answers commands."""
    client = pair.client
    client.write(_STUCK, Path(__file__).with_name("stuck.py").read_text())
    client.drop_in(f"WatchdogSec=2s\nExecStart=\nExecStart=/usr/bin/python3 {_STUCK} {TUNNEL}")
    pair.start()
    before = client.main_pid
    client.write("/etc/lab-stuck", "")
    wait_for(lambda: client.main_pid not in (0, before), timeout=15, what="a new process")
    client.path("/etc/lab-stuck").unlink()
    pair.wait_running(2)
    assert "Watchdog timeout" in client.journal()
