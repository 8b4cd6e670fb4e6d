"""`-v`: below each frame's line all of its fields, with offsets, bytes, and values in words (R24).

    12:00:01.123456   1 client shop -> gateway GW1  TokenQuery           #2   transaction=TX-1001 passcode=<secret>
      0000  50 47                                            magic: 0x5047
      …
      0015  54 58 2d 31 30 30 31                             transaction_id: TX-1001
      001d  .. .. .. ..                                      passcode: <secret>

Offsets are hexadecimal and count from the frame's first byte; bytes that may not be shown are dots. The fields are
found by `paygate.codec.walk`, so a broken body is shown as far as it can be read, each fault at its field; so are the
records that blobs hold: a receipt, a key list.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from paygate.clock import utc_text
from paygate.codec import limits
from paygate.codec.codes import Code, Kind
from paygate.codec.describe import message_name
from paygate.codec.fields import (
    AMOUNT_MINOR,
    ENVELOPE,
    TIME_LEFT_MS,
    TIME_MS,
    Sensitivity,
    Text,
    Uint,
)
from paygate.codec.frame import MAGIC, Header
from paygate.codec.messages import MESSAGES
from paygate.codec.money import format_amount
from paygate.codec.walk import Fault, Part, Span, decoder_path, walk
from paygate.dump.envelopes import opened_fields
from paygate.dump.findings import bytes_text
from paygate.dump.json_lines import FLAGS
from paygate.dump.lines import Lines, finding_text
from paygate.dump.model import Finding, Item, SeenFrame
from paygate.dump.output import Colours
from paygate.dump.summary import coloured_code, envelope_text, seconds_text, text_of

ROW_SIZE: Final = 16
"""Bytes in a row of hexadecimal."""
_HEX_WIDTH: Final = 3 * ROW_SIZE - 1
_NO_PLACE: Final = " " * 6
_MAC: Final = "mac"
"""What the frames' step calls the bytes behind the body."""


class Tree:
    """Writes each frame's line with its fields below; findings and connections as the default output does."""

    def __init__(self, write: Callable[[str], None], colours: Colours, *, show_secrets: bool = False) -> None:
        self._write = write
        self._colours = colours
        self._show_secrets = show_secrets
        self._lines = Lines(write, colours, show_secrets=show_secrets)

    def receive(self, item: Item) -> None:
        """Write it."""
        if not isinstance(item, SeenFrame):
            self._lines.receive(item)
            return
        lines = [self._lines.frame_line(item), *(f"  {row}" for row in self._rows(item))]
        self._write("\n".join(lines) + "\n")

    def finish(self) -> None:
        """Nothing is left to write."""
        self._lines.finish()

    def _rows(self, frame: SeenFrame) -> Iterator[str]:
        signed, mac = frame.frame.signed, frame.frame.mac
        head = walk(Header, signed, 0, limits.HEADER_SIZE)
        body = walk(MESSAGES[frame.kind], signed, limits.HEADER_SIZE)
        mac_span = Span(_MAC, None, None, Part.REST, len(signed), len(signed) + len(mac), None, 0, Sensitivity.PUBLIC)
        spans = [*head.spans, *body.spans, *([mac_span] if mac else [])]
        findings, unplaced = _placed(frame, spans)
        held = {id(fault.span): fault for fault in body.faults if fault.is_held}
        values = {span.path: span.value for span in body.spans if span.part is Part.VALUE}
        data = frame.data
        for index, span in enumerate(spans):
            in_head = index < len(head.spans)
            text = _header_words(span) if in_head else self._words(span, values)
            yield from self._span_rows(span, data, f"{'  ' * span.depth}{_name(span)}{f': {text}' if text else ''}")
            if id(span) in held:
                yield self._note(self._colours.bad(f"! {_fault_text(held[id(span)])}"))
            for finding in findings.get(index, ()):
                yield self._note(self._colours.bad(f"! {finding_text(finding)}"))
            if frame.opened is not None and span.type is ENVELOPE and span.part is Part.VALUE:
                for name, shown in opened_fields(frame.opened, show_secrets=self._show_secrets):
                    yield self._note(f"  {name}: {shown}")
        for finding in unplaced:
            yield self._note(self._colours.bad(f"! {finding_text(finding)}"))

    # -- rows ----------------------------------------------------------------------------------------------

    def _note(self, text: str) -> str:
        return f"{_NO_PLACE}{' ' * (_HEX_WIDTH + 2)}{text}"

    def _span_rows(self, span: Span, data: bytes, text: str) -> Iterator[str]:
        """The rows of some bytes; what they are stands in the first one."""
        if span.part is Part.RECORD or not span.size:
            shown = [""]
        elif not self._is_masked(span):
            there = data[span.start : span.end]
            shown = [there[at : at + ROW_SIZE].hex(" ") for at in range(0, span.size, ROW_SIZE)]
        elif span.sensitivity is Sensitivity.SIZED:
            shown = [".."]
        else:
            sizes = [min(ROW_SIZE, span.size - at) for at in range(0, span.size, ROW_SIZE)]
            shown = [" ".join([".."] * size) for size in sizes]
        yield f"{self._colours.faint(f'{span.start:04x}  {shown[0].ljust(_HEX_WIDTH)}')}  {text}"
        for index, row in enumerate(shown[1:], 1):
            yield self._colours.faint(f"{span.start + index * ROW_SIZE:04x}  {row}")

    def _is_masked(self, span: Span) -> bool:
        if self._show_secrets or span.sensitivity is Sensitivity.PUBLIC:
            return False
        # Of what only the size is shown, the size in front of it is no secret.
        return span.sensitivity is not Sensitivity.SIZED or span.part in (Part.VALUE, Part.REST)

    # -- values in words -----------------------------------------------------------------------------------

    def _words(self, span: Span, values: dict[str, Any]) -> str:
        is_envelope = span.type is ENVELOPE and span.part is Part.VALUE and span.sensitivity is Sensitivity.SIZED
        if is_envelope and span.value is not None:
            return self._colours.doubt(envelope_text(span.value))
        if self._is_masked(span):
            sized = span.sensitivity is Sensitivity.SIZED
            return self._colours.doubt(f"<{span.size} bytes>" if sized else "<secret>")
        match span.part:
            case Part.RECORD:
                assert span.type is not None
                return f"{getattr(span.type, 'holds', '') or span.type.expected.removeprefix('a ')}, {span.size} bytes"
            case Part.REST:
                return bytes_text(span.size)
        if span.value is None:
            return "a value that breaks its declaration" if span.size else "missing"
        if span.part is Part.VALUE:
            return self._value_words(span, values)
        return bytes_text(span.value) if span.part is Part.SIZE else f"{span.value} item{'s' * (span.value != 1)}"

    def _value_words(self, span: Span, values: dict[str, Any]) -> str:
        value = span.value
        match span.type:
            case Uint(unit=unit) if unit:
                return _unit_words(value, unit, values.get(_sibling(span.path, "currency")))
            case Text():
                return text_of(span.type)(value) if value else "(empty)"
        if isinstance(value, Code):
            return f"{int(value)} {coloured_code(value, self._colours)}, {value.meaning}"
        if isinstance(value, bytes):
            return "zero" if value and not any(value) else ""
        return {False: "no", True: "yes"}[value] if isinstance(value, bool) else str(value)


