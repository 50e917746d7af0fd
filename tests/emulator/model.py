"""What one direction of a link does to frames, in virtual time: arrivals in, departures out.

    arrival ─▶ MTU ─▶ queue (limited) ─▶ line (rate) ─▶ loss ─▶ delay, jitter ─▶ departure
                                                               └ reordering, duplication

Times are ns of any one clock, and never decrease. A frame takes the line for its length, and for
what Ethernet adds to it, as long as the rate says; the next one follows when the line is free. So
the queue is where bytes wait for the line, and a rate that changes meets those that wait.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple

SECOND = 1_000_000_000
"""ns."""
MILLISECOND = SECOND // 1000
ETHERNET_HEADER = 14
FRAMING = 24
"""Bytes of the line that a frame takes beyond its own: preamble 8, checksum 4, gap 12."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a direction is like. Times are in ms."""

    rate: float = 0.0
    """Mbit/s of Ethernet frames, with preamble, checksum and gap; 0 = not limited."""
    queue: float = 50.0
    """How long the longest queue takes to leave: the buffer is that much of the rate."""
    queue_bytes: int = 0
    """The buffer as bytes of frames, which `rate` doesn't change; 0 = as `queue` says."""
    delay: float = 0.0
    jitter: float = 0.0
    """Up to so much more delay, drawn for each frame; their order stays."""
    loss: float = 0.0
    """Share of frames lost at random, each by itself."""
    burst_loss: float = 0.0
    """Share of frames lost in bursts (Gilbert's model: nothing else is lost)."""
    burst: float = 10.0
    """Frames that a burst takes, on average."""
    reorder: float = 0.0
    """Share of frames that are late by `reorder_by`, so that others overtake them."""
    reorder_by: float = 5.0
    duplicate: float = 0.0
    """Share of frames that arrive twice."""
    mtu: int = 1500
    """Of the IP packet; what is larger is dropped."""
    icmp: bool = False
    """Whether the sender of what is too large is told (RFC 1191, RFC 4443)."""
    cut: bool = False
    """A blackhole: everything is lost, and the line looks up."""


@dataclass(slots=True)
class Counters:
    """What became of the frames of one direction. `queued` and `queue_ms` are of now."""

    arrived: int = 0
    sent: int = 0
    sent_bytes: int = 0
    """As frames on the line, framing counted."""
    lost: int = 0
    """At random or in bursts."""
    overflowed: int = 0
    too_large: int = 0
    cut: int = 0
    reordered: int = 0
    duplicated: int = 0
    missed: int = 0
    """Frames that the emulator itself had no room for: a test with any has measured nothing."""
    late: int = 0
    """Frames that left 2 ms after their time or later: some are unavoidable on a busy host."""
    late_ms: float = 0.0
    """The longest that a frame left after its time since the last reading: likewise."""
    queued: int = 0
    """Bytes that wait for the line, or are on it."""
    queue_ms: float = 0.0
    """How long a frame that came now would wait for the line."""


class Departure(NamedTuple):
    """A frame that leaves at the other end."""

    at: int
    order: int
    frame: bytes


@dataclass(slots=True)
class _Losses:
    """Gilbert's model: in a burst everything is lost, between bursts nothing."""

    in_burst: bool = False

    def is_lost(self, profile: Profile, random: Random) -> bool:
        if profile.loss and random.random() < profile.loss:
            return True
        share = profile.burst_loss
        if not share:
            self.in_burst = False
            return False
        # The mean length of a burst, and the share of time in one, give both transitions.
        leave = 1 / max(profile.burst, 1.0)
        enter = leave * share / (1 - share)
        chance = 1 - leave if self.in_burst else enter
        self.in_burst = random.random() < chance
        return self.in_burst


