"""What is in the Debian package, whether it can be built again, and Debian's own tools for both."""

import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.argparser import Verb, synopsis
from glorytun.cli.main import VERBS
from glorytun.cli.words import Group, known_words
from glorytun.options import SECTIONS
from glorytun_setup.cli import make_parser
from tests.lab import package
from tests.lab.conftest import clean_suites
from tests.lab.install import clean_root
from tests.lab.node import write
from tests.lab.tunnel import End
from tests.netns.topology import run

PYPROJECT = tomllib.loads((package.PROJECT / "pyproject.toml").read_text())["project"]
COMMANDS = list(PYPROJECT["scripts"])
OTHER_NAMES = {"pynacl": "nacl"}
"""Debian's for libraries whose packages aren't called as in PyPI."""
TOOLS = ("autopkgtest", "dpkg-dev", "piuparts")
"""Debian's own, to look at packages."""
BUILD_TIMEOUT = 900


@pytest.fixture(scope="module", params=clean_suites())
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def deb(suite: str) -> Path:
    """The package. lintian finds neither errors nor warnings, or it isn't built."""
    return package.build(suite)


@pytest.fixture(scope="module")
def content(deb: Path) -> Iterator[Path]:
    """What the package installs."""
    with tempfile.TemporaryDirectory() as directory:
        run("dpkg-deb", "--extract", str(deb), directory)
        yield Path(directory)


