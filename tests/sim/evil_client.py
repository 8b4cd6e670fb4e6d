"""A client that lies: it has overheard what others sent, holds some tokens' passcodes, and has an account of its own.

Links of clients are not encrypted, so it hears every honest client's frames; what is in their envelopes it can't read.
"""

import contextlib
import random
from typing import TYPE_CHECKING, Any, Final

from builders import BANK_ID, CHEAP_PASSWORD_KEY
from sim.agenda import MS, START_WALL_MS
from sim.evil_link import EvilLink
from sim.keys import seal, suite_key_of
from sim.network import End
from sim.plan import BANK, CustomerPlan, TokenPlan

from paygate.codec.codes import Kind, PaymentStatus, Role, TokenStatus
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import decode_head, encode_frame
from paygate.codec.messages import (
    EncryptedCredentials,
    Message,
    PaymentAck,
    SealCredentials,
    StatusAck,
    StatusQuery,
    TokenAck,
    TokenQuery,
)
from paygate.codec.record_codec import decode_record
from paygate.codec.seal import envelope_hash
from paygate.codec.sealed import Terms
from paygate.link import Link

if TYPE_CHECKING:
    from sim.world import World

WRONG_PASSCODE_COUNT_MAX: Final = 2
"""For each token: more would lock honest shoppers out, which T16 allows and nobody can be spared."""
WRONG_PASSWORD_COUNT_MAX: Final = 1
"""Of its own account, which honest programs use too."""
OVERHEARD_COUNT_MAX: Final = 200
_HEADER_SIZE: Final = 20


