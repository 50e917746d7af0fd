"""What this kernel and this processor can do."""

import os
import socket
from enum import StrEnum
from pathlib import Path

UDP_SEGMENT = 103
UDP_GRO = 104
"""linux/udp.h; Linux 4.18 and 5.0."""

_DEBIAN_LIBRARIES = "/usr/lib/python3/dist-packages"
_README_DEBIAN = "/usr/share/doc/glorytun/README.Debian"


class Offload(StrEnum):
    """What moves many packets in one system call, as `show` names it."""

    TUN = "tun_offload"
    """The TUN hands over and takes super-packets of TCP, without checksums."""
    TUN_UDP = "tun_uso"
    """And of UDP: Linux 6.2."""
    BARE = "bare_tcp"
    """TCP travels without checksums, where the peer has this too: see `bare`."""
    UDP_GSO = "udp_gso"
    UDP_GRO = "udp_gro"


def allowed() -> frozenset[Offload]:
    """Those that may be used: all, but for tests that name some, or none, in the environment."""
    named = os.environ.get("GLORYTUN_TEST_OFFLOADS")
    return frozenset(one for one in Offload if named is None or one in named.split())


def has_udp_gso() -> bool:
    """Whether sendmsg(2) splits what it is given: UDP_SEGMENT, Linux 4.18."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probed:
        try:
            # 0 is what it is without being set: udp_lib_setsockopt().
            probed.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)
        except OSError:
            return False
        return True


def aegis_advice(module: Path = Path(__file__)) -> str:
    """How to add pyaegis: what Debian installed is not for pip to change without more ado."""
    if module.is_relative_to(_DEBIAN_LIBRARIES):
        return f"{_README_DEBIAN} says how to add it"
    return "`pip install pyaegis` adds it"


def aes_hardware(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has AES instructions (`flags` on x86, `Features` on arm64)."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    named = (line.partition(":") for line in lines)
    return any(
        name.strip() in {"flags", "Features"} and "aes" in value.split() for name, _, value in named
    )
