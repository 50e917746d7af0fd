"""The Debian package: built in a clean root, and installed by apt.

apt gets what it needs from Debian's archive once; the booted systems have no way there, and find
what it got in its cache.
"""

import functools
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.netns.topology import run

PROJECT = Path(__file__).parents[2]
DIRECTORY = "/root"
"""Where a system has packages to install."""

_BUILD_TIMEOUT = 900
"""Seconds: 60 once the clean root is there, most of them for the unit tests."""
_APT_TIMEOUT = 300

# The lists are 50 MB else, and each system gets a copy.
_UPDATE = "apt-get update -q -o Acquire::GzipIndexes=true"
# As a system is that nobody has configured: the roots leave recommended packages out.
_DOWNLOAD = "apt-get install -q -y -o APT::Install-Recommends=true --download-only"

# Runs a command in a copy of a root, with the host's network, and keeps what it changed. What it
# removed is there again in the copy, which matters for nothing that apt does. Another root can be
# looked at in /other.
_CHANGE_A_COPY = r"""
root=$1 keep=$2 other=$3
shift 3
dir=$(mktemp --directory --tmpdir gt-lab-XXXXXXXX)
trap 'umount --recursive "$dir"; rmdir "$dir"' EXIT
mount -t tmpfs -o mode=0755 layer "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
cp -a "$keep/." "$dir/root/"
mount -t proc proc "$dir/root/proc"
mount --rbind /dev "$dir/root/dev"
if [ "$other" ]; then mkdir "$dir/root/other" && mount --bind "$other" "$dir/root/other"; fi
cat /etc/resolv.conf > "$dir/root/etc/resolv.conf"
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot "$dir/root" "$@" >&2
rm "$dir/root/etc/resolv.conf"
find "$dir/upper" -type c -delete
rm -rf "$dir/upper/run" "$dir/upper/tmp"
cp -a --no-preserve=xattr "$dir/upper/." "$keep/"
"""


@functools.cache
def build(suite: str) -> Path:
    """The package for a suite, built unless there is one of the sources as they are."""
    made = run(str(PROJECT / "tests/tools/deb.sh"), suite, timeout=_BUILD_TIMEOUT)
    return PROJECT / made.stdout.strip()


def make_older(deb: Path, directory: Path, version: str) -> Path:
    """The same package as an earlier version; what it installs says that version too."""
    older = directory / f"glorytun_{version.partition(':')[2]}_all.deb"
    with tempfile.TemporaryDirectory(prefix="gt-lab-") as unpacked:
        tree = Path(unpacked) / "tree"
        run("dpkg-deb", "--raw-extract", str(deb), str(tree))
        replace(tree / "DEBIAN/control", r"^Version: .*$", f"Version: {version}")
        package = tree / "usr/lib/python3/dist-packages/glorytun/__init__.py"
        replace(package, r'^__version__ = ".*"$', f'__version__ = "{upstream(version)}"')
        run("dpkg-deb", "--root-owner-group", "--build", str(tree), str(older))
    return older


def upstream(version: str) -> str:
    """What the program itself says, of a version of the package."""
    return version.partition(":")[2].partition("-")[0]


def replace(file: Path, pattern: str, text: str) -> None:
    """Change the line of a file that fits the pattern."""
    changed, count = re.subn(pattern, text, file.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{file}: {count} lines fit {pattern}"
    file.write_text(changed)


def put_packages(files: Path, debs: Sequence[Path]) -> list[str]:
    """Copy packages to where a system has them; their paths there."""
    directory = files / DIRECTORY.lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        shutil.copy2(deb, directory)
    return [f"{DIRECTORY}/{deb.name}" for deb in debs]


def fetch(root: Path, files: Path, deb: Path, *packages: str) -> None:
    """Add to `files` what apt needs to install a package, and others, without a network."""
    (there,) = put_packages(files, [deb])
    run_beside(
        root,
        files,
        f"{_UPDATE}; {_DOWNLOAD} {' '.join([there, *packages])}; rm /var/cache/apt/*.bin",
    )


def install(root: Path, files: Path, deb: Path) -> None:
    """Add to `files` what the installation of a package changes in a root that has all it needs."""
    (there,) = put_packages(files, [deb])
    run_beside(root, files, f"apt-get install -q -y {there}; rm /var/cache/apt/*.bin")


def run_beside(root: Path, files: Path, command: str, other: Path | str = "") -> str:
    """Run a shell's command in a copy of a root with `files`, which get what it changes.

    It has the host's network; `other` is a directory that it finds as /other. Returns all it says.
    """
    within = ["unshare", "--mount", "sh", "-euc", _CHANGE_A_COPY, "lab"]
    where = [str(root), str(files), str(other)]
    return run(*within, *where, "sh", "-euc", command, timeout=_APT_TIMEOUT).stderr
