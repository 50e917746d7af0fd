"""A tunnel of a file on hosts where something is out of the ordinary.

The topology is `configured.home`.
"""

import json
import os
import signal

import pytest

from tests.netns.configured import REMOTE, Configured, add_default_route, home, start
from tests.netns.topology import Lab
from tests.netns.tunnel import Tunnels
from tests.netns.wait import wait_for

FIRST, SECOND = "10.9.1.1", "10.9.2.1"
"""The client's addresses."""


def test_a_section_that_is_down_is_set_up_by_hand(lab: Lab, tunnels: Tunnels) -> None:
    """The rest of its settings are those of the file, and so is the server's address."""
    down = "Local=link2\nState=down\nBeat=300ms\nPeer=10.9.2.2"
    pair = start(tunnels, home(lab), "Local=link1", down)
    pair.wait_running()
    pair.client.command("path", SECOND, "up")
    wait_for(lambda: SECOND in pair.client.locals(), timeout=2, what="the path")
    assert [path.remote for path in pair.client.paths()] == [REMOTE, "10.9.2.2"]
    assert pair.client.settings(SECOND)["beat"] == 0.3


def test_a_fixed_rate_by_hand_needs_one(lab: Lab, tunnels: Tunnels) -> None:
    """Neither a path that is there nor one that the file keeps down takes anything of it."""
    pair = start(tunnels, home(lab), "Local=link1", "Local=link2\nState=down")
    pair.wait_running()
    before = pair.client.settings(FIRST)
    for address in (FIRST, SECOND):
        refused = pair.client.glorytun("path", address, "beat", "300ms", "rate", "fixed")
        assert (refused.returncode, refused.stderr) == (
            1,
            "glorytun: a path whose rate is fixed needs a rate to send at "
            "(`rate fixed tx RATE` gives it, `rate auto` finds it)\n",
        )
    assert pair.client.settings(FIRST) == before
    pair.client.command("path", SECOND, "up")
    wait_for(lambda: SECOND in pair.client.locals(), timeout=2, what="the path")
    assert pair.client.settings(SECOND)["beat"] == 0.1


def test_an_address_that_moves_to_another_link(lab: Lab, tunnels: Tunnels) -> None:
    """The path is then that of the other link's section, though nothing else of it changed."""
    topology = home(lab)
    pair = start(tunnels, topology, "Local=link1", "Local=link2\nBeat=300ms")
    pair.wait_running(2)
    topology.client.ip(
        f"address delete {SECOND}/24 dev link2",
        f"address delete {FIRST}/24 dev link1",
        f"address add {FIRST}/24 dev link2",
    )
    wait_for(lambda: pair.client.locals() == [FIRST], timeout=2, what="the one path")
    assert pair.client.settings(FIRST)["beat"] == 0.3


def test_two_links_with_one_address(lab: Lab, tunnels: Tunnels) -> None:
    """As two modems of one kind give it: the path stays on the link of its section."""
    topology = home(lab)
    pair = start(tunnels, topology, "Local=link1")
    pair.wait_running()
    topology.client.ip(f"address add {FIRST}/24 dev link2")
    first, second = topology.links
    with pair.stream() as stream:
        stream.flow(100)
        before = first.carried(), second.carried()
        stream.flow(100)
    assert first.carried() - before[0] > 20_000
    assert second.carried() - before[1] < 2_000
    assert not stream.report.lost, str(stream.report)


def test_a_path_that_is_gone_is_not_complained_of(lab: Lab, tunnels: Tunnels) -> None:
    """That the peer can't be told where there is no address any more is no news."""
    topology = home(lab)
    pair = start(tunnels, topology, "Local=link1", "Local=link2")
    pair.wait_running(2)
    for number in range(10, 15):
        before = pair.client.logged()
        # Nothing is sent at this moment but the farewells: beats are 25 s apart without traffic.
        topology.client.ip("address flush dev link2", f"address add 10.9.2.{number}/24 dev link2")
        add_default_route(topology.client, 2)
        pair.client.wait_ends((FIRST, REMOTE), (f"10.9.2.{number}", REMOTE))
        said = pair.client.logged().removeprefix(before).splitlines()
        gone = next(i for i, line in enumerate(said) if "was forgotten" in line)
        assert not [line for line in said[gone:] if "can't send" in line], "\n".join(said)


