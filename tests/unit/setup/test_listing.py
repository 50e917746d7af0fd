"""What `list` and `show` tell."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from glorytun.errors import SetupError
from glorytun_setup import apply, listing
from glorytun_setup.manifest import Journal, Manifest, Purpose
from glorytun_setup.session import Session


def session(root: Path, shown: list[str]) -> Session:
    """Of a host without a tunnel."""

    def manifest(name: str) -> Manifest:
        raise SetupError("there is no tunnel")

    found: Any = SimpleNamespace(
        means=SimpleNamespace(root=root),
        manifests={},
        manifest=manifest,
        screen=SimpleNamespace(show=shown.append),
    )
    return cast(Session, found)


def test_an_interrupted_change_is_told(tmp_path: Path) -> None:
    """Also of a tunnel that isn't there yet."""
    shown: list[str] = []
    listing.list_tunnels(session(tmp_path, shown))
    assert "interrupted" not in "".join(shown)
    (tmp_path / "var/lib").mkdir(parents=True)
    apply.write_journal(tmp_path, Journal(name="tun0", purpose=Purpose.SET_UP))
    listing.list_tunnels(session(tmp_path, shown))
    assert "tun0 is being changed, or a change of it was interrupted" in "".join(shown)
    shown.clear()
    with pytest.raises(SetupError):
        listing.show_tunnel(session(tmp_path, shown), "tun0")
    assert "interrupted" in "".join(shown)
