"""What the log says of each event, in words and in fields."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from glorytun.configfile import Problem
from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.events import (
    DatagramsDropped,
    Event,
    KeysExchanged,
    PathAdded,
    PathChanged,
    PathMtuFound,
    PathRemoved,
    PathStateSet,
    PeerStopped,
    TunnelMtuChanged,
)
from glorytun.core.settings import PathState
from glorytun.core.status import BadKind, Condition
from glorytun.errors import ConfigError, DeviceError
from glorytun.journal import JournalHandler
from glorytun.report import fields, log_error, log_event, log_problem, log_send_failure, sentence
from tests.unit.test_journal import Entry, Journald

PATH = PathId(pack_address("192.168.1.2"), Endpoint(pack_address("203.0.113.9"), 5000))
PATH6 = PathId(pack_address("fd00::2"), Endpoint(pack_address("2001:db8::9"), 5001))
ENDS = {"LOCAL": "192.168.1.2", "REMOTE": "203.0.113.9:5000"}
ENDS6 = {"LOCAL": "fd00::2", "REMOTE": "[2001:db8::9]:5001"}
PAGE = (Path(__file__).parents[2] / "docs/journal.md").read_text()


def changed(old: Condition, new: Condition, reason: str = "") -> PathChanged:
    return PathChanged(path=PATH, old=old, new=new, reason=reason)


def dropped(kind: BadKind, **more: Any) -> DatagramsDropped:
    return DatagramsDropped(kind=kind, source=PATH6.remote, count=3, **more)


EVENTS: list[tuple[Event, str, str, dict[str, str]]] = [
    (
        PathAdded(path=PATH6),
        "6 path_added",
        "path fd00::2 to [2001:db8::9]:5001 was added",
        ENDS6,
    ),
    (
        PathRemoved(path=PATH, reason="its address is gone"),
        "6 path_removed",
        "path 192.168.1.2 to 203.0.113.9:5000 was forgotten: its address is gone",
        {**ENDS, "REASON": "its address is gone"},
    ),
    (
        changed(Condition.PROBING, Condition.RUNNING),
        "6 path_changed",
        "path 192.168.1.2 to 203.0.113.9:5000 is running",
        {**ENDS, "CONDITION": "running", "OLD_CONDITION": "probing"},
    ),
    (
        changed(Condition.RUNNING, Condition.DEGRADED, "no answer"),
        "4 path_changed",
        "path 192.168.1.2 to 203.0.113.9:5000 is degraded: no answer",
        {**ENDS, "CONDITION": "degraded", "OLD_CONDITION": "running", "REASON": "no answer"},
    ),
    (
        changed(Condition.RUNNING, Condition.LOSSY, "40 % lost"),
        "4 path_changed",
        "path 192.168.1.2 to 203.0.113.9:5000 is lossy: 40 % lost",
        {**ENDS, "CONDITION": "lossy", "OLD_CONDITION": "running", "REASON": "40 % lost"},
    ),
    (
        PathStateSet(path=PATH, state=PathState.BACKUP),
        "6 path_state_set",
        "the peer set path 192.168.1.2 to 203.0.113.9:5000 backup",
        {**ENDS, "STATE": "backup"},
    ),
    (
        PathMtuFound(path=PATH, mtu=1446),
        "6 path_mtu_found",
        "path 192.168.1.2 to 203.0.113.9:5000 takes packets of 1446 bytes",
        {**ENDS, "MTU": "1446"},
    ),
    (
        TunnelMtuChanged(mtu=1446),
        "6 tunnel_mtu_changed",
        "the tunnel's MTU is 1446 bytes",
        {"MTU": "1446"},
    ),
    (
        KeysExchanged(cipher="aegis256", first=True),
        "6 keys_exchanged",
        "session keys were exchanged, data is sealed with aegis256",
        {"CIPHER": "aegis256"},
    ),
    (
        KeysExchanged(cipher="aes256gcm", first=False),
        "6 keys_renewed",
        "session keys were renewed, data is sealed with aes256gcm",
        {"CIPHER": "aes256gcm"},
    ),
    (PeerStopped(), "4 peer_stopped", "the peer stopped", {}),
    (
        dropped(BadKind.DIFFTIME, clock_offset=-90_500_000),
        "4 datagrams_dropped",
        "dropped 3 datagrams, the last from [2001:db8::9]:5001: "
        "the peer's clock is 1 min 30 s behind ours; set both right",
        {
            "KIND": "difftime",
            "LAST_SOURCE": "[2001:db8::9]:5001",
            "DROPPED": "3",
            "CLOCK_OFFSET": "-90.5",
        },
    ),
    *(
        (
            dropped(kind),
            "4 datagrams_dropped",
            f"dropped 3 datagrams, the last from [2001:db8::9]:5001: {reason}",
            {"KIND": kind.value, "LAST_SOURCE": "[2001:db8::9]:5001", "DROPPED": "3"},
        )
        for kind, reason in [
            (BadKind.DECRYPT, "can't be opened; is the secret key the same on both sides?"),
            (BadKind.REPLAY, "seen before, or too old to tell"),
            (BadKind.KEYX, "its public key can't be used"),
            (BadKind.SIZE, "no datagram of ours has that size"),
            (BadKind.PATH, "authentic, but on no path of ours"),
        ]
    ),
]
"""An event; its priority and name; its text; its fields without the prefix."""


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    journald = Journald(tmp_path / "socket")
    yield journald
    journald.close()


@pytest.fixture
def log(journald: Journald) -> Iterator[logging.Logger]:
    handler = JournalHandler(journald.address)
    log = logging.Logger("test")
    log.addHandler(handler)
    yield log
    handler.close()


def own(entry: Entry) -> Entry:
    """Without what every entry has."""
    return {name: value for name, value in entry.items() if not name.startswith("SYSLOG_")}


def test_the_table_has_every_event() -> None:
    assert {type(event) for event, *_ in EVENTS} == set(get_args(Event))
    kinds = {event.kind for event, *_ in EVENTS if isinstance(event, DatagramsDropped)}
    assert kinds == set(BadKind)


@pytest.mark.parametrize(("event", "name", "text", "values"), EVENTS)
def test_an_event_is_an_entry_with_its_fields(
    log: logging.Logger,
    journald: Journald,
    event: Event,
    name: str,
    text: str,
    values: dict[str, str],
) -> None:
    log_event(log, event)
    priority, word = name.split()
    assert own(journald.read()) == {
        "PRIORITY": priority,
        "MESSAGE": text,
        "GLORYTUN_EVENT": word,
        **{f"GLORYTUN_{key}": value for key, value in values.items()},
    }
    assert sentence(event)[1] == text


def test_one_datagram_is_no_plural() -> None:
    event = DatagramsDropped(kind=BadKind.SIZE, source=PATH.remote, count=1)
    assert sentence(event)[1].startswith("dropped 1 datagram, ")


@pytest.mark.parametrize(("event", "name", "text", "values"), EVENTS)
def test_the_page_has_every_event_and_field(
    event: Event, name: str, text: str, values: dict[str, str]
) -> None:
    """What an entry has is said in its row of docs/journal.md."""
    word = name.split()[1]
    (row,) = (line for line in PAGE.splitlines() if re.match(rf"\|.*`{word}`.*\| [46]", line))
    for key in values:
        assert f"GLORYTUN_{key}`" in row or ("the path's" in row and key in ENDS)


def test_a_failed_sending_has_its_errno(log: logging.Logger, journald: Journald) -> None:
    log_send_failure(log, PATH, 101)
    assert own(journald.read()) == {
        "PRIORITY": "4",
        "MESSAGE": "path 192.168.1.2 to 203.0.113.9:5000 can't send: Network is unreachable",
        "GLORYTUN_EVENT": "send_failed",
        "GLORYTUN_LOCAL": "192.168.1.2",
        "GLORYTUN_REMOTE": "203.0.113.9:5000",
        "ERRNO": "101",
    }


def problem(line: int, *, warning: bool = False) -> Problem:
    return Problem(
        file="/etc/glorytun/tun0.conf",
        line=line,
        column=6,
        message="'soon' is no time",
        hint="such as 100ms",
        excerpt="Beat=soon\n     ^",
        warning=warning,
    )


def test_each_problem_of_a_file_has_its_place(log: logging.Logger, journald: Journald) -> None:
    found = (problem(2), problem(3, warning=True))
    log_error(log, ConfigError("two\nproblems", problems=found))
    error, warning = map(own, journald.waiting())
    place = {"CONFIG_FILE": "/etc/glorytun/tun0.conf", "CONFIG_COLUMN": "6"}
    assert error == {"PRIORITY": "3", "MESSAGE": str(found[0]), "CONFIG_LINE": "2", **place}
    assert warning == {"PRIORITY": "4", "MESSAGE": found[1].summary, "CONFIG_LINE": "3", **place}


def test_a_warning_alone_is_one_line(log: logging.Logger, journald: Journald) -> None:
    log_problem(log, problem(3, warning=True))
    assert "\n" not in journald.read()["MESSAGE"]


@pytest.mark.parametrize("error", [DeviceError("tun0\nis busy"), ConfigError("no\nfile")])
def test_an_error_is_one_line(
    log: logging.Logger, journald: Journald, error: DeviceError | ConfigError
) -> None:
    log_error(log, error)
    entry = own(journald.read())
    assert entry == {"PRIORITY": "3", "MESSAGE": " ".join(str(error).split())}


def test_a_field_that_is_not_known_is_left_out() -> None:
    """A zero is known."""
    found = fields("path_changed", reason="", mtu=None, dropped=0)
    assert found == {"fields": {"GLORYTUN_EVENT": "path_changed", "GLORYTUN_DROPPED": 0}}
