"""`spec/paygate.lua` in tshark shows every legal frame as the codec reads it, masks secrets, and marks every fault.

What it can't see is named in `can_see`: rules between fields, normal form C and Unicode categories, and everything
that needs a key or the state of a link.
"""

import json
import random
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest
from builders import PASSCODE, build_receipt, example
from spec.capture import Capture, Dissected, dissected
from spec.damage import damaged, damaged_header
from spec.dissectors import (
    ROOT,
    SEED,
    Fault,
    bad_value,
    body_of,
    drawn,
    random_messages,
    refusal,
    tshark,
)
from spec.expected import declared_fields, faults_of, header_fields, whole_frame, without_links
from specgen import wireshark
from specgen.declared import SOCKET_MESSAGES, codes_from, records_from, snake_case
from specgen.words import SOCKET_KINDS
from strategies import records

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, Kind, PaymentStatus, Reason
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import (
    Record,
    Text,
    fields_of,
)
from paygate.codec.frame import Header, encode_frame
from paygate.codec.messages import MESSAGES, BankKeys, Error, Message, PaymentAck, StatusQuery, TokenQuery
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import KeyList, Receipt, SignedKeyList

LUA = ROOT / "spec" / "paygate.lua"
VECTORS, RECORDS, SESSIONS = (
    json.loads((ROOT / "spec" / "vectors" / name).read_text(encoding="utf-8"))
    for name in ("frames.json", "records.json", "session.json")
)
CLIENT, GATEWAY, BANK = 40_000, 15_000, 15_001
LINK_KEY = b"k" * 32


def shown(capture: Capture, folder: Path, *options: str) -> list[Dissected]:
    """Every paygate frame of a capture as tshark shows it."""
    path = capture.write(folder / "capture.pcap")
    return dissected(tshark("-r", path, "-T", "json", "-J", "paygate", *options))


def one_a_packet(frames: Iterable[bytes]) -> Capture:
    """Each frame in a packet and a connection of its own, since nothing can follow some of them."""
    capture = Capture()
    for index, frame in enumerate(frames):
        capture.send(20_000 + index, GATEWAY, frame)
    return capture


# -- agreement -------------------------------------------------------------------------------------------


@cache
def legal_messages() -> list[Message]:
    """Random messages of every kind, and some whose blobs hold real records."""
    receipts = [encode_record(receipt) for receipt in drawn(records(Receipt), 60)]
    key_lists = [SignedKeyList(encode_record(keys), b"s" * 64) for keys in drawn(records(KeyList), 60)]
    return [
        *random_messages(),
        *(PaymentAck(b"p" * 16, PaymentStatus.DECLINED, Reason.FUNDS, "", receipt) for receipt in receipts),
        *(BankKeys(KeysStatus.AVAILABLE, encode_record(keys)) for keys in key_lists),
        *(example(kind) for kind in SOCKET_KINDS),
    ]


def test_every_legal_frame_is_shown_as_the_codec_reads_it(tmp_path: Path) -> None:
    """Both ways on both links, split and glued at random; each frame in the packet that ends it."""
    rng = random.Random(SEED)
    messages = list(legal_messages())
    assert len(messages) >= 2_000
    rng.shuffle(messages)
    capture = Capture()
    sent: list[tuple[int, bytes]] = []
    for start in range(0, len(messages), 10):
        server = rng.choice((GATEWAY, BANK))
        ports = rng.choice(((CLIENT, server), (server, CLIENT)))
        key = LINK_KEY if server == BANK else None
        frames = [encode_frame(m, rng.getrandbits(64), key) for m in messages[start : start + 10]]
        sent += zip(capture.send_split(*ports, frames, rng), frames, strict=True)
    found = shown(capture, tmp_path)
    assert len(found) == len(sent)
    for (number, frame), one in zip(sent, found, strict=True):
        assert one.number == number, frame.hex()
        assert without_links(one) == whole_frame(frame), frame.hex()
        assert faults_of(one) == [], frame.hex()


