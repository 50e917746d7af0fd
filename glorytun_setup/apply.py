"""Files: what is there, what is to change, changing it, and changing it back.

Everything happens below a root directory, and never through a symbolic link: somebody else could
have put it there. A file appears whole, with its owner and mode, or not at all. What the journal
says ahead of a change is enough to undo it, whenever it was interrupted.
"""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from glorytun.errors import SetupError
from glorytun_setup.manifest import (
    DIRECTORY,
    DamagedError,
    Entry,
    Journal,
    Manifest,
    Saved,
    Step,
    dump_journal,
    dump_manifest,
    journal_path,
    load_journal,
    load_manifest,
    manifest_path,
)
from glorytun_setup.model import File

_T = TypeVar("_T")

MOST_BYTES = 1 << 20
"""Of a file that is in the way: more is nothing that the wizard knows how to put back."""
_MOST_STATE = 1 << 26
"""Of what the wizard wrote itself, such as many routes of others."""
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW
_STATE_MODE = 0o600
_SUFFIX = ".glorytun-setup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Of one file: from what is there to what shall be."""

    path: str
    before: Saved | None
    after: Saved | None
    """None: it goes."""
    entry: Entry | None
    """What the manifest will say of it; None: it is the tunnel's no longer."""
    is_foreign: bool = False
    """Whether what is there is not what the wizard wrote: edited by hand, or there before."""
    secret: bool = False
    """Whether neither side may be shown."""

    @property
    def is_needed(self) -> bool:
        """Whether anything differs."""
        return self.before != self.after


# Looking.


def find_changes(
    root: Path,
    files: Iterable[File],
    *,
    manifest: Manifest | None = None,
    others: Iterable[Manifest] = (),
    keep: Iterable[str] = (),
) -> tuple[Change, ...]:
    """What it takes to have these files and no others of this tunnel; also those that are right.

    `manifest` is what the tunnel has so far, `others` are those of other tunnels. Files that the
    tunnel has and that aren't wanted any more get back what was there before; `keep` names those
    that stay as they are, but belong to nobody. Raises SetupError.
    """
    wanted = {file.path: file for file in files}
    known = manifest.entries if manifest else {}
    others = tuple(others)
    elsewhere = {path: entry for other in others for path, entry in other.entries.items()}
    digests = {(path, e.digest) for other in others for path, e in other.entries.items()}
    stays = {*wanted, *elsewhere, *keep}
    coming = [
        _coming(root, file, known.get(path) or elsewhere.get(path), digests)
        for path, file in wanted.items()
    ]
    going = [_going(root, path, entry) for path, entry in known.items() if path not in stays]
    return tuple(sorted([*coming, *going], key=lambda change: change.path))


def _coming(root: Path, file: File, written: Entry | None, digests: set[tuple[str, str]]) -> Change:
    """From what is there, which was `written` by the wizard if anything was, to a file.

    `digests` are by path those that other tunnels have of it.
    """
    before, after = read_file(root, file.path), _owned(file)
    original = written.original if written else before
    ours = {after.digest, written.digest if written else None}
    return Change(
        path=file.path,
        before=before,
        after=after,
        entry=Entry(digest=after.digest, original=original, shared=file.shared),
        is_foreign=before is not None
        and before.digest not in ours
        and (file.path, before.digest) not in digests,
        secret=file.secret,
    )


def _going(root: Path, path: str, entry: Entry) -> Change:
    """From what the wizard wrote back to what was there before."""
    before = read_file(root, path)
    return Change(
        path=path,
        before=before,
        after=entry.original,
        entry=None,
        is_foreign=before is not None
        and before.digest not in {entry.digest, _digest(entry.original)},
        secret=before is not None and not before.mode & 0o077,
    )


def missing_directories(root: Path, paths: Iterable[str]) -> tuple[str, ...]:
    """The directories above these paths that aren't there, outer ones first."""
    above = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return tuple(sorted(path for path in above if not os.path.lexists(_below(root, path))))


def directories_of(others: Iterable[Manifest], paths: Iterable[str]) -> set[str]:
    """The directories above these paths that were made for other tunnels."""
    above = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return {path for other in others for path in other.directories if path in above}


def read_file(root: Path, path: str, *, most: int = MOST_BYTES) -> Saved | None:
    """A file, or None without it. Raises SetupError for what is no plain file."""
    try:
        with _directory(root, path) as (directory, name):
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _OPEN, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(path, "can't be read", error) from error
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            raise SetupError(
                f"{path} is in the way: no plain file of usual size", hint="move it elsewhere"
            )
        return Saved(
            content=file.read(),
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
        )


# The state of the wizard.


