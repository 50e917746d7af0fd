"""`glorytun-setup client`: a server's clients, each with a tunnel of its own.

The tunnel of a client is an ordinary one, named after the server's and the client. What makes it a
client's are labels among its answers.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_interface

from glorytun.config import Bounds, quote, time_within
from glorytun.core.settings import SECOND
from glorytun.errors import SetupError
from glorytun.net.clock import entropy
from glorytun_setup import apply, qr
from glorytun_setup.answers import settle
from glorytun_setup.invitation import IDENTITY_SIZE, Invitation, encode
from glorytun_setup.manifest import Manifest
from glorytun_setup.model import Inside, Plan, Role
from glorytun_setup.plan import make_plan
from glorytun_setup.removal import remove
from glorytun_setup.render import expiry_unit
from glorytun_setup.session import CLIENT, CLIENT_OF, EXPIRES, Session
from glorytun_setup.take_down import TIMEOUT
from glorytun_setup.verify import events, paths_of
from glorytun_setup.waiting import system_time
from glorytun_setup.words import NEW_KEY, NONE

SERVER, IDENTITY = CLIENT_OF, "invitation_id"
"""Labels: the tunnel of the server, and the invitation's identity."""
INVITED = "invited"
"""Label: when that was, seconds since 1970."""
MAX_NAME = 15
"""Characters of a device's name (linux/if.h, IFNAMSIZ)."""
_CLIENT = re.compile(r"[A-Za-z0-9_.-]*", re.ASCII)

NEVER = "never"
DEFAULT_VALIDITY = "7d"
_DAY = 86400
_VALIDITY = Bounds(low=60 * SECOND, high=366 * _DAY * SECOND, text="from 1min to 366d, or never")


def parse_validity(text: str) -> int:
    """Seconds; 0: it doesn't end. Raises ValueError whose message goes on after the text."""
    return 0 if text == NEVER else time_within(_VALIDITY)(text) // SECOND


def add(session: Session, server: str, client: str, *, validity: int, as_qr: bool) -> None:
    """Make a tunnel for a client, and print its invitation. Raises SetupError."""
    answers = _server_answers(session, server)
    check_client(client, server)
    if _find(session, client, server):
        raise SetupError(
            f"{server} has a client {client} already",
            hint=f"`glorytun-setup client revoke {client}` ends that",
        )
    if as_qr:
        qr.check(sys.stdout.encoding)  # Before anything is done, or the invitation would be lost.
    given = {
        "role": Role.SERVER.value,
        "name": f"{server}-{client}",
        "server": answers["server"],
        "share": answers["share"],
        "key": NEW_KEY,
    }
    expires_at = int(system_time()) + validity if validity else 0
    identity = entropy(IDENTITY_SIZE)
    labels = {
        SERVER: server,
        CLIENT: client,
        IDENTITY: identity.hex(),
        INVITED: str(int(system_time())),
        EXPIRES: str(expires_at),
    }

    def tell(plan: Plan) -> None:
        _show_invitation(session, client, _invitation(plan, identity), as_qr=as_qr)

    session.carry_out(settle(given, session.known()), labels, then=tell)


def invite(session: Session, client: str, server: str = "", *, as_qr: bool) -> None:
    """Print the invitation of a client again, as its tunnel is now. Raises SetupError."""
    if as_qr:
        qr.check(sys.stdout.encoding)
    manifest = _the_one(session, client, server)
    known = settle(manifest.answers, session.known(manifest.name))
    expires_at = int(manifest.answers.get(EXPIRES, 0))
    if expires_at and expires_at <= system_time():
        raise SetupError(
            f"the invitation of {client} has expired",
            hint=f"`glorytun-setup client revoke {client}`, and add it anew",
        )
    plan = replace(make_plan(known), expires_at=expires_at)
    identity = bytes.fromhex(manifest.answers[IDENTITY])
    _show_invitation(session, client, _invitation(plan, identity), as_qr=as_qr)


def _show_invitation(session: Session, client: str, invitation: Invitation, *, as_qr: bool) -> None:
    line = encode(invitation)
    session.screen.show(
        f"\n{client} is invited. Run `glorytun-setup join` there, and paste this line. Whoever "
        f"has it has the key:\n\n{line}\n"
    )
    if as_qr:
        session.screen.show(qr.draw(line))


def check_client(client: str, server: str) -> None:
    """That a client may have this name. Raises SetupError."""
    room = MAX_NAME - len(f"{server}-")
    if not 0 < len(client) <= room or not _CLIENT.fullmatch(client):
        raise SetupError(
            f"{quote(client)} is no name for a client: 1 to {max(room, 0)} letters, digits, - _ "
            f"and ., since its tunnel is {server}- and that"
        )


