"""`-v`: every byte of a frame stands in the tree, with its place, its field and its value; secrets as dots."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import builders
import pytest
from dump.tape import LinkTape, Tape, session
from hypothesis import given, settings
from hypothesis import strategies as st
from specgen.vector_session import PAID
from strategies import records

from paygate.codec.codes import Kind, Role
from paygate.codec.frame import body_size_range, encode_frame, frame_checksum
from paygate.codec.limits import HEADER_SIZE
from paygate.codec.messages import MESSAGES, Hello, TokenQuery
from paygate.codec.sealed import CredentialsPlaintext
from paygate.codec.walk import holds_secrets
from paygate.dump.model import Finding, Item, SeenFrame, Side, StreamEvent
from paygate.dump.output import Colours
from paygate.dump.tree import ROW_SIZE, Tree

QUERY_AS_TREE: Final = """\
2026-01-02
00:00:00.001000   1 127.0.0.1:40001 -> 127.0.0.1:15000 TokenQuery           #7   transaction=TX-1 passcode=<secret>
  0000  50 47                                            magic: the letters PG
  0002  01                                               version: 1
  0003  10                                               kind: 0x10 TokenQuery
  0004  00 01                                            flags: 0x0001 AUTHENTICATED
  0006  00 0a                                            body_size: 10
  0008  00 00 00 00 00 00 00 07                          correlation_id: 7
