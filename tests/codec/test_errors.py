"""Codes and blame: who closes, and what an error says of itself."""

import pytest

from paygate.codec.errors import ErrorCode, LocalProtocolError, ProtocolError, RemoteProtocolError


@pytest.mark.pg("PG-ERR-6")
def test_only_rate_and_shutdown_leave_a_link_open() -> None:
    assert {code for code in ErrorCode if not code.closes} == {ErrorCode.TOO_MANY_REQUESTS, ErrorCode.SHUTTING_DOWN}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RemoteProtocolError(ErrorCode.BAD_MAC), "bad mac"),
        (RemoteProtocolError(ErrorCode.BAD_VALUE, "terms.currency"), "bad value at terms.currency"),
        (RemoteProtocolError(ErrorCode.BAD_MAGIC, "magic", "PG"), "bad magic at magic: expected PG"),
        (RemoteProtocolError(ErrorCode.TRAILING_BYTES, "", "the end"), "trailing bytes: expected the end"),
    ],
)
def test_an_error_says_what_and_where(error: RemoteProtocolError, text: str) -> None:
    assert error.text == str(error) == text


def test_blame_is_in_the_type() -> None:
    assert not issubclass(LocalProtocolError, RemoteProtocolError)
    assert not issubclass(RemoteProtocolError, LocalProtocolError)
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)
