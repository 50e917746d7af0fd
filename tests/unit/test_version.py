"""Everything that names the version names the same one."""

import re
from pathlib import Path

import glorytun

ROOT = Path(__file__).parents[2]
HEADING = re.compile(r"^## \[(.+?)\](?: - \d{4}-\d\d-\d\d)?$", re.MULTILINE)


def newest_of_debian() -> tuple[str, str]:
    """Upstream's part of the newest version in debian/changelog, and the distribution."""
    line = (ROOT / "debian/changelog").read_text().splitlines()[0]
    found = re.fullmatch(r"glorytun \(1:([\d.]+)-\S+\) (\w+); urgency=\w+", line)
    assert found, line
    return found[1], found[2]


def test_versions_agree() -> None:
    """While the next version is in the making its part of CHANGELOG.md is called Unreleased."""
    headings = HEADING.findall((ROOT / "CHANGELOG.md").read_text())
    version, distribution = newest_of_debian()
    assert version == glorytun.__version__
    if headings[0] == "Unreleased":
        assert glorytun.__version__ not in headings
    else:
        assert headings[0] == glorytun.__version__
        assert distribution != "UNRELEASED"


def test_pyproject_names_no_other_version() -> None:
    """It takes that of the package, glorytun.__version__."""
    text = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in text
    assert 'version = { attr = "glorytun.__version__" }' in text
    assert not re.search(r'^version = "', text, re.MULTILINE)
