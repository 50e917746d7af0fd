"""What users write becomes the core's units, and back."""

import re
from collections.abc import Callable

import pytest

from glorytun.cli import values
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
    assert values.parse_rate(text) == rate


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
    assert values.time_within(KXTIMEOUT)(text) == time


@pytest.mark.parametrize(
    ("text", "share"),
    [("0", 0), ("30%", 77), ("30", 77), ("50%", 128), ("0.4%", 1), ("100%", 255), ("100", 255)],
)
def test_percentages_are_shares_of_255(text: str, share: int) -> None:
    assert values.parse_share(text) == share


@pytest.mark.parametrize("percent", range(101))
def test_a_percentage_is_shown_as_it_was_given_to_half_a_percent(percent: int) -> None:
    shown = values.format_share(values.parse_share(str(percent)) / 255)
    assert abs(float(shown.removesuffix(" %")) - percent) < 0.3


@pytest.mark.parametrize(
    ("text", "byte"),
    [("CS0", 0), ("cs6", 192), ("CS7", 224), ("AF11", 40), ("af43", 152), ("EF", 184)],
)
def test_traffic_classes_are_bytes_of_the_ip_header(text: str, byte: int) -> None:
    assert values.parse_traffic_class(text) == byte
    assert values.format_traffic_class(byte) == text.upper()


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
    assert values.parse_address(text) == address


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "::1", "fe80::1%eth0", "server", "server.example.org", "a_b.example.", "0x.org"],
)
def test_hosts_are_addresses_or_names(host: str) -> None:
    assert values.parse_host(host) == host


@pytest.mark.parametrize(
    ("parse", "words", "reason"),
    [
        (
            values.parse_rate,
            ["", "mbit", "1mb", "-1", "1e6", "1.mbit", ".5mbit", "1 mbit", "1%", "٣", "1" * 99],
            "is no rate: bytes/s, or a number with kbit, mbit or gbit as in 20mbit",
        ),
        (
            values.parse_rate,
            ["10"],
            "is 10 bytes/s, and must be 0 (no ceiling) or from 64kbit to 8000gbit",
        ),
        (
            values.time_within(BEAT),
            ["", "ms", "1d", "-1s", "1mbit", "nan", "inf"],
            "is no time: seconds, or a number with ms, s, m or h as in 200ms",
        ),
        (values.time_within(BEAT), ["0", "9ms", "11s", "999999999h"], "must be from 10ms to 10s"),
        (
            values.parse_share,
            ["", "%", "1s", "30%%", "-1"],
            "is no percentage: a number from 0 to 100 as in 30%",
        ),
        (values.parse_share, ["101", "100.5%"], "must be from 0% to 100%"),
        (
            values.parse_port,
            ["", "0", "65536", "-1", "1.0", "http", "5" * 5000, "²"],
            "is no port: a number from 1 to 65535",
        ),
        (
            values.parse_address,
            ["", "10.0.0.256", "10.1", "1:2", "server"],
            "is no IPv4 or IPv6 address",
        ),
        (values.parse_address, ["fe80::1%eth0"], "names an interface, which has no place here"),
        (values.parse_host, ["10.0.0.256", "10.1", "1:2"], "is no IPv4 or IPv6 address"),
        (
            values.parse_host,
            ["", "a b", "-a", "a..b", "a/b", "a\n", "x" * 64, "é.fr"],
            "is neither an address nor a name",
        ),
        (
            values.parse_traffic_class,
            ["", "CS8", "AF14", "AF50", "184"],
            "is no traffic class: CS0 to CS7, AF11 to AF43 or EF",
        ),
        (
            values.parse_device,
            ["", ".", "..", "a/b", "a b", "a:b", "x" * 16, "é" * 8, "a\x1b", "\udc80"],
            "is no device name: 1 to 15 bytes without white space, / and :",
        ),
        (values.parse_file, [""], "is no file name"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(
    parse: Callable[[str], object], words: list[str], reason: str
) -> None:
    for word in words:
        with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
            parse(word)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "unlimited"),
        (100, "800 bit/s"),
        (125_000, "1 Mbit/s"),
        (2_500_000, "20 Mbit/s"),
        (124_990, "1 Mbit/s"),
        (154_321, "1.23 Mbit/s"),
        (10**12, "8 Tbit/s"),
    ],
)
def test_rates_are_shown_in_bits(rate: int, text: str) -> None:
    assert values.format_rate(rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0123, "12.3 ms"),
        (0.1, "100 ms"),
        (0.9999, "1 s"),
        (12.34, "12.3 s"),
        (60, "1 min"),
        (902, "15 min 2 s"),
        (3600, "1 h"),
        (7384, "2 h 3 min"),
        (200_000, "2 days 7 h"),
    ],
)
def test_times_are_shown_in_two_units_at_the_most(seconds: float, text: str) -> None:
    assert values.format_time(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2**64, "18.4 EB")]
)
def test_sizes_are_shown_with_a_prefix(size: int, text: str) -> None:
    assert values.format_size(size) == text


def test_a_quoted_word_stays_on_one_short_line() -> None:
    quoted = values.quote("a\nb\x1b" + "x" * 1000)
    assert quoted.startswith("'a\\nb\\x1bx")
    assert len(quoted) < 80


def test_a_key_is_never_quoted() -> None:
    assert values.quote(KEY) == "'(a key)'"
    assert values.quote(f"keyfile={KEY}") == "'keyfile=(a key)'"
    assert values.quote(f"to:{KEY[:31]}!") == "'to:(a key)!'"
