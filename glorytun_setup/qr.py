"""A line as a QR code in the terminal. The library for that is optional."""

import io

from glorytun.errors import SetupError

_SQUARES = "\N{FULL BLOCK}\N{UPPER HALF BLOCK}\N{LOWER HALF BLOCK}"


def check(encoding: str) -> None:
    """Raises SetupError without the library, or where an encoding can't show what is drawn."""
    try:
        _SQUARES.encode(encoding)
    except UnicodeEncodeError:
        raise SetupError(
            f"the encoding of this terminal, {encoding}, has no squares for a QR code",
            hint="`LC_ALL=C.UTF-8 glorytun-setup …` draws it, on a terminal that can",
        ) from None
    try:
        import segno  # noqa: F401  whether it is there
    except ImportError:
        raise SetupError(
            "to draw a QR code takes segno, which isn't installed",
            hint="`apt install python3-segno`, or `pip install segno`",
        ) from None


def draw(line: str) -> str:
    """Two rows of squares in each row of characters, as `check` has found possible."""
    import segno

    drawn = io.StringIO()
    segno.make_qr(line, error="l").terminal(drawn, compact=True)
    return drawn.getvalue().rstrip("\n")
