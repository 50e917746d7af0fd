"""Settings of the kernel, as sysctl.d(5) writes them."""

import errno
from pathlib import Path

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from glorytun.errors import SetupError
from glorytun_setup import kernel
from glorytun_setup.kernel import (
    flush_table,
    parse_sysctls,
    read_sysctl,
    settings_of_others,
    write_sysctl,
)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /proc/sys."""
    monkeypatch.setattr(kernel, "PROC_SYS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.5/rp_filter", "net/ipv4/conf/eth0.5/rp_filter"),
        ("net.ipv4.conf.eth0/5.rp_filter", "net/ipv4/conf/eth0.5/rp_filter"),
    ],
)
def test_a_key_is_written_with_dots_or_slashes(settings: Path, key: str, file: str) -> None:
    (settings / file).parent.mkdir(parents=True)
    (settings / file).write_text("0\n")
    assert read_sysctl(key) == "0"
    write_sysctl(key, "2")
    assert read_sysctl(key) == "2"


def test_a_setting_that_is_not_there_is_left_out(settings: Path) -> None:
    assert read_sysctl("net.ipv4.conf.gone.rp_filter") is None
    write_sysctl("net.ipv4.conf.gone.rp_filter", "2")
    assert not list(settings.iterdir())


def test_files_are_read() -> None:
    text = "# a comment\n; another\n\nnet.ipv4.ip_forward = 1\n-net/ipv6/conf/wan0/accept_ra=2\n"
    assert parse_sysctls(text) == {"net.ipv4.ip_forward": "1", "net/ipv6/conf/wan0/accept_ra": "2"}


@pytest.mark.parametrize("table", [0, 253, 254, 255])
def test_the_hosts_own_tables_are_never_emptied(table: int) -> None:
    with pytest.raises(AssertionError):
        flush_table(table)


def test_what_other_files_set(tmp_path: Path) -> None:
    """Of one setting with two names, too; not what our own file or a pattern says."""
    for path, text in {
        "etc/sysctl.conf": "net.ipv4.conf.all.forwarding = 1\n",
        "etc/sysctl.d/50-glorytun-tun0.conf": "net/ipv6/conf/all/forwarding = 1\n",
        "usr/lib/sysctl.d/50-default.conf": "net.ipv4.conf.*.rp_filter = 2\n",
        "run/sysctl.d/x.conf": "net.ipv6.conf.eth0/5.accept_ra=2\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = settings_of_others(tmp_path, {"/etc/sysctl.d/50-glorytun-tun0.conf"})
    assert found["net/ipv4/ip_forward"] == ("1", "/etc/sysctl.conf")
    assert found["net/ipv6/conf/eth0.5/accept_ra"] == ("2", "/run/sysctl.d/x.conf")
    assert found.keys() & {"net/ipv6/conf/all/forwarding", "net/ipv4/conf/wan0/rp_filter"} == set()


class Route:
    """pyroute2's, of a table that others empty too; or of one that can't be emptied."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def __enter__(self) -> "Route":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def flush_routes(self, **which: int) -> None:
        """Fail as often as it shall."""
        if self.codes:
            raise NetlinkError(self.codes.pop(0))


def test_what_others_delete_meanwhile_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    route = Route(errno.ESRCH, errno.ENOENT)
    monkeypatch.setattr("pyroute2.IPRoute", lambda: route)
    flush_table(77)
    assert not route.codes


@pytest.mark.parametrize("codes", [(errno.EPERM,), (errno.ESRCH,) * 100])
def test_a_table_that_can_not_be_emptied_is_said(
    monkeypatch: pytest.MonkeyPatch, codes: tuple[int, ...]
) -> None:
    monkeypatch.setattr("pyroute2.IPRoute", lambda: Route(*codes))
    with pytest.raises(SetupError, match="table 77 can't be emptied"):
        flush_table(77)
