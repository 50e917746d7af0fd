"""How the process behaves toward its host, its user and its peer."""

import os
import re
import select
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.netns.topology import Lab, direct
from tests.netns.tunnel import Pair, Role, Tunnel, Tunnels
from tests.netns.wait import wait_for

MOST_CPU = 0.01
"""Share of a core that an idle daemon may use."""
MOST_MEMORY = 60_000_000
"""Bytes of resident memory."""
MOST_SHOW = 0.150
"""Seconds that ``glorytun show`` may take, from start to end of the process."""
MEASURED = 10.0
"""Seconds over which an idle daemon is watched."""


@pytest.mark.parametrize("role", ["client", "server"])
def test_stop_is_told_on_every_path(lab: Lab, tunnels: Tunnels, role: Role) -> None:
    """On SIGTERM the other side hears of it, on every path, and its log says so."""
    pair = tunnels.join(direct(lab, links=2), Tunnel, Tunnel, links=2)
    pair.wait_running(2)
    stopping, other = pair.client, pair.server
    if role == "server":
        stopping, other = other, stopping
    stopping.stop()
    wait_for(
        lambda: not any(path.running for path in other.paths()),
        timeout=2,
        what="no path to be running",
    )
    said = "the peer set path .* down" if role == "client" else "the peer stopped"
    assert re.search(said, other.logged())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_left_behind(lab: Lab, tunnels: Tunnels, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end it with status 0, without its TUN and without its socket."""
    server = tunnels.make(Tunnel, direct(lab).server).start()
    assert server.host.device(server.dev)
    assert list(server.directory.iterdir()) != [server.log]
    server.stop(number)
    assert not server.host.device(server.dev)
    assert list(server.directory.iterdir()) == [server.log]


def test_sighup_keeps_the_tun(lab: Lab, tunnels: Tunnels) -> None:
    """SIGHUP ends it but keeps the TUN and its addresses for the next one."""
    pair = tunnels.join(direct(lab), Tunnel, Tunnel)
    pair.wait_running()
    device = pair.server.host.device(pair.server.dev)
    pair.server.stop(signal.SIGHUP)
    kept = pair.server.host.device(pair.server.dev)
    assert kept
    assert device
    assert kept["ifindex"] == device["ifindex"]
    assert list(pair.server.directory.iterdir()) == [pair.server.log]
    pair.server.start()
    wait_for(pair.answers, timeout=5, what="a ping after the restart")


def test_persist_keeps_the_tun(lab: Lab, tunnels: Tunnels) -> None:
    """With `persist` the TUN outlives SIGTERM too."""
    server = tunnels.make(Tunnel, direct(lab).server, words=["persist"]).start()
    server.stop()
    assert server.host.device(server.dev)


def test_port_in_use(lab: Lab, tunnels: Tunnels) -> None:
    """A second daemon on the same port says so in one line, and leaves nothing behind."""
    first = tunnels.make(Tunnel, direct(lab).server).start()
    words = ("bind", "0.0.0.0", "dev", "second", "keyfile", str(tunnels.key))
    result = first.glorytun(*words)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "5000" in result.stderr
    assert not first.host.device("second")
    assert "second" not in "".join(path.name for path in first.directory.iterdir())


def test_one_of_two_must_be_named(lab: Lab, tunnels: Tunnels) -> None:
    """One tunnel selects itself; of two, one must be named; none is said to be none."""
    host = direct(lab).server
    first = tunnels.make(Tunnel, host).start()
    assert first.glorytun("show").returncode == 0
    words = ["5001"]
    second = tunnels.make(Tunnel, host, directory=first.directory, words=words).start()
    for command in ("show", "path"):
        result = first.glorytun(command)
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert "dev" in result.stderr
        assert first.command(command) != second.command("show")
    assert {first.dev, second.dev} <= set(re.findall(r"\w+", first.glorytun("list").stdout))
    first.stop()
    second.stop()
    result = first.glorytun("show")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("role", ["client", "server"])
def test_deleted_device_ends_it(lab: Lab, tunnels: Tunnels, role: Role) -> None:
    """A TUN that is deleted under a daemon ends it with one line and status 1, in any state."""
    topology = direct(lab)
    daemon = tunnels.make(Tunnel, topology.server)  # Without a client it doesn't read the TUN.
    if role == "server":
        daemon.start()
    else:
        pair = tunnels.join(topology, Tunnel, Tunnel)
        pair.wait_running()
        daemon = pair.client
    daemon.host.ip(f"link delete {daemon.dev}")
    assert daemon.process is not None
    assert daemon.process.wait(timeout=8) == 1
    assert "deleted" in daemon.logged().splitlines()[-1]
    assert "Traceback" not in daemon.logged()


def test_device_of_somebody_else_stays(lab: Lab, tunnels: Tunnels) -> None:
    """A TUN that was there before is there afterwards, also when the start fails."""
    daemon = tunnels.make(Tunnel, direct(lab).server)
    daemon.host.ip(f"tuntap add {daemon.dev} mode tun")
    daemon.start()
    daemon.stop()
    assert daemon.host.device(daemon.dev)
    obstacle = daemon.directory / f"{daemon.dev}.sock"
    obstacle.mkdir()
    words = ("bind", "0.0.0.0", "dev", daemon.dev, "keyfile", str(tunnels.key))
    assert daemon.glorytun(*words).returncode == 1
    assert daemon.host.device(daemon.dev)
    daemon.host.ip(f"link delete {daemon.dev}")
    assert daemon.glorytun(*words, "persist").returncode == 1
    assert not daemon.host.device(daemon.dev)
    obstacle.rmdir()


def test_log_that_nobody_reads(lab: Lab, tunnels: Tunnels) -> None:
    """A full pipe behind stderr stops neither the answers nor the end."""
    daemon = tunnels.make(Tunnel, direct(lab).server)
    os.mkfifo(daemon.log)
    reader = os.open(daemon.log, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(daemon.log, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n" * select.PIPE_BUF)
    try:
        daemon.start()
        assert daemon.glorytun("show").returncode == 0
        daemon.stop()
    finally:
        os.close(reader)
        os.close(writer)


def _untraced() -> dict[str, str]:
    """The environment without what measures coverage, which takes time and memory."""
    return {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}


def _cpu_seconds(pid: int) -> float:
    """CPU time a process used so far: utime and stime of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> int:
    """Bytes of resident memory: VmRSS of proc_pid_status(5)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.slow
def test_idle_and_quick(lab: Lab, tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle daemon takes under 1 % of a core and 60 MB; ``show`` answers in under 150 ms."""
    for name in os.environ.keys() - _untraced().keys():
        monkeypatch.delenv(name)
    topology = direct(lab)
    pair = tunnels.join(topology, Tunnel, Tunnel)
    pair.wait_running()
    assert statistics.median(_show_seconds(pair) for _ in range(5)) < MOST_SHOW
    link = topology.links[0]
    seen: list[int] = []

    def quiet() -> bool:
        """Whether nothing was sent for half a second: a beat is a fifth of that."""
        seen.append(link.carried())
        return len(seen) > 25 and seen[-1] == seen[-25]

    wait_for(quiet, timeout=10, what="the link to fall quiet")
    pids = {"client": pair.client.pid, "server": pair.server.pid}
    before = {role: _cpu_seconds(pid) for role, pid in pids.items()}
    time.sleep(MEASURED)  # what is measured takes this time
    for role, pid in pids.items():
        used = (_cpu_seconds(pid) - before[role]) / MEASURED
        assert used < MOST_CPU, f"the idle {role} used {used:.1%} of a core"
        assert _memory(pid) < MOST_MEMORY, f"the {role} holds {_memory(pid)} bytes"


def _show_seconds(pair: Pair[Tunnel, Tunnel]) -> float:
    """How long ``glorytun show`` takes."""
    script = Path(sys.executable).with_name("glorytun")
    started = time.monotonic()
    subprocess.run([script, "show"], env=pair.client.env, check=True, capture_output=True)
    return time.monotonic() - started
