"""A line as a QR code in the terminal. The library for that is optional."""

import io

from glorytun.errors import SetupError


def check() -> None:
    """Raises SetupError without the library."""
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
