"""The TUN device of a real kernel, in one namespace:

┌─────────────────────────────────────┐
│ host                                │
│ tun0 10.9.1.1/24, fd09:1::1/64 ═════╪═══ the test, which answers pings
└─────────────────────────────────────┘
"""

import errno
import fcntl
import os
import stat
import struct
import sys
import threading
from collections.abc import Iterator

import pytest

from glorytun.core.batch import Batch
from glorytun.errors import DeviceError
from glorytun.net import links
from glorytun.net.features import Offload
from glorytun.net.tun import HEADROOM, Tun
from tests.netns.topology import Host, Lab
from tests.netns.wait import wait_for

ECHO = {4: (20, 8, 0), 6: (40, 128, 129)}
"""By IP version: where ICMP starts, the types of a request and of its reply."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Lab() as lab:
        yield lab.host("tun")


def open_tun(host: Host, name: str | None, *, persist: bool | None = None) -> Tun:
    return host.within(lambda: Tun.open(name, persist=persist))


@pytest.fixture
def tun(host: Host) -> Iterator[Tun]:
    """tun0, up and with addresses."""
    opened = open_tun(host, "tun0")
    host.ip(
        "addr add 10.9.1.1/24 dev tun0",
        "addr add fd09:1::1/64 dev tun0 nodad",
        "link set tun0 up",
    )
    yield opened
    opened.close()


def failure(host: Host, *prefix: str, name: str = "tun9") -> str:
    """What Tun.open says in a process of its own, started with `prefix`."""
    code = (
        "import os, sys\n"
        "from glorytun.errors import DeviceError\n"
        "from glorytun.net.tun import Tun\n"
        "try:\n"
        f"    Tun.open({name!r}, persist=None)\n"
        "except DeviceError as error:\n"
        "    print(error)\n"
    )
    return host.run(*prefix, sys.executable, "-c", code).stdout.strip()


def reply_to(packet: bytes) -> bytes | None:
    """The answer to an ICMP echo request, or None to anything else."""
    start, request, reply = ECHO[packet[0] >> 4]
    answer = bytearray(packet)
    if packet[9 if start == 20 else 6] not in {1, 58} or packet[start] != request:
        return None
    half = 4 if start == 20 else 16
    source = start - 2 * half
    answer[source:start] = packet[source + half : start] + packet[source : source + half]
    answer[start] = reply
    checksum = int.from_bytes(packet[start + 2 : start + 4], "big") + ((request - reply) << 8)
    checksum = (checksum & 0xFFFF) + (checksum >> 16)
    answer[start + 2 : start + 4] = (checksum & 0xFFFF).to_bytes(2, "big")
    return bytes(answer)


def answer_ping(tun: Tun) -> bytes | None:
    """Answer the next packet if it is a ping, and return it."""
    packets = [bytes(row) for batch in tun.read() for row in batch.rows()]
    if not packets:
        return None
    (packet,) = packets
    answer = reply_to(packet)
    if answer is None:
        return None
    tun.write([Batch.of(answer)])
    return packet


@pytest.mark.parametrize("address", ["10.9.1.2", "fd09:1::2"])
@pytest.mark.parametrize("size", [0, 1000, 65000])
def test_ping(host: Host, tun: Tun, address: str, size: int) -> None:
    """The kernel's own packets come out, and what is written goes in, up to the largest."""
    host.within(lambda: links.set_mtu("tun0", 65535))
    command = ["ip", "netns", "exec", host.netns, "ping", "-c1", "-W5", f"-s{size}", address]
    child = os.posix_spawnp(
        "ip",
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_RDWR, 0)],
    )
    packet = wait_for(lambda: answer_ping(tun), timeout=5, what="the echo request")
    assert packet
    assert len(packet) == size + (28 if packet[0] >> 4 == 4 else 48)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tun.skipped, tun.dropped) == (0, 0)


