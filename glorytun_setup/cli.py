"""`glorytun-setup`: its verbs and options, and errors as one line and an exit status."""

import argparse
import ctypes
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

from glorytun.config import Bounds, quote, time_within
from glorytun.core.settings import SECOND
from glorytun.errors import GlorytunError, SetupError, UsageError
from glorytun.keyfile import load_key, looks_like_key, mask_keys, parse_key
from glorytun_setup import clients, listing, set_up
from glorytun_setup.answers import read_toml
from glorytun_setup.bring_up import TIMEOUT
from glorytun_setup.invitation import looks_like_invitation
from glorytun_setup.means import Busy, SetupFailure
from glorytun_setup.questions import QUESTIONS
from glorytun_setup.screen import Screen, checked, read_secret
from glorytun_setup.session import Options, Session, open_session

INTERRUPTED = 130
"""Exit status: 128 + SIGINT, as shells have it."""
STANDARD_INPUT = "-"

_PR_SET_DUMPABLE = 4
"""linux/prctl.h"""
_TIMEOUT = Bounds(low=SECOND, high=600 * SECOND, text="from 1s to 10min")
_INVITATION = re.compile(r"glorytun[0-9]+-[A-Za-z0-9_=-]+")
_MOST = 65536
"""Characters of a file with answers."""

_EPILOG = """\
Without a verb it sets up a tunnel: it asks, shows what changes, and asks again. What is given as an
option or in the file of --answers (TOML: the options' names with _ for -) is not asked. If the
tunnel doesn't work in time, the host is left as it was.
"""


