"""The client's session without its sockets, files, clocks and children (R1-R4, R10).

Strategy: the shell tells what happened (`connected`, `receive_data`, `authorise`, `sealed`, `saved`, `time_up`, ...)
and performs the effects that come back, in their order. A table says what may happen when. The line that matters
runs between SAVING and SENT: before it, every end means that no money has moved; after it, only the bank's proof
settles a payment, and whatever is not proven, a refusal too, is told as that and can be asked for again (T8). While
the session lasts, a payment that the gateway does not know is sent again, byte for byte: by this process after a broken
link, or by `Core.again` after a crash. It is the same payment then, so it moves money once at most (T1).

A token is acknowledged only when the bank's keys are proven too, so nobody types a password for nothing (R3).
"""

import contextlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from paygate.client.effects import Connect, Disconnect, Effect, KeepSerial, Save, Seal, Send, StartSession
from paygate.client.order import Order
from paygate.client.payment import Outcome, Payment, PaymentResult
from paygate.client.root import BankRoot
from paygate.client.states import TRANSITIONS, Event, State
from paygate.client.verdict import NOTHING_SENT, TrustedKeys, changed_record, judge, settled, token_result, unknown_text
from paygate.clock import Now
from paygate.codec import limits
from paygate.codec.codes import KemId, KeysStatus, PaymentStatus, Role, TokenStatus
from paygate.codec.errors import LocalProtocolError
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Error,
    Message,
    PaymentAnswer,
    StatusQuery,
    TokenAck,
    TokenQuery,
)
from paygate.codec.seal import BadKeyList, verify_key_list
from paygate.link import Link
from paygate.link_events import LinkEvent, LinkFailed, Opened, PeerClosed, ReplyReceived

ANSWER_MS: Final = 10_000
"""A gateway answers queries from its own records at once; after so long it will not answer any more."""
POLL_MS: Final = 1_000
"""Between two status queries while the session runs."""
RECONNECT_DELAYS_MS: Final = (200, 400, 800, 1_600)
"""Bounds of the jittered waits before each new connection; the last one repeats until the session ends."""
QUESTION_MS: Final = 10_000
"""How long a question about an earlier payment may take in all."""