def test_room_around_a_packet(host: Host, tun: Tun) -> None:
    """What is read lies where it can be sealed in place."""
    host.ping("10.9.1.2", count=1, wait=0.01)
    (batch, *_) = wait_for(tun.read, timeout=5, what="a packet") or []
    assert batch.offset == HEADROOM
    assert batch.count == 1
    assert next(batch.rows())[0] >> 4 in {4, 6}


def test_kernel_picks_the_name(host: Host) -> None:
    """Without a name it is tun and a number; the device goes with its owner."""
    opened = open_tun(host, None)
    assert opened.name.removeprefix("tun").isdigit()
    assert host.device(opened.name)
    opened.close()
    assert host.device(opened.name) is None


def test_descriptor_is_not_inherited(tun: Tun) -> None:
    """A child process must not keep the device alive, and nothing may block."""
    assert not os.get_inheritable(tun.fileno())
    assert not os.get_blocking(tun.fileno())
    assert stat.S_ISCHR(os.fstat(tun.fileno()).st_mode)


def test_persist(host: Host) -> None:
    """True keeps the device, None leaves that alone, False ends it."""
    open_tun(host, "tun3", persist=True).close()
    assert host.device("tun3")
    open_tun(host, "tun3").close()
    assert host.device("tun3")
    open_tun(host, "tun3", persist=False).close()
    assert host.device("tun3") is None


def test_in_use(host: Host, tun: Tun) -> None:
    """A second daemon on one device."""
    with pytest.raises(DeviceError) as caught:
        open_tun(host, "tun0")
    assert str(caught.value) == (
        "tun0 is in use by another process "
        "(choose another name; `glorytun list` shows running tunnels)"
    )


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        ("link add other type veth peer name other2", "is no TUN device"),
        ("tuntap add dev other mode tap", "is no TUN device"),
        ("tuntap add dev other mode tun multi_queue", "is a TUN device with several queues"),
    ],
)
def test_name_of_another_device(host: Host, make: str, kind: str) -> None:
    """What it is instead is said."""
    host.ip(make)
    try:
        assert failure(host, name="other") == (
            f"other exists and {kind} "
            "(choose another name, or remove it with `ip link delete other`)"
        )
    finally:
        host.ip("link delete other")


def test_no_capability(host: Host) -> None:
    """The process may open /dev/net/tun, but has no CAP_NET_ADMIN."""
    message = "no permission to open tun9 (run as root, or with CAP_NET_ADMIN)"
    assert failure(host, "setpriv", "--bounding-set", "-net_admin") == message


def test_no_permission_for_the_control_device(host: Host) -> None:
    """/dev/net/tun itself is closed: the owner without CAP_DAC_OVERRIDE is like anybody."""
    shell = (
        "mount -t tmpfs none /dev/net && mknod -m 0 /dev/net/tun c 10 200 &&"
        ' exec setpriv --bounding-set -dac_override "$@"'
    )
    message = "no permission to open a TUN device (run as root, or with CAP_NET_ADMIN)"
    assert failure(host, "unshare", "-m", "sh", "-c", shell, "sh") == message


def test_no_control_device(host: Host) -> None:
    """A container without /dev/net/tun, or a kernel without the module."""
    shell = 'mount -t tmpfs none /dev/net && exec "$@"'
    assert failure(host, "unshare", "-m", "sh", "-c", shell, "sh") == (
        "TUN devices aren't available: /dev/net/tun: No such file or directory "
        "(load the kernel's module with `modprobe tun`; "
        "a container must be given /dev/net/tun by its host)"
    )


def test_device_that_is_down(host: Host, tun: Tun) -> None:
    """Packets are dropped and counted; nothing raises."""
    host.ip("link set tun0 down")
    packet = bytes.fromhex("4500001400000000400100000a0901020a090101")
    tun.write([Batch.of(packet)])
    assert (tun.skipped, tun.dropped) == (0, 1)
    # What the kernel queued before comes out still.
    wait_for(lambda: not tun.read(), timeout=5, what="an empty queue")


