"""What happens in the demonstration, and when.

    ┌────────┐ 10.9.1.1 ── fast link ── 10.9.1.2 ┌────────┐
    │ client │                                   │ server │   both in network namespaces
    └────────┘ 10.9.2.1 ── slow link ── 10.9.2.2 └────────┘
     10.77.0.1 ═════════ the tunnel ══════════ 10.77.0.2

The client downloads from the server through the tunnel. A while later one link is cut, without
either host being told; later still it is mended.
"""

import json
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.demo.transfer import Transfer
from tests.netns.topology import CLIENT, SERVER, Lab, Link, Topology, address, direct
from tests.netns.tunnel import Pair, Tunnel, Tunnels, inside

MEGA = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One of the two links, as its owner knows it."""

    name: str
    number: int
    rate: int
    """bits/s, both ways."""

    @property
    def address(self) -> str:
        """The client's."""
        return address(4, self.number, CLIENT)


FAST = Line(name="cable", number=1, rate=40 * MEGA)
SLOW = Line(name="mobile", number=2, rate=15 * MEGA)
LINES = (FAST, SLOW)
BOTH = sum(line.rate for line in LINES)

SIZE = 110 * MEGA
CUT_AFTER = 8.0
MENDED_AFTER = 16.0
MOST_SECONDS = 45.0
TICK = 0.25
POLL = 0.5
"""Seconds; `CUT_AFTER` and `MENDED_AFTER` count from the start of the transfer."""


class DemoError(Exception):
    """The demonstration can't go on; the message says why."""


class Interrupted(Exception):
    """Somebody wants it to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRow:
    """A path as ``glorytun path json`` has it, with its rates of late."""

    line: Line
    cut: bool
    condition: str
    rtt: float | None
    """Seconds."""
    rate_tx: float
    """bits/s of datagrams now."""
    rate_rx: float
    loss: float
    """Of what the server sent, from 0 to 1."""
    share: float
    """Of the download now, from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is to be seen at one moment."""

    at: float
    """Seconds since the start of the transfer."""
    rows: list[PathRow]
    received: int
    rate: float
    """bits/s of the transfer over the last second."""
    history: list[float]
    """The same for each half second from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of the transfer and what came of it."""

    name: str
    links: int
    """bits/s of the links that were whole."""
    seconds: float
    rate: float
    """bits/s of the transfer, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How it went."""

    stages: list[Stage]
    received: int
    seconds: float
    pause: float
    """Seconds without a byte when the link was cut."""
    used_again: float | None
    """Seconds from the link's return until glorytun used it; None: it didn't."""


@dataclass(slots=True)
class Watch:
    """Looks at the client's paths, and at what its daemon says."""

    client: Tunnel
    _counted: dict[str, deque[tuple[float, int, int]]] = field(default_factory=dict)
    """Of each path, by its address: the last counts of bytes sent and received, and when."""
    _logged: int = 0

    def rows(self, cut: Line | None) -> list[PathRow]:
        """One row for each link."""
        paths = {
            path["local"]: path for path in json.loads(self.client.command("path", "json"))["paths"]
        }
        now = time.monotonic()
        rates = {line: self._rates(paths[line.address], now) for line in LINES}
        total = sum(rate_rx for _, rate_rx in rates.values())
        return [
            PathRow(
                line=line,
                cut=line is cut,
                condition=paths[line.address]["condition"],
                rtt=paths[line.address]["rtt"],
                rate_tx=rates[line][0],
                rate_rx=rates[line][1],
                loss=paths[line.address]["rx"]["loss"],
                share=rates[line][1] / total if total else 0,
            )
            for line in LINES
        ]

    def news(self) -> Iterator[str]:
        """What the daemon logged since the last call, line by line."""
        lines = self.client.logged().splitlines()
        yield from lines[self._logged :]
        self._logged = len(lines)

    def _rates(self, path: dict[str, Any], now: float) -> tuple[float, float]:
        """bits/s since the third last look."""
        counted = self._counted.setdefault(path["local"], deque(maxlen=3))
        counted.append((now, path["tx"]["bytes"], path["rx"]["bytes"]))
        (since, old_tx, old_rx), (_, tx, rx) = counted[0], counted[-1]
        span = max(now - since, 1e-9)
        return 8 * (tx - old_tx) / span, 8 * (rx - old_rx) / span


@contextmanager
def two_hosts() -> Iterator[tuple[Topology, Tunnels, Path]]:
    """Client and server with shaped links; on leaving, nothing of it is left."""
    with (
        Lab() as lab,
        TemporaryDirectory(prefix="gt-") as directory,
        Tunnels() as tunnels,
    ):
        topology = direct(lab, links=len(LINES))
        for line, link in zip(LINES, topology.links, strict=True):
            limit(link, line.rate)
        yield topology, tunnels, Path(directory)


