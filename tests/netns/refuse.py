"""Runs a program to which the kernel refuses what an older kernel, or some device, would refuse.

    python refuse.py WHAT PROGRAM ARGUMENT...

It is a filter of the process's own system calls (seccomp(2)): what has real kernels of all ages as
its reason can be tried on one.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_IOCTL, _SETSOCKOPT, _SENDMSG = {"x86_64": (16, 54, 46), "aarch64": (29, 208, 211)}[
    platform.machine()
]
_TUNSETOFFLOAD = 0x400454D0
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_LOAD, _IS_EQUAL, _HAS_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
"""Of bpf(4): ld [k], jeq #k, jset #k, ret #k."""
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
"""SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO."""

Condition = tuple[int, int, int]
"""The number of an argument, and how and with what it is compared."""
REFUSED: dict[str, tuple[int, tuple[Condition, ...], int]] = {
    # Each by the name that `show` has for what is then missing.
    "tun_uso": (_IOCTL, ((1, _IS_EQUAL, _TUNSETOFFLOAD), (2, _HAS_BITS, 0x60)), errno.EINVAL),
    "tun_offload": (_IOCTL, ((1, _IS_EQUAL, _TUNSETOFFLOAD), (2, _HAS_BITS, 0x7F)), errno.EINVAL),
    "udp_gso": (
        _SETSOCKOPT,
        ((1, _IS_EQUAL, _SOL_UDP), (2, _IS_EQUAL, _UDP_SEGMENT)),
        errno.ENOPROTOOPT,
    ),
    "udp_gro": (
        _SETSOCKOPT,
        ((1, _IS_EQUAL, _SOL_UDP), (2, _IS_EQUAL, _UDP_GRO)),
        errno.ENOPROTOOPT,
    ),
    # With UDP_SEGMENT, on a device without checksums. What leaves one by one takes sendmmsg(2).
    "sendmsg": (_SENDMSG, (), errno.EIO),
}


def refuse(what: str) -> None:
    """From now on, in this process and what it becomes."""
    call, conditions, error = REFUSED[what]
    program = [(_LOAD, 0, 0, 0), (_IS_EQUAL, 0, 2 * len(conditions) + 1, call)]
    for left, (number, kind, value) in zip(range(len(conditions), 0, -1), conditions, strict=True):
        program += [(_LOAD, 0, 0, 16 + 8 * number), (kind, 0, 2 * left - 1, value)]
    program += [(_RETURN, 0, 0, _FAIL | error), (_RETURN, 0, 0, _ALLOW)]
    lines = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    attached = struct.pack("HP", len(program), ctypes.addressof(lines))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong)
    for option, value, pointer in (
        (_PR_SET_NO_NEW_PRIVS, 1, None),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, attached),
    ):
        if prctl(option, value, pointer, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