def test_every_valid_vector_is_shown_without_a_fault(tmp_path: Path) -> None:
    frames = [bytes.fromhex(entry["frame"]) for entry in VECTORS["valid"]]
    found = shown(one_a_packet(frames), tmp_path)
    assert len(found) == len(frames) > 0
    for frame, one in zip(frames, found, strict=True):
        assert without_links(one) == whole_frame(frame)
        assert faults_of(one) == []


def test_every_session_vector_is_shown_with_its_requests(tmp_path: Path) -> None:
    """Whole sessions in order; each reply leads back to the packet of the request that it answers."""
    for session in SESSIONS["sessions"]:
        steps = [step for step in session["steps"] if "frame" in step]
        ports = {name: 20_000 + n for n, name in enumerate(sorted({step["connection"] for step in steps}))}
        capture, requests = Capture(), {}
        for number, step in enumerate(steps, start=1):
            caller, server = ports[step["connection"]], BANK if step["link"] == "bank" else GATEWAY
            is_from_server = step["sender"] == ("bank" if server == BANK else "gateway")
            ends = (server, caller) if is_from_server else (caller, server)
            assert capture.send(*ends, bytes.fromhex(step["frame"])) == number
            requests[number] = (step["connection"], step["sender"], step["correlation_id"])
        found = shown(capture, tmp_path)
        assert [one.number for one in found] == [*requests]
        for step, one in zip(steps, found, strict=True):
            frame = bytes.fromhex(step["frame"])
            assert without_links(one) == whole_frame(frame)
            assert one.faults == []
            if Kind(step["kind"]["code"]).is_reply:
                asked = requests[int(one.value("paygate.request_in"))]
                assert asked == (step["connection"], step["receiver"], step["correlation_id"])


def test_record_vectors_are_told_from_what_is_not_their_record(tmp_path: Path) -> None:
    """Receipts and signed key lists inside a message: marked where they are not exactly one record by their layout."""
    frames, wanted = [], []
    for entry in [*RECORDS["valid"], *RECORDS["invalid"]]:
        encoded = bytes.fromhex(entry["encoding"])
        if entry["record"] == "Receipt" and len(encoded) <= limits.RECEIPT_SIZE_MAX:
            message: Message = PaymentAck(b"p" * 16, PaymentStatus.DECLINED, Reason.FUNDS, "", encoded)
            is_marked = is_marked_blob(Receipt, encoded)
        elif entry["record"] in ("SignedKeyList", "KeyList"):
            is_inner = entry["record"] == "KeyList"
            signed = encode_record(SignedKeyList(encoded, b"s" * 64)) if is_inner else encoded
            message = BankKeys(KeysStatus.AVAILABLE, signed)
            is_marked = is_marked_blob(KeyList if is_inner else SignedKeyList, encoded)
        else:
            continue
        frames.append(encode_frame(message, 1))
        wanted.append(["not_the_record"] if is_marked else [])
    assert [[name for name, _ in one.faults] for one in shown(one_a_packet(frames), tmp_path)] == wanted
    assert len(wanted) >= 150


def is_marked_blob(record: type[Record], encoded: bytes) -> bool:
    """Whether a blob is not exactly one record for a reason that the dissector knows."""
    try:
        decode_record(record, encoded)
    except RemoteProtocolError as error:
        return error.code is not ErrorCode.BAD_VALUE or bad_value(record, encoded, error) is not None
    return False


def test_a_blob_that_is_not_its_record_is_marked(tmp_path: Path) -> None:
    receipt = build_receipt()
    blobs = [receipt, receipt[:-1], receipt + b"x", b"x"]
    frames = [encode_frame(PaymentAck(b"p" * 16, PaymentStatus.DECLINED, Reason.FUNDS, "", b), 1) for b in blobs]
    marks = [[name for name, _ in one.faults] for one in shown(one_a_packet(frames), tmp_path)]
    assert marks == [[], ["not_the_record"], ["not_the_record"], ["not_the_record"]]


def test_a_refusal_of_the_peer_is_noted(tmp_path: Path) -> None:
    frames = [encode_frame(Error(code, code.closes, ""), 0) for code in ErrorCode]
    for code, one in zip(ErrorCode, shown(one_a_packet(frames), tmp_path), strict=True):
        ending = "; the sender closes the link" if code.closes else ""
        assert one.faults == [("error_frame", f"{code.name}: {code.meaning}{ending}")]


