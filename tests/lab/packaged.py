"""Systems for tests of the Debian package itself, and what is compared before and after."""

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.lab import package
from tests.lab.install import System, clean_root
from tests.lab.node import Node

OLDER = "1:0.0.9-1"
"""Version of the package that is upgraded from, and downgraded to."""

# What apt, dpkg and systemd note for themselves; the backups of the files of users; what netbase
# makes, which comes along. /run, /proc and the like are other file systems.
_NOT_COMPARED = (
    *("/var/log", "/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/root", "/tmp", "/var/tmp"),
    *("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock"),
    *("/etc/ld.so.cache", "/etc/hosts", "/var/lib/systemd/random-seed"),
)


@dataclass
class FreshSystem(System):
    """A clean Debian where apt finds what it needs to install the package that lies there."""

    @cached_property
    def root(self) -> Path:
        """Without what the package needs."""
        return clean_root(self.suite)

    @cached_property
    def files(self) -> Path:
        """The package, and Debian's that it needs."""
        files = _directory()
        package.fetch(self.root, files, package.build(self.suite))
        return files

    @property
    def deb(self) -> str:
        """The package, as the system names it."""
        return _newest_deb(self.suite)


@dataclass
class OlderSystem(System):
    """One with an older version of the package, which lies there beside the one that is built."""

    @cached_property
    def files(self) -> Path:
        """What the installation changed, and both packages."""
        files = _directory()
        newest = package.build(self.suite)
        with tempfile.TemporaryDirectory(prefix="gt-lab-") as beside:
            older = package.make_older(newest, Path(beside), OLDER)
            package.install(self.root, files, older)
        package.put_packages(files, [newest])
        return files

    @property
    def deb(self) -> str:
        """The package that is built, as the system names it."""
        return _newest_deb(self.suite)

    @property
    def older_deb(self) -> str:
        """The older package, as the system names it."""
        return f"{package.DIRECTORY}/glorytun_{OLDER.partition(':')[2]}_all.deb"


def _newest_deb(suite: str) -> str:
    return f"{package.DIRECTORY}/{package.build(suite).name}"


def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="gt-lab-"))
    directory.chmod(0o755)
    return directory


def apt(node: Node, *words: str) -> str:
    """Run ``apt-get`` as somebody who has agreed, and return all it says."""
    options = ("-q", "-y", "-o", "APT::Install-Recommends=true")
    result = node.run("sh", "-c", 'exec apt-get "$@" 2>&1', "apt", *options, *words, timeout=60)
    return result.stdout


def debian_packages(node: Node) -> set[str]:
    """Names of the packages that are installed."""
    return set(node.run("dpkg-query", "--show", "--showformat=${Package}\n").stdout.split())


def tree(node: Node) -> set[str]:
    """Every file of the system with its kind, mode, owner and size or target."""
    prune = [word for path in _NOT_COMPARED for word in ("-o", "-path", path)][1:]
    facts = r"%p %y %m %U:%G"
    show = [
        *("(", "-type", "f", "-printf", rf"{facts} %s\n", ")"),
        *("-o", "-printf", rf"{facts} %l\n"),
    ]
    found = node.run("find", "/", "-xdev", "(", *prune, ")", "-prune", "-o", *show).stdout
    return set(found.splitlines())


def state(node: Node) -> dict[str, list[str]]:
    """What else an installation may change: units, users, groups, devices, rules."""
    asked = {
        "unit files": "systemctl list-unit-files --no-legend --plain",
        "units": "systemctl list-units --all --no-legend --plain --type=service,target glorytun*",
        "failed": "systemctl list-units --failed --no-legend --plain",
        "users": "getent passwd",
        "groups": "getent group",
        "devices": "ip -brief link",
        "rules": "ip rule",
        "runtime": "find /run -name *glorytun*",
    }
    return {what: node.run(*command.split()).stdout.splitlines() for what, command in asked.items()}
