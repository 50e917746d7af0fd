"""What is found out about the kernel and the processor."""

from pathlib import Path

import pytest

from glorytun.net import features
from glorytun.net.features import Offload


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


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        (
            "/opt/venv/lib/python3.11/site-packages/glorytun/net/features.py",
            "`pip install pyaegis`",
        ),
        ("/usr/lib/python3/dist-packages/glorytun/net/features.py", "README.Debian says how"),
    ],
)
def test_how_to_add_pyaegis(module: str, advice: str) -> None:
    """pip refuses to change Debian's Python, whose package says what to do instead."""
    assert advice in features.aegis_advice(Path(module))


def test_no_cpuinfo(tmp_path: Path) -> None:
    """Without /proc we take it that there is none."""
    assert features.aes_hardware(tmp_path / "cpuinfo") is False


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, set(Offload)),
        ("", set()),
        ("udp_gro  tun_offload", {Offload.UDP_GRO, Offload.TUN}),
        ("nonsense", set()),
    ],
)
def test_offloads_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, named: str | None, expected: set[Offload]
) -> None:
    """All are used, unless a variable names some."""
    monkeypatch.delenv("GLORYTUN_TEST_OFFLOADS", raising=False)
    if named is not None:
        monkeypatch.setenv("GLORYTUN_TEST_OFFLOADS", named)
    assert features.allowed() == expected
