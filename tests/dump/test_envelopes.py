"""Opening envelopes with a bank's own keys, and what is shown of them."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import builders
import pytest
from dump.tape import LinkTape, Tape, findings_in, session, through
from specgen.vector_fixtures import HYBRID_KEY, USER_ID, X25519_KEY
from specgen.vector_session import PAID

from paygate.cli import ExitCode, PaygateExit
from paygate.codec.codes import KemId, Kind
from paygate.codec.messages import EncryptedCredentials, TokenQuery, TransferRequest
from paygate.codec.sealed import CredentialsPlaintext, Terms
from paygate.dump.envelopes import (
    ENVELOPE_KINDS,
    EnvelopeOpener,
    load_decode_key,
    opened_fields,
)
from paygate.dump.ladder import Ladder
from paygate.dump.links import Links
from paygate.dump.model import SeenFrame
from paygate.dump.output import Colours
from paygate.dump.summary import Summary

TERMS: Final = builders.build_terms()
both_suites = pytest.mark.parametrize("kem_id", KemId)


def links_with(*kem_ids: KemId) -> Links:
    """Links whose opener has the usual keys of these suites."""
    return Links(EnvelopeOpener([builders.sealing_key(kem_id) for kem_id in kem_ids]))


def transfer_of(kem_id: KemId, sealed_under: Terms = TERMS, sent_with: Terms = TERMS) -> TransferRequest:
    """A TransferRequest whose envelope was sealed under one set of terms and is sent with another."""
    key_id = builders.sealing_key(kem_id).public_suite_key().key_id
    return TransferRequest(sent_with, 20_000, key_id, builders.build_envelope(kem_id, sealed_under))


def credentials_of(transfer: TransferRequest) -> EncryptedCredentials:
    """The client's message that led to a TransferRequest."""
    terms = transfer.terms
    return EncryptedCredentials(
        terms.session_id, terms.payment_id, terms.authorised_at_ms, transfer.key_id, transfer.envelope
    )


def user_of(frame: SeenFrame) -> str:
    """The user ID that was found in a frame's envelope; empty if none was opened."""
    if frame.opened is None:
        return ""
    return frame.opened.user_id[: frame.opened.user_id_size].decode()


# -- opening ---------------------------------------------------------------------------------------------


def test_the_kinds_with_an_envelope_to_open_are_found_by_their_declarations() -> None:
    assert {Kind.ENCRYPTED_CREDENTIALS, Kind.TRANSFER_REQUEST, Kind.OPEN_ENVELOPE} == ENVELOPE_KINDS


def test_a_session_shows_the_customer_on_both_links() -> None:
    frames = [
        item
        for item in through(Links(EnvelopeOpener([X25519_KEY, HYBRID_KEY])), session(PAID))
        if isinstance(item, SeenFrame) and item.kind in ENVELOPE_KINDS
    ]
    assert [(frame.kind, user_of(frame), frame.findings) for frame in frames] == [
        (Kind.ENCRYPTED_CREDENTIALS, USER_ID, ()),
        (Kind.TRANSFER_REQUEST, USER_ID, ()),
    ]


def test_without_a_key_nothing_is_opened() -> None:
    frames = [item for item in through(Links(), session(PAID)) if isinstance(item, SeenFrame)]
    assert [frame.opened for frame in frames] == [None] * len(frames)


@both_suites
def test_an_envelope_of_either_suite_opens(kem_id: KemId) -> None:
    tape = Tape()
    frame = LinkTape(tape, is_bank_link=True, is_whole=False).ask(transfer_of(kem_id), 5)
    assert [f.name for f in findings_in(through(links_with(*KemId), tape.items))] == ["UNANSWERED"]
    assert user_of(frame) == builders.USER_ID


def test_credentials_whose_token_ack_was_not_seen_open_once_the_bank_link_told_their_terms() -> None:
    tape = Tape()
    client, bank = LinkTape(tape, is_whole=False), LinkTape(tape, is_bank_link=True, is_whole=False)
    transfer = transfer_of(KemId.X25519)
    first = client.ask(credentials_of(transfer), 5)
    bank.ask(transfer, 5)
    repeated = client.ask(credentials_of(transfer), 6)
    through(links_with(KemId.X25519), tape.items)
    assert (user_of(first), user_of(repeated)) == ("", builders.USER_ID)
    assert first.findings == ()