def list_clients(session: Session, server: str = "") -> None:
    """Show them, of one server or all."""
    rows = [("CLIENT", "SERVER", "TUNNEL", "PORT", "ADDRESSES", "STATE")]
    for manifest in session.manifests.values():
        answers = manifest.answers
        if CLIENT in answers and server in ("", answers[SERVER]):
            rows.append(
                (
                    *(answers[CLIENT], answers[SERVER], manifest.name, answers["port"]),
                    *(answers["peers"], _state(manifest)),
                )
            )
    if len(rows) == 1:
        session.screen.show("There is no client yet: `glorytun-setup client add` invites one.")
        return
    session.screen.show(columns(rows))


def revoke(session: Session, client: str, server: str = "") -> None:
    """End the tunnel of a client. Raises SetupError."""
    remove(session, _the_one(session, client, server).name, spares_key=False)


def _the_one(session: Session, client: str, server: str) -> Manifest:
    """The tunnel of a client. Raises SetupError."""
    found = _find(session, client, server)
    if not found:
        raise SetupError(
            f"there is no client {client!r}", hint="`glorytun-setup client list` lists them"
        )
    if len(found) > 1:
        names = ", ".join(manifest.answers[SERVER] for manifest in found)
        raise SetupError(f"several servers have a client {client} ({names})", hint="name one")
    return found[0]


def remove_server(session: Session, name: str) -> None:
    """Take a tunnel away, after those of its clients. Raises SetupError."""
    mine = [each.name for each in session.manifests.values() if each.answers.get(SERVER) == name]
    if mine:
        session.screen.show(f"{name} has clients, whose tunnels go first: {', '.join(mine)}.\n")
    for client in mine:
        remove(session, client, spares_key=False)
        session = session.renewed()
        session.screen.show()
    remove(session, name)


def expire(session: Session, name: str) -> None:
    """End the tunnel of a client that has never come, once its invitation is too old.

    Its timer calls this now and then. A client that came may come for ever.
    """
    manifest = session.manifest(name)
    expires_at = int(manifest.answers.get(EXPIRES, 0))
    if not expires_at or _has_come(manifest):
        if expires_at:
            answers = {**manifest.answers, EXPIRES: "0"}
            apply.write_manifest(session.means.root, replace(manifest, answers=answers))
        session.means.bus.stop(f"{expiry_unit(name)}.timer", timeout=TIMEOUT)
    elif expires_at <= system_time():
        # Who added the client has agreed.
        remove(replace(session, options=replace(session.options, is_agreed=True)), name)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _server_answers(session: Session, server: str) -> Mapping[str, str]:
    answers = session.manifest(server).answers
    if answers["role"] != Role.SERVER or CLIENT in answers:
        raise SetupError(f"{server} is no server that can have clients")
    if answers["server"] == NONE:
        raise SetupError(
            f"{server} doesn't know under which address clients reach it",
            hint=f"`glorytun-setup edit {server} --server ADDRESS` says so",
        )
    return answers


def _find(session: Session, client: str, server: str) -> list[Manifest]:
    return [
        manifest
        for manifest in session.manifests.values()
        if manifest.answers.get(CLIENT) == client
        and server in ("", manifest.answers.get(SERVER, ""))
    ]


def _invitation(plan: Plan, identity: bytes) -> Invitation:
    """For the other end of a plan."""
    insides = {
        inside.own.version: Inside(
            own=ip_interface(f"{inside.peer}/{inside.own.network.prefixlen}"), peer=inside.own.ip
        )
        for inside in plan.insides
    }
    return Invitation(
        identity=identity,
        expires_at=plan.expires_at,
        server_host=plan.server_host,
        port=plan.port,
        key=plan.key,
        inside4=insides.get(4),
        inside6=insides.get(6),
        shares4=plan.share4,
        shares6=plan.share6,
    )


def _state(manifest: Manifest) -> str:
    paths = paths_of(manifest.name)
    running = sum(path["condition"] == "running" for path in paths)
    if running:
        return f"connected, {running} path{'s' * (running > 1)}"
    expires_at = int(manifest.answers.get(EXPIRES, 0))
    if not expires_at or _has_come(manifest):
        return "away"
    left = expires_at - int(system_time())
    if left <= 0:
        return "never came, and the invitation has expired"
    return f"invited, for {f'{left // _DAY} d' if left >= _DAY else f'{left // 3600 + 1} h'} more"


def _has_come(manifest: Manifest) -> bool:
    """Whether it is here, or has been: a path of a server begins with an authentic datagram."""
    paths = paths_of(manifest.name)
    if any(path["last_received_at"] is not None for path in paths):
        return True
    unit, since = f"glorytun@{manifest.name}.service", int(manifest.answers.get(INVITED, 0))
    return bool(events(unit, "path_added", since=since))
