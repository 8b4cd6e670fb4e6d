"""A client of a gateway, its payments, and what a payment comes to at a bank that is led by hand."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from paygate.codec import limits
from paygate.codec.codes import KemId, KeysStatus, PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    EncryptedCredentials,
    PaymentAck,
    PaymentAnswer,
    ResolveRequest,
    StatusAck,
    StatusQuery,
    TokenAck,
    TransferRequest,
)
from paygate.codec.seal import (
    BadKeyList,
    BadReceipt,
    envelope_hash,
    match_receipt,
    password_key,
    seal_credentials,
    verify_key_list,
    verify_receipt,
)
from paygate.codec.sealed import KeyList, SuiteKey, Terms
from paygate.conform.cases import Failed, Skipped, require
from paygate.conform.gateway_side import new_token, open_link, played_bank, require_status, shared_of
from paygate.conform.played_bank import RELINK_MS, BankLink, Desk, PlayedBank
from paygate.conform.trial import Trial
from paygate.conform.wire import Wire
from paygate.conform.world import Use, WorldCustomer, WorldToken

A = TypeVar("A", bound=PaymentAnswer)


@dataclass(frozen=True, slots=True)
class ClientPayment:
    """A payment as a client made it."""

    token: WorldToken
    terms: Terms
    """What the client believes that it binds."""
    key_id: bytes
    envelope: bytes

    @property
    def payment_id(self) -> bytes:
        """Which payment."""
        return self.terms.payment_id

    def credentials(self, **changes: Any) -> EncryptedCredentials:
        """What is sent to pay."""
        terms = self.terms
        usual = EncryptedCredentials(
            terms.session_id, terms.payment_id, terms.authorised_at_ms, self.key_id, self.envelope
        )
        return replace(usual, **changes)

    def status_query(self, **changes: Any) -> StatusQuery:
        """What is sent to hear what became of it."""
        return replace(StatusQuery(self.payment_id, self.token.transaction_id, self.token.passcode), **changes)


class Shopper:
    """A client with an open link and the bank's key list: `pay` is one whole story."""

    def __init__(self, t: Trial, wire: Wire, key_list: KeyList) -> None:
        self.wire = wire
        self.key_list = key_list
        self._t = t

    async def session(self, token: WorldToken | None = None) -> tuple[WorldToken, TokenAck]:
        """A token, new unless given, and the session that its query opens."""
        token = token or new_token(self._t)
        return token, await require_status(self.wire, token, TokenStatus.VALID)

    async def new_payment(self, token: WorldToken | None = None, **choices: Any) -> ClientPayment:
        """Open a session and make a payment in it; `choices` as for `payment`."""
        return self.payment(*await self.session(token), **choices)

    def payment(
        self,
        token: WorldToken,
        ack: TokenAck,
        *,
        customer: WorldCustomer | None = None,
        password: str | None = None,
        kem_id: KemId = KemId.X25519,
        envelope: bytes | None = None,
        **terms: Any,
    ) -> ClientPayment:
        """A new payment in this session, with changes to its terms.

        By default the first customer pays with the right password under the first X25519 key. `envelope` stands for
        one that nobody opens.
        """
        t = self._t
        who = customer or next(t.world.customers_for(Use.PAYING))
        made = Terms(
            bank_id=ack.bank_id,
            gateway_id=ack.gateway_id,
            merchant_id=ack.merchant_id,
            transaction_id=token.transaction_id,
            payment_id=t.random_bytes(limits.PAYMENT_ID_SIZE),
            session_id=ack.session_id,
            amount_minor=ack.amount_minor,
            currency=ack.currency,
            authorised_at_ms=t.wall_ms(),
        )
        made = replace(made, **terms)
        suite_key = self.suite_key(kem_id)
        if envelope is None:
            key = self._password_key(who.user_id, who.password if password is None else password)
            envelope = seal_credentials(suite_key, made, who.user_id, key, t.random_bytes(16))
        return ClientPayment(token, made, suite_key.key_id, envelope)

    def suite_key(self, kem_id: KemId) -> SuiteKey:
        """The first listed key of a suite; the case is skipped if the bank has none."""
        for suite_key in self.key_list.suite_keys:
            if suite_key.kem_id is kem_id:
                return suite_key
        raise Skipped(f"the bank's key list has no {kem_id.name} key")

    def _password_key(self, user_id: str, password: str) -> bytes:
        keys = shared_of(self._t).password_keys
        if (user_id, password) not in keys:
            parameters, bank_id = self.key_list.password_key, self._t.world.bank_id
            keys[user_id, password] = password_key(parameters, bank_id, user_id, password)
        return keys[user_id, password]

    async def send(self, payment: ClientPayment, wire: Wire | None = None) -> PaymentAck:
        """Send the credentials, and check the answer as a client does."""
        wire = wire or self.wire
        return self.check(payment, await wire.ask(payment.credentials(), PaymentAck))

    async def status(self, payment: ClientPayment, wire: Wire | None = None) -> StatusAck:
        """Ask what became of it, and check the answer as a client does."""
        return self.check(payment, await (wire or self.wire).ask(payment.status_query(), StatusAck))

    async def pay(self, token: WorldToken | None = None, **choices: Any) -> tuple[ClientPayment, PaymentAck]:
        """Make a payment, and have it paid."""
        payment = await self.new_payment(token, **choices)
        answer = await self.send(payment)
        require(answer.status is PaymentStatus.PAID, "PAID", answer)
        return payment, answer

    def check(self, payment: ClientPayment, answer: A) -> A:
        """Hold an answer against the payment: payment ID, receipt, and that they agree (PG-PAY-10). Gives it back."""
        require(answer.payment_id == payment.payment_id, "an answer for this payment ID", answer)
        if answer.status not in (PaymentStatus.PAID, PaymentStatus.DECLINED):
            return answer
        try:
            statement = verify_receipt(answer.receipt, self.key_list)
            match_receipt(statement, payment.terms, envelope_hash(payment.envelope))
        except BadReceipt as error:
            raise Failed("a receipt as spec 8.5 says", f"{error} in {answer}") from None
        is_posted = statement.outcome is TransferOutcome.POSTED
        agrees = is_posted is (answer.status is PaymentStatus.PAID)
        told = (answer.reason, answer.utr)
        stated = (statement.reason, statement.utr)
        require(agrees and told == stated, "a receipt that agrees with the answer", f"{answer} and {statement}")
        return answer


