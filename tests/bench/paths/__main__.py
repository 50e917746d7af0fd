"""`make bench-paths`: what several links together carry, and how they fail and return.

Every row of the table is run over emulated links (tests/wan.py), with the load in both directions,
for this tunnel, for the 0.3.4 that GLORYTUN_PEER names, or for one at either end. The table shows
medians over the rounds, the bar, and whether it is reached.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from glorytun.config import parse_reorder
from tests.bench.measure import FAILURES
from tests.bench.paths.rows import ROWS, Measure, Row, Run
from tests.bench.paths.scene import Options, Players
from tests.bench.paths.series import write_csv, write_svg
from tests.netns.tunnel import PEER
from tests.wan import DOWN, UP

PLAYERS = {
    "ours": Players("ours", "ours"),
    "0.3.4": Players("0.3.4", "0.3.4"),
    "ours-to-0.3.4": Players("ours", "0.3.4"),
    "0.3.4-to-ours": Players("0.3.4", "ours"),
}

LATE_MAX = 0.1
"""% of frames that the emulator may let leave too late: with more a run was disturbed."""

Found = dict[tuple[str, str, bool], list[Run]]
"""Rounds, by row, players and direction."""


def middle(rounds: list[Run], index: int) -> Measure:
    """The median of one measure."""
    values = [one.measures[index].value for one in rounds]
    bars = [one.measures[index].bar for one in rounds]
    first = rounds[0].measures[index]
    return Measure(
        name=first.name,
        unit=first.unit,
        value=statistics.median(values),
        bar=statistics.median(bars),
        is_most=first.is_most,
    )


def table(found: Found) -> str:
    """One line for each measure of each row."""
    lines = [("row", "who", "way", "measure", "found", "bar", "", "")]
    for (row, players, up), rounds in found.items():
        disturbed = sum(one.late > LATE_MAX for one in rounds)
        note = f"{disturbed} of {len(rounds)} disturbed" if disturbed else ""
        for index in range(len(rounds[0].measures) if rounds else 0):
            measure = middle(rounds, index)
            sign = "≤" if measure.is_most else "≥"
            has_bar = measure.bar > 0
            values = [one.measures[index].value for one in rounds]
            spread = f" ({min(values):.4g}…{max(values):.4g})" if len(values) > 1 else ""
            lines.append(
                (
                    row if not index else "",
                    players if not index else "",
                    ("up" if up else "down") if not index else "",
                    measure.name,
                    f"{measure.value:.4g} {measure.unit}{spread}",
                    f"{sign} {measure.bar:.4g}" if has_bar else "",
                    ("reached" if measure.is_reached else "NOT reached") if has_bar else "",
                    note if not index else "",
                )
            )
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def run_calm(row: Row, name: str, up: bool, arguments: argparse.Namespace) -> Run | None:
    """One row, again if it was disturbed, as often as is allowed: the calmest run."""
    best: Run | None = None
    for _ in range(1 + arguments.again):
        found = run(row, name, up, arguments)
        if found is not None and (best is None or found.late < best.late):
            best = found
        if best is not None and best.late <= LATE_MAX:
            break
    return best


def run(row: Row, name: str, up: bool, arguments: argparse.Namespace) -> Run | None:
    """One row once; None when it failed."""
    options = Options(
        congestion=arguments.congestion, qdisc=arguments.qdisc, reorder=arguments.reorder
    )
    seconds = arguments.seconds or row.seconds
    try:
        found = row.work(PLAYERS[name], up, options, seconds)
    except FAILURES as error:
        print(f"{row.name}, {name}: {error!r}", file=sys.stderr)
        return None
    text = ", ".join(f"{one.name} {one.value:.4g} {one.unit}" for one in found.measures)
    late = f"{found.late:.2g} % of frames late" + (", disturbed" * (found.late > LATE_MAX))
    print(f"{row.name}, {name}, {'up' if up else 'down'}: {text} ({late})", file=sys.stderr)
    if found.seen is not None:
        arguments.series.mkdir(parents=True, exist_ok=True)
        stem = f"{row.name}-{name}-{'up' if up else 'down'}"
        direction = UP if up else DOWN
        write_csv(arguments.series / f"{stem}.csv", found.seen, direction)
        title = f"{row.title}: {name}, {'up' if up else 'down'}"
        write_svg(arguments.series / f"{stem}.svg", found.seen, direction, title=title)
    return found


def refuse_unknown(
    parser: argparse.ArgumentParser, option: str, text: str, known: Collection[str]
) -> None:
    """End with a message when one of the names, with commas, isn't known."""
    if unknown := sorted(set(filter(None, text.split(","))) - set(known)):
        parser.error(f"{option}: no {', '.join(unknown)}: there are {', '.join(known)}")


