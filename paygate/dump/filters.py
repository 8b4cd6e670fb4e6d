"""Which of the items that were seen are shown: by kind, flow, payment, token, time, outcome, and what is wrong.

What one option names may be any of several, and all options must agree. A frame's own findings go with it. A finding
that stands alone has no kind, payment or outcome, so only flow and time choose it; a note of a connection is chosen by
these two as well, but is left out where somebody asks for certain frames.
"""

import argparse
import re
from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any, Final, NamedTuple

from paygate.clock import parse_utc
from paygate.codec.codes import Code, Kind, Role
from paygate.codec.fields import Choice, fields_of
from paygate.codec.limits import PAYMENT_ID_SIZE
from paygate.codec.messages import MESSAGES
from paygate.dump.model import NANOSECONDS_PER_SECOND, Finding, Item, SeenFrame, StreamNote

PAYMENT_DIGIT_COUNT_MIN: Final = 4
"""Hexadecimal digits of a payment ID: fewer would often name several."""
TIME_FORMS: Final = (
    "2026-12-31T23:59:59.5Z, 2026-12-31, 23:59:59 (UTC, of the day on which the capture begins), "
    "or +1.5 (seconds after its beginning)"
)


_NANOSECONDS_PER_DAY: Final = 86_400 * NANOSECONDS_PER_SECOND
_FRACTION = r"(?:\.(\d{1,9}))?"
_MOMENT: Final = re.compile(rf"(\d{{4}}-\d\d-\d\d)(?:(T\d\d:\d\d:\d\d){_FRACTION}Z)?", re.ASCII)
_TIME_OF_DAY: Final = re.compile(rf"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d){_FRACTION})?Z?", re.ASCII)
_OFFSET: Final = re.compile(rf"\+(\d{{1,9}}){_FRACTION}", re.ASCII)
_FLOW: Final = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_PAYMENT: Final = re.compile(rf"[0-9a-f]{{{PAYMENT_DIGIT_COUNT_MIN},{2 * PAYMENT_ID_SIZE}}}")


def _outcome_fields(kind: Kind) -> dict[str, type[Code]]:
    return {
        field.name: field.type.choices
        for field in fields_of(MESSAGES[kind])
        if isinstance(field.type, Choice) and issubclass(field.type.choices, Code) and field.type.choices is not Role
    }


_OUTCOMES_OF: Final[dict[Kind, tuple[Callable[[Any], Code], ...]]] = {
    kind: tuple(attrgetter(name) for name in _outcome_fields(kind)) for kind in Kind
}
"""How to get at the codes of a kind that say what became of something."""
OUTCOME_NAMES: Final = tuple(
    dict.fromkeys(code.name for kind in Kind for registry in _outcome_fields(kind).values() for code in registry)
)
"""Every status, outcome, reason and error code that a message can carry."""


# -- options ---------------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


_KINDS: Final = {_plain(name): kind for kind in Kind for name in (MESSAGES[kind].__name__, kind.name, f"0x{kind:02x}")}


def kind(text: str) -> Kind:
    """A kind by its name as the spec writes it, in any case (`TokenQuery`, `token_query`), or as `0x10`."""
    found = _KINDS.get(_plain(text))
    if found is None:
        names = ", ".join(MESSAGES[kind].__name__ for kind in Kind)
        raise argparse.ArgumentTypeError(f"there is no kind {text!r}; expected one of {names}")
    return found


def flow(text: str) -> int:
    """A flow's number, from 1."""
    if not _FLOW.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected a flow's number, from 1, not {text!r}")
    return int(text)


def payment(text: str) -> str:
    """A payment ID or the beginning of it, in hexadecimal; lower case is what it gives back."""
    if not _PAYMENT.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(
            f"expected {PAYMENT_DIGIT_COUNT_MIN} to {2 * PAYMENT_ID_SIZE} hexadecimal digits, the beginning of a "
            f"payment ID, not {text!r}"
        )
    return text.lower()


def outcome(text: str) -> str:
    """The name of a status, outcome, reason or error code, in any case; as the registry writes it."""
    found = _OUTCOMES.get(_plain(text))
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no outcome {text!r}; expected one of {', '.join(OUTCOME_NAMES)}")
    return found


_OUTCOMES: Final = {_plain(name): name for name in OUTCOME_NAMES}


