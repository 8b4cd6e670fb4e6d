"""session.json: whole payments as bytes in order, on every link, with all that is needed to follow them.

Written from the spec, message by message; the tests play each session through real links, a real gateway's and a
real bank's core with its ledger, and the client's core, which must all say the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from paygate.codec.codes import KeysStatus, Kind, PaymentStatus, Reason, Role, TokenStatus, TransferOutcome
from paygate.codec.limits import FRAME_SIZE_MAX
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    EncryptedCredentials,
    Hello,
    HelloAck,
    Message,
    PaymentAck,
    ResolveRequest,
    ResolveResult,
    StatusAck,
    StatusQuery,
    TokenAck,
    TokenQuery,
    TransferRequest,
    TransferResult,
)
from paygate.codec.seal import (
    DEFAULT_PASSWORD_KEY,
    LABEL_ENVELOPE,
    envelope_hash,
    password_key,
    sign_receipts,
    verifier_of,
)
from paygate.codec.sealed import CredentialsPlaintext, Terms
from specgen.vector_fixtures import (
    AMOUNT_MINOR,
    BANK_ID,
    GATEWAY_ID,
    LINK_KEY,
    MERCHANT_ID,
    MERCHANT_NAME,
    NOW_MS,
    PASSCODE,
    PASSWORD,
    PEPPER,
    RECEIPT_KEY,
    ROOT_KEY,
    ROOT_PUBLIC_KEY,
    TRANSACTION_ID,
    USER_ID,
    UTR,
    X25519_KEY,
    build_signed_key_list,
    build_statement,
    build_terms,
    fixed_bytes,
)
from specgen.vector_frames import frame_bytes, link_key_of
from specgen.vector_hpke import seal_x25519
from specgen.vector_values import encode, json_of

SUITE_KEY: Final = X25519_KEY.public_suite_key()
SIGNED_KEY_LIST: Final = build_signed_key_list(suite_keys=(SUITE_KEY,))
AUTHORISED_AT_MS: Final = NOW_MS + 10_000
TIME_LEFT_MS: Final = 15_000
"""Spec 6.7: until 5 s before the end of a session whose first 10 s are over."""
DECIDED_AT_MS: Final = AUTHORISED_AT_MS + 40
RELINKED_AT_MS: Final = AUTHORISED_AT_MS + 2_000


class Step(NamedTuple):
    """One frame on its way; `connection` is its link and which connection of it, as `bank-2`."""

    at_ms: int
    connection: str
    sender: Role
    receiver: Role
    text: str
    message: Message
    correlation_id: int
    is_delivered: bool = True

    @property
    def link(self) -> str:
        """`client` or `bank`."""
        return self.connection.split("-", maxsplit=1)[0]

    @property
    def frame(self) -> bytes:
        """Its bytes."""
        return frame_bytes(self.message.kind, encode(self.message), self.correlation_id, link_key_of(self.link))


@dataclass(frozen=True)
class Payment:
    """What one session is about: a token, what the customer typed, and what the ends chose at random."""

    name: str
    transaction_id: str
    password: str

    @property
    def terms(self) -> Terms:
        """What the payment binds."""
        return build_terms(
            transaction_id=self.transaction_id,
            payment_id=fixed_bytes(f"payment ID of session {self.name}", 16),
            session_id=fixed_bytes(f"session ID of session {self.name}", 16),
            authorised_at_ms=AUTHORISED_AT_MS,
        )

    @property
    def nonce(self) -> bytes:
        """The envelope's nonce."""
        return fixed_bytes(f"nonce of session {self.name}", 16)

    @property
    def ephemeral_key(self) -> bytes:
        """The private half of the envelope's ephemeral key."""
        return fixed_bytes(f"ephemeral key of session {self.name}", 32)

    @cached_property
    def password_key(self) -> bytes:
        """Argon2id of the password."""
        return password_key(DEFAULT_PASSWORD_KEY, BANK_ID, USER_ID, self.password)

    @cached_property
    def envelope(self) -> bytes:
        """The credentials, sealed for the bank."""
        user_id = USER_ID.encode()
        padded = user_id.ljust(64, b"\0")
        plaintext = CredentialsPlaintext(1, len(user_id), padded, self.password_key, self.nonce, bytes(142))
        info = LABEL_ENVELOPE + SUITE_KEY.key_id + encode(self.terms)
        return seal_x25519(SUITE_KEY.public_key, self.ephemeral_key, info, encode(plaintext))["envelope"]

    def receipt(self, outcome: TransferOutcome, reason: Reason, bank_time_ms: int) -> bytes:
        """The bank's receipt of this outcome."""
        statement = build_statement(
            outcome=outcome,
            reason=reason,
            terms=self.terms,
            utr=UTR if outcome is TransferOutcome.POSTED else "",
            bank_time_ms=bank_time_ms,
            envelope_hash=envelope_hash(self.envelope),
        )
        return sign_receipts(RECEIPT_KEY, [statement])[0]


