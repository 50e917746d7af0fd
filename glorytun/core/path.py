"""One path: its settings, its counters, and how it is doing: for that see `condition.py`."""

from glorytun.core.address import Endpoint, PathId, headers_of
from glorytun.core.comeback import AGAIN_MAX, Comeback
from glorytun.core.condition import (
    LEGAL,
    OVER_LIMIT,
    WORKS,
    Facts,
    back_at,
    condition_of,
)
from glorytun.core.mtu import MtuSearch
from glorytun.core.rate import RateEstimator
from glorytun.core.settings import SECOND, PathSettings, PathState
from glorytun.core.shaper import LINK_OVERHEAD, RATE_UNLIMITED, Shaper
from glorytun.core.stat import LOSS_FULL, LossEstimator, OneWay, Smoothed
from glorytun.core.status import Condition, DirectionStatus, Limit, PathStatus
from glorytun.core.wire import OVERHEAD

# What the protocol says (PROTOCOL 3).

UNANSWERED_MAX = 5
"""Requests without a reply after which a path is degraded."""
SLOW_BEATS = 10
"""A client's beats between requests on a path that has been degraded for a while."""

# What this implementation chose.

OVERDUE = 20_000
"""µs beyond what round trips vary by after which an answer is missed."""
LAST_RESORT = 3_000_000
"""µs since something was heard, up to which a degraded path is used while no other works."""
BEAT_MIN = 10_000
BEAT_MAX = 3_600_000_000
LONG_OUTAGE = 3
"""Times as many requests without a reply as make a path degraded."""
LATE_AFTER, LATE_TRIPS = SECOND, 8
"""µs that the mean of round trips is above its limit before a path is late, and how many are
themselves: a hiccup of half a second is less, also where one is made every 25 s."""
IN_TIME = 30 * SECOND
"""µs without that, after which it is used again though they take longer than LIMIT_BACK of it."""
LOOK = 30
"""Datagrams by which one that lost too much is judged at the least."""
TRIED_LATER = 3 * SECOND
"""µs more that one waits which is left out for its rate: to try that takes data, which is late."""
HELD_LATE = 8 * SECOND
"""µs that one is held at the most that was late with a rate which was found: it has no more queue
than a few ms, so that a try costs little, and a link that faded may be back."""
FAILED_SOON = 2 * UNANSWERED_MAX
"""Beats within which a path that runs again is degraded again if it fails of what is sent there:
hardly one was answered."""
LOSS_FAILED, QUEUE_FAILED = LOSS_FULL // 8, SECOND // 10
"""Or after so much loss, or with so many µs of queueing."""
LOSSIER_LATE = 3_000
"""µs by which others may be later than a path that loses more, and still take a packet: with none
it gets half of what comes in bursts; with more, what it gets overtakes what they have to send."""
PROBE_INTERVAL_MIN = 20_000
"""µs between two probes of MTU discovery at the least."""


def _tried_with(settings: PathSettings) -> tuple[int, bool, int, int]:
    """What makes a path that is left worth another try, once it changes."""
    return settings.rate_tx, settings.fixed_rate, settings.loss_limit, settings.delay_limit


