"""What the service writes into the journal: priorities, fields, and who said it."""

import errno
import json

from tests.lab.tunnel import CONFIG, KEY, TUNNEL, UNIT, End, Pair
from tests.netns.wait import wait_for

Entry = dict[str, str]


def entries(end: End, *words: str) -> list[Entry]:
    """What ``journalctl`` has, as fields; `words` choose."""
    text = end.run("journalctl", "-o", "json", *words).stdout
    return [json.loads(line) for line in text.splitlines()]


def ours(end: End, *words: str) -> list[Entry]:
    """What the unit's processes said, not systemd about them."""
    return entries(end, f"_SYSTEMD_UNIT={UNIT}", *words)


def wait_entry(end: End, *words: str) -> Entry:
    """The newest entry, as soon as there is one."""
    found = wait_for(lambda: ours(end, *words), timeout=5, what=f"an entry {' '.join(words)}")
    return found[-1]


def test_each_line_has_its_fields(tunnel: Pair) -> None:
    """Not one comes by stderr, from start to stop."""
    for end in tunnel.ends:
        end.systemctl("stop", UNIT)
        found = ours(end)
        assert len(found) > 5
        for entry in found:
            assert entry["_TRANSPORT"] == "journal", entry
            assert entry["SYSLOG_IDENTIFIER"] == "glorytun"
            assert entry["GLORYTUN_DEVICE"] == TUNNEL
            assert entry["PRIORITY"] in {"4", "6"}
        assert "stopped by SIGTERM" in found[-1]["MESSAGE"]


def test_path_changes_are_found_by_their_fields(tunnel: Pair) -> None:
    client, server = tunnel.client, tunnel.server
    path = {"GLORYTUN_LOCAL": "10.9.1.1", "GLORYTUN_REMOTE": "10.9.9.9:5000"}
    match = [f"{name}={value}" for name, value in path.items()]
    running = wait_entry(
        client, "GLORYTUN_EVENT=path_changed", "GLORYTUN_CONDITION=running", *match
    )
    assert running["PRIORITY"] == "6"
    assert running["GLORYTUN_OLD_CONDITION"] == "probing"
    server.run("ip", "route", "add", "unreachable", "10.9.1.1")
    degraded = wait_entry(
        client, "GLORYTUN_EVENT=path_changed", "GLORYTUN_CONDITION=degraded", *match
    )
    assert degraded["PRIORITY"] == "4"
    assert degraded["GLORYTUN_REASON"] in degraded["MESSAGE"]
    failed = wait_entry(server, "GLORYTUN_EVENT=send_failed")
    assert (failed["PRIORITY"], failed["ERRNO"]) == ("4", str(errno.EHOSTUNREACH))
    # Whoever may read the journal finds it there, without the unit's name.
    assert degraded in entries(client, "GLORYTUN_EVENT=path_changed", "-p", "warning")
    assert wait_entry(client, "GLORYTUN_EVENT=keys_exchanged")["GLORYTUN_CIPHER"]
    assert wait_entry(client, "GLORYTUN_EVENT=tunnel_mtu_changed")["GLORYTUN_MTU"].isdecimal()


def test_a_peer_that_stops_is_a_warning(tunnel: Pair) -> None:
    tunnel.server.systemctl("stop", UNIT)
    assert wait_entry(tunnel.client, "GLORYTUN_EVENT=peer_stopped")["PRIORITY"] == "4"


