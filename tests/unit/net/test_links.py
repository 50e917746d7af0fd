"""Source addresses and the messages of device changes."""

import errno
import subprocess
import sys

from glorytun.core.address import Endpoint, pack_address
from glorytun.net import links


def test_source_address() -> None:
    """Towards an address of this host it is that address."""
    local = pack_address("127.0.0.1")
    assert links.source_address(Endpoint(local, 5000)) == local
    assert links.source_address(Endpoint(local, 0)) == local


def test_no_source_address() -> None:
    """Where the kernel has no route: 240.0.0.0/4 is reserved, RFC 1112."""
    assert links.source_address(Endpoint(pack_address("255.255.255.255"), 5000)) is None


def test_messages() -> None:
    """Permission has a next step."""
    assert str(links._failed("tun0 can't be switched on", errno.EPERM)) == (
        "tun0 can't be switched on: Operation not permitted (run as root, or with CAP_NET_ADMIN)"
    )
    assert str(links._failed("the MTU of tun0 can't be set to 1", errno.EINVAL)) == (
        "the MTU of tun0 can't be set to 1: Invalid argument"
    )


def test_netlink_is_imported_late() -> None:
    """It takes a hundred times longer than all else here."""
    code = "import sys, glorytun.net.links; sys.exit('pyroute2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
