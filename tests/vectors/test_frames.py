"""frames.json against the codec and a real Link: what is valid is taken, what is not is refused with that code."""

from typing import Any, Final

import pytest
from specgen.vector_messages import variants
from specgen.vector_values import encode, json_of, record_of
from specgen.words import SOCKET_KINDS
from vectors.vector_files import load

from paygate.codec import limits
from paygate.codec.codes import Code, Kind, Role
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import Choice, fields_of
from paygate.codec.frame import Frame, body_size_range, decode_frame, decode_head, encode_frame
from paygate.codec.messages import MESSAGES, Error, Message
from paygate.link import Link
from paygate.link_events import LinkEvent, LinkFailed, Opened, PeerClosed, ReplyReceived, RequestReceived

FILE: Final = load("frames.json")
VALID: Final[list[dict[str, Any]]] = FILE["valid"]
INVALID: Final[list[dict[str, Any]]] = FILE["invalid"]
LINK_KEY: Final = bytes.fromhex(FILE["link_key"])
PARTIES: Final = {Role.CLIENT: "client", Role.GATEWAY: "GW1", Role.BANK: "BANK1"}
LINK_FINDS: Final = {ErrorCode.NOT_AUTHENTICATED, ErrorCode.UNEXPECTED_MAC, ErrorCode.UNEXPECTED_MESSAGE}


def by_name(entry: dict[str, Any]) -> str:
    return str(entry["name"])


def link_key_of(entry: dict[str, Any]) -> bytes | None:
    return LINK_KEY if entry["link"] == "bank" else None


def receiver_of(entry: dict[str, Any]) -> Link:
    """The end that a frame is for, in the state in which it may come, with the request that it answers asked."""
    sender, receiver = (Role[entry[end].upper()] for end in ("sender", "receiver"))
    is_caller = (receiver, sender) in ((Role.CLIENT, Role.GATEWAY), (Role.GATEWAY, Role.BANK))
    key = link_key_of(entry)

    def end(role: Role, peer: Role, *, calls: bool) -> Link:
        keys = {"link_key": key if calls else None, "key_of": (lambda _party: key) if key and not calls else None}
        return Link(role, PARTIES[role], peer, is_caller=calls, now_ms=0, **keys)  # type: ignore[arg-type]

    link = end(receiver, sender, calls=is_caller)
    kind = MESSAGES[Kind(entry["kind"]["code"])].kind if entry["kind"]["name"] else None
    if kind in (Kind.HELLO, Kind.HELLO_ACK):
        link.data_to_send()
        return link
    peer = end(sender, receiver, calls=not is_caller)
    caller, answering = (link, peer) if is_caller else (peer, link)
    answering.receive_data(caller.data_to_send(), 0)
    caller.receive_data(answering.data_to_send(), 0)
    assert link.is_open
    if is_caller:
        asked = Kind(kind & 0x7F) if kind and kind.is_reply else Kind.BANK_KEYS_QUERY
        assert link.send_request(next(iter(variants(asked, entry["link"]).values()))) == 2
    link.data_to_send()
    return link


def decode(frame: bytes, link_key: bytes | None) -> Frame:
    decoded = decode_frame(decode_head(frame[: limits.HEADER_SIZE]), frame)
    if decoded.mac and link_key:
        decoded.check_mac(link_key)
    return decoded


@pytest.mark.parametrize("entry", VALID, ids=by_name)
def test_a_valid_frame_decodes_to_its_fields_and_encodes_to_its_bytes(entry: dict[str, Any]) -> None:
    frame = bytes.fromhex(entry["frame"])
    decoded = decode(frame, link_key_of(entry))
    message = decoded.message()
    assert (int(decoded.kind), type(message).__name__) == (entry["kind"]["code"], entry["kind"]["name"])
    assert str(decoded.correlation_id) == entry["correlation_id"]
    assert bool(decoded.mac) is entry["authenticated"] is (entry["link"] == "bank")
    assert json_of(message) == entry["fields"]
    assert record_of(type(message), entry["fields"]) == message
    assert encode_frame(message, decoded.correlation_id, link_key_of(entry)) == frame
    assert encode(message) == decoded.body


@pytest.mark.parametrize("entry", VALID, ids=by_name)
def test_a_link_takes_a_valid_frame(entry: dict[str, Any]) -> None:
    link = receiver_of(entry)
    events = link.receive_data(bytes.fromhex(entry["frame"]), 0)
    message = record_of(MESSAGES[Kind(entry["kind"]["code"])], entry["fields"])
    assert_taken(link, events, message)


def assert_taken(link: Link, events: list[LinkEvent], message: Message) -> None:
    match message.kind:
        case Kind.HELLO | Kind.HELLO_ACK:
            assert [type(event) for event in events] == [Opened]
        case Kind.ECHO:
            assert not events
            assert link.data_to_send()
        case Kind.ECHO_REPLY:
            assert not events
            assert link.is_open
        case Kind.ERROR if isinstance(message, Error) and message.closes:
            assert isinstance(events[0], PeerClosed)
            assert events[0].code is message.code
        case _:
            assert isinstance(events[0], RequestReceived | ReplyReceived)
            assert events[0].message == message


