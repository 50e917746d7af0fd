"""From files to a tunnel that works. What isn't reached in time, or is interrupted, is undone."""

import os
import pwd
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from glorytun.errors import SetupError
from glorytun_setup import apply
from glorytun_setup.apply import Change
from glorytun_setup.facts import gather
from glorytun_setup.foreign import put_back
from glorytun_setup.kernel import FORWARDING, flush_table, parse_sysctls, read_sysctl
from glorytun_setup.manifest import Host, Journal, Manifest, Purpose, UnitBefore
from glorytun_setup.means import (
    NETWORKD,
    SHARED_UNITS,
    TARGET,
    WAIT_ONLINE,
    Means,
    SetupFailure,
)
from glorytun_setup.model import File, Link, Plan, Role, Wan
from glorytun_setup.plan import wan_tables
from glorytun_setup.render import network_file
from glorytun_setup.take_down import undo
from glorytun_setup.terminal import Interrupted
from glorytun_setup.verify import (
    Finding,
    diagnose,
    is_running,
    last_lines,
    wait_answer,
    wait_path,
    wait_ping,
    wait_wan,
)
from glorytun_setup.waiting import now, system_time

TIMEOUT = 30.0
"""Seconds until the tunnel works, or all is undone."""
_COMMAND_TIMEOUT = 15.0
_WAN_TIMEOUT = 5.0
"""Seconds that each WAN has, once the tunnel works over another or networkd was told; and that a
service which is ready has for answering."""
_USER = "glorytun"
_NETWORK_FILES = "/etc/systemd/network/"
_SYSCTL_FILES = "/etc/sysctl.d/"
_MAKERS = {
    "/etc/sysusers.d/": ("systemd-sysusers",),
    "/etc/tmpfiles.d/": ("systemd-tmpfiles", "--create"),
}
"""What makes of our files what they say, without a boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A tunnel that is to be as planned."""

    plan: Plan
    files: Mapping[str, File]
    changes: tuple[Change, ...]
    """Of `apply.find_changes`; the caller has asked about those that are foreign."""
    manifest: Manifest | None = None
    """What the tunnel has so far."""
    others: tuple[Manifest, ...] = ()
    """Other tunnels."""
    wans: tuple[Link, ...] = ()
    """Those of the plan, as they were found."""

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be done."""
        return any(change.is_needed for change in self.changes)


def bring_up(task: Task, means: Means, *, timeout: float = TIMEOUT) -> None:
    """Make it so, and see whether it works. Raises SetupFailure when all was undone."""
    began = system_time()
    manifest = _future_manifest(task, means)
    journal = _make_journal(task, manifest, means)
    # Who has something to mend while the server is away is not kept from it.
    was_away = journal.host.units[task.plan.unit].active and not is_running(task.plan.name)
    apply.write_journal(means.root, journal)
    _write_files(task, journal, means)
    deadline = now() + timeout
    try:
        _start(task, journal, means, deadline)
        if task.plan.role is Role.CLIENT:
            _wait_for_server(task.plan, means, deadline, was_away=was_away)
            _wait_for_failed(journal, means, deadline)
        means.watch.check_connection()
        _empty_old_tables(task, manifest)
        apply.write_manifest(means.root, manifest)
        apply.tell_others(means.root, manifest, task.others)
    except (SetupError, OSError) as error:
        raise _give_up(error, task.plan, journal, means, began) from error
    except BaseException:
        means.watch.go_deaf()
        undo(journal, means)
        raise
    apply.close_journal(means.root, journal)


def _write_files(task: Task, journal: Journal, means: Means) -> None:
    """Raises SetupError with the files as they were: nobody has read them yet."""
    try:
        with means.step(f"writing {len(apply.steps(task.changes))} files"):
            apply.write_files(means.root, task.changes, journal)
    except BaseException:
        means.watch.go_deaf()
        apply.undo(means.root, journal)
        apply.close_journal(means.root, journal)
        raise


def _future_manifest(task: Task, means: Means) -> Manifest:
    plan, old = task.plan, task.manifest
    directories = {
        *apply.missing_directories(means.root, task.files),
        *(old.directories if old else ()),
        *apply.directories_of(task.others, task.files),
    }
    return Manifest(
        name=plan.name,
        entries={change.path: change.entry for change in task.changes if change.entry},
        directories=tuple(sorted(directories)),
        host=_original_host(task, means),
        tables=tuple(sorted({plan.table, *wan_tables(dict(plan.answers))} - {0})),
        links=tuple(wan.interface for wan in plan.wans if _is_reconfigured(wan, task.files)),
        priority=plan.rule_priority,
        wans=task.wans,
        answers=dict(plan.answers),
    )


def _make_journal(task: Task, manifest: Manifest, means: Means) -> Journal:
    old = task.manifest or Manifest(name=manifest.name, entries={})
    links = tuple(sorted({*manifest.links, *old.links}))
    return Journal(
        name=manifest.name,
        purpose=Purpose.SET_UP,
        steps=(*apply.steps(task.changes), apply.manifest_step(means.root, manifest)),
        directories=apply.missing_directories(means.root, task.files),
        host=means.with_foreign(_host_now(task, means), links),
        tables=tuple(table for table in manifest.tables if table not in old.tables),
        moved=_moved_tables(old.answers, manifest.answers),
        links=links,
        priority=0 if manifest.priority == old.priority else manifest.priority,
    )


def _moved_tables(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[int, ...]:
    """Those that become another interface's."""
    later = wan_tables(new)
    return tuple(table for table, wan in wan_tables(old).items() if later.get(table, wan) != wan)