class Path:
    """A path of either role. The tunnel fills the counters in; times are µs since the epoch."""

    __slots__ = (
        "after",
        "answered",
        "comeback",
        "condition",
        "delay",
        "estimator",
        "id",
        "in_time_since",
        "is_after_outage",
        "is_in_time",
        "is_late",
        "is_left_out",
        "is_lossier",
        "is_pinned",
        "is_spent",
        "is_suspect",
        "late_limit",
        "late_since",
        "late_trips",
        "loss",
        "lossy_limit",
        "mtu_reported",
        "mtu_told",
        "overhead",
        "peer_sent",
        "public",
        "reason",
        "requested_at",
        "rtt",
        "runs_since",
        "rx_at",
        "rx_bytes",
        "rx_delay",
        "rx_loss",
        "rx_total",
        "rx_total_then",
        "search",
        "settings",
        "settings_at",
        "shaper",
        "spared",
        "stopped",
        "stopped_at",
        "tx_bytes",
        "tx_total",
        "unanswered",
        "urged_at",
        "waits_since",
    )

    def __init__(
        self, path_id: PathId, settings: PathSettings, *, client: bool, after: int = 0
    ) -> None:
        """`after`: see `start_anew`."""
        self.id = path_id
        self.settings = settings
        self.settings_at = 0
        """Time of the request that the settings came with (server)."""
        self.is_spent = False
        """Whether its quota is used up, so that it counts as down (client)."""
        self.is_pinned = False
        """Whether the sending rate was set here, so that the client can't (server)."""
        self.overhead = LINK_OVERHEAD + headers_of(path_id.remote.address)
        """Bytes that a datagram takes on the link beyond its payload."""
        self.search = MtuSearch() if client else None
        self.mtu_reported = 0
        """The size of the last event that said what was found (client)."""
        self.mtu_told = 0
        """The size that the client settled on (server)."""
        self.tx_bytes = self.tx_total = self.rx_bytes = self.rx_total = 0
        self.peer_sent = self.rx_total_then = 0
        """What the peer's newest message says that it has sent, and what we had received then."""
        self.public: Endpoint | None = None
        self.shaper = Shaper()
        self.estimator = RateEstimator()
        self.condition = Condition.DOWN if settings.state == PathState.DOWN else Condition.PROBING
        self.reason = "no answer yet"
        self.lossy_limit: int | None = None
        """The limit above which it lost, unless it has worked since."""
        self.is_left_out = False
        """Whether others are better off without it: see `leftout`."""
        self.is_lossier = False
        """Whether it only has what others don't carry, for its loss: see `lossier`."""
        self.spared = 0
        """Replies for which it still counts that something waited, but not for this path."""
        self.rx_delay = 0
        """µs that the newest message took, plus what the peer's clock is behind ours."""
        self.rx_at = 0
        self.start_anew(after)

    def start_anew(self, after: int) -> None:
        """Forget what was measured: the path was down, or leads elsewhere now.

        Only answers to what we send after our control time `after` count from now on.
        """
        self.after = after
        self.answered = False
        self.stopped = False
        self.stopped_at = 0
        self.unanswered = 0
        self.requested_at = 0
        self.waits_since = 0
        """When the first request left that was not answered yet; 0 = there is none (client)."""
        self.urged_at = 0
        """When the answer to that was overdue, and was asked for once more; 0 = not yet."""
        self.is_suspect = False
        """Whether there are signs that nothing comes through any more."""
        self.rtt = Smoothed()
        self.late_since = self.late_trips = 0
        """Since when their mean is above the limit, 0 = it isn't; and how many were themselves."""
        self.is_late = False
        self.in_time_since = 0
        """Since when round trips have taken no longer than the limit, or than there is none."""
        self.is_in_time = False
        """Whether that is long enough for a path that was late, though it isn't much less."""
        """Whether that has been so for long enough."""
        self.late_limit = 0
        """The limit that was exceeded, unless it has worked since."""
        self.delay = OneWay()
        """One way to the peer, plus what its clock is ahead of ours: to compare paths with."""
        self.loss = LossEstimator()
        self.comeback = Comeback()
        self.runs_since = 0
        """When it began to run; 0 = it doesn't."""
        self.is_after_outage = False
        """Whether it was degraded since the last totals."""
        self.rx_loss = 0
        if self.search is not None:
            self.search = MtuSearch()
        self.apply_rate()

    def change(self, settings: PathSettings) -> None:
        """Take new settings: what it did badly with other ones says nothing of them."""
        is_new_try = _tried_with(settings) != _tried_with(self.settings)
        self.settings = settings
        if is_new_try:
            self.comeback = Comeback()
        self.apply_rate()

    def heard_farewell(self, time: int) -> None:
        """The peer stopped at its time `time`."""
        self.stopped = True
        self.stopped_at = time

    def heard_reply(self, time: int) -> None:
        """The peer answered at its time `time`."""
        if self.unanswered >= LONG_OUTAGE * self.unanswered_max:
            self.loss = LossEstimator()  # The link may be another one by now.
        self.answered = True
        self.waits_since = self.urged_at = 0
        self.unanswered = 0
        self.spared = max(0, self.spared - 1)
        if time > self.stopped_at:
            self.stopped = False

    def heard_trip(self, trip: int, now: int) -> None:
        """A round trip took so many µs."""
        self.rtt.add(trip)
        limit = self.settings.delay_limit
        if not self.rtt.mean > limit > 0:
            self.late_since = self.late_trips = 0
            self.in_time_since = self.in_time_since or now
        else:
            self.in_time_since = 0
            self.late_since = self.late_since or now
            self.late_trips += trip > limit
        is_long = self.late_since > 0 and now - self.late_since >= LATE_AFTER
        self.is_late = is_long and self.late_trips >= LATE_TRIPS
        self.is_in_time = 0 < self.in_time_since <= now - IN_TIME

    def heard_totals(self, *, sent: int, received: int, now: int) -> None:
        """When we had sent `sent` datagrams here, the peer had counted `received`."""
        is_searching = self.search is not None and self.search.probe
        if is_searching or self.is_after_outage:
            # Probes are meant to be lost, and what an outage swallowed is no loss of the link.
            self.loss.skip(sent=sent, received=received)
            self._look_at_loss(now)
            self.is_after_outage = False
            return
        self.loss.add(sent=sent, received=received, now=now)
        if self.lossy_limit is not None and self.comeback.is_due(now) and self.loss.looked >= LOOK:
            self.loss.believe_look(back_at(self.settings.loss_limit))
            self._look_at_loss(now)

    def _look_at_loss(self, now: int) -> None:
        """Let a path that lost too much be judged by what is lost from now on, for as long."""
        if self.lossy_limit is not None:
            self.loss.look()
            self.comeback.restart(now)

    @property
    def state(self) -> PathState:
        """What it is to be, with regard to its quota too."""
        return PathState.DOWN if self.is_spent else self.settings.state

    @property
    def rank(self) -> int:
        """What isn't a backup comes first, then the backups by preference."""
        return self.settings.preference if self.settings.state == PathState.BACKUP else -1

    @property
    def price(self) -> tuple[int, bool]:
        """Sorts what is used first: what costs no money, then what loses less."""
        return self.settings.cost, self.is_lossier

    # Sizes.

    @property
    def size_max(self) -> int:
        """The largest datagram, UDP payload bytes; 0 = not known yet."""
        return self.mtu_told if self.search is None else self.search.usable

    @property
    def mtu(self) -> int:
        """The largest inner packet; 0 = not known yet."""
        return max(0, self.size_max - OVERHEAD)

    # Condition.

    def judge(
        self, *, silent: bool, is_needed: bool, later: int = 0, is_held: bool = False
    ) -> tuple[Condition, Condition] | None:
        """Bring the condition up to date: (old, new) when that changes it."""
        facts = Facts(
            state=self.state,
            is_spent=self.is_spent,
            answered=self.answered,
            stopped=self.stopped,
            unanswered=self.unanswered,
            unanswered_max=self.unanswered_max,
            silent=silent,
            mtu=self.size_max,
            loss=self.loss.loss,
            loss_limit=self.settings.loss_limit,
            was_lossy=self.lossy_limit == self.settings.loss_limit,
            rtt=self.rtt.mean,
            delay_limit=self.settings.delay_limit,
            is_late=self.is_late,
            was_late=self.late_limit == self.settings.delay_limit and not self.is_in_time,
            is_needed=is_needed,
            later=later,
            is_held=is_held,
        )
        is_out = later > 0 or is_held
        self.is_left_out = is_out and (is_needed or self.state != PathState.BACKUP)
        new, self.reason = condition_of(facts)
        if new == Condition.LOSSY:
            if self.lossy_limit is None:
                self.loss.look()
            self.lossy_limit = self.settings.loss_limit
        elif new == Condition.LATE:
            self.late_limit = self.settings.delay_limit
        elif new == Condition.DEGRADED:
            self.is_after_outage = True
        elif new in WORKS:
            self.lossy_limit = None
            self.late_limit = 0
        old = self.condition
        if new == old:
            return None
        assert new in LEGAL[old], (old, new)
        self.condition = new
        return old, new

    def note_left(self, now: int) -> None:
        """Take note of whether it is left, after `judge`, and try it again when that is due.

        A short outage alone is neither a success nor a failure of it.
        """
        is_over_limit = self.lossy_limit is not None or self.late_limit > 0
        if self.works or is_over_limit or self._has_failed(now):
            is_left = self.is_left_out or not self.works
            held_most = HELD_LATE if self.works and not self.settings.fixed_rate else AGAIN_MAX
            if self.comeback.note(is_left=is_left, now=now, held_most=held_most):
                self.estimator.look_again()  # What was found is old.
        is_running = self.condition == Condition.RUNNING
        self.runs_since = (self.runs_since or now) if is_running else 0
        if self.is_left_out and self.comeback.is_due(now - TRIED_LATER):
            self.estimator.look_again()
            self.comeback.restart(now)

    def _has_failed(self, now: int) -> bool:
        """Whether it is degraded from now on, and rather for what was sent there than for a cut."""
        if self.condition != Condition.DEGRADED or not self.runs_since:
            return False
        return (
            now - self.runs_since < FAILED_SOON * self.settings.beat
            or self.loss.loss >= LOSS_FAILED
            or self.estimator.queue >= QUEUE_FAILED
        )

    @property
    def unanswered_max(self) -> int:
        """Requests without a reply that make a path degraded: more where replies take long."""
        beats = self.rtt.mean // self.settings.beat
        return UNANSWERED_MAX + (beats if beats >= UNANSWERED_MAX else 0)

    @property
    def works(self) -> bool:
        return self.condition in WORKS

    @property
    def is_alive(self) -> bool:
        """Whether the peer answers on it as it should, be it above a limit."""
        return self.works or self.condition in OVER_LIMIT

    @property
    def is_for_copies(self) -> bool:
        """Whether packets that go twice may go here too: it is up, though perhaps left out."""
        is_running = self.condition == Condition.RUNNING
        return is_running or (self.condition == Condition.WAITING and self.is_left_out)

    @property
    def overdue_at(self) -> int | None:
        """When the answer is overdue that we wait for, or that we asked for again (client)."""
        since = self.urged_at or self.waits_since
        if not since or not self.rtt.ready:
            return None
        return since + self.rtt.mean + 4 * self.rtt.variation + OVERDUE

    def is_last_resort(self, now: int) -> bool:
        """Whether data may go here while no path works: better than not to send at all."""
        if not self.size_max or self.stopped:
            return False
        if self.condition in OVER_LIMIT:
            return True
        return self.condition == Condition.DEGRADED and now - self.rx_at <= LAST_RESORT

    # Timing of requests (client).

    @property
    def is_searching(self) -> bool:
        """Whether MTU discovery is under way, with any prospect."""
        search = self.search
        if search is None or not self.answered or self.unanswered >= self.unanswered_max:
            return False
        return search.probe > 0 and not search.is_fruitless

    def request_now(self) -> None:
        """Let the next request leave at once: there is news for the peer."""
        self.requested_at = 0

    def request_interval(self, *, idle: bool, keepalive: int) -> int:
        """µs until the next request, from the last one."""
        beat = self.settings.beat
        if self.unanswered >= LONG_OUTAGE * self.unanswered_max:
            return SLOW_BEATS * beat  # Not at once: most who say that they stop are restarted.
        if self.is_searching:
            # The newest sample too: the mean remembers what waited in a queue at the start. Too
            # short an interval does no harm, since plain requests are judged by it alike.
            trip = min(self.rtt.mean, self.rtt.newest)
            return min(max(PROBE_INTERVAL_MIN, trip), SLOW_BEATS * beat)
        if self.search is not None and self.search.is_fruitless:
            return SLOW_BEATS * beat
        if idle and self.is_alive and not self.unanswered:
            return max(keepalive, beat)
        return beat

    # Rates.

    def apply_rate(self) -> None:
        """Let the shaper follow the settings and what was found."""
        ceiling = self.settings.rate_tx or RATE_UNLIMITED
        if self.estimator.ceiling != ceiling:
            self.estimator.set_ceiling(ceiling)
        is_given = self.settings.fixed_rate
        self.shaper.set_rate(ceiling if is_given else self.estimator.allowed, is_given=is_given)

    @property
    def is_rate_known(self) -> bool:
        """Whether the sending rate is more than a guess."""
        return self.settings.fixed_rate or self.estimator.is_found

    @property
    def rate_hoped(self) -> int:
        """bytes/s that it may carry: as long as that is to be found, all that was given."""
        return self.shaper.rate if self.is_rate_known else self.estimator.ceiling

    def note_alone(self, *, is_alone: bool) -> None:
        """Whether there is no other path that runs."""
        if self.estimator.is_alone != is_alone:
            self.estimator.is_alone = is_alone
            self.apply_rate()

    def arrival(self, *, size: int, now: int) -> int:
        """When a datagram of `size` bytes would be at the peer, by its clock, if it left here.

        A path that loses more than others counts as later than it is.
        """
        start = max(self.shaper.busy_until, now)
        handicap = LOSSIER_LATE if self.is_lossier else 0
        return start + self.duration(size) + self.delay.mean + handicap

    def duration(self, size: int) -> int:
        """µs that a datagram of `size` bytes takes at the path's rate."""
        return (size + self.overhead) * SECOND // self.shaper.rate

    # Counters.

    def count_sent(self, *, size: int, count: int, now: int, is_marked_copy: bool = False) -> None:
        self.tx_bytes += size
        self.tx_total += count
        charge = self.shaper.charge_marked if is_marked_copy else self.shaper.charge
        charge(size + count * self.overhead, now)

    def count_control(self, *, size: int, now: int) -> None:
        """A control message left. While the rate is a guess, none keeps data waiting."""
        self.tx_bytes += size
        self.tx_total += 1
        if self.is_rate_known:
            self.shaper.charge(size + self.overhead, now)

    def count_received(self, *, size: int, count: int, now: int) -> None:
        self.rx_bytes += size
        self.rx_total += count
        self.rx_at = now

    def _rate_to_show(self) -> int:
        """bytes/s that were found, or else given; 0 = neither."""
        is_given = self.settings.fixed_rate or not self.estimator.is_found
        return self.settings.rate_tx if is_given else self.estimator.rate

    def _limit(self) -> Limit:
        if self.condition in OVER_LIMIT:
            return Limit.LOSS if self.condition == Condition.LOSSY else Limit.DELAY
        limit = self.estimator.limit
        if limit is not Limit.APPLICATION:
            return limit
        if self.is_lossier:
            return Limit.LOSS
        return Limit.ORDER if self.spared else limit

    def status(self) -> PathStatus:
        return PathStatus(
            settings=self.settings,
            condition=self.condition,
            reason=self.reason,
            local=self.id.local,
            remote=self.id.remote,
            public=self.public,
            mtu=self.mtu,
            rtt=self.rtt.mean,
            rttvar=self.rtt.variation,
            tx=DirectionStatus(
                rate=self._rate_to_show(),
                loss=self.loss.loss,
                bytes=self.tx_bytes,
                total=self.tx_total,
            ),
            rx=DirectionStatus(
                rate=self.settings.rate_rx,
                loss=self.rx_loss,
                bytes=self.rx_bytes,
                total=self.rx_total,
            ),
            last_received_at=self.rx_at,
            limit=self._limit(),
            queue=self.estimator.queue,
        )
