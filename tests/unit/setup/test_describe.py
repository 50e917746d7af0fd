"""The plan in words is part of golden/; here is what changes on the host."""

from glorytun_setup.describe import describe_changes
from glorytun_setup.model import File
from glorytun_setup.render import render
from tests.unit.setup.golden import PROJECT
from tests.unit.setup.samples import KEY, client_plan

FILE = File(path="/etc/a", text="one\ntwo\nthree\n", mode=0o640, group="systemd-network")
SECRET = File(path="/etc/k", text=f"{KEY.hex()}\n", mode=0o600, secret=True)


def test_a_new_file_is_shown_whole() -> None:
    assert describe_changes({FILE.path: FILE}, {FILE.path: None}) == (
        "/etc/a is new (0640 root:systemd-network):\n  +one\n  +two\n  +three"
    )


def test_a_changed_file_is_shown_as_a_difference() -> None:
    assert describe_changes({FILE.path: FILE}, {FILE.path: "one\ntwo\n"}) == (
        "/etc/a changes (0640 root:systemd-network):\n  @@ -1,2 +1,3 @@\n   one\n   two\n  +three"
    )


def test_what_changes_in_its_rights_alone_is_told() -> None:
    shown = describe_changes({FILE.path: FILE}, {FILE.path: FILE.text})
    assert shown == "/etc/a gets other rights (0640 root:systemd-network)"


def test_what_is_gone_already_is_not_told() -> None:
    assert describe_changes({}, {"/etc/b": None}) == ""


def test_what_is_not_needed_any_more_is_removed() -> None:
    assert describe_changes({}, {"/etc/b": "old\n"}) == "/etc/b is removed"


def test_a_secret_is_never_shown() -> None:
    for before in (None, "0" * 64):
        shown = describe_changes({SECRET.path: SECRET}, {SECRET.path: before})
        assert shown.endswith("(0600 root:root), a secret that is not shown")
        assert KEY.hex() not in shown
        assert "000" not in shown


def test_a_whole_plan_is_shown_without_its_key() -> None:
    files = render(client_plan(), PROJECT)
    shown = describe_changes(files, dict.fromkeys(files))
    assert KEY.hex() not in shown
    assert shown.count(" is new ") == len(files)
