"""How much links with a quota have carried since the day it began anew: kept over restarts.

A link is what `Local=` of a section names. Both directions count, with the IP and UDP headers
around datagrams, as a provider counts. Between two looks at the counters a little more than the
quota may pass, and after a crash the last minute may be missing, but no more: the file is there as
a whole, the old one or the new one. A thread writes it, since a disk may take its time.
"""

import calendar
import json
import logging
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from glorytun.config import PathConfig
from glorytun.core.address import PathId, headers_of
from glorytun.core.settings import SECOND
from glorytun.core.status import PathStatus
from glorytun.report import fields

METER_INTERVAL = SECOND
"""µs between two looks."""
SAVE_INTERVAL = 60 * SECOND
BELIEVED_AFTER = 3600 * SECOND
"""µs after which a clock is believed that says an earlier day than what was noted."""

DIRECTORY = "/var/lib/glorytun-usage"
_VERSION = 1

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

log = logging.getLogger("glorytun")


class Date(NamedTuple):
    """Local."""

    year: int
    month: int
    day: int


@dataclass(slots=True)
class Usage:
    """Of a link."""

    period: str
    """The day on which the quota began anew: 2026-11-01."""
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Of a link."""

    bytes: int
    day: int
    """Of the month, from when on it counts anew; the last one, where a month has no such day."""

    def period(self, today: Date) -> str:
        """The day on which it began anew."""
        year, month, day = today
        if day < self._begins(year, month):
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)
        return f"{year:04}-{month:02}-{self._begins(year, month):02}"

    def _begins(self, year: int, month: int) -> int:
        return min(self.day, calendar.monthrange(year, month)[1])


class Meter:
    """Adds up; `file` is where it remembers."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._quotas: dict[str, Quota] = {}
        self._usages: dict[str, Usage] | None = None
        """By link; None: not read yet."""
        self._counters: dict[PathId, int] = {}
        """Bytes of each path when it was looked at."""
        self._doubted_since: dict[str, int] = {}
        """When it was found of a link that its days begin in times to come."""
        self._saved_at = 0
        self._is_changed = False
        self._writing: Thread | None = None
        self._problem = ""

    def take(self, configs: Iterable[PathConfig]) -> None:
        """Let the quotas be those of a file."""
        self._quotas = {
            config.local: Quota(bytes=config.quota, day=config.quota_day)
            for config in configs
            if config.quota
        }
        if self._quotas and self._usages is None:
            self._usages = self._load()

    @property
    def is_needed(self) -> bool:
        """Whether any link has a quota."""
        return bool(self._quotas)

    def describe(self, link: str | None) -> dict[str, int] | None:
        """The quota of a link and what is used of it, as JSON has it."""
        quota = self._quotas.get(link or "")
        if quota is None or self._usages is None:
            return None
        usage = self._usages.get(link or "")
        return {"limit": quota.bytes, "used": usage.bytes if usage else 0, "day": quota.day}

    def is_spent(self, link: str | None) -> bool:
        """Whether a link has a quota, and that is used up."""
        found = self.describe(link)
        return found is not None and found["used"] >= found["limit"]

    def add(self, paths: Iterable[tuple[PathStatus, str | None]], today: Date, now: int) -> None:
        """Look at the counters of all paths, each with its link."""
        before, self._counters = self._counters, {}
        for status, link in paths:
            path = PathId(status.local, status.remote)
            carried = _carried(status)
            self._counters[path] = carried
            more = carried - before.get(path, 0)
            self._count(link, more if more >= 0 else carried, today, now)
        is_writing = self._writing is not None and self._writing.is_alive()
        if now >= self._saved_at + SAVE_INTERVAL and not is_writing:
            self._saved_at = now
            self._begin_to_save()

    def _count(self, link: str | None, more: int, today: Date, now: int) -> None:
        quota = self._quotas.get(link or "")
        if quota is None or self._usages is None:
            return
        assert link
        period = quota.period(today)
        usage = self._usages.get(link)
        if usage is None or usage.period < period:
            usage = self._usages[link] = Usage(period)
            self._is_changed = True
        if usage.period == period:
            self._doubted_since.pop(link, None)
        elif now - self._doubted_since.setdefault(link, now) >= BELIEVED_AFTER:
            # A host without a battery starts with a clock that is behind, but it is set soon: that
            # the other one was ahead once is likelier by now.
            usage.period = period
            self._is_changed = True
        was_spent = usage.bytes >= quota.bytes
        usage.bytes += more
        self._is_changed = self._is_changed or more > 0
        if usage.bytes >= quota.bytes and not was_spent:
            log.warning(
                "%s has used up its quota, and isn't used until day %d of the month",
                link,
                quota.day,
                extra=fields("quota_used_up", interface=link),
            )

    # The file.

    def _load(self) -> dict[str, Usage]:
        try:
            return _usages(json.loads(self._file.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"it is damaged ({error})"
            log.warning(
                "%s can't be read, so all that links have used of their quotas is forgotten: %s",
                self._file,
                reason,
            )
            return {}

    def save(self) -> None:
        """Write it, if there is news, and wait for the disk; where that fails it is said once."""
        self._wait()
        self._begin_to_save()
        self._wait()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.join()

    def _begin_to_save(self) -> None:
        if not self._is_changed or self._usages is None:
            return
        links = {
            link: {"period": usage.period, "bytes": usage.bytes}
            for link, usage in self._usages.items()
        }
        text = json.dumps({"version": _VERSION, "links": links}) + "\n"
        self._is_changed = False
        self._writing = Thread(target=self._write, args=(text,), name="meter")
        self._writing.start()

    def _write(self, text: str) -> None:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole_file(self._file, text)
        except OSError as error:
            self._is_changed = True
            self._complain(
                f"what quotas have left can't be noted in {self._file}: {error.strerror}"
            )
        else:
            self._problem = ""

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            log.warning("%s", problem)


def usage_file(device: str) -> Path:
    """Where it is noted what a tunnel's links have carried."""
    return Path(os.environ.get("GLORYTUN_TEST_USAGE") or DIRECTORY) / f"{device}.json"


def _carried(status: PathStatus) -> int:
    datagrams = status.tx.total + status.rx.total
    return status.tx.bytes + status.rx.bytes + datagrams * headers_of(status.remote.address)


def write_whole_file(path: Path, text: str) -> None:
    """Whenever the power fails, the file has the old text or the new one. Raises OSError.

    A rename alone may be on the disk before what was written is: the file would be empty then.
    """
    new = path.with_suffix(".new")
    try:
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _usages(document: Any) -> dict[str, Usage]:
    """By link. Raises ValueError for what no version of ours has written."""
    match document:
        case {"version": 1, "links": dict(links)}:
            return {link: _usage(value) for link, value in links.items()}
    raise ValueError("not in a form that is known")


def _usage(value: Any) -> Usage:
    match value:
        case {"period": str(period), "bytes": int(count)} if count >= 0 and _DAY.fullmatch(period):
            return Usage(period, count)
    raise ValueError("a link's day or bytes make no sense")