def limit(link: Link, rate: int) -> None:
    """Let a link carry no more than `rate`, bits/s, each way, with a queue of 50 ms."""
    for host in link.hosts:
        host.run(
            *("tc", "qdisc", "add", "dev", link.device, "root"),
            *("tbf", "rate", f"{rate}bit", "burst", "20kb", "latency", "50ms"),
        )


def make_key(path: Path) -> Path:
    """What ``glorytun keygen > path`` does, in a file of the mode that bind asks for."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        subprocess.run([*Tunnel.program, "keygen"], stdout=file, check=True)
    return path


def connect(topology: Topology, tunnels: Tunnels, key: Path) -> Pair[Tunnel, Tunnel]:
    """Start both sides, and a path over each link that knows the link's rate."""
    pair = tunnels.join(
        topology,
        Tunnel,
        Tunnel,
        links=0,
        client_options={"key": key},
        server_options={"key": key},
    )
    for line in LINES:
        rate = f"{line.rate // 1000}kbit"
        pair.client.path(line.address, "up", "rate", "tx", rate, "rx", rate)
    pair.wait_running(len(LINES))
    return pair


@dataclass(slots=True)
class Story:
    """The transfer, the cut and the return. `run` it once."""

    topology: Topology
    client: Tunnel
    show: Callable[[Frame], None]
    """Called a few times a second."""
    say: Callable[[str], None]
    """Called for each thing that happens."""
    interrupted: Callable[[], bool]
    _cut: Line | None = None
    _rows: list[PathRow] = field(default_factory=list)
    _polled_at: float = 0.0

    def run(self) -> Summary:
        """Raises Interrupted, and DemoError when the transfer doesn't end in time."""
        with Transfer(
            source=self.topology.server,
            target=self.topology.client,
            address=inside(4, SERVER),
            size=SIZE,
        ) as transfer:
            watch = Watch(self.client)
            # What was logged before is no news.
            list(watch.news())
            link = self.topology.links[LINES.index(FAST)]
            self.say(f"the client downloads {SIZE // MEGA} MB from the server")
            self._wait(transfer, watch, lambda at: at >= CUT_AFTER)
            link.cut()
            self._cut, cut_at = FAST, time.monotonic()
            self.say(f"the {FAST.name} link was cut, and nobody told")
            self._wait(transfer, watch, lambda at: at >= MENDED_AFTER)
            link.mend()
            self._cut, mended_at = None, time.monotonic()
            self.say(f"the {FAST.name} link was mended")
            self._wait(transfer, watch, lambda at: self._running(FAST))
            used_again = time.monotonic() - mended_at if self._running(FAST) else None
            self._wait(transfer, watch, lambda at: False)
            self.show(picture(transfer, self._rows))
            self.say("the transfer is complete")
            return summarize(transfer, cut_at=cut_at, mended_at=mended_at, used_again=used_again)

    def _running(self, line: Line) -> bool:
        return any(row.line is line and row.condition == "running" for row in self._rows)

    def _wait(self, transfer: Transfer, watch: Watch, reached: Callable[[float], bool]) -> None:
        """Show what goes on until a time is reached or all has come."""
        while not transfer.done:
            if self.interrupted():
                raise Interrupted
            now = time.monotonic()
            at = now - transfer.started
            if at > MOST_SECONDS:
                raise DemoError(
                    f"the transfer didn't end within {MOST_SECONDS:.0f} s:"
                    f" {transfer.received / MEGA:.0f} of {SIZE / MEGA:.0f} MB came"
                )
            if now - self._polled_at >= POLL:
                self._polled_at = now
                self._rows = watch.rows(self._cut)
            for line in watch.news():
                self.say(f"client: {line}")
            self.show(picture(transfer, self._rows))
            if reached(at):
                return
            time.sleep(TICK)


def picture(transfer: Transfer, rows: list[PathRow]) -> Frame:
    """What is to be seen now."""
    now = transfer.finished if transfer.done else time.monotonic()
    starts = [transfer.started + index / 2 for index in range(int(2 * (now - transfer.started)))]
    return Frame(
        at=now - transfer.started,
        rows=rows,
        received=transfer.received,
        rate=transfer.rate(since=max(transfer.started, now - 1), until=now),
        history=[transfer.rate(since=start, until=start + 0.5) for start in starts],
    )


def summarize(
    transfer: Transfer, *, cut_at: float, mended_at: float, used_again: float | None
) -> Summary:
    """How it went, once the transfer is complete."""
    stages = [
        ("both links", BOTH, transfer.started, cut_at),
        (f"{FAST.name} cut", BOTH - FAST.rate, cut_at, mended_at),
        ("both again", BOTH, mended_at, transfer.finished),
    ]
    return Summary(
        stages=[
            Stage(
                name=name,
                links=links,
                seconds=until - since,
                rate=transfer.rate(since=since, until=until),
            )
            for name, links, since, until in stages
        ],
        received=transfer.received,
        seconds=transfer.finished - transfer.started,
        pause=transfer.longest_pause(since=cut_at, until=mended_at),
        used_again=used_again,
    )