async def key_list_of(t: Trial, wire: Wire) -> tuple[bytes, KeyList]:
    """The bank's key list as the gateway relays it, and what it says, verified under the pinned root."""
    keys = await wire.ask(BankKeysQuery(t.world.bank_id), BankKeys)
    require(keys.status is KeysStatus.AVAILABLE, "the bank's own key list", keys)
    bank = shared_of(t).bank
    root = bank.keys.root_public_key if bank is not None else t.world.root_public_key
    try:
        return keys.signed_key_list, verify_key_list(keys.signed_key_list, root, t.world.bank_id, t.wall_ms())
    except BadKeyList as error:
        raise Failed("a key list as spec 8.4 says", str(error)) from None


async def open_shopper(t: Trial, name: str = "") -> Shopper:
    """A client with an open link and the bank's key list."""
    wire = await open_link(t, name)
    return Shopper(t, wire, (await key_list_of(t, wire))[1])


@dataclass(frozen=True, slots=True)
class Watched:
    """A payment that has begun, and where its requests wait at the bank."""

    shopper: Shopper
    payment: ClientPayment
    correlation_id: int
    """Of the credentials on the shopper's link."""
    desk: Desk
    began_ms: int
    """When the credentials were sent."""


async def begin(t: Trial, shopper: Shopper | None = None, **choices: Any) -> Watched:
    """Begin a payment at a bank that is led by hand; what comes there waits in `desk`."""
    bank = played_bank(t)
    shopper = shopper or await open_shopper(t)
    token, ack = await shopper.session()
    payment = shopper.payment(token, ack, **choices)
    desk = bank.watch(t, token)
    return Watched(shopper, payment, shopper.wire.send(payment.credentials()), desk, t.now_ms)


async def expect_answer(watched: Watched, status: PaymentStatus, reason: Reason = Reason.NONE) -> PaymentAck:
    """The answer to the credentials, checked as a client does."""
    answer = await watched.shopper.wire.expect(PaymentAck, watched.correlation_id)
    watched.shopper.check(watched.payment, answer)
    require_answer(answer, status, reason)
    return answer


async def require_payable(t: Trial, watched: Watched) -> None:
    """The token is unpaid again: a new payment of it is forwarded and PAID."""
    shopper = watched.shopper
    payment = await shopper.new_payment(watched.payment.token)
    again = Watched(shopper, payment, shopper.wire.send(payment.credentials()), watched.desk, t.now_ms)
    asked, _ = await watched.desk.next(TransferRequest)
    watched.desk.answer(asked, TransferOutcome.POSTED)
    await expect_answer(again, PaymentStatus.PAID)


async def resolved_on_new_link(bank: PlayedBank, old: BankLink, watched: Watched) -> None:
    """The gateway links again and asks for a payment in doubt there; it is POSTED, and who waits hears PAID."""
    new = await bank.open_link_after(old.number)
    asked, request = await watched.desk.next(ResolveRequest, RELINK_MS)
    require(asked.link is new, "the ResolveRequest on the new link", f"on {asked.link.wire.name}")
    is_same = request.envelope_hash == envelope_hash(watched.payment.envelope)
    require(request.terms == watched.payment.terms and is_same, "the payment's terms and envelope hash", request)
    watched.desk.answer(asked, TransferOutcome.POSTED)
    await expect_answer(watched, PaymentStatus.PAID)


def require_answer(answer: PaymentAnswer, status: PaymentStatus, reason: Reason = Reason.NONE) -> None:
    """Fail the case unless this is what the gateway says."""
    is_so = answer.status is status and answer.reason is reason
    require(is_so, f"{status.name}{f' with {reason.name}' if reason else ''}", answer)


def require_same(answers: Iterable[PaymentAnswer]) -> None:
    """Fail the case unless all answers say the same, byte for byte; their kinds may differ."""
    first, *others = answers
    for answer in others:
        for name in ("payment_id", "status", "reason", "utr", "receipt"):
            is_same = getattr(answer, name) == getattr(first, name)
            require(is_same, f"the same answer again, byte for byte: {first}", f"another {name}: {answer}")
