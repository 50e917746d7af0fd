"""Network devices and routes, as the kernel's netlink has them.

pyroute2 takes about 0.1 s and 22 MB to import, so that it is imported where it is first needed.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from glorytun.core.address import Endpoint, format_address, is_v4, pack_address
from glorytun.errors import DeviceError

# linux/if.h, linux/if_addr.h, linux/rtnetlink.h
_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_IFF_RUNNING = 0x40
"""RFC 2863 OPER_UP: it has a carrier, and has authenticated where that takes time."""
_IFA_F_DEPRECATED = 0x20
_IFA_F_TENTATIVE = 0x40
_RT_SCOPE_UNIVERSE = 0
_SIOCGIFFLAGS = 0x8913
_SIOCGIFTXQLEN, _SIOCSIFTXQLEN = 0x8942, 0x8943
_IFREQ = struct.Struct("16sH22x")
_IFREQ_NUMBER = struct.Struct("16si20x")
_QUEUE_DEFAULT = 500
"""TUN_READQ_SIZE in drivers/net/tun.c."""
_DEVICES = Path("/proc/thread-self/net/dev")
"""Of the network namespace, which sysfs may have been mounted for another one than ours."""
_TX_DROPPED = 11
"""Its place among a device's numbers there: dev_seq_printf_stats()."""
_DUMPS = 5
"""How often to begin anew where addresses change while they are read."""
_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100


def set_mtu(device: str, mtu: int) -> None:
    """Set the largest packet a device takes, bytes. Raises DeviceError."""
    _change(device, f"the MTU of {device} can't be set to {mtu}", mtu=mtu)


def set_up(device: str) -> None:
    """Switch a device on. Raises DeviceError."""
    _change(device, f"{device} can't be switched on", state="up")


def lengthen_queue(device: str, length: int) -> None:
    """Let so many packets wait in a TUN device, unless somebody chose other than the default.

    Without the right to do so it stays as it is, which only bursts notice.
    """
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        request = _IFREQ_NUMBER.pack(os.fsencode(device), 0)
        found = _IFREQ_NUMBER.unpack(fcntl.ioctl(asked, _SIOCGIFTXQLEN, request))[1]
        if found == _QUEUE_DEFAULT:
            fcntl.ioctl(asked, _SIOCSIFTXQLEN, _IFREQ_NUMBER.pack(os.fsencode(device), length))


def queue_drops(device: str) -> int:
    """Packets that a device had no room for since it was made; 0 if there is no such device."""
    for line in _DEVICES.read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == device:
            return int(numbers.split()[_TX_DROPPED])
    return 0


def source_address(remote: Endpoint, *, interface: str = "") -> bytes | None:
    """The local address (16 bytes) the kernel would send from towards `remote`, or None.

    With an interface, the one it would choose there.
    """
    v4 = is_v4(remote.address)
    # Connecting a UDP socket looks up the route and sends nothing.
    where = (remote.port or 9,) if v4 else (remote.port or 9, 0, remote.scope)
    with socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            if interface:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(interface))
            probe.connect((format_address(remote.address), *where))
        except OSError:
            return None
        return pack_address(str(probe.getsockname()[0]))


def local_addresses() -> dict[str, list[bytes]]:
    """The usable addresses of each interface that is up and has a carrier.

    16 bytes each, IPv4 first, then in the kernel's order. Left out are loopback, link-local
    addresses, and those that are tentative or deprecated. Raises DeviceError.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    names = {index: name for index, name, flags in _interfaces() if not _why_away(flags)}
    for _ in range(_DUMPS):
        try:
            with IPRoute() as route:
                return _usable_addresses(names, route.get_addr())
        except (NetlinkError, OSError) as error:  # "Dump interrupted", as something changed
            failure = error
    raise DeviceError(f"the addresses of this host can't be read: {failure}") from failure


def _usable_addresses(names: dict[int, str], messages: Iterable[Any]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {name: [] for name in names.values()}
    for message in messages:
        # Of a point-to-point link, IFA_ADDRESS is the other end (linux/if_addr.h).
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        unusable = _address_flags(message) & (_IFA_F_TENTATIVE | _IFA_F_DEPRECATED)
        name = names.get(message["index"])
        if name is not None and message["scope"] == _RT_SCOPE_UNIVERSE and not unusable:
            found[name].append(pack_address(str(text)))
    return {name: sorted(addresses, key=is_v4, reverse=True) for name, addresses in found.items()}


def _address_flags(message: Any) -> int:
    """All 32 of them; the header has 8 (linux/if_addr.h)."""
    flags = message.get_attr("IFA_FLAGS")
    return int(message["flags"] if flags is None else flags)


def interfaces_away() -> dict[str, str]:
    """Each interface that `local_addresses` leaves out, and why."""
    return {name: why for _, name, flags in _interfaces() if (why := _why_away(flags))}


def _interfaces() -> Iterator[tuple[int, str, int]]:
    """Index, name and flags of each.

    By ioctl (netdevice(7)): pyroute2 decodes all there is to know of each, half a millisecond's
    work, while traffic waits.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for index, name in socket.if_nameindex():
            with suppress(OSError):  # It is gone since.
                answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, _IFREQ.pack(os.fsencode(name), 0))
                yield index, name, _IFREQ.unpack(answer)[1]


def _why_away(flags: int) -> str:
    """Why no path can lead over an interface; empty when one can."""
    if flags & _IFF_LOOPBACK:
        return "it leads nowhere but to this host"
    if not flags & _IFF_UP:
        return "it is down"
    return "" if flags & _IFF_RUNNING else "it has no carrier"


def interface_index(name: str) -> int:
    """Of an interface; 0 when it is gone."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def interface_name(index: int) -> str:
    """The name that an interface has now; empty when it is gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


class LinkEvents:
    """Readable whenever an interface or an address of this host changed (rtnetlink(7))."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        """Forget what was said: whoever wants to know looks at `local_addresses`."""
        while True:
            try:
                self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                continue  # ENOBUFS: some were lost, which is as good as one that came.

    def close(self) -> None:
        self._socket.close()


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
