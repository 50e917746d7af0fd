"""What others set up beside networkd, by hand or by programs of their own.

A networkd that configures a link takes away the rules, addresses and routes that it doesn't know
(networkd.conf(5), ManageForeignRoutes=). So these are remembered before it is told anything, and
put back as they were, as messages of netlink: ``ip rule save`` and ``restore`` do the same. These
aren't decoded, so that nothing of them is lost that a library doesn't know.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from glorytun.errors import SetupError
from glorytun_setup.manifest import Host
from glorytun_setup.waiting import now, sleep

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/fib_rules.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_NEWADDR, _NEWROUTE, _NEWRULE = 20, 24, 32
_GET = 2
"""From RTM_NEW… to RTM_GET…."""
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_FIXED = {_NEWADDR: 8, _NEWROUTE: 12, _NEWRULE: 12}
"""Bytes of ifaddrmsg, rtmsg, fib_rule_hdr."""
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_SECONDARY, _IFA_F_PERMANENT = 0x01, 0x80
_RT_SCOPE_LINK = 253
_RTA_OIF, _RTA_CACHEINFO, _RTA_TABLE, _RTA_NH_ID = 4, 12, 15, 30
_RTM_F_CLONED, _RTNH_F_ONLINK = 0x200, 0x4
_FRA_PROTOCOL = 21
_FIB_RULE_SET = 0x10003
"""Of a rule's flags those that are given: FIND_SADDR, INVERT, PERMANENT."""
_BY_KERNEL, _BY_NETWORKD = 2, 4
"""RTPROT_KERNEL; RTPROT_STATIC, which is what networkd's files make."""
_BY_HAND = (0, 3, 18)
"""RTPROT_UNSPEC, RTPROT_BOOT (ip-route(8)), keepalived; routing daemons look after theirs."""
_LOCAL_TABLE = 255
_REJECTING = (6, 7, 8, 9)
"""RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW."""

_SETTLING = 1.0
"""Seconds in which networkd begins with what it was told, and takes away."""
_PATIENCE = 5.0
"""Seconds in which networkd sets up an address to which another one was second."""
_INTERVAL = 0.1
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class _Message:
    """One rule, address or route."""

    kind: int
    fixed: bytes
    attributes: tuple[tuple[int, bytes], ...]

    def get(self, kind: int) -> bytes:
        """An attribute; empty without it."""
        return next((value for each, value in self.attributes if each == kind), b"")

    def number(self, kind: int) -> int:
        """The same of a number of 8 or 32 bits; 0 without it."""
        return int.from_bytes(self.get(kind), "little" if _IS_LITTLE else "big")

    @property
    def body(self) -> bytes:
        """As netlink has it behind its header."""
        parts = [self.fixed]
        for kind, value in self.attributes:
            parts.append(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value)
            parts.append(bytes(-len(value) % 4))
        return b"".join(parts)


_IS_LITTLE = struct.pack("=H", 1)[0] == 1


def remember(addresses: Mapping[str, Collection[str]]) -> tuple[bytes, ...]:
    """Rules, and addresses and routes of some links, that networkd would not set up again.

    `addresses` are, by link, those that networkd says are not its own. For `put_back`.
    """
    links = {index: addresses[name] for index, name in socket.if_nameindex() if name in addresses}
    found = [*_addresses(links), *_routes(links), *_rules()]
    return tuple(struct.pack("=H", message.kind) + message.body for message in found)


def put_back(host: Host) -> None:
    """What of it is missing now, or within a moment. Raises SetupError for what can't be."""
    if not host.foreign or host.boot != boot():
        return
    # All of the time: networkd may take away what was just put back.
    begin = now()
    is_waiting = False
    while now() < begin + (_PATIENCE if is_waiting else _SETTLING):
        _, is_waiting = _try_again(host, may_wait=True)
        sleep(_INTERVAL)
    for number in _try_again(host)[0]:
        raise SetupError(
            f"a rule, address or route of somebody else's is gone and can't be had back: "
            f"{os.strerror(number)}",
            hint="`ip rule`, `ip address` and `ip route show table all` show what is left",
        )


def boot() -> str:
    """Which one it is: the next has nothing of what was set up by hand."""
    return _BOOT.read_text().strip()


def _try_again(host: Host, *, may_wait: bool = False) -> tuple[list[int], bool]:
    """Put back what is missing; the errors of what couldn't be, and whether something waits."""
    with _Netlink() as netlink:
        kinds = (_NEWADDR, _NEWROUTE, _NEWRULE)
        there = [_plain(message) for kind in kinds for message in netlink.dump(kind)]
        found = {message.body for message in there}
        saved = [_parse(struct.unpack("=H", each[:2])[0], each[2:]) for each in host.foreign]
        missing = [message for message in saved if message.body not in found and _has_link(message)]
        early = [message for message in missing if may_wait and _is_too_early(message, there)]
        due = [message for message in missing if message not in early]
        errors = [netlink.make(message.kind, message.body) for message in due]
    # Or it is there already, with other lifetimes.
    return [number for number in errors if number not in (0, errno.EEXIST)], bool(early)


