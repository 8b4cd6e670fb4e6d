"""Records as JSON objects: one form, through real JSON text and back, and nothing but that form."""

import json
from typing import Any

import pytest
from builders import example
from hypothesis import given
from hypothesis import strategies as st
from strategies import RECORDS, records

from paygate.codec.codes import Kind
from paygate.codec.fields import PAYMENT_ID, Record, Sensitivity, Uint, fields_of
from paygate.codec.jsonform import (
    BadJson,
    MaskedJson,
    from_json,
    from_wide_json,
    to_json,
    to_wide_json,
    value_from_json,
)
from paygate.codec.messages import TransferRequest
from paygate.codec.record_codec import encode_record


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_a_record_comes_back_through_json_text_in_both_forms(cls: type[Record], data: st.DataObject) -> None:
    value = data.draw(records(cls))
    text = json.dumps(to_json(value))
    again = from_json(cls, json.loads(text))
    assert again == value
    assert encode_record(again) == encode_record(value)
    assert list(json.loads(text)) == [f.name for f in fields_of(cls)]

    wide = json.loads(json.dumps(to_wide_json(value, masks=False)))
    assert from_wide_json(cls, wide) == value
    assert from_wide_json(cls, to_json(value)) == value
    for field in fields_of(cls):
        if isinstance(field.type, Uint):  # nothing beyond 2^53 is a number in the wide form
            assert isinstance(wide[field.name], str if field.type.width == 8 else int)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
@pytest.mark.parametrize("wrong", [None, 1.5, [], {}, "no such value\n", -1, [None], True, "zz", "00 00"], ids=repr)
def test_a_wrong_value_is_refused_with_its_path(kind: Kind, wrong: Any) -> None:
    message = example(kind)
    for field in fields_of(type(message)):
        try:
            value = from_json(type(message), {**to_json(message), field.name: wrong})
        except BadJson as error:
            path = error.path
        else:
            encode_record(value)  # then it is legal: `true` for a Boolean
            continue
        # The field itself, something in it, or another that no longer fits it.
        assert path.split(".")[0].split("[")[0] in {f.name for f in fields_of(type(message))}


def test_paths_lead_into_nested_records() -> None:
    message = example(Kind.TRANSFER_REQUEST)
    data = to_json(message)
    data["terms"]["amount_minor"] = 0
    with pytest.raises(BadJson, match=r"terms\.amount_minor: expected a whole number from 1 to"):
        from_json(TransferRequest, data)
    del data["terms"]["amount_minor"]
    with pytest.raises(BadJson, match=r"terms\.amount_minor: expected a value"):
        from_json(TransferRequest, data)


@pytest.mark.parametrize("data", [None, [], "text", 1])
def test_only_an_object_is_a_record(data: object) -> None:
    with pytest.raises(BadJson, match="the object: expected an object with the fields of TransferRequest"):
        from_json(TransferRequest, data)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(BadJson, match="no fields but terms, time_left_ms, key_id, envelope"):
        from_json(TransferRequest, {**to_json(example(Kind.TRANSFER_REQUEST)), "more": 1})


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_masks_stand_exactly_where_the_declaration_wants_them(kind: Kind) -> None:
    message = example(kind)
    masked, shown = to_wide_json(message, masks=True), to_wide_json(message, masks=False)
    for field in fields_of(type(message)):
        match field.sensitivity:
            case Sensitivity.SECRET:
                assert masked[field.name] == {"masked": "secret"}
            case Sensitivity.SIZED:
                assert masked[field.name] == {"masked": "sized", "size": len(getattr(message, field.name))}
            case Sensitivity.PUBLIC if kind is not Kind.SEAL_CREDENTIALS:  # whose suite key holds a sized field
                assert masked[field.name] == shown[field.name]


def test_no_record_is_made_of_a_mask() -> None:
    message = example(Kind.SEAL_CREDENTIALS)
    with pytest.raises(MaskedJson, match=r"suite_key\.public_key: expected a value, which is masked here") as caught:
        from_wide_json(type(message), to_wide_json(message, masks=True))
    within = caught.value.within("message")
    assert isinstance(within, MaskedJson)
    assert within.path == "message.suite_key.public_key"


@pytest.mark.parametrize(
    "text", ["", "01", "-1", "+1", " 1", "1 ", "1.0", "1e3", "\u0663", "9" * 21, "18446744073709551616"]
)
def test_a_decimal_string_has_one_form(text: str) -> None:
    with pytest.raises(BadJson, match="serial: expected a whole number"):
        value_from_json(Uint(8), text, "serial")
    with pytest.raises(BadJson):  # what 53 bits hold is a number, and nothing else
        value_from_json(Uint(4), "1", "leaf_index")


def test_a_value_alone_is_read_as_in_a_record() -> None:
    assert value_from_json(Uint(8), "18446744073709551615", "x") == 2**64 - 1
    assert value_from_json(PAYMENT_ID, "01" * 16, "x") == b"\1" * 16
    assert BadJson("", "y").within("x").path == "x"


def test_files_and_children_take_numbers_as_numbers_only() -> None:
    message = example(Kind.TRANSFER_REQUEST)
    with pytest.raises(BadJson, match=r"terms\.amount_minor: expected a whole number"):
        from_json(type(message), to_wide_json(message, masks=False))
