"""What the wizard changes in the kernel itself, where networkd doesn't: settings, and what it
leaves behind.
"""

import errno
import os
import re
import socket
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from glorytun.errors import SetupError

PROC_SYS = Path("/proc/sys")
FORWARDING = {"net/ipv4/ip_forward": "ipv4", "net/ipv6/conf/all/forwarding": "ipv6"}
"""Settings that change others, of each interface, and their family."""
_SYSCTL_DIRECTORIES = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
_MOST_TRIES = 10
"""Of emptying something while others empty it too."""
_SAME = {"net/ipv4/conf/all/forwarding": "net/ipv4/ip_forward"}
"""Names of one setting: the kernel's, and the one that is usual."""


def read_sysctl(key: str) -> str | None:
    """The value of a setting such as ``net.ipv4.ip_forward``; None without it."""
    try:
        return _sysctl_file(key).read_text().strip()
    except OSError:
        return None


def write_sysctl(key: str, value: str) -> None:
    """Change a setting; one that isn't there (an interface that has yet to come) is left out.

    Raises SetupError.
    """
    file = _sysctl_file(key)
    if not file.exists():
        return
    try:
        file.write_text(f"{value}\n")
    except OSError as error:
        raise SetupError(
            f"{key} can't be set to {value}: {os.strerror(error.errno or 0)}",
            hint="a container's host may have to allow it",
        ) from error


def parse_sysctls(text: str) -> dict[str, str]:
    """The settings in a file of sysctl.d(5)."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"-?([^=#;\s]+)\s*=\s*(.*)", line.strip())
        if match:
            found[match[1]] = match[2].strip()
    return found


def settings_of_others(root: Path, own: Collection[str]) -> dict[str, tuple[str, str]]:
    """What the files of sysctl.d(5) set but for our `own`: value and file by key with slashes.

    Only keys that are written out: what is meant by a pattern is for whatever comes.
    """
    found = {}
    files = [root / "etc/sysctl.conf"]
    for directory in _SYSCTL_DIRECTORIES:
        files += sorted((root / directory / "sysctl.d").glob("*.conf"))
    for file in files:
        path = f"/{file.relative_to(root)}"
        if path in own:
            continue
        try:
            settings = parse_sysctls(file.read_text(errors="replace"))
        except OSError:
            continue
        for key, value in settings.items():
            name = str(_sysctl_file(key).relative_to(PROC_SYS))
            found[_SAME.get(name, name)] = (value, path)
    return found


def delete_device(name: str) -> None:
    """Remove a network device, if it is there. Raises SetupError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as route:
            for index in route.link_lookup(ifname=name):
                route.link("del", index=index)
    except NetlinkError as error:
        raise SetupError(
            f"the device {name} can't be removed: {os.strerror(error.code)}",
            hint=f"`ip link delete {name}` tries it again",
        ) from error


def flush_table(table: int) -> None:
    """Remove all routes of a table, which is one of ours.

    systemd 257 leaves those of router advertisements in there when the file that wanted them goes.
    """
    from pyroute2 import IPRoute

    assert table not in {0, 253, 254, 255}  # linux/rtnetlink.h: unspec, default, main, local
    with IPRoute() as route:
        for family in (socket.AF_INET, socket.AF_INET6):
            _empty(f"table {table}", partial(route.flush_routes, family=family, table=table))


def flush_rules(first: int, count: int) -> None:
    """Remove the rules of `count` priorities, which are ours.

    networkd does it itself while it runs, and leaves them when it is stopped.
    """
    from pyroute2 import IPRoute

    last = first + count - 1
    assert 0 < first <= last < 32766  # net/ipv4/fib_rules.c: `local` has 0, `main` 32766

    def is_ours(priority: int | None) -> bool:
        return first <= (priority or 0) <= last

    with IPRoute() as route:
        for family in (socket.AF_INET, socket.AF_INET6):
            flush = partial(route.flush_rules, family=family, priority=is_ours)
            _empty(f"rules {first} to {last}", flush)


def _empty(what: str, flush: Callable[[], object]) -> None:
    """Read and delete; others may delete the same in between. Raises SetupError."""
    from pyroute2.netlink.exceptions import NetlinkError

    for _ in range(_MOST_TRIES):
        try:
            flush()
            return
        except NetlinkError as error:
            if error.code not in (errno.ESRCH, errno.ENOENT):
                raise SetupError(f"{what} can't be emptied: {os.strerror(error.code)}") from error
    raise SetupError(f"{what} can't be emptied: it is changed again and again")


def _sysctl_file(key: str) -> Path:
    """As sysctl.d(5) has it: where a slash comes first, dots are themselves (``eth0.5``)."""
    first = re.search(r"[./]", key)
    if first and first[0] == ".":
        key = key.translate(str.maketrans("./", "/."))
    return PROC_SYS / key
