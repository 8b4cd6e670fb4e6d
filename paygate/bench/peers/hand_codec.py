"""The socket's messages encoded and decoded by hand with `struct`: the peer of the compiled codec.

It is what one writes who knows the wire format by heart and has no declaration: one `struct` for each run of fixed
fields, regular expressions that match in place, a function for each kind of text, the rules between fields as plain
conditions, the dataclasses made by their constructors. It checks all that the codec checks, and names what is wrong;
tests/bench/test_hand_codec.py holds that. Nothing but the bench uses it.
"""

import re
from collections.abc import Callable
from struct import Struct, error
from typing import Any, Final

from paygate.codec import messages as m
from paygate.codec.codes import KeysStatus, Kind, PaymentStatus, Reason, Role, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from paygate.codec.fields import is_plain_text
from paygate.codec.sealed import Terms

_AMOUNT_MAX: Final = 999_999_999_999_999
_TIME_MAX: Final = 253_402_300_799_999
_TOLD: Final = frozenset({TokenStatus.VALID, TokenStatus.PAID, TokenStatus.EXPIRED, TokenStatus.IN_FLIGHT})
_FINAL: Final = frozenset({TransferOutcome.POSTED, TransferOutcome.DECLINED, TransferOutcome.FENCED})
_ZEROS: Final = bytes(16)
_ROLES: Final = {int(code): code for code in Role}
_ERRORS: Final = {int(code): code for code in ErrorCode}
_KEYS: Final = {int(code): code for code in KeysStatus}
_TOKENS: Final = {int(code): code for code in TokenStatus}
_PAYMENTS: Final = {int(code): code for code in PaymentStatus}
_OUTCOMES: Final = {int(code): code for code in TransferOutcome}
_REASONS: Final = {int(code): code for code in Reason}

_identifier: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]*").fullmatch
_passcode: Final = re.compile(rb"[!-{}~]+").fullmatch
_currency: Final = re.compile(rb"[A-Z]{3}").fullmatch
_utr: Final = re.compile(rb"[A-Z]{4}P[0-9]{17}").fullmatch
_printable: Final = re.compile(rb"[ -~]*").fullmatch

_U16: Final = Struct(">H")
_ROLE_SIZE: Final = Struct(">BB")
_VERSION_FRAME: Final = Struct(">BI")
_ERROR: Final = Struct(">HBB")
_KEYS_HEAD: Final = Struct(">BH")
_TOKEN_HEAD: Final = Struct(">B16sIB")
_AMOUNT_SIZE: Final = Struct(">QB")
_CREDENTIALS: Final = Struct(">16s16sQ8sH")
_ANSWER: Final = Struct(">16sBBB")
_ID_SIZE: Final = Struct(">16sB")
_TERMS_IDS: Final = Struct(">16s16sQB")
_U64: Final = Struct(">Q")
_KEY_SIZE: Final = Struct(">I8sH")


def _bad(path: str, expected: str) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.BAD_VALUE, path, expected)


def _wrong(path: str, expected: str) -> LocalProtocolError:
    return LocalProtocolError(f"can't be encoded at {path}: expected {expected}")


def _end(at: int, data: bytes) -> None:
    if at != len(data):
        raise RemoteProtocolError(ErrorCode.TRUNCATED_FIELD if at > len(data) else ErrorCode.TRAILING_BYTES)


_Match = Callable[[bytes, int, int], object]


def _take(data: bytes, at: int, size: int, maximum: int, matches: _Match, path: str) -> str:
    """The ASCII text of this size at this place."""
    end = at + size
    if size > maximum or matches(data, at, end) is None:
        raise _bad(path, f"1 to {maximum} bytes of its characters")
    if end > len(data):
        raise RemoteProtocolError(ErrorCode.TRUNCATED_FIELD, path)
    return data[at:end].decode()


def _give(value: str, maximum: int, matches: Any, path: str) -> bytes:
    """The bytes of a text that fits."""
    if not isinstance(value, str):
        raise _wrong(path, "text")
    encoded = value.encode()
    if len(encoded) > maximum or matches(encoded) is None:
        raise _wrong(path, f"1 to {maximum} bytes of its characters")
    return encoded


def _is_bytes(value: object, size: int) -> bool:
    return isinstance(value, bytes) and len(value) == size


# -- opening a link --------------------------------------------------------------------------------------


