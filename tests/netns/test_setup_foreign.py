"""Rules, addresses and routes of others are remembered and put back, in a real kernel."""

from dataclasses import replace
from threading import Timer

import pytest

from glorytun_setup import foreign
from glorytun_setup.manifest import Host
from tests.netns import topology
from tests.netns.topology import Lab

_MAKE = """link add a0 up type veth peer name b0
link set b0 up
address add 10.1.0.1/24 dev a0
address add 10.1.0.2/24 dev a0 label a0:x
address add fd01::2/64 dev a0 nodad preferred_lft 0
route add 203.0.113.0/24 via 10.1.0.9 dev a0 metric 7
route add 203.0.114.0/24 via 10.7.0.9 dev a0 onlink table 77
route add unreachable 203.0.115.0/24
route add 203.0.116.0/24 nexthop via 10.1.0.9 dev a0 nexthop via 10.1.0.8 dev a0
-6 route add 2001:db8:1::/48 via fd01::9 dev a0
-6 route add prohibit 2001:db8:2::/48
rule add from 198.51.100.7 table 500 priority 300
rule add not fwmark 0x80/0xff table 52 priority 301
rule add table main suppress_prefixlength 0 priority 302
-6 rule add from 2001:db8:77::/64 fwmark 1 table 500 priority 303"""
_TAKE = """address flush dev a0 scope global
route flush type unreachable
-6 route flush type prohibit
rule flush protocol boot
-6 rule flush protocol boot"""
_NOT_OURS = """address add 10.1.0.50/24 dev a0
route add 203.0.120.0/24 dev a0 protocol static
route add 203.0.121.0/24 dev b0
rule add from 198.51.100.8 table 500 priority 400 protocol static"""
"""networkd's own, and what is on a link that it leaves alone."""
ADDRESSES = {"a0": {"10.1.0.1", "10.1.0.2", "fd01::2"}}


def listed(host: topology.Host) -> list[str]:
    """All that there is, in the order of its text."""
    kinds = ("-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all")
    lines = [line for kind in kinds for line in host.run("ip", *kind.split()).stdout.splitlines()]
    addresses = host.run("ip", "-o", "address", "show", "dev", "a0", "scope", "global").stdout
    # The kernel counts on which of them came first.
    return sorted(line.replace("secondary ", "") for line in [*lines, *addresses.splitlines()])


@pytest.fixture
def host(lab: Lab) -> topology.Host:
    """With two interfaces, and what somebody set up on the first."""
    host = lab.host("host")
    for command in _MAKE.splitlines():
        host.run("ip", *command.split())
    return host


def remembered(host: topology.Host) -> Host:
    """As it is now."""
    found = host.within(lambda: foreign.remember(ADDRESSES))
    return Host(foreign=found, boot=foreign.boot())


def test_what_was_taken_away_comes_back_as_it_was(host: topology.Host) -> None:
    before, saved = listed(host), remembered(host)
    for command in _TAKE.splitlines():
        host.run("ip", *command.split())
    assert len(listed(host)) < len(before) - 10
    host.within(lambda: foreign.put_back(saved))
    assert listed(host) == before


def test_the_second_address_of_a_network_stays_the_second(host: topology.Host) -> None:
    """Though the first one, networkd's own, comes some time after the look for what is missing."""
    before, saved = shown(host), remembered_without(host, "10.1.0.1")
    host.run("ip", "address", "flush", "dev", "a0", "scope", "global")
    networkd = Timer(1.5, host.run, ("ip", "address", "add", "10.1.0.1/24", "dev", "a0"))
    networkd.start()
    host.within(lambda: foreign.put_back(saved))
    networkd.join()
    assert shown(host) == before


def test_a_second_address_does_not_wait_for_ever(host: topology.Host) -> None:
    """The first may have gone for good."""
    saved = remembered_without(host, "10.1.0.1")
    host.run("ip", "address", "flush", "dev", "a0", "scope", "global")
    host.within(lambda: foreign.put_back(saved))
    assert [line.split()[3] for line in shown(host)] == ["10.1.0.2/24"]


def shown(host: topology.Host) -> list[str]:
    """IPv4 addresses, in the kernel's order."""
    return host.run("ip", "-4", "-o", "address", "show", "dev", "a0").stdout.splitlines()


def remembered_without(host: topology.Host, own: str) -> Host:
    """As it is now, with one address networkd's own."""
    addresses = {"a0": ADDRESSES["a0"] - {own}}
    found = host.within(lambda: foreign.remember(addresses))
    return Host(foreign=found, boot=foreign.boot())


def test_what_is_there_stays(host: topology.Host) -> None:
    before, saved = listed(host), remembered(host)
    host.within(lambda: foreign.put_back(saved))
    assert listed(host) == before


def test_what_networkd_sets_up_itself_is_not_remembered(host: topology.Host) -> None:
    saved = remembered(host)
    for command in _NOT_OURS.splitlines():
        host.run("ip", *command.split())
    assert remembered(host) == saved


def test_an_interface_that_is_gone_is_no_mistake(host: topology.Host) -> None:
    host.run("ip", "route", "delete", "203.0.116.0/24")
    saved = remembered(host)
    host.run("ip", "link", "delete", "a0")
    host.within(lambda: foreign.put_back(saved))
    assert "10.1.0.1" not in "".join(listed_addresses(host))


def listed_addresses(host: topology.Host) -> list[str]:
    """Of all interfaces."""
    return host.run("ip", "-o", "address").stdout.splitlines()


def test_another_boot_has_nothing_to_be_put_back(host: topology.Host) -> None:
    saved = replace(remembered(host), boot="another")
    for command in _TAKE.splitlines():
        host.run("ip", *command.split())
    between = listed(host)
    host.within(lambda: foreign.put_back(saved))
    assert listed(host) == between
