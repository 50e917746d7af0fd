"""One run of the wizard: the host as it was found, and what a plan is carried out with."""

import grp
import pwd
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from glorytun.errors import KeyFileError, SetupError
from glorytun.keyfile import KEY_SIZE, load_key
from glorytun.net.clock import entropy
from glorytun_setup import apply
from glorytun_setup.answers import settle
from glorytun_setup.apply import Change
from glorytun_setup.ask import Asker
from glorytun_setup.bring_up import Task, bring_up
from glorytun_setup.bus import Bus, SystemBus
from glorytun_setup.describe import describe, describe_changes
from glorytun_setup.facts import gather
from glorytun_setup.manifest import Manifest
from glorytun_setup.means import Means, locked
from glorytun_setup.model import Facts, File, Plan
from glorytun_setup.plan import is_down, make_plan, original, recalled, routing, without
from glorytun_setup.questions import Known
from glorytun_setup.render import CONFIGURATION, NETWORKD_CONF, key_file, render
from glorytun_setup.screen import Screen
from glorytun_setup.take_down import recover
from glorytun_setup.terminal import Interrupted, Watch, find_session
from glorytun_setup.validate import Problem, find_host_problems, find_problems
from glorytun_setup.waiting import system_time
from glorytun_setup.words import NONE

