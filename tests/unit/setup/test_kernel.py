"""Settings of the kernel, as sysctl.d(5) writes them."""

from pathlib import Path

import pytest

from glorytun_setup import kernel
from glorytun_setup.kernel import flush_table, parse_sysctls, read_sysctl, write_sysctl


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
