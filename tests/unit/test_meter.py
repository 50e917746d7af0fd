"""What links with a quota have carried."""

import json
import logging
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from glorytun.config import LocalKind, PathConfig
from glorytun.core.settings import SECOND, PathSettings
from glorytun.core.status import DirectionStatus, PathStatus
from glorytun.meter import SAVE_INTERVAL, Date, Meter, Quota
from tests.unit.control.samples import RUNNING

TODAY = Date(2026, 11, 22)
NOW = 1_800_000_000 * SECOND


def section(local: str = "wan1", *, quota: int = 10_000, day: int = 1) -> PathConfig:
    return PathConfig(
        local=local,
        kind=LocalKind.INTERFACE,
        peer=None,
        settings=PathSettings(),
        quota=quota,
        quota_day=day,
    )


def carried(size: int, count: int = 10) -> PathStatus:
    """A path that has carried so much, with headers, half of it each way."""
    half = (size - count * 28) // 2
    way = DirectionStatus(rate=0, loss=0, bytes=half, total=count // 2)
    return replace(RUNNING, tx=way, rx=way)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "usage/tun0.json"


def metered(file: Path, *sections: PathConfig) -> Meter:
    meter = Meter(file)
    meter.take(sections or [section()])
    return meter


def used(meter: Meter, link: str = "wan1") -> int:
    found = meter.describe(link)
    assert found
    return found["used"]


def test_both_ways_count_with_their_headers(file: Path) -> None:
    meter = metered(file)
    meter.add([(carried(4000), "wan1")], TODAY, NOW)
    meter.add([(carried(6000), "wan1")], TODAY, NOW)
    assert meter.describe("wan1") == {"limit": 10_000, "used": 6000, "day": 1}
    assert not meter.is_spent("wan1")
    meter.add([(carried(10_000), "wan1")], TODAY, NOW)
    assert meter.is_spent("wan1")


def test_paths_of_one_link_add_up_and_others_do_not_count(file: Path) -> None:
    meter = metered(file, section(), section("wan0", quota=0))
    v6 = replace(carried(2000), local=b"6" * 16)
    other = replace(carried(9000), local=b"o" * 16)
    by_hand = replace(carried(9000), local=b"h" * 16)
    meter.add([(carried(3000), "wan1"), (v6, "wan1"), (other, "wan0"), (by_hand, None)], TODAY, NOW)
    assert used(meter) == 5000
    assert meter.describe("wan0") is meter.describe(None) is None
    assert not meter.is_spent("wan0")


def test_a_path_that_comes_again_counts_from_nothing(file: Path) -> None:
    """Also when it was gone for less time than between two looks."""
    meter = metered(file)
    meter.add([(carried(4000), "wan1")], TODAY, NOW)
    meter.add([(carried(1000), "wan1")], TODAY, NOW)
    meter.add([], TODAY, NOW)
    meter.add([(carried(1000), "wan1")], TODAY, NOW)
    assert used(meter) == 6000


def test_it_survives_a_restart(file: Path) -> None:
    meter = metered(file)
    meter.add([(carried(4000), "wan1")], TODAY, NOW)
    meter.add([(carried(4400), "wan1")], TODAY, NOW + SAVE_INTERVAL - 1)
    meter._wait()
    assert used(metered(file)) == 4000
    meter.save()
    again = metered(file)
    assert used(again) == 4400
    again.add([(carried(600), "wan1")], TODAY, NOW)
    assert used(again) == 5000
    again.save()
    assert [path.name for path in file.parent.iterdir()] == ["tun0.json"]
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_it_begins_anew_on_its_day(file: Path) -> None:
    meter = metered(file, section(day=15))
    meter.add([(carried(20_000), "wan1")], Date(2026, 11, 14), NOW)
    assert meter.is_spent("wan1")
    meter.add([(carried(20_000), "wan1")], Date(2026, 11, 15), NOW)
    assert not meter.is_spent("wan1")
    assert used(meter) == 0


def test_a_clock_that_is_behind_forgets_nothing(file: Path) -> None:
    """As after a boot without a battery, until somebody tells the time."""
    meter = metered(file)
    meter.add([(carried(20_000), "wan1")], TODAY, NOW)
    meter.save()
    meter = metered(file)
    meter.add([(carried(1000), "wan1")], Date(1970, 1, 1), NOW)
    meter.add([(carried(2000), "wan1")], TODAY, NOW)
    assert used(meter) == 22_000
    meter.add([(carried(2600), "wan1")], Date(2026, 12, 1), NOW)
    assert used(meter) == 600


def test_a_clock_that_was_ahead_once_is_not_believed_for_years(file: Path) -> None:
    """What was used stays used; it begins anew when the next month does."""
    meter = metered(file)
    meter.add([(carried(20_000), "wan1")], Date(2036, 2, 20), NOW)
    meter.save()
    meter = metered(file)
    for hours in (0, 0.9, 1.1):
        meter.add([(carried(1000), "wan1")], TODAY, NOW + round(hours * 3600 * SECOND))
        assert meter.is_spent("wan1")
    meter.add([(carried(1600), "wan1")], Date(2026, 12, 1), NOW + 7200 * SECOND)
    assert used(meter) == 600


def test_another_day_counts_anew_when_it_comes(file: Path) -> None:
    """What was used is still used before that."""
    meter = metered(file)
    meter.add([(carried(20_000), "wan1")], TODAY, NOW)
    meter.take([section(day=25)])
    meter.add([(carried(20_000), "wan1")], Date(2026, 11, 24), NOW)
    assert used(meter) == 20_000
    meter.add([(carried(20_000), "wan1")], Date(2026, 11, 25), NOW)
    assert used(meter) == 0


@pytest.mark.parametrize(
    ("today", "day", "period"),
    [
        (Date(2026, 11, 22), 1, "2026-11-01"),
        (Date(2026, 11, 22), 22, "2026-11-22"),
        (Date(2026, 11, 22), 23, "2026-10-23"),
        (Date(2026, 1, 3), 4, "2025-12-04"),
        (Date(2026, 2, 28), 31, "2026-02-28"),
        (Date(2026, 2, 27), 31, "2026-01-31"),
        (Date(2028, 2, 28), 30, "2028-01-30"),
    ],
)
def test_the_month_of_a_day(today: Date, day: int, period: str) -> None:
    """A month without that day begins on its last."""
    assert Quota(bytes=1, day=day).period(today) == period


def test_a_quota_may_be_raised(file: Path) -> None:
    meter = metered(file)
    meter.add([(carried(10_000), "wan1")], TODAY, NOW)
    meter.take([section(quota=20_000)])
    assert not meter.is_spent("wan1")
    meter.take([])
    assert not meter.is_needed
    assert meter.describe("wan1") is None


def test_its_end_is_said_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    meter = metered(file)
    for size in (9000, 10_500, 11_000):
        meter.add([(carried(size), "wan1")], TODAY, NOW)
    assert caplog.messages == [
        "wan1 has used up its quota, and isn't used until day 1 of the month"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '{"version": 2}',
        '{"version": 1, "links": {"wan1": {"period": 3, "bytes": "x"}}}',
        '{"version": 1, "links": {"wan1": {"period": "2026-11-01", "bytes": -5}}}',
        '{"version": 1, "links": {"wan1": {"period": "some day", "bytes": 5}}}',
        "\x00\xff",
    ],
)
def test_a_damaged_file_counts_anew(
    file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a power cut may leave one that was written by an older version. It is said, once."""
    file.parent.mkdir()
    file.write_bytes(text.encode("latin-1"))
    meter = metered(file)
    assert used(meter) == 0
    (message,) = caplog.messages
    forgotten = "so all that links have used of their quotas is forgotten: it is damaged ("
    assert message.startswith(f"{file} can't be read, {forgotten}")
    assert "\n" not in message
    meter.add([(carried(4000), "wan1")], TODAY, NOW)
    meter.save()
    assert json.loads(file.read_text())["links"] == {
        "wan1": {"period": "2026-11-01", "bytes": 4000}
    }


def test_a_file_that_may_not_be_read_counts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert used(metered(tmp_path)) == 0
    (message,) = caplog.messages
    assert message.endswith("is forgotten: Is a directory")


def test_the_file_is_on_the_disk_before_it_has_its_name(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its name before the next is written: a power cut leaves no empty file."""
    calls: list[str] = []

    def spy(name: str) -> None:
        real = getattr(os, name)

        def called(*arguments: object) -> object:
            target = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else ""
            calls.append(f"{name} {Path(target).name}".strip())
            return real(*arguments)

        monkeypatch.setattr(os, name, called)

    spy("fsync")
    spy("replace")
    meter = metered(file)
    meter.add([(carried(4000), "wan1")], TODAY, NOW)
    meter.save()
    assert calls == ["fsync tun0.new", "replace", "fsync usage"]


def test_a_slow_disk_holds_nothing_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tunnel goes on while it is written, and the end waits for it."""
    disk = threading.Event()
    real = os.fsync

    def slow(fd: int) -> None:
        assert disk.wait(30)
        real(fd)

    monkeypatch.setattr(os, "fsync", slow)
    meter = metered(file)
    for minute in range(3):
        meter.add([(carried(4000 + minute), "wan1")], TODAY, NOW + minute * SAVE_INTERVAL)
    assert not file.exists()
    disk.set()
    meter.save()
    assert used(metered(file)) == 4002


def test_what_cannot_be_noted_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "file").touch()
    meter = metered(tmp_path / "file/tun0.json")
    for size in (1000, 2000, 3000):
        meter.add([(carried(size), "wan1")], TODAY, NOW)
        meter.save()
    assert len([text for text in caplog.messages if "can't be noted" in text]) == 1
    assert used(meter) == 3000
