"""`paygate-dump describe`: what the protocol declares under a name: a kind, a record or a registry of codes (R24)."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

from paygate.cli import ExitCode, PaygateExit
from paygate.codec import codes, sealed
from paygate.codec.codes import Code, Kind
from paygate.codec.describe import (
    allowed_words,
    first_sentence,
    message_name,
    route_words,
    size_words,
    sizes_of,
    type_words,
)
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Record, Sensitivity, WireField, fields_of
from paygate.codec.frame import Header, body_size_range
from paygate.codec.messages import MESSAGES
from paygate.dump.findings import MESSAGE_SECTIONS
from paygate.escape import escape_line

RECORDS: Final[dict[str, type[Record]]] = {
    cls.__name__: cls
    for cls in (Header, *vars(sealed).values())
    if isinstance(cls, type) and issubclass(cls, Record) and cls is not Record
}
"""What is no message by itself: the header, and all that is signed or sealed."""
REGISTRIES: Final[dict[str, type[Code]]] = {
    cls.__name__: cls
    for cls in (*vars(codes).values(), ErrorCode)
    if isinstance(cls, type) and issubclass(cls, Code) and cls is not Code
}
SECTIONS: Final = {
    "Header": "4.1",
    "Kind": "4.2",
    "Terms": "8.1",
    "CredentialsPlaintext": "8.2",
    "SignedKeyList": "8.4",
    "KeyList": "8.4",
    "PasswordKeyParameters": "8.4",
    "SuiteKey": "8.4",
    "ReceiptKey": "8.4",
    "Receipt": "8.5",
    "ReceiptStatement": "8.5",
    "Role": "5.1",
    "KeysStatus": "6.1",
    "TokenStatus": "6.2",
    "PaymentStatus": "6.4",
    "Reason": "6.4",
    "TransferOutcome": "7.2",
    "KemId": "8.2",
    "KdfId": "8.2",
    "AeadId": "8.2",
    "SealStatus": "Appendix A",
    "ErrorCode": "9",
}
"""Where spec/protocol.md declares what is no message."""
assert SECTIONS.keys() == {"Kind", *RECORDS, *REGISTRIES}

NEAREST_COUNT: Final = 3
"""Names that an error offers."""
_MASKS: Final = {
    Sensitivity.PUBLIC: "",
    Sensitivity.SIZED: " [masked to its size]",
    Sensitivity.SECRET: " [secret: masked]",
}


def describe(name: str) -> str:
    """Some lines on what `name` is: a kind by name or number, a record, a registry, or `all` of them.

    Raises PaygateExit(USAGE) with the nearest names for one that is not declared.
    """
    if _plain(name) == "all":
        return "\n".join([_kinds(), *map(_record, _all_records()), *map(_codes, REGISTRIES.values())])
    kind = kind_named(name)
    if kind is not None:
        return _record(MESSAGES[kind])
    if not name.strip():
        raise PaygateExit(
            "expected the name of a kind, a record or a registry; `describe all` lists them", ExitCode.USAGE
        )
    found = {_plain(known): known for known in SECTIONS}.get(_plain(name))
    if found is None:
        raise PaygateExit(_unknown_name(name, [*map(message_name, MESSAGES), *SECTIONS, "all"]), ExitCode.USAGE)
    if found == "Kind":
        return _kinds()
    return _record(RECORDS[found]) if found in RECORDS else _codes(REGISTRIES[found])


def kind_named(name: str) -> Kind | None:
    """The kind of that name in any case (`TokenQuery`, `TOKEN_QUERY`) or number (`0x10`, `16`), if there is one."""
    plain = _plain(name)
    by_name = {_plain(message_name(kind)): kind for kind in MESSAGES}
    if plain in by_name or not (name.isascii() and name.isalnum()):
        return by_name.get(plain)
    try:
        return Kind(int(name, 16 if name[:2] in ("0x", "0X") else 10))
    except ValueError:
        return None


def _unknown_name(name: str, known: Iterable[str]) -> str:
    """An error's text for a name that is not known, with those that are nearest to it."""
    by_plain = {_plain(one): one for one in known}
    near = [by_plain[plain] for plain in difflib.get_close_matches(_plain(name), by_plain, NEAREST_COUNT, 0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else "`describe all` lists them"
    return f"no kind, record or registry is called {escape_line(name)}; {hint}"


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


def _all_records() -> list[type[Record]]:
    return [Header, *MESSAGES.values(), *(cls for cls in RECORDS.values() if cls is not Header)]


# -- texts -------------------------------------------------------------------------------------------------


def _record(cls: type[Record]) -> str:
    kind = next((kind for kind, declared in MESSAGES.items() if declared is cls), None)
    if kind is None:
        size = size_words(*sizes_of(cls))
        lines = [f"{cls.__name__}: a record of {size} bytes (spec {SECTIONS[cls.__name__]})", first_sentence(cls)]
    else:
        size = size_words(*body_size_range(kind))
        head = f"{cls.__name__} (0x{kind:02x}): {route_words(kind)}, body {size} bytes"
        lines = [f"{head} (spec {MESSAGE_SECTIONS[kind]})", first_sentence(cls)]
        lines += _exchange(kind)
    rows: list[Sequence[str]] = [
        ("field", "type", "bytes", "meaning; what is allowed"),
        *map(_field_row, fields_of(cls)),
    ]
    lines += ["", *_table(rows)]
    if cls.rules:
        lines += ["", "rules between fields, in the order in which they are checked:"]
        lines += _table([(f"{rule.field}:", rule.expected) for rule in cls.rules])
    return "\n".join(lines) + "\n"


def _exchange(kind: Kind) -> list[str]:
    if kind is Kind.ERROR:
        return []
    if kind.is_reply:
        request = next(one for one in MESSAGES if not one.is_reply and one is not Kind.ERROR and one.reply is kind)
        return [f"It answers {message_name(request)}."]
    return [f"The answer is {message_name(kind.reply)}, or Error."]


def _field_row(field: WireField) -> tuple[str, ...]:
    return (
        field.name,
        type_words(field.type),
        size_words(field.type.size_min, field.type.size_max),
        "; ".join(filter(None, [field.doc, allowed_words(field.type)])) + _MASKS[field.sensitivity],
    )


def _codes(registry: type[Code]) -> str:
    lines = [f"{registry.__name__}: a registry of codes (spec {SECTIONS[registry.__name__]})"]
    lines += [first_sentence(registry), "", *_table([("code", "name", "meaning"), *map(_code_row, registry)])]
    return "\n".join(lines) + "\n"


def _code_row(code: Code) -> tuple[str, ...]:
    return (str(int(code)), code.name, code.meaning)


def _kinds() -> str:
    rows = [("kind", "name", "route", "body bytes", "spec")]
    rows += [
        (f"0x{k:02x}", message_name(k), route_words(k), size_words(*body_size_range(k)), MESSAGE_SECTIONS[k])
        for k in MESSAGES
    ]
    return "\n".join([f"Kind: what a frame carries (spec {SECTIONS['Kind']})", "", *_table(rows)]) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
