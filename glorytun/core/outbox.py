"""What a driver takes out of a tunnel: datagrams to send, events, counts of what was dropped."""

from typing import NamedTuple

from glorytun.core.address import Endpoint, PathId
from glorytun.core.batch import Batch
from glorytun.core.dropped import Dropped
from glorytun.core.events import Event
from glorytun.core.status import BadKind, BadStatus


class Outgoing(NamedTuple):
    """Datagrams to send on a path. The batch is valid until the next call of the tunnel."""

    path: PathId
    datagrams: Batch
    copy_path: PathId | None = None
    """Where to send them too."""


class Outbox:
    """Filled by the parts of a tunnel, emptied by its driver after each call."""

    __slots__ = ("_dropped", "datagrams", "events")

    def __init__(self) -> None:
        self.datagrams: list[Outgoing] = []
        self.events: list[Event] = []
        self._dropped = {kind: Dropped(kind) for kind in BadKind}

    def take_datagrams(self) -> list[Outgoing]:
        taken, self.datagrams = self.datagrams, []
        return taken

    def take_events(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken

    def drop(
        self,
        kind: BadKind,
        source: Endpoint,
        now: int,
        *,
        clock_offset: int = 0,
        is_reported: bool = True,
    ) -> None:
        """Count a received datagram that goes no further."""
        event = self._dropped[kind].add(
            source, now, clock_offset=clock_offset, is_reported=is_reported
        )
        if event is not None:
            self.events.append(event)

    def bad_statuses(self) -> list[BadStatus]:
        return [dropped.status() for dropped in self._dropped.values()]
