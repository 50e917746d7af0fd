"""From answers to a plan, and what belongs to a plan already."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network

from glorytun.config import is_numeric
from glorytun_setup.answers import written
from glorytun_setup.model import (
    RULES,
    Address,
    Facts,
    Inside,
    Link,
    Manager,
    Network,
    Plan,
    Routing,
    Source,
    Through,
    Wan,
)
from glorytun_setup.questions import Known
from glorytun_setup.words import (
    WanAnswer,
    chosen_networks,
    parse_addresses,
    parse_networks,
    parse_through,
    parse_wans,
)

_RA_UNLESS_FORWARDING = 1
"""Of net.ipv6.conf.*.accept_ra."""
_BETTER_QDISC = "fq_codel"
_POORER_QDISCS = ("pfifo_fast", "pfifo")
"""What queues packets behind each other, until there are too many."""


def make_plan(known: Known) -> Plan:
    """The plan that all answers (`answers.settle`) make on this host."""
    return _make_server(known) if known.is_server else _make_client(known)


def _make_server(known: Known) -> Plan:
    given, facts = known.given, known.facts
    carried = {own.version for own in given["addresses"]}
    shares4 = given["share"] and 4 in carried and any(link.gateway4 for link in facts.links)
    shares6 = given["share"] and 6 in carried and any(link.gateway6 for link in facts.links)
    plan = _make_common(known, local_port=given["port"])
    return replace(
        plan,
        through=Through.NETWORKS if given["behind"] else Through.NOTHING,
        networks=given["behind"],
        share4=shares4,
        share6=shares6,
        keeps_ra=tuple(_keeps_ra(facts)) if shares6 else (),
    )


def _make_client(known: Known) -> Plan:
    given, facts = known.given, known.facts
    plan = _make_common(known, local_port=given["local_port"])
    networks = chosen_networks(given["through"], [own.own.version for own in plan.insides])
    wans = tuple(_wans(given["wans"], facts, first_table=given["table"] + 1))
    plan = replace(plan, wans=wans)
    answering = tuple(_answering(plan, facts)) if networks else ()
    return replace(
        plan,
        through=given["through"].through,
        networks=networks,
        table=given["table"] if networks else 0,
        rule_priority=given["priority"] if networks or plan.routes_wans else 0,
        outside=_outside(plan, facts) if networks else (),
        answering=answering,
        masquerades=_forwarded(answering, networks, facts)
        if given["masquerade"] and facts.has_nft
        else (),
        loosened=tuple(_loosened(plan.name, wans, facts)) if networks else (),
    )


def _make_common(known: Known, *, local_port: int) -> Plan:
    """What both roles have."""
    given, facts = known.given, known.facts
    peers = {peer.version: peer for peer in given["peers"]}
    insides = {own.version: Inside(own=own, peer=peers[own.version]) for own in given["addresses"]}
    return Plan(
        name=given["name"],
        role=given["role"],
        server_host=given["server"],
        port=given["port"],
        local_port=local_port,
        key=known.key,
        inside4=insides.get(4),
        inside6=insides.get(6),
        qdisc=_qdisc(facts),
        systemd_version=facts.systemd_version,
        starts_networkd=not facts.networkd_active,
        program="" if facts.is_packaged else facts.program,
        answers=written(known),
    )


def _wans(answers: tuple[WanAnswer, ...], facts: Facts, *, first_table: int) -> Iterator[Wan]:
    links = [facts.link(answer.interface) for answer in answers]
    for table, (answer, link) in enumerate(zip(answers, links, strict=True), first_table):
        assert link is not None
        others = [other for other in links if other and other is not link]
        yield Wan(
            interface=link.name,
            state=answer.state,
            rate_tx=answer.rate_tx,
            rate_rx=answer.rate_rx,
            table=table,
            gateway4=link.gateway4,
            gateway6=link.gateway6,
            sources=tuple(_sources(link, others)),
            network_file=link.network_file or "",
        )


def _sources(link: Link, others: list[Link]) -> Iterator[Network]:
    """The networks of its addresses, which outlast a lease, or addresses where two are in one."""
    seen = set()
    for own in link.addresses:
        gateway = link.gateway4 if own.version == 4 else link.gateway6
        is_shared = any(own.network.overlaps(a.network) for o in others for a in o.addresses)
        source = ip_network(own.ip) if is_shared else own.network
        if gateway and source not in seen:
            seen.add(source)
            yield source


def _outside(plan: Plan, facts: Facts) -> tuple[Address, ...]:
    """The name servers that the server's name is asked of."""
    if is_numeric(plan.server_host):
        return ()
    return tuple(server for server in facts.nameservers if not server.is_loopback)


def _answering(plan: Plan, facts: Facts) -> Iterator[Network]:
    seen = set()
    for link in facts.links:
        if link.gateway4 or link.gateway6 or link.name in (*facts.tunnels, plan.name):
            continue
        for address in link.addresses:
            if address.network not in seen:
                seen.add(address.network)
                yield address.network