def test_a_tunnel_whose_device_is_renamed(lab: Lab, tunnels: Tunnels) -> None:
    """No path leads through the tunnel itself, though the glob means every other device."""
    topology = home(lab)
    pair = start(tunnels, topology, "Local=*")
    pair.wait_running(2)
    topology.client.ip(
        f"link set {pair.client.dev} down",
        f"link set {pair.client.dev} name other",
        "link set other up",
        "address add 10.9.1.99/24 dev link1",
        "address add 10.99.0.1/24 dev other",
    )
    with pytest.raises(AssertionError, match="in vain"):
        wait_for(
            lambda: set(pair.client.locals()) - {FIRST, SECOND}, timeout=1, what="another path"
        )


def test_a_mark_that_may_not_be_set(lab: Lab, tunnels: Tunnels) -> None:
    """A reload that fails for another reason than the file is refused as a whole, too."""
    client = tunnels.make(Configured, home(lab).client, peer=REMOTE, paths=("Local=link1",))
    client.host.ip(f"tuntap add {client.dev} mode tun")
    client.program = ("setpriv", "--bounding-set", "-net_admin,-net_raw", *client.program)
    client.start()
    client.configure("Local=link1\nBeat=300ms", tunnel="FirewallMark=5\n")
    refused = client.try_reload()
    message = "datagrams can't be given the mark 0x5: Operation not permitted"
    assert refused.returncode == 1
    assert message in refused.stderr
    assert client.settings(FIRST)["beat"] == 0.1
    assert message in client.logged()
    assert f"reload refused: {message}" in client.status()


def test_names_that_are_no_text(lab: Lab, tunnels: Tunnels) -> None:
    """An interface may be called by bytes that are no UTF-8; others aren't harmed by that."""
    topology = home(lab)
    pair = start(tunnels, topology, "Local=*")
    pair.wait_running(2)
    topology.client.run(
        *("sh", "-c"),
        r"""
        name=$(printf '\377\376')
        ip link add "$name" type veth peer name other
        ip address add 10.44.0.1/24 dev "$name"
        ip link set other up
        ip link set "$name" up
        """,
    )
    wait_for(lambda: len(pair.client.paths()) == 3, timeout=2, what="its path")
    assert pair.client.glorytun("check", str(pair.client.file)).returncode == 0
    topology.client.ip("link delete other")
    pair.client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
    pair.ping()


def test_more_links_than_paths(lab: Lab, tunnels: Tunnels) -> None:
    """What is too many is said once for each, and does the others no harm."""
    topology = home(lab)
    pair = start(tunnels, topology, "Local=*")
    pair.wait_running(2)
    topology.client.ip(
        *(
            command
            for number in range(40)
            for command in (
                f"link add x{number} type veth peer name y{number}",
                f"link set y{number} up",
                f"address add 10.44.{number}.1/24 dev x{number}",
                f"link set x{number} up",
            )
        )
    )
    wait_for(lambda: len(pair.client.paths()) == 32, timeout=5, what="32 paths")
    pair.ping()
    topology.client.ip(*(f"link delete x{number}" for number in range(40)))
    pair.client.wait_ends((FIRST, REMOTE), (SECOND, REMOTE))
    pair.ping()
    refused = [line for line in pair.client.logged().splitlines() if "no more may be" in line]
    assert len(refused) == len(set(refused))


