"""The paths of a tunnel: which there are, and how each is doing beside the others."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from glorytun.core.address import PathId
from glorytun.core.condition import OVER_LIMIT
from glorytun.core.events import PathAdded, PathChanged, PathMtuFound, PathRemoved, TunnelMtuChanged
from glorytun.core.leftout import has_rival, left_out
from glorytun.core.lossier import lossier
from glorytun.core.outbox import Outbox
from glorytun.core.path import LAST_RESORT, Path
from glorytun.core.scheduler import Scheduler
from glorytun.core.settings import SECOND, PathChange, PathMode, PathSettings, with_change
from glorytun.core.status import Condition

# What the protocol says (PROTOCOL 3).

PATHS_MAX = 32
FORGET_AFTER = 60 * SECOND
"""A server forgets a path on which nothing came for so long."""
SILENT_BEATS = 5
"""Beats of silence, while other paths are heard, after which a server's path is degraded."""

# What this implementation chose.

UNANSWERED_SUSPECT = 3
"""Requests without an answer to our replies, for which a server suspects a path: the last of them
may be under way, and one more be lost by chance."""
SUSPECT_BEATS = 17, 10
"""Beats of silence, while other paths are heard, after which a server suspects a path, ..."""
SUSPECT_BEATS_ALONE = 19, 10
"""... and where none but those that wait could do its work: one late request is no reason yet."""
UNUSED = {Condition.DOWN} | OVER_LIMIT
"""On these even a 0.3.4 sends nothing."""
LIVELY_PAUSE = SECOND
"""A longer pause on all paths is no sign of trouble: the client had nothing to send."""


class _Link(NamedTuple):
    """What the path of a client's link keeps when a NAT gives it another port."""

    local: bytes
    remote: bytes


class _Rate(NamedTuple):
    """What a server can be told of a path."""

    rate_tx: int = 0
    fixed_rate: bool = False


