"""What a sequence diagram shows of each item: one arrow, mark or note, the same in every form of diagram."""

from enum import Enum
from typing import Any, Final, NamedTuple

from paygate.codec.codes import REPLY_BIT, Code, Kind
from paygate.codec.fields import Choice, Nested, Record, fields_of
from paygate.codec.messages import MESSAGES, Hello, HelloAck, Message
from paygate.codec.money import format_amount
from paygate.dump.model import Finding, Flow, Item, SeenFrame, Side, StreamEvent, StreamNote
from paygate.dump.output import Colours, latency_text
from paygate.dump.participants import Ends, ends_of_hello, ends_of_kind
from paygate.dump.summary import coloured_code, opened_text, summary
from paygate.escape import escape_line


class Shape(Enum):
    """How a row is drawn."""

    REQUEST = "an arrow"
    REPLY = "a dashed arrow"
    EVENT = "a mark between two ends of a connection"
    FINDING = "a note"


class Tone(Enum):
    """What a row means for the payment; each output has a colour for it."""

    PLAIN = "neither"
    GOOD = "paid, posted, valid"
    BAD = "declined, refused, wrong"
    DOUBT = "pending, unknown"


class Tip(Enum):
    """What an arrow ends with."""

    HEAD = "it goes to somebody"
    CROSS = "the connection breaks"
    NOTHING = "it has no direction"


class Row(NamedTuple):
    """One line of a diagram. All texts are printable; none holds a secret unless that was asked for."""

    shape: Shape
    time_ns: int | None
    flow: Flow | None
    """None: about the input itself."""
    side: Side
    """Who sends; for a finding whose bytes are wrong."""
    ends: Ends | None
    """Sender and receiver, if the message itself tells."""
    title: str
    text: str = ""
    outcome: str = ""
    """The codes of the message that say how it went, such as `DECLINED FUNDS`."""
    amount: str = ""
    """What the payment is about, such as `1250.00 INR`."""
    latency: str = ""
    tone: Tone = Tone.PLAIN
    tip: Tip = Tip.HEAD

    @property
    def label(self) -> str:
        """What stands on an arrow: title, outcome, amount and latency, as far as there are any."""
        return " ".join([word for word in (self.title, self.outcome, self.amount, self.latency) if word])


TIME_WIDTH: Final = 10
"""Milliseconds up to a quarter of an hour with all decimals."""
ENDING_FLOW_COUNT_MAX: Final = 16_384
"""Connections that have begun to end and are remembered for that; more than a server's descriptors allow."""
_EVENTS: Final = {
    StreamEvent.OPENED: "connected",
    StreamEvent.STARTED_LATE: "seen from mid-stream",
    StreamEvent.FINISHED: "sends no more",
    StreamEvent.RESET: "reset",
    StreamEvent.CLOSED: "closed",
    StreamEvent.DROPPED: "forgotten",
}
"""Shown as marks. CAPTURE_ENDED is none, since it comes for every open connection at once."""
_TIPS: Final = {
    StreamEvent.RESET: Tip.CROSS,
    StreamEvent.CLOSED: Tip.NOTHING,
    StreamEvent.DROPPED: Tip.NOTHING,
    StreamEvent.STARTED_LATE: Tip.NOTHING,
}
_BEGINNINGS: Final = frozenset({StreamEvent.OPENED, StreamEvent.STARTED_LATE})
_ENDINGS: Final = frozenset({StreamEvent.CLOSED, StreamEvent.DROPPED, StreamEvent.CAPTURE_ENDED})
_COLOURS: Final = Colours(is_on=True)


def _tones_of(registry: type[Code]) -> dict[Code, Tone]:
    """What each code that says how something went means; zero is NONE and says nothing."""
    # The colours know it; a second table would sooner or later say something else.
    paints = {Tone.GOOD: _COLOURS.good, Tone.BAD: _COLOURS.bad, Tone.DOUBT: _COLOURS.doubt}
    return {
        code: tone
        for code in registry
        for tone, paint in paints.items()
        if code and coloured_code(code, _COLOURS) == paint(code.name)
    }


_OUTCOMES: Final = {
    kind: [
        (field.name, tones)
        for field in fields_of(cls)
        if isinstance(field.type, Choice)
        and issubclass(field.type.choices, Code)
        and (tones := _tones_of(field.type.choices))
    ]
    for kind, cls in MESSAGES.items()
}
"""Of each kind the fields that say how something went."""


def _amount_holders() -> dict[Kind, str]:
    """Of each kind that tells an amount the field whose record holds it; empty if it is the message itself."""
    holders = {}
    for kind, cls in MESSAGES.items():
        parts: dict[str, type[Record]] = {"": cls} | {
            f.name: f.type.record for f in fields_of(cls) if isinstance(f.type, Nested)
        }
        for name, record in parts.items():
            if {"amount_minor", "currency"} <= {f.name for f in fields_of(record)}:
                holders[kind] = name
    return holders


