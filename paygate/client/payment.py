"""What the client knows of one payment, and what it tells of it. Plain data."""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from paygate.cli import ExitCode
from paygate.client.root import BankRoot
from paygate.codec import limits
from paygate.codec.codes import Reason
from paygate.codec.messages import EncryptedCredentials
from paygate.codec.money import format_amount
from paygate.codec.seal import verify_key_list
from paygate.codec.sealed import KeyList, Terms


class Outcome(Enum):
    """How a session or a question ended, and the exit code that tells it to a script."""

    PAID = "paid"
    DECLINED = "declined"
    REFUSED = "refused"
    """The gateway's word that it did not forward it; once something was sent, that proves nothing (T8)."""
    NOT_FORWARDED = "not-forwarded"
    """Our own knowledge: it was written down and never sent."""
    NOT_POSTED = "not-posted"
    """Another payment of its token has the bank's receipt for paid, and the bank posts a token at most once (T5)."""
    UNKNOWN = "unknown"
    UNTRUSTED = "untrusted"
    TIMED_OUT = "timed-out"
    NO_CONNECTION = "no-connection"
    CANCELLED = "cancelled"
    TOKEN_REFUSED = "token-refused"  # noqa: S105  # not a password
    ALREADY_PAID = "already-paid"
    FAILED = "failed"

    @property
    def exit_code(self) -> ExitCode:
        """What the program ends with."""
        return _EXIT_CODES[self]


_EXIT_CODES: Final = {
    Outcome.PAID: ExitCode.OK,
    Outcome.DECLINED: ExitCode.DECLINED,
    Outcome.REFUSED: ExitCode.REFUSED,
    Outcome.NOT_FORWARDED: ExitCode.REFUSED,
    Outcome.NOT_POSTED: ExitCode.REFUSED,
    Outcome.UNKNOWN: ExitCode.OUTCOME_UNKNOWN,
    Outcome.UNTRUSTED: ExitCode.UNTRUSTED,
    Outcome.TIMED_OUT: ExitCode.SESSION_TIMED_OUT,
    Outcome.NO_CONNECTION: ExitCode.NO_CONNECTION,
    Outcome.CANCELLED: ExitCode.CANCELLED,
    Outcome.TOKEN_REFUSED: ExitCode.TOKEN_REFUSED,
    Outcome.ALREADY_PAID: ExitCode.ALREADY_PAID,
    Outcome.FAILED: ExitCode.BAD_STATE,
}


REFUSAL_ASKED_MS: Final = 86_400_000
"""How long after a payment `status all` asks for a refusal that nothing proves: one day.

The bank takes nothing that is older than five minutes (AUTHORISED_AT_SKEW_MS_MAX), so after those nothing more is
posted; a day is time enough for whoever runs the gateway to mend it, and for the customer to see a lie. A refusal that
is true never gets a proof, so without an end each would be asked for as long as the record is there.
"""


BANK_TAKES_MS_MAX: Final = 2 * limits.AUTHORISED_AT_SKEW_MS_MAX
"""How long after its authorisation, by this machine's clock, a bank may still take a payment at most (T6, PG-CLI-5).

The bank takes it for five minutes by its own clock. That may be five minutes behind ours, or it would not have taken
the payment at first either.
"""


class PaymentState(Enum):
    """What the client's own record says of a payment."""

    PENDING = "pending"
    """Sent, or about to be; nobody has said what became of it."""
    PAID = "paid"
    DECLINED = "declined"
    REFUSED = "refused"
    """Sent, and not forwarded by the gateway's word; a receipt that comes later wins (T8)."""
    NOT_FORWARDED = "not-forwarded"
    """Never sent: our own knowledge."""
    NOT_POSTED = "not-posted"
    """Another payment of its token is paid, by the bank's receipt; this one was not and will not be (T5)."""


_STATE_AFTER: Final = {
    Outcome.PAID: PaymentState.PAID,
    Outcome.DECLINED: PaymentState.DECLINED,
    Outcome.REFUSED: PaymentState.REFUSED,
    Outcome.NOT_FORWARDED: PaymentState.NOT_FORWARDED,
    Outcome.NOT_POSTED: PaymentState.NOT_POSTED,
}
"""Every other outcome leaves a payment as it is: only what is known is written down."""


