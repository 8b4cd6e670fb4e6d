"""What a run of the simulator may never do."""

from enum import StrEnum

from sim.judge import Violation

__all__ = ["Invariant", "Violation"]


class Invariant(StrEnum):
    """What must hold; the first ten are those of the issue "Never lost, never twice"."""

    I1 = "I1", "money is conserved, and no balance is negative"
    I2 = "I2", "a payment, and a token, is debited at most once"
    I3 = "I3", "what was acknowledged is durable"
    I4 = "I4", "a token is paid at its gateway exactly if the ledger holds one debit for it"
    I5 = "I5", "a UTR is given out once"
    I6 = "I6", "a receipt that a client accepted is a row of the ledger, under the terms that this customer authorised"
    I7 = "I7", "a secret leaks nowhere"
    I8 = "I8", "the audit balances"
    I9 = "I9", "every payment is final within its session and 60 seconds of healing"
    I10 = "I10", "memory and descriptors are bounded"
    AUTHORITY = "AUTHORITY", "nobody's money moves unless that customer authorised exactly these terms"
    CAUSE = "CAUSE", "a payment is declined or refused only for a cause that is there"
    LIVENESS = "LIVENESS", "without faults, a payment that is authorised rightly and covered is paid"

    meaning: str

    def __new__(cls, name: str, meaning: str) -> "Invariant":
        """The value is the name alone, as a Violation has it."""
        invariant = str.__new__(cls, name)
        invariant._value_ = name
        invariant.meaning = meaning
        return invariant