def load_manifests(root: Path, *, damaged: list[str] | None = None) -> dict[str, Manifest]:
    """Those of all tunnels, by name. Raises SetupError; what is damaged is noted if it may be."""
    return dict(_load_all(root, ".json", load_manifest, damaged))


def load_journals(root: Path, *, damaged: list[str] | None = None) -> dict[str, Journal]:
    """Of the changes that were interrupted, likewise."""
    return dict(_load_all(root, ".journal", load_journal, damaged))


def _load_all(
    root: Path, suffix: str, load: Callable[..., _T], damaged: list[str] | None
) -> Iterator[tuple[str, _T]]:
    for name in _state_names(root, suffix):
        saved = read_file(root, f"{DIRECTORY}/{name}{suffix}", most=_MOST_STATE)
        try:
            if saved:
                yield name, load(saved.content, name=name)
        except DamagedError as error:
            if damaged is None:
                raise
            damaged.append(str(error))


def _state_names(root: Path, suffix: str) -> list[str]:
    try:
        names = os.listdir(_below(root, DIRECTORY))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _failed(DIRECTORY, "can't be read", error) from error
    return sorted(
        name.removesuffix(suffix)
        for name in names
        if name.endswith(suffix) and not name.startswith(".")
    )


# Changing.


def steps(changes: Iterable[Change]) -> tuple[Step, ...]:
    """What the journal has to say of those that are needed."""
    return tuple(
        Step(
            path=change.path,
            before=change.before,
            digest=_digest(change.after),
            in_place=change.secret,
            size=len(change.after.content) if change.after else 0,
        )
        for change in changes
        if change.is_needed
    )


def manifest_step(root: Path, manifest: Manifest) -> Step:
    """The same of the manifest itself, which is written last."""
    path, content = manifest_path(manifest.name), dump_manifest(manifest)
    return Step(
        path=path,
        before=read_file(root, path),
        digest=_state(content).digest,
        size=len(content),
    )


def write_journal(root: Path, journal: Journal) -> None:
    """Say what is going to change; from here on `undo` brings back what is there now.

    Raises SetupError, with nothing changed.
    """
    try:
        for path in missing_directories(root, [journal_path(journal.name)]):
            _make_directory(root, path)
        _replace(root, journal_path(journal.name), _state(dump_journal(journal)))
    except SetupError:
        tidy(root)
        raise


def write_files(root: Path, changes: Iterable[Change], journal: Journal) -> None:
    """Make the changes, of which the journal is written. Raises SetupError: then `undo` it.

    First everything is written beside its place, so that a disk that is full is noticed while
    nothing has changed yet.
    """
    needed = [change for change in changes if change.is_needed]
    for path in journal.directories:
        _make_directory(root, path)
    for change in needed:
        if change.after and not change.secret:
            _create(root, change.path, change.after, name=_beside(change.path))
    for change in needed:
        _check_unchanged(root, change)
        if change.after is None:
            _remove(root, change.path)
        elif change.secret:
            _create(root, change.path, change.after)
        else:
            _put_in_place(root, change.path)


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Say what belongs to the tunnel now. Raises SetupError."""
    _replace(root, manifest_path(manifest.name), _state(dump_manifest(manifest)))


def tell_others(root: Path, manifest: Manifest, others: Iterable[Manifest]) -> None:
    """What other tunnels have too is as one of them wrote it last. Raises SetupError."""
    for other in others:
        entries = {
            path: replace(entry, digest=manifest.entries[path].digest)
            if entry.shared and path in manifest.entries
            else entry
            for path, entry in other.entries.items()
        }
        if entries != other.entries:
            write_manifest(root, replace(other, entries=entries))


def forget(root: Path, name: str) -> None:
    """There is no such tunnel any more. Raises SetupError."""
    _remove(root, manifest_path(name))


def close_journal(root: Path, journal: Journal) -> None:
    """The change is complete, or undone. Raises SetupError."""
    _remove(root, journal_path(journal.name))
    tidy(root)


def tidy(root: Path) -> None:
    """Remove what a run left that was killed, where the wizard keeps its state."""
    with suppress(OSError):
        for name in os.listdir(_below(root, DIRECTORY)):
            if name.startswith(".") and name.endswith(_SUFFIX):
                _remove(root, f"{DIRECTORY}/{name}")
    remove_directories(root, [DIRECTORY, str(PurePosixPath(DIRECTORY).parent)])


def undo(root: Path, journal: Journal) -> list[str]:
    """Bring back the files that were there before the change, as far as it got.

    Returns the files that somebody else changed since, which stay. Raises SetupError.
    """
    left = []
    for step in reversed(journal.steps):
        _remove(root, str(PurePosixPath(step.path).with_name(_beside(step.path))))
        now = read_file(root, step.path)
        if now == step.before:
            continue
        # One that was killed while it wrote a key left the beginning of it.
        is_begun = now is not None and step.in_place and len(now.content) < step.size
        if now is not None and now.digest != step.digest and not is_begun:
            left.append(step.path)
        elif step.before is None:
            _remove(root, step.path)
        else:
            _replace(root, step.path, step.before)
    remove_directories(root, journal.directories)
    return left


# One file.


def _replace(root: Path, path: str, saved: Saved) -> None:
    _create(root, path, saved, name=_beside(path))
    _put_in_place(root, path)


def _put_in_place(root: Path, path: str) -> None:
    with _told(path, "can't be written"), _directory(root, path) as (directory, name):
        os.rename(_beside(path), name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def _create(root: Path, path: str, saved: Saved, *, name: str = "") -> None:
    """Make a new file, of this `name` in the directory of `path`; one that is there goes first.

    It is closed to others until it is whole.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
    with _told(path, "can't be written"), _directory(root, path) as (directory, own):
        name = name or own
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        fd = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchown(fd, saved.uid, saved.gid)
                os.fchmod(fd, saved.mode)
                file.write(saved.content)
                file.flush()
                os.fsync(fd)
            os.fsync(directory)
        except OSError:
            os.unlink(name, dir_fd=directory)
            raise


