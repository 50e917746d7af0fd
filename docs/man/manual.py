#!/usr/bin/env python3
"""Print the source of a manual page as Markdown, for pandoc: `manual.py docs/man/glorytun.8.md`.

A source is prose and, between {{ and }}, what is told elsewhere already: the tables of commands and
options, which the parsers use too, and sections of the other pages in docs/. What it takes from
there can't be left behind: a section that has gone is an error.
"""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from docs.argparser import Verb, synopsis
from glorytun import __version__
from glorytun.cli import words
from glorytun.cli.main import VERBS
from glorytun.options import SECTIONS, Option
from glorytun_setup.cli import make_parser

DOCS = Path(__file__).resolve().parents[1]
INSTALLED_DOCS = "/usr/share/doc/glorytun"
PAGES = {
    "config.md": "**glorytun.conf**(5)",
    "service.md": "**glorytun@.service**(8)",
    "setup.md": "**glorytun-setup**(8)",
}
"""Which manual page has what a page of docs/ has."""


def render(source: Path) -> str:
    """The whole Markdown of a page."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(source.read_text())
    setup = Verb(words=("glorytun-setup",), help="", parser=make_parser())
    body = template.render(
        commands=commands, options=options, section=section, setup=setup, terms=terms, verbs=verbs
    )
    return header(source.name) + refer(body)


def header(name: str) -> str:
    """Title, section and date, as pandoc wants them; `name` is like glorytun.conf.5.md."""
    title, number, _ = name.rsplit(".", 2)
    kind = {"5": "File Formats Manual", "8": "System Manager's Manual"}[number]
    return (
        f"---\ntitle: {title.upper()}\nsection: {number}\nheader: {kind}\n"
        f"footer: glorytun {__version__}\ndate: {build_date()}\n---\n\n"
    )


def build_date() -> str:
    """The day of the build, or of what is built where that is known (reproducible-builds.org)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.date().isoformat()


def section(page: str, heading: str = "") -> str:
    """The text below a heading of a page in docs/; without one, what is before the first."""
    title, *rest = re.split(r"^## (.+)\n", (DOCS / page).read_text(), flags=re.MULTILINE)
    texts = dict(zip(rest[::2], rest[1::2], strict=True))
    texts[""] = title.partition("\n")[2]
    if heading not in texts:
        raise SystemExit(f"docs/{page} has no section {heading!r} any more")
    return texts[heading].strip()


def commands() -> str:
    """Every command with its words."""
    return "\n".join(_command(name, summary) for name, summary in VERBS.items())


def _command(name: str, summary: str) -> str:
    table = importlib.import_module(f"glorytun.cli.{name}").OPTIONS
    usage = words.usage(name, table).removeprefix("usage: ").replace("\n       ", "\n")
    rows = "".join(f"{_emphasised(left)}\n: {right}\n\n" for left, right in _rows(table))
    return f"## glorytun {name}\n\n```\n{usage}\n```\n\n{summary.capitalize()}.\n\n{rows}"


def _rows(table: words.Options) -> Iterator[tuple[str, str]]:
    """Each word and what it does; one of a group has the group's word before it."""
    group = ""
    for left, right in words.help_rows(table, indent=""):
        if left.startswith(" "):
            yield f"{group} {left.strip()}", right
        else:
            group = left.split()[0]
            yield left, right.replace(":", ".") if right.endswith(":") else right


def _emphasised(synopsis: str) -> str:
    """Placeholders, which are in capitals, in italics, and all other words in bold."""
    escaped = re.sub(r"[][|]", r"\\\g<0>", synopsis)
    return re.sub(r"(?<![\w-])(?:([A-Z]+)|([a-z-]+))\b", _emphasise, escaped)


def _emphasise(match: re.Match[str]) -> str:
    return f"*{match[1]}*" if match[1] else f"**{match[2]}**"


def verbs(command: Verb) -> str:
    """Every verb with what it alone takes."""
    common = {option.dest for option in command.options}
    return "\n".join(_verb(verb, common) for verb in command.all_verbs())


def _verb(verb: Verb, common: set[str]) -> str:
    own = [option for option in verb.options if option.dest not in common]
    optional = [f"[{synopsis(option)}]" for option in own]
    more = [*optional, *map(synopsis, verb.positionals)]
    heading = " ".join(verb.words)
    usage = " ".join([heading, "[OPTION ...]", *more])
    return (
        f"## {heading}\n\n```\n{usage}\n```\n\n{verb.help[0].upper()}{verb.help[1:]}.\n\n"
        + terms([action for action in [*verb.positionals, *own] if action.help])
    )


def terms(actions: list[argparse.Action]) -> str:
    """Each option or value and its help."""
    return "\n".join(_term(action) for action in actions)


def _term(action: argparse.Action) -> str:
    text = str(action.help).replace("%%", "%")
    term = _emphasised(synopsis(action))
    return f"{term}\n: {text}{'' if text.endswith('.') else '.'}\n"


def options(name: str) -> str:
    """Every option of a section of the configuration file."""
    return "\n".join(f"**{option.key}=**\n: {_described(option)}\n" for option in SECTIONS[name])


def _described(option: Option) -> str:
    default = f" Defaults to `{option.default}`." if option.default else ""
    return option.help + default + (" It has no effect yet." if option.idle else "")


def refer(text: str) -> str:
    """References to pages in docs/ as whoever reads a manual finds them."""
    return re.sub(r"\[[^]]*\]\(([\w/.]+\.md)\)|docs/(\w+\.md)", _reference, text)


def _reference(match: re.Match[str]) -> str:
    page = match[1] or match[2]
    if not (DOCS / page).exists():
        raise SystemExit(f"there is no docs/{page}")
    return PAGES.get(page, f"*{INSTALLED_DOCS}/{page}*")


if __name__ == "__main__":
    sys.stdout.write(render(Path(sys.argv[1])))