def test_a_refused_reload_is_an_error_at_its_place(tunnel: Pair) -> None:
    """An entry for each problem, by the daemon; `systemctl status` shows line and caret."""
    client = tunnel.client
    pid = f"_PID={client.main_pid}"
    client.configure("Local=wan0\nBeat=soon", "Local=wan1\nRateTx=much\nTypo=1")
    assert client.run("systemctl", "reload", UNIT, check=False).returncode != 0
    found = ours(client, f"CONFIG_FILE={CONFIG}", pid)
    lines = [(entry["PRIORITY"], entry["CONFIG_LINE"]) for entry in found]
    assert lines == [("3", "6"), ("3", "10"), ("4", "11")]
    assert found[0]["GLORYTUN_DEVICE"] == TUNNEL
    assert found[0]["MESSAGE"].startswith(f"{CONFIG}:6:6: ")
    status = client.systemctl("status", UNIT)
    assert "Beat=soon" in status
    assert f"{CONFIG}:10:8: " in status
    # So is what `glorytun reload` says, on one line.
    (answer,) = (entry for entry in ours(client, "PRIORITY=3") if entry not in found)
    assert "soon" in answer["MESSAGE"]
    assert "\n" not in answer["MESSAGE"]
    client.configure("Local=wan0", "Local=wan1\nTypo=1")
    client.systemctl("reload", UNIT)
    warning = ours(client, f"CONFIG_FILE={CONFIG}", pid)[-1]
    assert (warning["PRIORITY"], warning["CONFIG_LINE"]) == ("4", "9")


def test_an_error_at_the_start_is_of_the_unit(pair: Pair) -> None:
    """Even though the process that said so is gone at once: ten times of ten."""
    client = pair.client
    client.configure("Local=wan0\nBeat=soon")
    for number in range(1, 11):
        assert client.run("systemctl", "start", UNIT, check=False).returncode != 0
        client.wait_state("failed")
        client.run("journalctl", "--sync")
        found = ours(client, f"CONFIG_FILE={CONFIG}")
        assert len(found) == number
        assert (found[-1]["PRIORITY"], found[-1]["CONFIG_LINE"]) == ("3", "6")
    assert f"{CONFIG}:6:6: " in client.systemctl("status", UNIT, check=False)


def test_a_missing_key_is_an_error(pair: Pair) -> None:
    client = pair.client
    client.path(KEY).unlink()
    assert client.run("systemctl", "start", UNIT, check=False).returncode != 0
    client.wait_state("failed")
    entry = wait_entry(client, "PRIORITY=3")
    assert KEY in entry["MESSAGE"]
    assert entry["_TRANSPORT"] == "journal"


def test_no_secret_gets_there(tunnel: Pair) -> None:
    """In no field of any entry, also when it stands where it shouldn't."""
    client = tunnel.client
    key = client.path(KEY).read_text().strip()
    client.configure("Local=wan0", tunnel=f"KeyFile={key}\nPeerPort={key}\n")
    assert client.run("systemctl", "reload", UNIT, check=False).returncode != 0
    client.run("journalctl", "--sync")
    assert ours(client, f"CONFIG_FILE={CONFIG}")
    for end in tunnel.ends:
        assert key not in end.run("journalctl", "-o", "json", "--all").stdout


def test_a_journal_that_hangs_holds_up_no_packet(tunnel: Pair) -> None:
    """While journald doesn't read, paths come and go as ever, and so does the service."""
    client = tunnel.client
    journald = client.shown("MainPID", "systemd-journald")
    with tunnel.stream() as stream:
        stream.flow(50)
        client.run("sh", "-c", f"kill -STOP {journald}")
        try:
            client.run("ip", "link", "set", "wan1", "down")
            wait_for(lambda: len(client.paths()) == 1, timeout=5, what="one path")
            stream.flow(100)
            client.systemctl("restart", UNIT)
            stream.flow(100, timeout=10)
        finally:
            client.run("sh", "-c", f"kill -CONT {journald}")
    assert wait_entry(client, "GLORYTUN_EVENT=path_removed")["GLORYTUN_LOCAL"] == "10.9.1.1"


def test_a_terminal_has_plain_text(pair: Pair) -> None:
    """A command that inherits $JOURNAL_STREAM, and whose stderr is another, writes there."""
    script = "JOURNAL_STREAM=8:1 glorytun show"
    done = pair.client.run("sh", "-c", script, check=False)
    assert done.stderr.startswith("glorytun: no tunnel is running")
    assert not entries(pair.client, "SYSLOG_IDENTIFIER=glorytun")
