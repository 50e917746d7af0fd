"""What the wizard renders, as the real systemd, networkd and nft read it."""

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from glorytun_setup.model import Facts, File, Plan, Source, Wan
from glorytun_setup.render import render
from tests.lab.install import PROJECT, System
from tests.lab.node import Node
from tests.netns.wait import wait_for
from tests.unit.setup.golden import SAMPLES, Sample

_WARNING = 4
"""syslog(3)."""

_numbers = itertools.count()


@pytest.fixture(scope="module")
def node(system: System) -> Iterator[Node]:
    """A system without any network."""
    node = Node(f"files-{os.getpid()}-{next(_numbers)}")
    try:
        node.start(system.root, files=system.files, binds=system.binds)
        node.wait_booted()
        yield node
    finally:
        node.down()


def _rendered(sample: Sample, node: Node) -> tuple[Plan, list[File]]:
    """For the systemd that is there."""
    version = int(node.run("systemctl", "--version").stdout.split()[1])
    plan = replace(sample.plan(), systemd_version=version)
    return plan, list(render(plan, PROJECT).values())


def _warnings(node: Node, cursor: str) -> str:
    """What systemd and networkd have warned of in files since."""
    node.run("journalctl", "--sync")
    # No filters: with them --after-cursor of systemd 252 leaves out the first entry.
    lines = node.run("journalctl", "--quiet", "-o", "json", f"--after-cursor={cursor}").stdout
    entries = map(json.loads, lines.splitlines())
    warnings = [entry["MESSAGE"] for entry in entries if int(entry["PRIORITY"]) <= _WARNING]
    # They begin with the file; others may be of the device of the test before, which goes.
    return "\n".join(warning for warning in warnings if "/etc/" in warning)


def _cursor(node: Node) -> str:
    """The end of the journal."""
    shown = node.run("journalctl", "--quiet", "--lines=1", "--show-cursor").stdout
    return shown.rpartition("-- cursor: ")[2].strip()


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_is_warned_of(node: Node, name: str) -> None:
    plan, files = _rendered(SAMPLES[name], node)
    extra = dict(_wan_file(wan, SAMPLES[name].host) for wan in plan.wans)
    if plan.program:
        extra[plan.program] = "#!/bin/sh\n"
    written = [*(file.path for file in files), *extra]
    cursor = _cursor(node)
    try:
        for file in files:
            node.write(file.path, file.text, file.mode)
        for path, text in extra.items():
            node.write(path, text, 0o755 if path == plan.program else 0o644)
        node.run("systemctl", "daemon-reload")
        node.run("networkctl", "reload")
        if not plan.qdisc:  # which this kernel may lack
            _wait_configured(node, plan.name)
        assert _warnings(node, cursor) == ""
        _verify_unit(node, plan)
    finally:
        node.run("rm", "-f", *written)
        node.run("systemctl", "daemon-reload")
        node.run("networkctl", "delete", plan.name, check=False)
        node.run("networkctl", "reload")


def _wan_file(wan: Wan, host: Facts) -> tuple[str, str]:
    """The file that a drop-in is for; there is no such device here."""
    link = host.link(wan.interface)
    assert link is not None
    sources = [gateway.source for gateway in (link.gateway4, link.gateway6) if gateway]
    lines = [
        "[Match]",
        f"Name={wan.interface}",
        "[Network]",
        f"DHCP={'yes' if Source.DHCP in sources else 'no'}",
        f"IPv6AcceptRA={'yes' if Source.RA in sources else 'no'}",
        *(f"Address={address}" for address in link.addresses),
    ]
    return f"/etc/systemd/network/{Path(wan.network_file).name}", "\n".join(lines) + "\n"


def _wait_configured(node: Node, name: str) -> None:
    """networkd has made the device, and set it up."""

    def is_configured() -> bool:
        shown = node.run("networkctl", "--no-legend", "list", name, check=False).stdout
        return shown.split()[-1:] == ["configured"]

    wait_for(is_configured, timeout=10, what=f"{name} to be configured")


def _verify_unit(node: Node, plan: Plan) -> None:
    """systemd, nft and sysctl have nothing to say of what is theirs."""
    result = node.run("systemd-analyze", "verify", "--man=no", plan.unit, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    if plan.shares:
        node.run("nft", "--check", "--file", f"/etc/glorytun/{plan.name}.nft")


def test_a_warning_would_be_seen(node: Node) -> None:
    cursor = _cursor(node)
    node.write("/etc/systemd/network/50-wrong.network", "[Match]\nName=none\n[Network]\nNoKey=1\n")
    node.run("networkctl", "reload")
    node.run("rm", "/etc/systemd/network/50-wrong.network")
    assert "NoKey" in _warnings(node, cursor)
