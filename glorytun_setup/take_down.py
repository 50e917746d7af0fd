"""From a tunnel back to the host as it was: removing, and undoing a change that failed.

Every step is tried, whatever became of the others, and may be done twice, so that what is killed in
between is finished by the next run.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress

from glorytun.errors import SetupError
from glorytun_setup import apply
from glorytun_setup.apply import Change
from glorytun_setup.kernel import delete_device, flush_table, write_sysctl
from glorytun_setup.manifest import Host, Journal, Manifest, Purpose, UnitBefore
from glorytun_setup.means import (
    LINK_TIMEOUT,
    NETWORKD,
    NETWORKD_SOCKET,
    SHARED_UNITS,
    Means,
    SetupFailure,
)

TIMEOUT = 15.0
"""Seconds for a unit to stop."""


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


def remove(
    manifest: Manifest,
    means: Means,
    *,
    others: Iterable[Manifest] = (),
    keep: Iterable[str] = (),
) -> None:
    """Take a tunnel away and put back what was there before it; `keep` names files that stay.

    What was edited by hand goes too, if it isn't among these. Raises SetupFailure.
    """
    others = tuple(others)
    changes = apply.find_changes(means.root, (), manifest=manifest, others=others, keep=keep)
    journal = Journal(
        name=manifest.name, purpose=Purpose.REMOVE, steps=apply.steps(changes), host=manifest.host
    )
    apply.write_journal(means.root, journal)
    means.watch.go_deaf()
    _remove(manifest, journal, changes, others, means)


def _go_on_removing(journal: Journal, means: Means) -> None:
    manifests = apply.load_manifests(means.root)
    manifest = manifests.pop(journal.name, None)
    if manifest is None:
        apply.close_journal(means.root, journal)
        return
    keep = manifest.entries.keys() - {step.path for step in journal.steps}
    others = tuple(manifests.values())
    changes = apply.find_changes(means.root, (), manifest=manifest, others=others, keep=keep)
    _remove(manifest, journal, changes, others, means)


def _remove(
    manifest: Manifest,
    journal: Journal,
    changes: tuple[Change, ...],
    others: tuple[Manifest, ...],
    means: Means,
) -> None:
    """From whatever state it is in."""

    def put_files_back() -> list[str]:
        apply.write_files(means.root, changes, journal)
        return []

    left = _put_back(
        manifest.name,
        _not_needed_by(others, manifest.host),
        means,
        tables=manifest.tables,
        links=manifest.links,
        put_files_back=put_files_back,
    )
    apply.remove_directories(means.root, manifest.directories)
    _check_undone(manifest.name, left)
    apply.forget(means.root, manifest.name)
    apply.close_journal(means.root, journal)


def _not_needed_by(others: tuple[Manifest, ...], host: Host) -> Host:
    """What may be put back while there are other tunnels."""
    if not others:
        return host
    kept = {key for other in others for key in other.host.sysctls}
    return Host(
        units={unit: state for unit, state in host.units.items() if unit not in SHARED_UNITS},
        sysctls={key: value for key, value in host.sysctls.items() if key not in kept},
        has_device=host.has_device,
    )


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
    with means.attempt("what starts at boot", left):
        _disable_again(host, means)
    with means.attempt("files as they were", left):
        left += put_files_back()
    with means.attempt("systemd reads its files", left):
        bus.reload_units()
    if not host.has_device:
        with means.attempt(f"removing the device {name}", left):
            delete_device(name)
    with means.attempt("systemd-networkd reads its files", left):
        if bus.unit(NETWORKD).is_active:
            bus.reload_networkd()
        if host.has_device and networkd.active:
            bus.reconfigure(name, timeout=TIMEOUT)
            bus.wait_configured(name, timeout=TIMEOUT)
    for link in links:
        with means.attempt(f"{link} has its addresses again", left):
            means.wait_routable(link, timeout=LINK_TIMEOUT)
    with means.attempt("routes and settings of the kernel as they were", left):
        for table in tables:
            flush_table(table)
        for key, value in host.sysctls.items():
            write_sysctl(key, value)
    if not networkd.active:
        with means.attempt("stopping systemd-networkd", left):
            for stopped in (NETWORKD_SOCKET, NETWORKD):
                if not host.units[stopped].active:
                    bus.stop(stopped, timeout=TIMEOUT)
    if before.active:
        with means.attempt(f"starting {unit} as it was", left):
            bus.restart(unit, timeout=TIMEOUT)
    return left


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
