"""A host to which no package brought glorytun: the wizard sets up the service and its user too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.install import System
from tests.lab.tunnel import UNIT, End
from tests.lab.unpackaged import HOME, SETUP, put_program

_UNITS = "/etc/systemd/system/glorytun"


@pytest.fixture
def host(system: System, tmp_path: Path) -> Iterator[End]:
    """As after `pip install`, without any network."""
    put_program(tmp_path)
    end = End("server")
    try:
        end.start(system.root, files=tmp_path, binds=system.binds)
        end.wait_booted()
        yield end
    finally:
        end.down()


def test_the_service_and_its_user_come_and_go(host: End) -> None:
    host.run(SETUP, "--yes", "--role=server", "--share=no", timeout=60)
    host.wait_state("active")
    assert host.shown("ExecStart").startswith(f"{{ path={HOME}/bin/glorytun ;")
    assert host.run("id", "-un", "glorytun").stdout == "glorytun\n"
    assert not host.complaints()
    host.run(SETUP, "--yes", "--role=server", "--share=no", "--name=tun1", timeout=60)
    host.run(SETUP, "remove", "tun0", "--yes", timeout=60)
    assert host.shown("ActiveState", "glorytun@tun1.service") == "active"
    host.run(SETUP, "remove", "tun1", "--yes", timeout=60)
    left = host.run("sh", "-c", f"ls -d {_UNITS}* /etc/*.d/glorytun.conf", check=False).stdout
    assert left == ""
    assert host.shown("LoadState", UNIT) == "not-found"


def test_a_home_directory_is_refused(host: End) -> None:
    """The service would not see it."""
    host.run("cp", "-r", HOME, "/root/glorytun")
    words = ("/root/glorytun/bin/glorytun-setup", "--yes", "--role=server")
    result = host.run(*words, check=False, timeout=60)
    assert result.returncode == 1
    assert "/root/glorytun/bin/glorytun is where a service can't see it" in result.stderr
