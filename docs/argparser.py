"""What a parser of argparse knows, for the manual and completion.

argparse tells it to nobody: the attributes that begin with _ have been the same in all versions,
and what else reads them are the tools that make manuals.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A verb, or the command itself."""

    words: tuple[str, ...]
    """From the command to the verb."""
    help: str
    parser: argparse.ArgumentParser

    @property
    def options(self) -> list[argparse.Action]:
        """Those that begin with a dash, but for --help."""
        return [
            action
            for action in self.parser._actions
            if action.option_strings and action.dest != "help"
        ]

    @property
    def positionals(self) -> list[argparse.Action]:
        """Values, in their order."""
        return [
            action
            for action in self.parser._actions
            if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
        ]

    def group(self, title: str) -> list[argparse.Action]:
        """The options under a title."""
        (group,) = (group for group in self.parser._action_groups if group.title == title)
        return [action for action in group._group_actions if action.dest != "help"]

    def verbs(self) -> Iterator["Verb"]:
        """Those right below it."""
        for action in self.parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for choice in action._choices_actions:
                    yield Verb(
                        words=(*self.words, choice.dest),
                        help=choice.help or "",
                        parser=action.choices[choice.dest],
                    )

    def all_verbs(self) -> Iterator["Verb"]:
        """Those below it, each before its own."""
        for verb in self.verbs():
            yield verb
            yield from verb.all_verbs()


def placeholder(action: argparse.Action) -> str:
    """What stands for the value; empty for a flag."""
    if action.nargs == 0:
        return ""
    return action.metavar if isinstance(action.metavar, str) else action.dest.upper()


def synopsis(action: argparse.Action) -> str:
    """As a manual shows it."""
    name = placeholder(action)
    if action.option_strings:
        return f"{action.option_strings[-1]} {name}".rstrip()
    return f"[{name}]" if action.nargs == "?" else name