def test_an_envelope_under_other_terms_is_a_finding_that_says_what_could_be_wrong() -> None:
    tape = Tape()
    transfer = transfer_of(KemId.X25519, sent_with=replace(TERMS, amount_minor=1))
    frame = LinkTape(tape, is_bank_link=True, is_whole=False).ask(transfer, 5)
    through(links_with(KemId.X25519), tape.items)
    (finding,) = frame.findings
    assert (finding.name, finding.path, finding.section) == ("ENVELOPE_NOT_OPENED", "envelope", "8.2")
    assert transfer.key_id.hex() in finding.expected
    assert "sealed under other terms or for another key, or its bytes were changed" in finding.got


def test_where_the_two_links_differ_in_the_terms_the_finding_names_the_fields() -> None:
    tape = Tape()
    client, bank = LinkTape(tape, is_whole=False), LinkTape(tape, is_bank_link=True, is_whole=False)
    client.ask(TokenQuery(TERMS.transaction_id, builders.PASSCODE), 4)
    client.answer(builders.build_token_ack(), 4)
    honest = transfer_of(KemId.X25519)
    credentials = client.ask(credentials_of(honest), 5)
    changed = bank.ask(replace(honest, terms=replace(TERMS, merchant_id="M-666", amount_minor=1)), 5)
    through(links_with(KemId.X25519), tape.items)
    assert user_of(credentials) == builders.USER_ID
    (finding,) = changed.findings
    assert finding.got == "one that does not open: the two links' terms differ in merchant_id, amount_minor"


def test_a_changed_envelope_is_a_finding_and_shows_nothing_of_itself() -> None:
    tape = Tape()
    transfer = transfer_of(KemId.X25519)
    changed = replace(transfer, envelope=transfer.envelope[:-1] + bytes([transfer.envelope[-1] ^ 1]))
    frame = LinkTape(tape, is_bank_link=True, is_whole=False).ask(changed, 5)
    through(links_with(KemId.X25519), tape.items)
    (finding,) = frame.findings
    assert finding.name == "ENVELOPE_NOT_OPENED"
    assert changed.envelope.hex()[:16] not in repr(finding)


def test_envelopes_for_other_keys_only_are_one_finding_at_the_end() -> None:
    tape = Tape()
    link = LinkTape(tape, is_bank_link=True, is_whole=False)
    for number in (5, 6):
        link.ask(transfer_of(KemId.MLKEM768_X25519), number)
        link.ask(builders.example(Kind.RESOLVE_REQUEST), number + 10)
    found = findings_in(through(links_with(KemId.X25519), tape.items))
    assert [finding.name for finding in found] == ["UNANSWERED", "DECODE_KEY_UNUSED"]
    key_ids = [builders.sealing_key(kem_id).public_suite_key().key_id.hex() for kem_id in KemId]
    assert key_ids[0] in found[1].expected
    assert found[1].got == f"envelopes for {key_ids[1]}"


def test_a_key_is_not_told_as_unused_where_there_are_no_envelopes_at_all() -> None:
    tape = Tape()
    LinkTape(tape)
    assert findings_in(through(links_with(KemId.X25519), tape.items)) == []


def test_a_key_that_opened_something_is_of_use_and_no_finding() -> None:
    tape = Tape()
    link = LinkTape(tape, is_bank_link=True, is_whole=False)
    for number, kem_id in enumerate(KemId):
        link.ask(transfer_of(kem_id), number)
    assert [f.name for f in findings_in(through(links_with(KemId.X25519), tape.items))] == ["UNANSWERED"]


# -- showing ---------------------------------------------------------------------------------------------


def plaintext_of(user_id: bytes) -> CredentialsPlaintext:
    """An opened envelope."""
    return CredentialsPlaintext(1, len(user_id), user_id.ljust(64, b"\0"), b"k" * 32, b"n" * 16, bytes(142))


def test_an_opened_envelope_is_masked() -> None:
    assert opened_fields(plaintext_of(b"asha"), show_secrets=False) == [
        ("format_version", "1"),
        ("user_id", "<secret>"),
        ("password_key", "<secret>"),
        ("nonce", "<secret>"),
    ]


