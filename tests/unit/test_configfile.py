"""Configuration files: what they mean, and what is said of wrong ones."""

import os
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from glorytun.config import LocalKind, PathConfig, TunnelConfig
from glorytun.configfile import (
    MOST_BYTES,
    Configuration,
    Problem,
    key_path,
    load,
    parse,
)
from glorytun.core.settings import (
    NO_CLASS,
    REORDER_AUTO,
    SECOND,
    CipherChoice,
    PathMode,
    PathSettings,
    PathState,
    Settings,
)
from glorytun.errors import ConfigError
from glorytun.options import SECTIONS, Option

ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef" * 4
CLIENT = "[Tunnel]\nPeer=vpn.example.net\n[Path]\nLocal=wan0\n"


def read(text: str | bytes) -> Configuration:
    data = text.encode() if isinstance(text, str) else text
    return parse(data, Path("tun0.conf"))


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def warnings(text: str) -> list[str]:
    return [str(warning) for warning in read(text).warnings]


def on_path(lines: str) -> str:
    """A client with these lines in its only [Path]; they begin in line 5."""
    return CLIENT + lines


# What files mean.


class TestMeaning:
    def test_every_option_can_be_set(self) -> None:
        configuration = read(
            "[Tunnel]\nBind=::\nPort=5001\nPeer=vpn.example.net\nPeerPort=5002\n"
            "KeyFile=/etc/keys/a b\nCipher=chacha\nKeyRotation=2h\nTimeTolerance=5min\n"
            "KeepAlive=20s\nTrafficClass=EF\nRedundant=AF41\nFirewallMark=0x2A\nReorder=50ms\n"
            "[Path]\nLocal=wwan*\nPeer=2001:db8::9\nState=backup\nRate=fixed\nRateTx=10mbit\n"
            "RateRx=50mbit\nBeat=200ms\nLossLimit=30%\nDelayLimit=150ms\n"
            "Preference=2\nMode=redundant\nCost=3\n"
            "Quota=50G\nQuotaDay=15\n"
        )
        assert configuration.tunnel == TunnelConfig(
            bind="::",
            port=5001,
            peer="vpn.example.net",
            peer_port=5002,
            keyfile="/etc/keys/a b",
            cipher=CipherChoice.CHACHA,
            kxtimeout=7200 * SECOND,
            timetolerance=300 * SECOND,
            keepalive=20 * SECOND,
            traffic_class=184,
            redundant=0x88,
            firewall_mark=42,
            reorder=SECOND // 20,
        )
        assert configuration.paths == (
            PathConfig(
                local="wwan*",
                kind=LocalKind.GLOB,
                peer="2001:db8::9",
                settings=PathSettings(
                    state=PathState.BACKUP,
                    rate_tx=1_250_000,
                    rate_rx=6_250_000,
                    fixed_rate=True,
                    beat=SECOND // 5,
                    loss_limit=77,
                    delay_limit=150_000,
                    mode=PathMode.REDUNDANT,
                    cost=3,
                    preference=2,
                ),
                quota=50 * 2**30,
                quota_day=15,
            ),
        )

    def test_one_line_makes_a_server(self) -> None:
        configuration = read("[Tunnel]\n")
        assert configuration.tunnel == TunnelConfig(
            bind="::",
            port=5000,
            peer=None,
            peer_port=5000,
            keyfile=None,
            cipher=CipherChoice.AUTO,
            kxtimeout=3600 * SECOND,
            timetolerance=600 * SECOND,
            keepalive=25 * SECOND,
            traffic_class=192,
            redundant=NO_CLASS,
            firewall_mark=0,
            reorder=REORDER_AUTO,
        )
        assert (configuration.paths, configuration.warnings) == ((), ())

    def test_defaults_are_those_of_the_core(self) -> None:
        """All but the loss limit, which the command line leaves open."""
        configuration = read(CLIENT)
        settings = Settings(client=True)
        for name in ("cipher", "kxtimeout", "timetolerance", "keepalive"):
            assert getattr(configuration.tunnel, name) == getattr(settings, name)
        assert configuration.paths[0].settings == PathSettings(loss_limit=51)

    @pytest.mark.parametrize(
        ("text", "kind", "local"),
        [
            ("wan0", LocalKind.INTERFACE, "wan0"),
            ("eth0.7", LocalKind.INTERFACE, "eth0.7"),
            ("wwan*", LocalKind.GLOB, "wwan*"),
            ("wan[01]", LocalKind.GLOB, "wan[01]"),
            ("192.0.2.1", LocalKind.ADDRESS, "192.0.2.1"),
            ("2001:DB8:0::1", LocalKind.ADDRESS, "2001:db8::1"),
        ],
    )
    def test_a_path_leaves_from_interfaces_or_an_address(
        self, text: str, kind: LocalKind, local: str
    ) -> None:
        path = read(f"[Tunnel]\nPeer=vpn.example.net\n[Path]\nLocal={text}\n").paths[0]
        assert (path.kind, path.local) == (kind, local)

    @pytest.mark.parametrize(
        ("text", "port"),
        [
            ("[Tunnel]\nPort=1\nPort=2", 2),
            ("[Tunnel]\nPort=1\nPort=\n", 5000),
            ("[Tunnel]\nPort=1\n[Tunnel]\nBind=::\n", 1),
            ("[Tunnel]\nPort=1\n[Tunnel]\nPort=2\n", 2),
            ("  [Tunnel]\t\n\t Port \t=  7 \t\n", 7),
            ("# a\n;b\n\n[Tunnel]\n  # c\nPort=7\n", 7),
            ("[Tunnel]\nPort=\\\n7", 7),
            ("[Tunnel]\nPort=\\\n# in between\n  ; and this\n  7\n", 7),
            ("[Tunnel]\r\nPort=7\r\n", 7),
            ("[Tunnel]\rPort=7\r", 7),
            ("\ufeff[Tunnel]\nPort=7\n", 7),
            ("[Tunnel]\nPort=7\\", 7),
            ("[Tunnel]\n# Port=8 \\\nPort=7\n", 7),
        ],
    )
    def test_files_are_read_as_systemd_reads_them(self, text: str, port: int) -> None:
        assert read(text).tunnel.port == port

    def test_sections_of_paths_do_not_merge(self) -> None:
        text = CLIENT + "Beat=1s\n[Path]\nLocal=wan1\n"
        assert [path.settings.beat for path in read(text).paths] == [SECOND, SECOND // 10]

    def test_settings_of_the_tunnel_may_follow_paths(self) -> None:
        assert read(CLIENT + "[Tunnel]\nPort=7\n").tunnel.port == 7

    def test_a_number_without_a_unit_is_seconds(self) -> None:
        assert read("[Tunnel]\nKeepAlive=30\n").tunnel.keepalive == 30 * SECOND

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("1h 30min", 5400),
            ("1h30m", 5400),
            ("90 minutes", 5400),
            ("1d", 86400),
            ("1w", 604800),
            ("1min 30s", 90),
            ("1.5min 500ms", 90.5),
            ("1s 1us", 1.000001),
        ],
    )
    def test_times_are_sums_as_in_systemd(self, text: str, seconds: float) -> None:
        time = read(f"[Tunnel]\nKeyRotation={text}\n").tunnel.kxtimeout
        assert time == round(seconds * SECOND)

    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("0", 0),
            ("12345", 12345),
            ("50G", 50 * 2**30),
            ("50GB", 50 * 10**9),
            ("1.5 TiB", 1.5 * 2**40),
        ],
    )
    def test_sizes_count_as_in_systemd_or_decimally(self, text: str, size: float) -> None:
        assert read(on_path(f"Quota={text}\n")).paths[0].quota == size

    @pytest.mark.parametrize("text", ["20mbit", "20Mbit", "20 mbit", "20 Mbit/s", "2500000"])
    def test_rates_are_written_as_on_the_command_line(self, text: str) -> None:
        assert read(on_path(f"RateTx={text}\n")).paths[0].settings.rate_tx == 2_500_000


