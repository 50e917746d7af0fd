"""What a service tells systemd of itself (sd_notify(3)): nothing where no systemd asked."""

import os
import socket
import struct
from contextlib import suppress


def notify(*, descriptor: int | None = None, **fields: str | int) -> None:
    """Send fields such as READY=1 or STATUS=…, and a descriptor for the store (FDSTORE=1).

    Never raises, since nothing depends on it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    text = "\n".join(f"{name}={value}" for name, value in fields.items())
    rights = struct.pack("i", descriptor) if descriptor is not None else b""
    # Not socket.send_fds(), which ignores the address.
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendmsg([text.encode()], ancillary, flags, address)


def is_watched() -> bool:
    """Whether a systemd runs this process as a service, and is told of it."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def watchdog_interval() -> int:
    """How often WATCHDOG=1 is to be sent, µs: half of what the unit allows; 0 = never."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    return int(allowed) // 2 if allowed.isdecimal() else 0
