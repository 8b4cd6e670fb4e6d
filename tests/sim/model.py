"""The independent model that judges a run of the simulator: ten invariants, checked as it goes and at its end.

Strategy: the model decides nothing with paygate's code. It knows what customers authorised, reads what the ledger and
the tokens' stores hold with queries of its own, and holds every word that anybody is told against it. What a commit
acknowledged goes into its books for ever; after each recovery the stores are held against these books. Here is what
the world calls; `model_ledger` keeps the bank's books, `model_tokens` a gateway's, `model_clients` the customers',
`model_wire` watches the links, `model_quiet` looks at the memory of a world that has come to rest.
"""

from collections.abc import Sequence
from typing import Any

from builders import BANK_ID
from sim.agenda import MS, START_WALL_MS
from sim.invariants import Invariant, Violation
from sim.model_clients import ClientsModel
from sim.model_ledger import Authorisation, LedgerModel
from sim.model_quiet import check_audit, check_quiet
from sim.model_tokens import TokensModel
from sim.model_wire import WireModel

from paygate.client.payment import Outcome
from paygate.clock import Now
from paygate.codec.codes import Role
from paygate.codec.messages import Message
from paygate.codec.sealed import Terms
from paygate.gateway.tokens import Token

__all__ = ["Invariant", "Model", "Violation"]


class Model:
    """What must hold of one run. Every method raises Violation."""

    def __init__(self) -> None:
        self.ledger = LedgerModel()
        self.clients = ClientsModel(self.ledger)
        self.wire = WireModel(self.ledger)
        self.gateways: dict[str, TokensModel] = {}
        """The honest ones, by ID."""
        self.healed_us: int | None = None

    # -- what is there from the start ------------------------------------------------------------------

    def account_opened(self, customer_id: str, user_id: str, amount_minor: int) -> None:
        """A customer's account is in the ledger."""
        self.ledger.open_customer(customer_id, user_id, amount_minor)

    def merchant_opened(self, merchant_id: str, amount_minor: int) -> None:
        """A merchant's account is in the ledger."""
        self.ledger.open_merchant(merchant_id, amount_minor)

    def secret(self, what: str, secret: bytes) -> None:
        """I7: this may stand in sealed envelopes and nowhere else: a customer's user ID, password or password key."""
        self.wire.keep_secret(what, secret)

    def token_issued(self, gateway_id: str, token: Token) -> None:
        """A gateway took a token in; one that lies has no store, and is believed nothing."""
        gateway = self.gateways.get(gateway_id)
        if gateway is not None:
            gateway.issue(token)

    def token_cancelled(self, gateway_id: str, transaction_id: str) -> None:
        """An honest gateway took the withdrawal of an unpaid token in."""
        self._gateway(gateway_id).cancel(transaction_id)

    def _gateway(self, gateway_id: str) -> TokensModel:
        if gateway_id not in self.gateways:
            self.gateways[gateway_id] = TokensModel(gateway_id, self.ledger)
            self.gateways[gateway_id].meddled |= self.clients.meddled
        return self.gateways[gateway_id]

    # -- customers -------------------------------------------------------------------------------------

    def authorised(
        self, client_name: str, terms: Terms, user_id: str, password_is_right: bool, envelope_hash: bytes
    ) -> None:
        """A customer said yes to these terms, and the envelope is sealed."""
        self.clients.authorised(Authorisation(client_name, terms, user_id, password_is_right), envelope_hash)

    def never_sent(self, payment_id: bytes) -> None:
        """The client died before the payment's record was on disk, so its customer has nothing to ask for."""
        self.clients.forget(payment_id)

    def meddled(self, payment_id: bytes) -> None:
        """A liar sends credentials under an honest customer's payment ID."""
        self.clients.meddled.add(payment_id)
        for gateway in self.gateways.values():
            gateway.meddled.add(payment_id)

    def told(self, client_name: str, payment_id: bytes, outcome: Outcome, receipt: bytes, utr: str, text: str) -> None:
        """A client's program ended, or answered a question: all of a PaymentResult that matters."""
        self.clients.told(client_name, payment_id, outcome, receipt, utr, text)

    def gateway_told(self, gateway_id: str, message: Message, transaction_id: str) -> None:
        """A client's end of a link decoded a PaymentAck, StatusAck or TokenAck of this gateway.

        `transaction_id`: of the token that was asked for or is to be paid.
        """
        gateway = self.gateways.get(gateway_id)
        if gateway is not None:
            gateway.told(message, transaction_id)

    # -- servers ---------------------------------------------------------------------------------------

    def bank_started(self, now: Now) -> None:
        """A life of the bank begins."""
        self.ledger.started(now)

    def bank_applied(self, ledger: Any, outcomes: Sequence[Any], now: Now) -> None:
        """The bank's `apply` returned."""
        self.ledger.applied(ledger, outcomes, now)

    def gateway_applying(self, gateway_id: str, operations: Sequence[Any]) -> None:
        """A gateway's `apply` is called."""
        self._gateway(gateway_id).applying(operations)

    def gateway_applied(self, gateway_id: str, store: Any, outcomes: Sequence[Any], now: Now) -> None:
        """A gateway's `apply` returned."""
        self._gateway(gateway_id).applied(store, outcomes, now)

    def restarted(self, role: Role, name: str, store: Any) -> None:
        """I3: after a crash and recovery everything that was acknowledged is there."""
        if role is Role.BANK:
            self.ledger.recovered(store)
        else:
            self._gateway(name).recovered(store)

    def frame(self, link_name: str, sender: str, data: bytes) -> None:
        """Bytes left a node."""
        self.wire.frame(link_name, sender, data)
        if sender == BANK_ID:
            self.wire.bank_sent(link_name, data)

    # -- the end ---------------------------------------------------------------------------------------

    def healed(self, now_us: int) -> None:
        """From this time on nothing fails any more; a session and 60 s later comes `finish` (I9)."""
        self.healed_us = now_us
        for gateway in self.gateways.values():
            gateway.healed()

    def finish(self, world: Any) -> None:
        """The session and 60 s of healing are over: everything is final, known, small and quiet."""
        bank, gateways = world.bank, world.gateways
        self.ledger.check_balances(bank.store)
        self.ledger.check_attempts(bank.store)
        for gateway in gateways:
            self._gateway(gateway.name).finish(gateway.store, START_WALL_MS + (self.healed_us or 0) // MS)
        honest_tokens = {(name, token) for name, gateway in self.gateways.items() for token in gateway.tokens}
        self.clients.finish(honest_tokens, is_faultless=world.is_faultless)
        check_quiet(bank, gateways)
        check_audit(bank, gateways)
        for gateway in gateways:
            for name, data in gateway.disk.files.items():
                self.wire.look_for_secrets(data, f"the disk of {gateway.name}, in {name}")
        for customer in world.customers.values():
            for payment_id, data in customer.files.items():
                self.wire.look_for_secrets(data, f"{customer.plan.name}'s record of payment {payment_id.hex()}")
