"""What is measured of a tunnel, by iperf3 and ping from host to host."""

import json
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.programs import Running
from tests.netns.topology import Topology
from tests.netns.wait import wait_for

PINGS = 300
PING_INTERVAL = 0.004
SMALL = 64
"""Bytes of payload of the small UDP packets."""
FAILURES = (AssertionError, subprocess.SubprocessError, OSError, ValueError, KeyError)
"""How a measurement ends that can't be made: iperf3 that doesn't end, or a program that does."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One run of iperf3."""

    mbit: float
    """Delivered, both directions together."""
    sending: float
    """ns of CPU that the sender's side of the tunnel took per byte."""
    receiving: float


def cpu_ns(pids: tuple[int, ...]) -> int:
    """CPU time of processes with all their threads: /proc/PID/schedstat, sched-stats.rst."""
    files = [file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(file.read_text().split()[0]) for file in files)


def memory_mb(running: Running) -> float:
    """The larger side's resident memory: VmRSS of proc_pid_status(5)."""
    sizes = [0.0]
    for pid in running.client + running.server:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        sizes.append(int(found[1]) / 1000 if found else 0.0)
    return max(sizes)


class Measurer:
    """Runs loads through one tunnel, `seconds` each."""

    def __init__(self, topology: Topology, running: Running, directory: Path, *, seconds: int):
        self._topology = topology
        self._running = running
        self._log = directory / "iperf3.log"
        self._seconds = seconds

    def tcp(self, *words: str, family: int = 4) -> Transfer:
        """TCP from the client to the server; `words` are options of iperf3."""
        before = cpu_ns(self._running.client), cpu_ns(self._running.server)
        end = self._iperf(*words, family=family)
        used = [
            cpu_ns(pids) - ns
            for pids, ns in zip((self._running.client, self._running.server), before, strict=True)
        ]
        sums = [end["sum_received"]]
        if "sum_received_bidir_reverse" in end:
            sums.append(end["sum_received_bidir_reverse"])
        total = sum(one["bytes"] for one in sums)
        mbit = sum(one["bits_per_second"] for one in sums) / 1e6
        return Transfer(mbit, used[0] / total, used[1] / total)

    def small_packets(self) -> float:
        """UDP packets/s that arrive when more are sent than can be carried."""
        end = self._iperf("-u", "-l", str(SMALL), "-b", "0", family=4)
        received = end["sum_received"]
        seconds: float = received["seconds"]
        return float((received["packets"] - received["lost_packets"]) / seconds)

    def ping(self) -> float:
        """Median round trip, ms."""
        result = self._topology.client.run(
            *("ping", "-n", "-c", str(PINGS), "-i", str(PING_INTERVAL), "-W", "1"),
            self._running.address[4],
        )
        times = sorted(float(text) for text in re.findall(r"time=([\d.]+)", result.stdout))
        return times[len(times) // 2]

    def _iperf(self, *words: str, family: int) -> dict[str, dict[str, float]]:
        host = self._topology.server
        server = host.popen("iperf3", "-s", "-1", "--forceflush", log=self._log, env={})
        try:
            wait_for(lambda: _listens(host.netns), timeout=5, what="iperf3 to listen")
            load = ("iperf3", "-J", "-t", str(self._seconds), "-c", self._running.address[family])
            result = self._topology.client.run(*load, *words, check=False, timeout=30)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(5)
        document = json.loads(result.stdout)
        assert "error" not in document, document["error"]
        end: dict[str, dict[str, float]] = document["end"]
        return end


def _listens(netns: str) -> bool:
    shown = subprocess.run(
        ["ip", "netns", "exec", netns, "ss", "-Hltn", "sport = 5201"],
        capture_output=True,
        text=True,
    )
    return bool(shown.stdout)