def decode_hello(data: bytes) -> m.Hello:
    role, size = _ROLE_SIZE.unpack_from(data)
    if role not in _ROLES:
        raise _bad("role", "a Role")
    party_id = _take(data, 2, size, 32, _identifier, "party_id")
    at = 2 + size
    count = data[at]
    if not 1 <= count <= 8:
        raise _bad("versions", "1 to 8 items")
    versions = tuple(data[at + 1 : at + 1 + count])
    if 0 in versions:
        raise _bad("versions", "at least 1")
    _end(at + 1 + count, data)
    return m.Hello(_ROLES[role], party_id, versions)


def encode_hello(value: m.Hello) -> bytes:
    if not isinstance(value.role, Role):
        raise _wrong("role", "a Role")
    party_id = _give(value.party_id, 32, _identifier, "party_id")
    versions = value.versions
    if not isinstance(versions, tuple) or not 1 <= len(versions) <= 8:
        raise _wrong("versions", "1 to 8 items")
    for version in versions:
        if type(version) is not int or not 1 <= version <= 255:
            raise _wrong("versions", "1 to 255")
    return _ROLE_SIZE.pack(value.role, len(party_id)) + party_id + bytes((len(versions), *versions))


def decode_hello_ack(data: bytes) -> m.HelloAck:
    role, size = _ROLE_SIZE.unpack_from(data)
    if role not in _ROLES:
        raise _bad("role", "a Role")
    party_id = _take(data, 2, size, 32, _identifier, "party_id")
    version, frame_size_max = _VERSION_FRAME.unpack_from(data, 2 + size)
    if not version:
        raise _bad("version", "at least 1")
    if not 20 <= frame_size_max <= 65_571:
        raise _bad("frame_size_max", "20 to 65571")
    _end(7 + size, data)
    return m.HelloAck(_ROLES[role], party_id, version, frame_size_max)


def encode_hello_ack(value: m.HelloAck) -> bytes:
    if not isinstance(value.role, Role):
        raise _wrong("role", "a Role")
    party_id = _give(value.party_id, 32, _identifier, "party_id")
    version, frame_size_max = value.version, value.frame_size_max
    if type(version) is not int or not 1 <= version <= 255:
        raise _wrong("version", "1 to 255")
    if type(frame_size_max) is not int or not 20 <= frame_size_max <= 65_571:
        raise _wrong("frame_size_max", "20 to 65571")
    return _ROLE_SIZE.pack(value.role, len(party_id)) + party_id + _VERSION_FRAME.pack(version, frame_size_max)


def decode_echo(data: bytes) -> m.Echo:
    _end(8, data)
    return m.Echo(data)


def decode_echo_reply(data: bytes) -> m.EchoReply:
    _end(8, data)
    return m.EchoReply(data)


def encode_echo(value: m.Echo | m.EchoReply) -> bytes:
    echo_data = value.echo_data
    if not _is_bytes(echo_data, 8):
        raise _wrong("echo_data", "8 bytes")
    return echo_data


def decode_error(data: bytes) -> m.Error:
    number, closes, size = _ERROR.unpack_from(data)
    code = _ERRORS.get(number)
    if code is None:
        raise _bad("code", "an ErrorCode")
    if closes > 1:
        raise _bad("closes", "0 or 1")
    text = _take(data, 4, size, 120, _printable, "text")
    _end(4 + size, data)
    if bool(closes) is not code.closes:
        raise _bad("closes", "what the registry says")
    return m.Error(code, closes == 1, text)


def encode_error(value: m.Error) -> bytes:
    code, closes = value.code, value.closes
    if not isinstance(code, ErrorCode):
        raise _wrong("code", "an ErrorCode")
    if not isinstance(closes, bool):
        raise _wrong("closes", "0 or 1")
    text = _give(value.text, 120, _printable, "text")
    if closes is not code.closes:
        raise _wrong("closes", "what the registry says")
    return _ERROR.pack(code, closes, len(text)) + text


# -- keys ------------------------------------------------------------------------------------------------


def decode_bank_keys_query(data: bytes) -> m.BankKeysQuery:
    size = data[0]
    bank_id = _take(data, 1, size, 32, _identifier, "bank_id")
    _end(1 + size, data)
    return m.BankKeysQuery(bank_id)


def encode_bank_keys_query(value: m.BankKeysQuery) -> bytes:
    bank_id = _give(value.bank_id, 32, _identifier, "bank_id")
    return bytes((len(bank_id),)) + bank_id


