"""The course of a load: as CSV, and as a picture."""

import csv
from collections.abc import Iterable
from html import escape
from pathlib import Path

from tests.bench.paths.loads import LOST_PING, Seen

STEP = 0.1
"""s of one point."""
WIDTH, HEIGHT, LEFT, TOP, GAP = 900, 220, 60, 40, 60
COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9065b0")

Line = tuple[str, list[tuple[float, float]]]
"""A name, and points."""


def lines(seen: Seen, direction: int) -> tuple[list[Line], list[Line]]:
    """Mbit/s, and ms."""
    end = seen.received[-1][0]
    links = len(seen.samples[0][1])
    times = [step * STEP for step in range(int(end / STEP))]
    rates: list[Line] = [("goodput", [(at, seen.mbit(at, at + STEP)) for at in times])]
    delays: list[Line] = [("ping", [point for point in seen.pings if point[1] < LOST_PING])]
    for link in range(links):
        name = f"link {link + 1}"
        carried = [(at, seen.carried(link, direction, at - STEP, at + 2 * STEP)) for at in times]
        queues = [(at, one[link][direction].queue_ms) for at, one in seen.samples if at >= 0]
        rates.append((name, carried))
        delays.append((f"{name}'s queue", queues))
    return rates, delays


def write_csv(path: Path, seen: Seen, direction: int) -> None:
    """One row a point: what, seconds, value."""
    rates, delays = lines(seen, direction)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("what", "unit", "seconds", "value"))
        for unit, chosen in (("Mbit/s", rates), ("ms", delays)):
            for name, points in chosen:
                for at, value in points:
                    writer.writerow((name, unit, f"{at:.3f}", f"{value:.3f}"))


def write_svg(path: Path, seen: Seen, direction: int, *, title: str) -> None:
    """Throughput above, delay below."""
    rates, delays = lines(seen, direction)
    end = seen.received[-1][0]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" '
        f'viewBox="0 0 {WIDTH} {2 * (HEIGHT + GAP) + TOP}">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>',
        *_panel(rates, "Mbit/s", end, TOP),
        *_panel(delays, "ms", end, TOP + HEIGHT + GAP),
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n")


def _panel(chosen: list[Line], unit: str, end: float, top: int) -> Iterable[str]:
    most = max((value for _, points in chosen for _, value in points), default=1.0) * 1.05 or 1.0
    across = (WIDTH - LEFT - 20) / end
    bottom = top + HEIGHT
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        y = bottom - fraction * HEIGHT
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - 20}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{fraction * most:.0f}</text>'
    for second in range(0, int(end) + 1, max(1, int(end) // 12)):
        x = LEFT + second * across
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{second} s</text>'
    for index, (name, points) in enumerate(chosen):
        colour = COLOURS[index % len(COLOURS)]
        where = " ".join(
            f"{LEFT + at * across:.1f},{bottom - value / most * HEIGHT:.1f}" for at, value in points
        )
        yield f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        x = LEFT + 10 + index * 130
        yield f'<text x="{x}" y="{top - 6}" fill="{colour}">{name}, {unit}</text>'
