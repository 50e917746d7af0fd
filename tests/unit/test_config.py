"""What users write becomes the core's units, and back."""

import re
from collections.abc import Callable

import pytest

from glorytun import config
from glorytun.config import BEAT, KXTIMEOUT

KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", 0),
        ("125000", 125_000),
        ("64kbit", 8000),
        ("1mbit", 125_000),
        ("1Mbit", 125_000),
        ("1.5mbit", 187_500),
        ("20mbit", 2_500_000),
        ("2.5gbit", 312_500_000),
    ],
)
def test_rates_are_bytes_per_second(text: str, rate: int) -> None:
    assert config.parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("10", 10_000_000),
        ("10s", 10_000_000),
        ("2.5", 2_500_000),
        ("1500ms", 1_500_000),
        ("10m", 600_000_000),
        ("1.5h", 5_400_000_000),
    ],
)
def test_times_are_microseconds(text: str, time: int) -> None:
    assert config.time_within(KXTIMEOUT)(text) == time


@pytest.mark.parametrize(
    ("text", "share"),
    [("0", 0), ("30%", 77), ("30", 77), ("50%", 128), ("0.4%", 1), ("100%", 255), ("100", 255)],
)
def test_percentages_are_shares_of_255(text: str, share: int) -> None:
    assert config.parse_share(text) == share


@pytest.mark.parametrize(
    ("text", "byte"),
    [("CS0", 0), ("cs6", 192), ("CS7", 224), ("AF11", 40), ("af43", 152), ("EF", 184)],
)
def test_traffic_classes_are_bytes_of_the_ip_header(text: str, byte: int) -> None:
    assert config.parse_traffic_class(text) == byte
    assert config.format_traffic_class(byte) == text.upper()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("::", "::"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ],
)
def test_addresses_get_their_usual_spelling(text: str, address: str) -> None:
    assert config.parse_address(text) == address


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "::1", "fe80::1%eth0", "server", "server.example.org", "a_b.example.", "0x.org"],
)
def test_hosts_are_addresses_or_names(host: str) -> None:
    assert config.parse_host(host) == host


@pytest.mark.parametrize(
    ("parse", "words", "reason"),
    [
        (
            config.parse_rate,
            ["", "mbit", "1mb", "-1", "1e6", "1.mbit", ".5mbit", "20M", "1/s", "1%", "٣", "1" * 99],
            "is no rate: bytes/s, or a number with kbit, mbit or gbit as in 20mbit",
        ),
        (
            config.parse_rate,
            ["10"],
            "is 10 bytes/s, and must be 0 (no ceiling) or from 64kbit to 8000gbit",
        ),
        (
            config.time_within(BEAT),
            ["", "ms", "1y", "-1s", "1mbit", "nan", "inf", "1min 30", "1s " * 99],
            "is no time: seconds, or as in 200ms, 10min, 1h 30min",
        ),
        (
            config.time_within(BEAT),
            ["0", "9ms", "11s", "1d", "999999999h"],
            "must be from 10ms to 10s",
        ),
        (
            config.parse_share,
            ["", "%", "1s", "30%%", "-1"],
            "is no percentage: a number from 0 to 100 as in 30%",
        ),
        (config.parse_share, ["101", "100.5%"], "must be from 0% to 100%"),
        (
            config.parse_port,
            ["", "0", "65536", "-1", "1.0", "http", "5" * 5000, "²"],
            "is no port: a number from 1 to 65535",
        ),
        (
            config.parse_address,
            ["", "10.0.0.256", "10.1", "1:2", "server"],
            "is no IPv4 or IPv6 address",
        ),
        (config.parse_address, ["fe80::1%eth0"], "names an interface, which has no place here"),
        (
            config.parse_host,
            ["fe80::1%a\x1b", "fe80::1%a b"],
            "has no name of an interface after the %",
        ),
        (
            config.parse_peer,
            ["::", "0.0.0.0", "ff02::1%eth0", "224.0.0.1", "255.255.255.255"],
            "is not the address of one host",
        ),
        (
            config.parse_local,
            ["wan*\u202e", "*" * 101, "a/*"],
            "is no glob of interfaces, such as wwan*",
        ),
        (
            config.parse_size,
            ["", "G", "1X", "-1", "1kbit"],
            "is no size: bytes, or a number with K, M, G, T or kB, MB, GB, TB",
        ),
        (config.parse_size, ["1048577T"], "must be at most 1048576T"),
        (
            config.parse_mark,
            ["", "-1", "0x", "2a", "0x100000000"],
            "is no mark: a number such as 42 or 0x2a",
        ),
        (config.parse_host, ["10.0.0.256", "10.1", "1:2"], "is no IPv4 or IPv6 address"),
        (
            config.parse_host,
            ["", "a b", "-a", "a..b", "a/b", "a\n", "x" * 64, "é.fr"],
            "is neither an address nor a name",
        ),
        (
            config.parse_traffic_class,
            ["", "CS8", "AF14", "AF50", "184"],
            "is no traffic class: CS0 to CS7, AF11 to AF43 or EF",
        ),
        (
            config.parse_device,
            ["", ".", "..", "a/b", "a b", "a:b", "x" * 16, "é" * 8, "a\x1b", "\udc80"],
            "is no device name: 1 to 15 bytes without white space, / and :",
        ),
    ],
)
def test_what_is_wrong_with_a_value_is_said(
    parse: Callable[[str], object], words: list[str], reason: str
) -> None:
    for word in words:
        with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
            parse(word)


def test_a_quoted_word_stays_on_one_short_line() -> None:
    quoted = config.quote("a\nb\x1b" + "x" * 1000)
    assert quoted.startswith("'a\\nb\\x1bx")
    assert len(quoted) < 80


def test_a_key_is_never_quoted() -> None:
    assert config.quote(KEY) == "'(a key)'"
