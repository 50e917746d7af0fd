"""Packets of TCP and UDP, and what segmentation makes of them, byte by byte: slow and obvious."""

import struct
from dataclasses import dataclass, replace

VNET = struct.Struct("=BBHHHH")
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
TCP, UDP = 6, 17
V4_ADDRESSES = (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
V6_ADDRESSES = (bytes(range(16)), bytes(range(16, 32)))


def checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


@dataclass(frozen=True, kw_only=True)
class Packet:
    """The fields of one packet."""

    version: int = 4
    protocol: int = TCP
    payload: bytes = b""
    ports: tuple[int, int] = (1000, 2000)
    number: int = 0
    """TCP's sequence number."""
    ack: int = 77
    flags: int = ACK
    options: bytes = b""
    """Of TCP, a multiple of 4 bytes."""
    ident: int = 0
    """IPv4's."""
    fragment: int = 0x4000
    """IPv4's flags and offset: Don't fragment."""
    traffic_class: int = 0
    flow_label: int = 0
    """IPv6's."""
    ttl: int = 64
    ip_options: bytes = b""
    """IPv4's options, or extension headers of IPv6 that begin with the type that follows."""

    final: bytes = b""
    """With a routing header of IPv6: its last destination, which is what a checksum covers."""

    def pseudo(self, length: int) -> bytes:
        if self.version == 4:
            return b"".join(V4_ADDRESSES) + struct.pack(">HH", self.protocol, length)
        addresses = V6_ADDRESSES[0] + (self.final or V6_ADDRESSES[1])
        return addresses + struct.pack(">II", length, self.protocol)

    def transport(self, *, partial: bool = False) -> bytes:
        """From the ports on; `partial` leaves the checksum to the device."""
        if self.protocol == TCP:
            words = 5 + len(self.options) // 4
            fields = (self.number & 0xFFFFFFFF, self.ack, words << 4, self.flags, 500, 0, 0)
            header = struct.pack(">HHIIBBHHH", *self.ports, *fields) + self.options
            at = 16
        else:
            header = struct.pack(">HHHH", *self.ports, 8 + len(self.payload), 0)
            at = 6
        data = header + self.payload
        pseudo = self.pseudo(len(data))
        value = 0xFFFF - checksum(pseudo) if partial else checksum(pseudo + data)
        if self.protocol == UDP and not partial:
            value = value or 0xFFFF
        return data[:at] + value.to_bytes(2, "big") + data[at + 2 :]

    def data(self, *, partial: bool = False) -> bytes:
        """All of it."""
        inner = self.transport(partial=partial)
        if self.version == 6:
            first = (43 if self.final else 60) if self.ip_options else self.protocol
            length = len(self.ip_options) + len(inner)
            word = 6 << 28 | self.traffic_class << 20 | self.flow_label
            head = struct.pack(">IHBB", word, length, first, self.ttl)
            return head + b"".join(V6_ADDRESSES) + self.ip_options + inner
        words = 5 + len(self.ip_options) // 4
        size = 4 * words + len(inner)
        first_byte = 0x40 | words
        fields = (first_byte, self.traffic_class, size, self.ident & 0xFFFF, self.fragment)
        head = struct.pack(">BBHHHBBH", *fields, self.ttl, self.protocol, 0)
        head += b"".join(V4_ADDRESSES) + self.ip_options
        return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + inner

    @property
    def ip_size(self) -> int:
        return (20 if self.version == 4 else 40) + len(self.ip_options)

    @property
    def header_size(self) -> int:
        return self.ip_size + (8 if self.protocol == UDP else 20 + len(self.options))

    def vnet(self, segment: int) -> bytes:
        """The header of a super-packet of such segments."""
        kind = 5 if self.protocol == UDP else 1 if self.version == 4 else 4
        if self.flags & CWR and self.protocol == TCP:
            kind |= 0x80
        at = 6 if self.protocol == UDP else 16
        return VNET.pack(1, kind, self.header_size, segment, self.ip_size, at)

    def segments(self, size: int) -> "list[Packet]":
        """What the kernel's segmentation makes of it."""
        parts = [self.payload[at : at + size] for at in range(0, len(self.payload), size)]
        made = []
        for index, part in enumerate(parts):
            flags = self.flags
            if index > 0:
                flags &= ~CWR
            if index < len(parts) - 1:
                flags &= ~(FIN | PSH)
            made.append(
                replace(
                    self,
                    payload=part,
                    flags=flags,
                    number=self.number + index * size,
                    ident=self.ident + index,
                )
            )
        return made


def routed(protocol: int, payload: bytes) -> Packet:
    """One that goes by way of another host: Mobile IPv6's routing header (RFC 6275, 6.4)."""
    final = bytes(range(64, 80))
    header = bytes([protocol, 2, 2, 1, 0, 0, 0, 0]) + final
    return Packet(version=6, protocol=protocol, payload=payload, ip_options=header, final=final)


def written(pieces: "list[bytes]") -> list[bytes]:
    """The packets that the kernel makes of what was written to a TUN, with its checksums."""
    data = b"".join(pieces)
    flags, kind, header_size, segment, start, at = VNET.unpack_from(data)
    packet = data[VNET.size :]
    if not kind:
        assert flags == 0
        return [packet]
    version = packet[0] >> 4
    protocol = UDP if kind & 0x7F == 5 else TCP
    assert flags == 1
    assert (kind & 0x7F) in ({1, 5} if version == 4 else {4, 5})
    inner = packet[start:header_size]
    traffic_class = packet[1] if version == 4 else int.from_bytes(packet[:2], "big") >> 4 & 255
    common = {
        "version": version,
        "protocol": protocol,
        "payload": packet[header_size:],
        "ports": struct.unpack_from(">HH", inner),
        "ident": int.from_bytes(packet[4:6], "big") if version == 4 else 0,
        "fragment": int.from_bytes(packet[6:8], "big") if version == 4 else 0,
        "ttl": packet[8 if version == 4 else 7],
        "traffic_class": traffic_class,
        "flow_label": int.from_bytes(packet[1:4], "big") & 0xFFFFF if version == 6 else 0,
    }
    if protocol == TCP:
        number, ack = struct.unpack_from(">II", inner, 4)
        common |= {"number": number, "ack": ack, "flags": inner[13], "options": inner[20:]}
    read = Packet(**common)  # type: ignore[arg-type]  # a dict of several types
    assert read.data(partial=True) == packet, "what the kernel would be given is consistent"
    assert (at, start) == (6 if protocol == UDP else 16, read.ip_size)
    assert bool(kind & 0x80) == bool(protocol == TCP and read.flags & CWR)
    assert len(read.payload) > segment, "no super-packet of one segment"
    return [one.data() for one in read.segments(segment)]