PAID: Final = Payment("payment", TRANSACTION_ID, PASSWORD)
DECLINED: Final = Payment("wrong_password", "TX-1002", "wrong horse")
FENCED: Final = Payment("fenced", "TX-1003", PASSWORD)
SESSIONS: Final = (PAID, DECLINED, FENCED)
_ABOUT: Final = {
    PAID: "A payment from connect to receipt, and a question about it afterwards.",
    DECLINED: "The customer types a wrong password; the bank declines and signs that too.",
    FENCED: "The connection to the bank breaks under the TransferRequest. The gateway asks on a new one what became "
    "of the payment; the bank never saw it and fences it: whenever the request comes now, it is refused.",
}


def payment_steps() -> Iterator[tuple[str, str, str, bytes]]:
    """The steps of the usual payment: what happens, sender, receiver, frame."""
    for step in steps_of(PAID):
        yield step.text, step.sender.name.lower(), step.receiver.name.lower(), step.frame


def steps_of(payment: Payment) -> list[Step]:
    """One session's frames in the order in which they are sent."""
    steps = [*_link_to_bank("bank-1", NOW_MS), *_until_token_ack(payment), *_until_transfer(payment)]
    if payment is FENCED:
        return steps + _resolved(payment)
    return steps + (_posted(payment) if payment is PAID else _wrong_password(payment))


def _link_to_bank(connection: str, at_ms: int) -> list[Step]:
    ends = (Role.GATEWAY, Role.BANK)
    back = (Role.BANK, Role.GATEWAY)
    hello, ack = Hello(Role.GATEWAY, GATEWAY_ID, (1,)), HelloAck(Role.BANK, BANK_ID, 1, FRAME_SIZE_MAX)
    return [
        Step(at_ms, connection, *ends, "The gateway says hello; the MAC proves that it is this gateway.", hello, 1),
        Step(at_ms, connection, *back, "The bank knows the gateway and the MAC holds: the link is open.", ack, 1),
        Step(at_ms, connection, *ends, "The gateway asks for the bank's keys, to relay them.", _KEYS_QUERY, 2),
        Step(at_ms, connection, *back, "The bank gives its signed key list.", _KEYS, 2),
    ]


_KEYS_QUERY: Final = BankKeysQuery(BANK_ID)
_KEYS: Final = BankKeys(KeysStatus.AVAILABLE, SIGNED_KEY_LIST)


def _until_token_ack(payment: Payment) -> list[Step]:
    ends = (NOW_MS, "client-1", Role.CLIENT, Role.GATEWAY)
    back = (NOW_MS, "client-1", Role.GATEWAY, Role.CLIENT)
    token_ack = TokenAck(
        status=TokenStatus.VALID,
        session_id=payment.terms.session_id,
        session_left_ms=30_000,
        merchant_id=MERCHANT_ID,
        merchant_name=MERCHANT_NAME,
        amount_minor=AMOUNT_MINOR,
        currency="INR",
        gateway_id=GATEWAY_ID,
        bank_id=BANK_ID,
        utr="",
    )
    query = TokenQuery(payment.transaction_id, PASSCODE)
    hello_ack = HelloAck(Role.GATEWAY, GATEWAY_ID, 1, FRAME_SIZE_MAX)
    return [
        Step(*ends, "The client says hello; its name is free.", Hello(Role.CLIENT, "client", (1,)), 1),
        Step(*back, "The gateway takes version 1: the link is open.", hello_ack, 1),
        Step(*ends, "The client asks for the keys of the bank that it has pinned.", _KEYS_QUERY, 2),
        Step(*ends, "It does not wait for them: the token query follows at once.", query, 3),
        Step(*back, "The gateway relays the bank's list byte for byte; the client verifies it.", _KEYS, 2),
        Step(*back, "The token is valid: a session of 30 s is open, and the customer is shown the rest.", token_ack, 3),
    ]


def _until_transfer(payment: Payment) -> list[Step]:
    terms = payment.terms
    credentials = EncryptedCredentials(
        terms.session_id, terms.payment_id, AUTHORISED_AT_MS, SUITE_KEY.key_id, payment.envelope
    )
    transfer = TransferRequest(terms, TIME_LEFT_MS, SUITE_KEY.key_id, payment.envelope)
    is_lost = payment is FENCED
    sent = "The gateway has recorded the token as IN_FLIGHT and forwards the envelope unread, with its own terms."
    return [
        Step(
            AUTHORISED_AT_MS,
            "client-1",
            Role.CLIENT,
            Role.GATEWAY,
            "The customer has typed user ID and password; the payment is written down and leaves, sealed.",
            credentials,
            4,
        ),
        Step(
            AUTHORISED_AT_MS,
            "bank-1",
            Role.GATEWAY,
            Role.BANK,
            f"{sent} The connection breaks: the bank never gets this." if is_lost else sent,
            transfer,
            3,
            not is_lost,
        ),
    ]


