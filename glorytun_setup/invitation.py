"""What a server gives to a client, on one line: all that the client needs, the key too.

    glorytun1-BASE64URL(fields, checksum)

The fields, big-endian: identity 8, end of validity 4 (seconds since 1970, 0 for none), port 2,
key 32, flags 1; with IPv4 the client's address 4, its prefix 1, the server's address 4; with IPv6
16, 1, 16; the rest is the server's name or address. The checksum finds typing errors; it proves
nothing. Whoever has the line has the key, so it is never shown but to whom it is for.
"""

import binascii
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import IPv4Interface, IPv6Interface, ip_address

from glorytun.config import parse_peer
from glorytun.keyfile import KEY_SIZE
from glorytun_setup.model import Inside, Interface

IDENTITY_SIZE = 8
"""Bytes."""

_WORD = "glorytun"
_VERSION = 1
_START = f"{_WORD}{_VERSION}-"
_ANY_START = re.compile(rf"{_WORD}([0-9]{{1,3}})-")
_FIELDS = struct.Struct(f">{IDENTITY_SIZE}sIH{KEY_SIZE}sB")
_HAS_V4, _HAS_V6, _SHARES_V4, _SHARES_V6 = 1, 2, 4, 8
_CHECKSUM_SIZE = 6
_LONGEST = 1000
"""Characters; a name has 253 at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """All that a client needs."""

    identity: bytes
    """Which one it is, of those that a server gave out."""
    expires_at: int
    """Seconds since 1970; 0: it doesn't."""
    server_host: str
    port: int
    key: bytes = field(repr=False)
    inside4: Inside | None
    """The client's, not the server's."""
    inside6: Inside | None
    shares4: bool
    """Whether the server leads to the IPv4 Internet."""
    shares6: bool

    def has_expired(self, now: int) -> bool:
        """Whether it is too old at a time in seconds since 1970."""
        return 0 < self.expires_at <= now


def looks_like_invitation(text: str) -> bool:
    """Whether a text was meant as one, and must not be shown."""
    return text.lstrip().startswith(_WORD) and _ANY_START.match(text.lstrip()) is not None


def encode(invitation: Invitation) -> str:
    """The line."""
    flags = (
        _HAS_V4 * (invitation.inside4 is not None)
        | _HAS_V6 * (invitation.inside6 is not None)
        | _SHARES_V4 * invitation.shares4
        | _SHARES_V6 * invitation.shares6
    )
    body = _FIELDS.pack(
        invitation.identity, invitation.expires_at, invitation.port, invitation.key, flags
    )
    for inside in filter(None, (invitation.inside4, invitation.inside6)):
        body += inside.own.packed + bytes([inside.own.network.prefixlen]) + inside.peer.packed
    body += invitation.server_host.encode()
    return _START + urlsafe_b64encode(body + _checksum(body)).decode().rstrip("=")


def decode(text: str) -> Invitation:
    """The invitation in a line. White space in it is left out, as a terminal may break it.

    Raises ValueError in words for the user, without any of the text.
    """
    line = "".join(text.split()) if len(text) <= 2 * _LONGEST else text
    start = _ANY_START.match(line)
    if start is None or len(line) > _LONGEST:
        raise ValueError(f"is no invitation, which begins with {_START}")
    if start[1] != str(_VERSION):
        raise ValueError("is an invitation of another version of glorytun: update this one")
    body = _checked(line[start.end() :])
    try:
        return _read(body)
    except (ValueError, IndexError, struct.error):
        raise ValueError("is an invitation that makes no sense: ask for another") from None


def _checksum(body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECKSUM_SIZE, person=b"gt-invitation").digest()


def _checked(coded: str) -> bytes:
    """The fields, if nothing was lost or changed."""
    try:
        data = urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
    except (binascii.Error, ValueError):
        data = b""
    body, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
    if not body or _checksum(body) != checksum:
        raise ValueError("is an invitation of which a part is missing or wrong: copy all of it")
    return body


def _read(body: bytes) -> Invitation:
    identity, expires_at, port, key, flags = _FIELDS.unpack_from(body)
    rest = body[_FIELDS.size :]
    inside4 = inside6 = None
    if flags & _HAS_V4:
        inside4, rest = _read_inside(rest, size=4), rest[9:]
    if flags & _HAS_V6:
        inside6, rest = _read_inside(rest, size=16), rest[33:]
    if not port:
        raise ValueError
    return Invitation(
        identity=identity,
        expires_at=expires_at,
        server_host=parse_peer(rest.decode()),
        port=port,
        key=key,
        inside4=inside4,
        inside6=inside6,
        shares4=bool(flags & _SHARES_V4),
        shares6=bool(flags & _SHARES_V6),
    )


def _read_inside(data: bytes, *, size: int) -> Inside:
    """From the address of the client, the prefix, and the address of the server."""
    own, prefix, peer = data[:size], data[size], data[size + 1 : 2 * size + 1]
    kind: type[Interface] = IPv4Interface if size == 4 else IPv6Interface
    return Inside(own=kind((own, prefix)), peer=ip_address(peer))
