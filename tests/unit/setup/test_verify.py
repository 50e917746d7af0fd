"""Why a tunnel doesn't work."""

from pathlib import Path
from typing import Any

import pytest

from glorytun.control.client import control_socket
from glorytun.control.messages import Paths, Request
from glorytun_setup.verify import diagnose
from tests.unit.control.loop import answering
from tests.unit.setup.samples import client_plan, facts


def test_the_server_is_where_the_daemon_sends_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name may not resolve any more: the question goes into the tunnel that doesn't work."""
    paths = [
        {"local": "192.0.2.1", "last_received_at": None, "remote": {"address": own, "port": 5000}}
        for own in ("203.0.113.9", "203.0.113.9", "fe80::1%wan0")
    ]

    def answer(request: Request) -> dict[str, Any]:
        return {"paths": paths} if isinstance(request, Paths) else {"bad": []}

    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    plan = client_plan(server="no-such-host.example")
    with answering(control_socket(plan.name), answer):
        found = diagnose(plan, facts(), clock_is_right=True, hush=lambda: None)
    assert found
    assert not [each for each in found if "does not resolve" in each.text]


def test_a_server_whose_name_nobody_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    plan = client_plan(server="no-such-host.example")
    (found,) = diagnose(plan, facts(), clock_is_right=True, hush=lambda: None)
    assert found.text == "no-such-host.example does not resolve to an address"
