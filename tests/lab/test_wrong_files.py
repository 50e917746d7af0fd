"""A start with a file that is wrong: it ends at once, says why, and changes nothing."""

import pytest

from tests.lab.tunnel import End, Pair
from tests.unit.test_configfile import WRONG

EX_CONFIG = "78"
"""sysexits(3)"""


def unit(number: int) -> str:
    return f"glorytun@wrong{number}.service"


@pytest.fixture
def refused(pair: Pair) -> End:
    """A system on which a tunnel was started with each of the wrong files, all of them at once."""
    end = pair.client
    for number, (_, content, _) in enumerate(WRONG):
        end.write(f"/etc/glorytun/wrong{number}.conf", content)
    units = [unit(number) for number in range(len(WRONG))]
    before = snapshot(end)
    assert end.run("systemctl", "start", *units, check=False, timeout=60).returncode != 0
    assert snapshot(end) == before
    return end


def snapshot(end: End) -> list[str]:
    """What a tunnel could change on a host."""
    commands = (
        "ip -o link",
        "ip -o address",
        "ip -o rule",
        "ip -o route show table all",
        "ss -H -u -a -n",
        "find /etc /run/glorytun /var/lib /tmp /home -not -path '*/wrong*' -newer /etc/hostname",
    )
    return [end.run("sh", "-c", f"{command} | sort").stdout for command in commands]


def test_each_wrong_file_is_refused_for_good(refused: End) -> None:
    """Exact message, exit status, and no second try: it would only fail again."""
    for number, (kind, _, message) in enumerate(WRONG):
        name = unit(number)
        facts = ("ActiveState", "Result", "ExecMainStatus", "NRestarts")
        assert [refused.shown(fact, name) for fact in facts] == [
            "failed",
            "exit-code",
            EX_CONFIG,
            "0",
        ], kind
        said = refused.run("journalctl", "-o", "cat", f"_SYSTEMD_UNIT={name}").stdout.strip()
        assert said == message.replace("tun0.conf", f"/etc/glorytun/wrong{number}.conf"), kind
        assert message.splitlines()[0].partition(": ")[2] in refused.systemctl(
            "status", "--full", name, check=False
        ), kind
