"""What this kernel and this processor can do."""

import fcntl
import os
import socket
from pathlib import Path

_UDP_SEGMENT = 103
_UDP_GRO = 104
"""linux/udp.h; Linux 4.18 and 5.0."""
_TUNGETFEATURES = 0x800454CF
_IFF_VNET_HDR = 0x4000
"""linux/if_tun.h."""


def probe() -> dict[str, bool]:
    """Kernel features for moving many packets in one system call, by name."""
    return {
        "udp_gso": _has_udp_option(_UDP_SEGMENT),
        "udp_gro": _has_udp_option(_UDP_GRO),
        "tun_vnet_hdr": _has_tun_vnet_header(),
    }


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


def _has_udp_option(option: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probed:
        try:
            # 0 is what both are without being set: udp_lib_setsockopt().
            probed.setsockopt(socket.SOL_UDP, option, 0)
        except OSError:
            return False
        return True


def _has_tun_vnet_header() -> bool:
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        flags = bytearray(4)
        fcntl.ioctl(descriptor, _TUNGETFEATURES, flags)
        return bool(int.from_bytes(flags, "little") & _IFF_VNET_HDR)
    except OSError:
        return False
    finally:
        os.close(descriptor)
