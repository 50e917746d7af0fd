"""The UDP socket: datagrams from and to the network, each with the addresses it travels between.

Numbers that Python doesn't name are those of linux/in.h, linux/in6.h and asm-generic/socket.h.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Container, Sequence
from contextlib import suppress

from glorytun.core.address import (
    ANY,
    EVERY_ADDRESS,
    V4_PREFIX,
    Endpoint,
    PathId,
    format_address,
    is_v4,
)
from glorytun.core.batch import MANY, SLACK, Batch, Buffer, append, append_row, together
from glorytun.errors import SocketError
from glorytun.net.features import UDP_GRO, UDP_SEGMENT, Offload, has_udp_gso
from glorytun.net.mmsg import (
    DATAGRAM_MAX,
    RECEIVED_SIZE,
    Ancillary,
    Envelope,
    ReceiveMany,
    SendMany,
    SocketAddress,
    parse,
)
from glorytun.net.offload import datagrams_together

_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_PROBE = 3
"""Don't fragment, and ignore what ICMP says of the path's MTU: ip(7)."""
_SO_MARK = 36
_SO_RXQ_OVFL = 40
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_U32 = struct.Struct("=I")
_V4_PKTINFO = struct.Struct("=I4s4s")
"""struct in_pktinfo: interface, local address, destination address in the header."""
_V6_PKTINFO = struct.Struct("=16sI")
"""struct in6_pktinfo: address, interface."""
_U16 = struct.Struct("=H")
_ANCILLARY_SPACE = socket.CMSG_SPACE(_V6_PKTINFO.size) + 2 * socket.CMSG_SPACE(_U32.size)

TRAFFIC_CLASS = 192
"""CS6, as 0.3.4 has it."""

_ROWS_SIZE = 16 * DATAGRAM_MAX
"""Room for what is taken in one go; the last of it may be a whole run of datagrams. Half a megabyte
instead of a quarter let 5 % more through one way, and 16 % more both ways at once; it takes a
millisecond and a half to pass all of this on."""
_NO_SEGMENTS = {errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP}
"""How it fails where the same datagrams may yet leave one by one: udp_send_skb()."""
_FULL_TIME = 5
"""ms that are waited for room in the socket's buffer, before what doesn't fit is dropped."""
_BUFFER_BYTES = 8 << 20
"""Of the socket, each way: about 60 ms at 1 Gbit/s."""
_CACHED_PATHS = 1024
"""Spoofed sources could fill a cache without a bound."""


class UdpSocket:
    """One non-blocking UDP socket for all paths, over IPv4, IPv6 or both."""

    def __init__(
        self,
        bound_socket: socket.socket,
        *,
        v4: bool,
        v6: bool,
        allowed: frozenset[Offload] = frozenset(Offload),
    ) -> None:
        self.v4 = v4
        """Whether it can reach IPv4 addresses."""
        self.v6 = v6
        """Whether it can reach IPv6 addresses."""
        self._socket = bound_socket
        self.bound = endpoint_of(bound_socket.getsockname())
        """What it is bound to; ``0.0.0.0`` is mapped here as every IPv4 address is."""
        self.offloads = _set_offloads(bound_socket, allowed)
        """Those in use."""
        self.is_drained = True
        """Whether the last `receive` took all there was."""
        self.overflow = 0
        """Datagrams that the socket had no room for before those that `receive` gave last."""
        self.unsent: list[Batch] = []
        """Rows that `send` failed to send last."""
        self._overflows: int | None = 0
        """As the kernel counts them, each run of segments as one, modulo 2^32; None: unknown."""
        self._buffer = Buffer(max(_ROWS_SIZE, RECEIVED_SIZE) + SLACK)
        self._view = memoryview(self._buffer)
        self._many_in = ReceiveMany(bound_socket.fileno(), self._buffer)
        self._many_out = SendMany(bound_socket.fileno())
        self._has_runs = False
        """Whether what came last had been put together by the kernel."""
        self._received: dict[tuple[object, bytes], PathId] = {}
        self._infos: dict[bytes, tuple[PathId, int, int]] = {}
        """What came with a datagram: its path, the size of its segments, and the overflows."""
        self._interfaces: dict[bytes, int] = {}
        self._unsourced: Container[PathId] = ()
        self._sent: dict[PathId, tuple[Ancillary, SocketAddress, Envelope]] = {}
        self.traffic_class = 0
        """The byte in the IP header (DSCP << 2) of what is sent."""

    @classmethod
    def open(
        cls,
        address: str,
        port: int,
        *,
        traffic_class: int = TRAFFIC_CLASS,
        allowed: frozenset[Offload] = frozenset(Offload),
    ) -> "UdpSocket":
        """Bind to an IP address of this host; ``0.0.0.0`` is all of IPv4, ``::`` all of both.

        A link-local address needs its interface: ``fe80::1%eth0``. Port 0 lets the kernel pick.
        `traffic_class` is the byte in the IP header (DSCP << 2). Of the offloads `allowed` those
        are used that the kernel has. Raises SocketError.
        """
        family, where = _parse(address, port)
        v6 = family == socket.AF_INET6
        v4 = not v6 or where[0] == "::"
        try:
            opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise _open_error(error, address, port) from error
        try:
            if v6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not v4))
            _set_options(opened, v4=v4, v6=v6)
            opened.bind(where)
            bound = cls(opened, v4=v4, v6=v6, allowed=allowed)
            bound.set_traffic_class(traffic_class)
        except OSError as error:
            opened.close()
            raise _open_error(error, address, port) from error
        return bound

    @classmethod
    def adopt(
        cls,
        descriptor: int,
        address: str,
        port: int,
        *,
        traffic_class: int = TRAFFIC_CLASS,
        allowed: frozenset[Offload] = frozenset(Offload),
    ) -> "UdpSocket | None":
        """One that another process opened; None when it isn't bound to this.

        The descriptor is then still the caller's. Raises SocketError.
        """
        family, where = _parse(address, port)
        v6 = family == socket.AF_INET6
        v4 = not v6 or where[0] == "::"
        try:
            opened = socket.socket(fileno=descriptor)
        except OSError:
            return None
        try:
            if not _is_bound(opened, family, where):
                opened.detach()
                return None
            opened.setblocking(False)
            _set_options(opened, v4=v4, v6=v6)
            bound = cls(opened, v4=v4, v6=v6, allowed=allowed)
            bound._overflows = None
            bound.set_traffic_class(traffic_class)
        except OSError as error:
            opened.close()
            raise _open_error(error, address, port) from error
        return bound

    def fileno(self) -> int:
        """For poll(2)."""
        return self._socket.fileno()

    def receive(self, most: int = MANY) -> list[tuple[Batch, PathId]]:
        """The datagrams that are waiting, each batch with the path it came on; see `is_drained`.

        The kernel is asked `most` times, and gives one each time, or as many as it could put
        together; when it had put none together before, it is asked for many at once.
        The path's local address is the one the datagrams were sent to. The rows lie in one buffer
        and are valid until the next call. Raises SocketError when the socket is of no use any more.
        """
        if most > 1 and not self._has_runs:
            return self._receive_many()
        received: list[tuple[Batch, PathId]] = []
        batches: list[Batch] = []
        """Those of the last path."""
        at = self.overflow = 0
        self.is_drained = self._has_runs = False
        for _ in range(most):
            if at > _ROWS_SIZE - DATAGRAM_MAX:
                break
            into = (self._view[at : at + DATAGRAM_MAX],)
            try:
                size, ancillary, _, source = self._socket.recvmsg_into(into, _ANCILLARY_SPACE)
            except BlockingIOError:
                self.is_drained = True
                break
            except OSError as error:
                raise self._broken(error) from error
            info, segment, overflows = _pull_ancillary(ancillary)
            path = self._received.get((source, info)) or self._learn(source, info)
            if received and received[-1][1] != path:
                batches = []
            known = len(batches)
            if 0 < segment < size:
                at = append(batches, _segments(self._buffer, at, size, segment))
                self._has_runs = True
            else:
                at = append_row(batches, self._buffer, at, size, gap=0)
            if overflows != self._overflows:
                self._note_overflows(overflows, size, segment)
            if len(batches) > known:
                received.append((batches[-1], path))
        return received

    def _receive_many(self) -> list[tuple[Batch, PathId]]:
        """The same for datagrams that come one by one."""
        received: list[tuple[Batch, PathId]] = []
        self.overflow = 0
        self.is_drained = True
        try:
            found = self._many_in.receive()
        except BlockingIOError:
            return received
        except OSError as error:
            raise self._broken(error) from error
        self.is_drained = self._many_in.is_drained
        for rows, info in found:
            path, segment, overflows = self._infos.get(info) or self._learn_info(info)
            if 0 < segment < rows.size:
                received += [
                    (_segments(self._buffer, at, rows.size, segment), path) for at in rows.starts()
                ]
                self._has_runs = True
            else:
                received.append((rows, path))
            if overflows != self._overflows:
                self._note_overflows(overflows, rows.size, segment)
        return received

    def _note_overflows(self, overflows: int, size: int, segment: int) -> None:
        """The kernel has counted more. They were like the one that tells, as far as we can know."""
        before = overflows if self._overflows is None else self._overflows
        datagrams = max(1, size // (segment or size or 1))
        self.overflow += ((overflows - before) & 0xFFFFFFFF) * datagrams
        self._overflows = overflows

    def _broken(self, error: OSError) -> SocketError:
        return SocketError(
            f"nothing can be received on {self.bound} any more: {_reason(error)}",
            hint="start again",
        )

    def send(self, path: PathId, *runs: Batch) -> int:
        """Send each row as one datagram from the path's local address; ANY: the kernel picks one.

        All rows are of one size, but the last of the last run may be shorter. Returns 0, or the
        errno of the first row that failed; the others are still tried, and `unsent` has the rest.
        """
        self.unsent = []
        encoded = self._sent.get(path)
        if encoded is None:
            if not self.v6 and not is_v4(path.remote.address):
                self.unsent += runs
                return errno.EAFNOSUPPORT
            encoded = self._encode(path)
        if len(runs) == runs[0].count == 1:
            failure = self._send_one([runs[0].data()], *encoded[:2])
            self.unsent += runs if failure else ()
            return failure
        if Offload.UDP_GSO not in self.offloads or not all(run.is_dense for run in runs):
            return self._send_each(runs, *encoded)
        failure = 0
        for group in together(runs, datagrams_together(runs[0].size)):
            one_failure = self._send_group(group, *encoded)
            failure = failure or one_failure
        return failure

    def _send_group(
        self,
        runs: Sequence[Batch],
        ancillary: Ancillary,
        destination: SocketAddress,
        envelope: Envelope,
    ) -> int:
        """Send as many rows as the kernel takes at once."""
        if len(runs) == runs[0].count == 1:
            return self._send_each(runs, ancillary, destination, envelope)
        segments = (socket.SOL_UDP, UDP_SEGMENT, _U16.pack(runs[0].size))
        data = [run.data() for run in runs]
        failure = self._send_one(data, [*ancillary, segments], destination)
        if failure not in _NO_SEGMENTS:
            self.unsent += runs if failure else ()
            return failure
        failure_of_rows = self._send_each(runs, ancillary, destination, envelope)
        if failure == errno.EIO and not failure_of_rows:
            self.offloads -= {Offload.UDP_GSO}  # A device without checksums, or IPsec.
        return failure_of_rows

    def _send_each(
        self,
        runs: Sequence[Batch],
        ancillary: Ancillary,
        destination: SocketAddress,
        envelope: Envelope,
    ) -> int:
        """Send row by row."""
        failure = 0
        for run in runs:
            first = 0
            while first < run.count:
                sent, error = self._send_some(
                    run.run(first, run.count - first), ancillary, destination, envelope
                )
                if error:
                    self.unsent.append(run.run(first, 1))
                failure = failure or error
                first += sent
        return failure

    def _send_some(
        self, rows: Batch, ancillary: Ancillary, destination: SocketAddress, envelope: Envelope
    ) -> tuple[int, int]:
        """How many of the first rows were tried, and the errno of the only one that failed."""
        first = [next(rows.rows())]
        if rows.count == 1:
            return 1, self._send_one(first, ancillary, destination)
        sent, error = self._many_out.send(rows, envelope)
        if error == errno.EAGAIN:
            error = self._send_late(first, ancillary, destination)
        return sent or 1, error

    def _send_one(
        self, data: Sequence[memoryview], ancillary: Ancillary, destination: SocketAddress
    ) -> int:
        try:
            self._socket.sendmsg(data, ancillary, 0, destination)
        except BlockingIOError:
            return self._send_late(data, ancillary, destination)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _send_late(
        self, data: Sequence[memoryview], ancillary: Ancillary, destination: SocketAddress
    ) -> int:
        """Wait a little for the interface, whose queue is full: what waits elsewhere isn't lost."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        poll.poll(_FULL_TIME)
        try:
            self._socket.sendmsg(data, ancillary, 0, destination)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def set_interfaces(
        self, interfaces: dict[bytes, int], *, unsourced: Container[PathId] = ()
    ) -> None:
        """Let what is sent from an address (16 bytes) leave by one interface (its index) only.

        The routes are then those of that interface (ip(7), IP_PKTINFO), so that a second path
        doesn't leave by the default route. From other addresses the routes decide.

        In IPv6 the interface is only a wish where the source is given (ip6_route_output_flags()).
        So it is left out on the `unsourced` paths, for which the kernel would choose the same.
        """
        self._interfaces = interfaces
        self._unsourced = unsourced
        self._sent.clear()

    def set_traffic_class(self, traffic_class: int) -> None:
        """The byte in the IP header (DSCP << 2) of what is sent from now on."""
        if self.v4:
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
        if self.v6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        self.traffic_class = traffic_class

    def set_mark(self, mark: int) -> None:
        """The mark of what is sent from now on, 0 is none (SO_MARK, socket(7)). Raises SocketError.

        Policy rules can keep marked datagrams out of the tunnel itself.
        """
        value = _U32.pack(mark)
        if self._socket.getsockopt(socket.SOL_SOCKET, _SO_MARK, _U32.size) == value:
            return
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_MARK, value)
        except OSError as error:
            raise SocketError(
                f"datagrams can't be given the mark {mark:#x}: {_reason(error)}",
                hint="run as root, or with CAP_NET_ADMIN",
            ) from error

    def close(self) -> None:
        """Free the port."""
        self._socket.close()

    def _learn(self, source: SocketAddress, info: bytes) -> PathId:
        """The path between two addresses as recvmsg(2) gives them."""
        remote = endpoint_of(source)
        local = info[:16] if self.v6 else V4_PREFIX + info[8:12]
        if len(self._received) >= _CACHED_PATHS:
            self._received.clear()
        path = self._received[source, info] = PathId(local, remote)
        return path

    def _learn_info(self, info: bytes) -> tuple[PathId, int, int]:
        """The path, the size of segments and the overflows, of what recvmmsg(2) gave."""
        source, ancillary = parse(info)
        local, segment, overflows = _pull_ancillary(ancillary)
        if len(self._infos) >= _CACHED_PATHS:
            self._infos.clear()
        found = self._infos[info] = self._learn(source, local), segment, overflows
        return found

    def _encode(self, path: PathId) -> tuple[Ancillary, SocketAddress, Envelope]:
        """The arguments of sendmsg(2) that make a datagram take a path."""
        local, remote = path
        destination: SocketAddress
        interface = self._interfaces.get(local, 0)
        if self.v6:
            # A mapped source address in IPV6_PKTINFO serves IPv4: ip_cmsg_send().
            level, kind = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
            source = ANY if path in self._unsourced else local
            info = _V6_PKTINFO.pack(source, remote.scope or interface)
            text = socket.inet_ntop(socket.AF_INET6, remote.address)
            destination = (text, remote.port, 0, remote.scope)
        else:
            level, kind = socket.IPPROTO_IP, _IP_PKTINFO
            info = _V4_PKTINFO.pack(interface, local[12:], bytes(4))
            destination = (format_address(remote.address), remote.port)
        free = local in EVERY_ADDRESS
        if len(self._sent) >= _CACHED_PATHS:
            self._sent.clear()
        ancillary = [] if free else [(level, kind, info)]
        envelope = Envelope(self._socket.family, destination, ancillary)
        encoded = self._sent[path] = ancillary, destination, envelope
        return encoded


