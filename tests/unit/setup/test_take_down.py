"""What is put back when a tunnel goes."""

from glorytun_setup.manifest import Host
from glorytun_setup.take_down import _set_by_others

MINE = "/etc/sysctl.d/90-mine.conf"
HOST = Host(
    sysctls={
        "net/ipv4/ip_forward": "0",
        "net/ipv4/conf/eth0/forwarding": "0",
        "net/ipv4/conf/all/accept_redirects": "1",
        "net/ipv4/conf/eth0/rp_filter": "1",
        "net/ipv6/conf/all/forwarding": "0",
        "net/ipv6/conf/eth0/forwarding": "0",
    }
)


def test_forwarding_of_others_stays_with_what_comes_along() -> None:
    """Of each interface, or nothing would be forwarded; the other family's doesn't."""
    kept = _set_by_others(HOST, {"net/ipv4/ip_forward": ("1", MINE)})
    assert kept == {
        "net/ipv4/ip_forward": MINE,
        "net/ipv4/conf/eth0/forwarding": "",
        "net/ipv4/conf/all/accept_redirects": "",
    }


def test_what_others_want_as_it_was_is_put_back() -> None:
    elsewhere = {"net/ipv4/ip_forward": ("0", MINE), "net/ipv4/conf/eth1/rp_filter": ("2", MINE)}
    assert not _set_by_others(HOST, elsewhere)


def test_a_setting_by_itself() -> None:
    kept = _set_by_others(HOST, {"net/ipv4/conf/eth0/rp_filter": ("2", MINE)})
    assert kept == {"net/ipv4/conf/eth0/rp_filter": MINE}