@cache
def manual(page: Path) -> str:
    """A page as a terminal shows it; there must be nothing in it that the formatter dislikes."""
    result = subprocess.run(
        ["man", "--warnings", "--no-hyphenation", "--local-file", str(page)],
        env={**os.environ, "MANWIDTH": "200", "LC_ALL": "C.UTF-8", "GROFF_NO_SGR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    return re.sub(r".\x08", "", result.stdout)


def page(content: Path, name: str) -> str:
    return manual(content / f"usr/share/man/man{name[-1]}/{name}.gz")


def test_its_dependencies_are_those_of_pyproject(deb: Path) -> None:
    """With what draws invitations recommended; pyaegis isn't in Debian."""
    for field, wanted in {
        "Depends": PYPROJECT["dependencies"],
        "Recommends": PYPROJECT["optional-dependencies"]["qr"],
    }.items():
        told = run("dpkg-deb", "--field", str(deb), field).stdout
        names = {re.split("[><=]", each)[0].lower() for each in wanted}
        found = set(re.findall(r"python3-([\w-]+)", told))
        assert found == {OTHER_NAMES.get(name, name) for name in names}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_page_and_completion(content: Path, command: str) -> None:
    share = content / "usr/share"
    assert f"\n       {command} - " in page(content, f"{command}.8")
    assert command in (share / "zsh/vendor-completions/_glorytun").read_text().split("\n")[0]
    assert (share / f"bash-completion/completions/{command}").read_text()
    assert (share / f"fish/vendor_completions.d/{command}.fish").read_text()
    assert f"\n{command}\t" in "\n" + (share / "glorytun/commands.tsv").read_text()
    assert os.access(share / "glorytun/complete", os.X_OK)


def test_every_verb_and_word_is_in_the_page(content: Path) -> None:
    text = page(content, "glorytun.8")
    for verb in VERBS:
        assert f"\n   glorytun {verb}\n" in text
        options = importlib.import_module(f"glorytun.cli.{verb}").OPTIONS
        groups = "|".join(f"{option.word} " for option in options if isinstance(option, Group))
        for word in known_words(options):
            assert re.search(rf"\n       (?:{groups})?{word}\b", text), f"{verb} {word}"


def test_every_option_is_in_the_page(content: Path) -> None:
    text = page(content, "glorytun.conf.5")
    for section, options in SECTIONS.items():
        below = text.partition(f"\n[{section}] SECTION OPTIONS")[2]
        for option in options:
            assert f"\n       {option.key}=" in below
    assert "systemctl reload glorytun@tun0" in page(content, "glorytun@.service.8")


def test_every_verb_and_option_of_the_wizard_is_in_the_page(content: Path) -> None:
    text = page(content, "glorytun-setup.8")
    command = Verb(words=("glorytun-setup",), help="", parser=make_parser())
    verbs = list(command.all_verbs())
    assert len(verbs) > 5
    for verb in verbs:
        assert f"\n   {' '.join(verb.words)}\n" in text
    for option in [option for verb in [command, *verbs] for option in verb.options]:
        assert f"\n       {synopsis(option)}" in text


def test_docs_that_pages_name_are_there(content: Path) -> None:
    for name in ("glorytun.8", "glorytun-setup.8", "glorytun.conf.5", "glorytun@.service.8"):
        for path in re.findall(r"/usr/share/doc/glorytun/[\w.]+\w", page(content, name)):
            assert (content / path.lstrip("/")).exists()


def digests(directory: Path, deb: Path) -> dict[str, str]:
    """Of the package and its sources."""
    version = deb.name.removeprefix("glorytun_").removesuffix("_all.deb")
    names = [deb.name, f"glorytun_{version}.dsc", f"glorytun_{version}.debian.tar.xz"]
    names += [f"glorytun_{version.partition('-')[0]}.orig.tar.gz"]
    return {
        name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in sorted(names)
    }


@pytest.mark.timeout(BUILD_TIMEOUT)
def test_two_builds_are_the_same(suite: str, deb: Path, tmp_path: Path) -> None:
    """From another checkout, of another user, at another time."""
    first = digests(deb.parent, deb)
    git = ("git", "-c", "safe.directory=*", "-C")
    for name in run(*git, str(package.PROJECT), "ls-files").stdout.splitlines():
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(package.PROJECT / name, copy, follow_symlinks=False)
        os.chown(copy, 1, 1, follow_symlinks=False)
        if not copy.is_symlink():
            copy.chmod(0o700 if os.access(copy, os.X_OK) else 0o600)
            os.utime(copy, (1_000_000_000, 1_000_000_000))
    run(*git, str(tmp_path), "init", "--quiet")
    run(*git, str(tmp_path), "add", "--all")
    result = subprocess.run(
        [tmp_path / "tests/tools/deb.sh", suite],
        env={**os.environ, "DEB_BUILD_OPTIONS": "nocheck", "TZ": "Asia/Kathmandu"},
        umask=0o077,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert digests(tmp_path / "dist", deb) == first


@pytest.mark.timeout(300)
def test_autopkgtest_passes(suite: str, deb: Path, tmp_path: Path) -> None:
    """Debian's own way to test an installed package, in a booted system."""
    root = clean_root(suite, *TOOLS)
    tmp_path.chmod(0o755)
    package.fetch(root, tmp_path, deb, "man-db", "iproute2", "iputils-ping")
    # Links lead to units/, beside it.
    shutil.copytree(package.PROJECT / "debian", tmp_path / "root/source/debian")
    # The clean systems leave manual pages out, and try three times where there is no network.
    write(tmp_path, "/etc/dpkg/dpkg.cfg.d/99mmdebstrap", "force-unsafe-io\n")
    write(tmp_path, "/etc/apt/apt.conf.d/99mmdebstrap", 'Acquire::Retries "0";\n')
    node = End("server")
    node.start(root, files=tmp_path)
    try:
        node.wait_booted()
        result = node.run(
            *("autopkgtest", "--ignore-restrictions=isolation-machine", "--no-built-binaries"),
            *(f"{package.DIRECTORY}/{deb.name}", f"{package.DIRECTORY}/source", "--", "null"),
            check=False,
            timeout=240,
        )
    finally:
        node.down()
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("commands", "tunnel"):
        assert re.search(rf"^{name} +PASS", result.stdout, re.MULTILINE), result.stdout


@pytest.mark.timeout(300)
def test_piuparts_finds_nothing(suite: str, deb: Path, tmp_path: Path) -> None:
    """It installs, removes and purges it, and looks at what is left."""
    (there,) = package.put_packages(tmp_path, [deb])
    clean = clean_root(suite)
    mirror = (clean / "etc/apt/sources.list").read_text().split()[1]
    command = (
        "mount -t tmpfs piuparts /mnt; "
        f"piuparts --existing-chroot=/other --tmpdir=/mnt --distribution={suite} "
        f"--mirror='{mirror} main' --no-eatmydata --no-upgrade-test {there} 2>&1"
    )
    said = package.run_beside(clean_root(suite, *TOOLS), tmp_path, command, clean)
    assert "PASS: All tests." in said
    assert "FAIL" not in said
