"""Command lines in the style of glorytun 0.3.4, in every order, and errors in wrong ones."""

from itertools import permutations
from typing import Any

import pytest

from glorytun.cli import bench, bind, keygen, list, path, set, show, version, words
from glorytun.core.settings import CipherChoice, PathMode, PathState
from glorytun.errors import UsageError

OPTIONS: dict[str, words.Options] = {
    "bench": bench.OPTIONS,
    "bind": bind.OPTIONS,
    "keygen": keygen.OPTIONS,
    "list": list.OPTIONS,
    "path": path.OPTIONS,
    "set": set.OPTIONS,
    "show": show.OPTIONS,
    "version": version.OPTIONS,
}


def parse(line: str) -> dict[str, Any]:
    command, *rest = line.split()
    return words.parse(command, OPTIONS[command], rest)


def error(line: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(line)
    return str(caught.value)


RATED = {"address": "10.0.0.1", "rate_tx": 125_000, "rate_rx": 2_500_000, "state": PathState.UP}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("keygen", {}),
        ("version", {}),
        ("bind 0.0.0.0 keyfile K", {"bind_address": "0.0.0.0", "keyfile": "K"}),
        (
            "bind :: 5001 dev tun7 keyfile K",
            {"bind_address": "::", "bind_port": 5001, "device": "tun7", "keyfile": "K"},
        ),
        (
            "bind 0.0.0.0 to 192.0.2.1 keyfile K",
            {"bind_address": "0.0.0.0", "peer_host": "192.0.2.1", "keyfile": "K"},
        ),
        (
            "bind 0.0.0.0 5000 to server.example 5002 keyfile K dev tun0 chacha persist",
            {
                "bind_address": "0.0.0.0",
                "bind_port": 5000,
                "peer_host": "server.example",
                "peer_port": 5002,
                "keyfile": "K",
                "device": "tun0",
                "cipher": CipherChoice.CHACHA,
                "persist": True,
            },
        ),
        (
            "bind 5001 to server 5002 keyfile -",
            {"bind_port": 5001, "peer_host": "server", "peer_port": 5002, "keyfile": "-"},
        ),
        ("bind keyfile K aegis", {"keyfile": "K", "cipher": CipherChoice.AEGIS}),
        ("bind aes keyfile K", {"keyfile": "K", "cipher": CipherChoice.AES}),
        ("show", {}),
        ("show dev tun0", {"device": "tun0"}),
        ("show bad json", {"bad": True, "json": True}),
        ("list json", {"json": True}),
        ("path", {}),
        ("path dev tun0", {"device": "tun0"}),
        ("path up", {"state": PathState.UP}),
        ("path up 10.0.0.1 rate tx 1mbit rx 20mbit", RATED),
        ("path 10.0.0.1 up rate tx 1mbit rx 20mbit", RATED),
        ("path rate rx 20mbit tx 1mbit up 10.0.0.1", RATED),
        ("path 10.0.0.1 backup", {"address": "10.0.0.1", "state": PathState.BACKUP}),
        ("path 2001:db8::1 down", {"address": "2001:db8::1", "state": PathState.DOWN}),
        (
            "path 10.0.0.1 beat 200ms losslimit 30% rate auto",
            {"address": "10.0.0.1", "beat": 200_000, "loss_limit": 77, "fixed_rate": False},
        ),
        (
            "path 10.0.0.1 delaylimit 150ms",
            {"address": "10.0.0.1", "delay_limit": 150_000},
        ),
        (
            "path 10.0.0.1 rate tx 1mbit fixed json",
            {"address": "10.0.0.1", "rate_tx": 125_000, "fixed_rate": True, "json": True},
        ),
        (
            "set tc EF kxtimeout 10m timetolerance 5m keepalive 20s",
            {
                "traffic_class": 184,
                "kxtimeout": 600_000_000,
                "timetolerance": 300_000_000,
                "keepalive": 20_000_000,
            },
        ),
        (
            "path 10.0.0.1 mode redundant up",
            {"address": "10.0.0.1", "mode": PathMode.REDUNDANT, "state": PathState.UP},
        ),
        ("bench aegis", {"cipher": "aegis256"}),
        ("bench json aes", {"cipher": "aes256gcm", "json": True}),
        ("bench chacha", {"cipher": "chacha20poly1305"}),
    ],
)
def test_a_command_line_means(line: str, found: dict[str, object]) -> None:
    assert parse(line) == found


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("bind", ["0.0.0.0 5000", "to server 5002", "keyfile K", "dev tun0", "chacha", "persist"]),
        ("path", ["10.0.0.1", "up", "rate tx 1mbit rx 20mbit", "beat 1", "losslimit 3", "json"]),
        ("set", ["tc EF", "kxtimeout 10m", "timetolerance 5m", "keepalive 20s", "dev tun0"]),
        ("path rate", ["fixed", "tx 1mbit", "rx 20mbit"]),
    ],
)
def test_the_order_of_words_does_not_matter(command: str, parts: tuple[str, ...]) -> None:
    meanings = [parse(f"{command} {' '.join(order)}") for order in permutations(parts)]
    assert all(meaning == meanings[0] for meaning in meanings)


