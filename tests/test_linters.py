"""Style, types, imports, layout: what can be checked without running the program."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
TOP_LEVEL = {
    *("glorytun", "glorytun_setup", "units", "templates", "tests", "debian", "docs", ".ci"),
    *("pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
    ".gitignore",
}
MOST_LINES = 600


def files() -> Iterator[Path]:
    """Every file of the project, known to git or not."""
    for name in sorted(TOP_LEVEL):
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def sources() -> list[Path]:
    """Every Python file."""
    return [path for path in files() if path.suffix == ".py"]


def is_shell(path: Path) -> bool:
    """Whether a file is a shell script, by its name or its first line."""
    if path.suffix == ".sh":
        return True
    with path.open("rb") as file:
        return re.match(rb"#!.*\b(sh|bash|dash)\b", file.readline(100)) is not None


def check(*command: str | Path, cwd: Path = ROOT) -> None:
    """Fail with the output of a command that fails."""
    # To measure the linters would take time and tell nothing.
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    result = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode:
        pytest.fail(f"{Path(command[0]).name} found:\n{result.stdout}", pytrace=False)


def test_code_is_in_the_standard_form() -> None:
    check(TOOLS / "ruff", "format", "--check", "--quiet", "--diff")


def test_ruff_finds_nothing() -> None:
    check(TOOLS / "ruff", "check", "--quiet")


def test_types_hold() -> None:
    check(TOOLS / "mypy")


def test_imports_point_one_way() -> None:
    check(TOOLS / "lint-imports", "--no-cache")


def test_an_import_the_other_way_is_caught(tmp_path: Path) -> None:
    """The contract in pyproject.toml does what the test above trusts it to do."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("glorytun", "glorytun_setup"):
        shutil.copytree(ROOT / package, tmp_path / package)
    with (tmp_path / "glorytun/core/address.py").open("a") as file:
        file.write("\nimport glorytun.net\n")
    with pytest.raises(pytest.fail.Exception, match=r"core\.address -> glorytun\.net"):
        check(TOOLS / "lint-imports", "--no-cache", cwd=tmp_path)


def test_words_are_spelled_right() -> None:
    check(TOOLS / "codespell", *(path.relative_to(ROOT) for path in files()))


def test_shell_scripts_are_sound() -> None:
    check("shellcheck", *filter(is_shell, files()))


def test_top_level_holds_what_was_agreed() -> None:
    known = subprocess.run(
        # Root may test a checkout that belongs to somebody else.
        ["git", "-c", "safe.directory=*", "ls-files"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {name.split("/")[0] for name in known} <= TOP_LEVEL


def test_the_architecture_page_names_every_module() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    packages = ("glorytun", "glorytun_setup")
    modules = [
        path
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if path.stat().st_size
    ]
    missing = [
        str(path.relative_to(ROOT))
        for path in modules
        if not path.name.startswith("__") and f"`{path.name}`" not in page
    ]
    assert not missing


def test_no_file_is_too_long() -> None:
    """Past this a file holds two things."""
    long = [path for path in sources() if len(path.read_text().splitlines()) > MOST_LINES]
    assert not long


def lines_without_reason(text: str) -> Iterator[int]:
    """Lines that silence a checker with no comment beside or above them."""
    lines = text.splitlines()
    silencer = re.compile(
        r"#\s*(?:noqa(?::[ ]?[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?"
        r"|type:\s*ignore(?:\[[\w, -]+\])?"
        r"|pragma: no (?:cover|branch))(?P<rest>.*)"
    )
    for number, line in enumerate(lines, 1):
        match = silencer.search(line)
        above = number > 1 and lines[number - 2].strip().startswith("#")
        if match and not above and not re.search(r"\w{2}", match["rest"]):
            yield number


def skips_without_reason(text: str) -> Iterator[int]:
    """Lines that skip a test, or expect it to fail, and don't say why."""
    tree = ast.parse(text)
    calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr not in {"skip", "skipif", "xfail"}:
            continue
        if not ast.unparse(node).startswith("pytest."):
            continue
        call = calls.get(node)
        said = call and ((node.attr == "skip" and call.args) or call.keywords)
        if not said:
            yield node.lineno


@pytest.mark.parametrize("finder", [lines_without_reason, skips_without_reason])
def test_what_is_silenced_says_why(finder: Callable[[str], Iterator[int]]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources()
        for line in finder(path.read_text())
    ]
    assert not found


def test_the_finders_find() -> None:
    """And let pass what has its reason."""
    noqa, ignore = "# no" + "qa: F401", "# type" + ": ignore[misc]"
    assert list(lines_without_reason(f"import x  {noqa}\n\ny = 1  {ignore}\n")) == [1, 3]
    assert not list(lines_without_reason(f"# made by x\nimport x  {noqa}\n"))
    assert not list(lines_without_reason(f"import x  {noqa}  # made by x\n"))
    assert list(skips_without_reason("@pytest.mark.skip\ndef f(): pass\npytest.skip()")) == [1, 3]
    assert not list(skips_without_reason("pytest.skip('no kernel')"))
