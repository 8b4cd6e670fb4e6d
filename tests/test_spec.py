"""`spec/protocol.md` says every field, size and code that the declarations have, and no others of theirs."""

import re
from enum import IntEnum
from pathlib import Path

import pytest

from paygate.codec.codes import KeysStatus, Kind, PaymentStatus, Reason, Route, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Blob, Boolean, Choice, Counted, Field, Nested, Opaque, Record, Text, Uint, fields_of
from paygate.codec.frame import Header, body_size_range
from paygate.codec.messages import MESSAGES
from paygate.codec.seal import (
    LABEL_ENVELOPE,
    LABEL_KEY_LIST,
    LABEL_RECEIPT,
    LABEL_RECEIPT_ROOT,
    LABEL_SALT,
    LABEL_VERIFIER,
)
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

SPEC = (Path(__file__).parent.parent / "spec" / "protocol.md").read_text(encoding="utf-8")
ROWS = [line for line in SPEC.splitlines() if line.startswith("| ")]
RECORDS: list[type[Record]] = [
    *(Header, Terms, CredentialsPlaintext, SignedKeyList, KeyList, PasswordKeyParameters),
    *(SuiteKey, ReceiptKey, Receipt, ReceiptStatement, *MESSAGES.values()),
]


def type_words(field: Field) -> str:
    """How section 3.2 of the spec writes a type."""
    match field:
        case Uint():
            return f"u{8 * field.width}"
        case Choice():
            return f"u{8 * field.width} {field.choices.__name__}"
        case Boolean():
            return "bool"
        case Opaque():
            return f"bytes[{field.size}]"
        case Blob():
            return f"blob {field.minimum}..{field.maximum}"
        case Text():
            return f"text {field.minimum}..{field.maximum}"
        case Counted():
            return f"list {field.minimum}..{field.maximum} of {type_words(field.item)}"
        case Nested():
            return field.record.__name__
    raise AssertionError(f"the spec has no words for {field}")


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_every_field_stands_in_the_spec_in_wire_order(record: type[Record]) -> None:
    wanted = [f"| `{f.name}` | {type_words(f.type)} |" for f in fields_of(record)]
    rows = [row for row in ROWS if row.startswith("| `")]
    starts = [i for i in range(len(rows)) if all(r.startswith(w) for r, w in zip(rows[i:], wanted, strict=False))]
    assert starts, f"no table of spec/protocol.md has the fields of {record.__name__}: {wanted}"


def test_every_kind_has_its_number_and_body_sizes() -> None:
    for kind, declared in MESSAGES.items():
        if declared.route is Route.PIPE:
            assert f"0x{kind:02x}" in SPEC
            continue
        size_min, size_max = body_size_range(kind)
        sizes = f"{size_min}" if size_min == size_max else f"{size_min} to {size_max}"
        row = next(row for row in ROWS if row.startswith(f"| 0x{kind:02x} | {declared.__name__} |"))
        assert row.endswith(f"| {sizes} |")
    in_spec = {int(n, 16) for n in re.findall(r"^\| 0x([0-9a-f]{2}) \| [A-Z]", SPEC, re.MULTILINE)}
    assert in_spec == {int(k) for k in Kind if MESSAGES[k].route is not Route.PIPE}


@pytest.mark.parametrize("codes", [ErrorCode, Reason], ids=lambda c: c.__name__)
def test_every_code_of_a_registry_stands_in_the_spec(codes: type[IntEnum]) -> None:
    for code in codes:
        assert any(row.startswith(f"| {int(code)} | {code.name} |") for row in ROWS), code


def test_which_errors_close_is_said() -> None:
    for code in ErrorCode:
        row = next(row for row in ROWS if row.startswith(f"| {int(code)} | {code.name} |"))
        assert row.split(" | ")[2] == ("yes" if code.closes else "no"), code


@pytest.mark.parametrize("codes", [TokenStatus, PaymentStatus, TransferOutcome], ids=lambda c: c.__name__)
def test_every_status_has_its_row(codes: type[IntEnum]) -> None:
    for code in codes:
        assert any(row.startswith(f"| {int(code)} {code.name} |") for row in ROWS), code


def test_the_small_registries_are_spelt_out() -> None:
    for status in KeysStatus:
        assert f"{int(status)} {status.name}" in SPEC


def test_every_label_is_given() -> None:
    labels = (LABEL_ENVELOPE, LABEL_SALT, LABEL_VERIFIER, LABEL_KEY_LIST, LABEL_RECEIPT, LABEL_RECEIPT_ROOT)
    for label in labels:
        assert f'"{label[:-1].decode()}\\0"' in SPEC
