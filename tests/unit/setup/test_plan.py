"""What follows from answers, and that it stays so once it was carried out."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from glorytun_setup.answers import settle
from glorytun_setup.model import Facts, Plan
from glorytun_setup.plan import make_plan, original, wan_tables, without
from tests.unit.setup.golden import SAMPLES, Sample
from tests.unit.setup.samples import KEY, LAN0, WAN0, WAN1, client_plan, facts, known, link


def before(plan: Plan, host: Facts) -> Facts:
    """What is made of the host after that."""
    wans = {f"net/ipv4/conf/{name}/rp_filter": "1" for name in plan.loosened}
    uplinks = {f"net/ipv6/conf/{name}/accept_ra": "1" for name in plan.keeps_ra}
    ran = not plan.starts_networkd
    found = original(after(plan, host), {**wans, **uplinks}, ran_networkd=ran)
    return without(found, name=plan.name, answers=dict(plan.answers))


def after(plan: Plan, host: Facts) -> Facts:
    """The host once the plan was carried out."""
    changed = tuple(
        replace(
            each,
            rp_filter=2 if each.name in plan.loosened else each.rp_filter,
            accept_ra=2 if each.name in plan.keeps_ra else each.accept_ra,
        )
        for each in host.links
    )
    own = link(plan.name, *(str(inside.own) for inside in plan.insides), is_physical=False)
    networks = tuple(network for network in plan.networks if network.prefixlen)
    tables = {plan.table, *(wan.table for wan in plan.wans if plan.routes_wans)} - {0}
    rules = range(plan.rule_priority, plan.rule_priority + 9) if plan.rule_priority else ()
    return replace(
        host,
        links=(*changed, own),
        networkd_active=True,
        routes=(*host.routes, *(inside.own.network for inside in plan.insides), *networks),
        tunnels=(*host.tunnels, plan.name),
        udp_ports=host.udp_ports | {plan.local_port},
        tables=host.tables | tables,
        rule_priorities=host.rule_priorities.union(rules),
    )


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_the_same_answers_lead_to_the_same_plan_afterwards(sample: Sample) -> None:
    """So that a second run has nothing to do."""
    plan = sample.plan()
    host = before(plan, sample.host)
    again = make_plan(settle(dict(plan.answers), replace(known(host), old_key=KEY)))
    assert replace(again, expires_at=plan.expires_at) == plan


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_plan_does_not_stand_in_its_own_way(sample: Sample) -> None:
    plan = sample.plan()
    host = before(plan, sample.host)
    assert host.tables == sample.host.tables
    assert host.rule_priorities == sample.host.rule_priorities
    assert host.links == sample.host.links
    assert plan.name not in host.tunnels


def test_two_wans_in_one_network_are_told_apart_by_their_addresses() -> None:
    other = link("wan3", "192.168.1.99/24", gateway4=WAN0.gateway4)
    plan = client_plan(facts(WAN0, other))
    assert [wan.sources for wan in plan.wans] == [
        (ip_network("192.168.1.23/32"),),
        (ip_network("192.168.1.99/32"),),
    ]


def test_other_tunnels_and_links_with_a_gateway_are_not_answered_through_the_tunnel() -> None:
    """An interface that isn't used may carry the session of whoever set this up."""
    tunnel = link("tun7", "10.70.0.1/30", is_physical=False)
    host = facts(WAN0, WAN1, LAN0, tunnel, tunnels=("tun7",))
    plan = client_plan(host, wans="wan0")
    assert plan.answering == tuple(address.network for address in LAN0.addresses)


def test_each_wan_has_its_table_where_there_are_several() -> None:
    plan = client_plan(wans="wan1 wan0", table="4000")
    assert wan_tables(dict(plan.answers)) == {wan.table: wan.interface for wan in plan.wans}
    assert wan_tables(dict(client_plan(wans="wan1").answers)) == {}


def test_the_key_is_not_shown() -> None:
    plan = client_plan()
    assert plan.key == KEY
    assert repr(KEY) not in repr(plan)
    assert KEY.hex() not in repr(plan)
