"""An invitation drawn in a terminal can be scanned."""

import pytest

from glorytun.errors import SetupError
from glorytun_setup import qr
from tests.unit.setup.scan import scan


@pytest.mark.parametrize("size", [60, 130, 240])
def test_what_is_drawn_can_be_scanned(size: int) -> None:
    line = f"glorytun1-{'Ab9_-' * 50}"[:size]
    qr.check("utf-8")
    assert scan(qr.draw(line)) == [line]


def test_a_terminal_without_squares_is_said() -> None:
    with pytest.raises(SetupError, match="of this terminal, ascii, has no squares for a QR code"):
        qr.check("ascii")