ROOT = Path("/")
CLIENT_OF, CLIENT = "client_of", "client"
"""Labels of a client's tunnel: the tunnel of its server, and its name."""
EXPIRES = "invitation_expires"
"""Label of a client's tunnel: when it goes again unless the client comes, seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How it is run."""

    is_agreed: bool = False
    """Nothing is asked."""
    is_dry: bool = False
    """Nothing is changed."""
    overwrites: bool = False
    """What was edited by hand goes too."""
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What all verbs work with."""

    options: Options
    screen: Screen
    asker: Asker
    means: Means
    facts: Facts
    manifests: Mapping[str, Manifest] = field(repr=False)
    """Of the tunnels that the wizard set up, by name."""

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to be asked."""
        return self.screen.can_ask and not self.options.is_agreed

    def renewed(self) -> "Session":
        """The same with the host as it is now."""
        manifests = apply.load_manifests(self.means.root)
        return replace(self, facts=gather(self.means.bus), manifests=manifests)

    def manifest(self, name: str) -> Manifest:
        """Of a tunnel. Raises SetupError without it."""
        found = self.manifests.get(name)
        if found is None and name in self.facts.tunnels:
            raise SetupError(
                f"{name} was not set up by glorytun-setup, which leaves it alone",
                hint=f"change {CONFIGURATION}/{name}.conf by hand, or move it away and set up anew",
            )
        if found is None:
            raise SetupError(
                f"there is no tunnel {name!r} that glorytun-setup set up",
                hint="`glorytun-setup list` lists them",
            )
        return found

    def known(self, name: str = "") -> Known:
        """What questions depend on; with a name, as if there weren't the tunnel of that name."""
        return Known(
            facts=self._facts_without(name),
            now=int(system_time()),
            fresh_key=entropy(KEY_SIZE),
            old_key=_old_key(name) if name in self.manifests else None,
        )

    def _facts_without(self, name: str) -> Facts:
        manifests = self.manifests.values()
        sysctls = {key: value for each in manifests for key, value in each.host.sysctls.items()}
        ran = not any(NETWORKD_CONF in each.entries for each in manifests)
        facts = original(self.facts, sysctls, ran_networkd=ran)
        others = (each.answers for each in manifests if each.name != name)
        facts = replace(facts, routings=tuple(filter(None, map(routing, others))))
        manifest = self.manifests.get(name)
        if manifest is None:
            return facts
        facts = recalled(facts, manifest.wans)
        return without(facts, name=name, answers=manifest.answers)

    def settle(self, given: Mapping[str, str], name: str = "") -> Known:
        """Every question answered, of a new tunnel or one that is there. Raises SetupError."""
        manifest = self.manifests.get(name)
        saved = manifest.answers if manifest else {}
        ask = self.asker if self.can_ask else None
        return settle(given, self.known(name), saved=saved, ask=ask)

    def carry_out(
        self,
        known: Known,
        labels: Mapping[str, str] | None = None,
        *,
        then: Callable[[Plan], None] = lambda plan: None,
    ) -> None:
        """Show what answers lead to, and make it so when the user agrees.

        `labels` are remembered with the answers. `then` is called once the tunnel works, before
        anything can interrupt. Raises SetupError.
        """
        plan = make_plan(known)
        labels = labels or {}
        plan = replace(
            plan,
            answers=(*plan.answers, *labels.items()),
            expires_at=int(labels.get(EXPIRES, 0)),
        )
        self._check(plan, known.facts)
        task = self._task(plan, known.facts)
        self.screen.show(f"\n{describe(plan)}")
        if not task.is_needed and self._runs(plan):
            self._remember(task)
            return
        self._show_changes(task)
        if self.options.is_dry:
            self.screen.show("\nNothing was changed.")
            return
        self._agree(task)
        with self.means.watch:
            bring_up(task, self.means, timeout=self.options.timeout)
            then(plan)

    def _remember(self, task: Task) -> None:
        """Answers that change no file, such as a server's name in invitations to come."""
        assert task.manifest
        answers = dict(task.plan.answers)
        changed = {
            name: text for name, text in answers.items() if task.manifest.answers.get(name) != text
        }
        if not changed:
            self.screen.show("\nNothing to do: all of it is so already.")
            return
        self.screen.show("\nNo file changes, but what is known of the tunnel:")
        for name, text in changed.items():
            self.screen.show(f"  {name}: {task.manifest.answers.get(name, NONE)} becomes {text}")
        if self.options.is_dry:
            self.screen.show("\nNothing was changed.")
            return
        self._agree(task)
        apply.write_manifest(self.means.root, replace(task.manifest, answers=answers))

    def _check(self, plan: Plan, facts: Facts) -> None:
        """Say all that speaks against a plan. Raises SetupError."""
        for wan in plan.wans:
            if is_down(self.facts, wan.interface):
                self.screen.show(f"Warning: {wan.interface} leads nowhere now, and stays as it is.")
        problems = find_problems(plan, facts)
        for problem in problems:
            if problem.is_warning:
                self.screen.show(f"Warning: {problem}")
        raise_problems([problem for problem in problems if not problem.is_warning])

    def _task(self, plan: Plan, facts: Facts) -> Task:
        files = render(plan, data_directory())
        manifest = self.manifests.get(plan.name)
        others = tuple(each for name, each in self.manifests.items() if name != plan.name)
        changes = apply.find_changes(
            self.means.root, files.values(), manifest=manifest, others=others
        )
        return Task(
            plan=plan,
            files=files,
            changes=changes,
            manifest=manifest,
            others=others,
            wans=tuple(filter(None, (facts.link(wan.interface) for wan in plan.wans))),
        )

    def _runs(self, plan: Plan) -> bool:
        unit = self.means.bus.unit(plan.unit)
        return unit.is_active and unit.is_enabled

    def _show_changes(self, task: Task) -> None:
        needed = [change for change in task.changes if change.is_needed]
        shown = show_changes(needed)
        self.screen.show(f"\n{shown}" if shown else "\nNo file changes.")
        if not (self.facts.networkd_active and self.facts.networkd_enabled):
            self.screen.show("\nsystemd-networkd is started, now and at each boot.")

    def _agree(self, task: Task) -> None:
        """Raises SetupError unless the user agrees."""
        foreign = [change for change in task.changes if change.is_foreign and change.is_needed]
        for change in foreign if not self.options.overwrites else ():
            self._agree_to_lose(change)
        if self.can_ask:
            if not self.screen.confirm("\nShall all this be done", default=True):
                raise Interrupted("nothing is changed")
        elif not self.options.is_agreed:
            raise SetupError("nobody is there to agree", hint="--yes agrees, --dry-run only shows")

    def _agree_to_lose(self, change: Change) -> None:
        if not self.can_ask:
            raise SetupError(
                f"{change.path} is not as glorytun-setup wrote it",
                hint="--overwrite lets what is there go",
            )
        prompt = f"\n{change.path} was edited by hand, or there before. Shall that go"
        if not self.screen.confirm(prompt, default=False):
            raise Interrupted("nothing is changed")


