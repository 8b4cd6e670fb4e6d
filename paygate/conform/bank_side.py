"""The other side of a bank: the gateway that the kit plays, and the customer whose client sealed the envelope."""

from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from paygate.codec import limits
from paygate.codec.codes import KemId, KeysStatus, Reason, Role, TransferOutcome
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Hello,
    HelloAck,
    Message,
    ResolveRequest,
    ResolveResult,
    TransferAnswer,
    TransferRequest,
    TransferResult,
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
from paygate.codec.sealed import KeyList, PasswordKeyParameters, ReceiptStatement, SuiteKey, Terms
from paygate.conform.answering import AnsweringEnd
from paygate.conform.bank_spenders import Spenders
from paygate.conform.cases import Catalogue, Failed, Skipped, require
from paygate.conform.trial import Trial
from paygate.conform.wire import Wire
from paygate.conform.world import Party, Use, WorldCustomer

TIME_LEFT_MS: Final = 20_000
"""What a gateway gives the bank (spec 6.7)."""
CLOCK_SKEW_MS_MAX: Final = 60_000
"""How far the bank's clock may be from ours: its times are compared with ours only roughly."""

M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class BankShared:
    """What the cases of a run share: password keys, which cost an Argon2id each, and who has spent."""

    spenders: Spenders
    password_keys: dict[tuple[PasswordKeyParameters, str, str], bytes] = field(default_factory=dict)


async def prepare(t: Trial) -> BankShared:
    """Reach the bank once, so that a wrong address is told as that and not as a hundred failures."""
    wire = await t.connect("reaching the bank")
    wire.close()
    return BankShared(Spenders.beside(t.settings.options["world"], t.world.customers_for(Use.SPENDING)))


BANK: Final = Catalogue("bank", prepare)


# -- links -----------------------------------------------------------------------------------------------


async def connect_as(t: Trial, party: Party | None = None, name: str = "") -> Wire:
    """A connection with the link key of this gateway, by default the world's first; no hello yet."""
    return await t.connect(name, link_key=(party or t.world.gateway).link_key)


def hello_of(t: Trial, party: Party | None = None, **changes: Any) -> Hello:
    """The Hello of a gateway, with changes."""
    gateway_id = (party or t.world.gateway).gateway_id
    return replace(Hello(role=Role.GATEWAY, party_id=gateway_id, versions=(limits.PROTOCOL_VERSION,)), **changes)


async def say_hello(t: Trial, wire: Wire, hello: Hello) -> HelloAck:
    """Open the link, and check what the bank says of itself."""
    correlation_id = wire.send(hello)
    ack = await wire.expect(HelloAck, correlation_id)
    require(ack.role is Role.BANK, "a HelloAck of role BANK", ack)
    require(ack.party_id == t.world.bank_id, f"a HelloAck of {t.world.bank_id}", ack)
    require(ack.version == limits.PROTOCOL_VERSION, "version 1, the highest that both speak", ack)
    wire.is_open = True
    return ack


async def open_link(t: Trial, party: Party | None = None, name: str = "") -> Wire:
    """An open link of this gateway."""
    wire = await connect_as(t, party, name)
    await say_hello(t, wire, hello_of(t, party))
    return wire


# -- payments --------------------------------------------------------------------------------------------


async def key_list_of(t: Trial, wire: Wire) -> KeyList:
    """The bank's key list, verified under the pinned root."""
    keys = await wire.ask(BankKeysQuery(t.world.bank_id), BankKeys)
    require(keys.status is KeysStatus.AVAILABLE, "the bank's own key list", keys)
    try:
        return verify_key_list(keys.signed_key_list, t.world.root_public_key, t.world.bank_id, t.wall_ms())
    except BadKeyList as error:
        raise Failed("a key list as spec 8.4 says", str(error)) from None