# -- faults ----------------------------------------------------------------------------------------------


def can_see(frame: bytes) -> tuple[str, str] | None:
    """Name and field of the fault that the dissector should mark, or None."""
    error = refusal(frame)
    if error is None:
        return None
    if error.code is ErrorCode.BAD_VALUE:
        fault = bad_value(MESSAGES[Kind(frame[3])], body_of(frame), error)
        if fault is None or is_beyond_lua(fault):
            return None
    assert error.code in wireshark.SEEN_FAULTS
    return error.code.name.lower(), error.path


def is_beyond_lua(fault: Fault) -> bool:
    """Whether a text has no fault but its normal form, or a category that only Unicode's tables tell."""
    if not isinstance(fault.field, Text) or fault.field.charset is not None or not fault.is_in_utf8:
        return False
    return not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in fault.content.decode())


def check_faults(frames: list[bytes], found: list[Dissected]) -> int:
    """Check that what was marked is what the codec refuses; return in how many frames."""
    assert len(found) == len(frames)
    marked = 0
    for frame, one in zip(frames, found, strict=True):
        wanted = can_see(frame)
        faults = [(name, text.partition(": ")[0] if ": " in text else "") for name, text in faults_of(one)]
        if wanted is not None:
            # The codec stops at its first fault; a rule that only it knows may come before one that both know.
            assert wanted in faults, (frame.hex(), faults)
            assert faults[0] == wanted, (frame.hex(), faults)
        elif refusal(frame) is None:
            assert faults == [], frame.hex()
            assert without_links(one) == whole_frame(frame), frame.hex()
        marked += bool(faults)
    return marked


