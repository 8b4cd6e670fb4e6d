"""The schema: every file follows it, and no damaged one does."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from specgen import vectors
from vectors.vector_files import DIRECTORY, NAMES, load, texts

SCHEMA: Final = load("schema.json")
VALIDATOR: Final = Draft202012Validator(SCHEMA)
FILES: Final = [name for name in NAMES if name != "schema.json"]
INTEGER_MAX: Final = 2**53 - 1


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", FILES)
def test_a_file_follows_the_schema(name: str) -> None:
    assert [error.json_path for error in VALIDATOR.iter_errors(load(name))] == []


def test_the_files_are_what_the_generator_writes() -> None:
    previous = texts()
    assert vectors.render(previous) == previous
    assert set(previous) == set(NAMES)


def test_all_objects_of_the_schema_are_closed() -> None:
    for schema in schemas(SCHEMA["$defs"]):
        if "properties" in schema and schema.get("type") == "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])


def schemas(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from schemas(item)


# -- damage ----------------------------------------------------------------------------------------------

Damage = Callable[[dict[str, Any]], None]


def first_of(name: str, kind: str) -> int:
    return next(i for i, entry in enumerate(load(name)["valid"]) if entry["kind"]["name"] == kind)


TOKEN_ACK: Final = first_of("frames.json", "TokenAck")
ENCRYPTED_CREDENTIALS: Final = first_of("frames.json", "EncryptedCredentials")
DAMAGES: Final[dict[str, tuple[str, Damage]]] = {
    "another file": ("frames.json", lambda f: f.update(vectors="others")),
    "a file of another form": ("frames.json", lambda f: f.update(vectors="records")),
    "no name of the file": ("frames.json", lambda f: f.pop("vectors")),
    "an unknown member": ("frames.json", lambda f: f.update(more=1)),
    "no entries": ("frames.json", lambda f: f.update(valid=[])),
    "an unknown member of an entry": ("frames.json", lambda f: f["valid"][0].update(more=1)),
    "a missing member of an entry": ("frames.json", lambda f: f["valid"][0].pop("correlation_id")),
    "capitals in hexadecimal": ("frames.json", lambda f: f["valid"][0].update(frame=b"PG".hex() + "AB" * 20)),
    "half a byte": ("frames.json", lambda f: f["valid"][0].update(frame=f["valid"][0]["frame"][:-1])),
    "a u64 as a number": ("frames.json", lambda f: f["valid"][0].update(correlation_id=1)),
    "a u64 with a leading zero": ("frames.json", lambda f: f["valid"][0].update(correlation_id="01")),
    "a field of a u64 as a number": (
        "frames.json", lambda f: f["valid"][ENCRYPTED_CREDENTIALS]["fields"].update(authorised_at_ms=1)
    ),
    "a number as text": ("frames.json", lambda f: f["valid"][TOKEN_ACK]["fields"].update(session_left_ms="30000")),
    "a fraction": ("frames.json", lambda f: f["valid"][TOKEN_ACK]["fields"].update(session_left_ms=1.5)),
    "a number above its range": (
        "frames.json", lambda f: f["valid"][TOKEN_ACK]["fields"].update(session_left_ms=30_001)
    ),
    "a code without its name": ("frames.json", lambda f: f["valid"][TOKEN_ACK]["fields"].update(status=1)),
    "a code of another name": (
        "frames.json", lambda f: f["valid"][TOKEN_ACK]["fields"].update(status={"code": 1, "name": "PAID"})
    ),
    "fields of another kind": ("frames.json", lambda f: f["valid"][0].update(fields=f["valid"][TOKEN_ACK]["fields"])),
    "a field missing": ("frames.json", lambda f: f["valid"][TOKEN_ACK]["fields"].pop("utr")),
    "a field too many": ("frames.json", lambda f: f["valid"][TOKEN_ACK]["fields"].update(more="")),
    "an identifier that is none": ("frames.json", lambda f: f["valid"][0]["fields"].update(party_id="a b")),
    "an error that does not exist": ("frames.json", lambda f: f["invalid"][0].update(errors=[{"code": 19}])),
    "no error": ("frames.json", lambda f: f["invalid"][0].update(errors=[])),
    "a fault that does not close": ("frames.json", lambda f: f["invalid"][0].update(closes=False)),
    "a known kind without its name": ("frames.json", lambda f: f["invalid"][0].update(kind=1)),
    "an unknown record": ("records.json", lambda f: f["valid"][0].update(record="Header")),
    "fields of another record": ("records.json", lambda f: f["valid"][0].update(fields=f["valid"][-1]["fields"])),
    "a short hash": ("crypto.json", lambda f: f["x25519_envelope"].update(envelope_hash="00" * 31)),
    "a step missing": ("crypto.json", lambda f: f["x25519_envelope"]["steps"].pop("dh")),
    "an unknown result": ("crypto.json", lambda f: f["receipts"]["checks"][0].update(result="maybe")),
    "a connection that is none": ("session.json", lambda f: f["sessions"][0]["steps"][0].update(connection="bank")),
    "a secret missing": ("session.json", lambda f: f["secrets"].pop("pepper")),
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_seen(name: str, damage: Damage) -> None:
    file = copy.deepcopy(load(name))
    damage(file)
    assert not VALIDATOR.is_valid(file)


# -- conventions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_whole_and_every_reader_can_hold_them(name: str) -> None:
    def refuse(text: str) -> Any:
        raise AssertionError(f"{text} is no whole number")

    def whole(text: str) -> int:
        assert abs(int(text)) <= INTEGER_MAX
        return int(text)

    text = (DIRECTORY / name).read_text(encoding="utf-8")
    assert json.loads(text, parse_float=refuse, parse_constant=refuse, parse_int=whole)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_null_and_no_member_stands_twice(name: str) -> None:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        assert len(made) == len(pairs)
        assert None not in made.values()
        return made

    assert json.loads((DIRECTORY / name).read_text(encoding="utf-8"), object_pairs_hook=members)


def test_the_files_are_small_enough_to_be_read() -> None:
    assert sum(len(text.encode()) for text in texts().values()) < 1_500_000