def run() -> NoReturn:
    """The console script."""
    keep_memory()
    try:
        status = main(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nglorytun-setup: interrupted, nothing is changed", file=sys.stderr)
        status = INTERRUPTED
    except OSError as error:
        # What no layer below has words for, such as a terminal that is gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = _complain(SetupError(str(error)))
    sys.exit(status)


def keep_memory() -> None:
    """What is known here, such as a key, comes into no core file and to no debugger."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def main(argv: list[str]) -> int:
    """Do what the words say, and return the exit status."""
    try:
        _dispatch(_parse(argv))
    except SetupFailure as failure:
        return _explain(failure)
    except GlorytunError as error:
        return _complain(error)
    return 0


def _complain(error: GlorytunError) -> int:
    print(f"glorytun-setup: {_mask(str(error))}", file=sys.stderr)
    return error.exit_status


def _explain(failure: SetupFailure) -> int:
    """All that is known of why it failed, and what to check next."""
    lines = [f"\nglorytun-setup: {failure}"]
    for finding in failure.findings:
        lines.append(f"  {finding.text}" + (f"\n    {finding.hint}" if finding.hint else ""))
    if failure.log:
        lines += ["  Last lines of its journal:", *(f"    {line}" for line in failure.log)]
    if failure.left:
        lines += ["  What could not be put back:", *(f"    {text}" for text in failure.left)]
    else:
        lines.append("The host is as it was.")
    print(_mask("\n".join(lines)), file=sys.stderr)
    return failure.exit_status


def _mask(text: str) -> str:
    """Without what may be a key or an invitation."""
    return mask_keys(_INVITATION.sub("(an invitation)", text))


# What is done.

Words = dict[str, Any]
"""Of the command line, by the option's name; those that were not given are missing."""


def _dispatch(words: Words) -> None:
    do = words.pop("do")
    options = Options(
        is_agreed=words.pop("yes", False),
        is_dry=words.pop("dry_run", False),
        overwrites=words.pop("overwrite", False),
        timeout=_parse_timeout(words.pop("timeout", "")),
    )
    only_looks = do in (_list, _show, _list_clients, _invite_client)
    try:
        with open_session(options, Screen(), only_looks=only_looks) as session:
            do(session, words)
    except Busy:
        # Its timer comes again, and no service is to fail because somebody thinks over an answer.
        if do is not _expire_client:
            raise


def _set_up(session: Session, words: Words) -> None:
    set_up.set_up(session, _given(words), original=words.get("original", ""))


def _join(session: Session, words: Words) -> None:
    set_up.join(session, _given(words))


def _edit(session: Session, words: Words) -> None:
    set_up.edit(session, words["tunnel"], _given(words))


def _remove(session: Session, words: Words) -> None:
    clients.remove_server(session, words["tunnel"])


def _list(session: Session, words: Words) -> None:
    listing.list_tunnels(session)


def _show(session: Session, words: Words) -> None:
    listing.show_tunnel(session, words["tunnel"])


def _add_client(session: Session, words: Words) -> None:
    text = words.get("expires", clients.DEFAULT_VALIDITY)
    validity = _parsed("--expires", text, clients.parse_validity)
    as_qr = words.get("qr", False)
    clients.add(session, words["server"], words["client"], validity=validity, as_qr=as_qr)


def _list_clients(session: Session, words: Words) -> None:
    clients.list_clients(session, words.get("server") or "")


def _revoke_client(session: Session, words: Words) -> None:
    *server, client = words["names"]
    if len(server) > 1:
        raise UsageError("too many words", hint="`glorytun-setup client revoke [TUNNEL] CLIENT`")
    clients.revoke(session, client, *server)


def _invite_client(session: Session, words: Words) -> None:
    *server, client = words["names"]
    if len(server) > 1:
        raise UsageError("too many words", hint="`glorytun-setup client invite [TUNNEL] CLIENT`")
    clients.invite(session, client, *server, as_qr=words.get("qr", False))


def _expire_client(session: Session, words: Words) -> None:
    clients.expire(session, words["tunnel"])


def _parse_timeout(text: str) -> float:
    if not text:
        return TIMEOUT
    return _parsed("--timeout", text, time_within(_TIMEOUT)) / SECOND


def _parsed(option: str, text: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {quote(text)} {error}") from None


def _given(words: Words) -> dict[str, str]:
    """The answers of the file and, before those, of the options; secrets read."""
    names = {question.given_as for question in QUESTIONS}
    found = read_toml(_read("--answers", words["answers"])) if "answers" in words else {}
    found |= {name: text for name, text in words.items() if name in names}
    if "key_file" in found:
        found["key"] = _read_key(found.pop("key_file")).hex()
    if "invitation_file" in found:
        name = found.pop("invitation_file")
        is_typed = name == STANDARD_INPUT
        text = read_secret("Invitation (not shown)") if is_typed else _read("invitation_file", name)
        found["invitation"] = text.strip()
    return found


def _read_key(name: str) -> bytes:
    """Raises KeyFileError."""
    if name != STANDARD_INPUT:
        _check_file(name)
        return load_key(name)
    return parse_key(read_secret("Secret key (not shown)").encode(), name="standard input")


def _read(option: str, name: str) -> str:
    """A text file. Raises SetupError."""
    _check_file(name)
    if looks_like_key(name) or looks_like_invitation(name):
        raise SetupError(f"{option} takes the name of a file, and this is what belongs into it")
    if name == STANDARD_INPUT:
        return _read_whole(option, sys.stdin)
    try:
        with Path(name).open(encoding="utf-8") as file:
            return _read_whole(option, file)
    except OSError as error:
        raise SetupError(f"{option}: {quote(name)} can't be read: {error.strerror}") from error


def _check_file(name: str) -> None:
    """As the kernel has it. Raises SetupError."""
    if "\0" in name:
        raise SetupError(f"{quote(name)} is no name of a file")


def _read_whole(option: str, file: TextIO) -> str:
    try:
        text = checked(file.read(_MOST + 1))
    except UnicodeError:
        raise SetupError(f"{option}: this is no text in UTF-8") from None
    if len(text) > _MOST:
        raise SetupError(f"{option}: there are more than {_MOST} characters, which are no answers")
    return text


# Words.


class _Parser(argparse.ArgumentParser):
    def __init__(self, **more: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # A default of a verb would undo what was given before the verb.
            argument_default=argparse.SUPPRESS,
            **more,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"`{self.prog} --help` explains")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Name no verb that no help shows; else as the library's own."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            shown = ", ".join(choice.dest for choice in action._get_subactions())
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} (choose from {shown})")
        super()._check_value(action, value)


class _Verbs:
    """The verbs of a parser; all have the common options."""

    def __init__(self, parser: _Parser, common: _Parser) -> None:
        self._common = common
        self._verbs = parser.add_subparsers(metavar="VERB", title="verbs", parser_class=_Parser)

    def add(self, name: str, do: Callable[..., None], text: str, *parents: _Parser) -> _Parser:
        """One of them, which `parents` give more options. Without a text no help shows it."""
        described: dict[str, Any] = {"help": text, "description": text} if text else {}
        parser: _Parser = self._verbs.add_parser(
            name, parents=[self._common, *parents], **described
        )
        parser.set_defaults(do=do)
        return parser


def _parse(argv: list[str]) -> Words:
    return vars(make_parser().parse_args(argv))


def make_parser() -> argparse.ArgumentParser:
    """Every verb, option and answer, each with its help."""
    common, answers = _Parser(add_help=False), _Parser(add_help=False)
    _add_common(common)
    _add_answers(answers)
    parser = _Parser(
        prog="glorytun-setup",
        description="Sets up glorytun tunnels, and takes them away.",
        epilog=_EPILOG,
        parents=[common, answers],
    )
    parser.set_defaults(do=_set_up)
    verbs = _Verbs(parser, common)
    verbs.add("join", _join, "join a server that has sent an invitation", answers)
    verbs.add("edit", _edit, "ask again, and change a tunnel", answers).add_argument("tunnel")
    verbs.add("list", _list, "list the tunnels that were set up")
    verbs.add("show", _show, "show what was planned, and the files").add_argument("tunnel")
    text = "take a tunnel away, and put back what was there"
    verbs.add("remove", _remove, text).add_argument("tunnel")
    text = "a server's clients: add, invite, list, revoke"
    _add_client_verbs(_Verbs(verbs.add("client", _list_clients, text), common))
    return parser


def _add_client_verbs(verbs: _Verbs) -> None:
    add = verbs.add("add", _add_client, "make a tunnel for a client, and print its invitation")
    add.add_argument("server", metavar="TUNNEL", help="the server's")
    add.add_argument("client", metavar="CLIENT", help="a name for the client")
    text = f"until when the client has to come ({clients.DEFAULT_VALIDITY}), or never"
    add.add_argument("--expires", metavar="TIME", help=text)
    add.add_argument("--qr", action="store_true", help="draw the invitation too")
    again = verbs.add("invite", _invite_client, "print the invitation of a client again")
    again.add_argument("names", metavar="[TUNNEL] CLIENT", nargs="+")
    again.add_argument("--qr", action="store_true", help="draw it too")
    listed = verbs.add("list", _list_clients, "list the clients, and how they are")
    listed.add_argument("server", metavar="TUNNEL", nargs="?")
    revoke = verbs.add("revoke", _revoke_client, "end the tunnel of a client")
    revoke.add_argument("names", metavar="[TUNNEL] CLIENT", nargs="+")
    # For the timer of `add --expires`.
    verbs.add("expire", _expire_client, "").add_argument("tunnel")


def _add_common(parser: _Parser) -> None:
    parser.add_argument("--yes", action="store_true", help="agree to everything, ask nothing")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, no more")
    text = "let files go that were edited by hand"
    parser.add_argument("--overwrite", action="store_true", help=text)
    parser.add_argument("--timeout", metavar="TIME", help="for the tunnel to work (30s)")


def _add_answers(parser: _Parser) -> None:
    group = parser.add_argument_group("answers")
    group.add_argument("--answers", metavar="FILE", help="a TOML file with answers")
    text = "take over a configuration of the original glorytun"
    group.add_argument("--original", metavar="NAME", help=text)
    for question in QUESTIONS:
        metavar = "FILE" if question.is_secret else "ANSWER"
        prompt = question.prompt.split(" (")[0]
        text = f"{prompt.removesuffix('?')}. {question.help}".replace("%", "%%")
        group.add_argument(question.option, metavar=metavar, help=text)
