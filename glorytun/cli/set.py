"""`glorytun set`: change the settings of a tunnel."""

from typing import Any

from glorytun.cli.common import DEVICE
from glorytun.cli.words import Keyword, Options, Value
from glorytun.config import (
    KEEPALIVE,
    KXTIMEOUT,
    TIMETOLERANCE,
    parse_redundant,
    parse_reorder,
    parse_traffic_class,
    time_within,
)
from glorytun.control.client import ask
from glorytun.control.messages import Set
from glorytun.core.settings import SettingsChange
from glorytun.errors import UsageError

OPTIONS: Options = (
    DEVICE,
    Keyword(
        word="tc",
        value=Value(key="traffic_class", name="CLASS", parse=parse_traffic_class),
        help="the traffic class of the tunnel's datagrams: CS0 to CS7, AF11 to AF43, EF.",
    ),
    Keyword(
        word="redundant",
        value=Value(key="redundant", name="CLASS", parse=parse_redundant),
        help="send packets of this traffic class on the two best paths at once; off: none.",
    ),
    Keyword(
        word="reorder",
        value=Value(key="reorder", name="TIME", parse=parse_reorder),
        help="how long received packets may be held back to come in order; off, auto.",
    ),
    Keyword(
        word="kxtimeout",
        value=Value(key="kxtimeout", name="TIME", parse=time_within(KXTIMEOUT)),
        help="the age at which a session key is replaced.",
    ),
    Keyword(
        word="timetolerance",
        value=Value(key="timetolerance", name="TIME", parse=time_within(TIMETOLERANCE)),
        help="how far the peer's clock may be from ours.",
    ),
    Keyword(
        word="keepalive",
        value=Value(key="keepalive", name="TIME", parse=time_within(KEEPALIVE)),
        help="the interval between control messages while no data flows.",
    ),
)


def run(found: dict[str, Any]) -> int:
    """Send the change to the tunnel."""
    device = found.pop("device", None)
    if not found:
        raise UsageError("there is nothing to set", hint="see `glorytun set help`")
    ask(Set(change=SettingsChange(**found)), device)
    return 0
