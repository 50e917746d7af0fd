"""Files are changed as a whole or not at all, never through a symbolic link, and put back."""

import grp
import json
import os
import pwd
import signal
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from glorytun.errors import SetupError
from glorytun_setup import apply
from glorytun_setup.apply import Change, find_changes
from glorytun_setup.manifest import (
    DIRECTORY,
    Entry,
    Host,
    Journal,
    Manifest,
    Purpose,
    Saved,
    Step,
    UnitBefore,
    dump_journal,
    dump_manifest,
    load_journal,
    load_manifest,
)
from glorytun_setup.model import File
from tests.unit.setup.samples import WAN0, WAN1, WAN2

OWNER = pwd.getpwuid(os.geteuid()).pw_name
GROUP = grp.getgrgid(os.getegid()).gr_name
CONFIG, KEY = "/etc/glorytun/tun0.conf", "/etc/glorytun/tun0.key"
DEVICE = "/etc/systemd/network/50-glorytun-tun0.netdev"
DROP_IN = "/etc/systemd/network/20-wan0.network.d/50-glorytun-tun0.conf"

ANSWERS = {
    "role": "server",
    "name": "tun0",
    "server": "none",
    "port": "5000",
    "addresses": "10.77.0.1/30",
}
Tree = dict[str, tuple[int, bytes]]


def file(path: str, text: str, mode: int = 0o644, **more: bool) -> File:
    """One that belongs to whoever runs the test."""
    return File(path=path, text=text, mode=mode, owner=OWNER, group=GROUP, **more)


FILES = (
    file(CONFIG, "[Tunnel]\n"),
    file(KEY, "42" * 32 + "\n", 0o600, secret=True),
    file(DEVICE, "[NetDev]\n"),
    file(DROP_IN, "[Route]\n"),
)
EDITED = (
    file(CONFIG, "[Tunnel]\nPort=5001\n"),
    file(KEY, "43" * 32 + "\n", 0o600, secret=True),
    FILES[2],
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with networkd, /etc/systemd/network and a foreign file in there."""
    (tmp_path / "etc/systemd/network").mkdir(parents=True)
    (tmp_path / "etc/systemd/network/20-wan0.network").write_text("[Match]\n")
    (tmp_path / "var/lib").mkdir(parents=True)
    return tmp_path


def tree(root: Path) -> Tree:
    """All that is below, with modes and contents."""
    return {
        str(path.relative_to(root)): (
            stat.S_IMODE(path.lstat().st_mode),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in root.rglob("*")
    }


def write(root: Path, path: str, text: str) -> None:
    """As somebody else."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def journal_of(root: Path, changes: tuple[Change, ...], manifest: Manifest) -> Journal:
    """Of a change that makes the manifest too."""
    return Journal(
        name="tun0",
        purpose=Purpose.SET_UP,
        steps=(*apply.steps(changes), apply.manifest_step(root, manifest)),
        directories=apply.missing_directories(root, [change.path for change in changes]),
    )


def set_up(root: Path, files: tuple[File, ...], *, others: tuple[Manifest, ...] = ()) -> Manifest:
    """The whole of it, as the wizard does it, without the host."""
    old = apply.load_manifests(root).get("tun0")
    changes = find_changes(root, files, manifest=old, others=others)
    manifest = Manifest(
        name="tun0",
        entries={change.path: change.entry for change in changes if change.entry},
        directories=(
            old.directories
            if old
            else apply.missing_directories(root, [file.path for file in files])
        ),
        answers=ANSWERS,
    )
    journal = journal_of(root, changes, manifest)
    apply.write_journal(root, journal)
    apply.write_files(root, changes, journal)
    apply.write_manifest(root, manifest)
    apply.close_journal(root, journal)
    return manifest


def remove(root: Path) -> None:
    """The same back."""
    manifest = apply.load_manifests(root)["tun0"]
    changes = find_changes(root, (), manifest=manifest)
    journal = Journal(name="tun0", purpose=Purpose.REMOVE, steps=apply.steps(changes))
    apply.write_journal(root, journal)
    apply.write_files(root, changes, journal)
    apply.remove_directories(root, manifest.directories)
    apply.forget(root, "tun0")
    apply.close_journal(root, journal)


def recover(root: Path) -> None:
    """What the next run does first."""
    apply.tidy(root)
    for journal in apply.load_journals(root).values():
        if journal.purpose is Purpose.SET_UP:
            assert apply.undo(root, journal) == []
            apply.close_journal(root, journal)
        else:
            if apply.load_manifests(root):
                remove(root)
            apply.close_journal(root, journal)


# What is written.


def test_files_have_their_text_mode_and_owner(root: Path) -> None:
    before = os.umask(0o077)
    try:
        set_up(root, FILES)
    finally:
        os.umask(before)
    for wanted in FILES:
        path = root / wanted.path[1:]
        found = path.stat()
        assert path.read_text() == wanted.text
        assert stat.S_IMODE(found.st_mode) == wanted.mode
        assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    state = root / DIRECTORY[1:]
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()} == {
        "tun0.json": 0o600
    }


