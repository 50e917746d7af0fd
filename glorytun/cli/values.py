"""Values as commands show them: rates, sizes, shares and times, rounded for the eye."""


def parse_file(text: str) -> str:
    """The path of a file."""
    if not text:
        raise ValueError("is no file name")
    return text


def looks_like_address(word: str) -> bool:
    """Whether a word can only be meant as an address, right or wrong."""
    return "/" not in word and ("." in word or ":" in word)


def format_rate(rate: int) -> str:
    """bytes/s in bit/s; 0 is no limit."""
    return f"{_prefixed(rate * 8)}bit/s" if rate else "unlimited"


def format_size(size: int) -> str:
    """Bytes."""
    return f"{_prefixed(size)}B"


def format_share(share: float) -> str:
    """A share from 0 to 1."""
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def format_time(seconds: float) -> str:
    """How long something takes or lies back, two units at the most."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds_left = divmod(round(seconds), 60)
    if minutes < 60:
        return _two(minutes, "min", seconds_left, "s")
    hours, minutes_left = divmod(minutes, 60)
    if hours < 48:
        return _two(hours, "h", minutes_left, "min")
    return _two(hours // 24, "days", hours % 24, "h")


def _prefixed(number: int) -> str:
    """Three digits and an SI prefix, ready for the unit to follow."""
    if number < 1000:
        return f"{number} "
    value = number / 1000
    prefixes = iter("kMGTPE")
    prefix = next(prefixes)
    while value >= 999.5:
        value /= 1000
        prefix = next(prefixes)
    return f"{value:.3g} {prefix}"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit}" + (f" {small} {small_unit}" if small else "")
