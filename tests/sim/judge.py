"""What a run is told to whoever judges it: `model.Model` in a campaign.

The world calls these as things happen and believes nothing itself. A judge that finds an invariant broken raises
`Violation`, which ends the run.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from paygate.bank.ledger import Outcome as LedgerOutcome
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.client.payment import Outcome
from paygate.clock import Now
from paygate.codec.codes import Role
from paygate.codec.messages import Message
from paygate.codec.sealed import Terms
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import Operation as TokenOperation
from paygate.gateway.tokens import Outcome as TokenOutcome
from paygate.gateway.tokens import Token

if TYPE_CHECKING:
    from sim.world import World


class Violation(AssertionError):
    """An invariant does not hold: which one (`I1` to `I10`, or another name), and what was seen."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant
        self.text = text


class Judge(Protocol):
    """What is told of a run, in the order in which it happens."""

    def account_opened(self, customer_id: str, user_id: str, amount_minor: int) -> None:
        """A customer has an account with so much."""

    def merchant_opened(self, merchant_id: str, amount_minor: int) -> None:
        """A merchant has an account with so much."""

    def secret(self, what: str, secret: bytes) -> None:
        """I7: this may stand in sealed envelopes and nowhere else."""

    def token_issued(self, gateway_id: str, token: Token) -> None:
        """A merchant issued a token, and the gateway's store has it."""

    def token_cancelled(self, gateway_id: str, transaction_id: str) -> None:
        """The store took a merchant's cancellation: the token was unpaid."""

    def authorised(
        self, client_name: str, terms: Terms, user_id: str, password_is_right: bool, envelope_hash: bytes
    ) -> None:
        """The customer said yes to these terms, and the envelope is sealed; nothing of it has been sent yet."""

    def told(self, client_name: str, payment_id: bytes, outcome: Outcome, receipt: bytes, utr: str, text: str) -> None:
        """A client's program ended with this: a payment or a question. `payment_id` is empty if none was made."""

    def never_sent(self, payment_id: bytes) -> None:
        """The program was killed after `authorised` and before the payment's record was on disk."""

    def meddled(self, payment_id: bytes) -> None:
        """A liar that hears the links sends credentials under an honest customer's payment ID.

        It may come first or last, so what a gateway says of this ID may be of either, and there may be no proof.
        """

    def gateway_told(self, gateway_id: str, message: Message, transaction_id: str) -> None:
        """An honest client that asked about this token got this PaymentAck, StatusAck or TokenAck."""

    def bank_started(self, now: Now) -> None:
        """A life of the bank begins."""

    def bank_applied(self, ledger: SqliteLedger, outcomes: Sequence[LedgerOutcome], now: Now) -> None:
        """A batch came back from the bank's store: it is durable."""

    def gateway_applying(self, gateway_id: str, operations: Sequence[TokenOperation]) -> None:
        """A batch is given to a gateway's store; it may not come back."""

    def gateway_applied(self, gateway_id: str, store: SqliteTokens, outcomes: Sequence[TokenOutcome], now: Now) -> None:
        """A batch came back from a gateway's store: it is durable."""

    def restarted(self, role: Role, name: str, store: SqliteLedger | SqliteTokens) -> None:
        """A server has started again after a crash, and its store has recovered."""

    def frame(self, link_name: str, sender: str, data: bytes) -> None:
        """Bytes leave somebody for the wire."""

    def healed(self, now_us: int) -> None:
        """From this true time on (microseconds since the start) nothing fails any more."""

    def finish(self, world: "World") -> None:
        """All is quiet: everything must hold, and every payment be final."""
