"""The TUN device: inner IP packets from and to the kernel, in batches.

Where the kernel can, it hands over many packets of one flow as one, without checksums, and takes
such: see `offload`. The numbers are those of linux/if_tun.h; how the calls fail is in
drivers/net/tun.c.
"""

import errno
import fcntl
import os
import re
import select
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from glorytun.core.batch import MANY, SLACK, Batch, Buffer, append, append_row
from glorytun.core.wire import BARE_BIT, OVERHEAD, TAG_SIZE, TIME_SIZE
from glorytun.errors import DeviceError
from glorytun.net.bare import complete, may_be_bare
from glorytun.net.checksum import fill_in, fill_in_rows
from glorytun.net.features import Offload
from glorytun.net.headers import ACK, SYN, TCP, V4_HEADER, V6_HEADER
from glorytun.net.offload import (
    NEEDS_CHECKSUM,
    PLAIN,
    ROWS_MAX,
    VNET_SIZE,
    Pieces,
    SuperPacket,
    Vnet,
    datagrams_together,
    merge,
    split,
)
from glorytun.net.toobig import clamp_mss

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
_TUNSETOFFLOAD = 0x400454D0
_CSUM_TSO = 0x01 | 0x02 | 0x04 | 0x08
"""TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN."""
_USO = 0x20 | 0x40
"""TUN_F_USO4, TUN_F_USO6: either alone is refused."""
_OFFLOADS = {
    frozenset({Offload.TUN, Offload.TUN_UDP}): _CSUM_TSO | _USO,
    frozenset({Offload.TUN}): _CSUM_TSO,
}
"""What to ask for, the most first."""
_SHAPE = _IFF_TUN | _IFF_NO_PI
_IFREQ = struct.Struct("16sH22x")
_NAME = re.compile(r"[^\s/:%\0]{1,15}")
"""dev_valid_name() in net/core/dev.c; ``%`` would make it a template."""

_PACKET_MAX = 65536
_ROWS_SIZE = 5 * _PACKET_MAX
_PACED_SIZE = 3 * _PACKET_MAX
"""No more is read in one go when the rows take so many bytes: they leave in five calls; or in three
where they have to wait for a path's credit, since nothing that comes later can overtake them."""
_ROW_MAX = 200
"""More than the headers of a row, and what is between it and the next, take."""
_TRIES, _TRY_INTERVAL = 25, 20
"""A device in use is asked for again, every so many ms: the last process may be about to end, and
systemd to drop what it kept for it."""
_FLAGS, _KIND, _CHECKSUM_AT = 0, 1, 6
"""Where these are in the vnet header."""
_CHECKSUM = struct.Struct("=HH")
"""Where what it covers begins, and where it is in there."""
_UDP_CHECKSUM = 6
_SYN_MAX = 200
"""More than a SYN without data takes: what is shorter is looked at as a whole."""
_FLAGS_AT = 13
"""Of TCP, in its header."""
_ACKS_SIZE = 8192
"""Room for acknowledgements that are read in one go."""