SEE = {name: f" (see `glorytun {name} help`)" for name in OPTIONS}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "bind 0.0.0.0 keyfil K",
            "word 3 of the command, 'keyfil', is unknown: did you mean 'keyfile'?",
        ),
        ("show bda", "word 2 of the command, 'bda', is unknown: did you mean 'bad'?"),
        ("keygen now", "word 2 of the command, 'now', is unknown"),
        ("bind keyfile K KEYFILE", "word 4 of the command, 'KEYFILE', is unknown: did you mean"),
        ("path tx 1mbit", "word 2 of the command, 'tx', is unknown: it belongs right after 'rate'"),
        ("bind keyfile", "'keyfile' needs a value, FILE"),
        ("bind dev keyfile K", "'dev' needs a value, NAME, before the word 'keyfile'"),
        ("bind keyfile K to", "'to' needs a value, HOST"),
        ("bind keyfile K to h 70000", "to '70000' is no port: a number from 1 to 65535"),
        ("bind 10.0.0.256 keyfile K", "ADDR '10.0.0.256' is no IPv4 or IPv6 address"),
        ("bind keyfile K 0", "PORT '0' is no port: a number from 1 to 65535"),
        ("bind keyfile K keyfile L", "'keyfile' is given twice"),
        ("bind 10.0.0.1 keyfile K 10.0.0.2", "'ADDR' is given twice"),
        ("bind 5000 keyfile K 5001", "'PORT' is given twice"),
        ("bind keyfile K chacha aes", "'chacha' and 'aes' exclude each other"),
        ("path 10.0.0.1 up down", "'up' and 'down' exclude each other"),
        ("path 10.0.0.1 up up", "'up' is given twice"),
        ("path 10.0.0.1 rate fixed auto", "'fixed' and 'auto' exclude each other"),
        ("path 10.0.0.1 rate tx 1mbit rate rx 1mbit", "'rate' is given twice"),
        ("path 10.0.0.1 rate", "'rate' needs one of fixed, auto, tx, rx"),
        ("path 10.0.0.1 rate 20mbit", "'rate' needs one of fixed, auto, tx, rx"),
        ("path 10.0.0.1 rate tx rx 1mbit", "'tx' needs a value, RATE, before the word 'rx'"),
        ("path 10.0.0.1 rate tx 1mb", "tx '1mb' is no rate: bytes/s, or a number with kbit,"),
        ("path 10.0.0.1 beat 1y", "beat '1y' is no time: seconds, or as in 200ms"),
        ("path 10.0.0.1 delaylimit 61s", "delaylimit '61s' must be from 0 to 60s"),
        ("path 10.0.0.1 losslimit 101%", "losslimit '101%' must be from 0% to 100%"),
        ("set tc FE", "tc 'FE' is no traffic class: CS0 to CS7, AF11 to AF43 or EF"),
    ],
)
def test_a_wrong_command_line_is_told_what_is_wrong(line: str, message: str) -> None:
    text = error(line)
    assert text.startswith(message)
    assert text.endswith(SEE[line.split()[0]])


def test_a_missing_keyfile_is_told_how_to_make_one() -> None:
    assert error("bind 0.0.0.0") == (
        "a keyfile is needed (`glorytun keygen` makes the key that goes in there)"
    )


@pytest.mark.parametrize("word", ["", "\n", "\udc80", "0", "--help", "é" * 100])
@pytest.mark.parametrize("command", OPTIONS)
def test_any_word_is_understood_or_a_usage_error(command: str, word: str) -> None:
    try:
        words.parse(command, OPTIONS[command], [word])
    except UsageError as problem:
        assert "\n" not in str(problem)  # noqa: PT017 - many words, and not all are wrong


@pytest.mark.parametrize("command", OPTIONS)
def test_usage_fits_a_terminal_and_help_has_a_sentence_for_each_option(command: str) -> None:
    options = OPTIONS[command]
    assert all(len(line) < 80 for line in words.usage(command, options).splitlines())
    described = words.describe(options)
    assert all(line.endswith((".", ":")) for line in described.splitlines())
    for word in words.known_words(options):
        assert word in words.usage(command, options)
        assert f" {word}" in described


def test_usage_shows_what_may_be_left_out() -> None:
    assert " ".join(words.usage("bind", bind.OPTIONS).split()) == (
        "usage: glorytun bind [ADDR] [PORT] [to HOST [PORT]] [dev NAME] keyfile FILE "
        "[aegis|aes|chacha] [persist]"
    )
    assert "[rate [fixed|auto] [tx RATE] [rx RATE]]" in words.usage("path", path.OPTIONS)