def test_the_same_again_is_nothing(root: Path) -> None:
    manifest = set_up(root, FILES)
    changes = find_changes(root, FILES, manifest=manifest)
    assert len(changes) == len(FILES)
    assert not [change for change in changes if change.is_needed or change.is_foreign]


def test_another_mode_is_mended(root: Path) -> None:
    manifest = set_up(root, FILES)
    (root / KEY[1:]).chmod(0o644)
    changes = find_changes(root, FILES, manifest=manifest)
    assert [change.path for change in changes if change.is_needed] == [KEY]
    assert not any(change.is_foreign for change in changes)
    set_up(root, FILES)
    assert stat.S_IMODE((root / KEY[1:]).stat().st_mode) == 0o600


def test_the_manifest_never_holds_what_is_written(root: Path) -> None:
    set_up(root, FILES)
    assert "42424242" not in (root / DIRECTORY[1:] / "tun0.json").read_text()


def test_removal_leaves_nothing(root: Path) -> None:
    before = tree(root)
    set_up(root, FILES)
    set_up(root, EDITED)
    assert not (root / DROP_IN[1:]).exists(), "what an edit doesn't want any more goes"
    remove(root)
    assert tree(root) == before


def test_what_was_there_before_comes_back(root: Path) -> None:
    """Its content and mode, after any number of edits."""
    write(root, CONFIG, "mine\n")
    (root / CONFIG[1:]).chmod(0o640)
    before = tree(root)
    set_up(root, FILES)
    set_up(root, EDITED)
    remove(root)
    assert tree(root) == before


def test_a_file_that_the_user_had_is_foreign(root: Path) -> None:
    write(root, CONFIG, "mine\n")
    changes = find_changes(root, FILES)
    assert [change.path for change in changes if change.is_foreign] == [CONFIG]


def test_a_file_that_is_right_already_is_left_at_removal(root: Path) -> None:
    write(root, CONFIG, FILES[0].text)
    before = tree(root)
    set_up(root, FILES)
    remove(root)
    assert tree(root) == before


@pytest.mark.parametrize("wanted", [FILES, EDITED, ()], ids=["same", "edit", "removal"])
def test_a_file_edited_by_hand_is_foreign(root: Path, wanted: tuple[File, ...]) -> None:
    manifest = set_up(root, FILES)
    write(root, CONFIG, "[Tunnel]\nPort=7\n")
    changes = find_changes(root, wanted, manifest=manifest)
    assert [change.path for change in changes if change.is_foreign] == [CONFIG]


def test_a_file_that_was_deleted_by_hand_is_made_again(root: Path) -> None:
    manifest = set_up(root, FILES)
    (root / CONFIG[1:]).unlink()
    changes = find_changes(root, FILES, manifest=manifest)
    assert not any(change.is_foreign for change in changes)
    set_up(root, FILES)
    assert (root / CONFIG[1:]).read_text() == FILES[0].text


def test_what_is_to_be_kept_stays(root: Path) -> None:
    manifest = set_up(root, FILES)
    changes = find_changes(root, (), manifest=manifest, keep=[KEY])
    assert KEY not in [change.path for change in changes]


