"""Paths are where the configuration says, on the addresses that interfaces have now."""

import pytest

from glorytun.config import LocalKind, PathConfig, PathMode
from glorytun.core.address import Endpoint, PathId, pack_address
from glorytun.core.settings import PathSettings, PathState
from glorytun.follow import wanted_paths

V4, V6 = Endpoint(pack_address("192.0.2.1"), 5000), Endpoint(pack_address("2001:db8::1"), 5000)
ADDRESSES = {
    "wan0": [pack_address("10.0.0.1"), pack_address("10.0.0.2"), pack_address("2001:db8:1::1")],
    "wwan0": [pack_address("10.1.0.1")],
    "wwan1": [],
    "tun0": [pack_address("10.8.0.1")],
}


def section(local: str, kind: LocalKind, state: PathState = PathState.UP) -> PathConfig:
    settings = PathSettings(state=state)
    return PathConfig(
        local=local,
        kind=kind,
        peer=None,
        settings=settings,
        preference=0,
        mode=PathMode.BULK,
        cost=0,
        quota=0,
    )


@pytest.mark.parametrize(
    ("local", "kind", "expected"),
    [
        ("wan0", LocalKind.INTERFACE, [("10.0.0.1", V4), ("2001:db8:1::1", V6)]),
        ("wwan*", LocalKind.GLOB, [("10.1.0.1", V4)]),
        ("*", LocalKind.GLOB, [("10.0.0.1", V4), ("2001:db8:1::1", V6), ("10.1.0.1", V4)]),
        ("10.0.0.2", LocalKind.ADDRESS, [("10.0.0.2", V4)]),
        ("10.9.9.9", LocalKind.ADDRESS, []),
        ("eth7", LocalKind.INTERFACE, []),
    ],
)
def test_paths_of_a_section(
    local: str, kind: LocalKind, expected: list[tuple[str, Endpoint]]
) -> None:
    """One path of each family for an interface, none for the tunnel itself or what isn't there."""
    wanted = wanted_paths((section(local, kind),), ADDRESSES, {True: V4, False: V6}, own="tun0")
    assert set(wanted) == {PathId(pack_address(text), peer) for text, peer in expected}


def test_families_of_the_peer() -> None:
    """Where the peer has no address of a family, there is no path of it."""
    found = wanted_paths((section("wan0", LocalKind.INTERFACE),), ADDRESSES, {True: V4}, own="tun0")
    assert set(found) == {PathId(pack_address("10.0.0.1"), V4)}


def test_first_section_has_it() -> None:
    """An interface that two sections mean has the settings of the first."""
    sections = (
        section("wan0", LocalKind.INTERFACE, PathState.BACKUP),
        section("*", LocalKind.GLOB),
    )
    wanted = wanted_paths(sections, ADDRESSES, {True: V4}, own="tun0")
    states = {path.local: settings.state for path, settings in wanted.items()}
    assert states[pack_address("10.0.0.1")] == PathState.BACKUP
    assert states[pack_address("10.1.0.1")] == PathState.UP