class Tun:
    """One queue of a TUN device, non-blocking."""

    def __init__(
        self, descriptor: int, name: str, *, offloads: frozenset[Offload] | None = None
    ) -> None:
        """`offloads` are those in use; None: the device has no vnet headers at all."""
        self.name = name
        self.skipped = 0
        """Rows given to `write` that are no IP packet, and super-packets of unknown kinds."""
        self.dropped = 0
        """Packets that the kernel didn't take."""
        self.mtu = 0
        """Of the tunnel, for which what TCP announces is corrected; 0: not known yet."""
        self.offloads = offloads or frozenset()
        self.leaves_bare = False
        """Whether packets of TCP that have no checksums yet get none: the peer fills them in."""
        self.is_drained = True
        """Whether the last `read` took all there was."""
        self._descriptor = descriptor
        self._has_vnet = offloads is not None
        self._read = bytearray(VNET_SIZE + 2 * _PACKET_MAX)
        """What was read, behind its vnet header."""
        start = 0 if self._has_vnet else VNET_SIZE
        self._read_view = memoryview(self._read)
        self._into = [self._read_view[start : VNET_SIZE + _PACKET_MAX]]
        self._rows_end = _ROWS_SIZE + 2 * _PACKET_MAX + ROWS_MAX * _ROW_MAX
        self._buffer = Buffer(self._rows_end + _ACKS_SIZE + SLACK)
        self._view = memoryview(self._buffer)
        self._acks: list[Batch] = []
        """Acknowledgements without data, which lie behind `_rows_end`, up to `_acks_end`."""
        self._acks_end = 0
        self._size = 0
        """Of what was read, if it is no super-packet."""
        self._incomplete: dict[int, list[Batch]] = {}
        """Rows that lack the checksum of UDP, by where its header begins."""
        self._super: SuperPacket | None = None
        """What was read and is not split to its end yet."""
        self._split = 0
        """Segments of it that were split."""
        self._rest: Batch | None = None
        """What was read and is for the next `read`."""

    @classmethod
    def open(
        cls,
        name: str | None,
        *,
        persist: bool | None,
        allowed: frozenset[Offload] = frozenset(Offload),
    ) -> "Tun":
        """Make the device, or attach to an existing one; None lets the kernel pick ``tun%d``.

        `persist` True or False decides whether it outlives this process, None leaves that as it
        is (a new device doesn't). Of the offloads `allowed` those are used that the kernel has.
        Raises DeviceError.
        """
        if name is not None and (not _NAME.fullmatch(name) or name in {".", ".."}):
            raise DeviceError(
                f"{name!r} can't be the name of a network device",
                hint="1 to 15 characters without spaces, '/', ':' and '%'",
            )
        descriptor = _open_control()
        try:
            has_vnet = Offload.TUN in allowed
            name = _attach(descriptor, name, _SHAPE | (_IFF_VNET_HDR if has_vnet else 0))
            # Also set to none: a device that was there before may still have those of another.
            offloads = _set_offloads(descriptor, allowed)
            tun = cls(descriptor, name, offloads=offloads if has_vnet else None)
            if persist is not None:
                tun.set_persist(persist)
        except BaseException:
            os.close(descriptor)
            raise
        return tun

    @classmethod
    def adopt(
        cls,
        descriptor: int,
        name: str | None,
        *,
        allowed: frozenset[Offload] = frozenset(Offload),
    ) -> "Tun | None":
        """One that another process opened; None when it is not this device, or was deleted.

        So it is when it has vnet headers and we want none, or the other way: that can't be
        changed. The descriptor is then still the caller's.
        """
        try:
            answer = fcntl.ioctl(descriptor, _TUNGETIFF, bytes(_IFREQ.size))
        except OSError:
            return None
        found, flags = _IFREQ.unpack(answer)
        has_vnet = Offload.TUN in allowed
        shape = flags & (_SHAPE | _IFF_MULTI_QUEUE | _IFF_VNET_HDR)
        if _name(found) != name or shape != _SHAPE | (_IFF_VNET_HDR if has_vnet else 0):
            return None
        os.set_blocking(descriptor, False)
        offloads = _set_offloads(descriptor, allowed)
        return cls(descriptor, _name(found), offloads=offloads if has_vnet else None)

    @property
    def has_more(self) -> bool:
        """Whether the next `read` gives something though there may be nothing for poll(2)."""
        return self._super is not None or self._rest is not None

    def fileno(self) -> int:
        """For poll(2): readable also when the device was deleted, `read` then says so."""
        return self._descriptor

    def check(self) -> None:
        """Raise DeviceError when the device was deleted, which nobody reads to find out."""
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if poll.poll(0):
            self.read(1)

    def read(self, most: int = MANY, *, is_paced: bool = False) -> list[Batch]:
        """The packets that are waiting, as many as there is room for; `is_drained` tells if all.

        The kernel is asked `most` times, and gives one each time, or one for many of a flow; less
        is read where a path's rate is what limits it (`is_paced`).

        The rows have HEADROOM and TAILROOM bytes around them and are valid until the next call.
        Raises DeviceError when the device was deleted.
        """
        batches: list[Batch] = []
        self._acks, self._acks_end = [], self._rows_end + HEADROOM
        at = HEADROOM if self._rest is None else self._take_rest(self._rest, batches)
        size = _PACED_SIZE if is_paced else _ROWS_SIZE
        for _ in range(most):
            if at > size:
                break
            self.is_drained = self._super is None and not self._read_one()
            if self.is_drained:
                break
            if self._super is not None:
                at = append(batches, self._next_rows(self._super, at))
            elif self._size:
                at = self._take(batches, at)
        if self._incomplete:
            self._complete()
        if self.offloads and not self.is_drained and batches:
            self._keep_rest(batches)
        return self._acks + batches if self._acks else batches

    def take_kept(self) -> list[Batch]:
        """What was read and `read` hasn't given yet, while `has_more`: the device isn't asked."""
        batches: list[Batch] = []
        at = HEADROOM if self._rest is None else self._take_rest(self._rest, batches)
        while self._super is not None and at <= _ROWS_SIZE:
            at = append(batches, self._next_rows(self._super, at))
        return batches

    def _take_rest(self, rest: Batch, batches: list[Batch]) -> int:
        """Begin with what `_keep_rest` kept; where the next one goes."""
        self._rest = None
        size = rest.count * rest.stride
        self._buffer[HEADROOM : HEADROOM + size] = self._buffer[rest.offset : rest.offset + size]
        rest.offset, rest.stride = HEADROOM, rest.size + OVERHEAD
        return append(batches, rest)

    def _keep_rest(self, batches: list[Batch]) -> None:
        """Of many segments keep as many as would leave in a call that isn't full.

        A super-packet has a few more than fit one call: of five all but a few leave in five.
        """
        last = batches[-1]
        rest = last.count % datagrams_together(last.stride) if last.count > 1 else 0
        if 0 < rest < last.count:
            self._rest = last.run(last.count - rest, rest)
            batches[-1] = last.run(0, last.count - rest)

    def _read_one(self) -> bool:
        """Read a packet: a super-packet into `_super`, another of `_size` bytes."""
        try:
            size = os.readv(self._descriptor, self._into)
        except BlockingIOError:
            return False
        except OSError as error:
            raise DeviceError(
                f"{self.name} can't be read any more: {_reason(error)}",
                hint="was it deleted? start again",
            ) from error
        if self._has_vnet:
            size -= VNET_SIZE
            if self._read[_KIND]:
                vnet = Vnet.pull(self._read)
                self._super, self._split = SuperPacket.parse(self._read, size, vnet), 0
                self.skipped += self._super is None
                size = 0
        self._size = size
        return True

    def _take(self, batches: list[Batch], at: int) -> int:
        """Put the packet that was read into its row at `at`; where the next one goes.

        Acknowledgements go ahead of the rest: between them super-packets would be no full calls.
        """
        if (
            self._size <= _SYN_MAX
            and self._acks_end + _SYN_MAX < self._rows_end + _ACKS_SIZE
            and _is_ack(self._read, self._size)
        ):
            self._acks_end = self._put(self._acks, self._acks_end)
            return at
        return self._put(batches, at)

    def _put(self, batches: list[Batch], at: int) -> int:
        end = at + self._size
        self._view[at:end] = self._read_view[VNET_SIZE : VNET_SIZE + self._size]
        may_be_syn = self._size < _SYN_MAX or _is_syn(self._read, VNET_SIZE)
        if self._has_vnet and self._read[_FLAGS] & NEEDS_CHECKSUM:
            start, offset = _CHECKSUM.unpack_from(self._read, _CHECKSUM_AT)
            if self.leaves_bare and not may_be_syn and may_be_bare(self._buffer, at, start):
                self._buffer[at] |= BARE_BIT
            elif offset == _UDP_CHECKSUM:
                # Not one by one: where packets are small this is a third of what reading one takes.
                incomplete = self._incomplete.setdefault(start, [])
                append_row(incomplete, self._buffer, at, self._size, gap=OVERHEAD)
                return append_row(batches, self._buffer, at, self._size, gap=OVERHEAD)
            else:
                fill_in(self._buffer, at + start, at + start + offset, end)
        if may_be_syn and self.mtu:
            clamp_mss(self._view[at:end], self.mtu)
        return append_row(batches, self._buffer, at, self._size, gap=OVERHEAD)

    def _complete(self) -> None:
        """Fill in the checksums of UDP that `_take` left out."""
        for start, batches in self._incomplete.items():
            for batch in batches:
                if batch.last < batch.size:
                    fill_in_rows(batch.run(batch.count - 1, 1), start, start + _UDP_CHECKSUM)
                    batch = batch.run(0, batch.count - 1)
                fill_in_rows(batch, start, start + _UDP_CHECKSUM)
        self._incomplete.clear()

    def _next_rows(self, packet: SuperPacket, at: int) -> Batch:
        """The next segments of a super-packet, mostly all."""
        rows = split(
            packet,
            first=self._split,
            most=ROWS_MAX,
            into=self._buffer,
            offset=at,
            bare=self.leaves_bare and packet.may_be_bare,
        )
        self._split += rows.count
        if self._split == packet.segments:
            self._super = None
        return rows

    def write(self, batches: Sequence[Batch]) -> None:
        """Hand each row to the kernel, as part of a super-packet where that can be made.

        All lie in one buffer. Rows that are no IP packet count as `skipped`, those that the kernel
        refuses (the device is down or was deleted, no memory) as `dropped`.
        """
        if self.offloads and _is_worth_merging(batches):
            for count, pieces in merge(batches, udp=Offload.TUN_UDP in self.offloads):
                if isinstance(pieces, memoryview):
                    self._write_one(pieces)
                else:
                    self._write(pieces, count)
            return
        for batch in batches:
            if batch.count == 1:
                start = batch.offset
                self._write_one(memoryview(batch.buffer)[start : start + batch.size])
            elif batch.last > _SYN_MAX and _are_plain(batch):
                self._write_rows(batch.rows())
            else:
                for row in batch.rows():
                    self._write_one(row)

    def _write_one(self, row: memoryview) -> None:
        if not (_is_packet(row) or complete(row)):
            self.skipped += 1
            return
        if self.mtu and (len(row) < _SYN_MAX or _is_syn(row, 0)):
            clamp_mss(row, self.mtu)
        self._write_rows((row,))

    def _write_rows(self, rows: Iterable[memoryview]) -> None:
        """One after the other, without a look at any."""
        for row in rows:
            try:
                if self._has_vnet:
                    os.writev(self._descriptor, (PLAIN, row))
                else:
                    os.write(self._descriptor, row)
            except OSError:
                self.dropped += 1

    def _write(self, pieces: Pieces, count: int) -> None:
        try:
            os.writev(self._descriptor, pieces)
        except OSError:
            self.dropped += count

    def set_persist(self, persist: bool) -> None:
        """Whether the device stays when this process ends. Raises DeviceError."""
        try:
            fcntl.ioctl(self._descriptor, _TUNSETPERSIST, int(persist))
        except OSError as error:
            word = "persistent" if persist else "temporary"
            raise DeviceError(f"{self.name} can't be made {word}: {_reason(error)}") from error

    def close(self) -> None:
        """Detach; the device goes away unless it is persistent.

        Then it has no offloads, which who opens it next may not know of.
        """
        if self.offloads:
            _set_offloads(self._descriptor, frozenset())
        os.close(self._descriptor)


