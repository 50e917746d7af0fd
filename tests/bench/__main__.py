"""`make bench`: one table, one run, side by side, through the same two namespaces.

Two hosts and one link between them (`direct` in tests/netns/topology.py). Every round starts each
tunnel in turn and puts the same loads through it, so that what else the machine does meets all of
them alike; the table shows the medians over the rounds, and how far the rounds were apart.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench.measure import FAILURES, Measurer, Transfer, memory_mb
from tests.bench.programs import (
    Bare,
    Fastd,
    Glorytun,
    OpenVpn,
    Ours,
    Program,
    Running,
    WireguardGo,
)
from tests.netns.topology import Lab, Topology, direct
from tests.netns.wait import wait_for

Numbers = dict[str, float]

COLUMNS: dict[str, tuple[str, str]] = {
    "tcp_1": ("TCP 1 flow", "Mbit/s"),
    "tcp_8": ("8 flows", "Mbit/s"),
    "tcp_both": ("both ways", "Mbit/s"),
    "tcp_v6": ("IPv6", "Mbit/s"),
    "udp_64": ("UDP 64 B", "packets/s"),
    "ping": ("ping", "ms"),
    "cpu_tx": ("CPU tx", "ns/byte"),
    "cpu_rx": ("CPU rx", "ns/byte"),
    "memory": ("memory", "MB"),
}


def programs() -> list[Program]:
    """All that can be measured, the original first."""
    ours = [Ours("aegis"), Ours("aes"), Ours("chacha"), Ours("aegis", without_offloads=True)]
    return [Bare(), *ours, Glorytun(), WireguardGo(), Fastd(), OpenVpn()]


def measure(program: Program, *, seconds: int, columns: set[str]) -> Numbers:
    """One round of one tunnel."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gt-bench-")))
        topology = direct(stack.enter_context(Lab()))
        running = program.start(topology, directory, stack)
        await_answer(topology, running, directory)
        measurer = Measurer(topology, running, directory, seconds=seconds)
        one: Transfer | None = None

        def tcp() -> float:
            nonlocal one
            one = measurer.tcp()
            return one.mbit

        loads: dict[str, Callable[[], float]] = {
            "ping": measurer.ping,
            "tcp_1": tcp,
            "tcp_8": lambda: measurer.tcp("-P", "8").mbit,
            "tcp_both": lambda: measurer.tcp("--bidir").mbit,
            "tcp_v6": lambda: measurer.tcp(family=6).mbit,
            "udp_64": measurer.small_packets,
            "memory": lambda: memory_mb(running),
        }
        found = {name: load() for name, load in loads.items() if name in columns}
        if one and running.client:
            found["cpu_tx"], found["cpu_rx"] = one.sending, one.receiving
        return found


def await_answer(topology: Topology, running: Running, directory: Path) -> None:
    """Wait until packets get through; if none does, what the processes said is the error."""
    try:
        wait_for(
            lambda: topology.client.ping(running.address[4], count=1, wait=0.2).received,
            timeout=10,
            what="the tunnel to carry packets",
        )
    except AssertionError as error:
        logs = "".join(log.read_text() for log in directory.glob("*.log"))
        raise AssertionError(f"{error}: {logs}") from error


def table(rounds: dict[str, list[Numbers]]) -> str:
    """Medians, and half the distance between the extremes where there are several rounds."""
    names = [
        name for name in COLUMNS if any(name in one for all_ in rounds.values() for one in all_)
    ]
    rows = [
        ["", *(COLUMNS[name][0] for name in names)],
        ["", *(COLUMNS[name][1] for name in names)],
    ]
    for program, numbers in rounds.items():
        rows.append(
            [program, *(_cell([one[name] for one in numbers if name in one]) for name in names)]
        )
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]))
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    middle = statistics.median(values)
    digits = 0 if middle >= 20 else 2
    spread = f" ±{(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{middle:.{digits}f}{spread}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each load")
    parser.add_argument("--only", default="", help="part of the names of the tunnels, with commas")
    parser.add_argument("--columns", default=",".join(COLUMNS), help="which, with commas")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="file to write")
    options = parser.parse_args()
    columns = set(options.columns.split(","))
    if unknown := sorted(columns - set(COLUMNS)):
        parser.error(f"no column {', '.join(unknown)}: there are {', '.join(COLUMNS)}")
    if min(options.rounds, options.seconds) < 1:
        parser.error("--rounds and --seconds are 1 at the least")
    chosen = []
    for program in programs():
        if not any(part in program.name for part in options.only.split(",")):
            continue
        if reason := program.missing():
            print(f"{program.name} is not measured: {reason}", file=sys.stderr)
        else:
            chosen.append(program)
    if not chosen:
        parser.error(f"nothing to measure: --only {options.only} is part of no name that is here")
    rounds: dict[str, list[Numbers]] = {program.name: [] for program in chosen}
    for number in range(options.rounds):
        for program in chosen:
            print(f"round {number + 1}: {program.name}", file=sys.stderr)
            try:
                numbers = measure(program, seconds=options.seconds, columns=columns)
            except FAILURES as error:  # Of others' programs mostly: the rest is worth having.
                print(f"{program.name} failed: {error!r}", file=sys.stderr)
            else:
                rounds[program.name].append(numbers)
    print(table(rounds))
    document = {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "seconds": options.seconds,
        "units": {name: unit for name, (_, unit) in COLUMNS.items()},
        "rounds": rounds,
    }
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
