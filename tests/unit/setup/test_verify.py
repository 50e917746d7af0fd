"""Why a tunnel doesn't work."""

from ipaddress import ip_address

import pytest

from glorytun_setup import verify
from glorytun_setup.verify import diagnose
from tests.unit.setup.samples import client_plan, facts


def test_the_server_is_where_the_daemon_sends_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name may not resolve any more: the question goes into the tunnel that doesn't work."""
    paths = [
        {"local": "192.0.2.1", "last_received_at": None, "remote": {"address": own, "port": 5000}}
        for own in ("203.0.113.9", "203.0.113.9", "fe80::1%wan0")
    ]
    monkeypatch.setattr(verify, "_paths", lambda name: paths)
    assert verify._peers("tun0") == [ip_address("203.0.113.9"), ip_address("fe80::1")]
    plan = client_plan(server="no-such-host.example")
    found = diagnose(plan, facts(), clock_is_right=True, hush=lambda: None)
    assert not [each for each in found if "does not resolve" in each.text]