class Core:
    """One session for one token; or a question about an earlier payment (`question`), or its repeat (`again`)."""

    def __init__(
        self,
        *,
        root: BankRoot,
        gateway: str,
        transaction_id: str,
        passcode: str,
        serial_min: int,
        randomness: random.Random,
        kem_id: KemId | None = None,
        status_command: str = "paygate-client status",
    ) -> None:
        """`serial_min`: the highest key list serial seen of this bank. `kem_id`: use this suite and no better one.

        `gateway` is only written down. `randomness` spreads reconnections. `status_command` is what texts tell
        the customer to type.
        """
        self.state = State.CONNECTING
        self.token: TokenAck | None = None
        """The acknowledgement that the customer is shown (R2)."""
        self.payment: Payment | None = None
        """From SAVING on: what is written down."""
        self.result: PaymentResult | None = None
        """Set when ENDED."""
        self._order = Order(root=root, gateway=gateway, transaction_id=transaction_id, passcode=passcode, kem_id=kem_id)
        self._serial_min = serial_min
        self._randomness = randomness
        self._status_command = status_command
        self._asks_once = False
        self._is_again = False
        self._link: Link | None = None
        self._keys_answer: BankKeys | None = None
        self._keys: list[TrustedKeys] = []
        self._session_ms = QUESTION_MS
        self._retry_count = 0
        self._deadline_ms: int | None = None  # what it means follows from the state, see `_deadline_due`
        self._is_asking = False

    @classmethod
    def question(
        cls,
        payment: Payment,
        *,
        serial_min: int,
        randomness: random.Random,
        status_command: str = "paygate-client status",
    ) -> "Core":
        """A core that asks once what became of a payment, and moves no money; of a settled one it asks nobody."""
        core = cls(
            root=payment.root,
            gateway=payment.gateway,
            transaction_id=payment.terms.transaction_id,
            passcode=payment.passcode,
            serial_min=serial_min,
            randomness=randomness,
            status_command=status_command,
        )
        core.state = State.RECONNECTING
        core.payment = payment
        core._asks_once = True
        return core

    @classmethod
    def again(
        cls,
        payment: Payment,
        *,
        serial_min: int,
        randomness: random.Random,
        status_command: str = "paygate-client status",
    ) -> "Core":
        """A core that goes on with a payment after a crash (PG-CLI-2).

        It asks first, sends the same bytes again only if the gateway does not know the payment, and then asks on as
        the session that was cut off would have.
        """
        core = cls.question(payment, serial_min=serial_min, randomness=randomness, status_command=status_command)
        core._asks_once = False
        core._is_again = True
        core._session_ms = limits.SESSION_MS
        return core

    # -- what the shell tells --------------------------------------------------------------------------

    def start(self, now: Now) -> list[Effect]:
        """Begin. A question adds the keys that it has itself, and is limited in time from here on."""
        assert self._link is None
        assert self._deadline_ms is None
        if self.payment is None:
            return [Connect()]
        if self.payment.is_settled:
            # T8: the record holds the proof, and no answer could be worth more.
            self._step(Event.GIVEN_UP)
            return self._end(settled(self.payment), now)
        # The bank may sign a late answer with a key that came after the payment, so its list is asked for too.
        try:
            self._keys.append(TrustedKeys(self.payment.signed_key_list, self.payment.key_list()))
        except BadKeyList as error:
            self._step(Event.GIVEN_UP)
            return self._end(changed_record(self.payment, str(error)), now)
        return [StartSession(self._session_ms), Connect()]

    def connected(self, now: Now) -> list[Effect]:
        """The connection is up."""
        self._step(Event.CONNECTED)
        if self.state is State.ENDED:
            return [Disconnect()]
        # A client's own ID is free and means nothing (spec 5.1).
        self._link = Link(Role.CLIENT, "client", Role.GATEWAY, is_caller=True, now_ms=now.mono_ms)
        self._deadline_ms = None
        return self._output()

    def receive_data(self, data: bytes, now: Now) -> list[Effect]:
        """Bytes came from the gateway."""
        return self._handle(self._link.receive_data(data, now.mono_ms), now) if self._link else []

    def receive_eof(self, now: Now) -> list[Effect]:
        """The gateway sends no more."""
        return self._handle(self._link.receive_eof(), now) if self._link else []

    def connection_lost(self, text: str, now: Now) -> list[Effect]:
        """Connecting failed, or the connection is gone; `text` says why, for people."""
        return self._lost(text, now)

    def authorise(self, user_id: str, password: str, payment_id: bytes, now: Now) -> list[Effect]:
        """R3: the customer pays what was shown. `payment_id`: of `make_payment_id`, never used before.

        Raises BadInput and leaves everything as it was.
        """
        if self.state is not State.ACKNOWLEDGED:
            raise LocalProtocolError(f"authorised while {self.state.value}")
        request = self._order.authorise(user_id, password, payment_id, now)
        self._step(Event.AUTHORISED)
        return [Seal(request)]

    def cancel(self, now: Now) -> list[Effect]:
        """The customer gives up. Raises LocalProtocolError once the payment is being sent (R11)."""
        self._step(Event.CANCELLED)
        return self._end(PaymentResult(Outcome.CANCELLED, f"Cancelled. {NOTHING_SENT}"), now)

    def sealed(self, envelope: bytes, now: Now) -> list[Effect]:
        """The encoder's envelope. The payment is written down before a byte of it leaves."""
        self._step(Event.SEALED)
        if self.state is State.ENDED:
            return []
        self.payment = self._order.payment(envelope)
        return [Save(self.payment)]

    def seal_failed(self, text: str, now: Now) -> list[Effect]:
        """The encoder gave no envelope."""
        self._step(Event.SEAL_FAILED)
        return self._end(PaymentResult(Outcome.FAILED, f"{text}. {NOTHING_SENT}"), now)

    def saved(self, now: Now) -> list[Effect]:
        """What `Save` asked for is on disk; only now may the credentials leave."""
        self._step(Event.SAVED)
        if self.state is State.ENDED:
            return []
        self._send_credentials()
        return self._output()

    def save_failed(self, text: str, now: Now) -> list[Effect]:
        """What `Save` asked for is not on disk. An outcome that is known is told all the same."""
        self._step(Event.SAVE_FAILED)
        if self.result is not None:
            self.result = replace(self.result, text=f"{self.result.text} (It could not be written down: {text})")
            return []
        self.payment = None
        return self._end(PaymentResult(Outcome.FAILED, f"{text}. {NOTHING_SENT}"), now)

    def time_up(self, now: Now) -> list[Effect]:
        """R10: the session's time is over."""
        was_sent = self.state in (State.SENT, State.RECONNECTING, State.ASKING_STATUS)
        self._step(Event.TIME_UP)
        if self.result is not None:
            return []
        seconds = f"{round(self._session_ms / 1_000)} seconds"
        if self._asks_once or self._is_again:
            what = "give a final answer" if self._is_again else "answer"
            why = f"The gateway did not {what} within {seconds}; the payment's outcome is not known."
            return self._end(self._open_outcome(Outcome.UNKNOWN, why), now)
        if was_sent:
            why = f"Session ended after {seconds}; the payment was sent; its outcome is not known yet."
            return self._end(self._open_outcome(Outcome.UNKNOWN, why), now)
        return self._end(PaymentResult(Outcome.TIMED_OUT, f"Session ended after {seconds}. {NOTHING_SENT}"), now)

    def next_deadline_ms(self) -> int | None:
        """When `receive_timer` has work, on the monotonic clock; None for never."""
        link_ms = self._link.next_deadline_ms() if self._link else None
        return min((d for d in (link_ms, self._deadline_ms) if d is not None), default=None)

    def receive_timer(self, now: Now) -> list[Effect]:
        """The time is now `now`; harmless when nothing is due."""
        effects = self._handle(self._link.receive_timer(now.mono_ms), now) if self._link else []
        if self._deadline_ms is not None and now.mono_ms >= self._deadline_ms:
            self._deadline_ms = None
            effects += self._deadline_due(now)
        return effects

    # -- what comes from the link ----------------------------------------------------------------------

    def _handle(self, events: Sequence[LinkEvent], now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for event in events:
            if self._link is None:  # An earlier one of them ended it.
                break
            if isinstance(event, Opened):
                effects += self._opened(now)
            elif isinstance(event, ReplyReceived):
                effects += self._replied(event.message, now)
            elif isinstance(event, PeerClosed):
                effects += self._lost(f"the gateway closed the link ({event.text})", now)
            elif isinstance(event, LinkFailed):
                effects += self._lost(f"the link to the gateway failed ({event.error.text})", now)
        return effects + self._output()

    def _opened(self, now: Now) -> list[Effect]:
        assert self._link is not None
        self._step(Event.OPENED)
        self._retry_count = 0
        self._link.send_request(BankKeysQuery(self._order.root.bank_id))
        if self.state is State.ASKING:
            self._link.send_request(TokenQuery(self._order.transaction_id, self._order.passcode))
        # The status is asked for when the keys are there: a late receipt may need newer ones than ours.
        self._is_asking = True
        self._deadline_ms = now.mono_ms + ANSWER_MS
        return []

    def _replied(self, message: Message, now: Now) -> list[Effect]:
        if isinstance(message, TokenAck):
            return self._token_told(message, now)
        if isinstance(message, BankKeys):
            return self._keys_told(message, now)
        if isinstance(message, PaymentAnswer):
            return self._answered(message, now)
        assert isinstance(message, Error)
        if self.state is State.ASKING:
            return self._lost(f"the gateway refused the query ({message.text or message.code.name.lower()})", now)
        if self.state in (State.SENT, State.ASKING_STATUS):
            # An Error never speaks of a payment's outcome (spec 9), so it is still asked for.
            return self._not_final(None, now)
        return []

    def _token_told(self, token: TokenAck, now: Now) -> list[Effect]:
        self.token = token
        effects: list[Effect] = []
        if token.status is TokenStatus.VALID:
            self._session_ms = min(token.session_left_ms, limits.SESSION_MS)
            effects.append(StartSession(self._session_ms))
        return effects + self._maybe_acknowledge(now)

    def _keys_told(self, answer: BankKeys, now: Now) -> list[Effect]:
        if self.state is State.ASKING:
            self._keys_answer = answer
            return self._maybe_acknowledge(now)
        assert self.state is State.ASKING_STATUS
        effects: list[Effect] = []
        if answer.status is KeysStatus.AVAILABLE:
            # It only adds keys to check receipts with; a list that doesn't hold adds none.
            with contextlib.suppress(BadKeyList):
                effects = self._trust(answer.signed_key_list, now)
        self._ask_status(now)
        return effects

    def _trust(self, signed_key_list: bytes, now: Now) -> list[Effect]:
        key_list = verify_key_list(
            signed_key_list, self._order.root.public_key, self._order.root.bank_id, now.wall_ms, self._serial_min
        )
        self._keys.append(TrustedKeys(signed_key_list, key_list))
        if key_list.serial == self._serial_min:
            return []
        self._serial_min = key_list.serial
        return [KeepSerial(self._order.root, key_list.serial)]

    def _maybe_acknowledge(self, now: Now) -> list[Effect]:
        if self.token is None:
            return []
        if self.token.status is not TokenStatus.VALID:
            return self._turn_down(token_result(self.token), now)
        if self._keys_answer is None:
            return []
        refusal = self._order.maybe_refusal(self.token, self._keys_answer)
        if refusal is not None:
            return self._turn_down(refusal, now)
        try:
            effects = self._trust(self._keys_answer.signed_key_list, now)
            self._order.accept(self.token, self._keys[0])
        except BadKeyList as error:
            text = f"The bank's keys can't be trusted: {error}. {NOTHING_SENT}"
            return self._turn_down(PaymentResult(Outcome.UNTRUSTED, text), now)
        self._step(Event.ACCEPTED)
        self._deadline_ms = None
        return effects

    def _turn_down(self, result: PaymentResult, now: Now) -> list[Effect]:
        self._step(Event.TURNED_DOWN)
        return self._end(result, now)

    def _answered(self, answer: PaymentAnswer, now: Now) -> list[Effect]:
        assert self.payment is not None
        result = judge(answer, self.payment, self._keys, now.wall_ms, self._status_command)
        is_unknown = answer.status is PaymentStatus.UNKNOWN and result.outcome is not Outcome.UNTRUSTED
        if is_unknown and not self._asks_once and self.payment.credentials(now.wall_ms) is not None:
            # What was sent before got lost with its link, or is a repeat of this (PG-PAY-5).
            self._step(Event.SENT_AGAIN)
            self._send_credentials()
            self._deadline_ms = None
            return []
        if result.outcome is Outcome.UNKNOWN:
            return self._not_final(result, now)
        self._step(Event.FINAL)
        return self._end(result, now)

    def _not_final(self, result: PaymentResult | None, now: Now) -> list[Effect]:
        if self._asks_once:
            self._step(Event.GIVEN_UP)
            why = "The gateway did not answer the question; the payment's outcome is not known."
            return self._end(result or self._open_outcome(Outcome.UNKNOWN, why), now)
        self._step(Event.NOT_FINAL)
        self._is_asking = False
        self._deadline_ms = now.mono_ms + POLL_MS
        return []

    # -- inside ----------------------------------------------------------------------------------------

    def _deadline_due(self, now: Now) -> list[Effect]:
        if self.state is State.RECONNECTING:
            return [Connect()]
        if self.state is State.ASKING_STATUS and not self._is_asking:
            self._ask_status(now)
            return self._output()
        return self._lost("the gateway does not answer", now)

    def _send_credentials(self) -> None:
        assert self._link is not None
        assert self.payment is not None
        # Whoever asked for this looked at the time.
        credentials = self.payment.credentials(self.payment.terms.authorised_at_ms)
        assert credentials is not None
        self._link.send_request(credentials)

    def _ask_status(self, now: Now) -> None:
        assert self._link is not None
        assert self.payment is not None
        self._link.send_request(StatusQuery(self.payment.payment_id, self._order.transaction_id, self._order.passcode))
        self._is_asking = True
        self._deadline_ms = now.mono_ms + ANSWER_MS

    def _lost(self, text: str, now: Now) -> list[Effect]:
        self._step(Event.LOST)
        if self.result is not None:
            return []
        effects = self._drop_link()
        if self.state is State.RECONNECTING:
            return effects + self._retry(text, now)
        result = PaymentResult(Outcome.NO_CONNECTION, f"{_sentence(text)} {NOTHING_SENT}")
        return effects + self._end(result, now)

    def _retry(self, text: str, now: Now) -> list[Effect]:
        if self._asks_once:
            self._step(Event.GIVEN_UP)
            why = f"{_sentence(text)} The payment's outcome is not known."
            return self._end(self._open_outcome(Outcome.NO_CONNECTION, why), now)
        bound_ms = RECONNECT_DELAYS_MS[min(self._retry_count, len(RECONNECT_DELAYS_MS) - 1)]
        self._retry_count += 1
        self._deadline_ms = now.mono_ms + self._randomness.randint(bound_ms // 2, bound_ms)
        return []

    def _open_outcome(self, outcome: Outcome, why: str) -> PaymentResult:
        assert self.payment is not None
        text = unknown_text(self.payment, why, self._status_command)
        return PaymentResult(outcome, text, money_may_have_moved=True, payment_id=self.payment.payment_id)

    def _end(self, result: PaymentResult, now: Now) -> list[Effect]:
        assert self.state is State.ENDED
        if self.result is not None:
            return []
        self.result = result
        effects = self._drop_link()
        if self.payment is None:
            return effects
        written_result = result
        if result.outcome in (Outcome.TIMED_OUT, Outcome.NO_CONNECTION) and not result.money_may_have_moved:
            # It was written down and never sent: that we know ourselves, so nobody has to ask for it.
            written_result = replace(result, outcome=Outcome.NOT_FORWARDED)
        written = self.payment.after(written_result, now.wall_ms)
        if written is not self.payment:
            self.payment = written
            effects.append(Save(written))
        return effects

    def _drop_link(self) -> list[Effect]:
        self._deadline_ms = None
        if self._link is None:
            return []
        self._link.close()
        effects = self._output()
        self._link = None
        return [*effects, Disconnect()]

    def _output(self) -> list[Effect]:
        data = self._link.data_to_send() if self._link else b""
        return [Send(data)] if data else []

    def _step(self, event: Event) -> None:
        next_state = TRANSITIONS[self.state].get(event)
        if next_state is None:
            raise LocalProtocolError(f"{event.value}, while {self.state.value}")
        self.state = next_state


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