def test_a_shared_file_stays_for_the_others(root: Path) -> None:
    """And goes with the last, whoever that is."""
    unit = file("/etc/systemd/system/glorytun@.service", "[Unit]\n", shared=True)
    first = set_up(root, (*FILES, unit))
    second = find_changes(root, (unit,), others=(first,))[0]
    assert not second.is_needed
    assert second.entry == Entry(
        digest=second.entry.digest if second.entry else "", original=None, shared=True
    )
    other = Manifest(name="tun1", entries={unit.path: second.entry})
    changes = find_changes(root, (), manifest=first, others=(other,))
    assert unit.path not in [change.path for change in changes]
    (last,) = find_changes(root, (), manifest=other)
    assert last.before
    assert last.after is None


def test_what_one_tunnel_changed_is_ours_for_the_others(root: Path) -> None:
    """Such as a unit with the text of a newer version."""
    old = file("/etc/systemd/system/glorytun@.service", "[Unit]\n", shared=True)
    new = file(old.path, "[Unit]\nDescription=x\n", shared=True)
    first = set_up(root, (*FILES, old))
    entry = find_changes(root, (old,), others=(first,))[0].entry
    assert entry
    other = Manifest(name="tun1", entries={old.path: entry}, answers=ANSWERS)
    apply.write_manifest(root, other)
    apply.tell_others(root, set_up(root, (*FILES, new), others=(other,)), (other,))
    known = apply.load_manifests(root)
    assert not find_changes(root, (old,), manifest=other, others=(known["tun0"],))[0].is_foreign
    (last,) = find_changes(root, (), manifest=known["tun1"])
    assert last.before
    assert not last.is_foreign


# What can't be done.


def test_no_symbolic_link_is_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither a directory's nor a file's: somebody else could have put it there."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (root / "etc/glorytun").symlink_to(elsewhere)
    with pytest.raises(SetupError, match="symbolic link"):
        find_changes(root, FILES)
    (root / "etc/glorytun").unlink()
    (root / "etc/glorytun").mkdir()
    (root / CONFIG[1:]).symlink_to(elsewhere / "victim")
    with pytest.raises(SetupError, match=f"{CONFIG} can't be read.*symbolic link"):
        find_changes(root, FILES)
    assert not list(elsewhere.iterdir())


def test_a_link_put_there_meanwhile_is_not_followed(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where the new file is prepared, too."""
    victim = tmp_path_factory.mktemp("elsewhere") / "victim"
    victim.write_text("mine\n")
    changes = find_changes(root, FILES)
    journal = journal_of(root, changes, Manifest(name="tun0", entries={}))
    apply.write_journal(root, journal)
    (root / "etc/glorytun").mkdir()
    for name in (".tun0.conf.glorytun-setup", "tun0.key"):
        (root / "etc/glorytun" / name).symlink_to(victim)
    with pytest.raises(SetupError, match=r"tun0\.key can't be read"):
        apply.write_files(root, changes, journal)
    assert victim.read_text() == "mine\n"


def test_what_is_no_plain_file_is_refused(root: Path) -> None:
    (root / "etc/glorytun").mkdir()
    os.mkfifo(root / CONFIG[1:])
    with pytest.raises(SetupError, match="no plain file"):
        find_changes(root, FILES)


def test_a_change_by_somebody_else_is_noticed(root: Path) -> None:
    changes = find_changes(root, FILES)
    journal = journal_of(root, changes, Manifest(name="tun0", entries={}))
    apply.write_journal(root, journal)
    write(root, CONFIG, "mine\n")
    with pytest.raises(SetupError, match="changed by somebody else"):
        apply.write_files(root, changes, journal)
    assert apply.undo(root, journal) == [CONFIG]
    assert (root / CONFIG[1:]).read_text() == "mine\n"


def test_an_owner_that_the_host_does_not_have_is_named(root: Path) -> None:
    with pytest.raises(SetupError, match="root:no-such-group"):
        find_changes(root, [replace(FILES[0], owner="root", group="no-such-group")])


def damaged(**changes: object) -> bytes:
    """A manifest that isn't one."""
    whole = json.loads(dump_manifest(Manifest(name="tun0", entries={}, answers=ANSWERS)))
    return json.dumps({**whole, **changes}).encode()


_ENTRY = {"sha256": "", "before": None, "shared": False}


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"{}", b"[]", b"\xff", b'{"version": 99}', b"[" * 100_000),
        damaged(name="tun1"),
        damaged(answers={}),
        damaged(answers=[]),
        damaged(files={"/etc/../root/a": _ENTRY}),
        damaged(files={"": _ENTRY}),
        damaged(files={"etc/a": _ENTRY}),
        damaged(directories=["/etc/"]),
        damaged(directories=[3]),
        damaged(tables=["a"]),
    ],
)
def test_a_damaged_manifest_stops_everything(root: Path, damage: bytes) -> None:
    """But looking, which says it."""
    set_up(root, FILES)
    (root / DIRECTORY[1:] / "tun0.json").write_bytes(damage)
    with pytest.raises(SetupError, match=r"tun0\.json can't be read"):
        apply.load_manifests(root)
    said: list[str] = []
    assert apply.load_manifests(root, damaged=said) == {}
    assert ["tun0.json can't be read" in text for text in said] == [True]