def decode_bank_keys(data: bytes) -> m.BankKeys:
    number, size = _KEYS_HEAD.unpack_from(data)
    status = _KEYS.get(number)
    if status is None:
        raise _bad("status", "a KeysStatus")
    if size > 24_642:
        raise _bad("signed_key_list", "at most 24642 bytes")
    _end(3 + size, data)
    if bool(size) is not (status is KeysStatus.AVAILABLE):
        raise _bad("signed_key_list", "not empty with AVAILABLE")
    return m.BankKeys(status, data[3:])


def encode_bank_keys(value: m.BankKeys) -> bytes:
    status, signed = value.status, value.signed_key_list
    if not isinstance(status, KeysStatus):
        raise _wrong("status", "a KeysStatus")
    if not isinstance(signed, bytes) or len(signed) > 24_642:
        raise _wrong("signed_key_list", "at most 24642 bytes")
    if bool(signed) is not (status is KeysStatus.AVAILABLE):
        raise _wrong("signed_key_list", "not empty with AVAILABLE")
    return _KEYS_HEAD.pack(status, len(signed)) + signed


# -- client and gateway ----------------------------------------------------------------------------------


def decode_token_query(data: bytes) -> m.TokenQuery:
    size = data[0]
    transaction_id = _take(data, 1, size, 32, _identifier, "transaction_id")
    at = 1 + size
    size = data[at]
    passcode = _take(data, at + 1, size, 32, _passcode, "passcode")
    _end(at + 1 + size, data)
    return m.TokenQuery(transaction_id, passcode)


def encode_token_query(value: m.TokenQuery) -> bytes:
    transaction_id = _give(value.transaction_id, 32, _identifier, "transaction_id")
    passcode = _give(value.passcode, 32, _passcode, "passcode")
    return b"%c%b%c%b" % (len(transaction_id), transaction_id, len(passcode), passcode)


def _check_token(status: TokenStatus, ack: tuple[Any, ...]) -> str:
    """The field that breaks a rule, or nothing."""
    session_id, session_left_ms, merchant_id, merchant_name, amount_minor, currency, utr = ack
    is_valid, is_told = status is TokenStatus.VALID, status in _TOLD
    if (session_id != _ZEROS) is not is_valid:
        return "session_id"
    if (session_left_ms > 0) is not is_valid:
        return "session_left_ms"
    if bool(merchant_id) is not is_told:
        return "merchant_id"
    if (amount_minor > 0) is not is_told:
        return "amount_minor"
    if bool(currency) is not is_told:
        return "currency"
    if merchant_name and not is_told:
        return "merchant_name"
    return "utr" if bool(utr) is not (status is TokenStatus.PAID) else ""


def decode_token_ack(data: bytes) -> m.TokenAck:
    number, session_id, session_left_ms, size = _TOKEN_HEAD.unpack_from(data)
    status = _TOKENS.get(number)
    if status is None:
        raise _bad("status", "a TokenStatus")
    if session_left_ms > 30_000:
        raise _bad("session_left_ms", "at most 30000")
    at = 22
    merchant_id = _take(data, at, size, 32, _identifier, "merchant_id") if size else ""
    at += size
    size = data[at]
    end = at + 1 + size
    try:
        merchant_name = data[at + 1 : end].decode()
    except UnicodeDecodeError:
        raise _bad("merchant_name", "printable text") from None
    if size > 64 or not ((merchant_name.isascii() and merchant_name.isprintable()) or is_plain_text(merchant_name)):
        raise _bad("merchant_name", "at most 64 bytes of printable text")
    amount_minor, size = _AMOUNT_SIZE.unpack_from(data, end)
    if amount_minor > _AMOUNT_MAX:
        raise _bad("amount_minor", "at most 15 digits")
    at = end + 9
    currency = _take(data, at, size, 3, _currency, "currency") if size else ""
    at += size
    size = data[at]
    gateway_id = _take(data, at + 1, size, 32, _identifier, "gateway_id")
    at += 1 + size
    size = data[at]
    bank_id = _take(data, at + 1, size, 32, _identifier, "bank_id")
    at += 1 + size
    size = data[at]
    utr = _take(data, at + 1, size, 22, _utr, "utr") if size else ""
    _end(at + 1 + size, data)
    broken = _check_token(
        status, (session_id, session_left_ms, merchant_id, merchant_name, amount_minor, currency, utr)
    )
    if broken:
        raise _bad(broken, "what fits the status")
    return m.TokenAck(
        status, session_id, session_left_ms, merchant_id, merchant_name, amount_minor, currency, gateway_id, bank_id,
        utr,
    )  # fmt: skip