class TestKeyPath:
    def test_the_file_that_is_named(self) -> None:
        assert key_path(read("[Tunnel]\nKeyFile=/a/b\n").tunnel, "tun0") == "/a/b"

    def test_the_credential_of_the_service(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        tunnel = read("[Tunnel]\n").tunnel
        assert key_path(tunnel, "tun0") == "/etc/glorytun/tun0.key"
        (tmp_path / "key").write_text("\n")  # The unit's fallback: there is none.
        assert key_path(tunnel, "tun0") == "/etc/glorytun/tun0.key"
        (tmp_path / "key").write_text("0" * 64)
        assert key_path(tunnel, "tun0") == str(tmp_path / "key")

    def test_else_the_one_beside_the_configuration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        assert key_path(read("[Tunnel]\n").tunnel, "tun0") == "/etc/glorytun/tun0.key"


# Wrong files.


def wrong_files() -> Iterator[tuple[str, str, str]]:
    """What is wrong, the file, what is said of it."""
    text = Path(__file__).with_name("wrong_files.txt").read_text()
    for block in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        kind, _, rest = block.partition("\n")
        content, _, message = rest.partition("--- is refused with\n")
        yield kind, content, message.strip("\n")


WRONG = list(wrong_files())


def test_there_are_many_kinds_of_wrong_files() -> None:
    assert len(WRONG) >= 50


@pytest.mark.parametrize(
    ("content", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_a_wrong_file_is_told_what_is_wrong(content: str, message: str) -> None:
    assert refusal(content) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"[Tunnel]\n# M\xfcnchen\nPort=0\n",
            "tun0.conf:2:4: here is a byte that is no UTF-8\n  # M?nchen\n     ^\n"
            "  hint: save the file as UTF-8\n"
            "tun0.conf:3:6: Port= '0' is no port: a number from 1 to 65535\n"
            "  Port=0\n       ^",
        ),
        (
            "[Tunnel]\n".encode("utf-16"),
            "tun0.conf:1:1: this is no text, or UTF-16\n  hint: save the file as UTF-8",
        ),
    ],
)
def test_what_is_no_text_is_told(data: bytes, message: str) -> None:
    assert refusal(data).replace("\N{REPLACEMENT CHARACTER}", "?") == message


