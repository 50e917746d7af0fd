"""Keyword arguments in any order, as glorytun 0.3.4 has them.

Each verb declares its words once, in a table of options; parsing, usage and the help of every
word come from that table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, assert_never

from glorytun.config import nearest, quote
from glorytun.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A word that stands for a value."""

    key: str
    """Of the parsed value in the result."""
    name: str
    """Placeholder in usage, such as ADDR."""
    parse: Callable[[str], object]
    """Raises ValueError with a message that goes on after the word: "is no port"."""
    fits: Callable[[str], bool] = bool
    """Where the value may be left out: whether a word can only be meant as this value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positional:
    """A value known by its shape alone."""

    value: Value
    needed: str = ""
    """What to do when it is missing; empty: it may be."""
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A word that stands for itself. Flags of one key exclude each other."""

    word: str
    key: str
    value: object = True
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyword:
    """A word and a value, and perhaps a second value that may be left out."""

    word: str
    value: Value
    second: Value | None = None
    needed: str = ""
    """What to do when the keyword is missing; empty: it may be."""
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A word that is followed by words of its own, one at least, in any order."""

    word: str
    options: tuple["Option", ...]
    help: str


Option = Positional | Flag | Keyword | Group
Options = tuple[Option, ...]


def parse(command: str, options: Options, words: Sequence[str]) -> dict[str, Any]:
    """The parsed values by key, only of those that were given. `words` follow the command.

    Raises UsageError.
    """
    return _Parser(command, options, words).parse()


def usage(command: str, options: Options) -> str:
    """The line that shows every word, broken where it gets long."""
    lines = [f"usage: glorytun {command}"]
    indent = " " * len(lines[0])
    for part in _usage_parts(options):
        if len(lines[-1]) + 1 + len(part) > 79:
            lines.append(indent)
        lines[-1] += f" {part}"
    return "\n".join(lines)


def describe(options: Options) -> str:
    """A line for each option, with what it does."""
    rows = list(help_rows(options))
    width = max((len(left) for left, _ in rows), default=0)
    return "\n".join(f"{left:<{width}}  {text}" for left, text in rows)


def help_rows(options: Options, *, indent: str = "  ") -> Iterator[tuple[str, str]]:
    """Each option and what it does; those of a group follow it, with a larger indent."""
    for option in options:
        if isinstance(option, Group):
            yield indent + option.word, option.help
            yield from help_rows(option.options, indent=indent + "  ")
        else:
            yield indent + _synopsis(option), option.help


def known_words(options: Options) -> Iterator[str]:
    """Every word that is no value, those of groups included."""
    for option in options:
        if isinstance(option, Positional):
            continue
        yield option.word
        if isinstance(option, Group):
            yield from known_words(option.options)


class _Parser:
    def __init__(self, command: str, options: Options, words: Sequence[str]) -> None:
        self._command = command
        self._options = options
        self._words = words
        self._next = 0
        self._found: dict[str, Any] = {}
        self._given: dict[str, str] = {}
        """Which word gave the value of a key, for errors."""
        self._known = set(known_words(options))

    def parse(self) -> dict[str, Any]:
        while self._next < len(self._words):
            if not self._take_one(self._options):
                raise self._unknown_word()
        for option in self._options:
            if _is_needed(option) and option.value.key not in self._found:
                word = option.word if isinstance(option, Keyword) else option.value.name
                raise UsageError(f"a {word} is needed", hint=option.needed)
        return self._found

    def _take_one(self, options: Options) -> bool:
        """Read the option that the next word begins; False when none does."""
        word = self._words[self._next] if self._next < len(self._words) else ""
        for option in options:
            if isinstance(option, Positional):
                if option.value.fits(word):
                    self._read_value(option.value, after=option.value.name)
                    return True
            elif option.word == word:
                self._next += 1
                self._read_option(option)
                return True
        return False

    def _read_option(self, option: Flag | Keyword | Group) -> None:
        match option:
            case Flag():
                self._store(option.key, option.value, word=option.word)
            case Keyword():
                self._read_keyword(option)
            case Group():
                self._read_group(option)
            case _:
                assert_never(option)

    def _read_keyword(self, option: Keyword) -> None:
        if self._next == len(self._words):
            raise self._error(f"{option.word!r} needs a value, {option.value.name}")
        word = self._words[self._next]
        if word in self._known:
            raise self._error(
                f"{option.word!r} needs a value, {option.value.name}, before the word {word!r}"
            )
        self._read_value(option.value, after=option.word)
        second = option.second
        if second and self._next < len(self._words) and second.fits(self._words[self._next]):
            self._read_value(second, after=option.word)

    def _read_group(self, option: Group) -> None:
        self._claim(f"{option.word} …", word=option.word)  # Its words have keys of their own.
        if not self._take_one(option.options):
            raise self._error(
                f"{option.word!r} needs one of {', '.join(known_words(option.options))}"
            )
        while self._take_one(option.options):
            pass

    def _read_value(self, value: Value, *, after: str) -> None:
        """Parse the next word; `after` is the word that an error names with it."""
        word = self._words[self._next]
        try:
            parsed = value.parse(word)
        except ValueError as error:
            raise self._error(f"{after} {quote(word)} {error}") from None
        self._next += 1
        self._store(value.key, parsed, word=after)

    def _store(self, key: str, value: object, *, word: str) -> None:
        self._claim(key, word=word)
        self._found[key] = value

    def _claim(self, key: str, *, word: str) -> None:
        """Note that `word` gives the value of `key`, which only one word may do."""
        first = self._given.setdefault(key, "")
        if first == word:
            raise self._error(f"{word!r} is given twice")
        if first:
            raise self._error(f"{first!r} and {word!r} exclude each other")
        self._given[key] = word

    def _unknown_word(self) -> UsageError:
        word = self._words[self._next]
        message = f"word {self._next + 2} of the command, {quote(word)}, is unknown"
        for option in self._options:
            if isinstance(option, Group) and word in known_words(option.options):
                return self._error(f"{message}: it belongs right after {option.word!r}")
        return self._error(message + did_you_mean(word, self._known))

    def _error(self, message: str) -> UsageError:
        return UsageError(message, hint=f"see `glorytun {self._command} help`")


def did_you_mean(word: str, known: set[str]) -> str:
    """The known word nearest to one that isn't, ready to be appended to an error."""
    near = nearest(word, known)
    return f": did you mean {near!r}?" if near else ""


def _is_needed(option: Option) -> TypeGuard[Positional | Keyword]:
    return isinstance(option, Positional | Keyword) and bool(option.needed)


def _usage_parts(options: Options) -> Iterator[str]:
    flags: dict[str, list[str]] = {}
    for option in options:
        if isinstance(option, Flag):
            flags.setdefault(option.key, []).append(option.word)
    for option in options:
        if not isinstance(option, Flag):
            part = _synopsis(option)
            yield part if _is_needed(option) else f"[{part}]"
        elif option.key in flags:
            yield f"[{'|'.join(flags.pop(option.key))}]"


def _synopsis(option: Option) -> str:
    match option:
        case Positional():
            return option.value.name
        case Flag():
            return option.word
        case Keyword():
            second = f" [{option.second.name}]" if option.second else ""
            return f"{option.word} {option.value.name}{second}"
        case Group():
            return f"{option.word} {' '.join(_usage_parts(option.options))}"
        case _:
            assert_never(option)
