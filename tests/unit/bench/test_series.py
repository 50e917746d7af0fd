"""The course of a load, as CSV and as a picture."""

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.paths.series import HEIGHT, TOP, write_csv, write_svg
from tests.unit.bench.samples import FALL, LOST_AT, SECONDS, SLOW, SLOW_AT, seen
from tests.wan import DOWN, UP

SVG = "{http://www.w3.org/2000/svg}"
NAMES = {
    "Mbit/s": ["goodput", "link 1", "link 2"],
    "ms": ["ping", "link 1's queue", "link 2's queue"],
}


@pytest.fixture
def points(tmp_path: Path) -> dict[tuple[str, str], dict[float, float]]:
    """By name and unit, what the CSV has for each second."""
    file = tmp_path / "up.csv"
    write_csv(file, seen(), UP)
    with file.open(newline="") as text:
        rows = list(csv.reader(text))
    assert rows[0] == ["what", "unit", "seconds", "value"]
    found: dict[tuple[str, str], dict[float, float]] = {}
    for what, unit, at, value in rows[1:]:
        found.setdefault((what, unit), {})[float(at)] = float(value)
    return found


def test_each_line_has_its_points(points: dict[tuple[str, str], dict[float, float]]) -> None:
    assert list(points) == [(name, unit) for unit, names in NAMES.items() for name in names]
    assert points["link 1", "Mbit/s"][FALL - 1.0] == pytest.approx(8, rel=0.01)
    assert points["link 1", "Mbit/s"][FALL + 1.0] == 0
    assert points["link 2", "Mbit/s"][FALL + 1.0] == pytest.approx(4, rel=0.01)
    assert points["goodput", "Mbit/s"][FALL - 1.0] == pytest.approx(12, rel=0.01)
    assert points["goodput", "Mbit/s"][FALL + 1.0] == pytest.approx(4, rel=0.01)
    assert points["link 1's queue", "ms"][3.0] == 3.0
    assert points["link 2's queue", "ms"][3.0] == 2.0


def test_a_ping_without_an_answer_has_no_point(
    points: dict[tuple[str, str], dict[float, float]],
) -> None:
    pings = points["ping", "ms"]
    assert len(pings) == SECONDS * 10 - 1
    assert LOST_AT not in pings
    assert pings[SLOW_AT] == SLOW


def test_the_other_direction_has_its_own_counters(tmp_path: Path) -> None:
    write_csv(tmp_path / "down.csv", seen(), DOWN)
    rows = (tmp_path / "down.csv").read_text().splitlines()
    assert "link 1,Mbit/s,4.000,0.080" in rows
    assert "link 1's queue,ms,3.000,0.000" in rows


def test_the_picture_has_a_line_for_each_that_stays_in_its_panel(tmp_path: Path) -> None:
    file = tmp_path / "up.svg"
    write_svg(file, seen(), UP, title="50 to 10 & back, <auto>")
    root = ElementTree.parse(file).getroot()
    assert root.tag == f"{SVG}svg"
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "50 to 10 & back, <auto>" in texts
    expected = [f"{name}, {unit}" for unit, names in NAMES.items() for name in names]
    assert [text for text in texts if text in expected] == expected
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    drawn = [line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")]
    assert len(drawn) == len(expected)
    for index, line in enumerate(drawn):
        assert len(line) >= SECONDS * 10 - 1
        places = [tuple(map(float, point.split(","))) for point in line]
        assert [x for x, _ in places] == sorted(x for x, _ in places)
        assert all(0 <= x <= width for x, _ in places)
        top, bottom = (TOP, TOP + HEIGHT) if index < 3 else (TOP + HEIGHT, height)
        assert all(top <= y <= bottom for _, y in places)
