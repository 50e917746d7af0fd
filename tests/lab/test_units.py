"""The units themselves, as systemd of each Debian reads them."""

import pytest

from tests.lab.tunnel import TUNNEL, UNIT, Pair
from tests.netns.wait import wait_for

MOST_EXPOSURE = 2.0


def test_systemd_understands_the_units(pair: Pair) -> None:
    """``systemd-analyze verify`` has nothing to say, and nothing in the journal complains."""
    units = [f"/usr/lib/systemd/system/{name}" for name in ("glorytun@.service", "glorytun.target")]
    # The systems that are booted have no manual pages.
    result = pair.client.run("systemd-analyze", "verify", "--man=no", *units, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    pair.client.systemctl("start", UNIT)
    assert not pair.client.complaints()


def test_a_complaint_would_be_seen(pair: Pair) -> None:
    """What systemd doesn't know is only a warning in the journal."""
    drop_in = "/etc/systemd/system/glorytun@.service.d/wrong.conf"
    pair.client.write(drop_in, "[Service]\nNoSuchKey=yes\n")
    pair.client.systemctl("daemon-reload")
    pair.client.systemctl("start", UNIT)
    assert "NoSuchKey" in pair.client.complaints()


def test_exposure_is_low(pair: Pair) -> None:
    words = ("security", "--no-pager", f"--threshold={MOST_EXPOSURE * 10:.0f}", UNIT)
    result = pair.client.run("systemd-analyze", *words, check=False)
    assert result.returncode == 0, result.stdout


def test_networkd_makes_the_tun_for_the_service(pair: Pair) -> None:
    """The device is there before the service, belongs to its user and outlives it."""
    client = pair.client
    before = client.device()
    owner = client.run("id", "-u", "glorytun").stdout.strip()
    assert client.run("cat", f"/sys/class/net/{TUNNEL}/owner").stdout.strip() == owner
    pair.start()
    client.systemctl("stop", UNIT)
    after = client.device()
    assert after["ifindex"] == before["ifindex"]


def test_without_networkd_s_device_the_service_makes_one(pair: Pair) -> None:
    """No .netdev: the TUN comes with the service and goes with it, not with a restart."""
    client = pair.client
    client.path(f"/etc/systemd/network/30-{TUNNEL}.netdev").unlink()
    client.run("networkctl", "reload")
    client.run("networkctl", "delete", TUNNEL)
    pair.start()
    made = client.device()["ifindex"]
    client.systemctl("restart", UNIT)
    pair.wait_running(2)
    assert client.device()["ifindex"] == made
    client.systemctl("stop", UNIT)
    wait_for(lambda: not client.device(), timeout=2, what="the device to go")


def test_the_target_starts_and_stops_its_tunnels(pair: Pair) -> None:
    pair.client.systemctl("enable", "--now", "glorytun.target", UNIT)
    pair.client.systemctl("stop", "glorytun.target")
    pair.client.wait_state("inactive")
    pair.client.systemctl("start", "glorytun.target")
    pair.client.wait_state("active")


def test_tunnels_share_a_directory(pair: Pair) -> None:
    """The end of one tunnel leaves the control sockets of the others."""
    server = pair.server
    server.write("/etc/glorytun/tun1.conf", "[Tunnel]\nPort=5001\n")
    server.write("/etc/glorytun/tun1.key", f"{'42' * 32}\n", 0o600)
    server.systemctl("start", UNIT, "glorytun@tun1.service")
    sockets = server.path("/run/glorytun")
    assert {path.name for path in sockets.iterdir()} == {"tun0.sock", "tun1.sock"}
    server.systemctl("stop", "glorytun@tun1.service")
    assert [path.name for path in sockets.iterdir()] == ["tun0.sock"]
    assert server.ask("show")


@pytest.mark.parametrize("user", ["nobody", "glorytun"])
def test_only_its_user_and_root_may_command(pair: Pair, user: str) -> None:
    pair.server.systemctl("start", UNIT)
    result = pair.server.run(
        "setpriv",
        f"--reuid={user}",
        f"--regid={user}",
        "--clear-groups",
        "glorytun",
        "show",
        check=False,
    )
    assert (result.returncode == 0) == (user == "glorytun")
