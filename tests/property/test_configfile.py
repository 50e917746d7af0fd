"""Any configuration file: it is read or refused, and what is written out reads the same."""

import contextlib
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glorytun.config import (
    HIGHEST_RATE,
    LOWEST_RATE,
    LocalKind,
    PathConfig,
    TunnelConfig,
)
from glorytun.configfile import MOST_BYTES, Configuration, option_values, parse
from glorytun.core.settings import (
    NO_CLASS,
    REORDER_AUTO,
    SECOND,
    CipherChoice,
    PathMode,
    PathSettings,
    PathState,
)
from glorytun.errors import ConfigError
from glorytun.options import SECTIONS

KEY = "0123456789abcdef" * 4

WORDS = st.sampled_from(
    [
        *("[Tunnel]", "[Path]", "[", "]", "=", "\\", "\n", "\r", "#", ";", " ", "\t", "\0"),
        *(f"{option.key}=" for options in SECTIONS.values() for option in options),
        *("::", "0.0.0.0", "10.0.0.1", "fe80::1%a", "vpn", "wan*", "auto", "fixed", "1", "1h"),
        *("10mbit", "50G", "20%", "CS6", "0x2a", "µs", "é", "\ufeff", "9" * 40, KEY),
    ]
)


@given(st.binary(max_size=200) | st.lists(WORDS, max_size=40).map(lambda w: "".join(w).encode()))
@example(b"[Tunnel]\nFirewallMark=" + b"9" * 10)
@example(b"\xff" + b"[" * 1000)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        configuration = parse(data, Path("tun0.conf"))
        said = "\n".join(map(str, configuration.warnings))
    except ConfigError as error:
        said = str(error)
    assert KEY not in said
    assert all(char.isprintable() or char == "\n" for char in said)


@pytest.mark.parametrize(
    "fill", [b"a", b"0", b"a=", b"[", b"Port=1 ", b"\\\n", b"a z", b"1us", b"\xff"]
)
def test_the_largest_file_is_read_at_once(fill: bytes) -> None:
    for start in (
        b"[Tunnel]\n",
        b"[Tunnel]\nKeyRotation=",
        b"[Tunnel]\nBind=",
        b"[Tunnel]\nQuota=",
    ):
        began = monotonic()
        with contextlib.suppress(ConfigError):
            parse((start + fill * MOST_BYTES)[:MOST_BYTES], Path("tun0.conf"))
        assert monotonic() - began < 2


def render(configuration: Configuration) -> str:
    """A file that says the same, with every option written out."""
    lines = []
    sections: list[TunnelConfig | PathConfig] = [configuration.tunnel, *configuration.paths]
    for section in sections:
        lines.append("[Tunnel]" if isinstance(section, TunnelConfig) else "[Path]")
        lines += [f"{option.key}={option.text(value)}" for option, value in option_values(section)]
    return "\n".join(lines) + "\n"


def times(low: int, high: int) -> st.SearchStrategy[int]:
    """µs, round ones more often than not."""
    return st.integers(low, high) | st.integers(low // SECOND + 1, high // SECOND).map(
        lambda seconds: seconds * SECOND
    )


KBITS = st.integers(LOWEST_RATE // 125, 64_000)
RATES = st.just(0) | st.integers(LOWEST_RATE, HIGHEST_RATE) | KBITS.map(lambda n: n * 125)
NAMES = st.from_regex(r"[a-z]{1,8}[0-9]{0,2}", fullmatch=True)
HOSTS = st.none() | st.sampled_from(["vpn.example.net", "server", "a_b.example."])

SETTINGS = st.builds(
    PathSettings,
    state=st.sampled_from(PathState),
    rate_tx=RATES,
    rate_rx=RATES,
    beat=times(SECOND // 100, 10 * SECOND),
    loss_limit=st.integers(0, 255),
    delay_limit=st.integers(0, 60 * SECOND),
    mode=st.sampled_from(PathMode),
    cost=st.integers(0, 10**6),
    preference=st.integers(0, 127),
)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    tunnel = TunnelConfig(
        bind="::",
        port=draw(st.integers(1, 65535)),
        peer=draw(HOSTS),
        peer_port=5000,
        keyfile=draw(st.none() | st.sampled_from(["/etc/key", "/a b/c;#d"])),
        cipher=draw(st.sampled_from(CipherChoice)),
        kxtimeout=draw(times(SECOND, 604800 * SECOND)),
        timetolerance=draw(times(SECOND, 86400 * SECOND)),
        keepalive=draw(times(SECOND, 50 * SECOND)),
        traffic_class=draw(st.sampled_from([0, 32, 40, 152, 184, 192])),
        redundant=draw(st.sampled_from([0, 32, 184, NO_CLASS])),
        firewall_mark=draw(st.integers(0, 2**32 - 1)),
        reorder=draw(st.sampled_from([0, REORDER_AUTO, SECOND // 1000, SECOND // 20, SECOND])),
    )
    locals_ = draw(
        st.lists(
            NAMES | NAMES.map("{}*".format) | st.ip_addresses(v=4, network="10.0.0.0/8").map(str),
            max_size=4,
            unique=True,
        )
    )
    paths = [
        PathConfig(
            local=local,
            kind=LocalKind.GLOB
            if "*" in local
            else LocalKind.ADDRESS
            if local[0] == "1"
            else LocalKind.INTERFACE,
            peer=draw(HOSTS),
            settings=draw(SETTINGS),
            quota_day=draw(st.integers(1, 31)),
            quota=draw(st.integers(0, 2**60) | st.integers(0, 999).map(lambda n: n * 10**9)),
        )
        for local in locals_
    ]
    return Configuration(
        tunnel=tunnel,
        paths=tuple(paths) if tunnel.peer else (),
        source=Path("tun0.conf"),
        warnings=(),
    )


@given(configurations())
def test_what_is_written_out_reads_the_same(configuration: Configuration) -> None:
    text = render(configuration)
    if configuration.tunnel.peer is None:
        text = text.replace("PeerPort=5000\n", "")
    found = parse(text.encode(), Path("tun0.conf"))
    assert (found.tunnel, found.paths) == (configuration.tunnel, configuration.paths)
