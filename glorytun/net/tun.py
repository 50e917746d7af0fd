"""The TUN device: inner IP packets from and to the kernel, in batches.

The numbers are those of linux/if_tun.h; how the calls fail is in drivers/net/tun.c.
"""

import errno
import fcntl
import os
import re
import select
import struct
from pathlib import Path

from glorytun.core.batch import Batch
from glorytun.core.wire import OVERHEAD, TAG_SIZE, TIME_SIZE
from glorytun.errors import DeviceError

HEADROOM = TIME_SIZE
"""Bytes free before a packet that was read, for the time field."""
TAILROOM = TAG_SIZE
"""Bytes free behind it, for the tag."""

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNGETIFF = 0x800454D2
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_MULTI_QUEUE = 0x0100
_IFREQ = struct.Struct("16sH22x")
_NAME = re.compile(r"[^\s/:%\0]{1,15}")
"""dev_valid_name() in net/core/dev.c; ``%`` would make it a template."""

_PACKET_MAX = 65536
_V4_HEADER = 20
_V6_HEADER = 40


class Tun:
    """One queue of a TUN device, non-blocking."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.skipped = 0
        """Rows given to `write` that are no IP packet."""
        self.dropped = 0
        """Packets that the kernel didn't take."""
        self._descriptor = descriptor
        self._buffer = bytearray(HEADROOM + _PACKET_MAX + TAILROOM)
        self._into = [memoryview(self._buffer)[HEADROOM : HEADROOM + _PACKET_MAX]]

    @classmethod
    def open(cls, name: str | None, *, persist: bool | None) -> "Tun":
        """Make the device, or attach to an existing one; None lets the kernel pick ``tun%d``.

        `persist` True or False decides whether it outlives this process, None leaves that as it
        is (a new device doesn't). Raises DeviceError.
        """
        if name is not None and (not _NAME.fullmatch(name) or name in {".", ".."}):
            raise DeviceError(
                f"{name!r} can't be the name of a network device",
                hint="1 to 15 characters without spaces, '/', ':' and '%'",
            )
        descriptor = _open_control()
        try:
            tun = cls(descriptor, _attach(descriptor, name))
            if persist is not None:
                tun.set_persist(persist)
        except BaseException:
            os.close(descriptor)
            raise
        return tun

    @classmethod
    def adopt(cls, descriptor: int, name: str | None) -> "Tun | None":
        """One that another process opened; None when it is not this device, or was deleted.

        The descriptor is then still the caller's.
        """
        try:
            answer = fcntl.ioctl(descriptor, _TUNGETIFF, bytes(_IFREQ.size))
        except OSError:
            return None
        found, flags = _IFREQ.unpack(answer)
        shape = flags & (_IFF_TUN | _IFF_NO_PI | _IFF_MULTI_QUEUE | _IFF_VNET_HDR)
        if _name(found) != name or shape != _IFF_TUN | _IFF_NO_PI:
            return None
        os.set_blocking(descriptor, False)
        return cls(descriptor, _name(found))

    def fileno(self) -> int:
        """For poll(2): readable also when the device was deleted, `read` then says so."""
        return self._descriptor

    def check(self) -> None:
        """Raise DeviceError when the device was deleted, which nobody reads to find out."""
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if poll.poll(0):
            self.read()

    def read(self) -> Batch | None:
        """The next packet, or None when there is none.

        The row has HEADROOM and TAILROOM bytes around it and is valid until the next call. Raises
        DeviceError when the device was deleted.
        """
        try:
            size = os.readv(self._descriptor, self._into)
        except BlockingIOError:
            return None
        except OSError as error:
            raise DeviceError(
                f"{self.name} can't be read any more: {_reason(error)}",
                hint="was it deleted? start again",
            ) from error
        return Batch(self._buffer, HEADROOM, size + OVERHEAD, 1, size, size)

    def write(self, batch: Batch) -> None:
        """Hand each row to the kernel as one packet.

        Rows that are no IP packet count as `skipped`, those that the kernel refuses (the device is
        down or was deleted, no memory) as `dropped`.
        """
        for row in batch.rows():
            if not _is_packet(row):
                self.skipped += 1
                continue
            try:
                os.write(self._descriptor, row)
            except OSError:
                self.dropped += 1

    def set_persist(self, persist: bool) -> None:
        """Whether the device stays when this process ends. Raises DeviceError."""
        try:
            fcntl.ioctl(self._descriptor, _TUNSETPERSIST, int(persist))
        except OSError as error:
            word = "persistent" if persist else "temporary"
            raise DeviceError(f"{self.name} can't be made {word}: {_reason(error)}") from error

    def close(self) -> None:
        """Detach; the device goes away unless it is persistent."""
        os.close(self._descriptor)


def _is_packet(row: memoryview) -> bool:
    """Whether it is IPv4 or IPv6 and holds what its length field says (RFC 791, RFC 8200)."""
    size = len(row)
    if size < _V4_HEADER:
        return False
    version = row[0] >> 4
    if version == 4:
        header = (row[0] & 15) * 4
        return _V4_HEADER <= header <= (row[2] << 8 | row[3]) <= size
    return version == 6 and _V6_HEADER + (row[4] << 8 | row[5]) <= size


def _open_control() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise _no_permission("a TUN device") from error
    except OSError as error:
        raise DeviceError(
            f"TUN devices aren't available: {_DEVICE}: {_reason(error)}",
            hint="load the kernel's module with `modprobe tun`; "
            f"a container must be given {_DEVICE} by its host",
        ) from error


def _attach(descriptor: int, name: str | None) -> str:
    """The name of the device that the descriptor then stands for."""
    # An empty name means tun%d to the kernel.
    request = _IFREQ.pack((name or "").encode(), _IFF_TUN | _IFF_NO_PI)
    try:
        answer = fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError as error:
        raise _attach_error(error, name) from error
    return _name(_IFREQ.unpack(answer)[0])


def _name(field: bytes) -> str:
    """Of a device, from the field of the kernel's."""
    return field.partition(b"\0")[0].decode(errors="replace")


def _attach_error(error: OSError, name: str | None) -> DeviceError:
    device = name or "a TUN device"
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return _no_permission(device)
        case errno.EBUSY:
            return DeviceError(
                f"{device} is in use by another process",
                hint="choose another name; `glorytun list` shows running tunnels",
            )
        case errno.EINVAL if name:
            return DeviceError(
                f"{device} exists and {_kind(name)}",
                hint=f"choose another name, or remove it with `ip link delete {name}`",
            )
    return DeviceError(f"{device} can't be opened: {_reason(error)}")


def _kind(name: str) -> str:
    """Why TUNSETIFF said EINVAL: what the existing device is instead of a TUN with one queue."""
    try:
        flags = int(Path("/sys/class/net", name, "tun_flags").read_text(), 16)
    except (OSError, ValueError):
        return "is no TUN device"
    if flags & _IFF_TUN and flags & _IFF_MULTI_QUEUE:
        return "is a TUN device with several queues"
    return "is no TUN device"


def _no_permission(device: str) -> DeviceError:
    return DeviceError(f"no permission to open {device}", hint="run as root, or with CAP_NET_ADMIN")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)
