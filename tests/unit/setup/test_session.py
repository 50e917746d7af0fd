"""One run of the wizard on a host that has tunnels already."""

import os
import signal
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import pytest

from glorytun.errors import SetupError
from glorytun_setup import clients, session, set_up
from glorytun_setup.answers import settle
from glorytun_setup.apply import load_manifests
from glorytun_setup.ask import Asker
from glorytun_setup.bring_up import Task
from glorytun_setup.bus import Bus
from glorytun_setup.invitation import encode
from glorytun_setup.manifest import Manifest
from glorytun_setup.means import Means
from glorytun_setup.model import Facts, Plan
from glorytun_setup.plan import make_plan, routing
from glorytun_setup.questions import Known, Question
from glorytun_setup.screen import Screen
from glorytun_setup.session import Options, Session
from glorytun_setup.terminal import Watch
from glorytun_setup.validate import find_problems
from tests.unit.setup.samples import (
    CLIENT,
    INVITATION,
    KEY,
    SERVER,
    WAN0,
    WAN1,
    client_plan,
    facts,
    known,
    link,
    server_plan,
)

LINE = encode(INVITATION)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tunnels have it, instead of what /etc has."""
    monkeypatch.setattr(session, "_old_key", lambda name: KEY)


def run(root: Path, host: Facts, *plans: Plan) -> Session:
    """The wizard without a terminal, after these plans."""
    manifests = {
        plan.name: Manifest(name=plan.name, entries={}, answers=dict(plan.answers))
        for plan in plans
    }
    screen = Screen()
    # Nothing that is tested here asks systemd.
    bus = cast(Bus, None)
    return Session(
        options=Options(is_agreed=True, timeout=1),
        screen=screen,
        asker=Asker(screen),
        means=Means(root=root, bus=bus, progress=screen, watch=Watch()),
        facts=replace(host, tunnels=tuple(manifests)),
        manifests=manifests,
    )


# The same again.


@pytest.mark.parametrize(
    ("host", "given"),
    [
        (SERVER, {"role": "server"}),
        (SERVER, {"role": "server", "key": KEY.hex(), "port": "443"}),
        (CLIENT, {"server": "vpn.example.net", "key": KEY.hex()}),
    ],
)
def test_the_same_answers_without_a_name_mean_the_same_tunnel(
    tmp_path: Path, host: Facts, given: dict[str, str]
) -> None:
    plan = make_plan(settle(given, known(host)))
    assert set_up._same(run(tmp_path, host, plan), given) == plan.name


@pytest.mark.parametrize(
    "given",
    [
        {"role": "server", "port": "444"},
        {"role": "server", "key": KEY[::-1].hex()},
        {"role": "server", "name": "tun7"},
        {"role": "client", "server": "vpn.example.net"},
    ],
)
def test_other_answers_mean_another_tunnel(tmp_path: Path, given: dict[str, str]) -> None:
    assert set_up._same(run(tmp_path, SERVER, server_plan()), given) == ""


def test_an_invitation_is_known_by_its_key(tmp_path: Path) -> None:
    joined = run(tmp_path, CLIENT, client_plan(invitation=LINE))
    assert set_up._joined(joined, LINE) == "tun0"
    other = replace(INVITATION, key=KEY[::-1])
    assert set_up._joined(joined, encode(other)) == ""
    assert set_up._joined(joined, "no invitation") == ""
    assert set_up._joined(run(tmp_path, SERVER, server_plan()), LINE) == ""


def task(before: Plan, after: Plan) -> Task:
    """No file changes."""
    manifest = Manifest(name=before.name, entries={}, answers=dict(before.answers))
    return Task(plan=after, files={}, changes=(), manifest=manifest)


def test_answers_that_change_no_file_are_remembered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "var/lib/glorytun/setup").mkdir(parents=True)
    before = server_plan()
    after = server_plan(server="vpn.example.net")
    run(tmp_path, SERVER, before)._remember(task(before, after))
    assert load_manifests(tmp_path)["tun0"].answers == dict(after.answers)
    assert "server: 203.0.113.9 becomes vpn.example.net" in capsys.readouterr().out


def test_the_same_answers_are_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, SERVER, server_plan())._remember(task(server_plan(), server_plan()))
    assert "Nothing to do: all of it is so already." in capsys.readouterr().out
    assert not load_manifests(tmp_path)


def test_what_is_said_at_the_end_is_said_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An invitation would be lost, whose tunnel is there."""

    def tell(plan: Plan) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        print("the invitation")

    monkeypatch.setattr(session, "bring_up", lambda task, means, *, timeout: None)
    monkeypatch.setattr(session, "render", lambda plan, data: {})
    monkeypatch.setattr(Session, "_runs", lambda self, plan: False)
    given = {"role": "server"}
    run(tmp_path, SERVER).carry_out(settle(given, known(SERVER)), then=tell)
    assert capsys.readouterr().out.endswith("the invitation\n")


def test_a_tunnel_made_by_hand_is_left_to_whoever_made_it(tmp_path: Path) -> None:
    found = run(tmp_path, SERVER)
    found = replace(found, facts=replace(found.facts, tunnels=("own",)))
    with pytest.raises(SetupError, match=r"own was not set up by .*change /etc/glorytun/own.conf"):
        set_up.edit(found, "own", {})
    with pytest.raises(SetupError, match="there is no tunnel 'other'"):
        found.manifest("other")


# A host that has changed since.


def later(root: Path, host: Facts, plan: Plan) -> Session:
    """The wizard on a host as it is now, that made a plan on CLIENT."""
    wans = tuple(filter(None, (CLIENT.link(wan.interface) for wan in plan.wans)))
    found = run(root, host, plan)
    return replace(found, manifests={"tun0": replace(found.manifests["tun0"], wans=wans)})


