"""Sizes and numbers of the headers of IP and what it carries: RFC 791, 8200, 9293 and 768."""

V4_HEADER, V6_HEADER = 20, 40
"""Bytes without options."""
TCP_HEADER, UDP_HEADER = 20, 8
ICMP, TCP, UDP, ICMP_V6 = 1, 6, 17, 58
"""Protocol numbers (IANA's registry)."""
SYN, ACK = 0x02, 0x10
"""Flags of TCP."""