def arguments_given() -> argparse.Namespace:
    """What was asked for; ends with a message when it can't be."""
    parser = argparse.ArgumentParser(prog="make bench-paths", description=__doc__)
    names = ", ".join(row.name for row in ROWS)
    parser.add_argument("--only", default="", help=f"rows, with commas, of {names}")
    parser.add_argument("--who", default="ours", help=f"with commas, of {', '.join(PLAYERS)}")
    parser.add_argument("--way", choices=("up", "down", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=1)
    again = "times that a run is made again which the host disturbed"
    parser.add_argument("--again", type=int, default=2, help=again)
    parser.add_argument("--seconds", type=float, default=0, help="of each load")
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    parser.add_argument("--congestion", default=congestion, help=f"of TCP inside: {congestion}")
    parser.add_argument("--qdisc", default="", help="of the TUN devices, else the kernel's default")
    parser.add_argument("--reorder", default="", help="how long we hold what is received, or off")
    parser.add_argument("--json", type=Path, default=Path("bench-paths.json"), help="to write")
    series = Path("bench-paths.series")
    parser.add_argument("--series", type=Path, default=series, help="directory for CSV and SVG")
    arguments = parser.parse_args()
    refuse_wrong(parser, arguments)
    return arguments


def refuse_wrong(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with a message for what no run is needed to see."""
    refuse_unknown(parser, "--only", arguments.only, [row.name for row in ROWS])
    refuse_unknown(parser, "--who", arguments.who, PLAYERS)
    if min(arguments.rounds - 1, arguments.again, arguments.seconds) < 0:
        parser.error("--rounds is 1 at the least, --again and --seconds are 0")
    try:
        parse_reorder(arguments.reorder or "off")
    except ValueError as error:
        parser.error(f"--reorder {arguments.reorder!r} {error}")
    try:
        with socket.socket() as trial:
            name = arguments.congestion.encode()
            trial.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
    except OSError as error:
        parser.error(f"--congestion {arguments.congestion}: {error.strerror}: see tcp(7)")
    if "0.3.4" in arguments.who and not PEER:
        parser.error("GLORYTUN_PEER names no glorytun 0.3.4")


def main() -> int:
    arguments = arguments_given()
    who = arguments.who.split(",")
    only = set(filter(None, arguments.only.split(",")))
    found: Found = {}
    failed = 0
    for _ in range(arguments.rounds):
        for row in ROWS:
            if only and row.name not in only:
                continue
            for name in ("ours",) if row.only_ours else who:
                for up in {"up": (True,), "down": (False,), "both": (True, False)}[arguments.way]:
                    one = run_calm(row, name, up, arguments)
                    if one is None:
                        failed += 1
                    else:
                        found.setdefault((row.name, name, up), []).append(one)
    print(table(found))
    document = {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "congestion": arguments.congestion,
        "qdisc": arguments.qdisc,
        "found": [
            {
                "row": row,
                "who": name,
                "way": "up" if up else "down",
                "rounds": [[asdict(measure) for measure in one.measures] for one in rounds],
                "late": [one.late for one in rounds],
            }
            for (row, name, up), rounds in found.items()
        ],
    }
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
