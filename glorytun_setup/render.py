"""A plan as files. Pure but for reading the templates.

What the rules are for is explained in docs/routing.md.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from glorytun.config import write_rate
from glorytun_setup.model import File, Gateway, Plan, Source, Wan

CONFIGURATION = "/etc/glorytun"
NETWORK = "/etc/systemd/network"
SYSTEM = "/etc/systemd/system"
NETWORKD_CONF = "/etc/systemd/networkd.conf.d/50-glorytun.conf"
"""Of all tunnels, where networkd runs for them alone."""
_SHARED_HEADER = "# Written by glorytun-setup, which takes it away with the last tunnel."

SHARED_UNITS = {
    "glorytun@.service": f"{SYSTEM}/glorytun@.service",
    "glorytun.target": f"{SYSTEM}/glorytun.target",
    "sysusers.d/glorytun.conf": "/etc/sysusers.d/glorytun.conf",
    "tmpfiles.d/glorytun.conf": "/etc/tmpfiles.d/glorytun.conf",
}
"""Of all tunnels, where no package has brought them: the sources in `units/`, and where they go."""

_HAS_REVERSE_PATH_FILTER = 255
"""systemd's version since which a .network has IPv4ReversePathFilter=."""
_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
_FAMILIES = {(): "both", (4,): "ipv4", (6,): "ipv6", (4, 6): "both"}
"""networkd's words for IP versions."""


def render(plan: Plan, data: Path) -> dict[str, File]:
    """The files of a plan by their paths, in the order in which they are best written.

    `data` has the directories `templates` and `units`.
    """
    return {file.path: file for file in _Renderer(plan, data).files()}


def key_file(name: str) -> str:
    """Where the key of a tunnel lies."""
    return f"{CONFIGURATION}/{name}.key"


def network_file(name: str) -> str:
    """By what networkd sets up the device of a tunnel."""
    return f"{NETWORK}/50-glorytun-{name}.network"


def expiry_unit(name: str) -> str:
    """The units that end a client's tunnel, without what their names end in."""
    return f"glorytun-invitation-{name}"


class _Renderer:
    def __init__(self, plan: Plan, data: Path) -> None:
        self.plan = plan
        self._environment = Environment(
            loader=FileSystemLoader([data / "templates", data / "units"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.filters["rate"] = write_rate
        self._nft = f"{CONFIGURATION}/{plan.name}.nft"
        self._sysctl = f"/etc/sysctl.d/50-glorytun-{plan.name}.conf"
        self._expiry = expiry_unit(plan.name)
        # The same by other ways, as this systemd has them.
        can = plan.systemd_version >= _HAS_REVERSE_PATH_FILTER
        self._loosened_by_networkd = plan.loosened if can else ()
        self._loosened_by_sysctl = () if can else plan.loosened

    def files(self) -> Iterator[File]:
        """All of them."""
        plan, name = self.plan, self.plan.name
        if plan.program:
            yield from self._shared_units()
        if plan.starts_networkd:
            text = self._text("networkd.conf", header=_SHARED_HEADER)
            yield File(path=NETWORKD_CONF, text=text, shared=True)
        yield self._file(f"{CONFIGURATION}/{name}.conf", "tunnel.conf")
        yield self._key()
        if plan.has_nft:
            yield self._file(self._nft, "tunnel.nft", only=self._shared_family())
            again = f"{SYSTEM}/nftables.service.d/50-glorytun-{name}.conf"
            yield self._file(again, "nftables.service.conf", nft=self._nft)
        if self._has_sysctl:
            yield self._file(
                self._sysctl, "sysctl.conf", loosened_by_sysctl=self._loosened_by_sysctl
            )
        yield self._file(f"{NETWORK}/50-glorytun-{name}.netdev", "tunnel.netdev")
        yield self._network()
        for wan in plan.wans:
            yield from self._wan(wan)
        if plan.expires_at:
            for kind in ("service", "timer"):
                yield self._file(f"{SYSTEM}/{self._expiry}.{kind}", f"expiry.{kind}")
        yield self._service()

    @property
    def _has_sysctl(self) -> bool:
        return bool(self._loosened_by_sysctl) or self.plan.shares

    def _text(self, template: str, **more: Any) -> str:
        name = self.plan.name
        header = (
            f"# Written by glorytun-setup for tunnel {name}. `glorytun-setup edit {name}` changes\n"
            f"# it, and `glorytun-setup remove {name}` takes it away."
        )
        context = {"header": header, "plan": self.plan, **more}
        return self._environment.get_template(f"{template}.j2").render(context)

    def _file(self, path: str, template: str, **more: Any) -> File:
        return File(path=path, text=self._text(template, **more))

    def _key(self) -> File:
        text = self._text("tunnel.key")
        return File(path=key_file(self.plan.name), text=text, mode=0o600, secret=True)

    def _shared_units(self) -> Iterator[File]:
        for source, path in SHARED_UNITS.items():
            text = self._text("unit", source=source, header=_SHARED_HEADER)
            yield File(path=path, text=text, shared=True)

    def _network(self) -> File:
        versions = tuple(sorted({network.version for network in self.plan.networks}))
        return self._file(
            network_file(self.plan.name),
            "tunnel.network",
            versions=versions,
            family=_FAMILIES[versions],
            loosened_by_networkd=self._loosened_by_networkd,
        )

    def _wan(self, wan: Wan) -> Iterator[File]:
        """The drop-in of a WAN's own file, if it needs any."""
        plan = self.plan
        gateways = {4: wan.gateway4, 6: wan.gateway6} if plan.routes_wans else {}
        routes = [_route(wan, gateway, version) for version, gateway in gateways.items() if gateway]
        versions = tuple(version for version, gateway in gateways.items() if gateway)
        is_loosened = wan.interface in self._loosened_by_networkd
        if routes or is_loosened:
            # In /etc, wherever the file itself is (systemd.network(5)).
            directory = f"{NETWORK}/{PurePosixPath(wan.network_file).name}.d"
            yield self._file(
                f"{directory}/50-glorytun-{plan.name}.conf",
                "wan.network",
                wan=wan,
                routes=routes,
                family=_FAMILIES[versions],
                is_loosened=is_loosened,
            )

    def _service(self) -> File:
        return self._file(
            f"{SYSTEM}/{self.plan.unit}.d/50-glorytun-setup.conf",
            "service.conf",
            has_sysctl=self._has_sysctl,
            sysctl=self._sysctl,
            nft=self._nft,
            expiry=self._expiry,
        )

    def _shared_family(self) -> str:
        """What restricts a rule of nftables to the family that is shared."""
        plan = self.plan
        if plan.share4 and plan.share6:
            return ""
        return f"meta nfproto {'ipv4' if plan.share4 else 'ipv6'} "


def _route(wan: Wan, gateway: Gateway, version: int) -> str:
    """The lines of a [Route] that leads to a gateway."""
    match gateway.source:
        case Source.DHCP:
            return "Gateway=_dhcp4"
        case Source.RA:
            return "Gateway=_ipv6ra"
    if gateway.address is None:
        return f"Destination={_EVERYWHERE[version]}"
    line = f"Gateway={gateway.address}"
    is_near = any(gateway.address in source for source in wan.sources)
    return line if is_near or gateway.address.is_link_local else f"{line}\nGatewayOnLink=yes"
