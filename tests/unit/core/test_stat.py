"""Smoothed estimates of what control messages measure."""

from random import Random

import pytest

from glorytun.core.settings import SECOND
from glorytun.core.stat import LOSS_FULL, LossEstimator, Smoothed


def test_smoothed_follows_the_protocol() -> None:
    """The first sample is the mean, half of it the variation; then an eighth and a quarter."""
    rtt = Smoothed()
    assert not rtt.ready
    rtt.add(8000)
    assert (rtt.ready, rtt.mean, rtt.variation, rtt.newest) == (True, 8000, 4000, 8000)
    rtt.add(16000)
    assert (rtt.mean, rtt.variation, rtt.newest) == (9000, 5000, 16000)
    rtt.add(1000)
    assert (rtt.mean, rtt.variation, rtt.newest) == (8000, 5750, 1000)


@pytest.mark.parametrize(("first", "then"), [(10_000, 90_000), (90_000, 10_000)])
def test_smoothed_converges(first: int, then: int) -> None:
    """After fifty samples of another value the mean is within 1 %, and the variation small."""
    rtt = Smoothed()
    rtt.add(first)
    for _ in range(50):
        rtt.add(then)
    assert abs(rtt.mean - then) < then // 100
    assert rtt.variation < then // 20


def feed(
    loss: LossEstimator, share: float, *, replies: int, seed: int = 0, each: int = 5, start: int = 0
) -> None:
    """A reply every 100 ms from `start` on, `each` datagrams apart, and a share is lost."""
    random = Random(seed)
    for index in range(replies):
        arrived = sum(random.random() >= share for _ in range(each))
        now = start + index * SECOND // 10
        loss.add(sent=loss.sent + each, received=loss.received + arrived, now=now)


@pytest.mark.parametrize("each", [1, 3, 50])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.9, 1.0])
def test_loss_is_found(share: float, each: int) -> None:
    """Whatever the number of datagrams between replies, the share that is lost is found."""
    estimates = []
    for seed in range(20):
        loss = LossEstimator()
        loss.add(sent=10, received=10, now=0)
        feed(loss, share, replies=1000, seed=seed, each=each)
        estimates.append(loss.loss / LOSS_FULL)
    assert abs(sum(estimates) / len(estimates) - share) < 0.03
    assert all(abs(estimate - share) < 0.15 for estimate in estimates)


@pytest.mark.parametrize("share", [0, 1, 5, 20, 300])
def test_loss_is_told_in_per_mille(share: int) -> None:
    """Of the last two seconds, when that is enough datagrams; of a few nothing is said."""
    loss = LossEstimator()
    loss.add(sent=10, received=10, now=0)
    loss.add(sent=40, received=20, now=1)
    assert loss.per_mille == 0
    for beat in range(1, 200):
        now, sent = beat * SECOND // 10, loss.sent + 1000
        loss.add(sent=sent, received=loss.received + 1000 - share, now=now)
    assert loss.per_mille == pytest.approx(share, abs=1)
    assert loss.sample == pytest.approx(20_000, rel=0.1)


def test_loss_is_forgotten() -> None:
    """A loss that is over is no longer said after a thousand datagrams."""
    loss = LossEstimator()
    loss.add(sent=1, received=1, now=0)
    feed(loss, 0.5, replies=200)
    assert loss.loss > 80
    feed(loss, 0.0, replies=200, start=20 * SECOND)
    assert loss.loss <= 2


@pytest.mark.parametrize("each", [100, 1000, 10_000])
def test_what_a_moment_lost_is_no_loss_of_the_link(each: int) -> None:
    """Two tenths of a second of nothing, as when a radio link changes its cell."""
    loss = LossEstimator()
    loss.add(sent=10, received=10, now=0)
    feed(loss, 0, replies=100, each=each)
    now = 10 * SECOND
    loss.add(sent=loss.sent + 2 * each, received=loss.received, now=now)
    assert 0.05 < loss.loss / LOSS_FULL < 0.12
    loss.add(sent=loss.sent + 100, received=loss.received + 100, now=now + 20 * SECOND)
    assert loss.loss < 20


def test_loss_is_not_stated_too_soon() -> None:
    """Until forty datagrams are known of, no loss is said."""
    loss = LossEstimator()
    loss.add(sent=1, received=1, now=0)
    loss.add(sent=40, received=1, now=0)
    assert loss.loss == 0
    loss.add(sent=41, received=1, now=0)
    assert loss.loss == LOSS_FULL


def test_late_reply_says_nothing() -> None:
    """A reply of older totals than those known is passed over."""
    loss = LossEstimator()
    loss.add(sent=100, received=100, now=0)
    loss.add(sent=90, received=80, now=0)
    loss.add(sent=200, received=150, now=0)
    assert loss.loss == LOSS_FULL // 2


def test_peer_that_counts_anew() -> None:
    """Of a peer that was restarted, what it counts from then on is believed."""
    loss = LossEstimator()
    loss.add(sent=100, received=100, now=0)
    loss.add(sent=200, received=3, now=0)
    loss.add(sent=300, received=103, now=0)
    assert loss.loss == 0


def test_skipped_datagrams_are_not_lost() -> None:
    """What was sent while probes were meant to be lost isn't counted, before or after."""
    loss = LossEstimator()
    loss.add(sent=1, received=1, now=0)
    loss.add(sent=100, received=100, now=0)
    loss.skip(sent=300, received=150)
    loss.add(sent=400, received=250, now=0)
    assert loss.loss == 0


@pytest.mark.parametrize("received", [(1 << 64) - 1, 1 << 40])
def test_peer_that_counts_too_much(received: int) -> None:
    """A peer that says it received more than was sent has lost nothing."""
    loss = LossEstimator()
    loss.add(sent=1, received=1, now=0)
    loss.add(sent=1000, received=received, now=0)
    assert loss.loss == 0
