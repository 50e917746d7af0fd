"""All of a system that the wizard may change, for comparing it with what it was before."""

import difflib
import re

from tests.lab.node import Node
from tests.netns.wait import wait_for

_SETTLING = 15.0
"""Seconds for addresses, routes and units to be as before."""

_COMMANDS = {
    # Which units are enabled is in the files.
    "rules": "ip -4 rule; ip -6 rule",
    "routes": "ip -4 route show table all; ip -6 route show table all",
    "links": "ip -o link show",
    "addresses": "ip -o address show",
    "networkd": "networkctl --no-legend --no-pager list",
    "active units": "systemctl list-units --no-legend --no-pager --plain --state=active,failed",
    "drop-ins": "systemctl show --property=DropInPaths nftables.service 'glorytun@*'",
    "settings": "cd /proc/sys/net; grep -H . ipv4/ip_forward ipv4/conf/*/forwarding"
    " ipv4/conf/*/rp_filter ipv4/conf/*/accept_redirects ipv6/conf/*/forwarding"
    " ipv6/conf/*/accept_ra",
    "nftables": "nft list ruleset",
    "files": "find /etc /var/lib /root -xdev"
    " ! -path '/var/lib/systemd*' ! -path '/root/drive.py' -printf '%p %y %m %u:%g %l\\n'",
    "contents": "find /etc /var/lib -xdev -type f ! -path '/var/lib/systemd*'"
    " -exec sha256sum -b {} +",
    "programs": "find /usr /opt /srv /home -xdev ! -path '/usr/lib/python3*'"
    " -printf '%p %y %m %u:%g %T@ %l\\n'",
    "runtime": "ls /run/glorytun /run/glorytun-setup.lock 2>&1",
}
_VOLATILE = (
    # Lifetimes, and numbers that networkd takes at random (systemd 257).
    r" expires \d+sec",
    r" nhid \d+",
    r"valid_lft.*",
    # What changes with traffic, or in the order of starting.
    r" mtu \d+ ",
    r"^\d+: ",
    r"^ *\d+ ",
)
_TRANSIENT = re.compile(r"^(systemd-timedated|systemd-hostnamed|system-glorytun\.slice)")
"""Units that somebody's question started, or that stay without members."""


class Snapshot:
    """What there is, line by line."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lines = wait_for(self._settled, timeout=_SETTLING, what=f"{node.name} to settle")

    def assert_same(self) -> None:
        """Assert that it is so again, as soon as networkd and systemd have settled."""
        try:
            wait_for(lambda: self._look() == self._lines, timeout=_SETTLING, what="it")
        except AssertionError:
            now = self._look()
            changes = difflib.unified_diff(self._lines, now, "before", "now", lineterm="", n=0)
            text = "\n".join(changes)
            assert not text, f"{self._node.name} is not as before:\n{text}"

    def _settled(self) -> list[str]:
        """What there is once networkd has done its work; else nothing."""
        lines = self._look()
        return [] if re.search(r"tentative| configuring", "\n".join(lines)) else lines

    def _look(self) -> list[str]:
        found = []
        for name, command in _COMMANDS.items():
            said = self._node.run("sh", "-c", command, check=False).stdout
            lines = [
                self._steady(line) for line in said.splitlines() if not _TRANSIENT.search(line)
            ]
            found += [f"[{name}]", *sorted(lines)]
        return found

    @staticmethod
    def _steady(line: str) -> str:
        for pattern in _VOLATILE:
            line = re.sub(pattern, " ", line)
        return line.strip()