def _forwarded(
    answering: tuple[Network, ...], networks: tuple[Network, ...], facts: Facts
) -> tuple[Network, ...]:
    """Local networks from which this host forwards into the tunnel."""
    versions = facts.forwards & {network.version for network in networks}
    return tuple(network for network in answering if network.version in versions)


def _loosened(name: str, wans: tuple[Wan, ...], facts: Facts) -> Iterator[str]:
    """Interfaces on which a strict reverse-path filter would drop what is right."""
    if facts.is_strict(facts.rp_filter_default):
        yield name
    for wan in wans:
        link = facts.link(wan.interface)
        if link and facts.is_strict(link.rp_filter):
            yield wan.interface


def _keeps_ra(facts: Facts) -> Iterator[str]:
    """Interfaces whose gateway would be forgotten when the kernel forwards."""
    for link in facts.links:
        has_ra = link.gateway6 is not None and link.gateway6.source is Source.RA
        is_kernels = link.manager not in (Manager.NETWORKD, Manager.NETPLAN)
        if has_ra and is_kernels and link.accept_ra == _RA_UNLESS_FORWARDING:
            yield link.name


def _qdisc(facts: Facts) -> str:
    """A better queue discipline than the one that the TUN gets by itself, if the kernel has one."""
    is_better = facts.default_qdisc in _POORER_QDISCS and _BETTER_QDISC in facts.qdiscs
    return _BETTER_QDISC if is_better else ""


def original(facts: Facts, sysctls: Mapping[str, str], *, ran_networkd: bool = True) -> Facts:
    """The host with settings of the kernel as they were before the wizard: it needs them again.

    `ran_networkd` is whether networkd ran before the wizard's first tunnel.
    """
    return replace(
        facts,
        links=tuple(_before(sysctls, link) for link in facts.links),
        networkd_active=facts.networkd_active and ran_networkd,
    )


def recalled(facts: Facts, wans: Iterable[Link]) -> Facts:
    """The host with a tunnel's WANs as they were, where they lead nowhere now."""
    down = {link.name: link for link in wans if is_down(facts, link.name)}
    there = tuple(_recalled(link, down.pop(link.name, None)) for link in facts.links)
    return replace(facts, links=(*there, *down.values()))


def is_down(facts: Facts, name: str) -> bool:
    """Whether an interface leads nowhere now, or isn't there."""
    link = facts.link(name)
    return link is None or (link.gateway4 is None and link.gateway6 is None)


def _recalled(link: Link, then: Link | None) -> Link:
    if then is None:
        return link
    return replace(
        link,
        addresses=then.addresses,
        gateway4=then.gateway4,
        gateway6=then.gateway6,
        is_physical=then.is_physical,
    )


def without(facts: Facts, *, name: str, answers: Mapping[str, str]) -> Facts:
    """The host as it would be without a tunnel, so that this doesn't stand in its own way.

    `answers` are those of its plan.
    """
    networks = _networks_of(answers)
    wans = parse_wans(answers["wans"]) if "wans" in answers else ()
    table, first = int(answers.get("table", 0)), int(answers.get("priority", 0))
    return replace(
        facts,
        links=tuple(link for link in facts.links if link.name != name),
        tunnels=tuple(tunnel for tunnel in facts.tunnels if tunnel != name),
        udp_ports=facts.udp_ports - {int(answers.get("local_port", answers["port"]))},
        tables=facts.tables.difference(range(table, table + len(wans) + 1) if table else ()),
        rule_priorities=facts.rule_priorities.difference(
            range(first, first + RULES) if first else ()
        ),
        routes=tuple(route for route in facts.routes if route not in networks),
        kept=parse_addresses(answers["addresses"]),
    )


def wan_tables(answers: Mapping[str, str]) -> dict[int, str]:
    """The routing tables of a tunnel's WANs, where they need any."""
    wans = parse_wans(answers["wans"]) if "wans" in answers else ()
    first = int(answers.get("table", 0)) + 1
    return dict(enumerate((wan.interface for wan in wans), first)) if len(wans) > 1 else {}


def routing(answers: Mapping[str, str]) -> Routing | None:
    """What the tunnel of some answers takes; None: nothing but what is for its other end."""
    if "through" not in answers:
        return None
    versions = [own.version for own in parse_addresses(answers["addresses"])]
    networks = chosen_networks(parse_through(answers["through"]), versions)
    if not networks:
        return None
    return Routing(name=answers["name"], priority=int(answers["priority"]), networks=networks)


def _networks_of(answers: Mapping[str, str]) -> set[Network]:
    """To which a tunnel has routes."""
    through = parse_through(answers["through"]).networks if "through" in answers else ()
    behind = parse_networks(answers["behind"]) if "behind" in answers else ()
    return {*through, *behind, *(own.network for own in parse_addresses(answers["addresses"]))}


def _before(sysctls: Mapping[str, str], link: Link) -> Link:
    """An interface as it was."""
    rp_filter = sysctls.get(f"net/ipv4/conf/{link.name}/rp_filter", link.rp_filter)
    accept_ra = sysctls.get(f"net/ipv6/conf/{link.name}/accept_ra", link.accept_ra)
    return replace(link, rp_filter=int(rp_filter), accept_ra=int(accept_ra))
