"""A plugin that says which tests pytest-xdist gives to one worker.

Those in booted systems stay together by file and system, as what is installed is made once for
each. Marks of pytest-xdist 3.8 do nothing with pytest 9.2, which has no Node._nodeid.
"""

import re

import pytest
from xdist.scheduler import LoadScopeScheduling

_SYSTEM = re.compile(r"^(tests/lab/\w+\.py)::.*\[.*\b(bookworm|trixie)\b")


class ByFileAndSystem(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Every other test may go anywhere."""

    def _split_scope(self, nodeid: str) -> str:
        found = _SYSTEM.match(nodeid)
        return " ".join(found.groups()) if found else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFileAndSystem:
    """What shares tests out."""
    return ByFileAndSystem(config, log)
