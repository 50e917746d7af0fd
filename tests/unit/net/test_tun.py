"""What a Tun does with rows and names, without a device."""

import os
import socket
from collections.abc import Iterator

import pytest

from glorytun.core.batch import Batch
from glorytun.errors import DeviceError
from glorytun.net.tun import HEADROOM, TAILROOM, Tun

V4 = bytes.fromhex("450000180000000040110000 0a000001 0a000002") + bytes(4)
V6 = bytes.fromhex("6000000000041140") + bytes(32) + bytes(4)


@pytest.fixture
def ends() -> Iterator[tuple[Tun, socket.socket]]:
    """A Tun on one end of a datagram socket, and the other end."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    far.setblocking(False)
    tun = Tun(near.detach(), "tun-test")
    yield tun, far
    tun.close()
    far.close()


def test_read(ends: tuple[Tun, socket.socket]) -> None:
    """A packet comes with room for the time field and the tag around it."""
    tun, far = ends
    assert tun.read() == []
    far.send(V4)
    (batch,) = tun.read()
    assert [bytes(row) for row in batch.rows()] == [V4]
    assert batch.offset == HEADROOM
    assert len(batch.buffer) >= HEADROOM + 65536 + TAILROOM
    assert tun.read() == []


def test_write(ends: tuple[Tun, socket.socket]) -> None:
    """Each row is one packet."""
    tun, far = ends
    tun.write([Batch(bytearray(b"123" + V4 + b"67" + V4[:-1]), 3, len(V4) + 2, 2, len(V4), 23)])
    tun.write([Batch.of(V6)])
    assert far.recv(100) == V4
    # The second row is a byte too short for its length field.
    assert far.recv(100) == V6
    assert (tun.skipped, tun.dropped) == (1, 0)


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\0",
        V4[:19],
        V4[:-1],
        b"\x44" + V4[1:],
        b"\x46\0\0\x17" + V4[4:],
        b"\x45\0\0\x13" + V4[4:],
        b"\x55" + V4[1:],
        V6[:39],
        V6[:-1],
    ],
)
def test_what_is_no_packet_is_skipped(ends: tuple[Tun, socket.socket], row: bytes) -> None:
    """The kernel never sees it."""
    tun, far = ends
    tun.write([Batch.of(row)])
    with pytest.raises(BlockingIOError):
        far.recv(100)
    assert (tun.skipped, tun.dropped) == (1, 0)


def test_padding_behind_a_packet_is_fine(ends: tuple[Tun, socket.socket]) -> None:
    """As a link layer may add it."""
    tun, far = ends
    tun.write([Batch.of(V4 + b"\0")])
    assert far.recv(100) == V4 + b"\0"


def test_would_block_is_counted(ends: tuple[Tun, socket.socket]) -> None:
    """What doesn't fit is dropped, as a full network device does."""
    tun, _ = ends
    for _ in range(10_000):
        tun.write([Batch.of(V4)])
    assert tun.dropped > 0
    assert tun.skipped == 0


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "tun%d", "a:1", "x" * 16, "a\0b"])
def test_bad_name(name: str) -> None:
    """It is refused before the kernel is asked."""
    with pytest.raises(DeviceError) as caught:
        Tun.open(name, persist=None)
    assert str(caught.value) == (
        f"{name!r} can't be the name of a network device "
        "(1 to 15 characters without spaces, '/', ':' and '%')"
    )


def test_persist_fails_on_what_is_no_tun(ends: tuple[Tun, socket.socket]) -> None:
    """The message says which device."""
    tun, _ = ends
    with pytest.raises(DeviceError, match="tun-test can't be made persistent: "):
        tun.set_persist(True)


def test_other_failures_say_what_the_kernel_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error without an explanation of ours still names the device."""

    def fail(*_: object) -> bytes:
        raise OSError(12, "")

    monkeypatch.setattr("glorytun.net.tun._open_control", lambda: os.open("/dev/null", os.O_RDWR))
    monkeypatch.setattr("glorytun.net.tun.fcntl.ioctl", fail)
    with pytest.raises(DeviceError) as caught:
        Tun.open("tun7", persist=None)
    assert str(caught.value) == "tun7 can't be opened: Cannot allocate memory"
