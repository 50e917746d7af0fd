"""Every exception says what is wrong and what to do, and sets the exit status."""

import pytest

from glorytun import errors
from glorytun.errors import GlorytunError

KINDS = [value for value in vars(errors).values() if isinstance(value, type)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_what_a_user_can_mend(kind: type[GlorytunError]) -> None:
    assert issubclass(kind, GlorytunError)
    assert kind.__name__ in str(errors.__doc__)
    assert kind.__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_the_hint_follows_the_message(kind: type[GlorytunError]) -> None:
    assert str(kind("tun0 is busy")) == "tun0 is busy"
    assert str(kind("tun0 is busy", hint="stop it")) == "tun0 is busy (stop it)"


@pytest.mark.parametrize("kind", KINDS)
def test_only_wrong_usage_exits_with_2(kind: type[GlorytunError]) -> None:
    assert kind("").exit_status == (2 if kind is errors.UsageError else 1)
