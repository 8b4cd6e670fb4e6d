"""`spec/paygate.ksy`, compiled, reads every legal frame as the codec does, and refuses what layout and ranges can tell.

What it can't refuse is named in `can_tell`: the checksum, alphabets of texts, and rules between fields.
"""

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kaitaistruct import KaitaiStruct, KaitaiStructError  # type: ignore[import-untyped]  # ships no types
from spec.damage import damaged, damaged_header
from spec.dissectors import (
    ROOT,
    SEED,
    bad_value,
    body_of,
    compile_ksy,
    decoded,
    drawn,
    header_of,
    random_messages,
    refusal,
)
from specgen import kaitai
from specgen.declared import SEALED_RECORDS, SOCKET_MESSAGES, codes_from, records_from, snake_case
from specgen.words import SOCKET_KINDS
from strategies import records

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import Blob, Counted, Field, Nested, Record, Sensitivity, Text, fields_of
from paygate.codec.frame import encode_frame
from paygate.codec.messages import MESSAGES
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.walk import record_held

KSY = ROOT / "spec" / "paygate.ksy"
VECTORS = json.loads((ROOT / "spec" / "vectors" / "frames.json").read_text(encoding="utf-8"))
RECORDS = json.loads((ROOT / "spec" / "vectors" / "records.json").read_text(encoding="utf-8"))
SEALED = {record.__name__: record for record in SEALED_RECORDS}
LINK_KEY = b"k" * 32
REFUSED = (KaitaiStructError, EOFError, UnicodeDecodeError)
"""What a parser that Kaitai Struct made raises: a check failed, bytes are missing, or a text is not UTF-8."""


