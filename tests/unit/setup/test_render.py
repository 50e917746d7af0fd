"""A plan's files, compared whole with those in golden/, and what must be true of all of them."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from glorytun.config import LocalKind
from glorytun.configfile import parse
from glorytun.core.settings import PathState
from glorytun.keyfile import parse_key
from glorytun_setup.model import Role
from glorytun_setup.render import render
from tests.unit.setup.golden import DIRECTORY, PROJECT, SAMPLES, Sample, files, whole
from tests.unit.setup.samples import KEY, client_plan

ALL = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_files_are_those_in_golden(name: str) -> None:
    """``python -m tests.unit.setup.golden`` writes them anew."""
    assert whole(SAMPLES[name]) == (DIRECTORY / f"{name}.txt").read_text()


def test_golden_has_no_other_files() -> None:
    assert {file.stem for file in DIRECTORY.glob("*.txt")} == set(SAMPLES)
    assert len(SAMPLES) >= 20


@ALL
def test_the_configuration_says_what_was_planned(sample: Sample) -> None:
    """As the daemon reads it, without a warning."""
    plan = sample.plan()
    path = f"/etc/glorytun/{plan.name}.conf"
    found = parse(files(sample)[path].text.encode(), Path(path))
    assert not found.warnings
    assert found.tunnel.port == plan.local_port
    if plan.role is Role.CLIENT:
        assert (found.tunnel.peer, found.tunnel.peer_port) == (plan.server_host, plan.port)
    else:
        assert found.tunnel.peer is None
    for path_found, wan in zip(found.paths, plan.wans, strict=True):
        assert (path_found.local, path_found.kind) == (wan.interface, LocalKind.INTERFACE)
        assert path_found.settings.state is PathState[wan.state.name]
        assert path_found.settings.rate_tx == wan.rate_tx
        assert path_found.settings.rate_rx == wan.rate_rx


@ALL
def test_the_key_is_in_one_file_that_only_root_can_read(sample: Sample) -> None:
    found = files(sample).values()
    holders = [file for file in found if KEY.hex() in file.text]
    assert [file.path for file in holders] == [f"/etc/glorytun/{sample.plan().name}.key"]
    assert parse_key(holders[0].text.encode(), name="") == KEY
    assert [(file.mode, file.owner, file.secret) for file in holders] == [(0o600, "root", True)]
    assert not [file for file in found if file.secret and file is not holders[0]]
    assert KEY.hex() not in repr(holders[0])


@ALL
def test_all_others_can_be_read_and_say_where_they_come_from(sample: Sample) -> None:
    name = sample.plan().name
    for file in files(sample).values():
        assert not file.mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not file.secret:
            assert file.mode == 0o644
            said = "with the last tunnel" if file.shared else f"for tunnel {name}."
            assert said in "".join(file.text.splitlines(keepends=True)[:2])


@ALL
def test_texts_end_where_they_should(sample: Sample) -> None:
    for file in files(sample).values():
        assert file.text.endswith("\n")
        assert not file.text.endswith("\n\n")
        assert "\n\n\n" not in file.text
        assert not [line for line in file.text.splitlines() if line != line.rstrip()]


@ALL
def test_no_two_rules_are_the_same(sample: Sample) -> None:
    """networkd would drop one of them, with a warning."""
    rules = [
        section
        for file in files(sample).values()
        for section in file.text.replace("\n#", "\n\n#").split("\n\n")
        if "[RoutingPolicyRule]" in section
    ]
    bare = ["\n".join(line for line in rule.splitlines() if line[:1] != "#") for rule in rules]
    assert len(set(bare)) == len(bare)


def test_an_interface_with_a_dot_is_one_word_in_sysctl() -> None:
    """Its name would be two directories with the usual spelling (sysctl.d(5))."""
    plan = replace(client_plan(), loosened=("wan0.7",))
    text = render(plan, PROJECT)["/etc/sysctl.d/50-glorytun-tun0.conf"].text
    assert "net/ipv4/conf/wan0.7/rp_filter = 2\n" in text


def test_a_packaged_host_gets_no_units() -> None:
    assert not [file for file in files(SAMPLES["client"]).values() if file.shared]


def test_without_a_package_the_unit_is_ours_with_the_program_that_is_there() -> None:
    found = files(SAMPLES["client-pip"])
    unit = found["/etc/systemd/system/glorytun@.service"].text
    assert "\nExecStart=/opt/glorytun/bin/glorytun run %i\n" in unit
    assert "/usr/bin/glorytun" not in unit
    original = (PROJECT / "units/glorytun@.service").read_text()
    assert unit.endswith(original.replace("/usr/bin/glorytun", "/opt/glorytun/bin/glorytun"))
