"""The sources of the manual pages: what must be in each comes from where it is told already."""

import importlib
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from docs.argparser import Verb, synopsis
from glorytun.cli.main import VERBS
from glorytun.cli.words import help_rows, known_words
from glorytun.options import SECTIONS
from glorytun_setup.cli import make_parser
from glorytun_setup.questions import QUESTIONS

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "docs/man"
PAGES = sorted(path.name for path in SOURCES.glob("*.md"))
LEFT_OUT = {
    ("config.md", "`[Tunnel]`"),  # tables of options
    ("config.md", "`[Path]`"),
    ("service.md", "Setting it up by hand"),  # the package does that
}
"""Sections of the other pages that no manual page has."""


def make(source: Path) -> subprocess.CompletedProcess[str]:
    """Run the generator."""
    return subprocess.run(
        [sys.executable, SOURCES / "manual.py", source],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "86400"},
        capture_output=True,
        text=True,
    )


@cache
def page(name: str) -> str:
    """The whole Markdown of a page."""
    result = make(SOURCES / name)
    assert result.returncode == 0, result.stderr
    return result.stdout


def part(text: str, heading: str) -> str:
    """What is below a heading, up to the next of its rank."""
    _, found, below = text.partition(f"\n{heading}\n")
    assert found, f"no {heading}"
    rank = heading.partition(" ")[0]
    return re.split(rf"^#{{1,{len(rank)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_what_every_page_has(name: str) -> None:
    title, number, _ = name.rsplit(".", 2)
    head, body = page(name).removeprefix("---\n").split("---\n", 1)
    assert f"title: {title.upper()}\nsection: {number}\n" in head
    assert "date: 1970-01-02\n" in head
    # As lexgrog(1), and so apropos(1), understand it.
    assert re.search(r"\A\n# NAME\n\n[\w@., -]+ - \S.+\n\n# SYNOPSIS\n", body)
    assert "{{" not in body
    assert ".md)" not in body, "a link that leads nowhere in a manual"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_is_in_the_page(section: str) -> None:
    text = part(page("glorytun.conf.5.md"), f"# [{section}] SECTION OPTIONS")
    for option in SECTIONS[section]:
        entry = f"**{option.key}=**\n: {option.help}"
        assert entry in text
        rest = text.partition(entry)[2].split("\n\n")[0]
        assert not option.default or f"`{option.default}`" in rest
        assert option.idle == ("no effect yet" in rest)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_is_in_the_page(verb: str) -> None:
    text = part(page("glorytun.8.md"), f"## glorytun {verb}")
    assert f"glorytun {verb}" in text.splitlines()[2]
    assert VERBS[verb].capitalize() in text
    table = importlib.import_module(f"glorytun.cli.{verb}").OPTIONS
    for word in known_words(table):
        assert f"**{word}**" in text
    for _, explanation in help_rows(table):
        assert explanation.partition("(see ")[0].rstrip(".:") in text


COMMAND = Verb(words=("glorytun-setup",), help="", parser=make_parser())
WIZARD = list(COMMAND.all_verbs())


@pytest.mark.parametrize("verb", WIZARD, ids=[" ".join(verb.words[1:]) for verb in WIZARD])
def test_every_verb_of_the_wizard_is_in_the_page(verb: Verb) -> None:
    """With what it alone takes; what all take is in the page once."""
    text = page("glorytun-setup.8.md")
    own = part(text, f"## {' '.join(verb.words)}")
    assert f"{verb.help[0].upper()}{verb.help[1:]}." in own
    common = {option.dest for option in COMMAND.options}
    for option in verb.options:
        assert f"**{option.option_strings[-1]}**" in (text if option.dest in common else own)
        assert option.help
        assert option.help.replace("%%", "%").partition(" (docs/")[0] in text
    for positional in verb.positionals:
        assert synopsis(positional) in own


def test_every_question_of_the_wizard_is_in_the_page() -> None:
    text = part(page("glorytun-setup.8.md"), "# ANSWERS")
    for question in QUESTIONS:
        assert f"**{question.option}**" in text


def test_nothing_of_the_other_pages_is_forgotten() -> None:
    """A section that is added to one gets into the manual, or is named here."""
    taken = set()
    for name in PAGES:
        source = (SOURCES / name).read_text()
        taken |= set(re.findall(r'section\("([\w.]+)", "(.+?)"\)', source))
    for other in ("config.md", "service.md", "setup.md"):
        headings = re.findall(r"^## (.+)$", (ROOT / "docs" / other).read_text(), re.MULTILINE)
        assert {(other, heading) for heading in headings} <= taken | LEFT_OUT


def test_a_section_that_has_gone_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "some.8.md"
    source.write_text('{{ section("config.md", "Nothing of the kind") }}\n')
    result = make(source)
    assert result.returncode != 0
    assert "docs/config.md has no section 'Nothing of the kind'" in result.stderr


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "some.8.md"
    source.write_text("See [that page](nowhere.md).\n")
    result = make(source)
    assert result.returncode != 0
    assert "there is no docs/nowhere.md" in result.stderr