class Moment(NamedTuple):
    """A time as it was typed: to be completed when the capture's first time is known."""

    offset_ns: int
    """After 1970 began, after the capture's first day began, or after the capture began."""
    is_of_day: bool = False
    is_after_start: bool = False

    def time_ns(self, first_ns: int) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z, if the capture begins at `first_ns`."""
        if self.is_after_start:
            return first_ns + self.offset_ns
        return first_ns - first_ns % _NANOSECONDS_PER_DAY + self.offset_ns if self.is_of_day else self.offset_ns


def time(text: str) -> Moment:
    """A time in one of TIME_FORMS."""
    if match := _OFFSET.fullmatch(text):
        return Moment(int(match[1]) * NANOSECONDS_PER_SECOND + _fraction_ns(match[2]), is_after_start=True)
    if match := _TIME_OF_DAY.fullmatch(text):
        seconds = int(match[1]) * 3_600 + int(match[2]) * 60 + int(match[3] or 0)
        return Moment(seconds * NANOSECONDS_PER_SECOND + _fraction_ns(match[4]), is_of_day=True)
    match = _MOMENT.fullmatch(text)
    try:
        if match is not None:
            whole_seconds = f"{match[1]}{match[2]}Z" if match[2] else match[1]
            return Moment(parse_utc(whole_seconds) * 1_000_000 + _fraction_ns(match[3]))
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected a time such as {TIME_FORMS}; not {text!r}")


def _fraction_ns(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))


# -- the choice ------------------------------------------------------------------------------------------


class Filter:
    """Says of one item after the other whether it is shown."""

    def __init__(
        self,
        *,
        kinds: Collection[Kind] = (),
        flows: Collection[int] = (),
        payment: str = "",
        transaction: str = "",
        since: Moment | None = None,
        until: Moment | None = None,
        outcomes: Collection[str] = (),
        findings_only: bool = False,
    ) -> None:
        """Choose by what is given; nothing given chooses everything. Values are as the functions above make them."""
        self._kinds = frozenset(kinds)
        self._flows = frozenset(flows)
        self._payment = payment
        self._transaction = transaction
        self._since = since
        self._until = until
        self._outcomes = frozenset(outcomes)
        self._findings_only = findings_only
        self._has_time = since is not None or until is not None
        self._asks_for_frames = bool(kinds or payment or transaction or outcomes)
        self._from_ns: int | None = None
        self._to_ns: int | None = None
        self._is_started = False
        self.is_everything = not (self._asks_for_frames or flows or self._has_time or findings_only)
        """Whether every item passes, so that nobody needs to ask."""

    def begin(self, time_ns: int) -> None:
        """Say when the capture began: its first packet's time. Only the first call counts, and none after an item.

        A packet that holds no frame is no item, so without this the first item that has a time must stand for it.
        """
        if self._is_started:
            return
        self._is_started = True
        self._from_ns = self._since.time_ns(time_ns) if self._since is not None else None
        self._to_ns = self._until.time_ns(time_ns) if self._until is not None else None

    def passes(self, item: Item) -> bool:
        """Whether an item is shown; ask of each in order."""
        if self._has_time and not self._is_in_time(item):
            return False
        if self._flows and item.flow is not None and item.flow.number not in self._flows:
            return False
        if isinstance(item, SeenFrame):
            return self._frame_passes(item)
        return isinstance(item, Finding) or not (self._findings_only or self._asks_for_frames)

    def _frame_passes(self, frame: SeenFrame) -> bool:
        if self._findings_only and not frame.findings:
            return False
        if self._kinds and frame.frame.kind not in self._kinds:
            return False
        if self._payment and not frame.payment_id.hex().startswith(self._payment):
            return False
        if self._transaction and frame.transaction_id != self._transaction:
            return False
        return not self._outcomes or self._has_outcome(frame)

    def _has_outcome(self, frame: SeenFrame) -> bool:
        chosen = self._outcomes
        return any(code.name in chosen for code in outcomes_of(frame)) or any(f.name in chosen for f in frame.findings)

    def _is_in_time(self, item: SeenFrame | Finding | StreamNote) -> bool:
        time_ns = item.time_ns
        if time_ns is None:
            # What is wrong with the input as a whole has no time.
            return isinstance(item, Finding)
        self.begin(time_ns)
        if self._from_ns is not None and time_ns < self._from_ns:
            return False
        return self._to_ns is None or time_ns <= self._to_ns


def outcomes_of(frame: SeenFrame) -> tuple[Code, ...]:
    """What a message says became of something: its statuses, outcomes, reasons, error codes, in wire order."""
    message = frame.message
    return tuple(get(message) for get in _OUTCOMES_OF[frame.frame.kind]) if message is not None else ()
