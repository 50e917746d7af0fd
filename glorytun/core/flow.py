"""Which packets belong to one flow, so that none of them may overtake another."""

from glorytun.core.wire import VERSION_MASK

_TCP = 6
_HAS_PORTS = (_TCP, 17)
"""TCP and UDP."""


def flow_key(buffer: bytearray, at: int) -> bytes:
    """What the packets of one flow share: addresses, protocol, ports.

    Parts of a fragmented packet have no ports but for the first: they go by the rest.
    """
    version = buffer[at] >> 4 & VERSION_MASK
    if version == 4:
        protocol, ports = buffer[at + 9], at + 4 * (buffer[at] & 15)
        is_part = buffer[at + 6] & 0x3F or buffer[at + 7]
        key = buffer[at + 12 : at + 20]
    elif version == 6:
        protocol, ports, is_part = buffer[at + 6], at + 40, 0
        key = buffer[at + 8 : at + 40]
    else:
        return b""
    key.append(protocol)
    if protocol in _HAS_PORTS and not is_part:
        key += buffer[ports : ports + 4]
    return bytes(key)


def is_tcp(buffer: bytearray, at: int) -> bool:
    """Whether it is a packet of TCP, as far as its first header tells."""
    is_v6 = buffer[at] >> 4 & VERSION_MASK == 6
    return buffer[at + (6 if is_v6 else 9)] == _TCP
