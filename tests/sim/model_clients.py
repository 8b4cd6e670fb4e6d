"""The model's view of the customers: what each was told, and whether it is so."""

import re
from typing import Final

from sim.invariants import Invariant, Violation
from sim.model_ledger import Authorisation, LedgerModel, PaymentKey, TokenKey

from paygate.client.payment import Outcome
from paygate.codec.codes import TransferOutcome
from paygate.codec.record_codec import encode_record
from paygate.codec.sealed import Terms

PROVEN: Final = frozenset({Outcome.PAID, Outcome.DECLINED})
"""What a client may say with the bank's receipt alone."""
OPEN: Final = frozenset({Outcome.UNKNOWN, Outcome.UNTRUSTED, Outcome.NO_CONNECTION, Outcome.TIMED_OUT})
"""What is no definite answer, if money may have moved."""
EVIL: Final = "evil"
"""What the names of those begin with who lie: they may pay, and are owed no answer."""
_NO_MONEY: Final = re.compile("(?<!proof that )no money has moved", re.IGNORECASE)
"""The words that promise it."""


class ClientsModel:
    """Everybody who pays honestly, as they must be told."""

    def __init__(self, ledger: LedgerModel) -> None:
        self.payments: dict[bytes, Authorisation] = {}
        """By payment ID: those that are on their way or were told of, with what was authorised."""
        self.definite: dict[bytes, Outcome] = {}
        """By payment ID: the last definite answer."""
        self.last: dict[bytes, Outcome] = {}
        """By payment ID: the last answer, definite or not."""
        self.meddled: set[bytes] = set()
        """Payment IDs that a liar used too: there may be no proof for the customer, whose money is as safe as ever."""
        self._ledger = ledger
        self._hashes: dict[bytes, bytes] = {}
        self._unmoved: dict[bytes, str] = {}  # payments of which a client said that no money has moved

    def authorised(self, authorisation: Authorisation, envelope_hash: bytes) -> None:
        """A customer said yes, and the envelope is sealed."""
        payment_id = authorisation.terms.payment_id
        self._ledger.authorised[envelope_hash] = authorisation
        if authorisation.client_name.startswith(EVIL):
            return
        self.payments[payment_id] = authorisation
        self._hashes[payment_id] = envelope_hash

    def forget(self, payment_id: bytes) -> None:
        """The client died before its record was on disk: nothing was sent, and nobody can be told."""
        del self.payments[payment_id]
        self._unmoved[payment_id] = "its record was never saved"
        self._check_unmoved(payment_id)

    def told(self, client_name: str, payment_id: bytes, outcome: Outcome, receipt: bytes, utr: str, text: str) -> None:
        """A program ended with this answer. `payment_id` is empty if no payment was made of the session."""
        if not payment_id:
            if outcome in PROVEN:
                raise Violation(Invariant.I6, f"{client_name} was told {outcome.value} of no payment")
            return
        self.last[payment_id] = outcome
        if outcome in PROVEN:
            self._check_proof(client_name, payment_id, outcome, receipt, utr)
        elif (before := self.definite.get(payment_id)) in PROVEN:
            assert before is not None
            said = f"{client_name} was told {before.value} of payment {payment_id.hex()}"
            raise Violation(Invariant.I3, f"{said}, and now {outcome.value}")
        if _NO_MONEY.search(text) and outcome is not Outcome.PAID:
            self._unmoved[payment_id] = f"{client_name} said so"
            self._check_unmoved(payment_id)
        if outcome not in OPEN or payment_id in self._unmoved:
            self.definite[payment_id] = outcome

    def _check_proof(self, client_name: str, payment_id: bytes, outcome: Outcome, receipt: bytes, utr: str) -> None:
        name = f"{client_name}'s payment {payment_id.hex()}"
        authorisation = self.payments.get(payment_id)
        key = self._ledger.receipts.get(receipt)
        if authorisation is None:
            raise Violation(Invariant.I6, f"{name} is {outcome.value}, and nobody authorised it")
        if key is None:
            raise Violation(Invariant.I6, f"the receipt of {name} is no row of the ledger")
        row = self._ledger.rows[key]
        own = (encode_record(authorisation.terms), self._hashes[payment_id])
        if (row.terms, row.envelope_hash) != own:
            raise Violation(Invariant.I6, f"{client_name} believes another payment's receipt for {payment_id.hex()}")
        if row.is_posted is not (outcome is Outcome.PAID) or (row.utr or "") != utr:
            told = TransferOutcome(row.outcome).name.lower()
            raise Violation(Invariant.I6, f"{name} is called {outcome.value} with UTR {utr}, and is {told} in fact")
        before = self.definite.get(payment_id)
        if before in PROVEN and before is not outcome:
            raise Violation(Invariant.I3, f"{name} was {outcome.value} after it was {before}")

    def _check_unmoved(self, payment_id: bytes) -> None:
        for row in self._ledger.rows.values():
            if row.payment_id == payment_id and row.is_posted:
                if row.envelope_hash != self._hashes.get(payment_id):
                    continue  # Somebody else's envelope under a copied payment ID.
                text = f"payment {payment_id.hex()} moved money, and it was told that none has moved"
                raise Violation(Invariant.I6, f"{text}: {self._unmoved[payment_id]}")

    # -- at the end ------------------------------------------------------------------------------------

    def finish(self, honest_tokens: set[TokenKey], *, is_faultless: bool) -> None:
        """All is healed and quiet: everybody has a definite answer (I9), and it is so.

        A gateway that lies may keep its customers in doubt, and no more than that; it may name an honest one as itself.
        """
        for payment_id in self._unmoved:
            self._check_unmoved(payment_id)
        for payment_id, authorisation in self.payments.items():
            if _token(authorisation.terms) not in honest_tokens:
                continue
            name = f"{authorisation.client_name}'s payment {payment_id.hex()}"
            outcome = self.definite.get(payment_id)
            if outcome is None and payment_id in self.meddled:
                continue
            if outcome is None:
                last = self.last.get(payment_id)
                raise Violation(Invariant.I9, f"{name} has no definite answer; the last was {last}")
            self._check_end(name, authorisation, outcome)
            if is_faultless:
                self._check_liveness(name, authorisation, outcome)

    def _check_end(self, name: str, authorisation: Authorisation, outcome: Outcome) -> None:
        row = self._ledger.rows.get(_key(authorisation.terms))
        # Under a copied payment ID there may be somebody else's debit.
        is_own = row is not None and row.envelope_hash == self._hashes[authorisation.terms.payment_id]
        is_posted = is_own and row is not None and row.is_posted
        if is_posted is not (outcome is Outcome.PAID):
            held = "a debit" if is_posted else "no debit"
            raise Violation(Invariant.I4, f"{name} is {outcome.value} to its customer, and the ledger holds {held}")

    def _check_liveness(self, name: str, authorisation: Authorisation, outcome: Outcome) -> None:
        """Declines have a cause, which is checked as they come; here is what else may keep a payment from PAID."""
        token = (authorisation.terms.gateway_id, authorisation.terms.transaction_id)
        is_shared = sum(_token(other.terms) == token for other in self.payments.values()) > 1
        is_refused_rightly = outcome is Outcome.REFUSED and is_shared
        row = self._ledger.rows.get(_key(authorisation.terms))
        is_declined = row is not None and row.outcome == TransferOutcome.DECLINED
        if outcome is not Outcome.PAID and not is_declined and not is_refused_rightly:
            raise Violation(Invariant.LIVENESS, f"{name} ended as {outcome.value}, though nothing was in its way")


def _key(terms: Terms) -> PaymentKey:
    return terms.gateway_id, terms.payment_id


def _token(terms: Terms) -> TokenKey:
    return terms.gateway_id, terms.transaction_id