def test_all_that_is_wrong_is_said_in_order_of_lines() -> None:
    text = "[Tunnel]\nPort=0\nPrt=1\nPeer=a b\n[Path]\nBeat=1\nBeat=x\n[Pat]\nx\n[Path]\nRate=y\n"
    places = re.findall(r"^tun0\.conf:(\d+:\d+): (warning)?", refusal(text), re.MULTILINE)
    assert places == [
        ("2:6", ""),
        ("3:1", "warning"),
        ("4:6", ""),
        ("5:1", ""),
        ("7:6", ""),
        ("8:1", "warning"),
        ("10:1", ""),
        ("11:6", ""),
    ]


def test_a_wrong_value_does_not_entail_another_error() -> None:
    text = "[Tunnel]\nPeer=a b\nPeerPort=1\n[Path]\nLocal=x/y\nRate=fixed\nRateTx=z\n"
    assert refusal(text).count("tun0.conf:") == 3


def test_a_value_that_is_overridden_is_checked_too() -> None:
    assert "'0' is no port" in refusal("[Tunnel]\nPort=0\nPort=1\n")


def test_a_file_that_was_never_meant_for_us_is_not_read_to_its_end() -> None:
    text = refusal("[Tunnel]\n" + "Lorem=ipsum\n" * 5000)
    assert text.count("tun0.conf:") == 101
    assert text.splitlines()[-3] == (
        "tun0.conf:102:1: so much is wrong that nothing is read from here on"
    )


