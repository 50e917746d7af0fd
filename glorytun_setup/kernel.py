"""What the wizard changes in the kernel itself, where networkd doesn't: settings, and what it
leaves behind.
"""

import os
import re
import socket
from pathlib import Path

from glorytun.errors import SetupError

PROC_SYS = Path("/proc/sys")


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
            route.flush_routes(family=family, table=table)


def _sysctl_file(key: str) -> Path:
    """As sysctl.d(5) has it: where a slash comes first, dots are themselves (``eth0.5``)."""
    first = re.search(r"[./]", key)
    if first and first[0] == ".":
        key = key.translate(str.maketrans("./", "/."))
    return PROC_SYS / key