def encode_token_ack(value: m.TokenAck) -> bytes:
    status, session_id, left_ms, amount_minor = (
        value.status, value.session_id, value.session_left_ms, value.amount_minor
    )  # fmt: skip
    if not isinstance(status, TokenStatus):
        raise _wrong("status", "a TokenStatus")
    if not _is_bytes(session_id, 16):
        raise _wrong("session_id", "16 bytes")
    if type(left_ms) is not int or not 0 <= left_ms <= 30_000:
        raise _wrong("session_left_ms", "0 to 30000")
    merchant_id = _give(value.merchant_id, 32, _identifier, "merchant_id") if value.merchant_id != "" else b""
    name = value.merchant_name
    if not isinstance(name, str):
        raise _wrong("merchant_name", "text")
    merchant_name = name.encode()
    if len(merchant_name) > 64 or not ((name.isascii() and name.isprintable()) or is_plain_text(name)):
        raise _wrong("merchant_name", "at most 64 bytes of printable text")
    if type(amount_minor) is not int or not 0 <= amount_minor <= _AMOUNT_MAX:
        raise _wrong("amount_minor", "at most 15 digits")
    currency = _give(value.currency, 3, _currency, "currency") if value.currency != "" else b""
    gateway_id = _give(value.gateway_id, 32, _identifier, "gateway_id")
    bank_id = _give(value.bank_id, 32, _identifier, "bank_id")
    utr = _give(value.utr, 22, _utr, "utr") if value.utr != "" else b""
    broken = _check_token(status, (session_id, left_ms, merchant_id, merchant_name, amount_minor, currency, utr))
    if broken:
        raise _wrong(broken, "what fits the status")
    return b"%b%b%c%b%b%b%c%b%c%b%c%b" % (
        _TOKEN_HEAD.pack(status, session_id, left_ms, len(merchant_id)), merchant_id, len(merchant_name), merchant_name,
        _AMOUNT_SIZE.pack(amount_minor, len(currency)), currency, len(gateway_id), gateway_id, len(bank_id), bank_id,
        len(utr), utr,
    )  # fmt: skip


def decode_encrypted_credentials(data: bytes) -> m.EncryptedCredentials:
    session_id, payment_id, authorised_at_ms, key_id, size = _CREDENTIALS.unpack_from(data)
    if session_id == _ZEROS:
        raise _bad("session_id", "not all zero")
    if payment_id == _ZEROS:
        raise _bad("payment_id", "not all zero")
    if authorised_at_ms > _TIME_MAX:
        raise _bad("authorised_at_ms", "before the year 10000")
    if not 1 <= size <= 2_048:
        raise _bad("envelope", "1 to 2048 bytes")
    _end(50 + size, data)
    return m.EncryptedCredentials(session_id, payment_id, authorised_at_ms, key_id, data[50:])


def encode_encrypted_credentials(value: m.EncryptedCredentials) -> bytes:
    session_id, payment_id, at_ms = value.session_id, value.payment_id, value.authorised_at_ms
    key_id, envelope = value.key_id, value.envelope
    if not _is_bytes(session_id, 16) or session_id == _ZEROS:
        raise _wrong("session_id", "16 bytes, not all zero")
    if not _is_bytes(payment_id, 16) or payment_id == _ZEROS:
        raise _wrong("payment_id", "16 bytes, not all zero")
    if type(at_ms) is not int or not 0 <= at_ms <= _TIME_MAX:
        raise _wrong("authorised_at_ms", "before the year 10000")
    if not _is_bytes(key_id, 8):
        raise _wrong("key_id", "8 bytes")
    if not isinstance(envelope, bytes) or not 1 <= len(envelope) <= 2_048:
        raise _wrong("envelope", "1 to 2048 bytes")
    return _CREDENTIALS.pack(session_id, payment_id, at_ms, key_id, len(envelope)) + envelope


def _check_payment(status: PaymentStatus, reason: Reason, utr: bytes | str, receipt: bytes) -> str:
    if status is PaymentStatus.DECLINED:
        fits = 0 < reason < 64
    elif status is PaymentStatus.REFUSED:
        fits = reason >= 64
    else:
        fits = reason is Reason.NONE
    if not fits:
        return "reason"
    is_paid = status is PaymentStatus.PAID
    if (is_paid and not utr) or (utr and not is_paid and reason is not Reason.TOKEN_PAID):
        return "utr"
    return "receipt" if bool(receipt) is not (is_paid or status is PaymentStatus.DECLINED) else ""


