"""The client's beats: the requests it sends on each path, and what it probes beside them."""

from collections.abc import Callable

from glorytun.core.conversation import Conversation
from glorytun.core.path import UNANSWERED_MAX, Path
from glorytun.core.paths import Paths
from glorytun.core.settings import PathState


class Beats:
    """Of all paths of a tunnel; `is_idle` tells whether there is nothing to ask for often."""

    __slots__ = ("_conversation", "_is_idle", "_paths")

    def __init__(
        self, paths: Paths, conversation: Conversation, *, is_idle: Callable[[int], bool]
    ) -> None:
        self._paths = paths
        self._conversation = conversation
        self._is_idle = is_idle

    def send_due(self, now: int) -> None:
        """Send what is due. One that begins to look for an MTU ends the idleness of all."""
        while due := self._due(now):
            for path in due:
                self._beat(path, now)
        for path in self._paths:
            overdue_at = path.overdue_at
            if path.works and not path.urged_at and overdue_at is not None and now >= overdue_at:
                path.urged_at = now
                self._conversation.send_request(path, now)

    def _due(self, now: int) -> list[Path]:
        """The paths to ask now. Idle ones take turns together, so that a server hears all alike."""
        idle = self._is_idle(now)
        due = [path for path in self._paths if self._is_due(path, idle=idle, now=now)]
        if idle and any(path.is_alive for path in due):
            due += [path for path in self._paths if path.is_alive and path not in due]
        return due

    def _is_due(self, path: Path, *, idle: bool, now: int) -> bool:
        at = self.due_at(path, idle=idle)
        return at is not None and now >= at

    def due_at(self, path: Path, *, idle: bool) -> int | None:
        """When the next request leaves on a path; None: never, it is down and the peer knows."""
        is_down = path.state == PathState.DOWN
        if is_down and (path.answered or path.unanswered >= UNANSWERED_MAX):
            return None
        keepalive = self._conversation.settings.keepalive
        return path.requested_at + path.request_interval(idle=idle, keepalive=keepalive)

    def _beat(self, path: Path, now: int) -> None:
        """A plain request, and a probe of the MTU beside it when there is one to make."""
        path.unanswered += 1
        path.waits_since = path.waits_since or now
        probes = self._probes(path, now)
        path.requested_at = now
        self._conversation.send_request(path, now)
        for size in probes:
            self._conversation.send_request(path, now, size=size)

    def _probes(self, path: Path, now: int) -> tuple[int, ...]:
        """The sizes to probe on a path; one that was probed enough is given up."""
        search = path.search
        if search is None or not path.answered or path.state == PathState.DOWN:
            return ()
        if search.probe and search.is_too_big():
            search.on_too_big(now)
            self._paths.report_mtu(path)
        search.on_timeout(now)
        return search.take_probes(now)