@pytest.mark.parametrize("entry", INVALID, ids=by_name)
def test_the_codec_refuses_an_invalid_frame_with_its_code_and_path(entry: dict[str, Any]) -> None:
    frame = bytes.fromhex(entry["frame"])
    codes = [ErrorCode(error["code"]) for error in entry["errors"]]
    if codes[0] in LINK_FINDS:
        decode_head(frame[: limits.HEADER_SIZE])  # The header itself is in order.
        return
    if entry["name"].split("/")[-2:] in (["role", role.name.lower()] for role in Role):
        assert decode(frame, link_key_of(entry)).message()  # So is this frame: it came to the wrong port.
        return
    with pytest.raises(RemoteProtocolError) as refused:
        decode(frame, link_key_of(entry)).message()
    assert (refused.value.code, refused.value.path) == (codes[0], entry["path"])


@pytest.mark.parametrize("entry", INVALID, ids=by_name)
def test_a_link_refuses_an_invalid_frame_with_its_code_and_path(entry: dict[str, Any]) -> None:
    frame = bytes.fromhex(entry["frame"])
    assert (len(frame) == limits.HEADER_SIZE) is entry["header_suffices"]
    link = receiver_of(entry)
    assert link.receive_data(frame[:-1], 0) == []
    assert not link.is_closed
    events = link.receive_data(frame[-1:], 0)
    assert len(events) == 1
    assert isinstance(events[0], LinkFailed)
    error = events[0].error
    assert {"code": int(error.code), "name": error.code.name} == entry["errors"][0]
    assert error.path == entry["path"]
    assert link.is_closed is entry["closes"] is True
    told = bytes(link.data_to_send())
    complaint = decode(told, None).message()
    assert isinstance(complaint, Error)
    assert (complaint.code, complaint.closes) == (error.code, True)


# -- coverage --------------------------------------------------------------------------------------------


def test_names_are_unique() -> None:
    names = [entry["name"] for entry in VALID + INVALID]
    assert len(set(names)) == len(names)


def test_every_kind_that_travels_on_sockets_has_valid_and_invalid_frames() -> None:
    kinds = {int(kind) for kind in SOCKET_KINDS}
    assert {entry["kind"]["code"] for entry in VALID} == kinds
    assert kinds <= {entry["kind"]["code"] for entry in INVALID}


def test_every_kind_has_its_smallest_and_its_largest_body() -> None:
    for kind in SOCKET_KINDS:
        sizes = {
            len(entry["frame"]) // 2 - limits.HEADER_SIZE - (limits.MAC_SIZE if entry["authenticated"] else 0)
            for entry in VALID
            if entry["kind"]["code"] == kind
        }
        assert min(sizes) >= body_size_range(kind)[0]
        # What a rule between fields forbids to be empty, or to be set, at once is larger or smaller than the sum.
        if not MESSAGES[kind].rules:
            assert {min(sizes), max(sizes)} == set(body_size_range(kind))


def test_every_code_of_every_registry_stands_in_a_valid_frame() -> None:
    seen: set[Code] = set()
    for entry in VALID:
        message = record_of(MESSAGES[Kind(entry["kind"]["code"])], entry["fields"])
        seen |= {value for f in fields_of(type(message)) if isinstance(value := getattr(message, f.name), Code)}
    fields = [f.type for kind in SOCKET_KINDS for f in fields_of(MESSAGES[kind])]
    assert {code for field in fields if isinstance(field, Choice) for code in field.choices} <= seen


def test_every_error_that_a_frame_can_show_is_shown() -> None:
    shown = {error["code"] for entry in INVALID for error in entry["errors"]}
    assert set(range(1, 14)) <= shown
    for kind in SOCKET_KINDS:
        of_kind = {e["errors"][0]["code"] for e in INVALID if e["kind"]["code"] == kind}
        everywhere = {1, 2, 4, 5, 6, 9}
        assert everywhere <= of_kind, kind
        assert of_kind & {7, 8}, kind


@pytest.mark.parametrize("kind", SOCKET_KINDS, ids=lambda kind: kind.name)
def test_every_rule_between_fields_is_broken_somewhere(kind: Kind) -> None:
    broken = {e["path"] for e in INVALID if e["kind"]["code"] == kind and "/rule_" in e["name"]}
    assert broken == {rule.field for rule in MESSAGES[kind].rules}


def test_every_field_is_wrong_somewhere_but_those_that_take_any_bytes() -> None:
    wrong = {(e["kind"]["name"], e["path"].split(".")[0]) for e in INVALID if e["errors"][0]["code"] == 13}
    fields = {(MESSAGES[kind].__name__, f.name) for kind in SOCKET_KINDS for f in fields_of(MESSAGES[kind])}
    assert fields - wrong == {
        ("Echo", "echo_data"),
        ("EchoReply", "echo_data"),
        ("EncryptedCredentials", "key_id"),
        # All that varies in size there, so one that is too short or too long is refused from the header.
        ("EncryptedCredentials", "envelope"),
        ("TransferRequest", "key_id"),
        ("ResolveRequest", "envelope_hash"),
    }
    assert wrong <= fields


def test_every_kind_of_variable_size_is_cut_and_has_bytes_after_its_end() -> None:
    for kind in SOCKET_KINDS:
        size_min, size_max = body_size_range(kind)
        codes = {e["errors"][0]["code"] for e in INVALID if e["kind"]["code"] == kind}
        # A body of the one size that its kind has can't be too short or too long once its header is taken.
        assert ({11, 12} <= codes) is (size_min < size_max), kind
