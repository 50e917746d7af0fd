"""Requests and answers survive the way through JSON, and nothing else gets through."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun import config
from glorytun.control.messages import (
    LINE_LIMIT,
    Bad,
    Paths,
    Request,
    Set,
    SetPath,
    Show,
    decode_answer,
    decode_request,
    describe_bad,
    describe_path,
    describe_tunnel,
    encode_answer,
    encode_error,
    encode_request,
)
from glorytun.core.settings import (
    NO_CLASS,
    REORDER_AUTO,
    PathChange,
    PathMode,
    PathState,
    Settings,
    SettingsChange,
)
from glorytun.errors import NoTunnelError, TunnelError
from tests.unit.control.samples import BAD, DEGRADED, FACTS, RUNNING, TUNNEL


def within(bounds: config.Bounds) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(bounds.low, bounds.high)


rates = st.none() | st.just(0) | st.integers(config.LOWEST_RATE, config.HIGHEST_RATE)

path_changes = st.builds(
    PathChange,
    state=st.none() | st.sampled_from(PathState),
    rate_tx=rates,
    rate_rx=rates,
    fixed_rate=st.none() | st.booleans(),
    beat=within(config.BEAT),
    loss_limit=within(config.LOSS_LIMIT),
    delay_limit=within(config.DELAY_LIMIT),
    mode=st.none() | st.sampled_from(PathMode),
    cost=within(config.COST),
    preference=within(config.PREFERENCE),
)
settings_changes = st.builds(
    SettingsChange,
    kxtimeout=within(config.KXTIMEOUT),
    timetolerance=within(config.TIMETOLERANCE),
    keepalive=within(config.KEEPALIVE),
    traffic_class=within(config.TRAFFIC_CLASS),
    redundant=st.none() | st.sampled_from([NO_CLASS, 0, 0x88, 0xB8]),
    reorder=st.none()
    | st.sampled_from([0, REORDER_AUTO])
    | st.integers(10, 10_000).map(lambda n: n * 100),
)
requests = st.one_of(
    st.sampled_from([Show(), Bad(), Paths()]),
    st.builds(SetPath, address=st.binary(min_size=16, max_size=16), change=path_changes),
    st.builds(Set, change=settings_changes),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(requests)
def test_a_request_is_decoded_as_it_was_encoded(request: Request) -> None:
    line = encode_request(request)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_request(line) == request


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_refused_in_one_way(line: bytes) -> None:
    with pytest.raises(TunnelError, match=r"^bad request: "):
        decode_request(line)


@given(
    st.sampled_from(["set", "set_path"]),
    st.sampled_from(
        [field.name for kind in (PathChange, SettingsChange) for field in fields(kind)] + ["other"]
    ),
    json_values,
)
def test_any_value_of_a_change_is_refused_or_within_bounds(
    request: str, key: str, value: object
) -> None:
    document = {"request": request, "change": {key: value}}
    if request == "set_path":
        document["address"] = "10.0.0.1"
    try:
        decoded = decode_request(json.dumps(document).encode())
    except TunnelError:
        return
    assert decode_request(encode_request(decoded)) == decoded


def change(**values: object) -> bytes:
    return json.dumps({"request": "set_path", "address": "10.0.0.1", "change": values}).encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b'{"request":NaN}', "it is not JSON"),
        (b"9" * 5000, "it is not JSON"),
        (b"[" * 60000, "it is nested too deeply"),
        (b" " * (LINE_LIMIT + 1), "it is longer than 65536 bytes"),
        (b'"show"', "it has an unknown form"),
        (b'{"request":"show","more":1}', "it has an unknown form"),
        (b'{"request":"set_path","change":{}}', "it has an unknown form"),
        (
            b'{"request":"set_path","address":"10.0.0.256","change":{}}',
            "'10.0.0.256' does not appear to be an IPv4 or IPv6 address",
        ),
        (change(colour="red"), "'colour' can't be changed"),
        (change(state="sideways"), "state must be up, backup or down"),
        (change(state=["up"]), "state must be up, backup or down"),
        (change(fixed_rate=1), "fixed_rate must be true or false"),
        (change(rate_tx=1.5), "rate_tx must be a whole number of bytes/s"),
        (change(rate_tx=True), "rate_tx must be a whole number of bytes/s"),
        (
            change(rate_rx=-1),
            "rate_rx is -1 bytes/s, and must be 0 (no ceiling) or from 64kbit to 8000gbit",
        ),
        (change(beat=0), "beat must be from 10ms to 10s"),
        (change(beat="1"), "beat must be from 10ms to 10s"),
        (change(beat=10**400), "beat must be from 10ms to 10s"),
        (b'{"request":"set","change":{"kxtimeout":1e999}}', "kxtimeout must be from 1s to 168h"),
        (change(loss_limit=1.1), "loss_limit must be from 0% to 100%"),
        (change(delay_limit=60.1), "delay_limit must be from 0 to 60s"),
        (b'{"request":"set","change":{"traffic_class":0.5}}', "traffic_class must be from 0"),
        (change(mode="both"), "mode must be bulk or redundant"),
        (change(mode=["bulk"]), "mode must be bulk or redundant"),
        (change(cost=-1), "cost must be from 0 to 1000000"),
        (change(cost=True), "cost must be from 0 to 1000000"),
        (b'{"request":"set","change":{"redundant":184}}', "redundant must be the name of a"),
        (b'{"request":"set","change":{"redundant":"FE"}}', "redundant is no traffic class"),
        (b'{"request":"set","change":{"reorder":0.05}}', "reorder must be off, auto or a time"),
        (b'{"request":"set","change":{"reorder":"2s"}}', "reorder must be from 1ms to 1s"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(line: bytes, reason: str) -> None:
    with pytest.raises(TunnelError) as caught:
        decode_request(line)
    assert str(caught.value).startswith(f"bad request: {reason}")


def test_an_answer_is_its_result() -> None:
    assert decode_answer(encode_answer({"paths": []})) == {"paths": []}


def test_a_refusal_keeps_its_message_and_hint() -> None:
    with pytest.raises(TunnelError) as caught:
        decode_answer(encode_error(NoTunnelError("no such path", hint="make it")))
    assert str(caught.value) == "no such path (make it)"


@pytest.mark.parametrize("line", [b"", b"{}", b'{"ok":true}', b'{"ok":false}', b"[]", b"\xff"])
def test_an_answer_that_makes_no_sense_is_an_error(line: bytes) -> None:
    with pytest.raises(TunnelError, match="the tunnel's answer makes no sense"):
        decode_answer(line)


def test_a_tunnel_is_described_in_si_units() -> None:
    assert describe_tunnel(TUNNEL, settings=Settings(client=True), facts=FACTS) == {
        "device": "tun0",
        "pid": 1234,
        "version": "0.1.0",
        "started_at": 1.7e9,
        "role": "client",
        "bind": {"address": "0.0.0.0", "port": 5000},
        "peer": {"address": "203.0.113.9", "port": 5000},
        "peer_host": "server.example",
        "peer_software": "glorytun 0.1.0",
        "cipher": "aegis256",
        "keys_exchanged_at": 1.7e9 + 60,
        "mtu": 1450,
        "sent": {
            "bytes": 1_234_567,
            "packets": 1000,
            "dropped": 3,
            "crowded_out": 0,
            "overflowed": 0,
        },
        "received": {
            "bytes": 7_654_321,
            "packets": 6000,
            "undelivered": 0,
            "copies": 6,
            "held": "none",
        },
        "settings": {
            "cipher": "auto",
            "kxtimeout": 3600,
            "timetolerance": 600,
            "keepalive": 25,
            "traffic_class": 192,
            "redundant": "off",
            "reorder": "auto",
        },
        "features": {"udp_gso": True, "udp_gro": False},
    }


def test_what_a_tunnel_does_not_know_yet_is_null() -> None:
    status = replace(TUNNEL, mtu=0, keys_exchanged_at=0)
    facts = replace(FACTS, peer=None)
    described = describe_tunnel(status, settings=Settings(client=False), facts=facts)
    assert [described[key] for key in ("mtu", "keys_exchanged_at", "peer")] == [None, None, None]


def test_a_path_is_described_in_si_units() -> None:
    assert describe_path(RUNNING) == {
        "local": "192.168.1.2",
        "remote": {"address": "203.0.113.9", "port": 5000},
        "public": {"address": "198.51.100.7", "port": 40123},
        "state": "up",
        "condition": "running",
        "reason": "",
        "mtu": 1450,
        "rtt": 0.0123,
        "rtt_variation": 0.0012,
        "limit": "application",
        "queue": 0.0,
        "tx": {"rate": 120_000, "loss": 3 / 255, "bytes": 1_300_000, "datagrams": 1100},
        "rx": {"rate": 0, "loss": 0, "bytes": 8_000_000, "datagrams": 6100},
        "last_received_at": 1.7e9 + 100,
        "quota": None,
        "settings": {
            "rate": "auto",
            "rate_tx": 125_000,
            "rate_rx": 0,
            "beat": 0.1,
            "loss_limit": 77 / 255,
            "delay_limit": 0.0,
            "mode": "bulk",
            "preference": 0,
            "cost": 0,
        },
    }


def test_what_a_path_does_not_know_yet_is_null() -> None:
    described = describe_path(DEGRADED)
    unknown = ("public", "mtu", "rtt", "rtt_variation", "last_received_at")
    assert all(described[key] is None for key in unknown)


def test_only_difftime_has_a_clock_offset() -> None:
    offsets = {kind["kind"]: kind["clock_offset"] for kind in describe_bad(BAD)}
    assert offsets == {"decrypt": None, "difftime": 902.0, "replay": None}


def test_every_key_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "json.md").read_text()
    tunnel = describe_tunnel(TUNNEL, settings=Settings(client=True), facts=FACTS)
    for described in (tunnel, describe_path(RUNNING), *describe_bad(BAD)):
        for key, value in described.items():
            inner = value if isinstance(value, dict) and key != "features" else {}
            for name in (key, *inner):
                assert f"`{name}`" in page or f'"{name}"' in page


def test_32_paths_fit_in_an_answer() -> None:
    described: list[dict[str, Any]] = [describe_path(DEGRADED)] * 32
    assert len(encode_answer({"paths": described})) < LINE_LIMIT // 2