def _any_terms(t: Trial, party: Party) -> Terms:
    return Terms(
        bank_id=t.world.bank_id,
        gateway_id=party.gateway_id,
        merchant_id=t.world.merchant_ids[0],
        transaction_id=f"C{t.random_bytes(12).hex()}",
        payment_id=t.random_bytes(limits.PAYMENT_ID_SIZE),
        session_id=t.random_bytes(limits.SESSION_ID_SIZE),
        amount_minor=1,
        currency=t.world.currency,
        authorised_at_ms=t.wall_ms(),
    )


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as the kit's own client made it."""

    terms: Terms
    key_id: bytes
    envelope: bytes
    time_left_ms: int = TIME_LEFT_MS

    @property
    def envelope_hash(self) -> bytes:
        """Whose credentials these are."""
        return envelope_hash(self.envelope)

    def transfer(self, **terms: Any) -> TransferRequest:
        """The request to move the money; with other terms than those that were sealed, if any are given."""
        return TransferRequest(replace(self.terms, **terms), self.time_left_ms, self.key_id, self.envelope)

    def resolve(self, **terms: Any) -> ResolveRequest:
        """The request for its final outcome, perhaps with other terms."""
        return ResolveRequest(replace(self.terms, **terms), self.envelope_hash)


class Till:
    """An open link to the bank, and what a payment over it needs: `pay` is one whole story."""

    def __init__(self, t: Trial, wire: Wire, party: Party, key_list: KeyList) -> None:
        self.wire = wire
        self.party = party
        self.key_list = key_list
        self.trial = t

    def payment(
        self,
        customer: WorldCustomer | None = None,
        *,
        user_id: str | None = None,
        password: str | None = None,
        suite_key: SuiteKey | None = None,
        sealed_for: dict[str, Any] | None = None,
        time_left_ms: int = TIME_LEFT_MS,
        **terms: Any,
    ) -> Payment:
        """A new payment of one minor unit, of a token of its own, with changes to its terms.

        By default the first customer pays with the right password under the first X25519 key. `sealed_for` changes
        the terms that the envelope is sealed under, and not those that are sent.
        """
        t = self.trial
        who = customer or next(t.world.customers_for(Use.PAYING))
        made = replace(_any_terms(t, self.party), **terms)
        suite_key = suite_key or self.suite_key(KemId.X25519)
        user_id = user_id or who.user_id
        key = self._password_key(user_id, who.password if password is None else password)
        sealed_terms = replace(made, **(sealed_for or {}))
        envelope = seal_credentials(suite_key, sealed_terms, user_id, key, t.random_bytes(16))
        return Payment(made, suite_key.key_id, envelope, time_left_ms)

    def guess(self, customer: WorldCustomer, **terms: Any) -> Payment:
        """A payment with a wrong password."""
        return self.payment(customer, password=f"not {customer.password}", **terms)

    def suite_key(self, kem_id: KemId) -> SuiteKey:
        """The first listed key of a suite; the case is skipped if the bank has none."""
        for suite_key in self.key_list.suite_keys:
            if suite_key.kem_id is kem_id:
                return suite_key
        if kem_id is KemId.X25519:
            raise Failed("an X25519 key in the key list, which must be implemented (spec 8.2)", "none")
        raise Skipped(f"the bank's key list has no {kem_id.name} key; it need not (spec 8.2)")

    def _password_key(self, user_id: str, password: str) -> bytes:
        shared: BankShared = self.trial.shared
        name = (self.key_list.password_key, user_id, password)
        if name not in shared.password_keys:
            shared.password_keys[name] = password_key(
                self.key_list.password_key, self.trial.world.bank_id, user_id, password
            )
        return shared.password_keys[name]

    async def transfer(self, payment: Payment, wire: Wire | None = None) -> TransferResult:
        """Have the bank decide, and check the answer as a client would."""
        answer = await (wire or self.wire).ask(payment.transfer(), TransferResult)
        self.check(payment, answer)
        return answer

    async def resolve(self, payment: Payment, wire: Wire | None = None) -> ResolveResult:
        """Ask for the final outcome, and check the answer as a client would."""
        answer = await (wire or self.wire).ask(payment.resolve(), ResolveResult)
        self.check(payment, answer)
        return answer

    async def pay(self, **changes: Any) -> tuple[Payment, TransferResult]:
        """Make a payment, and have it posted."""
        payment = self.payment(**changes)
        answer = await self.transfer(payment)
        require_posted(answer)
        return payment, answer

    async def decline(self, payment: Payment, reason: Reason) -> TransferResult:
        """Send a payment that the bank must decline for this reason."""
        answer = await self.transfer(payment)
        require_declined(answer, reason)
        return answer

    def check(self, payment: Payment, answer: TransferAnswer) -> ReceiptStatement | None:
        """Hold an answer against the payment: payment ID, receipt, and that they agree. None without a receipt."""
        require(answer.payment_id == payment.terms.payment_id, "an answer for this payment ID", answer)
        if not answer.outcome.is_final:
            return None
        try:
            statement = verify_receipt(answer.receipt, self.key_list)
            match_receipt(statement, payment.terms, payment.envelope_hash)
        except BadReceipt as error:
            raise Failed("a receipt as spec 8.5 says", f"{error} in {answer}") from None
        stated = (statement.outcome, statement.reason, statement.utr)
        told = (answer.outcome, answer.reason, answer.utr)
        require(stated == told, "a receipt that states the outcome, reason and UTR of the answer", f"{told}, {stated}")
        skew_ms = abs(statement.bank_time_ms - self.trial.wall_ms())
        require(skew_ms < CLOCK_SKEW_MS_MAX, "a bank time near ours", f"{skew_ms} ms between them")
        return statement

    def statement(self, payment: Payment, answer: TransferAnswer) -> ReceiptStatement:
        """What the receipt of a final answer states."""
        statement = self.check(payment, answer)
        if statement is None:
            raise Failed("a final outcome with its receipt", answer)
        return statement


