"""`encode`: what `--json --show-secrets` printed becomes the very bytes again, and errors name the place, no value."""

import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import builders
import pytest
from dump.tape import Tape
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import records

from paygate.cli import ExitCode, PaygateExit
from paygate.codec.codes import Kind
from paygate.codec.frame import body_size_range, encode_frame, frame_checksum
from paygate.codec.limits import HEADER_SIZE
from paygate.codec.messages import MESSAGES, TokenQuery
from paygate.dump import schema
from paygate.dump.encode import LINE_SIZE_MAX, NO_FRAMES, encode_lines, run_encode
from paygate.dump.json_lines import SCHEMA, JsonLines
from paygate.dump.model import Finding, Item, Side, StreamEvent

KEY = b"k" * 32
BY_HAND: dict[str, Any] = {
    "kind": "TokenQuery",
    "correlation_id": "1",
    "message": {"transaction_id": "TX-1", "passcode": "canary7"},
}


def printed(items: Iterable[Item], *, show_secrets: bool = True) -> list[bytes]:
    """The lines that `--json` prints."""
    parts: list[str] = []
    output = JsonLines(parts.append, show_secrets=show_secrets)
    for item in items:
        output.receive(item)
    output.finish()
    return [part.encode() for part in parts]


def encoded(*objects: Any, link_key: bytes | None = None) -> list[bytes]:
    return list(encode_lines([json.dumps(one).encode() for one in objects], link_key))


def error_of(*objects: Any, link_key: bytes | None = None) -> str:
    with pytest.raises(PaygateExit) as caught:
        encoded(*objects, link_key=link_key)
    assert caught.value.code == ExitCode.USAGE
    assert "canary7" not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_frame_of_any_kind_comes_back_byte_by_byte(kind: Kind, data: st.DataObject) -> None:
    message = data.draw(records(MESSAGES[kind]))
    correlation_id = data.draw(st.integers(0, 2**64 - 1))
    link_key = data.draw(st.none() | st.binary(min_size=32, max_size=32))
    tape = Tape()
    seen = tape.frame(tape.flow(), Side.CALLER, message, correlation_id, link_key=link_key)
    assert list(encode_lines(printed([seen]), None)) == [seen.data]
    assert list(encode_lines(printed([seen]), KEY)) == [seen.data]  # a MAC that is there is kept, and none added


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_broken_bodies_and_wrong_macs_come_back_too(kind: Kind, data: st.DataObject) -> None:
    size_min, size_max = body_size_range(kind)
    body = data.draw(st.binary(min_size=size_min, max_size=min(size_max, size_min + 50)))
    mac = data.draw(st.just(b"") | st.binary(min_size=16, max_size=16))
    head = bytearray(encode_frame(builders.example(kind), 7)[:HEADER_SIZE])
    head[4:8] = (1 if mac else 0).to_bytes(2) + len(body).to_bytes(2)
    head[16:20] = frame_checksum(bytes(head) + body).to_bytes(4)
    tape = Tape()
    seen = tape.data(tape.flow(), Side.CALLER, bytes(head) + body + mac)
    assert list(encode_lines(printed([seen]), KEY)) == [seen.data]


def test_what_is_no_frame_is_skipped() -> None:
    tape = Tape()
    flow = tape.flow()
    items: list[Item] = [tape.note(flow, StreamEvent.OPENED), Finding("X", "", "", "", 1, None)]
    assert list(encode_lines([*printed(items), b"\n", b"  \n"], None)) == []


def test_whatever_type_the_schema_declares_is_a_frame_or_skipped() -> None:
    declared = {one["if"]["properties"]["type"]["const"] for one in schema.schema()["allOf"]}
    assert declared == {"frame", *NO_FRAMES}
    assert encoded(*({"type": name, "schema": SCHEMA} for name in NO_FRAMES)) == []
    assert encoded({"type": "frame", **BY_HAND}) == encoded(BY_HAND)


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind": "TokenQuery", "kind": "canary7"}',
        b'{"kind": "TokenQuery", "message": {"passcode": "canary7", "passcode": "1"}}',
        b'{"canary7": 1, "canary7": 1}',
    ],
    ids=len,
)
def test_a_name_that_stands_twice_is_refused_in_objects_of_any_depth(line: bytes) -> None:
    with pytest.raises(PaygateExit, match="expected each name once in an object, but one stands") as caught:
        list(encode_lines([line], None))
    assert "canary7" not in str(caught.value)


def test_an_object_by_hand_needs_three_members() -> None:
    frame = encode_frame(TokenQuery("TX-1", "canary7"), 1)
    assert encoded(BY_HAND) == [frame]
    assert encoded({**BY_HAND, "correlation_id": 1, "kind": "token_query"}) == [frame]
    assert encoded({**BY_HAND, "kind": "0x10", "flags": [], "mac": None, "body": None}, link_key=KEY) == [frame]