def test_problems_can_be_taken_apart() -> None:
    with pytest.raises(ConfigError) as caught:
        read("[Tunnel]\nPort=0 # none\n")
    (problem,) = caught.value.problems
    assert isinstance(problem, Problem)
    assert (problem.line, problem.column, problem.warning) == (2, 6, False)
    assert problem.summary == (
        "tun0.conf:2:6: Port= '0 # none' is no port: a number from 1 to 65535 "
        "(a comment needs a line of its own)"
    )


class TestExcerpts:
    def test_a_long_line_is_shown_around_the_place(self) -> None:
        line = refusal("[Tunnel]\n" + " " * 200 + "Port=" + "x" * 200 + "\n").splitlines()
        assert len(line[1]) <= 102
        assert line[1][line[2].index("^") - 5 :].startswith("Port=xxx")

    def test_what_a_terminal_would_obey_is_not_shown(self) -> None:
        text = refusal("[Tunnel]\n\tPort=\x1b[31m\x07\u202e\n[\x1b[1m]\n\x1b=1\n")
        assert all(char.isprintable() or char == "\n" for char in text)
        assert "\n   Port=?[31m??\n        ^" in text


# Warnings.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[Tunnel]\nPrt=5001\n",
            "tun0.conf:2:1: warning: there is no Prt= in [Tunnel], and it is ignored: "
            "did you mean Port=?\n  Prt=\n  ^",
        ),
        (
            "[Tunnel]\n  keyfile = /a\n",
            "tun0.conf:2:3: warning: there is no keyfile= in [Tunnel], and it is ignored: "
            "did you mean KeyFile=?\n    keyfile =\n    ^",
        ),
        (
            "[Tunnel]\nXyzzy=5001\n",
            "tun0.conf:2:1: warning: there is no Xyzzy= in [Tunnel], and it is ignored\n"
            "  Xyzzy=\n  ^",
        ),
        (
            "[Tunnel]\nBeat=1s\n",
            "tun0.conf:2:1: warning: Beat= belongs to [Path], and is ignored in [Tunnel]\n"
            "  Beat=\n  ^",
        ),
        (
            on_path("Port=5000\n"),
            "tun0.conf:5:1: warning: Port= belongs to [Tunnel], and is ignored in [Path]\n"
            "  Port=\n  ^",
        ),
        (
            "[Tunnel]\n[path]\nLocal=wan0\nnot even an assignment\n",
            "tun0.conf:2:1: warning: there is no section [path], and all of it is ignored: "
            "did you mean [Path]?\n  [path]\n  ^",
        ),
        (
            "[Tunnel]\n[Xyzzy]\n",
            "tun0.conf:2:1: warning: there is no section [Xyzzy], and all of it is ignored\n"
            "  [Xyzzy]\n  ^",
        ),
        (
            "[Tunnel]\nPeer=vpn.example.net\n",
            "tun0.conf:2:6: warning: there is no [Path], so that nothing is sent\n"
            "  Peer=vpn.example.net\n       ^\n"
            "  hint: add a [Path] with Local= for each link to the Internet",
        ),
    ],
)
def test_a_usable_file_is_warned_of(text: str, message: str) -> None:
    assert warnings(text) == [message]


@pytest.mark.parametrize(
    "line", ["Preference=0", "Mode=bulk", "Cost=0", "Quota=0", "DelayLimit=0", "Cost=1\nCost="]
)
def test_a_default_that_is_written_out_is_not_warned_of(line: str) -> None:
    assert warnings(on_path(line + "\n")) == []


# The secret key.


