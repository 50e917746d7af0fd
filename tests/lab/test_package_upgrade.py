"""The package is upgraded, downgraded and installed again while the tunnel carries a transfer."""

from collections.abc import Iterator

import pytest

import glorytun
from tests.lab import package
from tests.lab.conftest import clean_suites
from tests.lab.packaged import OLDER, OlderSystem, apt, tree
from tests.lab.tunnel import UNIT, Pair, booted
from tests.netns.wait import wait_for

STOPPED_UNIT = "glorytun@tun1.service"
"""Enabled, and stopped by somebody."""


@pytest.fixture(scope="module", params=clean_suites())
def older(request: pytest.FixtureRequest) -> Iterator[OlderSystem]:
    system = OlderSystem(str(request.param))
    yield system
    system.remove()


@pytest.fixture
def tunnel(older: OlderSystem) -> Iterator[Pair]:
    """Both ends run the older version."""
    with booted(older) as pair:
        pair.start()
        yield pair


def test_a_transfer_goes_on(older: OlderSystem, tunnel: Pair) -> None:
    """Over an upgrade of each end, the same version again, and the way back.

    What is installed depends on the version alone, and not on the way to it.
    """
    client = tunnel.client
    before = client.device()["ifindex"]
    newest, oldest = glorytun.__version__, package.upstream(OLDER)
    files = {(end.role, oldest): tree(end) for end in tunnel.ends}
    with tunnel.flow() as flow:
        for version, words in [
            (newest, ("install", older.deb)),
            (newest, ("install", "--reinstall", older.deb)),
            (oldest, ("install", "--allow-downgrades", older.older_deb)),
            (newest, ("install", older.deb)),
        ]:
            for end in tunnel.ends:
                pid = end.main_pid
                said = apt(end, *words)
                assert "Traceback" not in said
                assert end.run("glorytun", "version").stdout.strip() == version
                assert end.main_pid not in (0, pid), "it still runs the version before"
                flow.go_on()
                now = tree(end)
                assert now ^ files.setdefault((end.role, version), now) == set()
            tunnel.wait_running(2)
    assert client.device()["ifindex"] == before
    for end in tunnel.ends:
        assert not end.systemctl("list-units", "--failed", "--no-legend")


def test_what_does_not_run_is_not_started(older: OlderSystem, tunnel: Pair) -> None:
    server = tunnel.server
    server.write("/etc/glorytun/tun1.conf", "[Tunnel]\nPort=5001\n")
    server.write("/etc/glorytun/tun1.key", f"{'42' * 32}\n", 0o600)
    server.systemctl("enable", "--now", STOPPED_UNIT)
    server.systemctl("stop", STOPPED_UNIT)
    apt(server, "install", older.deb)
    assert server.shown("ActiveState", STOPPED_UNIT) == "inactive"
    assert server.shown("ActiveState") == "active"


def test_removal_tells_the_peer(tunnel: Pair) -> None:
    """As a stop does: it runs to its end before its files go."""
    apt(tunnel.server, "remove", "glorytun")
    wait_for(
        lambda: "the peer stopped" in tunnel.client.journal(), timeout=5, what="the peer to say so"
    )
    assert tunnel.server.run("systemctl", "is-active", UNIT, check=False).returncode != 0
    assert "Traceback" not in tunnel.server.journal()
