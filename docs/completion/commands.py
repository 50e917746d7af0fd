#!/usr/bin/env python3
"""Print what `complete` needs to know of the commands, from the tables that their parsers use.

A line for each word, with a tab between the fields and - for an empty one: command, verb, word,
key (words of one key exclude each other), what it is followed by, the word that must come before
(of a group), help. What follows is `verb` (the word is one, and other words belong to it), or the
kind of a value. A value without a word of its own has - for the word.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator

from docs.argparser import Verb, placeholder
from glorytun.cli.main import VERBS
from glorytun.cli.words import Flag, Group, Keyword, Option, Options, Positional, Value
from glorytun.config import format_traffic_class
from glorytun_setup.cli import make_parser

CLASSES = [name for number in range(256) if not (name := format_traffic_class(number)).isdigit()]
OTHER = "other"
"""The kind of a value of which nothing is proposed."""
KINDS = {
    "ADDR": "address",
    "ANSWER": OTHER,
    "CLASS": ",".join(CLASSES),
    "CLIENT": OTHER,
    "FILE": "file",
    "HOST": OTHER,
    "NAME": "tunnel",
    "NAME|FILE": "target",
    "NUMBER": OTHER,
    "PERCENT": OTHER,
    "PORT": OTHER,
    "RATE": OTHER,
    "TIME": OTHER,
    "TUNNEL": "configuration",
    "[TUNNEL] CLIENT": "configuration",
}
"""By the placeholder of a value; several choices have commas between them."""
SPECIAL = {
    ("bind", "NAME"): OTHER,
    ("run", "NAME"): "configuration",
    ("--original", "NAME"): OTHER,
    ("--role", "ANSWER"): "client,server",
    ("--share", "ANSWER"): "yes,no",
    ("--through", "ANSWER"): "everything,nothing",
    ("--wans", "ANSWER"): "interface",
}
"""By verb or option and placeholder, where it is another."""

Row = tuple[str, str, str, str, str, str, str]


def rows() -> Iterator[Row]:
    """The whole table."""
    for verb, summary in VERBS.items():
        yield "glorytun", "", verb, "", "verb", "", summary
        yield from _options(verb, importlib.import_module(f"glorytun.cli.{verb}").OPTIONS)
    yield from _verb(Verb(words=("glorytun-setup",), help="", parser=make_parser()))


# glorytun


def _options(verb: str, options: Options, group: str = "") -> Iterator[Row]:
    for option in options:
        word, key, kind = _fields(verb, option)
        yield "glorytun", verb, word, key, kind, group, option.help.rstrip(".:")
        if isinstance(option, Group):
            yield from _options(verb, option.options, option.word)


def _fields(verb: str, option: Option) -> tuple[str, str, str]:
    match option:
        case Positional():
            return "", option.value.key, _kind(verb, option.value)
        case Flag():
            return option.word, option.key, ""
        case Keyword():
            return option.word, option.value.key, _kind(verb, option.value)
        case Group():
            return option.word, option.word, ""


def _kind(verb: str, value: Value) -> str:
    return SPECIAL.get((verb, value.name)) or KINDS[value.name]


# glorytun-setup


def _verb(verb: Verb) -> Iterator[Row]:
    command, *path = verb.words
    where = "/".join(path)
    for below in verb.verbs():
        yield command, where, below.words[-1], "", "verb", "", below.help
    for action in [*verb.positionals, *verb.options]:
        yield command, where, *_action(action)
    for below in verb.verbs():
        yield from _verb(below)


def _action(action: argparse.Action) -> tuple[str, str, str, str, str]:
    word = action.option_strings[-1] if action.option_strings else ""
    name = placeholder(action)
    kind = SPECIAL.get((word, name)) or KINDS[name] if name else ""
    explanation = (action.help or name).partition(". ")[0].rstrip("?.")
    return word, action.dest, kind, "", explanation.replace("%%", "%")


if __name__ == "__main__":
    for row in rows():
        sys.stdout.write("\t".join(field or "-" for field in row) + "\n")