class Paths:
    """All paths, by what makes them one."""

    def __init__(self, outbox: Outbox, *, client: bool) -> None:
        self._outbox = outbox
        self._client = client
        self._paths: dict[PathId, Path] = {}
        self.scheduler = Scheduler()
        self.mtu = 0
        """The largest inner packet that fits every usable path; 0 = not known yet."""
        self._heard_at = 0
        """When the last datagram that opened came on any of them."""
        self._lively_since = 0
        """From when on datagrams have come without a long pause."""
        self._stepped_at = 0
        """When the first request left that showed that a clock was set."""
        self._pins: dict[_Link, _Rate] = {}
        """Sending rates that were set here, so that no client can; the oldest first (server)."""

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths.values())

    def __len__(self) -> int:
        return len(self._paths)

    def get(self, path_id: PathId) -> Path | None:
        return self._paths.get(path_id)

    def add(self, path_id: PathId, settings: PathSettings, *, after: int) -> Path:
        """Make a path; for `after` see `Path.start_anew`."""
        path = Path(path_id, settings, client=self._client, after=after)
        self._paths[path_id] = path
        if pin := self._pins.get(_link(path)):
            _set_rate(path, pin, is_pinned=True)
        self._outbox.events.append(PathAdded(path=path_id))
        return path

    def remove(self, path: Path, reason: str) -> None:
        del self._paths[path.id]
        self._outbox.events.append(PathRemoved(path=path.id, reason=reason))

    def pin(self, path: Path, change: PathChange) -> None:
        """The server's: let a path have a sending rate whatever its client wishes.

        That holds for the address of the client, and as long as the process. Back to `rate auto`
        without a rate, the wishes that come with each request hold again. Raises TunnelError.
        """
        link, settings = _link(path), with_change(path.settings, change)
        is_pinned = change.rate_tx is not None or change.fixed_rate is not False
        rate = _Rate(settings.rate_tx, settings.fixed_rate) if is_pinned else _Rate()
        self._pins.pop(link, None)
        if is_pinned:
            self._pins[link] = rate
            self._forget_pin()
        for other in self:
            if _link(other) == link:
                _set_rate(other, rate, is_pinned=is_pinned)

    def _forget_pin(self) -> None:
        """The oldest of too many: of one that no path has now."""
        if len(self._pins) > PATHS_MAX:
            there = {_link(path) for path in self}
            del self._pins[next(link for link in self._pins if link not in there)]

    def note_heard(self, path: Path, now: int) -> None:
        """A datagram that opened came on a path."""
        pause = now - self._heard_at
        if pause > max(LIVELY_PAUSE, 2 * path.settings.beat):
            self._lively_since = now
        self._heard_at = now

    def note_delay(self, path: Path, delay: int, *, trip: int, sent_at: int) -> None:
        """A reply came to what left at our time `sent_at`: how long that took by the two clocks.

        When one of them was set, the delays of all paths change by that at once, so that they can
        be compared.
        """
        if sent_at < self._stepped_at:
            return  # It was under way meanwhile: which of the clocks it tells isn't known.
        step = path.delay.measured(delay, trips=trip + path.rtt.mean)
        if not step:
            return
        self._stepped_at = sent_at
        for other in self:
            if other is not path:
                other.delay.shift(step)

    def make_room(self, now: int) -> bool:
        """Whether one more path may be made, at the cost of the one that is silent longest."""
        if len(self._paths) < PATHS_MAX:
            return True
        oldest = min(self._paths.values(), key=lambda path: path.rx_at)
        if now - oldest.rx_at < SILENT_BEATS * oldest.settings.beat:
            return False
        self.remove(oldest, "a new one needs its place")
        return True

    def forget_silent(self, now: int) -> None:
        """The server's: drop paths on which nothing came for long."""
        for path in list(self._paths.values()):
            if now - path.rx_at >= FORGET_AFTER:
                self.remove(path, "nothing came on it for a minute")

    def report_mtu(self, path: Path) -> None:
        """The client's: say what MTU discovery has settled on, once, also to the server."""
        search = path.search
        if search is None or search.probe or search.size == path.mtu_reported:
            return
        path.mtu_reported = search.size
        path.request_now()  # The server waits to be told, even when we are idle.
        self._outbox.events.append(PathMtuFound(path=path.id, mtu=path.mtu))

    def judge(self, now: int) -> None:
        """Bring all conditions up to date, and what follows from them."""
        is_needed = True
        for paths in self._by_rank():
            self._judge_alike(paths, now, is_needed=is_needed)
            is_needed = is_needed and not any(path.works for path in paths)
        is_alone = sum(path.condition == Condition.RUNNING for path in self) < 2
        for path in self:
            path.note_alone(is_alone=is_alone)
            path.is_suspect = path.is_alive and self._is_suspect(path, now)
        last = lossier(self)
        for path in self:
            path.is_lossier = path in last
        self.scheduler.refresh(self, now)
        self._update_mtu()

    def likely(self, *, at_random: bool) -> set[PathId]:
        """Those on which the peer's next packet may come: none of a backup, while better ones work.

        One of us leaves out what hurts, and what costs more. A 0.3.4 sends over any at random, also
        while we take it for dead, since little is sent and nothing of it came there.
        """
        for paths in self._by_rank():
            if any(path.works for path in paths):
                found = paths if at_random else _with_own_packets(paths)
                return {path.id for path in found if path.condition not in UNUSED}
        return set()

    def _by_rank(self) -> list[list[Path]]:
        """Those that are no backups, then the backups by preference."""
        ranks: dict[int, list[Path]] = {}
        for path in self:
            ranks.setdefault(path.rank, []).append(path)
        return [ranks[rank] for rank in sorted(ranks)]

    def _judge_alike(self, paths: list[Path], now: int, *, is_needed: bool) -> None:
        """Paths of one rank; `is_needed` if none of a better one works."""
        out = left_out(path for path in paths if path.works and path.delay.ready)
        for path in paths:
            self._judge_one(path, now, is_needed=is_needed, later=out.get(path, 0))

    def _judge_one(self, path: Path, now: int, *, is_needed: bool, later: int) -> None:
        silent = not self._client and self._is_silent(path, now)
        is_held = path.comeback.is_held(now) and has_rival(path, self)
        changed = path.judge(silent=silent, is_needed=is_needed, later=later, is_held=is_held)
        if changed is not None:
            old, new = changed
            self._outbox.events.append(
                PathChanged(path=path.id, old=old, new=new, reason=path.reason)
            )
        path.note_left(now)

    def _is_silent(self, path: Path, now: int) -> bool:
        """Whether other paths were heard while this one was not (server).

        PROTOCOL 6 compares with the last receipt overall; a beat is granted for that one to
        arrive, so that the silence is noticed as soon as it has lasted. It counts from the end of
        a pause of all paths: idle clients are silent.
        """
        beat = path.settings.beat
        since = self._silent_since(path)
        return (
            now >= since + SILENT_BEATS * beat
            and self._heard_at - since >= (SILENT_BEATS - 1) * beat
        )

    def _silent_since(self, path: Path) -> int:
        return max(path.rx_at, self._lively_since)

    def _is_suspect(self, path: Path, now: int) -> bool:
        """Whether an answer is missing that was asked for twice, or requests are.

        Too early to call a path degraded: both may have been lost by chance.
        """
        if self._client:
            overdue_at = path.overdue_at
            return path.urged_at > 0 and overdue_at is not None and now >= overdue_at
        beats = path.rtt.mean // path.settings.beat
        if path.unanswered >= beats + UNANSWERED_SUSPECT:
            return True
        return now >= self._suspect_at(path) and self._heard_at > self._silent_since(path)

    def _suspect_at(self, path: Path) -> int:
        beats, of = SUSPECT_BEATS_ALONE if path.estimator.is_alone else SUSPECT_BEATS
        return self._silent_since(path) + path.settings.beat * beats // of

    def _update_mtu(self) -> None:
        """For the paths that work, or else for those that are used while none does."""
        used = [path.mtu for path in self if path.works]
        mtu = min(used or [path.mtu for path in self if path.is_alive and path.mtu] or [self.mtu])
        if mtu != self.mtu:
            self.mtu = mtu
            self._outbox.events.append(TunnelMtuChanged(mtu=mtu))

    def next_timeout(self, now: int, *, idle: bool) -> int | None:
        """When a condition may change, or a path is forgotten, though no message is received."""
        timeouts = (at for path in self for at in self._timeouts(path, now, idle=idle))
        return min(timeouts, default=None)

    def _timeouts(self, path: Path, now: int, *, idle: bool) -> Iterator[int]:
        if path.condition == Condition.DEGRADED and now <= path.rx_at + LAST_RESORT:
            yield path.rx_at + LAST_RESORT + 1
        if self._client:
            overdue_at = path.overdue_at
            if path.is_alive and overdue_at is not None and overdue_at > now:
                yield overdue_at
            return
        yield path.rx_at + FORGET_AFTER
        is_heard = path.condition not in (Condition.DOWN, Condition.DEGRADED)
        if is_heard and len(self) > 1 and not idle:
            # Whether data came on other paths meanwhile is looked at again and again.
            beat = path.settings.beat
            if not path.is_suspect and self._suspect_at(path) > now:
                yield self._suspect_at(path)
            yield max(self._silent_since(path) + SILENT_BEATS * beat, now + beat // 2)


def _with_own_packets(paths: list[Path]) -> list[Path]:
    """Those that cost least of where packets are sent by themselves, not only copies."""
    found = [
        path
        for path in paths
        if path.condition == Condition.RUNNING and path.settings.mode is not PathMode.REDUNDANT
    ]
    least = min((path.settings.cost for path in found), default=0)
    return [path for path in found if path.settings.cost == least]


def _link(path: Path) -> _Link:
    return _Link(path.id.local, path.id.remote.address)


def _set_rate(path: Path, rate: _Rate, *, is_pinned: bool) -> None:
    path.is_pinned = is_pinned
    path.change(replace(path.settings, rate_tx=rate.rate_tx, fixed_rate=rate.fixed_rate))