def test_asked_for_secrets_it_shows_the_user_id_and_never_the_password_key() -> None:
    shown = dict(opened_fields(plaintext_of(b"asha"), show_secrets=True))
    assert shown == {"format_version": "1", "user_id": "asha", "password_key": "<secret>", "nonce": "<secret>"}


@pytest.mark.parametrize(
    ("user_id", "shown"), [(b"\xff\xfe", "fffe"), (b"a\x1b[31m", "a\\x1b[31m"), ("zoë".encode(), "zoë")]
)
def test_a_strangers_user_id_can_not_lie_to_the_terminal(user_id: bytes, shown: str) -> None:
    assert dict(opened_fields(plaintext_of(user_id), show_secrets=True))["user_id"] == shown


@pytest.mark.parametrize(
    ("user_id", "shown"),
    [
        (b"asha", "asha"),
        (b'asha  answers "X"', r'"asha  answers \"X\""'),
        (b"a b\n", r'"a b\\x0a"'),
    ],
)
def test_the_short_line_of_an_opened_envelope_says_whose_it_is(user_id: bytes, shown: str) -> None:
    tape = Tape()
    frame = LinkTape(tape, is_bank_link=True, is_whole=False).ask(transfer_of(KemId.X25519), 5)
    assert frame.message is not None
    opened = plaintext_of(user_id)
    for shows, user in ((False, "<secret>"), (True, shown)):
        short = Summary(Colours(), show_secrets=shows)
        closed = short.text(frame.kind, frame.message)
        assert short.text(frame.kind, frame.message, opened) == f"{closed} opens: user={user}"
        assert "opens" not in closed


def test_a_ladder_of_usual_width_says_whose_envelope_it_is() -> None:
    tape = Tape()
    frame = LinkTape(tape, is_bank_link=True, is_whole=False).ask(transfer_of(KemId.X25519), 5)
    frame.opened = plaintext_of(b"asha")
    for shows, shown in ((False, "opens: user=<secret>"), (True, "opens: user=asha")):
        parts: list[str] = []
        Ladder(parts.append, Colours(), width=100, show_secrets=shows).receive(frame)
        assert shown in "".join(parts)


# -- key files -------------------------------------------------------------------------------------------


def key_file(directory: Path, content: str, name: str = "some.key", mode: int = 0o600) -> Path:
    """A file as the bank keeps its sealing keys."""
    path = directory / name
    path.write_text(content)
    path.chmod(mode)
    return path


@both_suites
def test_a_key_file_of_the_bank_is_taken_by_its_content(tmp_path: Path, kem_id: KemId) -> None:
    key = builders.sealing_key(kem_id)
    path = key_file(tmp_path, key.private_bytes().hex() + "\n", f"{key.public_suite_key().key_id.hex()}.suite.key")
    assert load_decode_key(path).public_suite_key() == key.public_suite_key()


def test_a_key_may_come_through_a_pipe_that_has_no_mode_of_its_own() -> None:
    key = builders.sealing_key(KemId.X25519)
    reading, writing = os.pipe()
    try:
        os.fchmod(writing, 0o644)
        os.write(writing, key.private_bytes().hex().encode())
        os.close(writing)
        assert load_decode_key(Path(f"/dev/fd/{reading}")).private_bytes() == key.private_bytes()
    finally:
        os.close(reading)


def refusal_of(path: Path) -> str:
    """Why a key file is refused."""
    with pytest.raises(PaygateExit) as caught:
        load_decode_key(path)
    assert caught.value.code is ExitCode.BAD_STATE
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_key_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "could not be read: No such file" in refusal_of(tmp_path / "none.key")
    assert "could not be read: Is a directory" in refusal_of(tmp_path)


def test_a_key_file_that_others_may_read_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    path = key_file(tmp_path, "00" * 32, mode=0o644)
    assert "others may read it (mode 0644); chmod 600 it first" in refusal_of(path)


@pytest.mark.parametrize("content", ["", "zz" * 32, "00" * 31, "00" * 33, "é" * 32, "00" * 5000])
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    refusal = refusal_of(key_file(tmp_path, content))
    assert "expected a private sealing key, hexadecimal digits (64 for X25519 or 192 for MLKEM768_X25519)" in refusal
    assert content[:32] not in refusal or not content


def test_a_key_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, builders.sealing_key(KemId.X25519).private_bytes().hex(), "0123456789abcdef.x25519.key")
    assert "not the one that its name says" in refusal_of(path)
