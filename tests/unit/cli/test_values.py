"""What the core measures becomes text that is quickly read."""

import pytest

from glorytun.cli import values
from glorytun.config import parse_share


def test_a_file_needs_a_name() -> None:
    with pytest.raises(ValueError, match=r"^is no file name$"):
        values.parse_file("")


@pytest.mark.parametrize("percent", range(101))
def test_a_percentage_is_shown_as_it_was_given_to_half_a_percent(percent: int) -> None:
    shown = values.format_share(parse_share(str(percent)) / 255)
    assert abs(float(shown.removesuffix(" %")) - percent) < 0.3


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