@dataclass(slots=True)
class Direction:
    """One direction of a link."""

    profile: Profile
    random: Random
    counters: Counters = field(default_factory=Counters)
    _waiting: deque[tuple[int, int, bytes]] = field(default_factory=deque)
    """(arrival, bytes on the line, frame); the first one is on the line."""
    _line_free_at: int = 0
    """When the first of them has left the line."""
    _queued: int = 0
    _in_flight: list[Departure] = field(default_factory=list)
    _latest: int = 0
    """When the last frame that isn't reordered departs."""
    _order: int = 0
    _losses: _Losses = field(default_factory=_Losses)

    def change(self, profile: Profile, now: int) -> None:
        """Be like this from now on, also to what waits for the line."""
        self.advance(now)
        if self._waiting:
            left = self._line_free_at - now
            old, new = self.profile.rate, profile.rate
            self._line_free_at = now + (round(left * old / new) if new else 0)
        self.profile = profile
        self.advance(now)

    def arrive(self, frame: bytes, at: int) -> bool:
        """A frame comes in. False when it is too large, which its sender may be told."""
        self.advance(at)
        self.counters.arrived += 1
        if len(frame) - ETHERNET_HEADER > self.profile.mtu:
            self.counters.too_large += 1
            return False
        size = len(frame) + FRAMING
        if self._queued and self._queued + size > self._limit():
            self.counters.overflowed += 1
            return True
        if not self._waiting:
            self._line_free_at = at + self._duration(size)
        self._waiting.append((at, size, frame))
        self._queued += size
        if not self.profile.rate:
            self.advance(at)
        return True

    def advance(self, now: int) -> None:
        """Let the line carry what it can until then."""
        waiting = self._waiting
        while waiting and self._line_free_at <= now:
            _, size, frame = waiting.popleft()
            self._queued -= size
            self._leave_line(frame, size, self._line_free_at)
            if waiting:
                start = max(self._line_free_at, waiting[0][0])
                self._line_free_at = start + self._duration(waiting[0][1])

    def departures(self, until: int) -> list[bytes]:
        """The frames that have departed by then, in order."""
        in_flight = self._in_flight
        frames = []
        while in_flight and in_flight[0].at <= until:
            frames.append(heapq.heappop(in_flight).frame)
        return frames

    def next_at(self) -> int | None:
        """When the next frame departs, or leaves the line; None without any."""
        times = [self._in_flight[0].at] if self._in_flight else []
        if self._waiting:
            times.append(self._line_free_at)
        return min(times, default=None)

    def count(self, now: int) -> Counters:
        """The counters as of now."""
        self.advance(now)
        rate = self.profile.rate
        left = max(0, self._line_free_at - now) if self._waiting else 0
        behind = self._queued - (self._waiting[0][1] if self._waiting else 0)
        wait = left + (self._duration(behind) if rate else 0)
        return replace(self.counters, queued=self._queued, queue_ms=wait / MILLISECOND)

    def _limit(self) -> float:
        profile = self.profile
        if profile.queue_bytes or not profile.rate:
            return profile.queue_bytes or float("inf")
        return profile.queue * profile.rate * 125

    def _duration(self, size: int) -> int:
        """ns that so many bytes take on the line."""
        return round(size * 8000 / self.profile.rate) if self.profile.rate else 0

    def _leave_line(self, frame: bytes, size: int, at: int) -> None:
        profile, random, counters = self.profile, self.random, self.counters
        if profile.cut:
            counters.cut += 1
            return
        if self._losses.is_lost(profile, random):
            counters.lost += 1
            return
        counters.sent += 1
        counters.sent_bytes += size
        at += round(profile.delay * MILLISECOND)
        if profile.jitter:
            at += round(random.random() * profile.jitter * MILLISECOND)
        if profile.reorder and random.random() < profile.reorder:
            counters.reordered += 1
            self._fly(frame, at + round(profile.reorder_by * MILLISECOND))
        else:
            self._latest = max(self._latest, at)
            self._fly(frame, self._latest)
        if profile.duplicate and random.random() < profile.duplicate:
            counters.duplicated += 1
            self._fly(frame, max(self._latest, at))

    def _fly(self, frame: bytes, at: int) -> None:
        self._order += 1
        heapq.heappush(self._in_flight, Departure(at, self._order, frame))