def _is_too_early(message: _Message, there: list[_Message]) -> bool:
    """Whether an IPv4 address would come before the one that it was second to."""
    if message.kind != _NEWADDR or message.fixed[0] != socket.AF_INET:
        return False
    if not message.number(_IFA_FLAGS) & _IFA_F_SECONDARY:
        return False
    return not any(
        other.kind == _NEWADDR and _network(other) == _network(message) for other in there
    )


def _network(address: _Message) -> tuple[object, bytes]:
    """What an address is one of, and on which interface."""
    own = address.get(_IFA_LOCAL) or address.get(_IFA_ADDRESS)
    return ip_network((own, address.fixed[1]), strict=False), address.fixed[4:8]


def _has_link(message: _Message) -> bool:
    """Whether the interface that it is of, if any, is still there."""
    index = {
        _NEWADDR: struct.unpack("=I", message.fixed[4:8])[0],
        _NEWROUTE: message.number(_RTA_OIF),
    }.get(message.kind, 0)
    return not index or index in dict(socket.if_nameindex())


def _addresses(links: Mapping[int, Collection[str]]) -> Iterator[_Message]:
    for message in _dump(_NEWADDR):
        scope, index = message.fixed[3], struct.unpack("=I", message.fixed[4:8])[0]
        own = message.get(_IFA_LOCAL) or message.get(_IFA_ADDRESS)
        is_lasting = message.number(_IFA_FLAGS) & _IFA_F_PERMANENT and scope < _RT_SCOPE_LINK
        if is_lasting and str(ip_address(own)) in links.get(index, ()):
            yield _plain(message)


def _routes(links: Collection[int]) -> Iterator[_Message]:
    for message in _dump(_NEWROUTE):
        protocol, flags = message.fixed[5], struct.unpack("=I", message.fixed[8:12])[0]
        index, table = message.number(_RTA_OIF), message.number(_RTA_TABLE)
        is_skipped = flags & _RTM_F_CLONED or table == _LOCAL_TABLE or message.get(_RTA_NH_ID)
        # Those of several ways have no interface of their own; of IPv6 the others that lead
        # nowhere have loopback.
        is_free = not index or message.fixed[7] in _REJECTING
        if protocol in _BY_HAND and not is_skipped and (is_free or index in links):
            yield _plain(message)


def _rules() -> Iterator[_Message]:
    for message in _dump(_NEWRULE):
        if message.number(_FRA_PROTOCOL) not in (_BY_KERNEL, _BY_NETWORKD):
            yield _plain(message)


def _dump(kind: int) -> list[_Message]:
    with _Netlink() as netlink:
        return list(netlink.dump(kind))


def _plain(message: _Message) -> _Message:
    """Without what changes by itself, and what the kernel wouldn't take."""
    fixed, left_out = message.fixed, {_NEWROUTE: _RTA_CACHEINFO}
    mask = {_NEWROUTE: _RTNH_F_ONLINK, _NEWRULE: _FIB_RULE_SET}.get(message.kind)
    if mask:
        flags = struct.unpack("=I", fixed[8:12])[0]
        fixed = fixed[:8] + struct.pack("=I", flags & mask)
    attributes = tuple(each for each in message.attributes if each[0] != left_out.get(message.kind))
    return _Message(message.kind, fixed, attributes)


class _Netlink:
    """A socket of the kernel's."""

    def __enter__(self) -> "_Netlink":
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def dump(self, kind: int) -> Iterator[_Message]:
        """All there are of a kind, of IPv4 and IPv6."""
        for family in (socket.AF_INET, socket.AF_INET6):
            fixed = bytes([family]) + bytes(_FIXED[kind] - 1)
            self._send(kind + _GET, _REQUEST | _DUMP, fixed)
            yield from (_parse(kind, body) for type_, body in self._answers() if type_ == kind)

    def make(self, kind: int, body: bytes) -> int:
        """One of them; returns 0, or an error's number."""
        self._send(kind, _REQUEST | _ACK | _CREATE | _EXCL, body)
        for type_, answer in self._answers():
            if type_ == _NLMSG_ERROR:
                return -int(struct.unpack("=i", answer[:4])[0])
        raise AssertionError

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """Types and bodies, up to and with the last."""
        while True:
            data = self._socket.recv(1 << 20)
            while data:
                size, kind = _HEADER.unpack_from(data)[:2]
                yield kind, data[_HEADER.size : size]
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    return
                data = data[size + -size % 4 :]


def _parse(kind: int, body: bytes) -> _Message:
    return _Message(kind, body[: _FIXED[kind]], tuple(_attributes(body[_FIXED[kind] :])))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size : size]
        data = data[size + -size % 4 :]
