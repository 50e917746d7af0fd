"""The secret key: 64 hex digits in a file that nobody else can read."""

import os
import re
import stat
import sys
from string import hexdigits

from glorytun.errors import KeyFileError

KEY_SIZE = 32
_DIGITS = 2 * KEY_SIZE
_KEY_PART = re.compile(r"[0-9A-Fa-f]{16,}")
_READ_LIMIT = 4096
"""Bytes: room for white space, and an end to reading."""


def load_key(path: str) -> bytes:
    """The 32 bytes of the key in a file; `-` is standard input.

    The file must be a regular one that is closed to group and others, unless systemd handed it to
    the service as a credential. Raises KeyFileError, without any of the content.
    """
    if looks_like_key(path):
        raise KeyFileError("this is a key where the name of a key file is needed")
    if path == "-":
        return parse_key(_read_standard_input(), name="standard input")
    try:
        return _load_file(path)
    except OSError as error:
        raise _unreadable(mask_keys(path), error) from error


def parse_key(text: bytes, *, name: str) -> bytes:
    """The key out of its hex digits; `name` says in errors where they came from."""
    if len(text) > _READ_LIMIT:
        raise _malformed(name, f"it has more than {_READ_LIMIT} characters")
    digits = text.strip()
    for index, digit in enumerate(digits):
        if digit not in hexdigits.encode():
            raise _malformed(name, f"character {index + 1} is no hex digit")
    if len(digits) != _DIGITS:
        raise _malformed(name, f"it has {len(digits) or 'no'} hex digits")
    return bytes.fromhex(digits.decode("ascii"))


def looks_like_key(word: str) -> bool:
    """Whether a word may be a key, or most of one, and must not be shown."""
    return len(word) >= KEY_SIZE and all(char in hexdigits for char in word)


def mask_keys(text: str) -> str:
    """A text for a message, without what may be a key in it, or a part of one."""
    return _KEY_PART.sub("(a key)", text)


def open_bits(mode: int) -> bool:
    """Whether group or others have any right to a file of this mode."""
    return bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


def chmod_hint(path: str) -> str:
    """The command that closes a key file, to paste into a shell."""
    from shlex import quote  # needed only here

    return f"`chmod 600 {quote(path)}` mends it"


def _read_standard_input() -> bytes:
    if sys.stdin is None:
        raise KeyFileError("standard input is closed, and the key was to come from there")
    return sys.stdin.buffer.read(_READ_LIMIT + 1)


def _load_file(path: str) -> bytes:
    # O_NONBLOCK: the open of a FIFO would wait for a writer. The checks look at what was opened,
    # so a symbolic link is as good as the file behind it.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise KeyFileError(
                f"{path} is not a regular file",
                hint="`glorytun bind … keyfile -` reads from a pipe",
            )
        key = parse_key(os.read(fd, _READ_LIMIT + 1), name=path)
    finally:
        os.close(fd)
    # Last: a file that holds no key, such as /etc/passwd, had better stay as it is.
    if open_bits(mode) and not _is_credential(path):
        raise KeyFileError(
            f"{path} is open to other users (mode {stat.S_IMODE(mode):04o})",
            hint=chmod_hint(path),
        )
    return key


def _is_credential(path: str) -> bool:
    """Whether systemd put it there for this service alone (systemd.exec(5), LoadCredential=).

    It does so with mode 0400, or 0440 and an access list.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not directory:
        return False
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(directory)


def _unreadable(path: str, error: OSError) -> KeyFileError:
    hint = ""
    if isinstance(error, FileNotFoundError):
        hint = "`glorytun keygen` makes a key"
    elif isinstance(error, PermissionError):
        hint = "it must belong to whoever runs the tunnel; the service's user is glorytun"
    return KeyFileError(f"key file {path}: {error.strerror or error}", hint=hint)


def _malformed(name: str, reason: str) -> KeyFileError:
    return KeyFileError(f"{name} does not hold a key of {_DIGITS} hex digits: {reason}")