@dataclass(frozen=True, slots=True)
class PaymentResult:
    """The answer to the customer."""

    outcome: Outcome
    text: str
    """For people; may hold words of the gateway, so escape it before it is shown."""
    money_may_have_moved: bool = False
    reason: Reason = Reason.NONE
    utr: str = ""
    """R7: with PAID proven by the receipt; with ALREADY_PAID and REFUSED only the gateway's word."""
    receipt: bytes = field(default=b"", repr=False)
    """The bank's Receipt, encoded, with PAID and DECLINED; it has been verified."""
    signed_key_list: bytes = field(default=b"", repr=False)
    """What the receipt verified under."""
    payment_id: bytes = b""
    """16 bytes; empty if no payment was made of it."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment as it is kept on disk from before it is sent.

    It holds user ID and password in no form but the envelope's, which only the bank opens (R4), and that no longer than
    the session in which the same bytes may be sent again (PG-CLI-2).
    """

    terms: Terms
    envelope_hash: bytes
    passcode: str = field(repr=False)
    """The status query needs it."""
    merchant_name: str
    """As it was shown to the customer."""
    gateway: str
    """`host:port`, where to ask."""
    root: BankRoot
    signed_key_list: bytes = field(repr=False)
    """What the envelope was sealed under; once there is a receipt, what that verified under."""
    state: PaymentState = PaymentState.PENDING
    reason: Reason = Reason.NONE
    utr: str = ""
    receipt: bytes = field(default=b"", repr=False)
    ended_ms: int = 0
    """When the state was last changed, by this machine's wall clock; 0 while it is as it was sent."""
    key_id: bytes = bytes(limits.KEY_ID_SIZE)
    """Which of the bank's keys the envelope was sealed for; zeros once that is forgotten."""
    envelope: bytes = field(default=b"", repr=False)
    """For sending the very same payment again; empty once its session is over or its state is another than PENDING."""

    @property
    def payment_id(self) -> bytes:
        """16 bytes that name it."""
        return self.terms.payment_id

    @property
    def is_settled(self) -> bool:
        """Whether the bank's proof or our own knowledge says what became of it; nothing changes it any more (T8)."""
        return self.state not in (PaymentState.PENDING, PaymentState.REFUSED)

    @property
    def money_may_have_moved(self) -> bool:
        """Whether money has moved by it or may have: false only with the bank's proof, or if it never left."""
        return self.state in (PaymentState.PAID, PaymentState.PENDING, PaymentState.REFUSED)

    @property
    def asked_until_ms(self) -> int:
        """Wall time up to which `status all` asks for a refusal that nothing proves."""
        return self.terms.authorised_at_ms + REFUSAL_ASKED_MS

    def is_open(self, now_wall_ms: int) -> bool:
        """Whether `status all` asks for it: it was sent, and there is no receipt; a refusal for one day."""
        if self.state is PaymentState.REFUSED:
            return now_wall_ms < self.asked_until_ms
        return self.state is PaymentState.PENDING

    @property
    def amount_text(self) -> str:
        """Such as `1250.00 INR`."""
        return f"{format_amount(self.terms.amount_minor, self.terms.currency)} {self.terms.currency}"

    @property
    def merchant_text(self) -> str:
        """Such as `Chai Corner (M-100)`."""
        return f"{self.merchant_name} ({self.terms.merchant_id})" if self.merchant_name else self.terms.merchant_id

    @property
    def session_end_ms(self) -> int:
        """Wall time at which its session is over at the latest."""
        return self.terms.authorised_at_ms + limits.SESSION_MS

    @property
    def bank_takes_until_ms(self) -> int:
        """Wall time from which on the bank takes it no more, wherever it was held back (BANK_TAKES_MS_MAX)."""
        return self.terms.authorised_at_ms + BANK_TAKES_MS_MAX

    def credentials(self, now_wall_ms: int) -> EncryptedCredentials | None:
        """The very bytes that were sent, for sending them again; None once the gateway would take them no more."""
        if not self.envelope or now_wall_ms >= self.session_end_ms:
            return None
        terms = self.terms
        return EncryptedCredentials(
            terms.session_id, terms.payment_id, terms.authorised_at_ms, self.key_id, self.envelope
        )

    def without_envelope(self) -> "Payment":
        """The payment once its envelope is of no use any more."""
        return replace(self, key_id=bytes(limits.KEY_ID_SIZE), envelope=b"")

    def is_same_token(self, other: "Payment") -> bool:
        """Whether both are for one token: the bank posts one of its payments at most (T5)."""
        mine, theirs = self.terms, other.terms
        return (self.root, mine.gateway_id, mine.transaction_id) == (
            other.root,
            theirs.gateway_id,
            theirs.transaction_id,
        )

    def key_list(self) -> KeyList:
        """The key list it was sealed under, checked again. Raises BadKeyList.

        Its validity was judged when it was accepted: a receipt stays good when the list is out of date (spec 8.5).
        """
        return verify_key_list(self.signed_key_list, self.root.public_key, self.root.bank_id, None)

    def after(self, result: PaymentResult, now_wall_ms: int) -> "Payment":
        """The payment with a result written down; itself if the result says nothing new."""
        state = _STATE_AFTER.get(result.outcome)
        # T8: no later word of a gateway takes a proof away, and a refusal is told once.
        if state is None or state is self.state or self.is_settled:
            return self
        return replace(
            self.without_envelope(),
            state=state,
            reason=result.reason,
            utr=result.utr,
            receipt=result.receipt,
            signed_key_list=result.signed_key_list or self.signed_key_list,
            ended_ms=now_wall_ms,
        )
