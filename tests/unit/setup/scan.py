"""A QR code read from a terminal, by somebody else's reader."""

import zxingcpp

_SIZE = 4
"""Dots on a side of a square."""
_LIGHT = ("\N{FULL BLOCK}\N{UPPER HALF BLOCK}", "\N{FULL BLOCK}\N{LOWER HALF BLOCK}")
"""The characters whose upper half is light, and those whose lower half is."""


def scan(shown: str) -> list[str]:
    """The text of each code among these lines."""
    drawn = [line for line in shown.splitlines() if line and set(line) <= {" ", *"".join(_LIGHT)}]
    dots = [
        b"".join((b"\xff" if square in light else b"\0") * _SIZE for square in line)
        for line in drawn
        for light in _LIGHT
        for _ in range(_SIZE)
    ]
    picture = memoryview(b"".join(dots)).cast("B", (len(dots), len(dots[0])))
    return [str(code.text) for code in zxingcpp.read_barcodes(picture)]
