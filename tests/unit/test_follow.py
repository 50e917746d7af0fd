"""Paths are where the configuration says, on the addresses that interfaces have now."""

import pytest

from glorytun.config import LocalKind, PathConfig
from glorytun.core.address import Endpoint, PathId, format_address, is_v4, pack_address
from glorytun.core.settings import PathSettings, PathState
from glorytun.follow import Owner, wanted_paths

V4, V6 = Endpoint(pack_address("192.0.2.1"), 5000), Endpoint(pack_address("2001:db8::1"), 5000)
ADDRESSES = {
    "wan0": [pack_address("10.0.0.1"), pack_address("10.0.0.2"), pack_address("2001:db8:1::1")],
    "wwan0": [pack_address("10.1.0.1")],
    "wwan1": [],
    "tun0": [pack_address("10.8.0.1")],
}


OTHER = Endpoint(pack_address("198.51.100.1"), 5000)


def peer_of(host: str | None) -> dict[bool, Endpoint]:
    """The server has both families, and another name with IPv4 alone."""
    return {True: V4, False: V6} if host is None else {True: OTHER}


def section(
    local: str, kind: LocalKind, state: PathState = PathState.UP, peer: str | None = None
) -> PathConfig:
    settings = PathSettings(state=state)
    return PathConfig(
        local=local,
        kind=kind,
        peer=peer,
        settings=settings,
        quota=0,
        quota_day=1,
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
    wanted = wanted_paths((section(local, kind),), ADDRESSES, peer_of, own="tun0")
    assert set(wanted) == {PathId(pack_address(text), peer) for text, peer in expected}


def test_families_of_the_peer() -> None:
    """Where the peer has no address of a family, there is no path of it."""
    sections = (section("wan0", LocalKind.INTERFACE),)
    found = wanted_paths(sections, ADDRESSES, lambda _: {True: V4}, own="tun0")
    assert set(found) == {PathId(pack_address("10.0.0.1"), V4)}


def states(*sections: PathConfig) -> dict[str, PathState]:
    """Of each local IPv4 address that is meant."""
    wanted = wanted_paths(sections, ADDRESSES, peer_of, own="tun0")
    return {
        format_address(path.local): found.settings.state
        for path, found in wanted.items()
        if is_v4(path.local)
    }


@pytest.mark.parametrize("backwards", [False, True])
def test_the_most_specific_section_has_it(backwards: bool) -> None:
    """An address before a name before a glob, in whatever order they stand."""
    sections = [
        section("10.0.0.2", LocalKind.ADDRESS, PathState.DOWN),
        section("wwan0", LocalKind.INTERFACE, PathState.BACKUP),
        section("*", LocalKind.GLOB),
    ]
    if backwards:
        sections.reverse()
    assert states(*sections) == {"10.0.0.2": PathState.DOWN, "10.1.0.1": PathState.BACKUP}
    # The other family of wan0 isn't meant by the address.
    wanted = wanted_paths(tuple(sections), ADDRESSES, peer_of, own="tun0")
    v6 = [found for path, found in wanted.items() if not is_v4(path.local)]
    assert [found.owner.local for found in v6] == ["*"]


def test_the_first_of_two_globs_has_it() -> None:
    """Where neither is more specific."""
    first = section("ww*", LocalKind.GLOB, PathState.BACKUP)
    assert states(first, section("w*", LocalKind.GLOB)) == {
        "10.0.0.1": PathState.UP,
        "10.1.0.1": PathState.BACKUP,
    }


def test_two_addresses_of_one_interface() -> None:
    """Whoever names both gets both."""
    both = [section(f"10.0.0.{n}", LocalKind.ADDRESS) for n in (1, 2)]
    assert set(states(*both)) == {"10.0.0.1", "10.0.0.2"}


def test_two_servers_from_one_interface() -> None:
    """Sections that differ in `Peer=` make a path each."""
    sections = (
        section("wan0", LocalKind.INTERFACE),
        section("wan0", LocalKind.INTERFACE, peer="other"),
    )
    wanted = wanted_paths(sections, ADDRESSES, peer_of, own="tun0")
    local = pack_address("10.0.0.1")
    assert {path.remote for path in wanted if path.local == local} == {V4, OTHER}
    owners = {found.owner for found in wanted.values()}
    assert Owner("wan0", True, "wan0", "other") in owners
    assert len(owners) == len(wanted) == 3


def test_never_through_itself() -> None:
    """Not even when its name or address is given."""
    named = (section("tun0", LocalKind.INTERFACE), section("10.8.0.1", LocalKind.ADDRESS))
    assert not wanted_paths(named, ADDRESSES, peer_of, own="tun0")
