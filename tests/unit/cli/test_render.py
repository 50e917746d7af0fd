"""What users see of a tunnel."""

from dataclasses import replace

from glorytun.cli.render import (
    clock_difference,
    render_bad,
    render_list,
    render_paths,
    render_tunnel,
)
from glorytun.control.messages import describe_bad, describe_path, describe_tunnel
from glorytun.core.settings import REORDER_AUTO, PathSettings, Settings
from glorytun.core.status import BadKind, BadStatus, Condition, Held
from tests.unit.control.samples import BAD, DEGRADED, FACTS, RUNNING, START, TUNNEL

NOW = START / 1e6 + 7384
TUNNEL_DOCUMENT = describe_tunnel(TUNNEL, settings=Settings(client=True), facts=FACTS)


def test_a_tunnel_is_one_block() -> None:
    assert (
        render_tunnel(TUNNEL_DOCUMENT, now=NOW)
        == """\
tun0: client, pid 1234, running for 2 h 3 min, glorytun 0.1.0
  bind      0.0.0.0:5000
  peer      203.0.113.9:5000 (server.example), glorytun 0.1.0
  cipher    AEGIS-256, keys are 2 h 2 min old
  mtu       1450
  sent      1.23 MB in 1000 packets, 3 dropped that fit no path
  received  7.65 MB in 6000 packets
  settings  tc CS6, kxtimeout 1 h, timetolerance 10 min, keepalive 25 s
  kernel    uses udp_gso; without udp_gro"""
    )


def test_each_reason_why_packets_did_not_leave_is_told() -> None:
    facts = replace(FACTS, crowded_out=4, overflowed=5)
    document = describe_tunnel(TUNNEL, settings=Settings(client=True), facts=facts)
    (sent,) = [line for line in render_tunnel(document, now=NOW).splitlines() if " sent " in line]
    assert sent.endswith(
        "3 dropped that fit no path, 4 that were more than the paths carry, "
        "5 that the device had no room for"
    )


def test_settings_of_several_links_are_shown_where_they_are_set() -> None:
    """If they aren't as usual."""
    settings = Settings(client=True, redundant=184, reorder=50_000)
    document = describe_tunnel(TUNNEL, settings=settings, facts=FACTS)
    assert "keepalive 25 s, redundant EF, reorder 50ms\n" in render_tunnel(document, now=NOW)
    for reorder, text in ((0, "keepalive 25 s, reorder off\n"), (REORDER_AUTO, "keepalive 25 s\n")):
        settings = Settings(client=True, reorder=reorder)
        document = describe_tunnel(TUNNEL, settings=settings, facts=FACTS)
        assert text in render_tunnel(document, now=NOW)


def test_what_waits_for_slower_paths_is_shown() -> None:
    for held, text in (
        (Held.NONE, " packets\n"),
        (Held.TCP, " packets; TCP waits for slower paths, to be in order\n"),
        (Held.ALL, " packets; they wait for slower paths, to be in order\n"),
    ):
        status = replace(TUNNEL, held=held)
        document = describe_tunnel(status, settings=Settings(client=True), facts=FACTS)
        assert text in render_tunnel(document, now=NOW)


def test_a_server_without_a_client_says_so() -> None:
    status = replace(TUNNEL, client=False, cipher="none", mtu=0, keys_exchanged_at=0)
    facts = replace(FACTS, peer=None, peer_host="", features={})
    document = describe_tunnel(status, settings=Settings(client=False), facts=facts)
    lines = render_tunnel(document, now=NOW).splitlines()
    assert lines[0].startswith("tun0: server, ")
    assert "  peer      none yet" in lines
    assert "  cipher    none, no keys were exchanged yet" in lines
    assert "  mtu       not known yet" in lines


def test_a_client_names_a_server_that_does_not_resolve() -> None:
    facts = replace(FACTS, peer=None)
    document = describe_tunnel(TUNNEL, settings=Settings(client=True), facts=facts)
    lines = render_tunnel(document, now=NOW).splitlines()
    assert "  peer      server.example, whose address is not known yet" in lines


