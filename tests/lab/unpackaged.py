"""The project as ``pip install`` puts it into a virtual environment: by no package of Debian's."""

import shutil
from pathlib import Path

from tests.lab.install import PROJECT
from tests.lab.node import write
from tests.netns.topology import run

HOME = "/opt/glorytun"
SETUP = f"{HOME}/bin/glorytun-setup"
_PROGRAM = f"""#!/usr/bin/python3
import sys

sys.path.insert(0, "{HOME}/lib")
from {{module}} import run

run()
"""


def put_program(files: Path) -> None:
    """Add it to what a system is booted with."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("glorytun", "glorytun_setup", "templates", "units"):
        shutil.copytree(PROJECT / name, files / HOME[1:] / "lib" / name, ignore=ignore)
    for name, module in {
        "glorytun": "glorytun.cli.main",
        "glorytun-setup": "glorytun_setup.cli",
    }.items():
        write(files, f"{HOME}/bin/{name}", _PROGRAM.format(module=module), 0o755)
    run("chmod", "-R", "u=rwX,go=rX", str(files))
    run("chown", "-R", "root:root", str(files))
