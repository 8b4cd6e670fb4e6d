"""Those who lie: a gateway with a link key of its own at the bank, and a client that has overheard others.

What they send is mostly well formed, since what is not is refused at once: wrong terms around right envelopes, right
envelopes too late, too often, or under other names, true receipts of other payments, old key lists, answers that nobody
gave. What they do is drawn from the seed. Their victims must pay at most once, and only what they authorised, and
believe nothing false; that they are kept in doubt is all that a liar can do to them.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from builders import CHEAP_PASSWORD_KEY, NOW_MS, build_key_list
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sim.agenda import MS, SECOND
from sim.evil_client import EvilClient
from sim.evil_link import EvilLink
from sim.keys import seal, signed_key_list, suite_key_of
from sim.network import End
from sim.plan import BANK, CustomerPlan, GatewayPlan

from paygate.codec.codes import KeysStatus, PaymentStatus, Reason, Role, TokenStatus, TransferOutcome
from paygate.codec.frame import encode_frame
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    EncryptedCredentials,
    Message,
    PaymentAck,
    ResolveRequest,
    SealCredentials,
    StatusAck,
    StatusQuery,
    TokenAck,
    TokenQuery,
    TransferAnswer,
    TransferRequest,
)
from paygate.codec.seal import envelope_hash, key_id_of, sign_key_list, sign_receipts
from paygate.codec.sealed import ReceiptStatement, Terms
from paygate.link import Link

if TYPE_CHECKING:
    from sim.world import World

HELD_MS_MAX: Final = 330_000
"""An envelope is held back for so long at most: beyond the bank's five minutes, and within them (T6)."""
_FALSE_UTR: Final = "PGBKP12026010299999999"
_SESSION_MS: Final = 30_000
_FORGERS_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"f" * 32)
_FORGERS_KEY_ID: Final = key_id_of(_FORGERS_KEY.public_key().public_bytes_raw())


class _Case:
    """One payment that a victim sent: what was asked, and what the bank said of it."""

    def __init__(self, link: EvilLink, correlation_id: int, message: EncryptedCredentials, terms: Terms) -> None:
        self.link = link
        self.correlation_id = correlation_id
        self.message = message
        self.terms = terms
        self.truth: TransferAnswer | None = None


