"""The package comes to a host where pip had brought glorytun, whose tunnel runs, and goes again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import package
from tests.lab.conftest import clean_suites
from tests.lab.install import System
from tests.lab.packaged import apt, state, tree
from tests.lab.tunnel import End
from tests.lab.unpackaged import HOME, SETUP, put_program

SERVER = ("--yes", "--role=server", "--share=no")


@pytest.fixture(params=clean_suites())
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(suite: str, tmp_path: Path) -> Iterator[End]:
    """Debian with all that the package needs, and glorytun from pip."""
    put_program(tmp_path)
    package.put_packages(tmp_path, [package.build(suite)])
    end = End("server")
    try:
        end.start(System(suite).root, files=tmp_path)
        end.wait_booted()
        yield end
    finally:
        end.down()


@pytest.fixture
def deb(suite: str) -> str:
    """The package, as the system names it."""
    return f"{package.DIRECTORY}/{package.build(suite).name}"


def test_it_leaves_the_other_s_tunnel_alone(host: End, deb: str) -> None:
    """While it comes, is there, and goes."""
    host.run(SETUP, *SERVER, timeout=60)
    host.systemctl("start", "glorytun.target")  # As after the next boot.
    host.wait_state("active")
    files, rest, pid = tree(host), state(host), host.main_pid
    apt(host, "install", deb)
    assert host.shown("ExecStart").startswith(f"{{ path={HOME}/bin/glorytun ;")
    said = apt(host, "purge", "glorytun")
    assert "runs another glorytun" in said
    assert host.main_pid == pid
    assert tree(host) ^ files == set()
    assert state(host) == rest
    # It can be taken away by what made it.
    host.run(SETUP, "remove", "tun0", "--yes", timeout=60)


def without_program(host: End) -> set[str]:
    """Its tree without what Python compiles for pip's installation."""
    return {line for line in tree(host) if not line.startswith(HOME)}


def test_it_takes_the_tunnel_over(host: End, deb: str) -> None:
    """As README.Debian says. Then a purge leaves nothing of either but what pip installed."""
    files, rest = without_program(host), state(host)
    host.run(SETUP, *SERVER, timeout=60)
    host.wait_state("active")
    apt(host, "install", deb)
    host.run("/usr/bin/glorytun-setup", "edit", "tun0", "--yes", timeout=60)
    assert host.shown("ExecStart").startswith("{ path=/usr/bin/glorytun ;")
    assert host.systemctl("is-enabled", "glorytun.target").strip() == "enabled"
    host.wait_state("active")
    assert not host.run(
        "sh",
        "-c",
        "ls -d /etc/systemd/system/glorytun*.service /etc/*.d/glorytun.conf",
        check=False,
    ).stdout
    host.run("/usr/bin/glorytun-setup", "remove", "tun0", "--yes", timeout=60)
    said = apt(host, "purge", "glorytun")
    assert "stays" not in said
    assert without_program(host) ^ files == set()
    assert state(host) == rest


def test_a_user_that_has_a_process_stays(host: End, deb: str) -> None:
    """The package goes nevertheless, and says what is left to do."""
    apt(host, "install", deb)
    host.run("systemd-run", "--quiet", "--uid=glorytun", "--unit=held", "sleep", "60")
    said = apt(host, "purge", "glorytun")
    assert "`userdel glorytun` removes it later" in said
    assert host.run("getent", "passwd", "glorytun").stdout
    assert host.run("dpkg", "--list", "glorytun", check=False).returncode != 0
    host.systemctl("stop", "held")
    host.run("userdel", "glorytun")
