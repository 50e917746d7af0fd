"""From a tunnel back to the host as it was: removing, and undoing a change that failed.

Every step is tried, whatever became of the others, and may be done twice, so that what is killed in
between is finished by the next run.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from glorytun.errors import SetupError
from glorytun.meter import DIRECTORY
from glorytun_setup import apply
from glorytun_setup.apply import Change
from glorytun_setup.facts import managed_links
from glorytun_setup.foreign import put_back
from glorytun_setup.kernel import (
    FORWARDING,
    delete_device,
    flush_rules,
    flush_table,
    read_sysctl,
    settings_of_others,
    write_sysctl,
)
from glorytun_setup.manifest import Host, Journal, Manifest, Purpose, UnitBefore
from glorytun_setup.means import (
    LINK_TIMEOUT,
    NETWORKD,
    NETWORKD_SOCKET,
    SHARED_UNITS,
    WAIT_ONLINE,
    Means,
    SetupFailure,
)
from glorytun_setup.model import RULES
from glorytun_setup.render import expiry_unit

TIMEOUT = 15.0
"""Seconds for a unit to stop."""
_PACKAGED = "usr/lib/tmpfiles.d/glorytun.conf"
"""What makes that, if a package brought glorytun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What it takes to take a tunnel away."""

    manifest: Manifest
    others: tuple[Manifest, ...]
    changes: tuple[Change, ...]
    host: Host
    """What is put back besides files."""
    notes: tuple[str, ...]
    """What becomes of the rest of the host, in words."""


def recover(means: Means) -> list[str]:
    """Finish what another run left that was killed; what was done, in words.

    Raises SetupFailure.
    """
    done = []
    apply.tidy(means.root)
    for name, journal in apply.load_journals(means.root).items():
        if journal.purpose is Purpose.SET_UP:
            _check_undone(name, undo(journal, means))
            done.append(f"{name}: a change of it was interrupted, and is undone now")
        else:
            _go_on_removing(journal, means)
            done.append(f"{name}: its removal was interrupted, and is finished now")
    return done


def plan_removal(
    manifest: Manifest,
    means: Means,
    *,
    others: Iterable[Manifest] = (),
    keep: Iterable[str] = (),
) -> Removal:
    """What goes with a tunnel, and what goes back; `keep` names files that stay.

    What was edited by hand goes too, if it isn't among these. Raises SetupError.
    """
    others = tuple(others)
    host, notes = _still_needed(_not_needed_by(others, manifest.host), manifest, others, means)
    return Removal(
        manifest=manifest,
        others=others,
        changes=apply.find_changes(means.root, (), manifest=manifest, others=others, keep=keep),
        host=host,
        notes=tuple(notes),
    )


def remove(removal: Removal, means: Means) -> None:
    """Take a tunnel away and put back what was there before it. Raises SetupFailure."""
    removal = replace(removal, host=means.with_foreign(removal.host, removal.manifest.links))
    journal = Journal(
        name=removal.manifest.name,
        purpose=Purpose.REMOVE,
        steps=apply.steps(removal.changes),
        host=removal.host,
    )
    apply.write_journal(means.root, journal)
    means.watch.go_deaf()
    _remove(removal, journal, means)


def _go_on_removing(journal: Journal, means: Means) -> None:
    manifests = apply.load_manifests(means.root)
    manifest = manifests.pop(journal.name, None)
    if manifest is None:
        apply.close_journal(means.root, journal)
        return
    keep = manifest.entries.keys() - {step.path for step in journal.steps}
    removal = plan_removal(manifest, means, others=manifests.values(), keep=keep)
    # What was found before it began counts: some of it is put back by now.
    host = _not_needed_by(removal.others, journal.host)
    _remove(replace(removal, host=host), journal, means)


def _remove(removal: Removal, journal: Journal, means: Means) -> None:
    """From whatever state it is in."""
    manifest = removal.manifest

    def put_files_back() -> list[str]:
        apply.write_files(means.root, removal.changes, journal)
        return []

    left = _put_back(
        manifest.name,
        removal.host,
        means,
        tables=manifest.tables,
        priority=manifest.priority,
        links=manifest.links,
        put_files_back=put_files_back,
    )
    apply.remove_directories(means.root, manifest.directories)
    _check_undone(manifest.name, left)
    _forget_usage(means.root, manifest.name)
    apply.forget(means.root, manifest.name)
    apply.close_journal(means.root, journal)


def _forget_usage(root: Path, name: str) -> None:
    """What its links have carried; the directory goes where no package brought it."""
    file = root / DIRECTORY.lstrip("/") / f"{name}.json"
    with suppress(OSError):
        file.unlink(missing_ok=True)
        if not (root / _PACKAGED).exists():
            file.parent.rmdir()


def _not_needed_by(others: tuple[Manifest, ...], host: Host) -> Host:
    """What may be put back while there are other tunnels."""
    if not others:
        return host
    kept = {key for other in others for key in other.host.sysctls}
    return replace(
        host,
        units={unit: state for unit, state in host.units.items() if unit not in SHARED_UNITS},
        sysctls={key: value for key, value in host.sysctls.items() if key not in kept},
    )


def _still_needed(
    host: Host, manifest: Manifest, others: tuple[Manifest, ...], means: Means
) -> tuple[Host, list[str]]:
    """What may be put back now that others than tunnels may need it too, and words about that."""
    notes = []
    units = dict(host.units)
    if NETWORKD in units and not (units[NETWORKD].active and units[NETWORKD].enabled):
        links = [] if not means.bus.unit(NETWORKD).is_active else managed_links(means.root)
        needing = ", ".join(link for link in links if link != manifest.name)
        if needing:
            for unit in (NETWORKD, NETWORKD_SOCKET, WAIT_ONLINE):
                units.pop(unit, None)
            notes.append(f"systemd-networkd stays as it is: it configures {needing} too.")
        else:
            notes.append(f"systemd-networkd is {_was(units[NETWORKD])} again.")
    own = {path for each in (manifest, *others) for path in each.entries}
    kept = _set_by_others(host, settings_of_others(means.root, own))
    notes += [f"{key} stays as it is: {file} sets it too." for key, file in kept.items() if file]
    sysctls = {key: value for key, value in host.sysctls.items() if key not in kept}
    notes += [
        f"{key} becomes {value} again."
        for key, value in sysctls.items()
        if key in FORWARDING and read_sysctl(key) != value
    ]
    return replace(host, units=units, sysctls=sysctls), notes


def _was(unit: UnitBefore) -> str:
    states = {"stopped": unit.active, "disabled": unit.enabled}
    return " and ".join(state for state, is_not in states.items() if not is_not)


def _set_by_others(host: Host, elsewhere: dict[str, tuple[str, str]]) -> dict[str, str]:
    """The settings that somebody else wants otherwise than they were, and the files that say so.

    Those that come along with another have no file.
    """
    kept = {}
    for key, before in host.sysctls.items():
        value, file = elsewhere.get(key, (before, ""))
        if value != before:
            kept[key] = file
    for key in tuple(kept):
        if key in FORWARDING:
            prefix, ends = f"net/{FORWARDING[key]}/conf/", ("/forwarding", "/accept_redirects")
            along = [key for key in host.sysctls if key.startswith(prefix) and key.endswith(ends)]
            kept |= dict.fromkeys(along, "") | kept
    return kept


def undo(journal: Journal, means: Means) -> list[str]:
    """Bring the host back to where it was before a change, as far as that got.

    Returns what could not be, in words.
    """
    changed: list[str] = []

    def put_files_back() -> list[str]:
        changed.extend(apply.undo(means.root, journal))
        return [f"{path} was changed by somebody else, and stays" for path in changed]

    left = _put_back(
        journal.name,
        journal.host,
        means,
        tables=journal.tables,
        moved=journal.moved,
        priority=journal.priority,
        links=journal.links,
        put_files_back=put_files_back,
    )
    # What somebody else changed will not be ours another time either.
    if len(left) == len(changed):
        with suppress(SetupError):
            apply.close_journal(means.root, journal)
    return left


def _put_back(
    name: str,
    host: Host,
    means: Means,
    *,
    tables: Iterable[int],
    moved: Iterable[int] = (),
    priority: int,
    links: Iterable[str],
    put_files_back: Callable[[], list[str]],
) -> list[str]:
    """Each step is tried, whatever became of the others; what was in vain, in words."""
    bus, unit = means.bus, f"glorytun@{name}.service"
    before = host.units.get(unit, UnitBefore(enabled=False, active=False))
    networkd = host.units.get(NETWORKD, UnitBefore(enabled=True, active=True))
    left: list[str] = []
    if not before.active:
        with means.attempt(f"stopping {unit}", left):
            bus.stop(unit, timeout=TIMEOUT)
            bus.forget_failure(unit)
            bus.forget_failure(f"{expiry_unit(name)}.timer")
    with means.attempt("what starts at boot", left):
        _disable_again(host, means)
    with means.attempt("files as they were", left):
        left += put_files_back()
    with means.attempt("systemd reads its files", left):
        bus.reload_units()
    if not host.has_device:
        with means.attempt(f"removing the device {name}", left):
            delete_device(name)
    with means.attempt("routing tables that change hands", left) if moved else nullcontext():
        for table in moved:
            flush_table(table)
    # One that is to stop reads nothing any more: its own settings have gone with our files.
    if networkd.active:
        _configure_again(name if host.has_device else "", links, means, left)
    with means.attempt("routes and settings of the kernel as they were", left):
        for table in tables:
            flush_table(table)
        if priority:
            flush_rules(priority, RULES)
        for key, value in host.sysctls.items():
            write_sysctl(key, value)
    if host.foreign:
        with means.attempt("what others set up is there as it was", left):
            put_back(host)
    if not networkd.active:
        with means.attempt("stopping systemd-networkd", left):
            for stopped in (NETWORKD_SOCKET, NETWORKD):
                if not host.units[stopped].active:
                    bus.stop(stopped, timeout=TIMEOUT)
    if before.active:
        with means.attempt(f"starting {unit} as it was", left):
            bus.restart(unit, timeout=TIMEOUT)
    return left


def _configure_again(device: str, links: Iterable[str], means: Means, left: list[str]) -> None:
    """networkd sets up by its files as they were; the tunnel's device if there was one."""
    bus = means.bus
    with means.attempt("systemd-networkd reads its files", left):
        if bus.unit(NETWORKD).is_active:
            bus.reload_networkd()
        if device:
            bus.reconfigure(device, timeout=TIMEOUT)
            bus.wait_configured(device, timeout=TIMEOUT)
    for link in links:
        with means.attempt(f"{link} has its addresses again", left):
            means.wait_routable(link, timeout=LINK_TIMEOUT)


def _disable_again(host: Host, means: Means) -> None:
    """Units that didn't start at boot before."""
    units = [unit for unit, state in host.units.items() if not state.enabled]
    enabled = [unit for unit in units if means.bus.unit(unit).is_enabled]
    if enabled:
        means.bus.disable(*enabled)


def _check_undone(name: str, left: list[str]) -> None:
    if left:
        raise SetupFailure(
            f"{name}: not everything could be put back",
            hint="mend that, and run glorytun-setup again: it goes on",
            left=left,
        )