def show_changes(changes: Iterable[Change]) -> str:
    """Files as differences, without what is secret."""
    files = {change.path: _file(change.path, change) for change in changes}
    current = {
        change.path: change.before.content.decode(errors="replace") if change.before else None
        for change in changes
    }
    return describe_changes({path: file for path, file in files.items() if file}, current)


def _file(path: str, change: Change) -> File | None:
    """What a file is going to be."""
    if change.after is None:
        return None
    return File(
        path=path,
        text=change.after.content.decode(errors="replace"),
        mode=change.after.mode,
        owner=_name(change.after.uid, lambda uid: pwd.getpwuid(uid).pw_name),
        group=_name(change.after.gid, lambda gid: grp.getgrgid(gid).gr_name),
        secret=change.secret,
    )


def _name(number: int, find: Callable[[int], str]) -> str:
    try:
        return find(number)
    except KeyError:
        return str(number)


def raise_problems(problems: list[Problem]) -> None:
    """Raises SetupError if there are any."""
    if problems:
        first, *more = map(str, problems)
        raise SetupError("\n".join([first, *more]))


@contextmanager
def open_session(
    options: Options, screen: Screen, *, only_looks: bool = False
) -> Iterator[Session]:
    """Look at the host, and undo or finish what a run left that was killed. Raises SetupError."""
    with ExitStack() as stack:
        watch = Watch(find_session())
        bus = _connect(watch)
        if bus:
            stack.callback(bus.close)
        facts = gather(bus)
        raise_problems(find_host_problems(facts))
        assert bus
        means = Means(root=ROOT, bus=bus, progress=screen, watch=watch)
        if options.is_dry:
            _refuse_journals()
        elif not only_looks:
            stack.enter_context(locked(ROOT))
            facts = _recover(means, screen) or facts
        damaged: list[str] | None = [] if only_looks else None
        manifests = apply.load_manifests(ROOT, damaged=damaged)
        for text in damaged or ():
            screen.show(f"Warning: {text}\n")
        yield Session(
            options=options,
            screen=screen,
            asker=Asker(screen),
            means=means,
            facts=facts,
            manifests=manifests,
        )


def _connect(watch: Watch) -> Bus | None:
    try:
        return SystemBus(check=watch.check)
    except SetupError:
        return None


def _recover(means: Means, screen: Screen) -> Facts | None:
    """The host anew, if there was anything to be mended."""
    with means.watch:
        done = recover(means)
    for line in done:
        screen.show(line)
    return gather(means.bus) if done else None


def _refuse_journals() -> None:
    for name in apply.load_journals(ROOT):
        raise SetupError(
            f"{name}: another run was interrupted while it changed it",
            hint="a run without --dry-run begins with putting that in order",
        )


def _old_key(name: str) -> bytes | None:
    try:
        return load_key(key_file(name))
    except KeyFileError:
        return None


def data_directory() -> Path:
    """Where `templates` and `units` are: a checkout, this installation's data, or Debian's."""
    checkout = Path(__file__).parents[1]
    installed = Path(sysconfig.get_path("data"), "share/glorytun")
    for directory in (checkout, installed, Path("/usr/share/glorytun")):
        if (directory / "templates/tunnel.conf.j2").is_file():
            return directory
    raise SetupError(
        f"the templates of the files are not in {installed / 'templates'}",
        hint="install glorytun again",
    )
