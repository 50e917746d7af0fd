"""One path: how it fares over time, and when it asks."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.condition import LEGAL
from glorytun.core.path import (
    LAST_RESORT,
    LATE_TRIPS,
    PROBE_INTERVAL_MIN,
    SLOW_BEATS,
    UNANSWERED_MAX,
    Path,
)
from glorytun.core.settings import SECOND, PathSettings, PathState
from glorytun.core.shaper import RATE_UNLIMITED
from glorytun.core.status import Condition
from glorytun.core.wire import OVERHEAD
from tests.unit.core.peer import CLIENT, NOW, SERVER

BEAT = PathSettings().beat


def make_path(*, client: bool = True, **settings: Any) -> Path:
    return Path(
        PathId(CLIENT.address, SERVER),
        PathSettings(**settings),
        client=client,
    )


def settle(path: Path) -> None:
    """Its MTU is found."""
    assert path.search is not None
    path.search.on_answer(1472, sent_at=NOW, now=NOW)


def running() -> Path:
    """A client's path that works."""
    path = make_path()
    settle(path)
    path.heard_reply(1)
    path.rx_at = NOW
    path.judge(silent=False, is_needed=False)
    assert path.condition == Condition.RUNNING
    return path


@pytest.mark.parametrize("state", [PathState.UP, PathState.BACKUP])
@pytest.mark.parametrize("is_needed", [True, False])
def test_a_path_that_is_left_out_is_for_copies(*, state: PathState, is_needed: bool) -> None:
    """But a backup that waits for others to fail is left alone."""
    path = make_path(state=state)
    settle(path)
    path.heard_reply(1)
    path.judge(silent=False, is_needed=is_needed, later=9_000)
    assert path.condition == Condition.WAITING
    assert path.is_for_copies == (is_needed or state == PathState.UP)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["up", "backup", "down", "reply", "settle", "unsettle", "stop", "lose"]),
        st.integers(0, 7),
        st.booleans(),
        st.booleans(),
    ),
    max_size=40,
)


@given(ACTIONS, st.booleans())
def test_transitions_are_legal(actions: list[tuple[str, int, bool, bool]], client: bool) -> None:
    """Whatever happens to a path, its condition changes along the table, as `judge` says."""
    path = make_path(client=client, loss_limit=100)
    for action, unanswered, silent, is_needed in actions:
        _act(path, action)
        path.unanswered = unanswered
        before = path.condition
        changed = path.judge(silent=silent, is_needed=is_needed)
        if path.condition == before:
            assert changed is None
        else:
            assert changed == (before, path.condition)
            assert path.condition in LEGAL[before]
        assert path.works == (path.condition in (Condition.RUNNING, Condition.WAITING))
        assert (path.reason == "") == (path.condition == Condition.RUNNING)


def _act(path: Path, action: str) -> None:
    """What the tunnel does to a path: it starts anew when it goes down or comes up."""
    states = {"up": PathState.UP, "backup": PathState.BACKUP, "down": PathState.DOWN}
    if state := states.get(action):
        was_down = path.settings.state == PathState.DOWN
        path.settings = replace(path.settings, state=state)
        if was_down != (state == PathState.DOWN):
            path.start_anew(NOW)
    elif action == "reply" and path.settings.state != PathState.DOWN:
        path.heard_reply(1)
    elif action in ("settle", "unsettle"):
        if path.search is None:
            path.mtu_told = 1472 if action == "settle" else 0
        elif action == "settle" and path.answered:
            path.search.on_answer(1472, sent_at=NOW, now=NOW)
    elif action == "stop":
        path.stopped = True
    else:
        path.loss.loss = 150 - path.loss.loss


def test_link_that_loses_about_as_much_as_it_may_does_not_flap() -> None:
    """Once it lost too much it has to lose less than that by a fifth, even after an outage."""
    path = running()
    path.settings = replace(path.settings, loss_limit=51)
    path.loss.loss = 52
    assert _judged(path) == Condition.LOSSY
    path.loss.loss = 50
    assert _judged(path) == Condition.LOSSY
    path.unanswered = UNANSWERED_MAX
    assert _judged(path) == Condition.DEGRADED
    path.heard_reply(1)
    assert _judged(path) == Condition.LOSSY
    path.loss.loss = 40
    assert _judged(path) == Condition.RUNNING
    path.loss.loss = 51
    assert _judged(path) == Condition.RUNNING