def _is_worth_merging(batches: Sequence[Batch]) -> bool:
    """Whether there are several rows, and what `merge` needs behind them."""
    if not batches or (len(batches) == 1 and batches[0].count == 1):
        return False
    last = batches[-1]
    return last.offset + last.count * last.stride + SLACK <= len(last.buffer)


def _is_ack(read: bytearray, size: int) -> bool:
    """Whether a packet behind a vnet header is TCP's and nothing but an acknowledgement.

    It may overtake data of its own flow, which does no harm. What it acknowledges is cumulative,
    and that data repeats it or says less, which is ignored (RFC 9293, 3.10.7.4: SND.UNA). Its
    number, behind that data, is within the window (where the data fills it, Linux takes it too, and
    others as if it were lost); the window that it tells is the newer one by that number (SND.WL1).
    Its timestamp isn't kept while that data is missing (RFC 7323, 4.3: SEG.SEQ <= Last.ACK.sent),
    so that the data isn't taken for old. Acknowledgements among themselves stay in order, so none
    looks like one more duplicate.

    Whatever else has a meaning by its place stays where it is: data, SYN, FIN and RST, PSH, URG,
    ECE and CWR, and what has options or headers before TCP's.
    """
    is_v4 = read[VNET_SIZE] == 0x45
    if read[VNET_SIZE + (9 if is_v4 else 6)] != TCP:
        return False
    header = V4_HEADER if is_v4 else V6_HEADER
    tcp = VNET_SIZE + header
    return read[tcp + _FLAGS_AT] == ACK and size == header + 4 * (read[tcp + 12] >> 4)