_AMOUNT_HOLDERS: Final = _amount_holders()


class Rows:
    """Makes rows of items. A connection's end is two rows at most: who sends no more first, and that it is closed."""

    def __init__(self, *, show_secrets: bool) -> None:
        self._show_secrets = show_secrets
        self._ending: dict[Flow, StreamEvent] = {}

    def of(self, item: Item) -> list[Row]:
        """What to draw of an item: a frame is an arrow with its findings behind it; some notes are nothing."""
        if isinstance(item, SeenFrame):
            return [_frame_row(item, self._show_secrets), *(_finding_row(finding, item) for finding in item.findings)]
        if isinstance(item, Finding):
            return [_finding_row(item, None)]
        return [_event_row(item)] if self._is_shown(item) else []

    def _is_shown(self, note: StreamNote) -> bool:
        event, flow = note.event, note.flow
        if event in _ENDINGS:
            # A reset has said already that it is closed.
            return self._ending.pop(flow, None) is not StreamEvent.RESET and event in _EVENTS
        if event in (StreamEvent.FINISHED, StreamEvent.RESET):
            if event is StreamEvent.FINISHED and flow in self._ending:
                return False
            if len(self._ending) >= ENDING_FLOW_COUNT_MAX:
                self._ending.clear()
            self._ending[flow] = event
        return event in _EVENTS


def since_text(time_ns: int, begin_ns: int) -> str:
    """Milliseconds from one to the other, in at most TIME_WIDTH columns: the longer, the fewer decimals."""
    text = f"{(time_ns - begin_ns) / 1_000_000:.3f}"
    return text if len(text) <= TIME_WIDTH else text[:TIME_WIDTH].rstrip(".")


def _frame_row(frame: SeenFrame, show_secrets: bool) -> Row:
    kind = frame.kind
    message = frame.message
    outcome = _outcome(message) if message is not None else []
    amount = _amount(message) if message is not None else ""
    text = f" {summary(frame, show_secrets=show_secrets)} "
    for word in (*(name for name, _ in outcome), amount):
        # It stands by itself, so the fields need not say it again.
        text = text.replace(f" {word} ", " ", 1) if word else text
    if frame.opened is not None:
        # In front, since a narrow diagram has no room for what stands behind.
        text = f"{opened_text(frame.opened, show_secrets=show_secrets)}{text}"
    return Row(
        Shape.REPLY if kind & REPLY_BIT else Shape.REQUEST,
        frame.time_ns,
        frame.flow,
        frame.side,
        ends_of_hello(message) if isinstance(message, Hello | HelloAck) else ends_of_kind(kind),
        MESSAGES[kind].__name__,
        text.strip(),
        # FENCED is an outcome and its reason.
        " ".join(dict.fromkeys(name for name, _ in outcome)),
        amount,
        latency_text(frame.latency_ns),
        outcome[0][1] if outcome else Tone.PLAIN,
    )


def _event_row(note: StreamNote) -> Row:
    flow = note.flow
    return Row(
        Shape.EVENT,
        note.time_ns,
        flow,
        note.side,
        None,
        _EVENTS[note.event],
        escape_line(f"{flow.caller} to {flow.answerer}") if note.event in _BEGINNINGS else "",
        tip=_TIPS.get(note.event, Tip.HEAD),
    )


def _finding_row(finding: Finding, frame: SeenFrame | None) -> Row:
    at = f" at {finding.path}" if finding.path else ""
    byte = "" if finding.offset is None else f", byte {finding.offset}"
    differs = [f"{word} {text}" for word, text in (("expected", finding.expected), ("got", finding.got)) if text]
    section = f" (spec {finding.section})" if finding.section else ""
    return Row(
        Shape.FINDING,
        finding.time_ns,
        finding.flow if frame is None else frame.flow,
        finding.side if frame is None else frame.side,
        ends_of_kind(frame.kind) if frame is not None else None,
        escape_line(f"{finding.name}{at}{byte}"),
        escape_line(f"{', '.join(differs)}{section}"),
        tone=Tone.BAD,
    )


def _outcome(message: Message) -> list[tuple[str, Tone]]:
    """The message's codes that say how it went, the most important first."""
    found = []
    for name, tones in _OUTCOMES[message.kind]:
        code: Code = getattr(message, name)
        tone = tones.get(code)
        if tone is not None:
            found.append((code.name, tone))
    return found


def _amount(message: Message) -> str:
    name = _AMOUNT_HOLDERS.get(message.kind)
    if name is None:
        return ""
    holder: Any = getattr(message, name) if name else message
    return f"{format_amount(holder.amount_minor, holder.currency)} {holder.currency}" if holder.amount_minor else ""
