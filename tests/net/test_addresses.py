"""Addresses as people write them."""

import pytest

from paygate.net.addresses import AddressError, address_group, format_host_port, is_loopback, parse_host_port


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:15000", ("127.0.0.1", 15000)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("bank.example:15001", ("bank.example", 15001)),
    ],
)
def test_host_and_port_are_read_and_written_alike(text: str, address: tuple[str, int]) -> None:
    assert parse_host_port(text) == address
    assert format_host_port(*address) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not host:port"),
        ("127.0.0.1", "is not host:port"),
        (":15000", "is not host:port"),
        ("::1:15000", "written in brackets"),
        ("host:65536", "not a number from 0 to 65535"),
        ("host:-1", "not a number from 0 to 65535"),
        ("host: 1", "not a number from 0 to 65535"),
        ("host:1_0", "not a number from 0 to 65535"),
        ("host:\u0661", "not a number from 0 to 65535"),
        ("host:", "not a number from 0 to 65535"),
        ("[]:1", "not a name or an address"),
        ("a b:1", "not a name or an address"),
        ("a..b:1", "not a name or an address"),
        ("x" * 64 + ":1", "not a name or an address"),
    ],
)
def test_what_is_no_address_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        parse_host_port(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("localhost.example", False),
    ],
)
def test_loopback_is_only_what_surely_is(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_connections_are_counted_by_who_owns_the_address() -> None:
    assert address_group("192.0.2.1") != address_group("192.0.2.2")
    assert address_group("2001:db8:0:1::5") == address_group("2001:db8:0:1:ffff::9")
    assert address_group("2001:db8:0:1::5") != address_group("2001:db8:0:2::5")
    assert address_group("::ffff:192.0.2.1") == address_group("192.0.2.1")
    assert address_group("") == ""
