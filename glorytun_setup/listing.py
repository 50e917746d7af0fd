"""`glorytun-setup list` and `show`: the tunnels that were set up, and how they are."""

from glorytun.errors import SetupError
from glorytun_setup import apply
from glorytun_setup.answers import settle
from glorytun_setup.clients import columns
from glorytun_setup.describe import describe
from glorytun_setup.manifest import Manifest
from glorytun_setup.plan import make_plan
from glorytun_setup.session import Session


def list_tunnels(session: Session) -> None:
    """One on a line."""
    rows = [("TUNNEL", "ROLE", "SERVER", "PORT", "SERVICE")]
    rows += [
        (
            *(manifest.name, manifest.answers["role"], manifest.answers["server"]),
            *(manifest.answers["port"], _service(session, manifest.name)),
        )
        for manifest in session.manifests.values()
    ]
    for name in apply.load_journals(session.means.root, damaged=[]):
        session.screen.show(_unfinished(name))
    if len(rows) == 1:
        session.screen.show("There is no tunnel yet: `glorytun-setup` makes one.")
        return
    session.screen.show(columns(rows))


def show_tunnel(session: Session, name: str) -> None:
    """What was planned, whether it runs, and whose its files are. Raises SetupError."""
    show = session.screen.show
    if name in apply.load_journals(session.means.root, damaged=[]):
        show(_unfinished(name))
    manifest = session.manifest(name)
    try:
        show(describe(make_plan(settle(manifest.answers, session.known(name)))))
    except SetupError as error:
        show(f"It could not be set up so any more: {error}")
    show(f"- The service: {_service(session, name)}.\n")
    show("\n".join(_files(session, manifest)))


def _unfinished(name: str) -> str:
    return (
        f"{name} is being changed, or a change of it was interrupted: the next run of "
        "glorytun-setup\nthat changes anything puts that in order first.\n"
    )


def _service(session: Session, name: str) -> str:
    unit = session.means.bus.unit(f"glorytun@{name}.service")
    boot = "" if unit.is_enabled else ", not at boot"
    status = f" ({unit.status})" if unit.status else ""
    return f"{unit.active}{boot}{status}"


def _files(session: Session, manifest: Manifest) -> list[str]:
    lines = []
    for path, entry in sorted(manifest.entries.items()):
        found = apply.read_file(session.means.root, path)
        if found is None:
            lines.append(f"{path} is missing")
        elif found.digest != entry.digest:
            lines.append(f"{path}, edited by hand")
        else:
            lines.append(path)
    return lines
