#!/usr/bin/env python3
"""Print what `complete` needs to know of the commands, from the tables that their parsers use.

A line for each word, with a tab between the fields and - for an empty one: command, verb, word,
key (of words that exclude each other), the kind of the value that follows, the word that must come
before (of a group), help. A value without a word of its own has - for the word.
"""

import importlib
import sys
from collections.abc import Iterator

from glorytun.cli.main import VERBS
from glorytun.cli.words import Flag, Group, Keyword, Option, Options, Positional, Value

KINDS = {
    "ADDR": "address",
    "CLASS": "class",
    "FILE": "file",
    "HOST": "other",
    "NAME": "tunnel",
    "NAME|FILE": "target",
    "PERCENT": "other",
    "PORT": "other",
    "RATE": "other",
    "TIME": "other",
}
"""By the placeholder of a value: what `complete` proposes. `other` is nothing."""
SPECIAL = {("bind", "NAME"): "other", ("run", "NAME"): "configuration"}
"""By verb and placeholder, where a verb's is another."""

Row = tuple[str, str, str, str, str, str, str]


def rows() -> Iterator[Row]:
    """The whole table."""
    for verb, summary in VERBS.items():
        yield "glorytun", "", verb, "", "", "", summary
        yield from _options(verb, importlib.import_module(f"glorytun.cli.{verb}").OPTIONS)


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


if __name__ == "__main__":
    for row in rows():
        sys.stdout.write("\t".join(field or "-" for field in row) + "\n")