def _remove(root: Path, path: str) -> None:
    told, gone = _told(path, "can't be removed"), suppress(FileNotFoundError)
    with told, gone, _directory(root, path) as (directory, name):
        # On a disk that is read-only, unlink(2) wouldn't say that it isn't there.
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        os.unlink(name, dir_fd=directory)
        os.fsync(directory)


def _make_directory(root: Path, path: str) -> None:
    mode = 0o700 if path == DIRECTORY else 0o755
    told, there = _told(path, "can't be made"), suppress(FileExistsError)
    with told, there, _directory(root, path) as (directory, name):
        os.mkdir(name, mode, dir_fd=directory)
        os.chmod(name, mode, dir_fd=directory)  # whatever the umask is
        os.fsync(directory)


def remove_directories(root: Path, paths: Iterable[str]) -> None:
    """Those of them in which nothing is any more."""
    for path in sorted(paths, reverse=True):
        # Something is in there, or it is gone.
        with suppress(OSError), _directory(root, path) as (directory, name):
            os.rmdir(name, dir_fd=directory)


def _check_unchanged(root: Path, change: Change) -> None:
    if read_file(root, change.path) != change.before:
        raise SetupError(
            f"{change.path} was changed by somebody else meanwhile",
            hint="run glorytun-setup again",
        )


@contextmanager
def _directory(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """The directory that a path is in, open, and the name in there.

    Raises OSError, also for a symbolic link on the way (ELOOP or ENOTDIR).
    """
    *above, name = PurePosixPath(path).parts[1:]
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in above:
            assert part not in {".", ".."}
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _OPEN, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd, name
    finally:
        os.close(fd)


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _beside(path: str) -> str:
    """The name under which a file is written before it takes its place; no program reads it."""
    return f".{PurePosixPath(path).name}{_SUFFIX}"


def _owned(file: File) -> Saved:
    """A file as it is going to be. Raises SetupError when this host hasn't its owner."""
    try:
        return Saved(
            content=file.text.encode(),
            mode=file.mode,
            uid=pwd.getpwnam(file.owner).pw_uid,
            gid=grp.getgrnam(file.group).gr_gid,
        )
    except KeyError:
        raise SetupError(
            f"{file.path} is to belong to {file.owner}:{file.group}, whom this host doesn't have",
            hint="install systemd-networkd and glorytun as packages",
        ) from None


def _state(content: bytes) -> Saved:
    return Saved(content=content, mode=_STATE_MODE, uid=os.geteuid(), gid=os.getegid())


def _digest(saved: Saved | None) -> str | None:
    return saved.digest if saved else None


@contextmanager
def _told(path: str, failure: str) -> Iterator[None]:
    """Say OSError in the user's words."""
    try:
        yield
    except OSError as error:
        raise _failed(path, failure, error) from error


def _failed(path: str, failure: str, error: OSError) -> SetupError:
    hints = {
        errno.EROFS: "this system's files can't be changed: mount it writable first",
        errno.ENOSPC: "`df -h` shows what is full; make room",
        errno.EDQUOT: "`df -h` shows what is full; make room",
        errno.EACCES: "run it as root, with sudo",
        errno.ELOOP: "a symbolic link is in the way, and none is followed; replace it",
        errno.ENOTDIR: "a symbolic link or a file is in the way; replace it by a directory",
        errno.EPERM: "`lsattr` shows whether it is immutable",
    }
    reason = os.strerror(error.errno or 0)
    return SetupError(f"{path} {failure}: {reason}", hint=hints.get(error.errno or 0, ""))
