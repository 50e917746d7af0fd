"""``apt install ./glorytun_*.deb`` on a fresh Debian, and what `purge` leaves of it: nothing."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

import glorytun
from tests.lab import package
from tests.lab.conftest import clean_suites
from tests.lab.install import SUITES
from tests.lab.packaged import FreshSystem, apt, debian_packages, state, tree
from tests.lab.tunnel import CONFIG, KEY, UNIT, End
from tests.lab.wizard import AGREE, SERVER, person

KEPT_BY_REMOVE = {
    "/etc/systemd/system/multi-user.target.wants/glorytun.target",
    "/etc/systemd/system/glorytun.target.wants",
    f"/etc/systemd/system/glorytun.target.wants/{UNIT}",
    "/var/lib/glorytun-usage",
}
"""What `purge` removes beyond that: what is started at boot, what metered links have carried."""
NOTES = "/var/lib/systemd/deb-systemd-helper"
"""What Debian remembers of it meanwhile."""
OTHER_UNIT = "glorytun@tun1.service"
"""Enabled too; it fails, since it has no file."""


@pytest.fixture(scope="module", params=clean_suites())
def fresh(request: pytest.FixtureRequest) -> Iterator[FreshSystem]:
    system = FreshSystem(str(request.param))
    yield system
    system.remove()


@contextmanager
def booted_alone(fresh: FreshSystem) -> Iterator[End]:
    """Without a network."""
    end = End("server")
    end.start(fresh.root, files=fresh.files)
    try:
        end.wait_booted()
        yield end
    finally:
        end.down()


@pytest.fixture
def node(fresh: FreshSystem) -> Iterator[End]:
    """A fresh system, booted."""
    with booted_alone(fresh) as node:
        yield node


@dataclass(frozen=True, slots=True)
class Installed:
    """A system after the installation."""

    node: End
    said: str
    """By apt."""
    packages: set[str]
    """Names of those that are new."""


@pytest.fixture(scope="module")
def installed(fresh: FreshSystem) -> Iterator[Installed]:
    """One for several tests, which don't end what they begin."""
    with booted_alone(fresh) as node:
        before = debian_packages(node)
        said = apt(node, "install", fresh.deb)
        yield Installed(node, said, debian_packages(node) - before)


def set_up_server(node: End) -> None:
    """What a user does by hand."""
    node.run("sh", "-c", f"umask 077; glorytun keygen > {KEY}")
    node.write(CONFIG, "[Tunnel]\n")


def set_up_in_person(node: End) -> None:
    """Another user leaves that to the wizard."""
    answers = {"role": "server", "share": "no"}
    with person(node) as somebody:
        for question in SERVER:
            somebody.answer(question, answers.get(question, ""))
        somebody.confirm(AGREE)
        assert somebody.wait_end() == 0, somebody.seen


def test_it_needs_debian_s_packages_alone(installed: Installed) -> None:
    assert "Traceback" not in installed.said
    node, new = installed.node, installed.packages
    assert {"glorytun", "python3-nacl", "python3-dbus-next", "nftables"} <= new
    # "local" are those that no archive has which apt knows, and it knows Debian's alone.
    listed = node.run("apt", "list", "--installed").stdout
    local = set(re.findall(r"^(\S+?)/.*\[.*\blocal\b.*\]$", listed, re.MULTILINE))
    assert local & new == {"glorytun"}


def test_everything_is_in_place(installed: Installed) -> None:
    """At once, without a reboot; nothing runs that nobody has set up."""
    node = installed.node
    assert node.run("glorytun", "version").stdout.strip() == glorytun.__version__
    assert node.run("stat", "-c", "%U:%G %a", "/run/glorytun", "/etc/glorytun").stdout.split(
        "\n"
    ) == ["glorytun:glorytun 750", "root:root 755", ""]
    assert node.systemctl("is-enabled", "glorytun.target").strip() == "enabled"
    assert node.systemctl("is-active", "glorytun.target").strip() == "active"
    assert not node.systemctl("list-units", "--no-legend", "glorytun@*")
    assert not node.systemctl("list-units", "--failed", "--no-legend")
    assert not node.complaints()


def test_a_tunnel_starts(installed: Installed) -> None:
    node = installed.node
    set_up_server(node)
    node.systemctl("start", UNIT)
    assert node.ask("show")["tunnel"]["role"] == "server"


