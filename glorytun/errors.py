"""The whole tree of exceptions that leave this package.

Every message says what, where, and what to do next, and never holds a secret.

    GlorytunError          anything a user can cause and mend; `hint` says how
    ├── UsageError         a command that can't be understood            (exit status 2)
    ├── ConfigError        a configuration file that can't be used; lists all that is wrong
    ├── KeyFileError       a key file that is missing, unsafe or malformed
    ├── ResolveError       a name that does not resolve to an address
    ├── DeviceError        a TUN device that can't be opened or set up
    ├── SocketError        a UDP or control socket that can't be opened
    ├── TunnelError        a request that a running tunnel refuses
    ├── NoTunnelError      no running tunnel fits the command
    └── SetupError         what the wizard can't do on this host

`ValueError` and `TypeError` are our own mistakes and never raised for what a peer sent.
"""


class GlorytunError(Exception):
    """What went wrong, in one line; `hint` is the next step, or empty."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


class UsageError(GlorytunError):
    """A command line that can't be understood."""

    exit_status = 2


class ConfigError(GlorytunError):
    """A configuration file that can't be used: one problem or all of them, over several lines."""

    def __init__(self, message: str, *, hint: str = "", problems: tuple[object, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems
        """Each `configfile.Problem`, warnings too; empty when the file can't be read."""


class KeyFileError(GlorytunError):
    """A key file that is missing, unsafe or malformed."""


class ResolveError(GlorytunError):
    """A name that doesn't resolve to an address."""


class DeviceError(GlorytunError):
    """A TUN device that can't be opened or set up."""


class SocketError(GlorytunError):
    """A UDP or control socket that can't be opened."""


class TunnelError(GlorytunError):
    """A request that a running tunnel refuses."""


class NoTunnelError(GlorytunError):
    """No running tunnel, or several, where one is needed."""


class SetupError(GlorytunError):
    """What `glorytun-setup` can't do: a wrong answer, or something on the host against it."""