async def open_till(t: Trial, party: Party | None = None, name: str = "") -> Till:
    """An open link with the bank's key list at hand."""
    wire = await open_link(t, party, name)
    return Till(t, wire, party or t.world.gateway, await key_list_of(t, wire))


def require_posted(answer: TransferAnswer) -> None:
    """Fail the case unless the money has moved."""
    require(answer.outcome is TransferOutcome.POSTED, "POSTED", answer)


def require_declined(answer: TransferAnswer, reason: Reason) -> None:
    """Fail the case unless the bank declined for this reason."""
    is_so = answer.outcome is TransferOutcome.DECLINED and answer.reason is reason
    require(is_so, f"DECLINED with {reason.name}", answer)


def require_same(answers: list[TransferAnswer]) -> None:
    """Fail the case unless all answers are the first one's again, byte for byte."""
    first = answers[0]
    for answer in answers[1:]:
        for name in ("payment_id", "outcome", "reason", "utr", "receipt"):
            is_same = getattr(answer, name) == getattr(first, name)
            require(is_same, f"the first answer again, byte for byte: {first}", f"another {name}: {answer}")


def take_spender(t: Trial) -> WorldCustomer:
    """A customer who has exactly the balance that the world says, for this case only."""
    shared: BankShared = t.shared
    return shared.spenders.take()


def other_term(value: Any) -> Any:
    """Another legal value of a term, as near to it as can be: one more, or another last byte."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    return str(value)[:-1] + ("A" if str(value)[-1] != "A" else "B")


# -- requests that need no key list ----------------------------------------------------------------------


def unsealed_transfer(t: Trial) -> TransferRequest:
    """A request that is well-formed, and whose envelope no key opens: for what is refused before it is opened."""
    return TransferRequest(_any_terms(t, t.world.gateway), TIME_LEFT_MS, bytes(8), t.random_bytes(304))


def unsealed_resolve(t: Trial) -> ResolveRequest:
    """A well-formed question for a payment that nobody made."""
    return ResolveRequest(_any_terms(t, t.world.gateway), t.random_bytes(limits.HASH_SIZE))


BANK_END: Final = AnsweringEnd(
    catalogue=BANK,
    role=Role.BANK,
    caller_role=Role.GATEWAY,
    link_key=lambda world: world.gateway.link_key,
    connect=lambda t, name: connect_as(t, name=name),
    hello=hello_of,
    say_hello=say_hello,
    requests={TransferRequest: unsealed_transfer, ResolveRequest: unsealed_resolve},
)
"""How the cases that hold for every answering end meet a bank."""