@pytest.mark.parametrize("limit", [50, 255])
def test_another_loss_limit_counts_at_once(limit: int) -> None:
    """A path that loses no more than its new limit is used, whatever it was before."""
    path = running()
    path.settings = replace(path.settings, loss_limit=45)
    path.loss.loss = 50
    assert _judged(path) == Condition.LOSSY
    path.settings = replace(path.settings, loss_limit=limit)
    assert _judged(path) == Condition.RUNNING


def test_link_that_is_about_as_late_as_it_may_does_not_flap() -> None:
    """Once it was late it has to be so by a fifth less, even after an outage."""
    path = running()
    path.settings = replace(path.settings, delay_limit=100_000)
    _trips(path, 105_000, since=10 * SECOND)
    assert _judged(path) == Condition.LATE
    _trips(path, 95_000, since=20 * SECOND)
    assert _judged(path) == Condition.LATE
    path.unanswered = UNANSWERED_MAX
    assert _judged(path) == Condition.DEGRADED
    path.heard_reply(1)
    assert _judged(path) == Condition.LATE
    _trips(path, 79_000, since=30 * SECOND)
    assert _judged(path) == Condition.RUNNING
    _trips(path, 99_000, since=40 * SECOND)
    assert _judged(path) == Condition.RUNNING


@pytest.mark.parametrize("interval", [BEAT, 25 * SECOND])
@pytest.mark.parametrize("hiccup", [[1_000_000], [600_000, 500_000, 400_000, 300_000, 200_000]])
def test_a_hiccup_makes_no_path_late(interval: int, hiccup: list[int]) -> None:
    """Be it asked every beat, or in an idle tunnel; what takes longer all the time does."""
    path = running()
    path.settings = replace(path.settings, delay_limit=100_000)
    trips = [50_000] * 20 + hiccup + [50_000] * 30
    for number, trip in enumerate(trips):
        path.heard_trip(trip, NOW + number * interval)
        assert _judged(path) == Condition.RUNNING
    for number in range(len(trips), len(trips) + 3 * LATE_TRIPS):
        path.heard_trip(150_000, NOW + number * interval)
    assert _judged(path) == Condition.LATE


def test_a_path_that_was_down_is_not_late_any_more() -> None:
    path = running()
    path.settings = replace(path.settings, delay_limit=100_000)
    _trips(path, 105_000, since=0)
    assert _judged(path) == Condition.LATE
    path.start_anew(1)
    path.answered = True
    path.heard_trip(95_000, NOW + SECOND)
    assert _judged(path) != Condition.LATE


@pytest.mark.parametrize("limit", [0, 110_000])
def test_another_delay_limit_counts_at_once(limit: int) -> None:
    """Whatever it was before."""
    path = running()
    path.settings = replace(path.settings, delay_limit=100_000)
    _trips(path, 105_000, since=0)
    assert _judged(path) == Condition.LATE
    path.change(replace(path.settings, delay_limit=limit))
    assert _judged(path) == Condition.RUNNING


def _trips(path: Path, trip: int, *, since: int) -> None:
    """60 of them, of so many µs, a beat apart."""
    for number in range(60):
        path.heard_trip(trip, NOW + since + number * BEAT)


def _judged(path: Path) -> Condition:
    path.judge(silent=False, is_needed=False)
    return path.condition


def test_down_path_forgets() -> None:
    """A path that was down knows nothing of its peer, its delay, its loss or its MTU."""
    path = running()
    path.rtt.add(5000)
    path.loss.loss = 9
    path.stopped = True
    path.unanswered = 3
    path.start_anew(NOW)
    assert not path.answered
    assert not path.stopped
    assert (path.unanswered, path.rtt.mean, path.loss.loss, path.size_max) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "idle", "expected"),
    [
        ({}, False, BEAT),
        ({}, True, 25 * SECOND),
        ({"unanswered": 1}, True, BEAT),
        ({"unanswered": 3 * UNANSWERED_MAX - 1}, True, BEAT),
        ({"unanswered": 3 * UNANSWERED_MAX}, False, SLOW_BEATS * BEAT),
        ({"stopped": True}, False, BEAT),
        ({"condition": Condition.DEGRADED}, True, BEAT),
    ],
)
def test_request_interval(changes: dict[str, object], idle: bool, expected: int) -> None:
    """A beat while there is data, the keepalive when idle, ten beats while nobody answers."""
    path = running()
    for name, value in changes.items():
        setattr(path, name, value)
    assert path.request_interval(idle=idle, keepalive=25 * SECOND) == expected


