"""Counts of datagrams that were dropped."""

from glorytun.core.dropped import REPORT_INTERVAL, Dropped
from glorytun.core.events import DatagramsDropped
from glorytun.core.outbox import Outbox
from glorytun.core.status import BadKind, BadStatus
from tests.unit.core.peer import CLIENT, NOW, SERVER


def add(
    dropped: Dropped, now: int, *, clock_offset: int = 0, is_reported: bool = True
) -> DatagramsDropped | None:
    return dropped.add(CLIENT, now, clock_offset=clock_offset, is_reported=is_reported)


def test_first_is_reported_at_once() -> None:
    """The first datagram of a kind makes an event, which says whence and how far clocks differ."""
    event = add(Dropped(BadKind.DIFFTIME), NOW, clock_offset=900)
    assert event == DatagramsDropped(
        kind=BadKind.DIFFTIME, source=CLIENT, count=1, clock_offset=900
    )


def test_noise_does_not_fill_a_log() -> None:
    """However many come, there is one event a minute, and the events count them all."""
    dropped = Dropped(BadKind.DECRYPT)
    events = [event for beat in range(1500) if (event := add(dropped, NOW + beat * 100_000))]
    assert [event.count for event in events] == [1, 600, 600]
    assert REPORT_INTERVAL == 600 * 100_000


def test_what_is_expected_is_counted_but_not_reported() -> None:
    """A drop that is no news makes no event, and the next event counts it."""
    dropped = Dropped(BadKind.DECRYPT)
    assert add(dropped, NOW, is_reported=False) is None
    event = add(dropped, NOW + 1)
    assert event is not None
    assert event.count == 2


def test_status() -> None:
    """The status has the count, and whence, when and how far off the last one was."""
    dropped = Dropped(BadKind.DIFFTIME)
    assert dropped.status() == BadStatus(kind=BadKind.DIFFTIME, count=0, last=None, last_at=0)
    add(dropped, NOW, clock_offset=5)
    dropped.add(SERVER, NOW + 1, clock_offset=-7, is_reported=True)
    assert dropped.status() == BadStatus(
        kind=BadKind.DIFFTIME, count=2, last=SERVER, last_at=NOW + 1, clock_offset=-7
    )


def test_outbox_tells_kinds_apart() -> None:
    """Each kind is counted and reported by itself, and each event is handed out once."""
    outbox = Outbox()
    for kind in BadKind:
        outbox.drop(kind, CLIENT, NOW)
    outbox.drop(BadKind.SIZE, CLIENT, NOW)
    counts = {status.kind: status.count for status in outbox.bad_statuses()}
    assert counts == {kind: 1 + (kind == BadKind.SIZE) for kind in BadKind}
    reported = outbox.take_events()
    assert [event.kind for event in reported if isinstance(event, DatagramsDropped)] == list(
        BadKind
    )
    assert outbox.take_events() == []
