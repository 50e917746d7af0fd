"""Routes that the paths of a tunnel need, as the kernel has them."""

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from glorytun.core.address import Endpoint, PathId, format_address, is_v4
from glorytun.net.links import interface_index, source_address

_RTM_F_FIB_MATCH = 0x2000
"""linux/rtnetlink.h: show the route itself, or that there is none."""
_STRICT = 1
"""rp_filter, ip-sysctl."""


def has_route(path: PathId, interface: str, *, mark: int = 0) -> bool:
    """Whether there is a route for datagrams of a path that leave by one interface.

    Without one they leave nevertheless, and in vain: the kernel then takes every IPv4 address for
    a neighbour's (ip_route_output_key_hash_rcu()).
    """
    index = interface_index(interface)
    if not index:
        return False
    if is_v4(path.local):
        flags = _RTM_F_FIB_MATCH
        return _route(path.remote, path.local, oif=index, mark=mark, flags=flags) is not None
    # As `UdpSocket.set_interfaces` has it: without a source where the kernel would choose ours.
    chosen = source_address(path.remote, interface=interface) == path.local
    source = None if chosen else path.local
    return _leads_over(_route(path.remote, source, oif=index, mark=mark), index)


def drops_answers(path: PathId, interface: str) -> bool:
    """Whether the kernel drops what comes from a path's peer by an interface, for its source.

    A strict rp_filter takes only what comes where an answer would leave (fib_validate_source()).
    """
    if not is_v4(path.local) or _rp_filter(interface) != _STRICT:
        return False
    return not _leads_over(_route(path.remote, path.local), interface_index(interface))


def _route(
    remote: Endpoint, source: bytes | None, *, oif: int = 0, mark: int = 0, flags: int = 0
) -> Any:
    """The route to an address, None without."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    query = {
        "family": socket.AF_INET if is_v4(remote.address) else socket.AF_INET6,
        "dst": format_address(remote.address),
        "src": format_address(source) if source else None,
        "oif": oif,
        "mark": mark,
        "flags": flags,
    }
    given = {key: value for key, value in query.items() if value}
    with suppress(NetlinkError, OSError), IPRoute() as route:
        return next(iter(route.route("get", **given)), None)
    return None


def _leads_over(route: Any, index: int) -> bool:
    return route is not None and route.get_attr("RTA_OIF") == index


def _rp_filter(interface: str) -> int:
    """The stricter of two settings counts (IN_DEV_MAXCONF, linux/inetdevice.h)."""
    values = [0]
    for name in ("all", interface):
        with suppress(OSError):
            path = Path("/proc/sys/net/ipv4/conf", name, "rp_filter")
            values.append(int(path.read_text()))
    return max(values)