def _host_now(task: Task, means: Means) -> Host:
    """What is no file and may change."""
    states = {unit: means.bus.unit(unit) for unit in (task.plan.unit, *SHARED_UNITS)}
    sysctls = {key: read_sysctl(key) for key in _sysctls(task)}
    return Host(
        units={
            unit: UnitBefore(enabled=state.is_enabled, active=state.is_active)
            for unit, state in states.items()
        },
        sysctls={key: value for key, value in sysctls.items() if value is not None},
        has_device=_has_device(task.plan.name),
    )


def _original_host(task: Task, means: Means) -> Host:
    """The same before the wizard's first tunnel that changed it."""
    host = _host_now(task, means)
    earlier = [other.host for other in task.others]
    shared = {
        unit: state
        for other in earlier
        for unit, state in other.units.items()
        if unit in SHARED_UNITS
    }
    sysctls = {key: value for other in earlier for key, value in other.sysctls.items()}
    own = task.manifest.host if task.manifest else Host(has_device=host.has_device)
    return Host(
        units={**host.units, **shared, **own.units},
        sysctls={
            key: {**sysctls, **own.sysctls}.get(key, value) for key, value in host.sysctls.items()
        },
        has_device=own.has_device,
    )


def _sysctls(task: Task) -> list[str]:
    """What is set by our files, by networkd for them, and by the kernel as a consequence.

    In the order in which it is to be put back.
    """
    keys = [
        key
        for path, file in task.files.items()
        if path.startswith(_SYSCTL_FILES)
        for key in parse_sysctls(file.text)
    ]
    keys += [f"net/ipv4/conf/{interface}/rp_filter" for interface in task.plan.loosened]
    for key in tuple(keys):
        if key in FORWARDING:
            keys += _consequences(FORWARDING[key])
    return list(dict.fromkeys(keys))


def _consequences(family: str) -> Iterator[str]:
    """Forwarding of all is set on each interface, and forbids redirects: inet_forward_change()."""
    directory = Path("/proc/sys/net", family, "conf")
    yield f"net/{family}/conf/all/accept_redirects"
    for interface in sorted(os.listdir(directory)):
        if interface != "all":
            yield f"net/{family}/conf/{interface}/forwarding"


def _start(task: Task, journal: Journal, means: Means, deadline: float) -> None:
    """systemd and networkd take the files."""
    _make_user(task, means)
    _stop_timers(task, means, deadline)
    _set_up_network(task, journal, means, deadline)
    _start_service(task, journal, means, deadline)


