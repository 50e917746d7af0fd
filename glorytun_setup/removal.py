"""`glorytun-setup remove`: a tunnel goes, and what was there before comes back."""

from collections.abc import Iterable

from glorytun.errors import SetupError
from glorytun_setup import take_down
from glorytun_setup.render import NETWORK, key_file
from glorytun_setup.session import Session, show_changes
from glorytun_setup.terminal import Interrupted


def remove(session: Session, name: str, *, spares_key: bool = True) -> None:
    """Take a tunnel away; the user is asked again about the key, if it is to be spared.

    Raises SetupError.
    """
    manifest = session.manifest(name)
    others = tuple(each for each in session.manifests.values() if each.name != name)
    removal = take_down.plan_removal(manifest, session.means, others=others)
    needed = [change for change in removal.changes if change.is_needed]
    session.screen.show(f"{name} is stopped for good, and its device goes.")
    for note in removal.notes:
        session.screen.show(note)
    edited = {change.path for change in needed if change.is_foreign}
    # Without being asked, nobody's work is thrown away.
    stays = set() if session.options.overwrites or session.can_ask else edited
    session.screen.show("")
    session.screen.show(show_changes(change for change in needed if change.path not in stays))
    for path in sorted(stays):
        session.screen.show(f"{path} was edited by hand, and stays.")
    if session.options.is_dry:
        session.screen.show("\nNothing was changed.")
        return
    keep = {path for path in edited if not _may_go(session, path)}
    _check_kept(keep)
    key = key_file(name)
    if session.can_ask:
        if not session.screen.confirm("\nShall all this be done", default=False):
            raise Interrupted("nothing is changed")
        prompt = f"The key in {key} can't be had back. Shall it really go"
        asks = spares_key and key not in keep
        if asks and not session.screen.confirm(prompt, default=False):
            keep.add(key)
    elif not session.options.is_agreed:
        raise SetupError("nobody is there to agree", hint="--yes agrees, --dry-run only shows")
    if keep:
        removal = take_down.plan_removal(manifest, session.means, others=others, keep=keep)
    with session.means.watch:
        take_down.remove(removal, session.means)
    session.screen.show(f"\n{name} is removed.")
    for path in sorted(keep):
        session.screen.show(f"{path} stays.")


def _check_kept(paths: Iterable[str]) -> None:
    """None of networkd's can stay: its rules lead to tables that go. Raises SetupError."""
    for path in sorted(paths):
        if path.startswith(f"{NETWORK}/"):
            raise SetupError(
                f"{path} was edited by hand, and can't stay without the tunnel",
                hint="--overwrite lets it go; what you need of it belongs into a file of your own",
            )


def _may_go(session: Session, path: str) -> bool:
    """Whether a file that was edited by hand goes too; never without having been asked."""
    if session.options.overwrites:
        return True
    if not session.can_ask:
        return False
    prompt = f"\n{path} was edited by hand. Shall it go too"
    return session.screen.confirm(prompt, default=False)
