"""Devices changed and routes asked for through netlink, in one namespace."""

import sys
from collections.abc import Iterator

import pytest

from glorytun.core.address import Endpoint, pack_address
from glorytun.errors import DeviceError
from glorytun.net import links
from tests.netns.topology import Host, Lab


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Lab() as lab:
        made = lab.host("links")
        lab.link(made, lab.host("peer"), 1)
        made.ip("tuntap add dev tun0 mode tun")
        yield made


@pytest.mark.parametrize("mtu", [1400, 576, 9000])
def test_mtu(host: Host, mtu: int) -> None:
    """Any size a TUN can have."""
    host.within(lambda: links.set_mtu("tun0", mtu))
    assert host.mtu("tun0") == mtu


def test_up(host: Host) -> None:
    """Switching on what is on already does no harm."""
    for _ in range(2):
        host.within(lambda: links.set_up("tun0"))
        found = host.device("tun0")
        assert found
        assert "UP" in str(found["flags"])


def test_no_such_device(host: Host) -> None:
    """The message says what could not be done."""
    with pytest.raises(DeviceError) as caught:
        host.within(lambda: links.set_mtu("tun7", 1400))
    assert str(caught.value) == (
        "the MTU of tun7 can't be set to 1400: there is no such device (was it deleted?)"
    )


def test_impossible_mtu(host: Host) -> None:
    """The kernel's reason is passed on."""
    with pytest.raises(DeviceError) as caught:
        host.within(lambda: links.set_mtu("tun0", 70_000))
    assert str(caught.value) == "the MTU of tun0 can't be set to 70000: Invalid argument"


def test_no_permission(host: Host) -> None:
    """A process without CAP_NET_ADMIN is told what it lacks."""
    code = (
        "from glorytun.errors import DeviceError\n"
        "from glorytun.net import links\n"
        "try:\n"
        "    links.set_up('tun0')\n"
        "except DeviceError as error:\n"
        "    print(error)\n"
    )
    said = host.run("setpriv", "--bounding-set", "-net_admin", sys.executable, "-c", code).stdout
    assert said.strip() == (
        "tun0 can't be switched on: Operation not permitted (run as root, or with CAP_NET_ADMIN)"
    )


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("10.9.1.2", "10.9.1.1"),
        ("fd09:1::2", "fd09:1::1"),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
    ],
)
def test_source_address(host: Host, remote: str, expected: str | None) -> None:
    """The address on the link that the route takes; none without a route."""
    endpoint = Endpoint(pack_address(remote), 5000)
    found = host.within(lambda: links.source_address(endpoint))
    assert found == (pack_address(expected) if expected else None)
