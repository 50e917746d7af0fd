"""The plan as a person would say it, and what changes on the host. Nothing secret is shown."""

from collections.abc import Iterator, Mapping
from difflib import unified_diff
from textwrap import fill

from glorytun.config import write_rate
from glorytun_setup.model import RULES, File, Gateway, Plan, Role, Source, Through, Wan, WanState

WIDTH = 96
"""Characters of a line."""

_FAMILIES = {4: "IPv4", 6: "IPv6"}


def describe(plan: Plan) -> str:
    """What is to be, a sentence or two on a line."""
    return "\n".join(
        fill(f"- {text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for text in _sentences(plan)
    )


def describe_changes(files: Mapping[str, File], current: Mapping[str, str | None]) -> str:
    """Each file as a difference to what is there: those that change alone are given.

    `current` has the text of each path, of those to be removed too; None where there is no file.
    """
    gone = [path for path, text in current.items() if path not in files and text is not None]
    blocks = [_describe_change(file, current.get(path)) for path, file in files.items()]
    return "\n\n".join(filter(None, [*blocks, "\n".join(f"{path} is removed" for path in gone)]))


def _describe_change(file: File, before: str | None) -> str:
    path = file.path
    if file.text == before:
        return f"{path} gets other rights ({file.mode:04o} {file.owner}:{file.group})"
    kind = "changes" if before is not None else "is new"
    head = f"{path} {kind} ({file.mode:04o} {file.owner}:{file.group})"
    if file.secret:
        return f"{head}, a secret that is not shown"
    return "\n".join([f"{head}:", *_difference(before or "", file.text)])


def _difference(before: str, after: str) -> Iterator[str]:
    lines = unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    for line in list(lines)[2:]:
        # A new file is all additions: where they stand says nothing.
        if before or not line.startswith("@@"):
            yield f"  {line}".rstrip()


def _sentences(plan: Plan) -> Iterator[str]:
    if plan.role is Role.CLIENT:
        yield (
            f"{plan.name}: this host is the client of {plan.server_host}, UDP port {plan.port}, "
            f"and sends from port {plan.local_port}."
        )
        yield f"It sends by {_and([_describe_wan(wan) for wan in plan.wans])}."
        yield _describe_insides(plan, "the server")
        yield from _describe_client_routing(plan)
    else:
        yield (
            f"{plan.name}: this host is a server and listens on UDP port {plan.port}, which must "
            "be open in firewalls."
        )
        yield _describe_insides(plan, "the client")
        yield from _describe_server_routing(plan)
    yield from _describe_device(plan)


def _describe_wan(wan: Wan) -> str:
    families = {4: wan.gateway4, 6: wan.gateway6}
    ways = [f"{_FAMILIES[v]} {_source(gateway)}" for v, gateway in families.items() if gateway]
    notes = [*ways]
    if wan.rate_tx or wan.rate_rx:
        rates = (("up", wan.rate_tx), ("down", wan.rate_rx))
        notes.append(
            "at most " + _and([f"{write_rate(rate)} {way}" for way, rate in rates if rate])
        )
    role = " as a backup" if wan.state is WanState.BACKUP else ""
    return f"{wan.interface}{role} ({', '.join(notes)})"


def _source(gateway: Gateway) -> str:
    match gateway.source:
        case Source.DHCP:
            return "by DHCP"
        case Source.RA:
            return "by router advertisements"
    return f"via {gateway.address}" if gateway.address else "without a gateway"


def _describe_insides(plan: Plan, other: str) -> str:
    own = _and([str(inside.own) for inside in plan.insides])
    peer = _and([str(inside.peer) for inside in plan.insides])
    return f"Inside the tunnel it has {own}, and {other} {peer}."


def _describe_client_routing(plan: Plan) -> Iterator[str]:
    carried = _and([_FAMILIES[inside.own.version] for inside in plan.insides])
    match plan.through:
        case Through.EVERYTHING:
            yield f"Everything of {carried} goes through the tunnel."
            yield from _describe_past(plan)
        case Through.NETWORKS:
            yield f"Through the tunnel goes what is for {_and(list(map(str, plan.networks)))}."
        case Through.NOTHING:
            yield "Nothing goes through the tunnel but what is for the server itself."
    if plan.networks:
        wans = _and([wan.interface for wan in plan.wans], "or")
        yield (
            "What has a more specific route here, such as local networks, stays as it is; so do "
            f"answers to who connects over {wans}, such as SSH."
        )
    if plan.routes_wans:
        yield (
            "Each of these interfaces gets its own gateway for what is sent from its address; "
            "networkd sets it up again for that, which may take a moment."
        )
    if plan.masquerades:
        yield (
            f"What this host forwards from {_and(list(map(str, plan.masquerades)))} enters the "
            "tunnel with its own address (nftables), the only one that the server knows."
        )
    if plan.rule_priority:
        yield from _describe_numbers(plan)
    if plan.loosened:
        yield (
            f"The reverse-path filter of {_and(list(plan.loosened))} becomes loose (2): a strict "
            "one drops what comes by another way."
        )


def _describe_past(plan: Plan) -> Iterator[str]:
    if plan.inside6 is None and any(wan.gateway6 for wan in plan.wans):
        yield "IPv6 goes past the tunnel, which has no addresses of it."
    servers = f" and what is asked of {_and(list(map(str, plan.outside)))}" if plan.outside else ""
    yield f"Past it go its own datagrams and the time (NTP){servers}."
    yield (
        "While the server is away or the service stopped, nothing else gets out; "
        f"`networkctl down {plan.name}` lets all past the tunnel until `networkctl up {plan.name}`."
    )


def _describe_numbers(plan: Plan) -> Iterator[str]:
    tables = [*filter(None, [plan.table]), *(w.table for w in plan.wans if plan.routes_wans)]
    first, last = plan.rule_priority, plan.rule_priority + RULES - 1
    yield (
        f"Routing tables {_and(list(map(str, tables)))}, rules of priority {first} to {last} "
        "(docs/routing.md)."
    )


def _describe_server_routing(plan: Plan) -> Iterator[str]:
    if plan.shares:
        versions = [_FAMILIES[v] for v, is_so in ((4, plan.share4), (6, plan.share6)) if is_so]
        yield (
            f"The client reaches the Internet over this host ({_and(versions)}): what comes out of "
            "the tunnel is forwarded with this host's address (nftables). A firewall must let it."
        )
    else:
        yield "The client reaches this host, and not the Internet over it."
    if plan.networks:
        yield f"Behind the client are {_and(list(map(str, plan.networks)))}."
    if plan.keeps_ra:
        yield (
            f"{_and(list(plan.keeps_ra))} goes on to take router advertisements, which the kernel "
            "doesn't by itself once it forwards."
        )


def _describe_device(plan: Plan) -> Iterator[str]:
    if plan.qdisc:
        yield f"{plan.name} gets the queue discipline {plan.qdisc}."
    yield (
        f"networkd makes the device {plan.name}; {plan.unit} runs the tunnel, now and at each boot."
    )
    if plan.starts_networkd:
        yield (
            "networkd, which doesn't run by itself here, leaves rules, routes and addresses alone "
            "that others set up."
        )
    if plan.program:
        yield (
            f"No package brought glorytun here: the service of {plan.program} and its user are set "
            "up too."
        )


def _and(words: list[str], last: str = "and") -> str:
    """As in "a, b and c"."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
