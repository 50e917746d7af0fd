"""An invitation: one line that says all a client needs, or that it can't be used."""

from base64 import urlsafe_b64encode
from dataclasses import replace
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun_setup.invitation import Invitation, decode, encode, looks_like_invitation
from glorytun_setup.model import Inside
from tests.unit.setup.samples import INVITATION, KEY, NOW

LINE = encode(INVITATION)

insides4 = st.builds(
    lambda own, prefix, peer: Inside(own=IPv4Interface((own, prefix)), peer=IPv4Address(peer)),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 32),
    st.binary(min_size=4, max_size=4),
)
insides6 = st.builds(
    lambda own, prefix, peer: Inside(own=IPv6Interface((own, prefix)), peer=IPv6Address(peer)),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 128),
    st.binary(min_size=16, max_size=16),
)
invitations = st.builds(
    Invitation,
    identity=st.binary(min_size=8, max_size=8),
    expires_at=st.integers(0, 2**32 - 1),
    server_host=st.sampled_from(["vpn.example.net", "192.0.2.1", "2001:db8::1", "a" * 63]),
    port=st.integers(1, 65535),
    key=st.binary(min_size=32, max_size=32),
    inside4=st.none() | insides4,
    inside6=st.none() | insides6,
    shares4=st.booleans(),
    shares6=st.booleans(),
)


@given(invitations)
def test_what_is_encoded_is_decoded(invitation: Invitation) -> None:
    line = encode(invitation)
    assert decode(line) == invitation
    assert len(line.split()) == 1
    assert looks_like_invitation(line)


def test_the_line_stays_the_same_between_versions() -> None:
    """Servers and clients are not updated at one time."""
    old = (
        "glorytun1-"
        "AAAAAAAAAABrSeAQE4kAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw8KTQACHgpNAAH9dwAA"
        "AAAAAAAAAAAAAAACQP13AAAAAAAAAAAAAAAAAAF2cG4uZXhhbXBsZS5uZXTYlDvOwj8"
    )
    assert old == LINE


def test_white_space_is_left_out() -> None:
    """As a terminal may break a line."""
    assert decode(f"  {LINE[:30]}\n{LINE[30:60]} \t{LINE[60:]}\r\n") == INVITATION


@given(st.integers(0, len(LINE) - 1), st.sampled_from("ABCxyz019-_"))
def test_a_changed_character_is_found(index: int, char: str) -> None:
    changed = LINE[:index] + char + LINE[index + 1 :]
    # The last character has bits that mean nothing.
    if changed != LINE and index < len(LINE) - 1:
        with pytest.raises(ValueError, match=r"^is (no|an) invitation"):
            decode(changed)


@given(st.integers(0, len(LINE) - 1))
def test_a_missing_end_is_found(length: int) -> None:
    with pytest.raises(ValueError, match=r"^is (no|an) invitation"):
        decode(LINE[:length])


@given(st.text() | st.binary().map(lambda data: f"glorytun1-{urlsafe_b64encode(data).decode()}"))
def test_anything_else_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is (no|an) invitation") as caught:
        decode(text)
    assert len(text) < 12 or text not in str(caught.value)


@given(st.binary(max_size=200))
def test_a_right_checksum_alone_is_not_enough(body: bytes) -> None:
    checksum = blake2b(body, digest_size=6, person=b"gt-invitation").digest()
    line = f"glorytun1-{urlsafe_b64encode(body + checksum).decode()}"
    try:
        decode(line)
    except ValueError as error:
        assert str(error).startswith("is an invitation")  # noqa: PT017  what decodes is right too


def test_a_later_version_says_so() -> None:
    with pytest.raises(ValueError, match="another version of glorytun: update this one"):
        decode(LINE.replace("glorytun1-", "glorytun2-"))


def test_very_long_texts_are_not_read() -> None:
    with pytest.raises(ValueError, match="is no invitation"):
        decode("glorytun1-" + "A" * 10**6)


def test_it_expires() -> None:
    assert not INVITATION.has_expired(NOW)
    assert INVITATION.has_expired(NOW + 3600)
    assert not replace(INVITATION, expires_at=0).has_expired(2**40)


def test_the_key_is_never_shown() -> None:
    assert repr(KEY) not in repr(INVITATION)
    assert KEY.hex() not in repr(INVITATION)
