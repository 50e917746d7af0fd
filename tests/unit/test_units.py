"""The unit files as text: what must be in them, and what older versions of systemd don't know."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "units"
SERVICE = UNITS / "glorytun@.service"
MOST_EXPOSURE = 2.0
TOO_NEW = ("notify-reload", "FileDescriptorStorePreserve", "RestartSteps", "RestartMaxDelaySec")
"""What systemd 252 doesn't have: it would ignore the line."""


def settings(unit: Path) -> dict[str, list[str]]:
    """All values of each key."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if re.match(r"\w+=", line):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("User", "glorytun"),
        ("WatchdogSec", "10s"),
        ("CapabilityBoundingSet", "CAP_NET_ADMIN"),
        ("AmbientCapabilities", "CAP_NET_ADMIN"),
        ("DeviceAllow", "/dev/net/tun rw"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("LimitCORE", "0"),
    ],
)
def test_the_service_says(key: str, value: str) -> None:
    """What a change must not take away."""
    assert settings(SERVICE)[key] == [value]


def test_no_boot_waits_for_the_network() -> None:
    """Neither the tunnel nor, through it, the boot."""
    for unit in (SERVICE, UNITS / "glorytun.target"):
        for key in ("After", "Wants", "Requires", "BindsTo"):
            assert "network-online.target" not in " ".join(settings(unit).get(key, []))


def test_the_oldest_systemd_knows_it_all() -> None:
    found = " ".join(f"{key}={value}" for key, value in settings(SERVICE).items())
    assert not [word for word in TOO_NEW if word in found]


def test_the_user_of_the_service_is_made() -> None:
    """By the name that networkd's files give the TUN to."""
    lines = (UNITS / "sysusers.d/glorytun.conf").read_text().splitlines()
    assert [line.split()[:2] for line in lines if not line.startswith("#")] == [["u", "glorytun"]]
    runtime = (UNITS / "tmpfiles.d/glorytun.conf").read_text()
    mode = settings(SERVICE)["RuntimeDirectoryMode"][0]
    assert f"d /run/glorytun {mode} glorytun glorytun" in runtime


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_exposure_is_low() -> None:
    words = ("security", "--offline=yes", "--no-pager", f"--threshold={MOST_EXPOSURE * 10:.0f}")
    result = subprocess.run(
        ["systemd-analyze", *words, str(SERVICE)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
