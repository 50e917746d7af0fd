"""`glorytun-setup`, `join` and `edit`: a tunnel becomes what was answered."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from glorytun.errors import SetupError
from glorytun.keyfile import load_key
from glorytun_setup.answers import settle, written
from glorytun_setup.invitation import decode, encode
from glorytun_setup.model import Plan, Role
from glorytun_setup.original import Original, find_original, find_originals
from glorytun_setup.questions import QUESTIONS, Known, Question
from glorytun_setup.screen import read_secret
from glorytun_setup.session import CLIENT, CLIENT_OF, Session
from glorytun_setup.verify import is_heard
from glorytun_setup.words import NONE

_COMMON = ("server", "port", "addresses", "peers")
"""Answers that both ends have to know."""
NAMES = tuple(question.name for question in QUESTIONS)


def set_up(session: Session, given: Mapping[str, str], *, original: str = "") -> None:
    """Make a new tunnel; without a terminal also change one to what is given. Raises SetupError."""
    name = given.get("name", "") or _same(session, given)
    if name in session.manifests and not session.can_ask:
        edit(session, name, given)
        return
    found = find_original(original) if original else _offered_original(session, given)
    if found:
        session = _without_port(session, found)
        given = {**found.answers, "key": load_key(str(found.key_file)).hex(), **given}
        for text in found.lost:
            session.screen.show(f"Warning: {text}")

    def tell(plan: Plan) -> None:
        _tell(session, plan)
        if found:
            session.screen.show(f"{found.key_file.parent} is not needed any more; it has the key.")

    session.carry_out(session.settle(given), then=tell)


def join(session: Session, given: Mapping[str, str]) -> None:
    """Make a client of what a server invited. Raises SetupError."""
    texts = {"role": Role.CLIENT.value, **given}
    if not texts.get("invitation"):
        texts["invitation"] = _ask_invitation(session)
    name = _joined(session, texts["invitation"])
    if name and session.can_ask:
        raise SetupError(
            f"this invitation was taken here already: it made {name}",
            hint=f"`glorytun-setup show {name}` tells how that is, `edit {name}` changes it",
        )
    if name:
        edit(session, name, {key: text for key, text in texts.items() if key != "invitation"})
        return
    session.carry_out(session.settle(texts), then=lambda plan: _tell(session, plan))


def _joined(session: Session, text: str) -> str:
    """The tunnel that an invitation made here; empty: none."""
    try:
        invitation = decode(text)
    except ValueError:
        return ""  # What is wrong with it is said where it is an answer.
    for name, manifest in session.manifests.items():
        if manifest.answers["role"] == Role.CLIENT and session.known(name).old_key == (
            invitation.key
        ):
            return name
    return ""


def _same(session: Session, given: Mapping[str, str]) -> str:
    """The tunnel that was made of these very answers, none of which is its name; empty: none."""
    if session.can_ask or "name" in given:
        return ""
    for name, manifest in session.manifests.items():
        known = session.known(name)
        with suppress(SetupError):
            settled = settle({**given, "name": name}, known)
            is_key = settled.key == known.old_key
            if is_key and set(written(settled)) == set(manifest.answers.items()):
                return name
    return ""


def edit(session: Session, name: str, given: Mapping[str, str]) -> None:
    """Ask again, with the answers that a tunnel was made of. Raises SetupError."""
    answers = session.manifest(name).answers
    fixed = {key: answers[key] for key in ("role", "name")}
    for key, value in fixed.items():
        if given.get(key, value) != value:
            raise SetupError(
                f"{key}: {name} can't become another {key}", hint="remove it and make a new one"
            )
    if fixed["role"] == Role.CLIENT:
        # It is the key that counts, which is there.
        fixed["invitation"] = NONE
    labels = {key: value for key, value in answers.items() if key not in NAMES}
    settled = session.settle({**fixed, **given}, name)

    def tell(plan: Plan) -> None:
        if CLIENT_OF in labels:
            _tell_of_client(session, plan, answers, is_new_key=settled.key != old_key)
        else:
            _tell(session, plan)

    old_key = session.known(name).old_key
    session.carry_out(settled, labels, then=tell)


def _ask_invitation(session: Session) -> str:
    if not session.screen.can_ask:
        return read_secret("Invitation from the server (not shown)")
    question = _question("invitation")
    known: Known = session.known().and_also("role", Role.CLIENT)
    invitation = session.asker(question, known, "")
    if invitation is None:
        raise SetupError("there is nothing to join without an invitation")
    return encode(invitation)


def _question(name: str) -> Question:
    return next(question for question in QUESTIONS if question.name == name)


def _offered_original(session: Session, given: Mapping[str, str]) -> Original | None:
    """A configuration of the original that the user wants to be taken over."""
    if not session.can_ask or given:
        return None
    for original in find_originals():
        prompt = f"The original glorytun has {original}. Shall it be taken over"
        if session.screen.confirm(prompt, default=True):
            return original
    return None


def _without_port(session: Session, original: Original) -> Session:
    """The original's service, which has the same name, ends when ours begins."""
    unit = session.means.bus.unit(f"glorytun@{original.name}.service")
    if not unit.is_active:
        return session
    ports = session.facts.udp_ports - {int(original.port)}
    return replace(session, facts=replace(session.facts, udp_ports=ports))


def _state(plan: Plan) -> str:
    """How it is, in words: a client's tunnel may not have all its paths yet, or none."""
    wans = [wan.interface for wan in plan.wans]
    heard = [wan for wan in wans if is_heard(plan.name, wan)]
    silent = [wan for wan in wans if wan not in heard]
    if plan.role is Role.SERVER:
        return f"{plan.name} is up"
    if not heard:
        return f"{plan.name} is set up, but {plan.server_host} has not answered yet"
    missing = f"; no answer yet over {', '.join(silent)}" if silent else ""
    return f"{plan.name} is up over {', '.join(heard)}{missing}"


def _tell_of_client(
    session: Session, plan: Plan, before: Mapping[str, str], *, is_new_key: bool
) -> None:
    """Of a server's tunnel for one of its clients, which has to know what changed."""
    session.screen.show(f"\n{_state(plan)}.")
    after = dict(plan.answers)
    changed = [name for name in _COMMON if after[name] != before[name]] + ["key"] * is_new_key
    if changed:
        session.screen.show(
            f"Its client has to change too ({', '.join(changed)}): `glorytun-setup client invite "
            f"{before[CLIENT_OF]}\n{before[CLIENT]}` prints an invitation with what is so now, for "
            "a client that removes its tunnel and joins again."
        )


def _tell(session: Session, plan: Plan) -> None:
    """What now."""
    show = session.screen.show
    show(f"\n{_state(plan)}. `glorytun show dev {plan.name}` tells how it is.")
    if plan.role is Role.SERVER:
        show(
            f"It is for the one client that you give its key. `glorytun-setup client add "
            f"{plan.name} CLIENT`\ninvites others: each gets a tunnel, a key and a UDP port of its "
            "own, which firewalls must let in."
        )