def test_device_that_was_deleted(host: Host) -> None:
    """Reading says so, writing doesn't."""
    opened = open_tun(host, "tun4")
    host.ip("link delete tun4")
    opened.write([Batch.of(bytes.fromhex("4500001400000000400100000a0901020a090101"))])
    assert opened.dropped == 1
    with pytest.raises(DeviceError) as caught:
        opened.read()
    assert str(caught.value) == (
        f"tun4 can't be read any more: {os.strerror(errno.EBADFD)} (was it deleted? start again)"
    )
    opened.close()


def test_a_device_of_the_last_process(host: Host) -> None:
    """Packets wait in what it left open; its name and shape must fit."""
    first = open_tun(host, "tun5")
    host.ip("addr add 10.9.5.1/24 dev tun5", "link set tun5 up")
    left = os.dup(first.fileno())
    first.close()
    host.run("ping", "-c", "1", "-W", "1", "10.9.5.2", check=False)
    assert Tun.adopt(left, "tun6") is None
    adopted = Tun.adopt(left, "tun5")
    assert adopted
    assert adopted.name == "tun5"
    received = wait_for(adopted.read, timeout=5, what="the ping")
    assert received
    host.ip("link delete tun5")
    assert Tun.adopt(left, "tun5") is None, "it was deleted"
    adopted.close()


def test_what_is_no_device_of_ours(host: Host) -> None:
    """Nothing else is taken for one, and it stays open."""

    def open_tap() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
        request = struct.pack("16sH22x", b"tun7", 0x1002)  # IFF_TAP | IFF_NO_PI
        fcntl.ioctl(descriptor, 0x400454CA, request)
        return descriptor

    ends = os.pipe()
    for other in (ends[0], host.within(open_tap)):
        assert Tun.adopt(other, "tun7") is None
        os.close(other)
    os.close(ends[1])


@pytest.mark.parametrize("allowed", [frozenset(Offload), frozenset({Offload.TUN}), frozenset()])
def test_offloads(host: Host, allowed: frozenset[Offload]) -> None:
    """Those that are allowed and there are in use, and the device says so."""
    opened = host.within(lambda: Tun.open("tun8", persist=None, allowed=allowed))
    assert opened.offloads <= allowed
    features = host.run("ethtool", "-k", "tun8", check=False).stdout
    if features:
        assert ("tcp-segmentation-offload: on" in features) == (Offload.TUN in allowed)
    opened.close()


def test_offloads_do_not_outlive_us(host: Host) -> None:
    """Who opens a persistent device afterwards, without them, gets packets and nothing else."""
    open_tun(host, "tun8", persist=True).close()
    plain = host.within(lambda: Tun.open("tun8", persist=False, allowed=frozenset()))
    host.ip("addr add 10.9.8.1/24 dev tun8", "link set tun8 up")
    host.run("ping", "-c", "1", "-W", "1", "10.9.8.2", check=False)
    batches = wait_for(plain.read, timeout=5, what="the ping")
    assert batches
    assert next(batches[-1].rows())[0] >> 4 in {4, 6}
    plain.close()


@pytest.mark.parametrize("before", [frozenset(Offload), frozenset[Offload]()])
def test_a_device_of_another_shape_is_not_adopted(host: Host, before: frozenset[Offload]) -> None:
    """With vnet headers or without, that can't be changed."""
    first = host.within(lambda: Tun.open("tun8", persist=None, allowed=before))
    left = os.dup(first.fileno())
    first.close()
    assert Tun.adopt(left, "tun8", allowed=frozenset(Offload) - before) is None
    adopted = Tun.adopt(left, "tun8", allowed=before)
    assert adopted
    adopted.close()


def test_a_device_that_is_let_go_is_waited_for(host: Host) -> None:
    """The last process may still hold it for a moment."""
    first = open_tun(host, "tun8", persist=True)
    letting_go = threading.Timer(0.1, first.close)
    letting_go.start()
    open_tun(host, "tun8", persist=False).close()
    letting_go.join()
