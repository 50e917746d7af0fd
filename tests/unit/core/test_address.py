"""Addresses as the protocol has them."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glorytun.core.address import ANY, Endpoint, PathId, format_address, is_v4, pack_address

CASES = [
    ("10.9.1.2", "00000000000000000000ffff0a090102", True),
    ("0.0.0.0", "00000000000000000000ffff00000000", True),
    ("2001:db8::1", "20010db8000000000000000000000001", False),
    ("::", "00" * 16, False),
    ("::1", "00" * 15 + "01", False),
]


@pytest.mark.parametrize(("text", "packed", "v4"), CASES)
def test_address(text: str, packed: str, v4: bool) -> None:
    """An address has 16 bytes, IPv4 mapped into IPv6, and comes back as it was written."""
    address = pack_address(text)
    assert address.hex() == packed
    assert is_v4(address) == v4
    assert format_address(address) == text


@given(st.ip_addresses())
def test_address_comes_back(address: IPv4Address | IPv6Address) -> None:
    """Every address survives, an IPv4 address mapped by others as what it stands for."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    assert format_address(pack_address(address)) == str(mapped or address)
    assert pack_address(str(address)) == pack_address(address)


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "example.net", "2001:db8::1/64"])
def test_what_is_no_address(text: str) -> None:
    """Text that is no address is refused."""
    with pytest.raises(ValueError, match="does not appear to be"):
        pack_address(text)


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [("10.0.0.1", 5000, "10.0.0.1:5000"), ("2001:db8::1", 0, "[2001:db8::1]:0")],
)
def test_endpoint_as_text(text: str, port: int, expected: str) -> None:
    """The port can be told from an IPv6 address."""
    endpoint = Endpoint(pack_address(text), port)
    assert str(endpoint) == expected
    assert str(PathId(ANY, endpoint)) == f":: to {expected}"
