"""What became of a followed payment: who was told what and when, and how long each hop took (`--follow`)."""

from dataclasses import dataclass, field
from typing import Final

from paygate.codec.codes import Kind, PaymentStatus, Reason, TransferOutcome
from paygate.codec.messages import MESSAGES
from paygate.dump.filters import outcomes_of
from paygate.dump.model import SeenFrame
from paygate.dump.output import latency_text

HOP_COUNT_MAX: Final = 64
"""Requests that are listed of a story: many retries; the frames themselves are all shown."""

_FINAL: Final = (PaymentStatus.PAID, PaymentStatus.DECLINED)
_TOLD_IN: Final = (Kind.PAYMENT_ACK, Kind.STATUS_ACK)


@dataclass(frozen=True, slots=True)
class Hop:
    """One request and what answered it."""

    request: Kind
    answer: Kind
    outcome: str
    """The codes of the answer but NONE; empty if it has none."""
    latency_ns: int | None
    flow_number: int


@dataclass(slots=True, eq=False)
class Story:
    """One payment."""

    payment_id: bytes
    transaction_id: str = ""
    first_ns: int | None = None
    """When its token was queried first, or else its first frame came."""
    final_ns: int | None = None
    """When the client had the first answer that never changes; on a bank's capture, when the bank gave it."""
    told: PaymentStatus | None = None
    """What the client was told last, but for what was no word on the payment."""
    outcome: TransferOutcome | None = None
    """What the bank said last."""
    reason: Reason = Reason.NONE
    utr: str = ""
    hops: list[Hop] = field(default_factory=list)
    left_out_hop_count: int = 0
    _is_final_for_client: bool = False

    def tell(self, frame: SeenFrame) -> None:
        """One frame of it, in order."""
        self.transaction_id = self.transaction_id or frame.transaction_id
        if self.first_ns is None:
            self.first_ns = frame.time_ns
        codes = outcomes_of(frame)
        if frame.answers is not None:
            outcome = " ".join(code.name for code in codes if code is not Reason.NONE)
            hop = Hop(frame.answers.frame.kind, frame.frame.kind, outcome, frame.latency_ns, frame.flow.number)
            if len(self.hops) < HOP_COUNT_MAX:
                self.hops.append(hop)
            else:
                self.left_out_hop_count += 1
        self._take_outcome(frame)

    def _take_outcome(self, frame: SeenFrame) -> None:
        message = frame.message
        status, outcome = getattr(message, "status", None), getattr(message, "outcome", None)
        if isinstance(status, PaymentStatus):
            # REFUSED in a StatusAck refuses the question (PG-STA-2), and never takes a final answer back.
            if self._is_final_for_client or (status is PaymentStatus.REFUSED and frame.kind is Kind.STATUS_ACK):
                return
            self.told = status
            if status in _FINAL:
                self._is_final_for_client = True
                self.final_ns = frame.time_ns
        elif isinstance(outcome, TransferOutcome):
            self.outcome = outcome
            if outcome.is_final and self.final_ns is None:
                self.final_ns = frame.time_ns
        else:
            return
        self.reason = getattr(message, "reason", Reason.NONE)
        self.utr = getattr(message, "utr", "") or self.utr

    @property
    def duration_ns(self) -> int | None:
        """From the first query to the final answer; None if either was not seen, or has no time."""
        if self.first_ns is None or self.final_ns is None or self.final_ns < self.first_ns:
            return None
        return self.final_ns - self.first_ns

    def summary(self) -> list[str]:
        """The story in a few lines."""
        lines = [f"payment {self.payment_id.hex()}" + (f" of {self.transaction_id}" if self.transaction_id else "")]
        lines.append(f"  {self._verdict()}")
        if self.duration_ns is not None:
            lines.append(f"  {latency_text(self.duration_ns)} from the first query to the final answer")
        lines += [f"  {_hop_text(hop)}" for hop in self.hops]
        if self.left_out_hop_count:
            lines.append(f"  and {self.left_out_hop_count} more requests")
        return lines

    def _verdict(self) -> str:
        words = []
        if self.told is not None:
            words.append(f"the client was told {self.told.name}")
        if self.outcome is not None:
            words.append(f"the bank said {self.outcome.name}")
        if not words:
            return "no answer was seen"
        why = f" ({self.reason.name}: {self.reason.meaning})" if self.reason is not Reason.NONE else ""
        return ", ".join(words) + why + (f", UTR {self.utr}" if self.utr else "")


def _hop_text(hop: Hop) -> str:
    request, answer = MESSAGES[hop.request].__name__, MESSAGES[hop.answer].__name__
    took = f" after {latency_text(hop.latency_ns)}" if hop.latency_ns is not None else ""
    outcome = f" {hop.outcome}" if hop.outcome else ""
    return f"{request} -> {answer}{outcome}{took} (flow {hop.flow_number})"
