"""Network devices and routes, as the kernel's netlink has them.

pyroute2 takes about 0.1 s and 22 MB to import, so that it is imported where it is first needed.
"""

import errno
import os
import socket

from glorytun.core.address import Endpoint, format_address, is_v4, pack_address
from glorytun.errors import DeviceError


def set_mtu(device: str, mtu: int) -> None:
    """Set the largest packet a device takes, bytes. Raises DeviceError."""
    _change(device, f"the MTU of {device} can't be set to {mtu}", mtu=mtu)


def set_up(device: str) -> None:
    """Switch a device on. Raises DeviceError."""
    _change(device, f"{device} can't be switched on", state="up")


def source_address(remote: Endpoint) -> bytes | None:
    """The local address (16 bytes) the kernel would send from towards `remote`, or None."""
    v4 = is_v4(remote.address)
    # Connecting a UDP socket looks up the route and sends nothing.
    where = (remote.port or 9,) if v4 else (remote.port or 9, 0, remote.scope)
    with socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((format_address(remote.address), *where))
        except OSError:
            return None
        return pack_address(str(probe.getsockname()[0]))


def _change(device: str, failure: str, **attributes: int | str) -> None:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as route:
            found = route.link_lookup(ifname=device)
            if not found:
                raise DeviceError(f"{failure}: there is no such device", hint="was it deleted?")
            route.link("set", index=found[0], **attributes)
    except NetlinkError as error:
        raise _failed(failure, error.code) from error
    except OSError as error:
        raise _failed(failure, error.errno or 0) from error


def _failed(failure: str, number: int) -> DeviceError:
    denied = number in {errno.EPERM, errno.EACCES}
    hint = "run as root, or with CAP_NET_ADMIN" if denied else ""
    return DeviceError(f"{failure}: {os.strerror(number)}", hint=hint)
