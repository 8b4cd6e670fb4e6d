"""The findings' registry: names, and sections of the spec that treat what they are cited for."""

import re
from pathlib import Path

import pytest
from builders import example, with_changes

import paygate
from paygate import dump
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import Sensitivity, fields_of
from paygate.codec.limits import HEADER_SIZE
from paygate.codec.messages import MESSAGES
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.walk import holds_secrets
from paygate.dump.findings import MESSAGE_SECTIONS, SECTIONS, OwnFinding, body_fault, body_section, bytes_text

SPEC = (Path(paygate.__file__).parent.parent / "spec" / "protocol.md").read_text()
SECRETS = {"passcode": "Zq%Xj=Wv", "password": "Zq%Xj=Wv Yk", "user_id": "Zq%Xj=Wv@k", "verifier": b"Zq%Xj=Wv" * 4}
SLIPPED = "a value that is not shown, since a secret may have slipped to its place"
SECRET_PARTS = ("Zq%", "%Xj", "=Wv", b"Zq%".hex(), b"%Xj".hex(), b"=Wv".hex())
"""What no finding may show of them, not even in hexadecimal."""


def section_text(number: str) -> str:
    """A section of the spec, from its heading to the next."""
    found = re.search(rf"^#+ {re.escape(number)}\.? .*?(?=^##)", SPEC + "\n##", re.MULTILINE | re.DOTALL)
    assert found is not None, f"the spec has no section {number}"
    return found[0]


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_each_code_cites_a_section_that_treats_it(code: ErrorCode) -> None:
    text = section_text(SECTIONS[code])
    field = {ErrorCode.BAD_CHECKSUM: "`checksum`"}.get(code, "")
    assert code.name in text or (field and field in text)


def test_the_section_helper_finds_one_section_and_no_more() -> None:
    assert "### 4.3 Checksum" in section_text("4.3")
    assert "### 4.4" not in section_text("4.3")


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_a_wrong_value_cites_the_section_that_declares_its_message(kind: Kind) -> None:
    section = body_section(ErrorCode.BAD_VALUE, kind)
    assert section == MESSAGE_SECTIONS[kind]
    assert f"<!-- spec: fields {MESSAGES[kind].__name__} -->" in section_text(section)
    assert body_section(ErrorCode.TRAILING_BYTES, kind) == "3.3"


def test_own_names_are_no_error_codes_and_have_a_meaning() -> None:
    assert not {own.name for own in OwnFinding} & {code.name for code in ErrorCode}
    assert all(own.value and own.value[0].islower() for own in OwnFinding)


def test_every_name_that_a_step_gives_a_finding_is_told_here() -> None:
    own = {own.name for own in OwnFinding}
    sources = {path.name: path.read_text() for path in Path(dump.__path__[0]).glob("*.py")}
    # A step names its findings by a member, or by a constant that has the member's name for its value.
    named = {
        (name, text) for name, source in sources.items() for text in re.findall(r': Final = "([A-Z_]{3,})"', source)
    }
    assert [(name, text) for name, text in sorted(named) if text not in own] == []
    used = {text for _, text in named} | {
        member for source in sources.values() for member in re.findall(r"OwnFinding\.([A-Z_]+)", source)
    }
    assert own <= used


def test_one_byte_is_not_bytes() -> None:
    assert [bytes_text(count) for count in (0, 1, 2)] == ["0 bytes", "1 byte", "2 bytes"]


@pytest.mark.parametrize(
    ("kind", "at", "byte", "path", "got"),
    [
        (Kind.TOKEN_ACK, 0, 99, "status", "99"),
        (Kind.TOKEN_ACK, 0, 3, "session_id", "0x" + bytes(range(17, 33)).hex()),
        (Kind.TOKEN_ACK, 20, 255, "session_left_ms", "30207"),
        (Kind.TOKEN_ACK, 21, 33, "merchant_id", "33 bytes"),
        (Kind.TOKEN_ACK, 22, 0x20, "merchant_id", "' -100', 5 bytes"),
        (Kind.TOKEN_ACK, 28, 0xFF, "merchant_name", "0xffc3bc6368657220262054c3b66368746572, which is no UTF-8"),
        (Kind.ERROR, 2, 7, "closes", "7"),
        (Kind.ERROR, 2, 1, "closes", "1"),
        (Kind.PAYMENT_ACK, 16, 4, "reason", "0 NONE"),
        (Kind.HELLO, 5, 0, "versions", "0 items"),
        (Kind.HELLO, 5, 9, "versions", "9 items"),
        (Kind.HELLO, 5, 2, "versions[1]", "the end of the body after 0 bytes of it"),
        (Kind.ENCRYPTED_CREDENTIALS, 48, 0xFF, "envelope", "65328 bytes"),
        (Kind.TOKEN_QUERY, 0, 33, "transaction_id", "33 bytes"),
        (Kind.TOKEN_QUERY, 1, 0x20, "transaction_id", SLIPPED),
        (Kind.TOKEN_QUERY, 9, 0x20, "passcode", "another value, which is secret"),
        (Kind.TOKEN_QUERY, 8, 5, "passcode", "the end of the body after 4 bytes of it"),
        (Kind.TOKEN_QUERY, 8, 3, "", "1 byte more"),
    ],
)
def test_what_stands_there_is_told_unless_it_is_or_may_be_secret(
    kind: Kind, at: int, byte: int, path: str, got: str
) -> None:
    body = bytearray(encode_record(example(kind)))
    body[at] = byte
    fault, told = body_fault(kind, bytes(HEADER_SIZE) + body)
    assert (fault.path, told) == (path, got)


@pytest.mark.parametrize("kind", [kind for kind in Kind if holds_secrets(MESSAGES[kind])], ids=lambda kind: kind.name)
def test_no_damage_makes_a_finding_show_a_secret(kind: Kind) -> None:
    secrets = {f.name: SECRETS[f.name] for f in fields_of(MESSAGES[kind]) if f.sensitivity is Sensitivity.SECRET}
    body = encode_record(with_changes(example(kind), **secrets))
    cut = [body[:end] for end in range(len(body))]
    changed = [body[:at] + bytes([byte]) + body[at + 1 :] for at in range(len(body)) for byte in range(256)]
    refused_count = 0
    for damaged in (*cut, *changed, body + body):
        try:
            decode_record(MESSAGES[kind], damaged)
        except RemoteProtocolError:
            fault, got = body_fault(kind, bytes(HEADER_SIZE) + damaged)
            text = f"{fault.path} {fault.expected} {got}"
            assert not any(part in text for part in SECRET_PARTS), text
            refused_count += 1
    assert refused_count > len(body)