"""
_ROW: Final = re.compile(r"  ([0-9a-f]{4})  ((?:[0-9a-f]{2} ?|\.\. ?)*)")


def tree_of(items: Iterable[Item], *, is_coloured: bool = False, show_secrets: bool = False) -> str:
    """All that the tree writes."""
    parts: list[str] = []
    tree = Tree(parts.append, Colours(is_coloured), show_secrets=show_secrets)
    for item in items:
        tree.receive(item)
    tree.finish()
    return "".join(parts)


def bytes_in(text: str) -> bytes:
    """The bytes of all rows, each held against its offset; what is masked must not be among them."""
    data = b""
    for line in text.splitlines():
        row = _ROW.match(line)
        if row is not None:
            assert int(row[1], 16) == len(data)
            shown = bytes.fromhex(row[2])
            assert len(shown) <= ROW_SIZE
            data += shown
    return data


def seen_bytes(data: bytes) -> SeenFrame:
    tape = Tape()
    return tape.data(tape.flow(), Side.CALLER, data)


def with_body(kind: Kind, body: bytes) -> bytes:
    """A frame whose checksum is right, whatever its body is."""
    head = bytearray(encode_frame(builders.example(kind), 1)[:HEADER_SIZE])
    head[6:8] = len(body).to_bytes(2)
    head[16:20] = frame_checksum(bytes(head) + body).to_bytes(4)
    return bytes(head) + body


def test_a_frame_as_a_tree() -> None:
    text = tree_of([seen_bytes(encode_frame(TokenQuery("TX-1", "1234"), 7, b"k" * 32))])
    assert text.startswith(QUERY_AS_TREE)
    checksum, size, transaction, passcode_size, passcode, mac = text.splitlines()[8:]
    assert re.fullmatch(r"  0010  (\w\w ){4} +checksum: 0x\w{8}", checksum)
    assert size.split() == ["0014", "04", "transaction_id", "size:", "4", "bytes"]
    assert transaction.split() == ["0015", "54", "58", "2d", "31", "transaction_id:", "TX-1"]
    assert passcode_size.split() == ["0019", "..", "passcode", "size:", "<secret>"]
    assert passcode.split() == ["001a", "..", "..", "..", "..", "passcode:", "<secret>"]
    assert re.fullmatch(r"  001e  (\w\w ){16} mac: 16 bytes", mac)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_with_secrets_all_bytes_of_any_frame_are_there_in_order(kind: Kind, data: st.DataObject) -> None:
    link_key = data.draw(st.none() | st.just(b"k" * 32))
    seen = seen_bytes(encode_frame(data.draw(records(MESSAGES[kind])), 1, link_key))
    text = tree_of([seen], show_secrets=True)
    assert bytes_in(text) == seen.data
    assert text.replace("\n", "").isprintable()
    assert re.sub(r"\x1b\[[0-9]*m", "", tree_of([seen], is_coloured=True, show_secrets=True)) == text


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
@settings(max_examples=15, deadline=None)
@given(body=st.binary(max_size=200))
def test_any_body_is_shown_whatever_is_wrong_with_it(kind: Kind, body: bytes) -> None:
    size_min, size_max = body_size_range(kind)
    seen = seen_bytes(with_body(kind, body.ljust(size_min, b"\1")[:size_max]))
    assert bytes_in(tree_of([seen], show_secrets=True)) == seen.data
    masked = tree_of([seen])
    assert masked.replace("\n", "").isprintable()


@pytest.mark.parametrize("kind", [kind for kind in Kind if holds_secrets(MESSAGES[kind])], ids=lambda kind: kind.name)
def test_no_byte_of_a_secret_is_shown_without_being_asked_for(kind: Kind) -> None:
    canary = "canary7hunter2"
    usual = builders.example(kind)
    for name in ("passcode", "user_id", "password", "verifier"):
        if not hasattr(usual, name):
            continue
        value = canary if isinstance(getattr(usual, name), str) else canary.encode().ljust(32, b"x")
        data = encode_frame(builders.with_changes(usual, **{name: value}), 1)
        # Sound, and with a wrong byte, after which nobody knows where the secret stands.
        broken = with_body(kind, b"\xff" + data[HEADER_SIZE + 1 :])
        for sent in (data, broken):
            text = tree_of([seen_bytes(sent)])
            assert canary not in text
            assert canary.encode().hex(" ")[:11] not in text
            assert "<secret>" in text


def test_amounts_times_and_codes_are_told_in_words() -> None:
    text = tree_of([seen_bytes(encode_frame(builders.example(Kind.TRANSFER_REQUEST), 1))])
    assert "terms.amount_minor: 125000 (1250.00 INR)\n" in text
    assert "terms.authorised_at_ms: 1767312000000 (2026-01-02T00:00:00.000Z)\n" in text
    assert "time_left_ms: 20000 (20s left)\n" in text
    assert "envelope: <304 bytes, X25519>\n" in text
    assert "role: 2 GATEWAY, takes tokens and forwards payments" in tree_of(
        [seen_bytes(encode_frame(Hello(Role.GATEWAY, "GW1", (1,)), 1))]
    )


def test_records_that_blobs_hold_are_opened() -> None:
    text = tree_of([seen_bytes(encode_frame(builders.example(kind), 1)) for kind in (Kind.PAYMENT_ACK, Kind.BANK_KEYS)])
    assert "receipt: Receipt, 222 bytes" in text
    assert "receipt.statement.outcome: 1 POSTED, the money has moved" in text
    assert "signed_key_list.key_list.suite_keys[0].kem_id: 32 X25519" in text


def test_a_broken_record_in_a_blob_is_told_at_its_field() -> None:
    ack = builders.example(Kind.PAYMENT_ACK)
    receipt = bytearray(getattr(ack, "receipt"))  # noqa: B009  # mypy knows no fields of a Message
    receipt[8] = 99  # the outcome, behind the receipt key's ID
    lines = tree_of([seen_bytes(encode_frame(builders.with_changes(ack, receipt=bytes(receipt)), 1))]).splitlines()
    place = next(i for i, line in enumerate(lines) if "receipt.statement.outcome:" in line)
    assert lines[place].endswith(["63", "receipt.statement.outcome: a value that breaks its declaration"][1])
    assert "! BAD_VALUE at receipt.statement.outcome: expected a code of the registry" in lines[place + 1]


def test_findings_stand_at_their_field_and_the_others_at_the_end() -> None:
    seen = replace(seen_bytes(encode_frame(Hello(Role.CLIENT, "me", (1,)), 1, b"k" * 32)), offset=1_000)

    def finding(path: str, offset: int | None) -> Finding:
        return Finding("BAD_VALUE", path or "all", "", "", 1, None, seen.flow, Side.CALLER, offset, path)

    # A list's item is named without its index by the decoder, and the MAC stands behind the body.
    seen.findings = tuple(
        finding(p, o) for p, o in [("version", 1_002), ("versions", 1_025), ("mac", None), ("", 1_000)]
    )
    lines = tree_of([seen]).splitlines()
    before = [lines[i - 1].split("  ")[-1].strip() for i, line in enumerate(lines) if "! BAD_VALUE" in line]
    assert before[0] == "version: 1"
    assert before[1].startswith("versions[0]") or before[1].startswith("versions count")
    assert before[2] == "mac: 16 bytes"
    assert "! BAD_VALUE at offset 1000: expected all" in lines[-1]


def test_what_an_opened_envelope_holds_stands_below_it() -> None:
    seen = LinkTape(Tape()).ask(builders.example(Kind.ENCRYPTED_CREDENTIALS), 2)
    seen.opened = CredentialsPlaintext(1, 4, b"asha".ljust(64, b"\0"), b"K" * 32, b"n" * 16, bytes(142))
    masked, shown = tree_of([seen]), tree_of([seen], show_secrets=True)
    assert "user_id: <secret>" in masked.split("envelope: <304 bytes, X25519>")[1]
    assert "user_id: asha" in shown
    for text in (masked, shown):
        assert (b"K" * 32).hex(" ")[:20] not in text.split("user_id:")[1]


def test_findings_and_connections_between_frames_are_lines() -> None:
    tape = Tape()
    note = tape.note(tape.flow(), StreamEvent.OPENED)
    finding = Finding("BYTES_MISSING", "", "7 bytes missing", "", 3, None)
    assert tree_of([note, finding]).splitlines()[1:] == [
        "00:00:00.001000   1 127.0.0.1:40001 -> 127.0.0.1:15000 connected",
        "-               ! BYTES_MISSING: got 7 bytes missing",
    ]


def test_a_whole_session_is_shown_byte_by_byte() -> None:
    frames = [item for item in session(PAID) if isinstance(item, SeenFrame)]
    assert frames
    for seen in frames:
        assert bytes_in(tree_of([seen], show_secrets=True)) == seen.data
