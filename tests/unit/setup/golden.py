"""The plans whose files are compared whole with what lies in `golden/`.

``python -m tests.unit.setup.golden`` writes them anew: look at the difference before you commit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from glorytun_setup.describe import describe
from glorytun_setup.model import Facts, File, Plan
from glorytun_setup.render import render
from tests.unit.setup.samples import (
    CLIENT,
    KEY,
    LAN0,
    NOW,
    SERVER,
    UPLINK,
    WAN0,
    WAN1,
    WAN2,
    facts,
    gateway,
    link,
    plan,
)

PROJECT = Path(__file__).parents[3]
DIRECTORY = Path(__file__).with_name("golden")

DUAL = "10.77.0.2/30 fd77::2/64"
V6_UPLINK = replace(UPLINK, addresses=UPLINK.addresses[1:], gateway4=None)
V4_UPLINK = replace(UPLINK, addresses=UPLINK.addresses[:1], gateway6=None)
NEAR = link("wan3", "192.168.1.99/24", gateway4=gateway("192.168.1.1", metric=300))
"""In a network with the same addresses as wan0's."""
FAR = link("wan4", "198.51.100.7/32", gateway4=gateway("203.0.113.254", metric=400))
"""With a gateway outside of its network."""
POINT = link("wan5", "10.5.5.5/32", gateway4=gateway(None, metric=500))
"""Without a gateway, as modems have it."""
NAME_SERVERS = (IPv4Address("9.9.9.9"), IPv6Address("2620:fe::fe"), IPv4Address("127.0.0.1"))


def by_pip(host: Facts) -> Facts:
    """Without a package."""
    return replace(host, is_packaged=False, program="/opt/glorytun/bin/glorytun")


def strict(host: Facts) -> Facts:
    """Strict reverse-path filters everywhere."""
    links = tuple(replace(each, rp_filter=1) for each in host.links)
    return replace(host, links=links, rp_filter_default=1)


@dataclass(frozen=True, slots=True)
class Sample:
    """A host and what was answered there."""

    host: Facts
    answers: Mapping[str, str] = field(default_factory=dict)
    expires_at: int = 0

    def plan(self) -> Plan:
        """What follows."""
        return replace(plan(self.host, **self.answers), expires_at=self.expires_at)


def client(host: Facts = CLIENT, **answers: str) -> Sample:
    """With the usual server and key."""
    return Sample(host, {"server": "vpn.example.net", "key": KEY.hex(), **answers})


def server(host: Facts = SERVER, **answers: str) -> Sample:
    """With the usual key."""
    return Sample(host, {"role": "server", "key": KEY.hex(), **answers})


SAMPLES = {
    "client": client(),
    "client-dual": client(addresses=DUAL),
    "client-v6-inside": client(addresses="fd77::2/64", server="2001:db8:9::9", wans="wan1"),
    "client-one-wan": client(wans="wan1"),
    "client-three-wans": client(facts(WAN0, WAN1, WAN2), addresses=DUAL),
    "client-backup": client(wans="wan1 wan0:backup:1mbit/8mbit"),
    "client-rates": client(wans="wan0:10mbit/50mbit wan1:auto/20mbit", port="443"),
    "client-networks": client(through="172.16.0.0/12 10.200.0.0/16"),
    "client-networks-dual": client(addresses=DUAL, through="172.16.0.0/12 2001:db8:aa::/48"),
    "client-half-of-everything": client(addresses=DUAL, through="0.0.0.0/0"),
    "client-nothing": client(through="nothing"),
    "client-nothing-one-wan": client(through="nothing", wans="wan0"),
    "client-lan": client(facts(WAN0, WAN1, LAN0), addresses=DUAL),
    "client-forwarding": client(
        facts(WAN0, WAN1, LAN0, forwards=frozenset({4, 6})), addresses=DUAL
    ),
    "client-strict": client(strict(CLIENT)),
    "client-strict-257": client(replace(strict(CLIENT), systemd_version=257)),
    "client-strict-257-one-wan": client(replace(strict(CLIENT), systemd_version=257), wans="wan0"),
    "client-same-network": client(facts(WAN0, NEAR)),
    "client-odd-gateways": client(facts(FAR, POINT)),
    "client-qdisc": client(replace(CLIENT, default_qdisc="pfifo_fast")),
    "client-pip": client(by_pip(CLIENT)),
    "client-global-name-servers": client(replace(CLIENT, nameservers=NAME_SERVERS)),
    "client-second": client(
        replace(
            facts(WAN0, WAN1, link("tun0", "10.77.0.2/30", is_physical=False)),
            tunnels=("tun0",),
            tables=frozenset({253, 254, 255, 7100, 7101, 7102}),
            rule_priorities=frozenset({0, *range(7100, 7109), 32766, 32767}),
            udp_ports=frozenset({68, 5000}),
        ),
        through="172.16.0.0/12",
    ),
    "client-numbers": client(table="4000", priority="900", local_port="600", name="vpn-2.b"),
    "server": server(),
    "server-257": server(replace(SERVER, systemd_version=257), name="gt0", port="443"),
    "server-v4": server(facts(V4_UPLINK)),
    "server-v6": server(facts(V6_UPLINK)),
    "server-v4-shared": server(facts(V4_UPLINK), addresses="10.77.0.1/24 fd77::1/64"),
    "server-unshared": server(share="no"),
    "server-behind": server(facts(UPLINK), share="no", behind="192.168.7.0/24"),
    "server-invitation": replace(server(name="tun0-alice"), expires_at=NOW),
    "server-invitation-pip": replace(server(by_pip(SERVER)), expires_at=NOW),
    "server-without-networkd": server(replace(SERVER, networkd_active=False)),
    "server-pip": server(by_pip(SERVER), server="vpn.example.net"),
}
"""By the name of the file in `golden/`."""


def files(sample: Sample) -> dict[str, File]:
    """Rendered."""
    return render(sample.plan(), PROJECT)


def whole(sample: Sample) -> str:
    """The plan in words, and all files with their modes."""
    parts = [describe(sample.plan())]
    parts += [
        f"==> {file.path} {file.mode:04o} {file.owner}:{file.group}"
        f"{' secret' * file.secret}{' shared' * file.shared}\n{file.text}"
        for file in files(sample).values()
    ]
    return "\n\n".join(parts)


def write() -> None:
    """What is rendered now is what is right."""
    DIRECTORY.mkdir(exist_ok=True)
    for old in DIRECTORY.glob("*.txt"):
        old.unlink()
    for name, sample in SAMPLES.items():
        (DIRECTORY / f"{name}.txt").write_text(whole(sample))


if __name__ == "__main__":
    write()