def _decode_payment(cls: Any, data: bytes) -> Any:
    payment_id, status_number, reason_number, size = _ANSWER.unpack_from(data)
    status, reason = _PAYMENTS.get(status_number), _REASONS.get(reason_number)
    if payment_id == _ZEROS:
        raise _bad("payment_id", "not all zero")
    if status is None or (status is PaymentStatus.UNKNOWN and cls is m.PaymentAck):
        raise _bad("status", "a PaymentStatus")
    if reason is None:
        raise _bad("reason", "a Reason")
    utr = _take(data, 19, size, 22, _utr, "utr") if size else ""
    at = 19 + size
    (size,) = _U16.unpack_from(data, at)
    if size > 1_024:
        raise _bad("receipt", "at most 1024 bytes")
    _end(at + 2 + size, data)
    receipt = data[at + 2 :]
    broken = _check_payment(status, reason, utr, receipt)
    if broken:
        raise _bad(broken, "what fits the status")
    return cls(payment_id, status, reason, utr, receipt)


def decode_payment_ack(data: bytes) -> Any:
    return _decode_payment(m.PaymentAck, data)


def decode_status_ack(data: bytes) -> Any:
    return _decode_payment(m.StatusAck, data)


def encode_payment(value: m.PaymentAnswer) -> bytes:
    payment_id, status, reason, receipt = value.payment_id, value.status, value.reason, value.receipt
    if not _is_bytes(payment_id, 16) or payment_id == _ZEROS:
        raise _wrong("payment_id", "16 bytes, not all zero")
    if not isinstance(status, PaymentStatus) or (status is PaymentStatus.UNKNOWN and type(value) is m.PaymentAck):
        raise _wrong("status", "a PaymentStatus")
    if not isinstance(reason, Reason):
        raise _wrong("reason", "a Reason")
    utr = _give(value.utr, 22, _utr, "utr") if value.utr != "" else b""
    if not isinstance(receipt, bytes) or len(receipt) > 1_024:
        raise _wrong("receipt", "at most 1024 bytes")
    broken = _check_payment(status, reason, utr, receipt)
    if broken:
        raise _wrong(broken, "what fits the status")
    return b"".join((_ANSWER.pack(payment_id, status, reason, len(utr)), utr, _U16.pack(len(receipt)), receipt))


def decode_status_query(data: bytes) -> m.StatusQuery:
    payment_id, size = _ID_SIZE.unpack_from(data)
    if payment_id == _ZEROS:
        raise _bad("payment_id", "not all zero")
    transaction_id = _take(data, 17, size, 32, _identifier, "transaction_id")
    at = 17 + size
    size = data[at]
    passcode = _take(data, at + 1, size, 32, _passcode, "passcode")
    _end(at + 1 + size, data)
    return m.StatusQuery(payment_id, transaction_id, passcode)


def encode_status_query(value: m.StatusQuery) -> bytes:
    payment_id = value.payment_id
    if not _is_bytes(payment_id, 16) or payment_id == _ZEROS:
        raise _wrong("payment_id", "16 bytes, not all zero")
    transaction_id = _give(value.transaction_id, 32, _identifier, "transaction_id")
    passcode = _give(value.passcode, 32, _passcode, "passcode")
    return b"%b%c%b%c%b" % (payment_id, len(transaction_id), transaction_id, len(passcode), passcode)


# -- gateway and bank ------------------------------------------------------------------------------------


