"""A tunnel one end of which lacks an offload: told so, or since its kernel is older."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from glorytun.net.features import Offload
from tests.netns.refuse import REFUSED
from tests.netns.topology import Lab, direct
from tests.netns.tunnel import Tunnel, Tunnels

_REFUSE = Path(__file__).with_name("refuse.py")


def older(lacking: str) -> type[Tunnel]:
    """A tunnel on a kernel that refuses something."""

    class Older(Tunnel):
        program: Sequence[str] = (sys.executable, str(_REFUSE), lacking, *Tunnel.program)

    return Older


@pytest.mark.parametrize(
    ("lacking", "is_refused"),
    [(one, False) for one in Offload] + [(one, True) for one in Offload if one in REFUSED],
)
def test_one_is_off(lacking: Offload, is_refused: bool) -> None:
    """`show` says which, the others are in use, and all traffic passes both ways."""
    rest = " ".join(one for one in Offload if one is not lacking)
    env = {} if is_refused else {"GLORYTUN_TEST_OFFLOADS": rest}
    kind = older(lacking) if is_refused else Tunnel
    with Lab() as lab, Tunnels() as tunnels:
        pair = tunnels.join(direct(lab), kind, Tunnel, rate=(), client_options={"env": env})
        pair.wait_running()
        pair.wait_mtu(1450)
        # UDP goes with TCP, or not at all: the kernel wants it so.
        off = {lacking, Offload.TUN_UDP} if lacking is Offload.TUN else {lacking}
        used = {
            one: there and one not in off for one, there in pair.server.show()["features"].items()
        }
        assert pair.client.show()["features"] == used
        missing = ", ".join(one for one in Offload if not used[one])
        assert f"without {missing}" in pair.client.command("show")
        for up in (True, False):
            pair.transfer(4, up=up, size=5_000_000)
            pair.transfer(6, up=up, size=5_000_000)
        pair.ping()
        received = pair.server.show()["received"]
        assert received["undelivered"] == 0


def test_refusals_are_those_of_all_offloads() -> None:
    """What is tried is all that a kernel has a say in."""
    assert set(Offload) - set(REFUSED) == {Offload.BARE}
