"""A tunnel's snapshots, and a daemon's answers made of them."""

from dataclasses import replace
from typing import Any

from glorytun.control.messages import (
    Bad,
    DaemonFacts,
    Paths,
    Request,
    Show,
    describe_bad,
    describe_path,
    describe_tunnel,
)
from glorytun.core.address import Endpoint, pack_address
from glorytun.core.settings import SECOND, PathSettings, PathState, Settings
from glorytun.core.status import (
    BadKind,
    BadStatus,
    Condition,
    DirectionStatus,
    Held,
    PathStatus,
    TunnelStatus,
)

START = 1_700_000_000 * SECOND

SERVER = Endpoint(pack_address("203.0.113.9"), 5000)

FACTS = DaemonFacts(
    device="tun0",
    pid=1234,
    bind=Endpoint(pack_address("0.0.0.0"), 5000),
    peer=SERVER,
    peer_host="server.example",
    started_at=START,
    version="0.1.0",
    traffic_class=192,
    features={"udp_gso": True, "udp_gro": False},
    crowded_out=0,
    overflowed=0,
    undelivered=0,
)

TUNNEL = TunnelStatus(
    client=True,
    cipher="aegis256",
    mtu=1450,
    peer_software="glorytun 0.1.0",
    keys_exchanged_at=START + 60 * SECOND,
    sent_bytes=1_234_567,
    sent_total=1000,
    received_bytes=7_654_321,
    received_total=6000,
    held=Held.NONE,
    copies_total=6,
    unsent_total=3,
)

RUNNING = PathStatus(
    settings=PathSettings(rate_tx=125_000, loss_limit=77),
    condition=Condition.RUNNING,
    reason="",
    local=pack_address("192.168.1.2"),
    remote=SERVER,
    public=Endpoint(pack_address("198.51.100.7"), 40123),
    mtu=1450,
    rtt=12_300,
    rttvar=1_200,
    tx=DirectionStatus(rate=120_000, loss=3, bytes=1_300_000, total=1100),
    rx=DirectionStatus(rate=0, loss=0, bytes=8_000_000, total=6100),
    last_received_at=START + 100 * SECOND,
)

DEGRADED = replace(
    RUNNING,
    settings=PathSettings(state=PathState.BACKUP),
    condition=Condition.DEGRADED,
    reason="the peer did not answer the last 5 requests",
    local=pack_address("2001:db8::2"),
    remote=Endpoint(pack_address("2001:db8::1"), 5000),
    public=None,
    mtu=0,
    rtt=0,
    rttvar=0,
    last_received_at=0,
)

BAD = [
    BadStatus(kind=BadKind.DECRYPT, count=7, last=SERVER, last_at=START + 90 * SECOND),
    BadStatus(
        kind=BadKind.DIFFTIME,
        count=2,
        last=SERVER,
        last_at=START + 95 * SECOND,
        clock_offset=902 * SECOND,
    ),
    BadStatus(kind=BadKind.REPLAY, count=0, last=None, last_at=0),
]


class Daemon:
    """Answers as a tunnel does, and keeps the changes it was asked for."""

    def __init__(self, device: str = "tun0") -> None:
        self.facts = replace(FACTS, device=device)
        self.bad = BAD
        self.changes: list[Request] = []

    def answer(self, request: Request) -> dict[str, Any]:
        paths = [describe_path(path) for path in (RUNNING, DEGRADED)]
        if isinstance(request, Show):
            settings = Settings(client=True)
            tunnel = describe_tunnel(TUNNEL, settings=settings, facts=self.facts)
            return {"tunnel": tunnel, "paths": paths}
        if isinstance(request, Paths):
            return {"paths": paths}
        if isinstance(request, Bad):
            return {"bad": describe_bad(self.bad)}
        self.changes.append(request)
        return {}