@pytest.mark.parametrize(
    "text",
    [
        f"[Tunnel]\nKeyFile={KEY}\n",
        f"[Tunnel]\nPeer={KEY[:63]}\n",
        f"[Tunnel]\nKey={KEY}\n",
        f"[Tunnel]\nPort=1 {KEY}\n",
        f"[Tunnel]\nPort={' '.join(KEY[i : i + 4] for i in range(0, 64, 4))}\n",
        f"[Tunnel]\nPort={':'.join(KEY[i : i + 2] for i in range(0, 64, 2))}\n",
        f"[Tunnel]\nKeyFile={KEY[:20]}\\\n{KEY[20:40]}\\\n{KEY[40:]}\n",
        f"[Tunnel]\nKeyFile={KEY[:25]}o{KEY[25:50]}o{KEY[50:]}\n",
        f"[Tunnel]\nKeyFile=0x{KEY}\n",
        f"[Tunnel]\n{KEY}\n",
        f"{KEY}\n",
        f"[Tunnel]\n{KEY}=1\n",
        f"[{KEY}]\n[Tunnel]\n",
        f"[{KEY}\n",
        f"[Tunnel]\n=x {KEY}\n",
        f"[Tunnel]\nCipher=aes {KEY.upper()}\n",
        f"[Tunnel]\n# {KEY}\xff\n".encode("latin-1"),
    ],
)
def test_a_key_is_never_shown(text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    try:
        said = "\n".join(map(str, parse(data, Path("tun0.conf")).warnings))
    except ConfigError as error:
        said = f"{error} {error.problems}"
    said = re.sub("[^0-9a-f]", "", said.lower().replace("(a key)", ""))
    pieces = {KEY[i : i + 6] for i in range(len(KEY) - 5)}
    assert not any(piece in said for piece in pieces)


def test_the_value_of_a_key_that_is_not_ours_is_not_shown() -> None:
    assert "hunter2" not in "".join(warnings("[Tunnel]\nPassword=hunter2\n"))


def test_a_host_that_looks_like_a_key_is_not_asked_for() -> None:
    assert "may be a secret key" in refusal(f"[Tunnel]\nPeer={KEY[:40]}\n")


# Files.


class TestLoad:
    def test_a_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "tun0.conf"
        path.write_text(CLIENT)
        configuration = load(path)
        assert configuration.source == path
        assert configuration.tunnel.peer == "vpn.example.net"

    def test_one_that_is_missing_is_said(self, tmp_path: Path) -> None:
        path = tmp_path / "tun0.conf"
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == (
            f"configuration {path}: No such file or directory "
            "(the line [Tunnel] alone makes a server)"
        )

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is not a regular file"):
            load(tmp_path)

    def test_a_fifo_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "tun0.conf")
        with pytest.raises(ConfigError, match="is not a regular file"):
            load(tmp_path / "tun0.conf")

    def test_a_name_that_can_not_be(self) -> None:
        with pytest.raises(ConfigError, match="embedded null"):
            load(Path("a\0b"))

    def test_64_kib_are_enough(self, tmp_path: Path) -> None:
        path = tmp_path / "tun0.conf"
        path.write_bytes(b"[Tunnel]\n".ljust(MOST_BYTES, b"#"))
        load(path)
        path.write_bytes(b"[Tunnel]\n".ljust(MOST_BYTES + 1, b"#"))
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == f"{path} has more than 65536 bytes (is it the right file?)"


# The table.


OPTIONS = [(section, option) for section, options in SECTIONS.items() for option in options]


def test_each_option_has_a_place_in_the_values() -> None:
    names = {section: {option.name for option in options} for section, options in SECTIONS.items()}
    assert names["Tunnel"] == {item.name for item in fields(TunnelConfig)}
    path = {item.name for item in (*fields(PathConfig), *fields(PathSettings))}
    assert names["Path"] == path - {"kind", "settings"}


@pytest.mark.parametrize(("section", "option"), OPTIONS, ids=lambda item: getattr(item, "key", ""))
def test_the_documentation_has_every_option(section: str, option: Option) -> None:
    """docs/config.md; this is the line that belongs there."""
    default = f"`{option.default}`" if option.default else ""
    mark = " *No effect yet.*" if option.idle else ""
    line = f"| `{option.key}=` | {default} | {option.help}{mark} |"
    page = (ROOT / "docs/config.md").read_text()
    part = page.partition(f"\n## `[{section}]`\n")[2].partition("\n## ")[0]
    assert line in part.splitlines()
