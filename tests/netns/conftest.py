"""Fixtures of the tests on real kernels, and what these need to run."""

import functools
import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.netns.topology import Lab
from tests.netns.tunnel import PEER, Tunnels, made

_HERE = Path(__file__).parent


@functools.cache
def missing() -> str:
    """Why network namespaces can't be used here, or an empty string."""
    if os.geteuid():
        return "not root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun"
    for tool in ("ip", "nft", "ping"):
        if not shutil.which(tool):
            return f"no command {tool}"
    probe = subprocess.run(["unshare", "-n", "nft", "list", "ruleset"], capture_output=True)
    if probe.returncode:
        return f"no nftables in a network namespace: {probe.stderr.decode().strip()}"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this directory, and skip it, with the reason, where it can't run."""
    for item in items:
        if _HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.netns)
        item.add_marker(pytest.mark.timing)
        if missing():
            item.add_marker(pytest.mark.skip(reason=f"network namespaces: {missing()}"))
        elif item.get_closest_marker("interop") and not PEER:
            reason = "GLORYTUN_PEER is not set: it would name a glorytun 0.3.4"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the daemons to the report of a failed test."""
    report = yield
    if report.failed:
        for daemon in made:
            report.sections.append((f"log of the {daemon.role}, {daemon.dev}", daemon.logged()))
    return report


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Hosts of one test."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def tunnels(lab: Lab) -> Iterator[Tunnels]:
    """Daemons of one test; they end before their hosts."""
    with Tunnels() as tunnels:
        yield tunnels