def _decode_terms(data: bytes) -> tuple[Terms, int]:
    size = data[0]
    bank_id = _take(data, 1, size, 32, _identifier, "terms.bank_id")
    at = 1 + size
    size = data[at]
    gateway_id = _take(data, at + 1, size, 32, _identifier, "terms.gateway_id")
    at += 1 + size
    size = data[at]
    merchant_id = _take(data, at + 1, size, 32, _identifier, "terms.merchant_id")
    at += 1 + size
    size = data[at]
    transaction_id = _take(data, at + 1, size, 32, _identifier, "terms.transaction_id")
    at += 1 + size
    payment_id, session_id, amount_minor, size = _TERMS_IDS.unpack_from(data, at)
    if payment_id == _ZEROS:
        raise _bad("terms.payment_id", "not all zero")
    if session_id == _ZEROS:
        raise _bad("terms.session_id", "not all zero")
    if not 1 <= amount_minor <= _AMOUNT_MAX:
        raise _bad("terms.amount_minor", "1 to 15 digits")
    at += 41
    currency = _take(data, at, size, 3, _currency, "terms.currency")
    at += size
    (authorised_at_ms,) = _U64.unpack_from(data, at)
    if authorised_at_ms > _TIME_MAX:
        raise _bad("terms.authorised_at_ms", "before the year 10000")
    return Terms(
        bank_id, gateway_id, merchant_id, transaction_id, payment_id, session_id, amount_minor, currency,
        authorised_at_ms,
    ), at + 8  # fmt: skip


def _encode_terms(terms: Terms) -> bytes:
    if not isinstance(terms, Terms):
        raise _wrong("terms", "Terms")
    bank_id = _give(terms.bank_id, 32, _identifier, "terms.bank_id")
    gateway_id = _give(terms.gateway_id, 32, _identifier, "terms.gateway_id")
    merchant_id = _give(terms.merchant_id, 32, _identifier, "terms.merchant_id")
    transaction_id = _give(terms.transaction_id, 32, _identifier, "terms.transaction_id")
    payment_id, session_id = terms.payment_id, terms.session_id
    amount_minor, at_ms = terms.amount_minor, terms.authorised_at_ms
    if not _is_bytes(payment_id, 16) or payment_id == _ZEROS:
        raise _wrong("terms.payment_id", "16 bytes, not all zero")
    if not _is_bytes(session_id, 16) or session_id == _ZEROS:
        raise _wrong("terms.session_id", "16 bytes, not all zero")
    if type(amount_minor) is not int or not 1 <= amount_minor <= _AMOUNT_MAX:
        raise _wrong("terms.amount_minor", "1 to 15 digits")
    currency = _give(terms.currency, 3, _currency, "terms.currency")
    if type(at_ms) is not int or not 0 <= at_ms <= _TIME_MAX:
        raise _wrong("terms.authorised_at_ms", "before the year 10000")
    return b"%c%b%c%b%c%b%c%b%b%b%b" % (
        len(bank_id), bank_id, len(gateway_id), gateway_id, len(merchant_id), merchant_id,
        len(transaction_id), transaction_id, _TERMS_IDS.pack(payment_id, session_id, amount_minor, len(currency)),
        currency, _U64.pack(at_ms),
    )  # fmt: skip


def decode_transfer_request(data: bytes) -> m.TransferRequest:
    terms, at = _decode_terms(data)
    time_left_ms, key_id, size = _KEY_SIZE.unpack_from(data, at)
    if time_left_ms > 30_000:
        raise _bad("time_left_ms", "at most 30000")
    if not 1 <= size <= 2_048:
        raise _bad("envelope", "1 to 2048 bytes")
    _end(at + 14 + size, data)
    return m.TransferRequest(terms, time_left_ms, key_id, data[at + 14 :])


def encode_transfer_request(value: m.TransferRequest) -> bytes:
    terms = _encode_terms(value.terms)
    time_left_ms, key_id, envelope = value.time_left_ms, value.key_id, value.envelope
    if type(time_left_ms) is not int or not 0 <= time_left_ms <= 30_000:
        raise _wrong("time_left_ms", "0 to 30000")
    if not _is_bytes(key_id, 8):
        raise _wrong("key_id", "8 bytes")
    if not isinstance(envelope, bytes) or not 1 <= len(envelope) <= 2_048:
        raise _wrong("envelope", "1 to 2048 bytes")
    return b"".join((terms, _KEY_SIZE.pack(time_left_ms, key_id, len(envelope)), envelope))


def decode_resolve_request(data: bytes) -> m.ResolveRequest:
    terms, at = _decode_terms(data)
    _end(at + 32, data)
    return m.ResolveRequest(terms, data[at:])


def encode_resolve_request(value: m.ResolveRequest) -> bytes:
    terms, envelope_hash = _encode_terms(value.terms), value.envelope_hash
    if not _is_bytes(envelope_hash, 32):
        raise _wrong("envelope_hash", "32 bytes")
    return terms + envelope_hash


