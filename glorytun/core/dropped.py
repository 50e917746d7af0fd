"""Counts of received datagrams that were dropped, by kind; the only place where they are."""

from glorytun.core.address import Endpoint
from glorytun.core.events import DatagramsDropped
from glorytun.core.settings import SECOND
from glorytun.core.status import BadKind, BadStatus

REPORT_INTERVAL = 60 * SECOND
"""One event a kind at the most in this time: noise must not fill a log."""


class Dropped:
    """What was dropped of one kind."""

    __slots__ = ("_clock_offset", "_count", "_kind", "_last", "_last_at", "_report_at", "_reported")

    def __init__(self, kind: BadKind) -> None:
        self._kind = kind
        self._count = 0
        self._last: Endpoint | None = None
        self._last_at = 0
        self._clock_offset = 0
        self._reported = 0
        self._report_at = 0

    def add(
        self, source: Endpoint, now: int, *, clock_offset: int, is_reported: bool
    ) -> DatagramsDropped | None:
        """Count a datagram from `source`; the event that says so, unless there was one just now."""
        self._count += 1
        self._last, self._last_at, self._clock_offset = source, now, clock_offset
        if not is_reported or now < self._report_at:
            return None
        unreported = self._count - self._reported
        self._reported, self._report_at = self._count, now + REPORT_INTERVAL
        return DatagramsDropped(
            kind=self._kind, source=source, count=unreported, clock_offset=clock_offset
        )

    def status(self) -> BadStatus:
        return BadStatus(
            kind=self._kind,
            count=self._count,
            last=self._last,
            last_at=self._last_at,
            clock_offset=self._clock_offset,
        )