def _set_up_network(task: Task, journal: Journal, means: Means, deadline: float) -> None:
    plan, bus = task.plan, means.bus
    networkd = journal.host.units[NETWORKD]
    if not (networkd.active and networkd.enabled):
        with means.step("starting systemd-networkd, now and at each boot"):
            _enable_networkd(journal.host, means)
            bus.start(NETWORKD, timeout=_left(deadline))
    with means.step(f"systemd-networkd sets up {plan.name}"):
        for table in journal.moved:
            flush_table(table)
        bus.reload_networkd()
        bus.reconfigure(plan.name, timeout=_left(deadline))
        bus.wait_configured(plan.name, timeout=_left(deadline))
        _check_configured(plan, means)
    for link in journal.links:
        with means.step(f"{link} has its addresses again"):
            _wait_for_link(link, means, deadline)
    if journal.host.foreign:
        with means.step("what others set up is there as it was"):
            put_back(journal.host)


def _start_service(task: Task, journal: Journal, means: Means, deadline: float) -> None:
    plan, bus = task.plan, means.bus
    was_active = journal.host.units[plan.unit].active
    with means.step(f"{'restarting' if was_active else 'starting'} {plan.unit}"):
        bus.enable(TARGET, plan.unit)
        bus.reload_units()
        begin = bus.restart if was_active else bus.start
        begin(plan.unit, timeout=_left(deadline))
        if not wait_answer(plan.name, timeout=_WAN_TIMEOUT, check=means.watch.check):
            raise SetupError(
                f"{plan.unit} runs, but nothing answers `glorytun show dev {plan.name}`",
                hint=f"`systemctl cat {plan.unit}` shows what it runs",
            )


def _check_configured(plan: Plan, means: Means) -> None:
    """That it is by our file, and not by one that comes before. Raises SetupError."""
    found, own = means.bus.link_details(plan.name), network_file(plan.name)
    if found.network_file != own:
        raise SetupError(
            f"networkd sets up {plan.name} by {found.network_file or 'no file'} and not by {own}",
            hint=f"the first file whose [Match] fits counts: let that one leave {plan.name} out",
        )
    missing = [inside.own for inside in plan.insides if str(inside.own.ip) not in found.addresses]
    if missing:
        raise SetupError(
            f"networkd has not given {plan.name} its address {missing[0]}",
            hint=f"`networkctl cat {plan.name}` shows by what it is set up",
        )


def _empty_old_tables(task: Task, manifest: Manifest) -> None:
    """networkd leaves there what router advertisements brought."""
    for table in set(task.manifest.tables if task.manifest else ()).difference(manifest.tables):
        flush_table(table)


def _stop_timers(task: Task, means: Means, deadline: float) -> None:
    """Those whose files are gone: they would stay as units that failed."""
    for change in task.changes:
        unit = PurePosixPath(change.path).name
        if change.after is None and unit.endswith(".timer"):
            means.bus.stop(unit, timeout=_left(deadline))
            means.bus.forget_failure(unit)


def _wait_for_link(link: str, means: Means, deadline: float) -> None:
    """Raises SetupError when networkd gives it up."""
    if not means.wait_routable(link, timeout=min(_WAN_TIMEOUT, _left(deadline))):
        raise SetupError(
            f"networkd could not set up {link}", hint="`journalctl -u systemd-networkd` says why"
        )


def _wait_for_failed(journal: Journal, means: Means, deadline: float) -> None:
    """networkd may give a link up after it had addresses. Raises SetupError when it stays so."""
    for link in journal.links:
        if means.bus.link_states(link)[0] == "failed":
            with means.step(f"{link} failed meanwhile, and is set up again"):
                _wait_for_link(link, means, deadline)