def _unit_words(value: int, unit: str, currency: str | None) -> str:
    match unit:
        case AMOUNT_MINOR.unit if currency:
            return f"{value} ({format_amount(value, currency)} {currency})"
        case TIME_MS.unit:
            return f"{value} ({utc_text(value)})"
        case TIME_LEFT_MS.unit:
            return f"{value} ({seconds_text(value)} left)"
    return f"{value} {unit}"


def _header_words(span: Span) -> str:
    match span.path:
        case "magic":
            return f"the letters {MAGIC.decode()}"
        case "kind":
            return f"0x{span.value:02x} {message_name(Kind(span.value))}"
        case "flags":
            return f"0x{span.value:04x} {', '.join(name for name, bit in FLAGS.items() if span.value & bit)}".rstrip()
        case "checksum":
            return f"0x{span.value:08x}"
    return str(span.value)


def _name(span: Span) -> str:
    if span.part in (Part.SIZE, Part.COUNT):
        return f"{span.path} {span.part.value}"
    return span.path or "bytes that no field claims"


def _fault_text(fault: Fault) -> str:
    return f"{fault.code.name} at {fault.path}: expected {fault.expected} (spec 3.3)"


def _sibling(path: str, name: str) -> str:
    before, dot, _ = path.rpartition(".")
    return f"{before}{dot}{name}"


def _placed(frame: SeenFrame, spans: list[Span]) -> tuple[dict[int, list[Finding]], list[Finding]]:
    """The findings of a frame by the index of the span that they stand at, and those that stand at none."""
    placed: dict[int, list[Finding]] = {}
    unplaced = []
    for finding in frame.findings:
        at = None if finding.offset is None else finding.offset - frame.offset
        indices = [
            i for i, s in enumerate(spans) if finding.path and decoder_path(s.path) == decoder_path(finding.path)
        ]
        # The header and a body may both have a `version`, and a text has its size in front.
        nearest = min(indices, key=lambda i: _distance(spans[i], at), default=None)
        if nearest is None:
            unplaced.append(finding)
        else:
            placed.setdefault(nearest, []).append(finding)
    return placed, unplaced


def _distance(span: Span, at: int | None) -> int:
    if at is None or span.start <= at < span.end:
        return 0
    return abs(span.start - at) + 1