@pytest.mark.parametrize(
    ("trip", "expected"),
    [(1000, PROBE_INTERVAL_MIN), (50_000, 50_000), (5 * SECOND, SLOW_BEATS * BEAT)],
)
def test_probes_follow_each_other_at_the_round_trip(trip: int, expected: int) -> None:
    """While the MTU is looked for, a request leaves each round trip, within bounds."""
    path = make_path()
    assert path.request_interval(idle=False, keepalive=25 * SECOND) == BEAT
    path.heard_reply(1)
    path.rtt.add(trip)
    assert path.request_interval(idle=True, keepalive=25 * SECOND) == expected


def test_fruitless_search_is_slow() -> None:
    """Where not even the floor passes, it is asked for at a tenth of the beat."""
    path = make_path()
    path.heard_reply(1)
    assert path.search is not None
    path.search.is_fruitless = True
    assert path.request_interval(idle=False, keepalive=25 * SECOND) == SLOW_BEATS * BEAT


@pytest.mark.parametrize(
    ("trip", "most"),
    [
        (0, UNANSWERED_MAX),
        (BEAT, UNANSWERED_MAX),
        (4 * BEAT, UNANSWERED_MAX),
        (5 * BEAT, UNANSWERED_MAX + 5),
        (20 * BEAT, UNANSWERED_MAX + 20),
    ],
)
def test_requests_under_way_are_not_unanswered(trip: int, most: int) -> None:
    """Where replies take many beats, as many more requests may be without one."""
    path = running()
    path.rtt.add(trip)
    path.unanswered = most - 1
    path.judge(silent=False, is_needed=False)
    assert path.condition == Condition.RUNNING
    path.unanswered = most
    assert path.judge(silent=False, is_needed=False) == (Condition.RUNNING, Condition.DEGRADED)


def test_outage_is_no_loss() -> None:
    """What was sent while nobody answered isn't counted as lost when somebody does again."""
    path = running()
    path.heard_totals(sent=100, received=100, now=NOW)
    path.unanswered = UNANSWERED_MAX
    path.judge(silent=False, is_needed=False)
    path.heard_reply(1)
    path.judge(silent=False, is_needed=False)
    path.heard_totals(sent=500, received=101, now=NOW)
    path.heard_totals(sent=600, received=201, now=NOW)
    assert path.loss.loss == 0
    path.heard_totals(sent=700, received=201, now=NOW)
    assert path.loss.loss > 100


@pytest.mark.parametrize(("missed", "is_forgotten"), [(5, False), (14, False), (15, True)])
def test_loss_is_known_after_a_short_outage(missed: int, is_forgotten: bool) -> None:
    """A link that loses much now and then answers nothing: that makes it no better."""
    path = running()
    path.heard_totals(sent=100, received=100, now=NOW)
    path.heard_totals(sent=200, received=150, now=NOW)
    path.unanswered = missed
    path.judge(silent=False, is_needed=False)
    path.heard_reply(1)
    assert (path.loss.loss == 0) == is_forgotten


def test_keepalive_is_never_shorter_than_a_beat() -> None:
    """A beat longer than the keepalive stands."""
    path = running()
    path.settings = replace(path.settings, beat=60 * SECOND)
    assert path.request_interval(idle=True, keepalive=25 * SECOND) == 60 * SECOND