def _posted(payment: Payment) -> list[Step]:
    receipt = payment.receipt(TransferOutcome.POSTED, Reason.NONE, DECIDED_AT_MS)
    told = (payment.terms.payment_id, PaymentStatus.PAID, Reason.NONE, UTR, receipt)
    result = TransferResult(payment.terms.payment_id, TransferOutcome.POSTED, Reason.NONE, UTR, receipt)
    query = StatusQuery(payment.terms.payment_id, payment.transaction_id, PASSCODE)
    ends = (DECIDED_AT_MS, "client-1", Role.CLIENT, Role.GATEWAY)
    back = (DECIDED_AT_MS, "client-1", Role.GATEWAY, Role.CLIENT)
    text = "The bank has opened the envelope, moved the money and registered a UTR, and signs that."
    asked = "The client asks again what became of it; asking never moves money."
    return [
        Step(DECIDED_AT_MS, "bank-1", Role.BANK, Role.GATEWAY, text, result, 3),
        Step(*back, "The token is PAID. The client verifies the receipt and matches it.", PaymentAck(*told), 4),
        Step(*ends, asked, query, 5),
        Step(*back, "The same answer with the same receipt, byte for byte.", StatusAck(*told), 5),
    ]


def _wrong_password(payment: Payment) -> list[Step]:
    receipt = payment.receipt(TransferOutcome.DECLINED, Reason.CREDENTIALS, DECIDED_AT_MS)
    payment_id = payment.terms.payment_id
    result = TransferResult(payment_id, TransferOutcome.DECLINED, Reason.CREDENTIALS, "", receipt)
    told = PaymentAck(payment_id, PaymentStatus.DECLINED, Reason.CREDENTIALS, "", receipt)
    text = "The verifier differs from the bank's: declined, and final for this payment ID."
    back = "No money moved; the token is UNPAID again, and the receipt proves it."
    return [
        Step(DECIDED_AT_MS, "bank-1", Role.BANK, Role.GATEWAY, text, result, 3),
        Step(DECIDED_AT_MS, "client-1", Role.GATEWAY, Role.CLIENT, back, told, 4),
    ]


def _resolved(payment: Payment) -> list[Step]:
    receipt = payment.receipt(TransferOutcome.FENCED, Reason.FENCED, RELINKED_AT_MS)
    payment_id = payment.terms.payment_id
    query = ResolveRequest(payment.terms, envelope_hash(payment.envelope))
    result = ResolveResult(payment_id, TransferOutcome.FENCED, Reason.FENCED, "", receipt)
    told = PaymentAck(payment_id, PaymentStatus.DECLINED, Reason.FENCED, "", receipt)
    at_bank = (RELINKED_AT_MS, "bank-2", Role.BANK, Role.GATEWAY)
    text = "The link is new and the payment in doubt, so the gateway asks what became of it."
    answer = "The bank has no outcome for this payment ID: it fences it, durably, and signs that."
    back = "The answer is definite: no money moved and none will; the customer may pay again."
    return [
        *_link_to_bank("bank-2", RELINKED_AT_MS),
        Step(RELINKED_AT_MS, "bank-2", Role.GATEWAY, Role.BANK, text, query, 3),
        Step(*at_bank, answer, result, 3),
        Step(RELINKED_AT_MS, "client-1", Role.GATEWAY, Role.CLIENT, back, told, 4),
    ]


# -- the file --------------------------------------------------------------------------------------------


def render() -> dict[str, Any]:
    """What session.json holds."""
    return {
        "vectors": "session",
        "secrets": {
            "root_private_key": ROOT_KEY.private_bytes_raw().hex(),
            "root_public_key": ROOT_PUBLIC_KEY.hex(),
            "receipt_private_key": RECEIPT_KEY.private_bytes_raw().hex(),
            "x25519_private_key": X25519_KEY.private_bytes().hex(),
            "link_key": LINK_KEY.hex(),
            "pepper": PEPPER.hex(),
            "user_id": USER_ID,
            "password": PASSWORD,
            "verifier": verifier_of(PEPPER, PAID.password_key).hex(),
            "passcode": PASSCODE,
        },
        "sessions": [_session(payment) for payment in SESSIONS],
    }


def _session(payment: Payment) -> dict[str, Any]:
    return {
        "name": payment.name,
        "about": _ABOUT[payment],
        "secrets": {
            "password_typed": payment.password,
            "password_key": payment.password_key.hex(),
            "nonce": payment.nonce.hex(),
            "ephemeral_private_key": payment.ephemeral_key.hex(),
        },
        "steps": [_step(number, step) for number, step in enumerate(steps_of(payment), start=1)],
    }


def _step(number: int, step: Step) -> dict[str, Any]:
    kind: Kind = step.message.kind
    return {
        "number": number,
        "at_ms": str(step.at_ms),
        "connection": step.connection,
        "link": step.link,
        "sender": step.sender.name.lower(),
        "receiver": step.receiver.name.lower(),
        "text": step.text,
        "delivered": step.is_delivered,
        "kind": {"code": int(kind), "name": type(step.message).__name__},
        "correlation_id": str(step.correlation_id),
        "frame": step.frame.hex(),
        "fields": json_of(step.message),
    }
