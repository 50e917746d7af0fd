"""Addresses as the protocol has them: 16 bytes, IPv4 mapped into IPv6, in network order."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

V4_PREFIX = bytes(10) + b"\xff\xff"
"""::ffff:0:0/96, RFC 4291 2.5.5.2."""

ANY = bytes(16)
"""The address that stands for every one: ``::`` and, by convention here, ``0.0.0.0`` too."""

EVERY_ADDRESS = (ANY, V4_PREFIX + bytes(4))
"""What a socket is bound to that is bound to no address in particular."""


def pack_address(address: str | IPv4Address | IPv6Address) -> bytes:
    """16 bytes of an address. Raises ValueError when it isn't one."""
    parsed = ip_address(address) if isinstance(address, str) else address
    if isinstance(parsed, IPv4Address):
        return V4_PREFIX + parsed.packed
    return parsed.packed


def is_v4(address: bytes) -> bool:
    """Whether 16 bytes stand for an IPv4 address."""
    return address.startswith(V4_PREFIX)


def headers_of(address: bytes) -> int:
    """Bytes of IP's and UDP's headers around a datagram to an address."""
    return 28 if is_v4(address) else 48


def format_address(address: bytes) -> str:
    """The text of 16 bytes: ``10.0.0.1`` or ``2001:db8::1``."""
    return str(IPv4Address(address[12:]) if is_v4(address) else IPv6Address(address))


class Endpoint(NamedTuple):
    """An address and a UDP port."""

    address: bytes
    """16 bytes; IPv4 is mapped."""
    port: int
    scope: int = 0
    """The interface index that a link-local IPv6 address needs, else 0."""

    def __str__(self) -> str:
        text = format_address(self.address)
        return f"{text}:{self.port}" if is_v4(self.address) else f"[{text}]:{self.port}"


class PathId(NamedTuple):
    """What makes a path one path: our address and the peer's address and port."""

    local: bytes
    """16 bytes; IPv4 is mapped."""
    remote: Endpoint

    def __str__(self) -> str:
        return f"{format_address(self.local)} to {self.remote}"