def test_a_peer_s_software_can_not_command_the_terminal() -> None:
    status = replace(TUNNEL, peer_software="evil\x1b[2J\n")
    document = describe_tunnel(status, settings=Settings(client=True), facts=FACTS)
    assert "evil?[2J?" in render_tunnel(document, now=NOW)


def test_a_delay_limit_is_shown_if_there_is_one() -> None:
    path = replace(RUNNING, settings=replace(RUNNING.settings, delay_limit=150_000))
    assert "losslimit 30 %, delaylimit 150 ms" in render_paths([describe_path(path)])


def test_each_path_is_one_block() -> None:
    assert (
        render_paths([describe_path(RUNNING), describe_path(DEGRADED)])
        == """\
path 192.168.1.2 to 203.0.113.9:5000
  state     up, running
  public    198.51.100.7:40123
  mtu       1450
  rtt       12.3 ms, varies by 1.2 ms
  tx        960 kbit/s (auto, at most 1 Mbit/s), 1.2 % lost, 1.3 MB in 1100 datagrams
  rx        unlimited, 0 % lost, 8 MB in 6100 datagrams
  limit     none, there is no more to send
  settings  beat 100 ms, losslimit 30 %

path 2001:db8::2 to [2001:db8::1]:5000
  state     backup, degraded: the peer did not answer the last 5 requests
  public    -
  mtu       not known yet
  rtt       not measured yet
  tx        960 kbit/s (auto), 1.2 % lost, 1.3 MB in 1100 datagrams
  rx        unlimited, 0 % lost, 8 MB in 6100 datagrams
  settings  beat 100 ms, losslimit 100 %"""
    )


def test_a_fixed_rate_is_not_said_twice() -> None:
    path = replace(RUNNING, settings=PathSettings(rate_tx=125_000, fixed_rate=True))
    assert "tx        960 kbit/s (fixed)," in render_paths([describe_path(path)])


def test_every_condition_has_words() -> None:
    for condition in Condition:
        text = render_paths([describe_path(replace(RUNNING, condition=condition))])
        assert f"  state     up, {'not used' if condition == 'down' else condition}" in text


def test_no_paths_are_said() -> None:
    assert render_paths([]) == "no paths"


def test_dropped_datagrams_are_counted_and_explained() -> None:
    assert (
        render_bad(describe_bad(BAD), now=START / 1e6 + 100)
        == """\
decrypt: 7 datagrams
  why       can't be decrypted
  last from 203.0.113.9:5000
  when      10 s ago
  hint      noise from the Internet, or the peer has another secret key

difftime: 2 datagrams
  why       the time is too far from ours
  last from 203.0.113.9:5000
  when      5 s ago
  clocks    the peer's clock is 15 min 2 s ahead"""
    )


def test_every_kind_of_drop_has_words() -> None:
    for kind in BadKind:
        bad = BadStatus(kind=kind, count=1, last=None, last_at=0)
        title, why, *_ = render_bad(describe_bad([bad]), now=NOW).splitlines()
        assert title == f"{kind}: 1 datagram"
        assert why.removeprefix("  why ").strip() not in ("", kind)


def test_nothing_dropped_is_said() -> None:
    bad = [replace(status, count=0) for status in BAD]
    assert render_bad(describe_bad(bad), now=NOW) == "nothing was dropped"


def test_a_clock_may_be_behind() -> None:
    assert clock_difference(-90) == "the peer's clock is 1 min 30 s behind"


def test_tunnels_are_listed_in_columns() -> None:
    server = {**TUNNEL_DOCUMENT, "device": "tun-server", "role": "server", "peer": None}
    assert (
        render_list([TUNNEL_DOCUMENT, server])
        == """\
DEVICE      PID   ROLE    BIND          PEER
tun0        1234  client  0.0.0.0:5000  203.0.113.9:5000
tun-server  1234  server  0.0.0.0:5000  -"""
    )


def test_no_tunnels_are_said() -> None:
    assert render_list([]) == "no tunnel is running"