def test_the_readme_tells_its_size(fresh: FreshSystem, node: End) -> None:
    """To a fifth, in the column of this Debian."""
    needed = new_packages(node, fresh.deb, "-o", "APT::Install-Recommends=false")
    all_of_them = new_packages(node, fresh.deb)
    readme = (package.PROJECT / "README.md").read_text()
    for row, names in [
        ("installed size of glorytun", {"glorytun"}),
        ("of the packages that it needs", needed - {"glorytun"}),
        ("of those that all of these recommend", all_of_them - needed),
    ]:
        found = re.search(rf"\| {row} \| ([\d.]+) MB \| ([\d.]+) MB \|", readme)
        assert found
        told = float(found[1 + SUITES.index(fresh.suite)]) * 1e6
        assert told == pytest.approx(installed_size(node, fresh.deb, names), rel=0.2)


def new_packages(node: End, *words: str) -> set[str]:
    """What an installation would bring."""
    return set(re.findall(r"^Inst (\S+)", apt(node, "--simulate", "install", *words), re.MULTILINE))


def installed_size(node: End, deb: str, names: set[str]) -> int:
    """Bytes of packages that aren't installed, as they say themselves."""
    others = sorted(names - {"glorytun"})
    shown = node.run("apt-cache", "show", "--no-all-versions", *others).stdout if others else ""
    if "glorytun" in names:
        shown += node.run("dpkg-deb", "--field", deb, "Package", "Installed-Size").stdout
    sizes = re.findall(r"^Installed-Size: (\d+)$", shown, re.MULTILINE)
    assert len(sizes) == len(names)
    return sum(map(int, sizes)) * 1024


def test_purge_leaves_nothing(fresh: FreshSystem, node: End) -> None:
    """No file, unit, link, user, device: also of tunnels that run, have failed, or are enabled."""
    files, rest = tree(node), state(node)
    apt(node, "install", fresh.deb)
    set_up_server(node)
    node.systemctl("enable", "--now", UNIT)
    node.run("systemctl", "enable", "--now", OTHER_UNIT, check=False)
    assert OTHER_UNIT in node.systemctl("list-units", "--failed")
    # The user's own files: they would stay.
    node.run("rm", CONFIG, KEY)
    said = apt(node, "purge", "--autoremove", "glorytun")
    assert "/etc/glorytun" not in said
    assert tree(node) ^ files == set()
    assert state(node) == rest


def test_tunnels_of_the_wizard(fresh: FreshSystem, node: End) -> None:
    """They stay set up when the package goes, which is said; once they are gone nothing is left."""
    files, rest = tree(node), state(node)
    apt(node, "install", fresh.deb)
    set_up_in_person(node)
    node.wait_state("active")
    said = apt(node, "remove", "glorytun")
    assert "Tunnel tun0 stays set up" in said
    assert "`glorytun-setup remove tun0`" in said
    apt(node, "install", fresh.deb)
    node.wait_state("active")
    node.run("glorytun-setup", "remove", "tun0", "--yes", timeout=60)
    said = apt(node, "purge", "--autoremove", "glorytun")
    assert "stays" not in said
    assert tree(node) ^ files == set()
    assert state(node) == rest


def test_what_the_user_made_stays(fresh: FreshSystem, node: End) -> None:
    """After a removal what is enabled, too; purge ends that, and says what it leaves."""
    apt(node, "install", fresh.deb)
    set_up_server(node)
    node.systemctl("enable", "--now", UNIT)
    pid = node.main_pid
    apt(node, "remove", "glorytun")
    removed = tree(node)
    assert node.run("sh", "-c", f"kill -0 {pid}", check=False).returncode != 0
    assert not node.path("/run/glorytun").exists()
    assert node.shown("LoadState") == "not-found"
    assert not node.systemctl("list-units", "--failed", "--no-legend")
    apt(node, "install", fresh.deb)
    assert node.ask("show")

    said = apt(node, "purge", "glorytun")
    assert "/etc/glorytun is not empty: it stays" in said
    kept = {line.split()[0] for line in removed ^ tree(node)}
    assert {path for path in kept if not path.startswith(NOTES)} == KEPT_BY_REMOVE
    assert node.path(CONFIG).exists()
    assert node.path(KEY).exists()
    assert node.run("getent", "passwd", "glorytun").stdout
