"""The line in `systemctl status`."""

from dataclasses import replace

import pytest

from glorytun.core.address import Endpoint, pack_address
from glorytun.core.settings import SECOND, PathSettings
from glorytun.core.status import Condition, DirectionStatus, PathStatus
from glorytun.statusline import StatusLine

_NOTHING = DirectionStatus(rate=0, loss=0, bytes=0, total=0)
PATH = PathStatus(
    settings=PathSettings(),
    condition=Condition.RUNNING,
    reason="",
    local=pack_address("192.0.2.1"),
    remote=Endpoint(pack_address("192.0.2.2"), 5000),
    public=None,
    mtu=1400,
    rtt=0,
    rttvar=0,
    tx=_NOTHING,
    rx=_NOTHING,
    last_received_at=0,
)
LOST = replace(PATH, condition=Condition.DEGRADED)


def test_paths_that_have_no_link_are_missed() -> None:
    line = StatusLine(client=True)
    assert line.text([PATH, PATH, LOST]) == "2 of 3 paths running, idle"
    assert line.text([PATH], missing=1) == "1 of 2 paths running, idle"


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (53_600_000, "54 Mbit/s down"),
        (3_210_000, "3.2 Mbit/s down"),
        (9_960_000, "10 Mbit/s down"),
        (1_500_000_000, "1.5 Gbit/s down"),
        (1_000, "1.0 kbit/s down"),
        (999, "idle"),
    ],
)
def test_rates(bits: int, text: str) -> None:
    """What was carried since the last look."""
    line = StatusLine(client=True)
    line.measure(sent=0, received=10**9, now=SECOND)
    line.measure(sent=0, received=10**9 + bits, now=9 * SECOND)
    assert line.text([PATH]) == f"1 of 1 paths running, {text}"
    line.measure(sent=0, received=10**9 + bits, now=17 * SECOND)
    assert line.text([PATH]).endswith("idle")


@pytest.mark.parametrize(
    ("client", "words"), [(True, "8.0 {} down, 4.0 {} up"), (False, "8.0 {} in, 4.0 {} out")]
)
def test_directions(client: bool, words: str) -> None:
    """A client's are the user's, a server's are its own."""
    line = StatusLine(client=client)
    line.measure(sent=0, received=0, now=0)
    line.measure(sent=500_000, received=1_000_000, now=SECOND)
    assert line.text([PATH]).endswith(words.replace("{}", "Mbit/s"))


def test_what_is_wrong() -> None:
    line = StatusLine(client=True)
    text = line.text([], missing=1, trouble="vpn.example can't be resolved now", refusal="f:1:1: x")
    assert text == (
        "0 of 1 paths running, idle; vpn.example can't be resolved now; reload refused: f:1:1: x"
    )
