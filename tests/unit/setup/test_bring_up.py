"""What becomes of a tunnel that doesn't work."""

from pathlib import Path
from typing import cast

import pytest

from glorytun.errors import SetupError
from glorytun_setup import bring_up
from glorytun_setup.bus import Bus
from glorytun_setup.manifest import Journal, Purpose
from glorytun_setup.means import Means
from glorytun_setup.screen import Screen
from glorytun_setup.terminal import Watch
from tests.unit.setup.samples import client_plan


def test_it_is_undone_whatever_keeps_us_from_telling_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the bus, which has no answer to anything."""
    undone: list[Journal] = []

    def undo(journal: Journal, means: Means) -> list[str]:
        undone.append(journal)
        return []

    monkeypatch.setattr(bring_up, "undo", undo)
    bus = cast(Bus, None)
    means = Means(root=tmp_path, bus=bus, progress=Screen(), watch=Watch())
    journal = Journal(name="tun0", purpose=Purpose.SET_UP)
    error = SetupError("no answer", hint="look there")
    failure = bring_up._give_up(error, client_plan(), journal, means, 0.0)
    assert undone == [journal]
    assert str(failure) == "no answer (look there)"
    assert failure.findings == ()