class EvilGateway:
    """A gateway that some merchants issue tokens at. Its customers are honest; it is not."""

    def __init__(self, world: "World", plan: GatewayPlan, accomplice: CustomerPlan) -> None:
        """`accomplice`: a customer of the bank who lends it an account."""
        self.name = plan.gateway_id
        self._world = world
        self._plan = plan
        self._accomplice = accomplice
        self._source: random.Random = world.randomness(f"evil {plan.gateway_id}")
        self._tokens = {t.token.transaction_id: t.token for t in world.plan.tokens if t.gateway_id == self.name}
        self._links: dict[End, EvilLink] = {}
        self._bank_end: End | None = None
        self._key_lists = [signed_key_list(0, with_older=False)]
        self._sessions: dict[bytes, tuple[Any, int]] = {}  # by session ID: the token, and the amount that was shown
        self._cases: dict[bytes, _Case] = {}  # by payment ID
        self._receipts: list[TransferAnswer] = []  # all that it has seen
        self._held: list[Callable[[], None]] = []
        self._is_healed = False

    def start(self) -> None:
        """It is there from the beginning, and nothing ever stops it."""
        self._world.network.listen(self.name, self)
        self._world.agenda.at(self._world.healed_us, self._heal)
        self._connect()

    def _heal(self) -> None:
        # Nothing is held back any more, so that the end is quiet; it lies on.
        self._is_healed = True
        held, self._held = self._held, []
        for release in held:
            release()

    # -- the node --------------------------------------------------------------------------------------

    def on_connected(self, end: End) -> None:
        """Node."""
        now_ms = self._world.agenda.now_us // MS
        if end is self._bank_end:
            key = self._plan.link_key
            link = Link(Role.GATEWAY, self.name, Role.BANK, is_caller=True, now_ms=now_ms, link_key=key)
        else:
            link = Link(Role.GATEWAY, self.name, Role.CLIENT, is_caller=False, now_ms=now_ms)
        self._links[end] = EvilLink(end, link, self._opened, self._asked, self._answered)
        self._links[end].flush()

    def on_data(self, end: End, data: bytes) -> None:
        """Node."""
        self._links[end].receive(data, self._world.agenda.now_us)

    def on_eof(self, end: End) -> None:
        """Node."""
        end.close_after_flush()

    def on_closed(self, end: End, reason: str) -> None:
        """Node."""
        self._links.pop(end, None)
        if end is self._bank_end:
            self._bank_end = None
            self._world.agenda.later(self._source.randrange(SECOND, 5 * SECOND), self._connect)

    def _connect(self) -> None:
        if self._bank_end is None:
            self._bank_end = self._world.network.connect(self, BANK)

    @property
    def _bank(self) -> EvilLink | None:
        return self._links.get(self._bank_end) if self._bank_end is not None else None

    # -- what clients ask ------------------------------------------------------------------------------

    def _opened(self, link: EvilLink) -> None:
        if link is self._bank:
            link.ask(BankKeysQuery(BANK))

    def _asked(self, link: EvilLink, correlation_id: int, message: Message) -> None:
        if self._source.random() < 0.02:
            link.throw(self._garbage())
        elif isinstance(message, BankKeysQuery):
            link.answer(correlation_id, self._keys())
        elif isinstance(message, TokenQuery):
            link.answer(correlation_id, self._token(message))
        elif isinstance(message, EncryptedCredentials):
            self._pay(link, correlation_id, message)
        elif isinstance(message, StatusQuery):
            link.answer(correlation_id, self._status(message.payment_id))

    def _keys(self) -> BankKeys:
        """T10: the newest list, now and then an older one, one of its own making, or none."""
        roll = self._source.random()
        signed = self._key_lists[-1] if roll < 0.9 else self._source.choice(self._key_lists)
        if 0.95 < roll < 0.97:
            signed = sign_key_list(_FORGERS_KEY, build_key_list(serial=10**6))
        elif roll > 0.97:
            at = self._source.randrange(len(signed))
            signed = signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :]
        return BankKeys(KeysStatus.AVAILABLE, signed)

    def _token(self, message: TokenQuery) -> TokenAck:
        token = self._tokens.get(message.transaction_id)
        roll = self._source.random()
        if token is None or token.passcode != message.passcode:
            return TokenAck(TokenStatus.INVALID, bytes(16), 0, "", "", 0, "", self.name, BANK, "")
        told = (token.merchant_id, token.merchant_name)
        if roll < 0.04:  # It is not paid, or not by that.
            return TokenAck(
                TokenStatus.PAID, bytes(16), 0, *told, token.amount_minor, token.currency, self.name, BANK, _FALSE_UTR
            )
        # What the customer is shown he may authorise: then that is what he may be debited, and nothing else.
        amount_minor = token.amount_minor * 2 if roll > 0.95 else token.amount_minor
        session_id = self._source.randbytes(16)
        self._sessions[session_id] = (token, amount_minor)
        name = "GW1" if 0.93 < roll < 0.95 else self.name
        return TokenAck(TokenStatus.VALID, session_id, _SESSION_MS, *told, amount_minor, token.currency, name, BANK, "")

    def _pay(self, link: EvilLink, correlation_id: int, message: EncryptedCredentials) -> None:
        session = self._sessions.get(message.session_id)
        if session is None:
            refusal = PaymentAck(message.payment_id, PaymentStatus.REFUSED, Reason.SESSION, "", b"")
            link.answer(correlation_id, refusal)
            return
        token, amount_minor = session
        terms = Terms(
            bank_id=BANK,
            gateway_id=self.name,
            merchant_id=token.merchant_id,
            transaction_id=token.transaction_id,
            payment_id=message.payment_id,
            session_id=message.session_id,
            amount_minor=amount_minor,
            currency=token.currency,
            authorised_at_ms=message.authorised_at_ms,
        )
        case = self._cases[message.payment_id] = _Case(link, correlation_id, message, terms)
        tricks = (
            *(self._forward, self._forward, self._forward, self._forward, self._repeat, self._alter, self._hold),
            *(self._resolve_first, self._lie_at_once, self._use_an_accomplice, self._keep_for_others, self._swallow),
            *(self._pose_as_another, self._break_the_link),
        )
        trick = self._source.choice(tricks)
        self._world.count(f"evil gateway: {trick.__name__.strip('_').replace('_', ' ')}")
        trick(case)

    # -- what it does with an envelope -----------------------------------------------------------------

    def _send(self, terms: Terms, message: EncryptedCredentials) -> None:
        if (bank := self._bank) is not None:
            bank.ask(TransferRequest(terms, _SESSION_MS, message.key_id, message.envelope))

    def _forward(self, case: _Case) -> None:
        self._send(case.terms, case.message)

    def _repeat(self, case: _Case) -> None:
        """T1: the same envelope, many times."""
        for _ in range(self._source.randint(2, 6)):
            self._send(case.terms, case.message)

    def _alter(self, case: _Case) -> None:
        """T2, T3: the envelope under other terms; then perhaps under its own."""
        for _ in range(self._source.randint(1, 4)):
            self._send(self._altered(case.terms), case.message)
        if self._source.random() < 0.5:
            self._send(case.terms, case.message)

    def _altered(self, terms: Terms) -> Terms:
        source = self._source
        others = [c.terms for c in self._cases.values() if c.terms is not terms]
        other = source.choice(others) if others else terms
        name = source.choice(
            ("merchant_id", "transaction_id", "payment_id", "session_id", "amount_minor", "authorised_at_ms")
        )
        changed: dict[str, Any] = {
            "merchant_id": source.choice([m.merchant_id for m in self._world.plan.merchants]),
            "transaction_id": other.transaction_id,
            "payment_id": source.choice((other.payment_id, source.randbytes(16))),
            "session_id": other.session_id,
            "amount_minor": terms.amount_minor + source.choice((1, 1_000)),
            "authorised_at_ms": terms.authorised_at_ms + source.choice((1, 60_000)),
        }
        return replace(terms, **{name: changed[name]})

    def _hold(self, case: _Case) -> None:
        """T6: the customer hears a lie now, and the bank gets the envelope minutes later, whole or after a fence."""
        self._lie(case)
        self._later(lambda: self._send(case.terms, case.message))

    def _resolve_first(self, case: _Case) -> None:
        """A fence before the envelope: from then on it must never debit."""
        if (bank := self._bank) is not None:
            bank.ask(ResolveRequest(case.terms, envelope_hash(case.message.envelope)))
        self._send(case.terms, case.message)

    def _lie_at_once(self, case: _Case) -> None:
        """T8: an answer before there is one; what the bank does with the envelope stays its secret."""
        self._lie(case)
        self._send(case.terms, case.message)

    def _use_an_accomplice(self, case: _Case) -> None:
        """T9: somebody else pays under the victim's payment ID, and the victim is to believe the receipt."""
        generation = self._world.bank.generation
        suite_key = suite_key_of(generation).public_suite_key()
        accomplice = self._accomplice
        request = SealCredentials(suite_key, CHEAP_PASSWORD_KEY, case.terms, accomplice.user_id, accomplice.password)
        envelope = seal(request, self._source)
        self._world.judge.authorised("evil gateway", case.terms, accomplice.user_id, True, envelope_hash(envelope))
        self._send(case.terms, replace(case.message, key_id=suite_key.key_id, envelope=envelope))
        if self._source.random() < 0.5:
            self._send(case.terms, case.message)

    def _keep_for_others(self, case: _Case) -> None:
        """It is sent when another one comes, and their answers are exchanged."""
        self._later(lambda: self._send(case.terms, case.message))
        for other in list(self._cases.values())[-3:]:
            self._send(other.terms, case.message)

    def _pose_as_another(self, case: _Case) -> None:
        """T14: in the name of an honest gateway, whose key it does not have."""
        self._send(replace(case.terms, gateway_id="GW1"), case.message)
        self._forward(case)

    def _break_the_link(self, case: _Case) -> None:
        """T13, T35: frames of a link that they are not of, and no frames, on its own link to the bank."""
        if (bank := self._bank) is not None:
            garbage = self._garbage()
            bank.throw(encode_frame(case.message, 7) if self._source.random() < 0.5 else garbage)

    def _swallow(self, case: _Case) -> None:
        """Nothing is sent, and nothing said."""

    def _later(self, release: Callable[[], None]) -> None:
        if self._is_healed:
            release()
            return
        self._held.append(release)

        def due() -> None:
            if release in self._held:
                self._held.remove(release)
                release()

        self._world.agenda.later(self._source.randrange(HELD_MS_MAX) * MS, due)

    # -- what the bank says, and what it makes of that -------------------------------------------------

    def _answered(self, link: EvilLink, asked: Message | None, message: Message) -> None:
        if isinstance(message, BankKeys) and message.status is KeysStatus.AVAILABLE:
            if message.signed_key_list not in self._key_lists:
                self._key_lists.append(message.signed_key_list)
        elif isinstance(message, TransferAnswer):
            if message.outcome.is_final:
                self._receipts.append(message)
            case = self._cases.get(message.payment_id)
            if case is None:
                return
            case.truth = message
            if self._source.random() < 0.4:
                self._lie(case)
            else:
                case.link.answer(case.correlation_id, PaymentAck(message.payment_id, *_said(message)))

    def _lie(self, case: _Case) -> None:
        self._world.count("evil gateway: false answers")
        case.link.answer(case.correlation_id, PaymentAck(case.message.payment_id, *self._false(case)))

    def _status(self, payment_id: bytes) -> StatusAck:
        case = self._cases.get(payment_id)
        roll = self._source.random()
        if case is None or roll < 0.1:
            return StatusAck(payment_id, PaymentStatus.UNKNOWN, Reason.NONE, "", b"")
        if case.truth is None and self._is_healed:
            self._send(case.terms, case.message)
        if case.truth is not None and roll < 0.6:
            return StatusAck(payment_id, *_said(case.truth))
        return StatusAck(payment_id, *self._false(case))

    def _false(self, case: _Case) -> tuple[PaymentStatus, Reason, str, bytes]:
        """T8, T9: what an answer can say that nobody proved."""
        source = self._source
        forged = self._forged(case)
        other = source.choice(self._receipts) if self._receipts else None
        lies: list[tuple[PaymentStatus, Reason, str, bytes]] = [
            (PaymentStatus.PENDING, Reason.NONE, "", b""),
            (PaymentStatus.REFUSED, Reason.BANK_UNREACHABLE, "", b""),
            (PaymentStatus.REFUSED, Reason.TOKEN_PAID, _FALSE_UTR, b""),
            (PaymentStatus.PAID, Reason.NONE, _FALSE_UTR, source.randbytes(200)),
            (PaymentStatus.PAID, Reason.NONE, _FALSE_UTR, forged),
            (PaymentStatus.DECLINED, Reason.FUNDS, "", forged),
        ]
        if other is not None:
            lies += [
                _said(other),
                (PaymentStatus.PAID, Reason.NONE, other.utr or _FALSE_UTR, other.receipt),
                (PaymentStatus.DECLINED, Reason.FENCED, "", other.receipt),
            ]
        if case.truth is not None and case.truth.receipt:
            lies += [
                (PaymentStatus.PAID, Reason.NONE, _FALSE_UTR, case.truth.receipt),
                (PaymentStatus.DECLINED, Reason.FUNDS, "", case.truth.receipt),
            ]
        return source.choice(lies)

    def _forged(self, case: _Case) -> bytes:
        """A receipt that says all the right things, under a key that is not the bank's."""
        statement = ReceiptStatement(
            _FORGERS_KEY_ID,
            TransferOutcome.POSTED,
            Reason.NONE,
            case.terms,
            _FALSE_UTR,
            NOW_MS,
            envelope_hash(case.message.envelope),
        )
        return sign_receipts(_FORGERS_KEY, [statement])[0]

    def _garbage(self) -> bytes:
        return self._source.randbytes(self._source.randint(1, 60))


def _said(answer: TransferAnswer) -> tuple[PaymentStatus, Reason, str, bytes]:
    """What an honest gateway makes of the bank's answer."""
    if answer.outcome is TransferOutcome.POSTED:
        return PaymentStatus.PAID, Reason.NONE, answer.utr, answer.receipt
    if not answer.outcome.is_final:
        return PaymentStatus.PENDING, Reason.NONE, "", b""
    return PaymentStatus.DECLINED, answer.reason, "", answer.receipt


def make_evil(world: "World") -> None:
    """All who lie, as the plan asks for them."""
    customers = world.plan.customers
    for plan in world.plan.gateways:
        if plan.is_evil:
            EvilGateway(world, plan, customers[-1]).start()
    if world.plan.has_evil_client:
        EvilClient(world, customers[-1]).start()
