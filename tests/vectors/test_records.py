"""records.json against the codec."""

from typing import Any, Final

import pytest
from specgen.vector_values import encode, json_of, record_of
from vectors.vector_files import load

from paygate.codec import sealed
from paygate.codec.codes import Code, Reason, TransferOutcome
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import Record
from paygate.codec.record_codec import decode_record, encode_record

FILE: Final = load("records.json")
RECORDS: Final[dict[str, type[Record]]] = {
    name: declared
    for name, declared in vars(sealed).items()
    if isinstance(declared, type) and issubclass(declared, Record) and declared is not Record
}


@pytest.mark.parametrize("entry", FILE["valid"], ids=lambda entry: entry["name"])
def test_a_valid_encoding_decodes_to_its_fields_and_back(entry: dict[str, Any]) -> None:
    cls, data = RECORDS[entry["record"]], bytes.fromhex(entry["encoding"])
    value = decode_record(cls, data)
    assert json_of(value) == entry["fields"]
    assert record_of(cls, entry["fields"]) == value
    assert encode_record(value) == encode(value) == data


@pytest.mark.parametrize("entry", FILE["invalid"], ids=lambda entry: entry["name"])
def test_an_invalid_encoding_is_refused_with_its_code_and_path(entry: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        decode_record(RECORDS[entry["record"]], bytes.fromhex(entry["encoding"]))
    error = refused.value
    assert [{"code": int(error.code), "name": error.code.name}] == entry["errors"]
    assert error.path == entry["path"]


def test_every_record_has_valid_and_invalid_encodings_and_each_kind_of_fault() -> None:
    assert {entry["record"] for entry in FILE["valid"]} == set(RECORDS)
    for name in RECORDS:
        codes = {entry["errors"][0]["code"] for entry in FILE["invalid"] if entry["record"] == name}
        assert {ErrorCode.TRUNCATED_FIELD, ErrorCode.TRAILING_BYTES} <= codes, name


def test_names_are_unique() -> None:
    names = [entry["name"] for entry in FILE["valid"] + FILE["invalid"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("cls", RECORDS.values(), ids=RECORDS)
def test_every_rule_between_fields_is_broken_somewhere(cls: type[Record]) -> None:
    entries = [e for e in FILE["invalid"] if e["record"] == cls.__name__ and "/rule_" in e["name"]]
    assert {e["path"] for e in entries} == {rule.field for rule in cls.rules}


def test_every_suite_number_stands_in_a_valid_record() -> None:
    seen = {code for entry in FILE["valid"] for code in codes_in(record_of(RECORDS[entry["record"]], entry["fields"]))}
    for registry in {type(code) for code in seen} - {Reason, TransferOutcome}:
        assert set(registry) <= seen, registry


def codes_in(value: object) -> list[Code]:
    if isinstance(value, Code):
        return [value]
    if isinstance(value, tuple):
        return [code for item in value for code in codes_in(item)]
    if isinstance(value, Record):
        return [code for name in json_of(value) for code in codes_in(getattr(value, name))]
    return []
