"""Shows the demonstration: live on a terminal, line by line elsewhere."""

import re
from collections import deque
from io import StringIO
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tests.demo.story import BOTH, MEGA, SIZE, Frame, PathRow, Summary

WIDTH = 96
NEWS = 9
"""Lines of news on the screen."""
BAR = 12
"""Characters of the bar of a path's share."""
BARS = "▁▂▃▄▅▆▇█"
CONDITION_STYLES = {"running": "green", "waiting": "cyan", "probing": "yellow"}
TITLE = "glorytun: one link out of two"


class Screen(Protocol):
    """Where the demonstration is seen."""

    def say(self, text: str) -> None:
        """Something happened."""

    def show(self, frame: Frame) -> None:
        """What is to be seen now."""

    def end(self, summary: Summary) -> None:
        """It is over."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def mbit(rate: float) -> str:
    """A rate of bits/s in words."""
    return f"{rate / MEGA:.1f} Mbit/s"


class Lines:
    """Plain text, one line a second and one for each thing that happens."""

    def __init__(self) -> None:
        self._shown = 0
        self._at = 0.0

    def say(self, text: str) -> None:
        print(f"{self._at:5.1f} s  * {text}", flush=True)

    def show(self, frame: Frame) -> None:
        self._at = frame.at
        if int(frame.at) <= self._shown:
            return
        self._shown = int(frame.at)
        paths = ", ".join(
            f"{row.line.name} {row.condition} {mbit(row.rate_rx)}" for row in frame.rows
        )
        print(
            f"{frame.at:5.1f} s  {frame.received / MEGA:5.1f} of {SIZE / MEGA:.0f} MB,"
            f" {mbit(frame.rate)}  ({paths})",
            flush=True,
        )

    def end(self, summary: Summary) -> None:
        for line in stage_lines(summary) + remarks(summary):
            print(line, flush=True)

    def close(self) -> None:
        pass


class Terminal:
    """Redraws the whole picture a few times a second; can keep the last one as SVG."""

    def __init__(self, console: Console, *, svg: Path | None) -> None:
        self._console = console
        self._svg = svg
        self._news: deque[Text] = deque(maxlen=NEWS)
        self._frame: Frame | None = None
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def say(self, text: str) -> None:
        at = self._frame.at if self._frame else 0
        style = "dim" if text.startswith("client:") else "bold"
        self._news.append(
            Text(f"{at:5.1f} s  {text}", style=style, no_wrap=True, overflow="ellipsis")
        )
        self._draw()

    def show(self, frame: Frame) -> None:
        self._frame = frame
        self._draw()

    def end(self, summary: Summary) -> None:
        rest: list[RenderableType] = [summary_table(summary), *map(Text, remarks(summary))]
        self._live.update(Group(self._picture(), *rest), refresh=True)
        if self._svg:
            self._svg.write_text(svg_of(Group(self._picture(WIDTH), *rest)))

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> None:
        self._live.update(self._picture(), refresh=True)

    def _picture(self, width: int | None = None) -> RenderableType:
        parts: list[RenderableType] = []
        if self._frame:
            parts += [paths_table(self._frame.rows), transfer_lines(self._frame)]
        parts += [Text(), *self._news]
        return Panel(Group(*parts), title=TITLE, width=width or min(WIDTH, self._console.width))


def svg_of(picture: RenderableType) -> str:
    """The same as an image, without the fonts that rich would let it fetch from elsewhere."""
    console = Console(record=True, width=WIDTH, file=StringIO())
    console.print(picture)
    svg = console.export_svg(title="make demo", unique_id="demo")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def paths_table(rows: list[PathRow]) -> Table:
    """The two paths, as the client sees them."""
    table = Table(box=None, header_style="dim", padding=(0, 1, 0, 0), pad_edge=True)
    for name in ("link", "path from", "condition"):
        table.add_column(name, no_wrap=True)
    for name in ("rtt", "tx Mb/s", "rx Mb/s", "of", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("share of rx", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    return table


def cells(row: PathRow) -> list[RenderableType]:
    """A row of the paths' table."""
    bar = round(BAR * row.share)
    return [
        Text(row.line.name, style="bold red strike" if row.cut else "bold"),
        row.line.address,
        Text(row.condition, style=CONDITION_STYLES.get(row.condition, "bold red")),
        f"{row.rtt * 1000:.0f} ms" if row.rtt else "-",
        f"{row.rate_tx / MEGA:.1f}",
        f"{row.rate_rx / MEGA:.1f}",
        Text("cut", style="bold red") if row.cut else f"{row.line.rate // MEGA}",
        f"{row.loss:.0%}",
        Text.assemble(("█" * bar, "blue"), ("·" * (BAR - bar), "dim"), f" {row.share:4.0%}"),
    ]


def transfer_lines(frame: Frame) -> RenderableType:
    """Progress and throughput of the transfer."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        Text(" download"),
        ProgressBar(total=SIZE, completed=frame.received, width=40),
        f"{frame.received / MEGA:.0f} of {SIZE / MEGA:.0f} MB",
        Text(mbit(frame.rate), style="bold"),
    )
    over_time = Text.assemble(" over time ", (graph(frame.history), "green"))
    return Group(Text(), grid, over_time)


def graph(history: list[float]) -> str:
    """A bar for each rate; the highest is both links' sum."""
    return "".join(BARS[min(7, int(8 * rate / BOTH))] for rate in history[-60:])


def summary_table(summary: Summary) -> Table:
    """The stages of the transfer."""
    table = Table(header_style="dim")
    for name in ("stage", "seconds", "transfer", "links' sum", "share"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in summary.stages:
        table.add_row(
            stage.name,
            f"{stage.seconds:.1f}",
            mbit(stage.rate),
            mbit(stage.links),
            f"{stage.rate / stage.links:.0%}",
        )
    return table


def stage_lines(summary: Summary) -> list[str]:
    """The stages of the transfer, in words."""
    return [
        f"{stage.name}: {mbit(stage.rate)} over {stage.seconds:.1f} s,"
        f" {stage.rate / stage.links:.0%} of the links' {mbit(stage.links)}"
        for stage in summary.stages
    ]


def remarks(summary: Summary) -> list[str]:
    """How it went, in words."""
    again = (
        f"Once mended, the link was in use again within {summary.used_again:.1f} s."
        if summary.used_again is not None
        else "Once mended, the link was not used again."
    )
    return [
        f"{summary.received / MEGA:.0f} MB came through the tunnel in {summary.seconds:.1f} s."
        " 8 % of what the links carry are headers.",
        f"The cut made the transfer pause for {summary.pause:.2f} s. {again}",
    ]
