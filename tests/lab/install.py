"""Systems to boot, with the project installed: from its Debian package, or as that would do it.

A clean Debian has the Debian packages that the project depends on and nothing from PyPI, so that it
shows what is missing. The host's own system shows a node all of the host's files: quicker, and for
development.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.lab import package
from tests.lab.node import write
from tests.netns.topology import run

PROJECT = Path(__file__).parents[2]
HOST = "host"
SUITES = ("bookworm", "trixie")
"""Debian 12 and 13."""
DEPENDENCIES = (
    *("python3-nacl", "python3-cryptography", "python3-numpy", "python3-pyroute2"),
    # Of the wizard and what it sets up.
    *("python3-dbus-next", "python3-jinja2", "python3-segno", "nftables"),
)

_MAKE_TIMEOUT = 600
"""Seconds for the download and unpacking of a system: 20 with a mirror that is near."""
_PYTHON = "/usr/bin/python3"
_LIBRARIES = "/usr/lib/python3/dist-packages"
_COMMANDS = {"glorytun": "glorytun.cli.main", "glorytun-setup": "glorytun_setup.cli"}
"""Names and modules, each with a function `run`."""
_DATA = "/usr/share/glorytun"
_SITE = "/opt/lab-site"
_PACKAGES = ("glorytun", "glorytun_setup")

# Compiled by the system's own Python: a start that must compile first takes twice as long.
_COMPILE = f"""
mount --bind "$1{_LIBRARIES}" "$2/mnt"
exec chroot "$2" {_PYTHON} -m compileall -q -s /mnt -p {_LIBRARIES} /mnt
"""


@dataclass
class System:
    """What nodes are booted from; `remove` it in the end."""

    suite: str
    """One of SUITES, or HOST."""
    packaged: bool = False
    """Whether apt installs the Debian package; else the files are put where it would put them.

    What both need from Debian is in the root."""

    @cached_property
    def root(self) -> Path:
        """The root directory, which is only read. Made when it isn't there yet."""
        if self.suite == HOST:
            return Path("/")
        return clean_root(self.suite, *DEPENDENCIES)

    @cached_property
    def files(self) -> Path:
        """What the installation adds to the root."""
        files = Path(tempfile.mkdtemp(prefix="gt-lab-"))
        files.chmod(0o755)
        if self.packaged:
            package.install(self.root, files, package.build(self.suite))
            return files
        _copy_project(files)
        _add_users(files, self.root)
        compile_in = ["unshare", "--mount", "sh", "-euc", _COMPILE, "lab"]
        run(*compile_in, str(files), str(self.root))
        if self.suite == HOST:
            write(files, f"{_LIBRARIES}/lab.pth", f"{_SITE}\n")
        return files

    def prepare(self) -> None:
        """Make both now, and not within the time of a test."""
        assert self.root.is_dir()
        assert self.files.is_dir()

    @cached_property
    def binds(self) -> list[str]:
        """The host's own system takes the libraries from where the tests have them."""
        return [f"{_site_packages()}:{_SITE}"] if self.suite == HOST else []

    def remove(self) -> None:
        """Remove the files; the root stays for the next time."""
        if "files" in vars(self):
            shutil.rmtree(self.files)


def clean_root(suite: str, *packages: str) -> Path:
    """The root directory of a clean Debian with these packages."""
    script = Path(__file__).with_name("mkroot.sh")
    return Path(run(str(script), suite, *packages, timeout=_MAKE_TIMEOUT).stdout.strip())


def unusable_host() -> str:
    """Why the host's own system can't be used, or an empty string."""
    code = "import sys; print(*sys.version_info[:2])"
    theirs = subprocess.run([_PYTHON, "-c", code], capture_output=True, text=True).stdout.split()
    if theirs != [str(number) for number in sys.version_info[:2]]:
        return f"{_PYTHON} has another version than the Python of the tests"
    return ""


def _copy_project(files: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    for name in _PACKAGES:
        shutil.copytree(PROJECT / name, files / _LIBRARIES[1:] / name, ignore=ignore)
    shutil.copytree(PROJECT / "templates", files / _DATA[1:] / "templates")
    for name, module in _COMMANDS.items():
        text = f"#!{_PYTHON}\nfrom {module} import run\n\nrun()\n"
        write(files, f"/usr/bin/{name}", text, 0o755)
    for unit in (PROJECT / "units").glob("*.*"):
        if unit.is_file():
            write(files, f"/usr/lib/systemd/system/{unit.name}", unit.read_text())
    for kind in ("sysusers.d", "tmpfiles.d"):
        text = (PROJECT / "units" / kind / "glorytun.conf").read_text()
        write(files, f"/usr/lib/{kind}/glorytun.conf", text)
    # A checkout may have been made under any umask.
    run("chmod", "-R", "u=rwX,go=rX", str(files))
    run("chown", "-R", "root:root", str(files))


def _add_users(files: Path, root: Path) -> None:
    (files / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        shutil.copy2(root / "etc" / name, files / "etc" / name)
    run("systemd-sysusers", f"--root={files}")
    # Its lock, and the backups.
    for file in [*(files / "etc").glob("*-"), files / "etc/.pwd.lock"]:
        file.unlink(missing_ok=True)


def _site_packages() -> Path:
    import nacl

    assert nacl.__file__
    return Path(nacl.__file__).parents[1]
