"""How a command finds running tunnels and asks them."""

import os
import socket
from pathlib import Path
from typing import Any

from glorytun.config import is_device_name
from glorytun.control.messages import LINE_LIMIT, Request, decode_answer, encode_request
from glorytun.errors import NoTunnelError, SocketError, TunnelError

_SUFFIX = ".sock"


def runtime_directory() -> Path:
    """Where the control sockets are: what systemd chose for the service, or its usual place."""
    chosen = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(chosen or "/run/glorytun")


def control_socket(device: str) -> Path:
    """The control socket of the tunnel on a device."""
    return runtime_directory() / f"{device}{_SUFFIX}"


def find_tunnels() -> list[str]:
    """The devices of the tunnels that listen, in order.

    Raises SocketError when this user may not look.
    """
    directory = runtime_directory()
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        raise _permission_denied(directory) from None
    devices = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
    return [device for device in devices if is_device_name(device) and _listens(device)]


def ask(request: Request, device: str | None, *, timeout: float = 2.0) -> dict[str, Any]:
    """The tunnel's answer; `timeout` in seconds for each step of the exchange.

    The only tunnel that runs is found without `device`. Raises NoTunnelError when none fits,
    TunnelError when the request was refused or not answered, SocketError when this user may not
    ask.
    """
    device = device or _only_tunnel()
    try:
        return decode_answer(_exchange(device, encode_request(request), timeout=timeout))
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoTunnelError(
            f"no tunnel is running on {device}", hint="`glorytun list` shows those that are"
        ) from None
    except PermissionError:
        raise _permission_denied(control_socket(device)) from None
    except (TimeoutError, BlockingIOError):
        raise TunnelError(f"the tunnel on {device} didn't answer within {timeout:g} s") from None
    except OSError as error:
        raise TunnelError(
            f"the tunnel on {device} didn't answer: {error.strerror or error}"
        ) from None


def _only_tunnel() -> str:
    match find_tunnels():
        case []:
            raise NoTunnelError(
                "no tunnel is running",
                hint="`systemctl start glorytun@NAME` starts one",
            )
        case [device]:
            return device
        case devices:
            raise NoTunnelError(
                f"several tunnels are running: {', '.join(devices)}", hint="add `dev NAME`"
            )


def _exchange(device: str, line: bytes, *, timeout: float) -> bytes:
    """Send a line and return the line that comes back."""
    answer = bytearray()
    with _connect(device, timeout=timeout) as connection:
        connection.sendall(line)
        while not answer.endswith(b"\n") and len(answer) <= LINE_LIMIT:
            chunk = connection.recv(LINE_LIMIT)
            if not chunk:
                raise ConnectionResetError("it closed the connection")
            answer += chunk
    return bytes(answer)


def _listens(device: str) -> bool:
    try:
        with _connect(device, timeout=1):
            return True
    except (PermissionError, BlockingIOError):
        return True  # there is one, which `ask` will find closed or busy
    except OSError:
        return False


def _connect(device: str, *, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(str(control_socket(device)))
    except BaseException:
        connection.close()
        raise
    return connection


def _permission_denied(path: Path) -> SocketError:
    return SocketError(f"permission denied: {path}", hint="run the command as root")