def _check_transfer(outcome: TransferOutcome, reason: Reason, utr: bytes | str, receipt: bytes) -> str:
    if outcome is TransferOutcome.DECLINED:
        fits = 0 < reason < 64 and reason is not Reason.FENCED
    else:
        fits = reason is (Reason.FENCED if outcome is TransferOutcome.FENCED else Reason.NONE)
    if not fits:
        return "reason"
    if bool(utr) is not (outcome is TransferOutcome.POSTED):
        return "utr"
    return "receipt" if bool(receipt) is not (outcome in _FINAL) else ""


def _decode_transfer(cls: Any, data: bytes) -> Any:
    payment_id, outcome_number, reason_number, size = _ANSWER.unpack_from(data)
    outcome, reason = _OUTCOMES.get(outcome_number), _REASONS.get(reason_number)
    if payment_id == _ZEROS:
        raise _bad("payment_id", "not all zero")
    if outcome is None:
        raise _bad("outcome", "a TransferOutcome")
    if reason is None:
        raise _bad("reason", "a Reason")
    utr = _take(data, 19, size, 22, _utr, "utr") if size else ""
    at = 19 + size
    (size,) = _U16.unpack_from(data, at)
    if size > 1_024:
        raise _bad("receipt", "at most 1024 bytes")
    _end(at + 2 + size, data)
    receipt = data[at + 2 :]
    broken = _check_transfer(outcome, reason, utr, receipt)
    if broken:
        raise _bad(broken, "what fits the outcome")
    return cls(payment_id, outcome, reason, utr, receipt)


def decode_transfer_result(data: bytes) -> Any:
    return _decode_transfer(m.TransferResult, data)


def decode_resolve_result(data: bytes) -> Any:
    return _decode_transfer(m.ResolveResult, data)


def encode_transfer(value: m.TransferAnswer) -> bytes:
    payment_id, outcome, reason, receipt = value.payment_id, value.outcome, value.reason, value.receipt
    if not _is_bytes(payment_id, 16) or payment_id == _ZEROS:
        raise _wrong("payment_id", "16 bytes, not all zero")
    if not isinstance(outcome, TransferOutcome):
        raise _wrong("outcome", "a TransferOutcome")
    if not isinstance(reason, Reason):
        raise _wrong("reason", "a Reason")
    utr = _give(value.utr, 22, _utr, "utr") if value.utr != "" else b""
    if not isinstance(receipt, bytes) or len(receipt) > 1_024:
        raise _wrong("receipt", "at most 1024 bytes")
    broken = _check_transfer(outcome, reason, utr, receipt)
    if broken:
        raise _wrong(broken, "what fits the outcome")
    return b"".join((_ANSWER.pack(payment_id, outcome, reason, len(utr)), utr, _U16.pack(len(receipt)), receipt))


BY_HAND: Final[dict[Kind, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]]] = {
    Kind.HELLO: (encode_hello, decode_hello),
    Kind.HELLO_ACK: (encode_hello_ack, decode_hello_ack),
    Kind.ECHO: (encode_echo, decode_echo),
    Kind.ECHO_REPLY: (encode_echo, decode_echo_reply),
    Kind.ERROR: (encode_error, decode_error),
    Kind.BANK_KEYS_QUERY: (encode_bank_keys_query, decode_bank_keys_query),
    Kind.BANK_KEYS: (encode_bank_keys, decode_bank_keys),
    Kind.TOKEN_QUERY: (encode_token_query, decode_token_query),
    Kind.TOKEN_ACK: (encode_token_ack, decode_token_ack),
    Kind.ENCRYPTED_CREDENTIALS: (encode_encrypted_credentials, decode_encrypted_credentials),
    Kind.PAYMENT_ACK: (encode_payment, decode_payment_ack),
    Kind.STATUS_QUERY: (encode_status_query, decode_status_query),
    Kind.STATUS_ACK: (encode_payment, decode_status_ack),
    Kind.TRANSFER_REQUEST: (encode_transfer_request, decode_transfer_request),
    Kind.TRANSFER_RESULT: (encode_transfer, decode_transfer_result),
    Kind.RESOLVE_REQUEST: (encode_resolve_request, decode_resolve_request),
    Kind.RESOLVE_RESULT: (encode_transfer, decode_resolve_result),
}
"""Encode and decode, for every kind that travels on a socket."""

HAND_REFUSALS: Final = (RemoteProtocolError, LocalProtocolError, error, IndexError, UnicodeError)
"""What these functions raise; `struct` and an index past the end say that a body is cut."""