def _is_syn(buffer: bytearray | memoryview, at: int) -> bool:
    """Whether a packet of `_SYN_MAX` bytes at least is one of TCP that begins a connection.

    It carries data then, which TCP Fast Open allows (RFC 7413).
    """
    is_v4 = buffer[at] == 0x45
    if buffer[at + (9 if is_v4 else 6)] != TCP:
        return False
    return bool(buffer[at + (V4_HEADER if is_v4 else V6_HEADER) + _FLAGS_AT] & SYN)


def _are_plain(batch: Batch) -> bool:
    """Whether all rows are packets of one version, so that none has to be looked at by itself.

    Of IPv4 without options, and each exactly as long as its length field says; and none a SYN.
    """
    shape, strides = (batch.count, V6_HEADER + _FLAGS_AT + 1), (batch.stride, 1)
    table = np.ndarray(shape, np.uint8, batch.buffer, batch.offset, strides)
    is_v4 = table[0, 0] == 0x45
    lengths = table[:, 2 if is_v4 else 4] * np.uint32(256) + table[:, 3 if is_v4 else 5]
    if not is_v4:
        lengths += V6_HEADER
    if lengths[-1] != batch.last or (lengths[:-1] != batch.size).any():
        return False
    first = table[:, 0] if is_v4 else table[:, 0] >> 4
    if (first != (0x45 if is_v4 else 6)).any():
        return False
    flags = table[:, (V4_HEADER if is_v4 else V6_HEADER) + _FLAGS_AT]
    return not (flags[table[:, 9 if is_v4 else 6] == TCP] & SYN).any()


