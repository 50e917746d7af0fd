"""What is found out about the kernel and the processor."""

from pathlib import Path

import pytest

from glorytun.net import features


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 aes avx\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse2 vaes_not\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm\n", False),
        ("model name\t: aes\n", False),
    ],
)
def test_aes_hardware(tmp_path: Path, text: str, expected: bool) -> None:
    """The word is looked for where x86 and arm64 have it."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert features.aes_hardware(cpuinfo) is expected


def test_no_cpuinfo(tmp_path: Path) -> None:
    """Without /proc we take it that there is none."""
    assert features.aes_hardware(tmp_path / "cpuinfo") is False


def test_probe() -> None:
    """Every feature is a plain yes or no."""
    found = features.probe()
    assert set(found) == {"udp_gso", "udp_gro", "tun_vnet_hdr"}
    assert all(isinstance(value, bool) for value in found.values())