def test_a_link_key_makes_the_mac_that_is_missing() -> None:
    frame = encode_frame(TokenQuery("TX-1", "canary7"), 1, KEY)
    assert encoded(BY_HAND, link_key=KEY) == [frame]
    assert encoded({**BY_HAND, "flags": ["AUTHENTICATED"]}, link_key=KEY) == [frame]
    assert encoded({**BY_HAND, "mac": frame[-16:].hex()}) == [frame]
    text = error_of({**BY_HAND, "flags": ["AUTHENTICATED"]})
    assert text.startswith("line 1: mac: expected a MAC, since `flags` has AUTHENTICATED; or give --link-key")


def test_a_masked_value_says_how_to_get_the_real_one() -> None:
    tape = Tape()
    seen = tape.frame(tape.flow(), Side.CALLER, builders.example(Kind.TOKEN_QUERY), 1)
    with pytest.raises(PaygateExit, match=r"line 1: message\.passcode is masked: make the JSON with --show-secrets"):
        list(encode_lines(printed([seen], show_secrets=False), None))
    seen.message = None
    with pytest.raises(PaygateExit, match="line 1: body is masked"):
        list(encode_lines(printed([seen], show_secrets=False), None))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": "TokenQuerry"}, "kind: expected the name of a kind"),
        ({"kind": None}, "kind: expected"),
        ({"correlation_id": "01"}, "correlation_id: expected a whole number from 0"),
        ({"correlation_id": 2**64}, "correlation_id: expected"),
        ({"correlation_id": None}, "correlation_id: expected"),
        ({"message": None}, "message: expected an object"),
        ({"body": "00"}, "message: expected an object with the message's fields, or else `body`"),
        ({"message": {"transaction_id": "TX-1"}}, "message.passcode: expected a value"),
        ({"message": {"transaction_id": "TX-1", "passcode": "canary7 x"}}, "message.passcode: expected 1 to 32 bytes"),
        ({"message": {"transaction_id": "TX-1", "passcode": "canary7", "canary7": 1}}, "message: expected no fields"),
        ({"message": [["canary7"]]}, "message: expected an object with the fields of TokenQuery"),
        ({"flags": ["canary7"]}, "flags: expected a list of AUTHENTICATED"),
        ({"flags": 1}, "flags: expected a list"),
        ({"flags": [], "mac": "00" * 16}, "mac: expected null"),
        ({"mac": "00"}, "mac: expected 16 bytes"),
        ({"message": None, "body": "zz"}, "body: expected 0 to 65535 bytes"),
        ({"type": "Frame"}, "type: expected frame"),
        ({"type": 5}, "type: expected frame"),
        ({"type": ["end"]}, "type: expected frame"),
        ({"type": None}, "type: expected frame"),
        ({"corelation_id": 1}, "the object: expected no members but"),
        ({"schema": "paygate-dump/2"}, f"schema: expected {SCHEMA}"),
    ],
    ids=repr,
)
def test_an_error_names_the_line_the_member_and_what_was_expected(changes: dict[str, Any], expected: str) -> None:
    assert error_of(BY_HAND, {**BY_HAND, **changes}).startswith(f"line 2: {expected}")


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (b"{canary7", "column 2"),
        (b'{"canary7": 1\n', "column 14"),
        (b'  {"a" 1}', "column 8"),
        (b'"canary7', "column 1"),
        (b'"\xff"', "column 2"),
        (b"[" * 100_000, "the object"),
        (b"[]", "the object"),
        (b"7", "the object"),
        (b'{"a":' + b"9" * 5_000 + b"}", "the object"),
    ],
    ids=lambda value: None if isinstance(value, str) else len(value),
)
def test_what_is_no_object_is_told_with_its_place_and_without_repeating_it(line: bytes, place: str) -> None:
    with pytest.raises(PaygateExit, match=f"line 1: {place}: expected a JSON object") as caught:
        list(encode_lines([line], None))
    assert "canary7" not in str(caught.value)
    assert caught.value.__context__ is None or "canary7" not in repr(caught.value.__context__)


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_frames_are_written_as_bytes_or_as_hexadecimal_but_never_as_bytes_to_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "objects"
    path.write_text(json.dumps(BY_HAND) + "\n" + json.dumps(BY_HAND))
    frame = encode_frame(TokenQuery("TX-1", "canary7"), 1)
    for is_terminal, is_hex in ((False, False), (False, True), (True, True)):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", (Terminal if is_terminal else io.TextIOWrapper)(written))
        assert run_encode(str(path), link_key=None, is_hex=is_hex) == ExitCode.OK
        sys.stdout.flush()
        assert written.getvalue() == (f"{frame.hex()}\n".encode() if is_hex else frame) * 2
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO()))
    with pytest.raises(PaygateExit, match="--hex"):
        run_encode(str(path), link_key=None, is_hex=False)


def test_a_file_that_is_not_there_and_a_line_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PaygateExit, match="could not be read: No such file"):
        run_encode(str(tmp_path / "nothing"), link_key=None, is_hex=True)
    path = tmp_path / "long"
    path.write_bytes(b" " * (LINE_SIZE_MAX + 1))
    with pytest.raises(PaygateExit, match="is no frame"):
        run_encode(str(path), link_key=None, is_hex=True)