# Killed.

_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown"}
"""Where a process is killed: before each of these (sys.audit())."""


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that is killed before its system call `number`; False: it ended."""
    pid = os.fork()
    if pid == 0:
        count = iter(range(sys.maxsize))

        def hook(event: str, arguments: object) -> None:
            if event in _EVENTS and next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("had", [(), FILES], ids=["new", "edit"])
def test_killed_while_it_sets_up_it_is_undone(root: Path, had: tuple[File, ...]) -> None:
    """Also where a key was to be replaced. Once the journal is gone it is complete."""
    write(root, CONFIG, "mine\n")
    if had:
        set_up(root, had)
    before = tree(root)
    undone, number = 0, 0
    while killed_at(number, lambda: set_up(root, EDITED)):
        number += 1
        recover(root)
        if tree(root) == before:
            undone += 1
            continue
        assert all(not change.is_needed for change in changes_to(root, EDITED))
        remove(root)
        if had:
            set_up(root, had)
        assert tree(root) == before, f"killed at step {number}"
    assert undone > 0.8 * number > 20


def test_killed_while_it_removes_it_is_finished(root: Path) -> None:
    write(root, CONFIG, "mine\n")
    before = tree(root)
    set_up(root, FILES)
    number = 0
    while killed_at(number, lambda: remove(root)):
        number += 1
        has_begun = bool(apply.load_journals(root))
        recover(root)
        if not has_begun and apply.load_manifests(root):
            remove(root)
        assert tree(root) == before, f"killed at step {number}"
        set_up(root, FILES)
    assert number > 20
    assert tree(root) == before


def changes_to(root: Path, files: tuple[File, ...]) -> tuple[Change, ...]:
    """With what the manifest says."""
    return find_changes(root, files, manifest=apply.load_manifests(root)["tun0"])


def test_half_a_key_is_removed(root: Path) -> None:
    """It is the one file that is written where it is to be."""
    changes = find_changes(root, FILES)
    journal = journal_of(root, changes, Manifest(name="tun0", entries={}))
    apply.write_journal(root, journal)
    write(root, KEY, "4242")
    assert apply.undo(root, journal) == []
    assert not (root / KEY[1:]).exists()


# Codecs.


def test_what_is_written_is_read() -> None:
    saved = Saved(content=b"\xff\0", mode=0o640, uid=1, gid=2)
    host = Host(
        units={"a.service": UnitBefore(enabled=True, active=False)},
        sysctls={"net/ipv4/ip_forward": "0"},
        has_device=True,
        foreign=(b"\x20\0a rule",),
        boot="this one",
    )
    manifest = Manifest(
        name="tun0",
        entries={CONFIG: Entry(digest="00", original=saved), KEY: Entry(digest="", original=None)},
        directories=("/etc/glorytun",),
        host=host,
        tables=(5000, 5001),
        links=("wan0",),
        wans=(WAN0, WAN1, WAN2),
        answers=ANSWERS,
    )
    assert load_manifest(dump_manifest(manifest), name="tun0") == manifest
    journal = Journal(
        name="tun0",
        purpose=Purpose.REMOVE,
        steps=(Step(path=KEY, before=saved, digest=None, in_place=True, size=65),),
        directories=("/etc/glorytun",),
        host=host,
        tables=(5000,),
        moved=(5001,),
        links=("wan0",),
    )
    assert load_journal(dump_journal(journal), name="tun0") == journal


def test_what_was_in_files_is_not_shown() -> None:
    """A key may have been in them."""
    assert "secret" not in repr(Saved(content=b"secret", mode=0, uid=0, gid=0))
