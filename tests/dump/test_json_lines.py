"""`--json`: every object follows the published schema and nothing but it, and a mask is never taken for a value."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import builders
import pytest
from dump.tape import BEGIN_NS, LinkTape, Tape, damaged, session, through
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from specgen.vector_session import SESSIONS
from strategies import records

import paygate
from paygate.codec.codes import Kind
from paygate.codec.messages import MESSAGES
from paygate.codec.sealed import CredentialsPlaintext
from paygate.dump import schema
from paygate.dump.json_lines import SCHEMA, JsonLines, iso_time
from paygate.dump.links import Links
from paygate.dump.model import Finding, FlowKind, Item, Side, StreamEvent

SCHEMA_FILE: Final = Path(paygate.__file__).parent.parent / "spec" / "dump.schema.json"


def closed(of: Any) -> Any:
    """The schema as strict as this version is: no members but those that it knows."""
    if isinstance(of, list):
        return [closed(one) for one in of]
    if not isinstance(of, dict):
        return of
    inner = {name: closed(value) for name, value in of.items()}
    is_object = of.get("type") == "object" and "properties" in of and "$defs" not in of
    return inner | {"additionalProperties": False} if is_object else inner


STRICT: Final = Draft202012Validator(closed(schema.schema()))


def objects_of(items: Iterable[Item], *, show_secrets: bool = False) -> list[dict[str, Any]]:
    """All that `--json` writes, each object held against the schema."""
    parts: list[str] = []
    output = JsonLines(parts.append, show_secrets=show_secrets)
    for item in items:
        output.receive(item)
    output.finish()
    assert all(part.isascii() and part.endswith("\n") and part[:-1].isprintable() for part in parts)
    objects = [json.loads(part) for part in parts]
    for found in objects:
        STRICT.validate(found)
        assert found["schema"] == SCHEMA
    return objects


def test_the_schema_is_one_and_is_the_published_one() -> None:
    Draft202012Validator.check_schema(schema.schema())
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == schema.schema()


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_object_of_every_kind_follows_the_schema(kind: Kind, data: st.DataObject) -> None:
    tape = Tape()
    message = data.draw(records(MESSAGES[kind]))
    seen = tape.frame(tape.flow(), Side.CALLER, message, data.draw(st.integers(0, 2**64 - 1)))
    for show_secrets in (False, True):
        frame, end = objects_of([seen], show_secrets=show_secrets)
        assert (frame["type"], frame["kind"], frame["kind_code"]) == ("frame", MESSAGES[kind].__name__, kind)
        assert end["counts"] == {"frames": 1, "findings": 0, "connections": 0}


@pytest.mark.parametrize("payment", SESSIONS, ids=lambda payment: payment.name)
def test_whole_sessions_follow_the_schema(payment: Any) -> None:
    items = through(Links(), session(payment, with_lost=True))
    objects = objects_of(items)
    assert {found["type"] for found in objects} >= {"frame", "connection", "end"}
    assert objects[-1]["counts"]["frames"] == sum(found["type"] == "frame" for found in objects)
    answers = [found for found in objects if found["type"] == "frame" and found["answers"] is not None]
    for found in answers:
        asked = next(one for one in objects if one.get("index") == found["answers"]["index"])
        assert int(found["time_ns"]) - int(asked["time_ns"]) == int(found["latency_ns"])
        assert asked["packet"] == found["answers"]["packet"]
    assert answers


def test_what_does_not_fit_the_schema_is_refused_by_it() -> None:
    # The net has to catch something, or the tests above hold nothing.
    frame, _ = objects_of([LinkTape(Tape()).ask(builders.example(Kind.TOKEN_QUERY), 2)])
    for broken in (
        {**frame, "new": 1},
        {**frame, "correlation_id": 2},
        {**frame, "kind": "Unknown"},
        {**frame, "message": {**frame["message"], "passcode": None}},
        {**frame, "message": {}},
        {name: value for name, value in frame.items() if name != "answers"},
        {**frame, "type": "end"},
    ):
        assert not STRICT.is_valid(broken)
    # An older reader lets through what a newer tool adds.
    Draft202012Validator(schema.schema()).validate({**frame, "new": 1})


def test_what_is_masked_is_an_object_that_says_so() -> None:
    link = LinkTape(Tape())
    query, payment = (link.ask(builders.example(k), 2) for k in (Kind.TOKEN_QUERY, Kind.ENCRYPTED_CREDENTIALS))
    masked_query, masked_payment, _ = objects_of([query, payment])
    assert masked_query["message"]["passcode"] == {"masked": "secret"}
    assert masked_payment["message"]["envelope"] == {"masked": "sized", "size": 304}
    shown_query, shown_payment, _ = objects_of([query, payment], show_secrets=True)
    assert shown_query["message"]["passcode"] == "4321"
    assert len(bytes.fromhex(shown_payment["message"]["envelope"])) == 304


def test_a_broken_body_is_masked_whole() -> None:
    seen = damaged(LinkTape(Tape()).ask(builders.example(Kind.TOKEN_QUERY), 2))
    masked, _ = objects_of([seen])
    assert (masked["message"], masked["body"]) == (None, {"masked": "secret"})
    shown, _ = objects_of([seen], show_secrets=True)
    assert bytes.fromhex(shown["body"]) == seen.frame.body


@pytest.mark.parametrize(("user_id", "text"), [(b"asha", "asha"), (b"\xff\0", {"hex": "ff00"})])
def test_an_opened_envelope_never_shows_its_password_key(user_id: bytes, text: Any) -> None:
    seen = LinkTape(Tape()).ask(builders.example(Kind.ENCRYPTED_CREDENTIALS), 2)
    seen.opened = CredentialsPlaintext(1, len(user_id), user_id.ljust(64, b"\0"), b"K" * 32, b"n" * 16, bytes(142))
    secret = {"masked": "secret"}
    assert objects_of([seen])[0]["opened"] == {"user_id": secret, "password_key": secret}
    assert objects_of([seen], show_secrets=True)[0]["opened"] == {"user_id": text, "password_key": secret}


def test_findings_say_where_and_are_counted_wherever_they_stand() -> None:
    tape = Tape()
    seen = tape.frame(tape.flow(), Side.ANSWERER, builders.example(Kind.ECHO), 1)
    alone = Finding("BYTES_MISSING", "", "7 bytes", "", 9, None)
    seen.findings = (Finding("BAD_MAC", "a", "b", "4.4", 1, 5, seen.flow, Side.ANSWERER, 77, "mac", 50),)
    frame, finding, end = objects_of([seen, alone])
    (within,) = frame["findings"]
    assert [within[name] for name in ("name", "flow", "side", "offset", "frame_offset", "path", "section")] == [
        *("BAD_MAC", 1, "answerer", 77, 50, "mac", "4.4")
    ]
    assert [finding[name] for name in ("name", "flow", "side", "offset", "time", "packet")] == [
        *("BYTES_MISSING", None, None, None, None, 9)
    ]
    assert end["counts"] == {"frames": 1, "findings": 2, "connections": 0}


def test_without_sides_nobody_is_said_to_have_sent() -> None:
    tape = Tape()
    flow = tape.flow(FlowKind.BYTES, knows_sides=False)
    frame, note, _ = objects_of(
        [tape.frame(flow, Side.CALLER, builders.example(Kind.ECHO), 1), tape.note(flow, StreamEvent.CAPTURE_ENDED)]
    )
    for found in (frame, note):
        assert [found[name] for name in ("side", "sender", "receiver")] == [None] * 3
        assert found["source"] == "BYTES"


def test_times_are_exact_and_absurd_ones_have_no_calendar_form() -> None:
    assert iso_time(BEGIN_NS + 123_456_789) == "2026-01-02T00:00:00.123456789Z"
    assert iso_time(-1) == "1969-12-31T23:59:59.999999999Z"
    assert iso_time(10**30) is None
    tape = Tape()
    seen = replace(tape.frame(tape.flow(), Side.CALLER, builders.example(Kind.ECHO), 1), time_ns=10**30)
    frame, _ = objects_of([seen])
    assert (frame["time"], frame["time_ns"]) == (None, str(10**30))


def test_no_name_from_a_file_steers_the_terminal() -> None:
    tape = Tape()
    flow = tape.flow()
    flow.party_ids[0] = "\x1b[2J\u202e\n"
    assert objects_of([tape.note(flow, StreamEvent.OPENED)])[0]["sender"]["party_id"] == "\x1b[2J\u202e\n"
