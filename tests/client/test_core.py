"""The session against a scripted gateway, up to its answer: no socket, no child, no clock."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from builders import (
    BANK_ID,
    NOW_MS,
    PASSCODE,
    PASSWORD,
    TRANSACTION_ID,
    USER_ID,
    UTR,
    build_declined_statement,
    build_key_list,
    build_receipt,
    build_signed_key_list,
    build_statement,
    build_terms,
    build_token_ack,
    sealing_key,
)
from client_world import PAYMENT_ID, ROOT, World
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scripted_gateway import keys, proven, unproven

from paygate.client.effects import KeepSerial, Save, Seal, Send, StartSession
from paygate.client.order import BadInput
from paygate.client.payment import Outcome, Payment, PaymentState
from paygate.client.states import State
from paygate.codec.codes import KemId, KeysStatus, PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.errors import LocalProtocolError
from paygate.codec.messages import BankKeys, BankKeysQuery, EncryptedCredentials, StatusAck, TokenQuery
from paygate.codec.record_codec import encode_record
from paygate.codec.seal import envelope_hash, key_id_of, open_envelope, password_key, sign_key_list, sign_receipts

# -- from the token to the credentials ---------------------------------------------------------------------


@pytest.mark.pg("PG-TOK-4")
def test_a_session_asks_for_keys_and_token_and_is_acknowledged_only_with_both() -> None:
    world = World().connect()
    assert world.gateway.request(BankKeysQuery).bank_id == BANK_ID
    assert world.gateway.request(TokenQuery) == TokenQuery(TRANSACTION_ID, PASSCODE)
    world.reply(build_token_ack())
    world.expect_state(State.ASKING)
    world.reply(keys(build_signed_key_list()))
    world.expect_state(State.ACKNOWLEDGED)
    assert StartSession(30_000) in world.effects
    assert KeepSerial(ROOT, 7) in world.effects
    assert world.core.next_deadline_ms() is None


@pytest.mark.pg("PG-SES-1")
def test_the_session_is_as_short_as_the_gateway_says_and_begins_with_the_token_ack() -> None:
    world = World().connect().reply(build_token_ack(session_left_ms=12_345))
    assert StartSession(12_345) in world.effects
    world.time_up().expect_unsent(Outcome.TIMED_OUT, "Session ended after 12 seconds.")


@pytest.mark.pg("PG-TOK-4")
@pytest.mark.parametrize(
    ("token", "outcome", "word"),
    [
        ({"status": TokenStatus.PAID, "utr": UTR}, Outcome.ALREADY_PAID, UTR),
        ({"status": TokenStatus.EXPIRED}, Outcome.TOKEN_REFUSED, "expired"),
        ({"status": TokenStatus.IN_FLIGHT}, Outcome.TOKEN_REFUSED, "being paid right now"),
        ({"status": TokenStatus.INVALID, "merchant_id": ""}, Outcome.TOKEN_REFUSED, "not right"),
        ({"status": TokenStatus.LOCKED, "merchant_id": ""}, Outcome.TOKEN_REFUSED, "locked"),
    ],
)
def test_every_other_token_status_ends_the_session_and_asks_for_no_credentials(
    token: dict[str, object], outcome: Outcome, word: str
) -> None:
    told = {} if token.get("merchant_id") is None else {"merchant_name": "", "amount_minor": 0, "currency": ""}
    ack = build_token_ack(session_id=bytes(16), session_left_ms=0, **told, **token)
    world = World().connect().reply(ack).expect(outcome, word)  # the keys were not even waited for
    assert not world.result.money_may_have_moved
    assert world.count(Seal) == 0
    with pytest.raises(LocalProtocolError):
        world.authorise()


@pytest.mark.pg("PG-PAY-1")
def test_the_envelope_binds_what_was_shown_and_only_the_bank_can_open_it() -> None:
    world = World().send()
    sent = world.gateway.request(EncryptedCredentials)
    terms = build_terms()
    assert world.payment.terms == terms
    assert world.payment.envelope_hash == envelope_hash(sent.envelope)
    assert (sent.session_id, sent.payment_id, sent.authorised_at_ms) == (terms.session_id, PAYMENT_ID, NOW_MS)
    hybrid = sealing_key(KemId.MLKEM768_X25519)
    opened = open_envelope(hybrid, sent.key_id, terms, sent.envelope)
    assert opened.user_id == USER_ID
    assert opened.password_key == password_key(build_key_list().password_key, BANK_ID, USER_ID, PASSWORD)


@pytest.mark.pg("PG-ENV-6", "PG-TRM-2")
def test_the_terms_are_those_of_the_token_ack_the_own_query_and_the_own_clock() -> None:
    shown = build_token_ack(
        session_id=b"another session.",
        merchant_id="M-7",
        amount_minor=77,
        currency="JPY",
        gateway_id="GW-7",
    )
    world = World().acknowledge(shown)
    world.pass_time(3_000)
    world.authorise()
    sent = world.gateway.request(EncryptedCredentials)
    assert world.payment.terms == build_terms(
        session_id=shown.session_id,
        merchant_id="M-7",
        amount_minor=77,
        currency="JPY",
        gateway_id="GW-7",
        authorised_at_ms=NOW_MS + 3_000,
    )
    assert (sent.session_id, sent.payment_id, sent.authorised_at_ms) == (
        shown.session_id,
        PAYMENT_ID,
        NOW_MS + 3_000,
    )
    # Whatever happens afterwards, the envelope is made once.
    world.lose_link().connect().reply(keys(build_signed_key_list()))
    world.reply(proven(world.payment, StatusAck)).expect(Outcome.PAID)
    assert world.count(Seal) == 1


@pytest.mark.pg("PG-PWD-2")
def test_neither_password_nor_user_id_leaves_the_client() -> None:
    world = World()
    world.acknowledge()
    user_id, password = "canary-user-5f0c1d", "canary-password-9a7be2"
    world.perform(world.core.authorise(user_id, password, PAYMENT_ID, world.now))
    world.expect_state(State.SENT)
    sent = b"".join(effect.data for effect in world.effects if isinstance(effect, Send))
    assert encode_record(world.gateway.request(EncryptedCredentials)) in sent
    for canary in (user_id.encode(), password.encode(), PASSCODE.encode()):
        assert (canary in sent) is (canary == PASSCODE.encode())


@pytest.mark.pg("PG-ENV-3")
def test_the_best_suite_is_taken_unless_another_is_asked_for() -> None:
    for kem_id, expected in ((None, KemId.MLKEM768_X25519), (KemId.X25519, KemId.X25519)):
        world = World(kem_id=kem_id).send()
        sent = world.gateway.request(EncryptedCredentials)
        assert sent.key_id == sealing_key(expected).public_suite_key().key_id


def test_a_suite_that_the_list_does_not_hold_is_refused() -> None:
    signed = build_signed_key_list(suite_keys=(sealing_key(KemId.X25519).public_suite_key(),))
    world = World(kem_id=KemId.MLKEM768_X25519).acknowledge(signed_key_list=signed)
    world.expect_unsent(Outcome.UNTRUSTED, "no suite")


@pytest.mark.pg("PG-PAY-1")
def test_the_payment_is_on_disk_before_a_byte_of_it_leaves() -> None:
    world = World()
    world.saves = False
    world.acknowledge().authorise()
    world.expect_state(State.SAVING)
    assert world.saved == [world.payment]
    assert not [e for e in world.gateway.asked if isinstance(e.message, EncryptedCredentials)]
    assert isinstance(world.effects[-1], Save)
    world.perform(world.core.saved(world.now))
    assert world.gateway.request(EncryptedCredentials).payment_id == PAYMENT_ID


def test_a_payment_that_could_not_be_written_down_is_not_sent() -> None:
    world = World()
    world.saves = False
    world.acknowledge().authorise()
    world.perform(world.core.save_failed("the disk is full", world.now))
    world.expect_unsent(Outcome.FAILED, "the disk is full")
    assert not [e for e in world.gateway.asked if isinstance(e.message, EncryptedCredentials)]


def test_an_encoder_that_fails_ends_the_session() -> None:
    world = World()
    world.seals = False
    world.acknowledge().authorise()
    world.perform(world.core.seal_failed("the encoder ended with status 1", world.now))
    world.expect_unsent(Outcome.FAILED, "the encoder ended")


@pytest.mark.parametrize(("user_id", "password"), [("", "x"), ("a" * 65, "x"), ("asha", ""), ("asha", "a\x07b")])
def test_credentials_that_cannot_be_sent_are_refused_and_the_session_goes_on(user_id: str, password: str) -> None:
    world = World().acknowledge()
    with pytest.raises(BadInput) as error:
        world.core.authorise(user_id, password, PAYMENT_ID, world.now)
    assert "a\x07b" not in str(error.value)
    world.authorise()
    world.expect_state(State.SENT)


@pytest.mark.pg("PG-PWD-1")
def test_a_decomposed_user_id_is_sent_in_normal_form_c() -> None:
    world = World()
    world.seals = False
    world.acknowledge()
    (effect,) = world.core.authorise("asha\u0308", PASSWORD, PAYMENT_ID, world.now)
    assert isinstance(effect, Seal)
    assert effect.request.user_id == "ash\u00e4"


# -- keys that can't be trusted (T10, T11) -----------------------------------------------------------------


@pytest.mark.pg("PG-KEY-4", "PG-KEY-5", "PG-PAY-1")
@pytest.mark.parametrize(
    ("signed_key_list", "word"),
    [
        (sign_key_list(Ed25519PrivateKey.from_private_bytes(b"e" * 32), build_key_list()), "not signed by the pinned"),
        (build_signed_key_list(bank_id="BANK2"), "of bank BANK2"),
        (build_signed_key_list(serial=4), "older than 5"),
        (build_signed_key_list(valid_until_ms=NOW_MS), "not valid now"),
        (b"\x00\x01x", "malformed"),
    ],
)
def test_keys_that_cannot_be_trusted_end_the_session_before_a_password_is_asked(
    signed_key_list: bytes, word: str
) -> None:
    world = World(serial_min=5).acknowledge(signed_key_list=signed_key_list)
    world.expect_unsent(Outcome.UNTRUSTED, word)
    assert world.count(KeepSerial) == 0


@pytest.mark.pg("PG-PAY-1")
def test_a_gateway_of_another_bank_is_not_trusted() -> None:
    World().acknowledge(build_token_ack(bank_id="BANK2")).expect_unsent(Outcome.UNTRUSTED, "BANK2")


@pytest.mark.parametrize("status", [KeysStatus.UNAVAILABLE, KeysStatus.UNKNOWN_BANK])
def test_without_keys_nothing_can_be_paid(status: KeysStatus) -> None:
    world = World().connect().reply(build_token_ack()).reply(BankKeys(status, b""))
    world.expect_unsent(Outcome.REFUSED, "no keys of bank")


def test_the_same_serial_again_is_accepted() -> None:
    world = World(serial_min=7).acknowledge()
    world.expect_state(State.ACKNOWLEDGED)
    assert world.count(KeepSerial) == 0


# -- answers (T8, T9) --------------------------------------------------------------------------------------


@pytest.mark.pg("PG-PAY-10")
def test_paid_with_a_receipt_that_verifies_and_matches() -> None:
    world = World().send()
    world.reply(proven(world.payment)).expect(Outcome.PAID, UTR, "1250.00 INR", "Bücher & Töchter")
    assert world.result.utr == UTR
    assert world.result.receipt
    assert world.saved[-1].state is PaymentState.PAID
    assert world.saved[-1].receipt == world.result.receipt
    assert isinstance(world.effects[-1], Save)


@pytest.mark.parametrize("reason", [r for r in Reason if r.is_banks and r is not Reason.FENCED])
def test_every_decline_needs_its_receipt_too(reason: Reason) -> None:
    world = World().send()
    world.reply(proven(world.payment, outcome=TransferOutcome.DECLINED, reason=reason, utr=""))
    world.expect(Outcome.DECLINED, reason.meaning, "No money has moved.")
    assert not world.result.money_may_have_moved
    assert world.saved[-1].state is PaymentState.DECLINED
    assert world.saved[-1].reason is reason


@pytest.mark.pg("PG-PAY-10")
def test_a_fence_is_a_decline() -> None:
    world = World().send()
    world.reply(proven(world.payment, outcome=TransferOutcome.FENCED, reason=Reason.FENCED, utr=""))
    world.expect(Outcome.DECLINED)


def _flipped(receipt: bytes) -> bytes:
    return receipt[:-1] + bytes([receipt[-1] ^ 1])


def _by_a_stranger(payment: Payment) -> bytes:
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    statement = build_statement(
        receipt_key_id=key_id_of(stranger.public_key().public_bytes_raw()),
        terms=payment.terms,
        envelope_hash=payment.envelope_hash,
    )
    return sign_receipts(stranger, [statement])[0]


def _of(**changes: object) -> Callable[[Payment], bytes]:
    def receipt(payment: Payment) -> bytes:
        statement = build_statement(terms=payment.terms, envelope_hash=payment.envelope_hash)
        return build_receipt(replace(statement, **changes))  # type: ignore[arg-type]  # the fields of a statement

    return receipt


FORGERIES: list[tuple[str, Callable[[Payment], bytes]]] = [
    ("malformed", lambda _: b"no receipt at all"),
    ("does not verify", lambda payment: _flipped(_of()(payment))),
    ("does not hold", _by_a_stranger),
    ("its payment_id differs", _of(terms=build_terms(payment_id=b"o" * 16))),
    ("its amount_minor differs", _of(terms=build_terms(amount_minor=1))),
    ("its merchant_id differs", _of(terms=build_terms(merchant_id="M-666"))),
    ("another envelope", _of(envelope_hash=bytes(32))),
    ("another UTR", _of(utr="PGBKP120260102" + "00000009")),
    ("the receipt says declined", _of(outcome=TransferOutcome.DECLINED, reason=Reason.FUNDS, utr="")),
]


@pytest.mark.pg("PG-PAY-10", "PG-RCP-5")
@pytest.mark.parametrize(("word", "forge"), FORGERIES)
def test_paid_without_the_banks_proof_is_not_believed(word: str, forge: Callable[[Payment], bytes]) -> None:
    world = World().send()
    world.reply(unproven(world.payment, PaymentStatus.PAID, utr=UTR, receipt=forge(world.payment)))
    world.expect(Outcome.UNTRUSTED, word, "The gateway claims paid, without the bank's proof", PAYMENT_ID.hex())
    assert world.result.money_may_have_moved
    assert world.saved[-1].state is PaymentState.PENDING


@pytest.mark.pg("PG-PAY-10", "PG-RCP-5")
def test_declined_without_the_banks_proof_is_not_believed_either() -> None:
    for statement, word in (
        (build_declined_statement(terms=build_terms(payment_id=b"o" * 16)), "another payment"),
        (build_statement(), "the receipt says posted"),
        (build_declined_statement(reason=Reason.CREDENTIALS), "another reason, credentials"),
    ):
        world = World().send()
        receipt = build_receipt(replace(statement, envelope_hash=world.payment.envelope_hash))
        world.reply(unproven(world.payment, PaymentStatus.DECLINED, Reason.FUNDS, receipt=receipt))
        world.expect(Outcome.UNTRUSTED, word)
        assert world.saved[-1].state is PaymentState.PENDING


def test_an_answer_for_another_payment_is_not_believed() -> None:
    world = World().send()
    other = replace(world.payment, terms=build_terms(payment_id=b"o" * 16))
    world.reply(proven(other)).expect(Outcome.UNTRUSTED, "another payment")


@pytest.mark.pg("PG-PAY-11")
@pytest.mark.parametrize("reason", [r for r in Reason if r >= Reason.DRAINING])
def test_a_refusal_is_told_as_the_gateways_word(reason: Reason) -> None:
    world = World().send()
    utr = UTR if reason is Reason.TOKEN_PAID else ""
    world.reply(unproven(world.payment, PaymentStatus.REFUSED, reason, utr=utr))
    world.expect(
        Outcome.REFUSED,
        "The gateway says that it did not forward this payment: ",
        "That is its word, without the bank's proof that no money has moved.",
        f"Ask again with: paygate-client status {PAYMENT_ID.hex()}",
    )
    assert world.result.money_may_have_moved
    assert world.result.reason is reason
    assert world.saved[-1].state is PaymentState.REFUSED
    if utr:
        assert "another payment has paid this token" in world.result.text
        assert utr in world.result.text