DOWN = replace(WAN1, addresses=(), gateway4=None, gateway6=None)


@pytest.mark.parametrize("host", [facts(WAN0, DOWN), facts(WAN0)], ids=["down", "gone"])
def test_a_wan_that_is_down_stays(tmp_path: Path, host: Facts) -> None:
    plan = client_plan()
    found = later(tmp_path, host, plan)
    known_now = found.settle({}, "tun0")
    again = make_plan(known_now)
    assert replace(again, wans=()) == replace(plan, wans=())
    assert {wan.interface: wan for wan in again.wans} == {wan.interface: wan for wan in plan.wans}
    assert not [p for p in find_problems(again, known_now.facts) if not p.is_warning]
    given = {"server": "vpn.example.net", "key": KEY.hex()}
    assert set_up._same(found, given) == "tun0"


def test_a_wan_that_can_not_be_one_any_more_is_not_left_out_silently(tmp_path: Path) -> None:
    host = facts(WAN0, replace(WAN1, is_physical=False))
    with pytest.raises(SetupError, match=r"wans: it was so till now, but .*wan1.*--wans says"):
        later(tmp_path, host, client_plan()).settle({}, "tun0")


def test_somebody_at_a_terminal_is_told_what_it_was(tmp_path: Path) -> None:
    host = facts(WAN0, replace(WAN1, is_physical=False))
    heard: dict[str, str] = {}

    def ask(question: Question, known: Known, default: str, remark: str) -> Any:
        heard[question.name] = remark
        return question.answer(default, known)

    saved = dict(client_plan().answers)
    given = {"invitation": "none", "key": KEY.hex()}
    found = settle(given, later(tmp_path, host, client_plan()).known("tun0"), saved=saved, ask=ask)
    assert "it was so till now, but 'wan0 wan1' can't be used" in heard.pop("wans")
    assert not any(heard.values())
    assert [wan.interface for wan in found.given["wans"]] == ["wan0"]


def test_addresses_that_overlap_a_new_network_stay_with_a_warning(tmp_path: Path) -> None:
    plan = client_plan()
    lan = link("lan0", "10.105.0.1/16")
    known_now = later(tmp_path, facts(WAN0, WAN1, lan), plan).settle({}, "tun0")
    again = make_plan(known_now)
    assert again.insides == plan.insides
    (problem,) = [p for p in find_problems(again, known_now.facts) if "overlaps" in str(p)]
    assert problem.is_warning


# Clients.


@pytest.mark.parametrize("client", ["", "a" * 11, "a b", "a/b", "ä"])
def test_wrong_names_of_clients(client: str) -> None:
    with pytest.raises(SetupError, match=r"is no name for a client: 1 to 10 letters, digits"):
        clients.check_client(client, "tun0")


def test_right_names_of_clients() -> None:
    clients.check_client("a" * 10, "tun0")
    clients.check_client("a.b-c_1", "tun0")


def test_a_client_has_come_when_the_journal_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it has gone since, and nothing runs."""
    program = tmp_path / "journalctl"
    program.write_text('#!/bin/sh\necho "$@" >> "$0.words"\necho "path was added"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    manifest = Manifest(name="tun0-nobody", entries={}, answers={clients.INVITED: "1800000000"})
    assert clients._has_come(manifest)
    words = (tmp_path / "journalctl.words").read_text().split()
    assert "--since=@1800000000" in words
    assert "_SYSTEMD_UNIT=glorytun@tun0-nobody.service" in words
    assert "GLORYTUN_EVENT=path_added" in words
    program.write_text("#!/bin/sh\n")
    assert not clients._has_come(manifest)


# Several tunnels of one client.


def second(first: Plan, **texts: str) -> tuple[Plan, list[str]]:
    """A second tunnel, and what speaks against it."""
    found = routing(dict(first.answers))
    assert found
    taken = CLIENT.rule_priorities.union(range(found.priority, found.priority + 9))
    host = replace(CLIENT, routings=(found,), rule_priorities=taken)
    more: dict[str, Any] = {"name": "tun1", "addresses": "10.99.0.2/30", "table": "7200", **texts}
    plan = client_plan(host, **more)
    return plan, [str(each) for each in find_problems(plan, host) if not each.is_warning]


def test_networks_come_before_everything() -> None:
    plan, problems = second(client_plan(), through="172.16.0.0/12")
    assert (plan.rule_priority, problems) == (7090, [])


def test_everything_comes_after_networks() -> None:
    plan, problems = second(client_plan(through="172.16.0.0/12"))
    assert (plan.rule_priority, problems) == (7110, [])


def test_networks_after_everything_are_refused() -> None:
    _, (problem,) = second(client_plan(), through="172.16.0.0/12", priority="8000")
    assert problem.startswith("172.16.0.0/12 would never go through tun1, since tun0 takes it")


def test_everything_before_networks_is_refused() -> None:
    _, (problem,) = second(client_plan(through="172.16.0.0/12"), priority="6000")
    assert problem.startswith("172.16.0.0/12 would never go through tun0, since tun1 takes it")


def test_everything_goes_through_one_tunnel() -> None:
    _, (problem,) = second(client_plan())
    assert problem.startswith("0.0.0.0/0 would never go through tun1, since tun0 takes it")


def test_each_family_may_have_a_tunnel_of_its_own() -> None:
    _, problems = second(client_plan(), addresses="fd99::2/64", wans="wan1")
    assert problems == []


def test_a_tunnel_for_its_other_end_alone_takes_nothing() -> None:
    assert routing(dict(client_plan(through="nothing").answers)) is None
    assert routing(dict(server_plan().answers)) is None
    found = routing(dict(client_plan(through="172.16.0.0/12").answers))
    assert found
    assert found.networks == (ip_network("172.16.0.0/12"),)