class EvilClient:
    """Does something every few seconds while things go wrong, and nothing from the healing on."""

    name = "evil client"

    def __init__(self, world: "World", customer: CustomerPlan) -> None:
        """`customer`: whose account it may use."""
        self._world = world
        self._customer = customer
        self._source: random.Random = world.randomness("evil client")
        self._links: dict[End, EvilLink] = {}
        self._overheard: list[EncryptedCredentials] = []
        self._raw: list[bytes] = []
        self._heard_count = 0  # of all that was sent
        self._acks: list[tuple[TokenPlan, TokenAck]] = []
        self._wrong_passcodes: dict[str, int] = {}
        self._wrong_password_count = 0

    def start(self) -> None:
        """It acts from the beginning on."""
        self._later()

    def _later(self) -> None:
        self._world.agenda.later(self._source.randrange(100, 6_000) * MS, self._act)

    # -- the node --------------------------------------------------------------------------------------

    def on_connected(self, end: End) -> None:
        """Node."""
        now_ms = self._world.agenda.now_us // MS
        link = Link(Role.CLIENT, "client", Role.GATEWAY, is_caller=True, now_ms=now_ms)
        self._links[end] = EvilLink(end, link, self._opened, lambda *_: None, self._answered)
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

    # -- what it hears ---------------------------------------------------------------------------------

    def _hear(self) -> None:
        sent, self._heard_count = self._world.sent[self._heard_count :], len(self._world.sent)
        for one in sent:
            data = one.data
            is_long = len(data) > _HEADER_SIZE and one.sender != self.name
            if is_long and data[3] == Kind.ENCRYPTED_CREDENTIALS and len(self._overheard) < OVERHEARD_COUNT_MAX:
                with contextlib.suppress(RemoteProtocolError):
                    head = decode_head(data)
                    message = decode_record(EncryptedCredentials, data[_HEADER_SIZE : head.frame_size])
                    self._overheard.append(message)
                    self._raw.append(data)

    def _opened(self, link: EvilLink) -> None:
        for token in self._source.sample(self._world.plan.tokens, min(2, len(self._world.plan.tokens))):
            link.ask(TokenQuery(token.token.transaction_id, self._passcode(token)))

    def _passcode(self, token: TokenPlan) -> str:
        tried = self._wrong_passcodes.get(token.token.transaction_id, 0)
        if tried < WRONG_PASSCODE_COUNT_MAX and self._source.random() < 0.2:
            self._wrong_passcodes[token.token.transaction_id] = tried + 1
            return "wrong-guess"
        return token.token.passcode

    def _answered(self, link: EvilLink, asked: Message | None, message: Message) -> None:
        gateway_id = link.end.link_name.partition(">")[2].partition("#")[0]
        # What is refused now it may send again, and then rightly be paid; and of others' payments it hears nothing.
        is_word = isinstance(message, TokenAck) or (
            isinstance(message, PaymentAck | StatusAck)
            and message.status not in (PaymentStatus.REFUSED, PaymentStatus.UNKNOWN)
        )
        if is_word:
            transaction_id = asked.transaction_id if isinstance(asked, TokenQuery) else ""
            self._world.judge.gateway_told(gateway_id, message, transaction_id)
        if isinstance(message, TokenAck) and message.status is TokenStatus.VALID and isinstance(asked, TokenQuery):
            for token in self._world.plan.tokens:
                if token.token.transaction_id == asked.transaction_id:
                    self._acks.append((token, message))

    # -- what it does ----------------------------------------------------------------------------------

    def _act(self) -> None:
        if self._world.agenda.now_us >= self._world.healed_us:
            for link in list(self._links.values()):
                link.end.close_after_flush()
            return
        self._hear()
        if len(self._links) < 3 or self._source.random() < 0.1:
            self._connect()
        elif (opened := self._open_link()) is not None:
            tricks = (self._replay, self._replay_altered, self._ask, self._pay, self._throw, self._ask_for_tokens)
            trick = self._source.choice(tricks)
            self._world.count(f"evil client: {trick.__name__.strip('_').replace('_', ' ')}")
            trick(opened)
        self._later()

    def _connect(self) -> None:
        targets = [gateway.gateway_id for gateway in self._world.plan.gateways]
        # T13: now and then it calls the bank itself, which turns strangers away.
        self._world.network.connect(self, BANK if self._source.random() < 0.1 else self._source.choice(targets))

    def _open_link(self) -> EvilLink | None:
        links = [link for link in self._links.values() if link.link.is_open]
        return self._source.choice(links) if links else None

    def _replay(self, link: EvilLink) -> None:
        """T1: somebody's credentials, byte for byte, on another link; twice."""
        if self._overheard:
            message = self._source.choice(self._overheard)
            link.ask(message)
            link.ask(message)

    def _replay_altered(self, link: EvilLink) -> None:
        """T2, T3, T4: somebody's envelope in another session or under another payment ID, or the other way round."""
        if not self._overheard:
            return
        one, other = self._source.choice(self._overheard), self._source.choice(self._overheard)
        session_id = self._source.choice([one.session_id, other.session_id, *(a.session_id for _, a in self._acks)])
        payment_id = self._source.choice((one.payment_id, other.payment_id, self._source.randbytes(16)))
        at_ms = one.authorised_at_ms + self._source.choice((0, 0, 1, 60_000))
        link.ask(EncryptedCredentials(session_id, payment_id, at_ms, one.key_id, one.envelope))

    def _ask(self, link: EvilLink) -> None:
        """What became of others' payments."""
        if self._overheard and self._world.plan.tokens:
            token = self._source.choice(self._world.plan.tokens)
            payment_id = self._source.choice(self._overheard).payment_id
            link.ask(StatusQuery(payment_id, token.token.transaction_id, self._passcode(token)))

    def _ask_for_tokens(self, link: EvilLink) -> None:
        self._opened(link)

    def _pay(self, link: EvilLink) -> None:
        """With its own account: an honest envelope under a copied payment ID, or a wrong password, or nothing odd."""
        if not self._acks:
            return
        token, ack = self._source.choice(self._acks)
        payment_id = self._source.randbytes(16)
        if self._overheard and self._source.random() < 0.3:
            payment_id = self._source.choice(self._overheard).payment_id
        at_ms = START_WALL_MS + self._world.agenda.now_us // MS
        terms = Terms(
            bank_id=BANK_ID,
            gateway_id=ack.gateway_id,
            merchant_id=ack.merchant_id,
            transaction_id=token.token.transaction_id,
            payment_id=payment_id,
            session_id=ack.session_id,
            amount_minor=ack.amount_minor,
            currency=ack.currency,
            authorised_at_ms=at_ms,
        )
        password = self._customer.password
        if self._wrong_password_count < WRONG_PASSWORD_COUNT_MAX and self._source.random() < 0.2:
            self._wrong_password_count += 1
            password = self._customer.wrong_password
        suite_key = suite_key_of(self._world.bank.generation).public_suite_key()
        request = SealCredentials(suite_key, CHEAP_PASSWORD_KEY, terms, self._customer.user_id, password)
        envelope = seal(request, self._source)
        is_right = password == self._customer.password
        self._world.judge.authorised(self.name, terms, self._customer.user_id, is_right, envelope_hash(envelope))
        link.ask(EncryptedCredentials(ack.session_id, payment_id, at_ms, suite_key.key_id, envelope))

    def _throw(self, link: EvilLink) -> None:
        """T35: what is no frame, or one that somebody else sent, whole, cut, glued, flipped or turned round."""
        data = self._source.choice(self._raw) if self._raw else encode_frame(TokenQuery("TX-0", "1"), 9)
        at = self._source.randrange(1, len(data))
        made: dict[str, Any] = {
            "whole": data,
            "cut": data[:at],
            "glued": data + data[:at],
            "flipped": data[:at] + bytes([data[at] ^ (1 << self._source.randrange(8))]) + data[at + 1 :],
            "turned": data[at:] + data[:at],
        }
        link.throw(made[self._source.choice(list(made))])
