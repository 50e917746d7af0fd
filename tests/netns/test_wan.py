"""The emulator of links on real interfaces: what it promises to the tests that use it."""

import re
import socket
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.emulator.model import Profile
from tests.netns.topology import Host, Lab
from tests.netns.traffic import Stream, transfer
from tests.wan import DOWN, UP, Wan

SERVER, CLIENT = "10.9.1.2", "10.9.1.1"


@pytest.fixture(scope="module")
def wide() -> Iterator[Wan]:
    with Lab() as lab, Wan(lab, Profile(), Profile()) as wan:
        yield wan


@pytest.fixture
def wan(wide: Wan) -> Wan:
    """One that does nothing yet."""
    for link in wide.links:
        link.become(Profile())
    return wide


def round_trips(host: Host, to: str, *, count: int = 100) -> list[float]:
    """ms."""
    result = host.run("ping", "-n", "-c", str(count), "-i", "0.005", "-W", "1", to)
    return [float(text) for text in re.findall(r"time=([\d.]+)", result.stdout)]


@pytest.mark.parametrize("delay", [0.5, 10, 150])
def test_delay(wan: Wan, delay: float) -> None:
    """Frames are late by what was asked for, within 0.3 ms, in each direction by its own."""
    wan.links[0].change(UP, delay=delay)
    wan.links[0].change(DOWN, delay=1)
    trips = round_trips(wan.topology.client, SERVER)
    assert statistics.median(trips) - (delay + 1) == pytest.approx(0.3, abs=0.3)
    assert statistics.quantiles(trips, n=10)[8] - (delay + 1) < 0.8


@pytest.mark.parametrize("rate", [2, 20, 100])
def test_rate(wan: Wan, rate: float) -> None:
    """Frames pass at the rate, both ways at once, within 2 %."""
    wan.links[0].change(rate=rate, delay=2)
    flood(wan.topology.client, wan.topology.server, SERVER, seconds=0.1, both=CLIENT)
    before = wan.counters()[0]
    started = time.monotonic()
    flood(wan.topology.client, wan.topology.server, SERVER, seconds=1, both=CLIENT)
    after = wan.counters()[0]
    seconds = time.monotonic() - started
    for direction in (UP, DOWN):
        sent = after[direction].sent_bytes - before[direction].sent_bytes
        assert sent * 8 / 1e6 / seconds == pytest.approx(rate, rel=0.02)
        assert not after[direction].missed
        assert after[direction].late_ms < 3


def flood(one: Host, other: Host, to: str, *, seconds: float, both: str = "") -> None:
    """Send more than any link here carries, and take in what arrives."""
    ends = [(one, other, to), *([(other, one, both)] if both else [])]
    pairs = []
    for source, target, name in ends:
        receiver = target.socket(4, socket.SOCK_DGRAM)
        receiver.bind((name, 0))
        sender = source.socket(4, socket.SOCK_DGRAM)
        sender.connect(receiver.getsockname())
        sender.setblocking(False)
        pairs.append((sender, receiver))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for sender, _ in pairs:
            for _ in range(16):
                sender.send(bytes(1472))
        time.sleep(0.001)
    for pair in pairs:
        for made in pair:
            made.close()


def test_loss(wan: Wan) -> None:
    """The share that was asked for is lost, and counted as that."""
    wan.links[0].change(UP, loss=0.2)
    lost = wan.links[0].counters(UP).lost
    with Stream(wan.topology.client, wan.topology.server, SERVER, rate=2000) as stream:
        stream.flow(1600)
    report = stream.report
    assert len(report.lost) / len(report.sent) == pytest.approx(0.2, abs=0.05)
    assert wan.links[0].counters(UP).lost - lost == len(report.lost)


def test_duplicates(wan: Wan) -> None:
    wan.links[0].change(UP, duplicate=0.5)
    with Stream(wan.topology.client, wan.topology.server, SERVER, rate=2000) as stream:
        stream.flow(1000)
    assert not stream.report.lost
    assert stream.report.duplicates / len(stream.report.sent) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("icmp", [False, True], ids=["silent", "told"])
def test_mtu(wan: Wan, *, icmp: bool) -> None:
    """What is larger is dropped, and its sender told of it or not."""
    wan.links[0].change(UP, mtu=1400, icmp=icmp)
    client = wan.topology.client
    assert client.ping(SERVER, "-M", "do", "-s", str(1400 - 28)).received == 3
    assert not client.ping(SERVER, "-M", "do", "-s", str(1401 - 28), wait=0.2).received
    told = client.run("ip", "route", "get", SERVER).stdout
    assert ("mtu 1400" in told) == icmp


def test_cut_and_mended(wan: Wan) -> None:
    """A link that is cut carries nothing, though it looks up; the other one goes on."""
    client = wan.topology.client
    assert client.ping("10.9.2.2").received == 3
    wan.links[1].change(cut=True)
    assert not client.ping("10.9.2.2", wait=0.2).received
    assert client.ping(SERVER).received == 3
    wan.links[1].change(cut=False)
    assert client.ping("10.9.2.2").received == 3


def test_a_buffer_that_is_too_large(wan: Wan) -> None:
    """A flow of TCP fills the buffer, and what comes behind it is late by as much."""
    wan.links[0].change(rate=10, delay=5, queue=300)
    transfer(wan.topology.client, wan.topology.server, SERVER, size=200_000)
    with Stream(wan.topology.client, wan.topology.server, SERVER, rate=1200, size=1400) as stream:
        stream.flow(600)
        assert wan.links[0].counters(UP).queue_ms == pytest.approx(300, abs=20)


def test_changes_while_it_runs(wan: Wan) -> None:
    """A rate that rises meets the frames that wait."""
    wan.links[0].change(UP, rate=1, queue=1000)
    with Stream(wan.topology.client, wan.topology.server, SERVER, rate=1000) as stream:
        stream.flow(100)
        slow = wan.links[0].counters(UP).queue_ms
        wan.links[0].change(UP, rate=100)
        stream.flow(200, timeout=1)
        assert wan.links[0].counters(UP).queue_ms < min(5, slow)