def test_a_link_with_a_quota(lab: Lab, tunnels: Tunnels) -> None:
    """Both sides leave it alone once that is used up, after a restart too, until there is more."""
    topology = home(lab)
    rate = "Rate=fixed\nRateTx=20mbit"
    pair = start(tunnels, topology, f"Local=link1\n{rate}", f"Local=link2\n{rate}\nQuota=300kB")
    pair.wait_running(2)
    pair.transfer(size=3_000_000)

    def is_down() -> bool:
        return [path.local for path in pair.client.paths() if path.condition == "down"] == [SECOND]

    wait_for(is_down, timeout=4, what="the quota's end")
    assert "link2 has used up its quota" in pair.client.logged()
    used = pair.client.quota(SECOND)["used"]
    assert used > 300_000
    link = topology.links[1]
    before = link.carried()
    for up in (True, False):
        pair.transfer(size=1_000_000, up=up)
    assert link.carried() - before < 10_000
    pair.client.stop()
    pair.client.notifications()  # With what was to be kept, which nobody keeps here.
    pair.client.start()
    pair.wait_running(1)
    wait_for(is_down, timeout=4, what="it to be remembered")
    assert pair.client.quota(SECOND)["used"] >= used
    pair.client.reconfigure(f"Local=link1\n{rate}", f"Local=link2\n{rate}\nQuota=1G")
    pair.wait_running(2)


def test_a_slow_disk_is_waited_for_when_the_peer_was_told(lab: Lab, tunnels: Tunnels) -> None:
    """What quotas have left is noted last: the service is killed if that takes too long."""
    pair = start(tunnels, home(lab), "Local=link1\nQuota=1G")
    pair.wait_running()
    slow = pair.client.directory / f"{pair.client.dev}.new"
    os.mkfifo(slow)  # Whoever opens it to write waits for a reader.
    pair.transfer(size=100_000)
    assert pair.client.process
    pair.client.process.send_signal(signal.SIGTERM)
    wait_for(
        lambda: "set down" in pair.server.command("path"),
        timeout=2,
        what="the farewell",
    )
    assert pair.client.running
    slow.read_text()
    assert pair.client.process.wait(3) == 0


def test_a_quota_comes_and_goes_with_a_reload(lab: Lab, tunnels: Tunnels) -> None:
    """It counts from when it is set, and a link without one is used, whatever was before."""
    first, second = (f"Local=link{number}\nRate=fixed\nRateTx=20mbit" for number in (1, 2))
    pair = start(tunnels, home(lab), first, second)
    pair.wait_running(2)
    pair.transfer(size=1_000_000)
    pair.client.reconfigure(first, f"{second}\nQuota=300kB")
    assert pair.client.quota(SECOND)["used"] < 100_000
    pair.transfer(size=2_000_000)
    wait_for(
        lambda: "its quota is used up" in pair.client.command("path", SECOND),
        timeout=4,
        what="the quota's end",
    )
    pair.client.reconfigure(first, second)
    pair.wait_running(2)


def test_order_can_be_asked_for(lab: Lab, tunnels: Tunnels) -> None:
    """Packets of a kernel arrive, also large transfers, while they are held back for it."""
    rate = "Rate=fixed\nRateTx=50mbit"
    sections = [f"Local=link{number}\n{rate}" for number in (1, 2)]
    pair = start(tunnels, home(lab), *sections, tunnel="Reorder=50ms\n")
    pair.wait_running(2)
    for up in (True, False):
        pair.transfer(size=2_000_000, up=up)
    pair.ping(4)
    pair.ping(6)
    assert (
        json.loads(pair.client.command("show", "json"))["tunnel"]["settings"]["reorder"] == "50ms"
    )
    pair.server.command("set", "reorder", "20ms")
    pair.client.command("set", "reorder", "off")
    pair.transfer(size=2_000_000)


@pytest.mark.parametrize("cut", [0, 1], ids=["the first", "the one with copies"])
def test_a_cut_of_either_link_costs_nothing_with_copies(
    cut: int, lab: Lab, tunnels: Tunnels
) -> None:
    topology = home(lab)
    pair = start(tunnels, topology, "Local=link1", "Local=link2\nMode=redundant")
    pair.wait_running(2)
    with pair.stream() as stream:
        stream.flow(100)
        topology.links[cut].cut()
        stream.flow(200)
    assert not stream.report.lost, str(stream.report)
    assert stream.report.longest_gap < 0.1, str(stream.report)
