"""Devices changed and routes asked for through netlink, in one namespace."""

import sys
from collections.abc import Iterator

import pytest

from glorytun.core.address import Endpoint, format_address, pack_address
from glorytun.errors import DeviceError
from glorytun.net import links
from tests.netns.topology import Host, Lab
from tests.netns.wait import wait_for


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


@pytest.mark.parametrize(("before", "after"), [(500, 2000), (499, 499), (5000, 5000)])
def test_queue_is_lengthened_unless_it_was_set(host: Host, before: int, after: int) -> None:
    """The kernel's default is nobody's choice; anything else is."""
    host.ip(f"link set tun0 txqueuelen {before}")
    host.within(lambda: links.lengthen_queue("tun0", 2000))
    found = host.device("tun0")
    assert found
    assert found["txqlen"] == after


def test_queue_of_no_device(host: Host) -> None:
    """It has none, and has dropped nothing: the device may have been deleted by now."""
    host.within(lambda: links.lengthen_queue("tun7", 2000))
    assert host.within(lambda: links.queue_drops("tun7")) == 0


def test_queue_without_permission(host: Host) -> None:
    """It stays as it is, and that is no reason to fail."""
    host.ip("link set tun0 txqueuelen 500")
    code = "from glorytun.net import links; links.lengthen_queue('tun0', 2000)"
    host.run("setpriv", "--bounding-set", "-net_admin", sys.executable, "-c", code)
    found = host.device("tun0")
    assert found
    assert found["txqlen"] == 500


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


def test_source_address_of_an_interface(host: Host) -> None:
    """What the kernel would choose there, not by the best route of all."""
    host.ip("addr add 10.9.2.1/24 dev tun0", "link set tun0 up")
    near = Endpoint(pack_address("10.9.1.2"), 5000)

    def source(interface: str) -> bytes | None:
        return host.within(lambda: links.source_address(near, interface=interface))

    assert source("link1") == pack_address("10.9.1.1")
    # Without a route, it takes the peer for a neighbour.
    assert source("tun0") == pack_address("10.9.2.1")
    assert source("eth9") is None
    host.ip("addr del 10.9.2.1/24 dev tun0")


def test_addresses_that_can_be_used() -> None:
    """Global ones, of interfaces that are up and have a carrier; IPv4 first."""
    with Lab() as lab:
        host, peer = lab.host("client"), lab.host("server")
        lab.link(host, peer, 1)
        host.ip(
            "addr add 2001:db8::1/64 dev link1 nodad",
            "addr add 2001:db8::2/64 dev link1 nodad preferred_lft 0",
            "addr add 10.0.0.1/24 dev link1",
            "addr add fe80::77/64 dev link1 nodad",
        )

        def found() -> list[str]:
            addresses = host.within(links.local_addresses)
            return [format_address(address) for address in addresses.get("link1", [])]

        usable = ["10.9.1.1", "10.0.0.1", "2001:db8::1"]
        known = [text for text in found() if not text.startswith("fd09:")]
        assert known == usable
        assert "lo" not in host.within(links.local_addresses)
        peer.ip("link set link1 down")
        wait_for(lambda: not found(), timeout=5, what="the carrier to be gone")
        peer.ip("link set link1 up")
        wait_for(found, timeout=5, what="the carrier to be back")
        host.ip("link set link1 down")
        assert not found()