def _is_packet(row: memoryview) -> bool:
    """Whether it is IPv4 or IPv6 and holds what its length field says (RFC 791, RFC 8200)."""
    size = len(row)
    if size < V4_HEADER:
        return False
    version = row[0] >> 4
    if version == 4:
        header = (row[0] & 15) * 4
        return V4_HEADER <= header <= (row[2] << 8 | row[3]) <= size
    return version == 6 and V6_HEADER + (row[4] << 8 | row[5]) <= size


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


def _set_offloads(descriptor: int, allowed: frozenset[Offload]) -> frozenset[Offload]:
    """Ask the kernel for as many as it has; which these are."""
    for offloads, bits in _OFFLOADS.items():
        if offloads <= allowed:
            with suppress(OSError):
                fcntl.ioctl(descriptor, _TUNSETOFFLOAD, bits)
                return offloads | allowed & {Offload.BARE}
    with suppress(OSError):
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, 0)
    return frozenset()


def _attach(descriptor: int, name: str | None, flags: int) -> str:
    """The name of the device that the descriptor then stands for."""
    # An empty name means tun%d to the kernel.
    request = _IFREQ.pack((name or "").encode(), flags)
    for tries_left in reversed(range(_TRIES)):
        try:
            return _name(_IFREQ.unpack(fcntl.ioctl(descriptor, _TUNSETIFF, request))[0])
        except OSError as error:
            if error.errno != errno.EBUSY or not tries_left:
                raise _attach_error(error, name) from error
        select.poll().poll(_TRY_INTERVAL)
    raise AssertionError


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