@pytest.mark.parametrize("damage", [damaged, damaged_header], ids=lambda d: d.__name__)
def test_damage_is_marked_at_the_field_that_the_codec_names(
    damage: Callable[[bytes, random.Random], bytes], tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    frames = [damage(encode_frame(message, rng.getrandbits(64)), rng) for message in legal_messages()]
    assert check_faults(frames, shown(one_a_packet(frames), tmp_path)) >= 1_000


def test_every_invalid_vector_is_marked(tmp_path: Path) -> None:
    entries = [e for e in VECTORS["invalid"] if ErrorCode(e["errors"][-1]["code"]) in wireshark.SEEN_FAULTS]
    assert {e["errors"][-1]["name"] for e in entries} == {code.name for code in wireshark.SEEN_FAULTS}
    whole = [bytes.fromhex(e["frame"]) for e in entries if not e["header_suffices"]]
    assert check_faults(whole, shown(one_a_packet(whole), tmp_path)) >= 500
    heads = [e for e in entries if e["header_suffices"]]
    found = shown(one_a_packet(bytes.fromhex(e["frame"]) for e in heads), tmp_path)
    for entry, one in zip(heads, found, strict=True):
        ((name, text),) = one.faults
        assert (name, text.partition(":")[0]) == (entry["errors"][-1]["name"].lower(), entry["path"]), entry["name"]


def test_a_refused_header_waits_for_no_body(tmp_path: Path) -> None:
    """An unknown kind with 64 KiB announced is shown at once, as a receiver refuses it at once."""
    header = bytearray(encode_frame(example(Kind.ECHO), 1)[: limits.HEADER_SIZE])
    header[3], header[6:8] = 0x22, b"\xff\xff"
    capture = Capture()
    assert capture.send(CLIENT, GATEWAY, encode_frame(example(Kind.ECHO), 2) + header) == 1
    good, refused = shown(capture, tmp_path)
    assert good.faults == []
    assert [name for name, _ in refused.faults] == ["unknown_kind"]


def test_a_frame_that_the_capture_cut_is_no_fault(tmp_path: Path) -> None:
    capture = Capture()
    capture.send(CLIENT, GATEWAY, encode_frame(example(Kind.BANK_KEYS), 1), captured_size=60)
    assert all(one.faults == [] for one in shown(capture, tmp_path))


# -- secrets ---------------------------------------------------------------------------------------------


def test_no_secret_is_shown_in_words_or_in_json(tmp_path: Path) -> None:
    secret = "zq7Kd-Wx9Jv"
    frames = [
        encode_frame(TokenQuery("TX-1", secret), 1),
        encode_frame(StatusQuery(b"p" * 16, "TX-1", secret), 2),
    ]
    # A byte of damage anywhere: no shift of what is read may bring it to light.
    rng = random.Random(SEED)
    for frame in list(frames):
        frames += [
            frame[:at] + bytes([frame[at] ^ (1 << rng.randrange(8))]) + frame[at + 1 :] for at in range(len(frame))
        ]
    path = one_a_packet(frames).write(tmp_path / "capture.pcap")
    in_words, as_json = tshark("-r", path, "-V"), tshark("-r", path, "-T", "json", "-J", "paygate")
    assert in_words.count("passcode: <secret>") == as_json.count('.passcode": "<secret>"') >= 2
    for printed in (in_words, as_json, tshark("-r", path)):
        # A few characters side by side tell of it too; bytes are shown with and without colons.
        for piece in (secret[:3], secret[4:7], secret[-3:]):
            for form in (piece, piece.encode().hex(), piece.encode().hex(":")):
                assert form not in printed


def test_a_kind_of_the_pipes_is_unknown_and_its_body_is_not_shown(tmp_path: Path) -> None:
    kinds = [kind for kind in Kind if kind not in SOCKET_KINDS]
    frames = [encode_frame(example(kind), 1) for kind in kinds]
    for frame, one in zip(frames, shown(one_a_packet(frames), tmp_path), strict=True):
        assert one.fields[: len(fields_of(Header))] == header_fields(frame)
        assert [name for name, _ in one.fields[len(fields_of(Header)) :]] == ["_ws.lua.text"]
        assert [name for name, _ in one.faults] == ["unknown_kind"]


def test_a_damaged_body_is_shown_only_when_asked_for(tmp_path: Path) -> None:
    frame = bytearray(encode_frame(example(Kind.HELLO), 1))
    frame[16] ^= 1
    (hidden,) = shown(one_a_packet([bytes(frame)]), tmp_path)
    (seen,) = shown(one_a_packet([bytes(frame)]), tmp_path, "-o", "paygate.shows_damaged:TRUE")
    assert not [name for name, _ in hidden.fields if name.startswith("paygate.hello.")]
    assert [e for e in seen.fields if e[0].startswith("paygate.hello.")] == declared_fields(example(Kind.HELLO))
    assert [name for name, _ in hidden.faults] == [name for name, _ in seen.faults] == ["bad_checksum"]


def test_a_sensitivity_that_is_not_known_is_not_shown(tmp_path: Path) -> None:
    text = wireshark.render()
    assert text.count('shows = "SECRET"') == 2
    strange = tmp_path / "strange.lua"
    strange.write_text(text.replace('shows = "SECRET"', 'shows = "RARE"'), encoding="utf-8")
    path = one_a_packet([encode_frame(example(Kind.TOKEN_QUERY), 1)]).write(tmp_path / "capture.pcap")
    printed = tshark("-r", path, "-V", lua=strange)
    assert "passcode: <secret>" in printed
    assert f": {PASSCODE}" not in printed


# -- ports, requests and replies -------------------------------------------------------------------------


def test_a_reply_is_led_back_to_its_request(tmp_path: Path) -> None:
    """Replies overtake each other; each end numbers its requests on its own."""
    capture = Capture()
    for correlation_id in (1, 2):
        capture.send(CLIENT, GATEWAY, encode_frame(example(Kind.TOKEN_QUERY), correlation_id))
    capture.send(GATEWAY, CLIENT, encode_frame(example(Kind.ECHO), 1))
    capture.send(GATEWAY, CLIENT, encode_frame(example(Kind.TOKEN_ACK), 2))
    capture.send(GATEWAY, CLIENT, encode_frame(Error(ErrorCode.TOO_MANY_REQUESTS, False, ""), 1))
    capture.send(CLIENT, GATEWAY, encode_frame(example(Kind.ECHO_REPLY), 1))
    capture.send(GATEWAY, CLIENT, encode_frame(example(Kind.TOKEN_ACK), 3))
    found = shown(capture, tmp_path, "-2")
    links = [
        {n.removeprefix("paygate."): int(v) for n, v in one.fields if n in ("paygate.request_in", "paygate.reply_in")}
        for one in found
    ]
    assert links == [
        *({"reply_in": 5}, {"reply_in": 4}, {"reply_in": 6}),
        *({"request_in": 2}, {"request_in": 1}, {"request_in": 3}),
        {},
    ]


def test_the_info_column_says_kind_correlation_and_codes(tmp_path: Path) -> None:
    capture = Capture()
    frames = [encode_frame(example(kind), 0xFFFF_FFFF_0000_0001) for kind in (Kind.PAYMENT_ACK, Kind.TRANSFER_RESULT)]
    capture.send(GATEWAY, CLIENT, b"".join(frames))
    printed = tshark("-r", capture.write(tmp_path / "capture.pcap"))
    assert "PaymentAck 0xffffffff00000001 status=PAID reason=NONE" in printed
    assert "TransferResult 0xffffffff00000001 outcome=POSTED reason=NONE" in printed


def test_frames_are_found_on_any_port_and_other_text_is_not_taken_for_them(tmp_path: Path) -> None:
    capture = Capture()
    frames = [encode_frame(example(kind), 1) for kind in SOCKET_KINDS]
    for at in range(0, len(frames), 5):
        capture.send(50_000, 7_777, b"".join(frames[at : at + 5]))
    capture.send(50_001, 7_778, b"PGET / HTTP/1.1\r\nHost: nowhere\r\n\r\n")
    one_whole = encode_frame(example(Kind.HELLO), 1)
    capture.send(50_002, 7_779, one_whole[:2] + b"\2" + one_whole[3:])
    found = shown(capture, tmp_path)
    assert [without_links(one) for one in found] == [whole_frame(frame) for frame in frames]


def test_other_ports_can_be_set(tmp_path: Path) -> None:
    header = bytearray(encode_frame(example(Kind.ECHO), 1))
    header[2] = 9  # no heuristic takes it, so only the port says what it is
    capture = Capture()
    capture.send(CLIENT, 7_777, bytes(header))
    assert shown(capture, tmp_path) == []
    (by_preference,) = shown(capture, tmp_path, "-o", "paygate.ports:7777")
    (decoded_as,) = shown(capture, tmp_path, "-d", "tcp.port==7777,paygate")
    assert [name for name, _ in by_preference.faults] == ["unsupported_version"]
    assert decoded_as.fields == by_preference.fields


# -- the file itself -------------------------------------------------------------------------------------


def test_the_file_is_what_the_declarations_give() -> None:
    assert LUA.read_text(encoding="utf-8") == wireshark.render(), "stale: run make spec"


def test_it_names_every_kind_field_and_code_with_its_meaning() -> None:
    text = wireshark.render()
    every = records_from([Header, *SOCKET_MESSAGES])
    for record in every:
        described = text[text.index(f"\n  {snake_case(record.__name__)} = {{ name = ") :]
        for field in fields_of(record):
            described = described[described.index(f'{{ name = "{field.name}", ') :]
            line = described.partition("\n")[0]
            assert f'shows = "{field.sensitivity.name}", doc = {json.dumps(field.doc, ensure_ascii=False)}' in line
            assert f"expected = {json.dumps(field.type.expected, ensure_ascii=False)}" in line
    for codes in codes_from(every):
        for code in codes:
            assert f'[{int(code)}] = {{ name = "{code.name}", meaning = {json.dumps(code.meaning)} }}' in text
    for kind in SOCKET_KINDS:
        assert f'[0x{kind:02x}] = {{ name = "{MESSAGES[kind].__name__}", ' in text
    for code in wireshark.SEEN_FAULTS:
        assert f"{code.name} = {json.dumps(code.meaning)}" in text


def test_charsets_that_lua_can_not_match_are_refused() -> None:
    assert wireshark.lua_pattern(r"[A-Z]{4}P[0-9]+") == "^[A-Z][A-Z][A-Z][A-Z]P[0-9]+$"
    for charset in (r"(a|b)", r"[^a]", r"a?", r"\d", r"[%]", r"a{1,2}"):
        with pytest.raises(ValueError, match="no Lua pattern"):
            wireshark.lua_pattern(charset)
