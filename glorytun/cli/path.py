"""`glorytun path`: list the paths of a tunnel, or change one."""

from typing import Any

from glorytun.cli.common import DEVICE, JSON, print_json
from glorytun.cli.render import render_paths
from glorytun.cli.values import looks_like_address
from glorytun.cli.words import Flag, Group, Keyword, Options, Positional, Value
from glorytun.config import (
    BEAT,
    COST,
    DELAY_LIMIT,
    PREFERENCE,
    number_within,
    parse_address,
    parse_rate,
    parse_share,
    time_within,
)
from glorytun.control.client import ask
from glorytun.control.messages import Paths, SetPath
from glorytun.core.address import pack_address
from glorytun.core.settings import PathChange, PathMode, PathState
from glorytun.errors import TunnelError, UsageError

OPTIONS: Options = (
    Positional(
        value=Value(key="address", name="ADDR", parse=parse_address, fits=looks_like_address),
        help="the local address of the path to change, or to list alone; for a server also that "
        "of its client.",
    ),
    Flag(word="up", key="state", value=PathState.UP, help="use the path."),
    Flag(
        word="backup",
        key="state",
        value=PathState.BACKUP,
        help="use the path only while no other works.",
    ),
    Flag(word="down", key="state", value=PathState.DOWN, help="don't use the path."),
    Group(
        word="rate",
        options=(
            Flag(word="fixed", key="fixed_rate", value=True, help="send at the rate given."),
            Flag(
                word="auto",
                key="fixed_rate",
                value=False,
                help="find the rate; one that is given is a ceiling.",
            ),
            Keyword(
                word="tx",
                value=Value(key="rate_tx", name="RATE", parse=parse_rate),
                help="toward the peer: bytes/s, or with kbit, mbit or gbit; 0 is no ceiling.",
            ),
            Keyword(
                word="rx",
                value=Value(key="rate_rx", name="RATE", parse=parse_rate),
                help="from the peer.",
            ),
        ),
        help="how fast to send, and to let the peer send:",
    ),
    Keyword(
        word="beat",
        value=Value(key="beat", name="TIME", parse=time_within(BEAT)),
        help="the interval between control messages (s, ms, m, h).",
    ),
    Keyword(
        word="losslimit",
        value=Value(key="loss_limit", name="PERCENT", parse=parse_share),
        help="the loss above which the path is not used; 100% is no limit.",
    ),
    Keyword(
        word="delaylimit",
        value=Value(key="delay_limit", name="TIME", parse=time_within(DELAY_LIMIT)),
        help="the round trip above which the path is not used; 0 is no limit.",
    ),
    Group(
        word="mode",
        options=(
            Flag(word="bulk", key="mode", value=PathMode.BULK, help="packets of its own."),
            Flag(
                word="redundant",
                key="mode",
                value=PathMode.REDUNDANT,
                help="copies of what goes over other paths.",
            ),
        ),
        help="what to send on it:",
    ),
    Keyword(
        word="preference",
        value=Value(key="preference", name="NUMBER", parse=number_within(PREFERENCE)),
        help="of several backups those with the lowest number are used first.",
    ),
    Keyword(
        word="cost",
        value=Value(key="cost", name="NUMBER", parse=number_within(COST)),
        help="what data costs on it: it is used as far as cheaper paths don't suffice.",
    ),
    DEVICE,
    JSON,
)


def run(found: dict[str, Any]) -> int:
    """Change the path of the given address, or list those that fit."""
    device = found.pop("device", None)
    as_json = found.pop("json", False)
    address = found.pop("address", None)
    change = PathChange(**found)
    if address is None and found.keys() - {"state"}:
        raise UsageError("please name a path by its address", hint="`glorytun path` lists them")
    if address is None or not found:
        _list(device, address=address, state=change.state, as_json=as_json)
        return 0
    ask(SetPath(address=pack_address(address), change=change), device)
    if as_json:
        _list(device, address=address, state=None, as_json=True)
    return 0


def _list(
    device: str | None, *, address: str | None, state: PathState | None, as_json: bool
) -> None:
    """Print the paths from or to this address, and in this state, where given."""
    paths = [
        path
        for path in ask(Paths(), device)["paths"]
        if address in (None, path["local"], path["remote"]["address"])
        and (state is None or path["state"] == state.name.lower())
    ]
    if address is not None and not paths:
        raise TunnelError(
            f"there is no path from or to {address}", hint="`glorytun path` lists them"
        )
    if as_json:
        print_json({"paths": paths})
    else:
        print(render_paths(paths))
