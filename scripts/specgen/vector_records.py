"""records.json: what is sealed or signed and travels inside messages (spec 8), valid encodings and invalid ones."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Record
from paygate.codec.limits import KEY_LIST_SIZE_MAX
from paygate.codec.record_codec import decode_record
from paygate.codec.seal import DEFAULT_PASSWORD_KEY, sign_receipts
from paygate.codec.sealed import (
    CredentialsPlaintext,
    KeyList,
    PasswordKeyParameters,
    Receipt,
    ReceiptKey,
    ReceiptStatement,
    SignedKeyList,
    SuiteKey,
    Terms,
)
from specgen.vector_fixtures import (
    CHEAP_PASSWORD_KEY,
    DAY_MS,
    HYBRID_KEY,
    NOW_MS,
    RECEIPT_KEY,
    RECEIPT_KEY_ID,
    RECEIPT_PUBLIC_KEY,
    X25519_KEY,
    build_key_list,
    build_signed_key_list,
    build_statement,
    build_terms,
    fixed_bytes,
)
from specgen.vector_messages import is_set, with_ends
from specgen.vector_samples import Fault, broken_rules, cuts, illegal_values, with_field
from specgen.vector_values import encode, json_of, json_of_code


def _plaintext(user_id: bytes) -> CredentialsPlaintext:
    padded = user_id.ljust(64, b"\0")
    return CredentialsPlaintext(1, len(user_id), padded, fixed_bytes("password key", 32), b"n" * 16, bytes(142))


_X25519_ONLY: Final = build_key_list(suite_keys=(X25519_KEY.public_suite_key(),))
_EARLIER: Final = build_key_list(
    serial=6,
    valid_from_ms=NOW_MS - 9 * DAY_MS,
    valid_until_ms=NOW_MS - 8 * DAY_MS,
    suite_keys=(X25519_KEY.public_suite_key(),),
)
_DECLINED: Final = build_statement(outcome=TransferOutcome.DECLINED, reason=Reason.FUNDS, utr="")
_FENCED: Final = build_statement(outcome=TransferOutcome.FENCED, reason=Reason.FENCED, utr="")
_ALONE, *_ = sign_receipts(RECEIPT_KEY, [build_statement()])
_LAST_OF_5: Final = sign_receipts(RECEIPT_KEY, [build_statement()] * 5)[4]
_USUAL: Final[dict[type[Record], Mapping[str, Record]]] = {
    Terms: with_ends({"usual": build_terms()}),
    PasswordKeyParameters: with_ends(
        {
            "usual": DEFAULT_PASSWORD_KEY,
            "cheap": CHEAP_PASSWORD_KEY,
            "all_lanes": PasswordKeyParameters(memory_kib=64, iteration_count=1, lane_count=8),
        }
    ),
    SuiteKey: {"x25519": X25519_KEY.public_suite_key(), "hybrid": HYBRID_KEY.public_suite_key()},
    ReceiptKey: {"usual": ReceiptKey(RECEIPT_KEY_ID, RECEIPT_PUBLIC_KEY)},
    KeyList: with_ends({"x25519_only": _X25519_ONLY, "earlier": _EARLIER, "both_suites": build_key_list()}),
    SignedKeyList: {"usual": decode_record(SignedKeyList, build_signed_key_list())},
    ReceiptStatement: with_ends({"posted": build_statement(), "declined": _DECLINED, "fenced": _FENCED}),
    Receipt: with_ends({"alone": decode_record(Receipt, _ALONE), "last_of_5": decode_record(Receipt, _LAST_OF_5)}),
    # Not at its ends: a user ID is UTF-8, which this record does not say by itself (spec 8.2).
    CredentialsPlaintext: {
        "usual": _plaintext(b"asha"),
        "one_byte": _plaintext(b"a"),
        "longest": _plaintext("\u00e4".encode() * 32),
    },
}
_DONORS: Final[dict[type[Record], tuple[Record, ...]]] = {
    ReceiptStatement: (build_statement(outcome=TransferOutcome.MISMATCH, utr=""),),
    CredentialsPlaintext: (with_field(_plaintext(b"asha"), "padding", bytes(141) + b"\1"),),
}
"""Values that no legal record has, to break a rule between fields with."""


def render() -> dict[str, Any]:
    """What records.json holds."""
    return {
        "vectors": "records",
        "valid": [
            {
                "name": _name(cls, name),
                "record": cls.__name__,
                "encoding": encode(value).hex(),
                "fields": json_of(value),
            }
            for cls, usual in _USUAL.items()
            for name, value in usual.items()
        ],
        "invalid": [entry for cls, usual in _USUAL.items() for entry in _invalid(cls, list(usual.values()))],
    }


def _name(cls: type[Record], name: str) -> str:
    return f"{cls.__name__}/{name}"


def _invalid(cls: type[Record], values: list[Record]) -> Iterator[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def add(code: ErrorCode, fault: Fault) -> None:
        name = _name(cls, f"{fault.path}/{fault.name}" if fault.path else fault.name)
        if name not in found and len(fault.data) <= KEY_LIST_SIZE_MAX:
            errors = [json_of_code(code)]
            encoding = fault.data.hex()
            found[name] = {
                "name": name, "record": cls.__name__, "encoding": encoding, "errors": errors, "path": fault.path
            }  # fmt: skip

    for value in values:
        for fault in illegal_values(value):
            if is_set(getattr(value, fault.path.split(".", maxsplit=1)[0])):
                add(ErrorCode.BAD_VALUE, fault)
    for fault in broken_rules(values, _DONORS.get(cls, ())):
        add(ErrorCode.BAD_VALUE, Fault(fault.path, f"rule_{fault.name}", fault.data))
    for value in values:
        for fault in cuts(value):
            add(ErrorCode.TRUNCATED_FIELD, fault)
        add(ErrorCode.TRAILING_BYTES, Fault("", "trailing_byte", encode(value) + b"\0"))
    yield from found.values()
