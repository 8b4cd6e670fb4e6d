"""`describe`: everything that is declared can be asked for, in any spelling, and cites the section that declares it."""

import re
from pathlib import Path
from typing import Final

import pytest

import paygate
from paygate.cli import ExitCode, PaygateExit
from paygate.codec.codes import Kind, Reason
from paygate.codec.describe import message_name
from paygate.codec.fields import Sensitivity, fields_of
from paygate.codec.frame import body_size_range
from paygate.codec.messages import MESSAGES
from paygate.dump.findings import MESSAGE_SECTIONS
from paygate.dump.kinds import RECORDS, REGISTRIES, SECTIONS, describe, kind_named

SPEC: Final = Path(paygate.__file__).parent.parent / "spec" / "protocol.md"
TOKEN_QUERY: Final = """\
TokenQuery (0x10): client to gateway, body 4 to 66 bytes (spec 6.2)
Asks whether a payment token is valid (R1).
The answer is TokenAck, or Error.

"""


def test_a_kind_with_its_fields() -> None:
    text = describe("TokenQuery")
    assert text.startswith(TOKEN_QUERY)
    head, transaction, passcode = text.removeprefix(TOKEN_QUERY).splitlines()
    assert re.split(r" {2,}", head.strip()) == ["field", "type", "bytes", "meaning; what is allowed"]
    assert re.split(r" {2,}", transaction.strip())[:3] == ["transaction_id", "text 1..32", "2 to 33"]
    assert passcode.endswith("the token's passcode; printable ASCII without blanks and '|' [secret: masked]")


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_every_kind_tells_what_its_declaration_says(kind: Kind) -> None:
    text = describe(message_name(kind))
    low, high = body_size_range(kind)
    assert text.startswith(f"{message_name(kind)} (0x{kind:02x}): ")
    assert f"body {low if low == high else f'{low} to {high}'} bytes (spec {MESSAGE_SECTIONS[kind]})" in text
    if kind.is_reply:
        assert f"It answers {message_name(Kind(kind & 0x7F))}." in text
    elif kind is not Kind.ERROR:
        assert f"The answer is {message_name(kind.reply)}, or Error." in text
    table = text.split("\n\n")[1].splitlines()[1:]
    for field, row in zip(fields_of(MESSAGES[kind]), table, strict=True):
        assert row.split()[0] == field.name
        assert field.doc in row
        assert ("[secret: masked]" in row) is (field.sensitivity is Sensitivity.SECRET)
        assert ("[masked to its size]" in row) is (field.sensitivity is Sensitivity.SIZED)
    for rule in MESSAGES[kind].rules:
        assert re.search(rf"^  {rule.field}: +{re.escape(rule.expected)}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["TokenQuery", "tokenquery", "TOKEN_QUERY", "token-query", "0x10", "0X10", "16"])
def test_a_kind_has_many_spellings(name: str) -> None:
    assert kind_named(name) is Kind.TOKEN_QUERY
    assert describe(name) == describe("TokenQuery")


@pytest.mark.parametrize("name", ["", "0x", "0x22", "-1", "1_6", "٣", "99999999999", "Terms", "0x1g"])
def test_what_is_no_kind_is_none(name: str) -> None:
    assert kind_named(name) is None


@pytest.mark.parametrize("name", [*RECORDS, *REGISTRIES, "Kind"])
def test_every_record_and_registry_can_be_asked_for(name: str) -> None:
    text = describe(name.upper())
    assert text.startswith(f"{name}: ")
    assert f"(spec {SECTIONS[name]})" in text.splitlines()[0]


def test_a_registry_lists_its_codes_with_their_meanings() -> None:
    lines = describe("Reason").splitlines()
    for reason in Reason:
        assert any(re.fullmatch(rf"  {reason:d} +{reason.name} +{re.escape(reason.meaning)}", line) for line in lines)


def test_all_is_all() -> None:
    text = describe("all")
    for name in (*map(message_name, Kind), *RECORDS, *REGISTRIES, "Kind"):
        assert describe(name) in text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("TokenQuerry", "did you mean TokenQuery"),
        ("termz", "did you mean Terms"),
        ("zzzzzzzz", "`describe all` lists them"),
        ("", "expected the name of a kind, a record or a registry; `describe all` lists them"),
        (" ", "expected the name of a kind"),
        ("a\x1b[2Jb", r"is called a\x1b[2Jb;"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(name: str, hint: str) -> None:
    with pytest.raises(PaygateExit) as caught:
        describe(name)
    assert hint in str(caught.value)
    assert caught.value.code == ExitCode.USAGE


def test_the_sections_are_where_the_spec_declares_them() -> None:
    section = ""
    declared = {}
    for line in SPEC.read_text(encoding="utf-8").splitlines():
        heading = re.match(r"##+ (Appendix \w|\d+(?:\.\d+)?)\b", line)
        if heading:
            section = heading[1]
        marker = re.match(r"<!-- spec: (?:fields|codes) (\w+) -->", line)
        if marker:
            declared[marker[1]] = section
    kinds = {message_name(kind): section for kind, section in MESSAGE_SECTIONS.items()}
    assert declared == {name: where for name, where in (SECTIONS | kinds).items() if name != "Kind"}