@pytest.fixture(scope="session")
def parser(tmp_path_factory: pytest.TempPathFactory) -> type[Any]:
    folder = tmp_path_factory.mktemp("ksy")
    compile_ksy(KSY, folder, "python")
    found: type[Any] = _imported(folder / "python" / "paygate.py").Paygate
    return found


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("paygate_ksy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# -- what was parsed, and what the declarations say ----------------------------------------------------------


def parsed_values(value: Any) -> Any:
    """Everything that a parser read, as (name, value) in the order in which it was read."""
    if isinstance(value, KaitaiStruct):
        return [(name, parsed_values(v)) for name, v in vars(value).items() if not name.startswith("_")]
    return [parsed_values(v) for v in value] if isinstance(value, list) else value


def declared_values(value: Record) -> list[tuple[str, Any]]:
    """The same of a record of ours, with the lengths and counts that stand before fields."""
    return [entry for f in fields_of(type(value)) for entry in _entries(f.name, f.type, getattr(value, f.name))]


def _entries(name: str, field: Field, value: Any) -> list[tuple[str, Any]]:
    match field:
        case Text():
            return [(f"{name}_size", len(value.encode())), (name, value)]
        case Blob():
            return [(f"{name}_size", len(value)), (name, value)]
        case Counted():
            return [(f"{name}_count", len(value)), (name, [_entries("", field.item, v)[0][1] for v in value])]
        case Nested():
            return [(name, declared_values(value))]
    return [(name, value)]


def can_tell(frame: bytes) -> bool:
    """Whether the codec refuses a frame for a reason that its layout and ranges tell."""
    error = refusal(frame)
    if error is None or error.code is ErrorCode.BAD_CHECKSUM:
        return False
    if error.code is not ErrorCode.BAD_VALUE:
        return True
    return can_tell_value(MESSAGES[Kind(frame[3])], body_of(frame), error)


def can_tell_value(record: type[Record], encoded: bytes, error: RemoteProtocolError) -> bool:
    """Whether a BAD_VALUE is more than a broken rule between fields or a character that a text may not have."""
    fault = bad_value(record, encoded, error)
    return fault is not None and not (isinstance(fault.field, Text) and fault.is_in_utf8)


# -- agreement -------------------------------------------------------------------------------------------


def test_every_legal_frame_is_read_as_the_codec_reads_it(parser: type[Any]) -> None:
    rng = random.Random(SEED)
    frames = []
    for message in random_messages():
        key = LINK_KEY if rng.random() < 0.5 else None
        frames.append((message, encode_frame(message, rng.getrandbits(64), key)))
    assert len(frames) >= 2_000
    rng.shuffle(frames)
    while frames:
        stream, frames = frames[:100], frames[100:]
        read = parser.from_bytes(b"".join(frame for _, frame in stream)).frames
        assert len(read) == len(stream)
        for (message, frame), found in zip(stream, read, strict=True):
            assert parsed_values(found.header) == list(header_of(frame).items()), frame.hex()
            assert found.header.kind.name == message.kind.name.lower()
            assert parsed_values(found.body.message) == declared_values(message), frame.hex()
            assert getattr(found, "mac", b"") == frame[limits.HEADER_SIZE + found.header.body_size :]


@pytest.mark.parametrize("record", SEALED_RECORDS, ids=lambda r: r.__name__)
def test_every_sealed_record_is_read_as_the_codec_reads_it(parser: type[Any], record: type[Record]) -> None:
    values = drawn(records(record), 40)
    assert values
    for value in values:
        encoded = encode_record(value)
        assert parsed_values(getattr(parser, record.__name__).from_bytes(encoded)) == declared_values(value)


def test_codes_have_the_names_of_the_registries(parser: type[Any]) -> None:
    for codes in codes_from(records_from([*SOCKET_MESSAGES, *SEALED_RECORDS])):
        assert {(e.name, int(e)) for e in getattr(parser, codes.__name__)} == {(c.name.lower(), int(c)) for c in codes}
    assert {int(e) for e in parser.Kind} == {int(kind) for kind in SOCKET_KINDS}


@pytest.mark.parametrize("entry", VECTORS["valid"], ids=lambda e: e["name"])
def test_every_valid_vector_is_read(parser: type[Any], entry: dict[str, Any]) -> None:
    frame = bytes.fromhex(entry["frame"])
    (found,) = parser.from_bytes(frame).frames
    assert parsed_values(found.body.message) == declared_values(decoded(frame))


# -- refusals --------------------------------------------------------------------------------------------


def refuses(parser: type[Any], frame: bytes) -> bool:
    try:
        parser.from_bytes(frame)
    except REFUSED:
        return True
    return False


@pytest.mark.parametrize("damage", [damaged, damaged_header], ids=lambda d: d.__name__)
def test_damage_is_refused_where_the_layout_tells_and_never_without_cause(parser: type[Any], damage: Any) -> None:
    rng = random.Random(SEED)
    refused = 0
    for message in random_messages():
        frame = damage(encode_frame(message, rng.getrandbits(64)), rng)
        found = refuses(parser, frame)
        assert found or not can_tell(frame), frame.hex()
        assert not found or refusal(frame) is not None, frame.hex()
        refused += found
    assert refused >= 500


INVALID = [e for e in VECTORS["invalid"] if ErrorCode(e["errors"][-1]["code"]) <= ErrorCode.BAD_VALUE]


@pytest.mark.parametrize("entry", INVALID, ids=lambda e: e["name"])
def test_an_invalid_vector_is_refused_where_the_layout_tells(parser: type[Any], entry: dict[str, Any]) -> None:
    frame = bytes.fromhex(entry["frame"])
    if not entry["header_suffices"]:
        assert refuses(parser, frame) is can_tell(frame)
        return
    # Without its body the frame is refused anyway, so the header alone says what was seen of it.
    if ErrorCode(entry["errors"][-1]["code"]) <= ErrorCode.UNKNOWN_FLAG:
        with pytest.raises(KaitaiStructError):
            parser.Header.from_bytes(frame)
    else:
        assert parsed_values(parser.Header.from_bytes(frame)) == list(header_of(frame).items())
        assert refuses(parser, frame)


@pytest.mark.parametrize("entry", RECORDS["valid"], ids=lambda e: e["name"])
def test_every_valid_record_vector_is_read(parser: type[Any], entry: dict[str, Any]) -> None:
    record, encoded = SEALED[entry["record"]], bytes.fromhex(entry["encoding"])
    found = getattr(parser, record.__name__).from_bytes(encoded)
    assert parsed_values(found) == declared_values(decode_record(record, encoded))
    assert found._io.is_eof()


@pytest.mark.parametrize("entry", RECORDS["invalid"], ids=lambda e: e["name"])
def test_an_invalid_record_vector_is_refused_where_the_layout_tells(parser: type[Any], entry: dict[str, Any]) -> None:
    """Bytes left over after a record on its own are for its reader to see; in a frame they are refused."""
    record, encoded = SEALED[entry["record"]], bytes.fromhex(entry["encoding"])
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(record, encoded)
    error = caught.value
    if error.code is ErrorCode.TRAILING_BYTES or (
        error.code is ErrorCode.BAD_VALUE and not can_tell_value(record, encoded, error)
    ):
        found = getattr(parser, record.__name__).from_bytes(encoded)
        assert found._io.is_eof() is (error.code is not ErrorCode.TRAILING_BYTES)
    else:
        with pytest.raises(REFUSED):
            getattr(parser, record.__name__).from_bytes(encoded)


def test_bytes_left_over_are_refused(parser: type[Any]) -> None:
    frame = encode_frame(random_messages()[0], 1)
    size = int.from_bytes(frame[6:8]) + 1
    longer = frame[:6] + size.to_bytes(2) + frame[8:] + b"\0"
    assert not refuses(parser, frame)
    assert refuses(parser, longer)


# -- the file itself -------------------------------------------------------------------------------------


def test_the_file_is_what_the_declarations_give() -> None:
    assert KSY.read_text(encoding="utf-8") == kaitai.render(), "stale: run make spec"


def test_it_names_every_kind_field_and_code_with_its_meaning() -> None:
    text = kaitai.render()
    every = records_from([*SOCKET_MESSAGES, *SEALED_RECORDS])
    for record in every:
        described = text[text.index(f"\n  {snake_case(record.__name__)}:\n") :]
        for field in fields_of(record):
            at = described.index(f"- id: {field.name}\n")
            described = described[at:]  # the next one stands after it
            assert json.dumps(field.doc, ensure_ascii=False)[1:-1] in described
        for rule in record.rules:
            assert f"- {rule.field}: {rule.expected}" in text
    for codes in codes_from(every):
        for code in codes:
            assert f"{int(code)}: {{id: {code.name.lower()}, doc: " in text
            assert json.dumps(code.meaning, ensure_ascii=False)[1:-1] in text
    for kind in SOCKET_KINDS:
        assert f"0x{kind:02x}: {{id: {kind.name.lower()}, doc: " in text


def test_what_may_not_be_shown_is_said() -> None:
    every = records_from([*SOCKET_MESSAGES, *SEALED_RECORDS])
    entries = dict.fromkeys(Sensitivity, 0)
    for record in every:
        for field in fields_of(record):
            entries[field.sensitivity] += 2 if isinstance(field.type, Text | Blob) else 1
    for sensitivity in (Sensitivity.SIZED, Sensitivity.SECRET):
        assert kaitai.render().count(f"-paygate-sensitivity: {sensitivity.name.lower()}") == entries[sensitivity] > 0


def test_blobs_that_hold_a_record_are_declared_so() -> None:
    every = records_from([*SOCKET_MESSAGES, *SEALED_RECORDS])
    held = {
        (f.name, r.__name__) for record in every for f in fields_of(record) if (r := record_held(f.type)) is not None
    }
    assert held == {("signed_key_list", "SignedKeyList"), ("key_list", "KeyList"), ("receipt", "Receipt")}


def test_it_is_translated_to_other_languages_without_a_warning(tmp_path: Path) -> None:
    compile_ksy(KSY, tmp_path, "python", "javascript", "java", "go")
    made = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert made == {"python/paygate.py", "javascript/Paygate.js", "java/Paygate.java", "go/paygate.go"}
    subprocess.run(["node", "--check", tmp_path / "javascript" / "Paygate.js"], check=True, timeout=30)


def test_ranges_suit_languages_without_unsigned_integers(tmp_path: Path) -> None:
    compile_ksy(KSY, tmp_path, "java", "go")
    java = (tmp_path / "java" / "Paygate.java").read_text(encoding="utf-8")
    # A u8 above 2^63 is negative in Java, so an upper bound alone would let it through.
    assert "if (!(this.authorisedAtMs >= 0))" in java
    go = (tmp_path / "go" / "paygate.go").read_text(encoding="utf-8")
    # Go compares no uint64 with an int64.
    assert f"this.AuthorisedAtMs <= uint64(int64({limits.TIME_MS_MAX}))" in go
