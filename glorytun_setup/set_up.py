"""`glorytun-setup`, `join` and `edit`: a tunnel becomes what was answered."""

from collections.abc import Mapping
from dataclasses import replace

from glorytun.errors import SetupError
from glorytun.keyfile import load_key
from glorytun_setup.invitation import encode
from glorytun_setup.model import Plan, Role
from glorytun_setup.original import Original, find_original, find_originals
from glorytun_setup.questions import QUESTIONS, Known, Question
from glorytun_setup.session import Session
from glorytun_setup.words import NONE

NAMES = tuple(question.name for question in QUESTIONS)


def set_up(session: Session, given: Mapping[str, str], *, original: str = "") -> None:
    """Make a new tunnel; without a terminal also change one to what is given. Raises SetupError."""
    name = given.get("name", "")
    if name in session.manifests and not session.can_ask:
        edit(session, name, given)
        return
    found = find_original(original) if original else _offered_original(session, given)
    if found:
        session = _without_port(session, found)
        given = {**found.answers, "key": load_key(str(found.key_file)).hex(), **given}
    plan = session.carry_out(session.settle(given))
    if plan:
        _tell(session, plan)
    if plan and found:
        session.screen.show(f"{found.key_file.parent} is not needed any more; it holds the key.")


def join(session: Session, given: Mapping[str, str]) -> None:
    """Make a client of what a server invited. Raises SetupError."""
    texts = {"role": Role.CLIENT.value, **given}
    if not texts.get("invitation"):
        texts["invitation"] = _ask_invitation(session)
    plan = session.carry_out(session.settle(texts))
    if plan:
        _tell(session, plan)


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
    plan = session.carry_out(session.settle({**fixed, **given}, name), labels)
    if plan:
        _tell(session, plan)


def _ask_invitation(session: Session) -> str:
    if not session.screen.can_ask:
        return session.screen.read_all()
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


def _tell(session: Session, plan: Plan) -> None:
    """What now."""
    show = session.screen.show
    show(f"\n{plan.name} is up. `glorytun show dev {plan.name}` tells how it is.")
    if plan.role is Role.SERVER:
        show(f"`glorytun-setup client add {plan.name} CLIENT` invites a client.")