def _make_user(task: Task, means: Means) -> None:
    """Without a package, its user and directories are made by ours."""
    for directory, command in _MAKERS.items():
        for path in task.files:
            if path.startswith(directory):
                with means.step(f"{command[0]} reads {path}"):
                    _run(*command, path)
    try:
        pwd.getpwnam(_USER)
    except KeyError:
        raise SetupError(
            f"this host has no user {_USER}, whose the device {task.plan.name} is to be",
            hint="`systemd-sysusers` makes it, where glorytun is installed as a package",
        ) from None


def _enable_networkd(before: Host, means: Means) -> None:
    means.bus.enable(NETWORKD)
    # It comes along (Also=), and where networkd has nothing to wait for, each boot would wait
    # for two minutes.
    if not before.units[WAIT_ONLINE].enabled:
        means.bus.disable(WAIT_ONLINE)
    means.bus.reload_units()


def _wait_for_server(plan: Plan, means: Means, deadline: float, *, was_away: bool) -> None:
    """Raises _NotReached, unless the server didn't answer before either."""
    try:
        _wait_until_it_works(plan, means, deadline)
    except _NotReached:
        if not was_away:
            raise
        with means.step("the server was away before: what was changed stays"):
            return
    for wan in plan.wans if len(plan.wans) > 1 else ():
        # The tunnel works without it; but that is said.
        with means.attempt(f"{plan.server_host} answers over {wan.interface}", []):
            timeout = min(_WAN_TIMEOUT, _left(deadline))
            if not wait_wan(plan.name, wan.interface, timeout=timeout, check=means.watch.check):
                raise _NotReached("no answer yet")


def _wait_until_it_works(plan: Plan, means: Means, deadline: float) -> None:
    """Raises _NotReached."""
    check = means.watch.check
    with means.step(f"{plan.server_host} answers"):
        if not wait_path(plan.name, timeout=_left(deadline), check=check):
            raise _NotReached(f"{plan.server_host} did not answer in time on any path")
    for inside in plan.insides:
        with means.step(f"{inside.peer} answers a ping through the tunnel"):
            if wait_ping(inside, timeout=_left(deadline), check=check) is None:
                raise _NotReached(
                    f"the server answers, but not {inside.peer} to a ping through the tunnel",
                    hint="is that the server's address in the tunnel, and may it answer?",
                )


class _NotReached(SetupError):
    """All is in place, and does not work."""


def _give_up(
    error: SetupError | OSError, plan: Plan, journal: Journal, means: Means, began: float
) -> SetupFailure:
    """Undo all; the exception that tells of it."""
    means.watch.go_deaf()
    log = last_lines(plan.unit, since=began)
    findings: list[Finding] = []
    if not isinstance(error, OSError | Interrupted):
        # Whatever it is that keeps us from telling why, the host comes first.
        with suppress(Exception):
            is_right = means.bus.clock_synchronised()
            facts = gather(means.bus)
            findings = diagnose(
                plan, facts, clock_is_right=is_right, hush=lambda: _hush(plan, means)
            )
    left = undo(journal, means)
    # What shows the steps raises OSError when the terminal is gone.
    message, hint = "the connection to your terminal was lost", ""
    if isinstance(error, SetupError):
        message, hint = error.args[0], error.hint
    return SetupFailure(message, hint=hint, findings=findings, log=log, left=left)


def _hush(plan: Plan, means: Means) -> None:
    """Its daemon falls silent; undoing stops it anyway, or starts it again as it was."""
    with suppress(SetupError):
        means.bus.stop(plan.unit, timeout=_COMMAND_TIMEOUT)


def _is_reconfigured(wan: Wan, files: Mapping[str, File]) -> bool:
    directory = f"{_NETWORK_FILES}{Path(wan.network_file).name}.d/"
    return any(path.startswith(directory) for path in files)


def _has_device(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _left(deadline: float) -> float:
    """Seconds; some at least, so that what is there already is seen."""
    return max(deadline - now(), 0.1)


def _run(*command: str) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{command[0]} can't be run: {error}") from error
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise SetupError(f"{' '.join(command)} failed: {said[-1] if said else result.returncode}")
