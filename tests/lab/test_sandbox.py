"""What the service can't do, shown by a program that runs inside it.

It is started by systemd as part of the unit (ExecStartPost=), beside the running daemon: with the
same user, capabilities, system calls, mounts and devices, which a shell in its namespaces wouldn't
have.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glorytun.daemon import QUEUE_LENGTH
from tests.lab.install import System
from tests.lab.tunnel import UNIT, End, booted

CAP_NET_ADMIN = f"{1 << 12:016x}"
_PROBE = "/usr/lib/lab-probe.py"


@pytest.fixture(scope="module")
def end(system: System) -> Iterator[End]:
    """A system with a service that runs, which no test changes."""
    with booted(system) as pair:
        yield pair.server


@pytest.fixture(scope="module")
def inside(end: End) -> dict[str, Any]:
    """What `probe.py` found in that service."""
    end.write(_PROBE, Path(__file__).with_name("probe.py").read_text())
    end.write("/home/user/letter", "readable by all\n")
    end.write("/srv/secret", "of root's\n", 0o600)
    # Last, so that the daemon has started.
    drop_in = f"[Service]\nExecStartPost=/usr/bin/python3 {_PROBE}\n"
    end.write("/etc/systemd/system/glorytun@.service.d/90-probe.conf", drop_in)
    end.systemctl("daemon-reload")
    end.systemctl("start", UNIT)
    lines = [line for line in end.journal().splitlines() if line.startswith('{"status"')]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def test_it_reads_nothing_of_others(inside: dict[str, Any]) -> None:
    """Neither /etc/shadow, nor other users' files, nor the key file itself: it got a copy."""
    assert inside["read"] == {
        "/etc/shadow": "PermissionError",
        "/etc/glorytun/tun0.key": "PermissionError",
        "/home/user/letter": "PermissionError",
        "/srv/secret": "PermissionError",
    }
    assert inside["processes"] == []


def test_it_writes_to_its_own_directories_alone(inside: dict[str, Any]) -> None:
    """Control sockets, and what links with a quota have carried."""
    assert [path for path in inside["writable"] if not path.endswith(".sock")] == [
        "/run/glorytun",
        "/var/lib/glorytun-usage",
    ]


def test_it_opens_no_raw_socket(inside: dict[str, Any]) -> None:
    assert inside["sockets"] == {
        "raw": "PermissionError",
        "raw6": "PermissionError",
        "packet": "OSError",
        "vsock": "OSError",
        "udp": "done",
    }


def test_it_has_one_capability_and_no_way_to_more(inside: dict[str, Any]) -> None:
    caps = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), CAP_NET_ADMIN)
    assert inside["status"] == {**caps, "NoNewPrivs": "1", "Seccomp": "2"}
    assert not inside["unshare"]
    assert not inside["mount"]
    assert inside["hostname"] == "PermissionError"
    assert inside["write and execute"] == "PermissionError"


def test_it_opens_one_device(inside: dict[str, Any]) -> None:
    harmless = {
        f"/dev/{name}" for name in ("full", "null", "pts/ptmx", "random", "tty", "urandom", "zero")
    }
    assert set(inside["devices"]) - harmless == {"/dev/net/tun"}


def test_it_lengthens_the_queue_of_its_device(end: End, inside: dict[str, Any]) -> None:
    """Which networkd made, and gave the kernel's default."""
    assert inside["status"]
    assert end.device()["txqlen"] == QUEUE_LENGTH


def test_the_daemon_has_no_more_than_the_probe(end: End, inside: dict[str, Any]) -> None:
    """The same privileges, seen from outside."""
    assert _privileges(end) == {**inside["status"], "Uid": "glorytun"}


def test_others_dont_read_the_credential(end: End, inside: dict[str, Any]) -> None:
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    key = f"/run/credentials/{UNIT}/key"
    assert end.run(*as_nobody, "cat", key, check=False).returncode != 0


def _privileges(end: End) -> dict[str, str]:
    text = end.path(f"/proc/{end.main_pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    uid = fields["Uid"].split()[0]
    user = end.run("id", "-un", uid).stdout.strip()
    return {**{name: fields[name] for name in names}, "Uid": user}