def _segments(buffer: Buffer, at: int, size: int, segment: int) -> Batch:
    """What the kernel put together into `size` bytes."""
    count = -(-size // segment)
    return Batch(buffer, at, segment, count, segment, size - (count - 1) * segment)


def _pull_ancillary(ancillary: Ancillary) -> tuple[bytes, int, int]:
    """What came with a datagram: the packet info, the size of its segments if it has any, and how
    many the socket had no room for until now."""
    info, segment, overflows = b"", 0, 0
    for level, _, data in ancillary:
        if level == socket.SOL_UDP:
            segment = _U32.unpack(data)[0]
        elif level == socket.SOL_SOCKET:
            overflows = _U32.unpack(data)[0]
        else:
            info = data
    return info, segment, overflows


def _set_offloads(opened: socket.socket, allowed: frozenset[Offload]) -> frozenset[Offload]:
    """Which of those allowed the kernel has; also switches off what another process left on."""
    used = {Offload.UDP_GSO} if Offload.UDP_GSO in allowed and has_udp_gso() else set()
    wanted = Offload.UDP_GRO in allowed
    with suppress(OSError):
        opened.setsockopt(socket.SOL_UDP, UDP_GRO, int(wanted))
        used |= {Offload.UDP_GRO} if wanted else set()
    return frozenset(used)


def _parse(address: str, port: int) -> tuple[socket.AddressFamily, SocketAddress]:
    """The family and socket address of a numeric address."""
    flags = socket.AI_NUMERICHOST
    try:
        found = socket.getaddrinfo(address or "-", port, type=socket.SOCK_DGRAM, flags=flags)
    except (socket.gaierror, UnicodeError) as error:
        raise SocketError(
            f"{address!r} is no IP address of this host",
            hint="0.0.0.0 stands for all IPv4 addresses, :: for all of IPv4 and IPv6",
        ) from error
    family, _, _, _, where = found[0]
    return family, where  # type: ignore[return-value]  # typeshed allows for Pythons without IPv6


def _is_bound(opened: socket.socket, family: socket.AddressFamily, where: SocketAddress) -> bool:
    """Whether a socket is a UDP socket that `open` would have made for an address."""
    if (opened.family, opened.type) != (family, socket.SOCK_DGRAM):
        return False
    if endpoint_of(opened.getsockname()) != endpoint_of(where):
        return False
    if family == socket.AF_INET:
        return True
    only = opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return bool(only) == (where[0] != "::")


def _set_options(opened: socket.socket, *, v4: bool, v6: bool) -> None:
    """Everything that must hold before the first datagram, and may be set again later."""
    if v4:
        opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    if v6:
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        # Else the host itself fragments what is too big for the link: ip6_append_data().
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
        # Also reports IPv4 addresses, mapped: ip6_datagram_recv_common_ctl().
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    _set_buffer(opened, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
    _set_buffer(opened, _SO_SNDBUFFORCE, socket.SO_SNDBUF)


def _set_buffer(opened: socket.socket, force: int, option: int) -> None:
    """As large as wanted with CAP_NET_ADMIN, else as large as net.core.*mem_max allows."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, force, _BUFFER_BYTES)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)


def _open_error(error: OSError, address: str, port: int) -> SocketError:
    match error.errno:
        case errno.EADDRINUSE:
            return SocketError(
                f"port {port} on {address} is in use",
                hint="`ss -ulpn` shows by which program; choose another port",
            )
        case errno.EADDRNOTAVAIL | errno.ENODEV:
            return SocketError(
                f"{address} is not an address of this host, or not ready yet",
                hint="`ip address` lists them",
            )
        case errno.EACCES | errno.EPERM:
            return SocketError(
                f"no permission to bind port {port} on {address}",
                hint="choose a port from 1024 on, or run as root",
            )
        case errno.EAFNOSUPPORT:
            return SocketError(
                f"{address} can't be used: this host has IPv6 switched off",
                hint="bind 0.0.0.0 instead",
            )
        case errno.EINVAL if address.lower().startswith("fe80:"):
            return SocketError(
                f"{address} is link-local and needs its interface",
                hint=f"for example {address}%eth0",
            )
    return SocketError(f"port {port} on {address} can't be bound: {_reason(error)}")


def endpoint_of(where: tuple[object, ...]) -> Endpoint:
    """From a socket address of either family as Python has it."""
    host, port = str(where[0]), where[1]
    assert isinstance(port, int)
    if len(where) == 2:
        return Endpoint(V4_PREFIX + socket.inet_pton(socket.AF_INET, host), port)
    address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    scope = where[3]
    assert isinstance(scope, int)
    return Endpoint(address, port, scope)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)