@pytest.mark.parametrize(
    ("condition", "silence", "changes", "expected"),
    [
        (Condition.LOSSY, 0, {}, True),
        (Condition.LOSSY, 60 * SECOND, {}, True),
        (Condition.DEGRADED, LAST_RESORT, {}, True),
        (Condition.DEGRADED, LAST_RESORT + 1, {}, False),
        (Condition.DEGRADED, 0, {"stopped": True}, False),
        (Condition.PROBING, 0, {}, False),
        (Condition.DOWN, 0, {}, False),
        (Condition.WAITING, 0, {}, False),
    ],
)
def test_last_resort(
    condition: Condition, silence: int, changes: dict[str, object], expected: bool
) -> None:
    """What a path is good for when none works: a lossy one always, a silent one for a while."""
    path = running()
    path.condition = condition
    for name, value in changes.items():
        setattr(path, name, value)
    assert path.is_last_resort(NOW + silence) == expected


def test_last_resort_has_a_size() -> None:
    """A path of unknown MTU is of no use."""
    path = make_path()
    path.condition = Condition.LOSSY
    assert not path.is_last_resort(NOW)


@pytest.mark.parametrize(("remote", "headers"), [("192.0.2.1", 28), ("2001:db8::1", 48)])
def test_datagrams_take_more_than_their_payload(remote: str, headers: int) -> None:
    """A datagram's length on the link has the headers of UDP, IP and Ethernet in it."""
    endpoint = Endpoint(pack_address(remote), 5000)
    path = Path(PathId(endpoint.address, endpoint), PathSettings(rate_tx=10**6), client=True)
    path.count_sent(size=2000, count=2, now=NOW)
    assert path.shaper.busy_until == NOW + 2000 + 2 * (headers + 38)
    assert (path.tx_bytes, path.tx_total) == (2000, 2)


def test_arrival_is_after_what_is_sent_and_the_way() -> None:
    """The time until a datagram is at the peer: what is before it, its own length, the way."""
    path = make_path(rate_tx=10**6)
    path.delay.add(15_000)
    free = path.arrival(size=1000 - path.overhead, now=NOW)
    assert free == NOW + 1000 + 15_000
    path.shaper.charge(7000, NOW)
    assert path.arrival(size=1000 - path.overhead, now=NOW) == free + 7000


@pytest.mark.parametrize(
    ("settings", "found", "expected"),
    [
        ({}, RATE_UNLIMITED, RATE_UNLIMITED),
        ({}, 10**6, 10**6),
        ({"rate_tx": 5000}, 4000, 4000),
        ({"rate_tx": 5000, "fixed_rate": True}, 4000, 5000),
    ],
)
def test_rate_that_is_used(settings: dict[str, Any], found: int, expected: int) -> None:
    """A fixed rate is used as it is, and is the ceiling of one that is found."""
    path = make_path(**settings)
    path.estimator.rate, path.estimator.is_found = found, True
    path.apply_rate()
    assert path.shaper.rate == expected


def test_new_ceiling_starts_the_search_for_the_rate_again() -> None:
    """When the user gives another rate, what was found below the old one says nothing."""
    path = make_path(rate_tx=5000)
    path.estimator.rate = 100
    path.settings = replace(path.settings, rate_tx=9000)
    path.apply_rate()
    assert path.shaper.rate == 9000


def test_status() -> None:
    """The snapshot says what is known, and no limit as 0."""
    path = running()
    path.count_sent(size=1000, count=2, now=NOW)
    path.count_received(size=500, count=1, now=NOW + 5)
    path.rx_loss = 7
    path.rtt.add(4000)
    status = path.status()
    assert (status.condition, status.reason, status.mtu) == (Condition.RUNNING, "", 1472 - OVERHEAD)
    assert (status.tx.bytes, status.tx.total, status.tx.rate) == (1000, 2, 0)
    assert (status.rx.bytes, status.rx.total, status.rx.loss) == (500, 1, 7)
    assert (status.rtt, status.rttvar, status.last_received_at) == (4000, 2000, NOW + 5)
    path.settings = replace(path.settings, rate_tx=12345, fixed_rate=True)
    path.apply_rate()
    assert path.status().tx.rate == 12345


def test_loss_is_not_counted_while_probes_are_lost() -> None:
    """What is meant to be lost during the search for the MTU is no loss of the path."""
    path = make_path()
    path.heard_totals(sent=1, received=1, now=NOW)
    path.heard_totals(sent=500, received=1, now=NOW)
    settle(path)
    path.heard_totals(sent=600, received=101, now=NOW)
    assert path.loss.loss == 0
    path.heard_totals(sent=700, received=101, now=NOW)
    assert path.loss.loss > 100
