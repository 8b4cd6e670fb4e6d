"""`--stats`: what a capture holds in numbers: kinds, latencies, outcomes, payments, findings, TCP (R24).

Everything is counted as it comes, in a bounded memory, so a night's capture is as good as a minute's. An answer's
latency runs from the request's last byte to the answer's last byte, where the capture was made. A payment begins with
its first EncryptedCredentials and ends with the first answer that says what became of it, PaymentAck or StatusAck, on
whichever connection it comes. Percentiles are within 1 %.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from paygate.clock import utc_text
from paygate.codec.codes import REPLY_BIT, Code, Kind, PaymentStatus, Role
from paygate.codec.fields import Choice, fields_of
from paygate.codec.messages import MESSAGES, EncryptedCredentials, Message, PaymentAck, StatusAck
from paygate.dump.histogram import Histogram
from paygate.dump.json_lines import SCHEMA, iso_time
from paygate.dump.model import NANOSECONDS_PER_SECOND, Finding, Item, SeenFrame
from paygate.dump.output import Colours, latency_text
from paygate.dump.streams import StreamCounts
from paygate.dump.summary import coloured_code
from paygate.escape import escape_line

PAYMENT_COUNT_MAX: Final = 65_536
"""Payments without an answer that are remembered, and as many with one; the oldest are forgotten. Some 20 MB."""
FLOW_NUMBER_MAX: Final = 1 << 24
"""Connections that are told apart, with one bit each, so 2 MB; those behind are not counted."""
PERCENTILES: Final = {"p50": 500, "p90": 900, "p99": 990, "p99_9": 999}
"""By name, in thousandths."""


class _KindCounts:
    """What was seen of one kind."""

    __slots__ = ("codes", "count", "latency", "size")

    def __init__(self, kind: Kind) -> None:
        self.count = 0
        self.size = 0
        self.latency = Histogram()
        # Every field that says how something went; a role or a suite doesn't.
        self.codes: dict[str, dict[Code, int]] = {
            field.name: {}
            for field in fields_of(MESSAGES[kind])
            if isinstance(field.type, Choice) and field.type.choices is not Role
        }


class _Payments:
    """Payments from their first EncryptedCredentials to their first definite answer."""

    def __init__(self) -> None:
        self.begun_count = 0
        self.answered: dict[PaymentStatus, int] = {}
        self.end_to_end = Histogram()
        self._begun: OrderedDict[bytes, int | None] = OrderedDict()
        self._answered: OrderedDict[bytes, None] = OrderedDict()

    @property
    def answered_count(self) -> int:
        """How many had a definite answer, whether their beginning was seen or not."""
        return sum(self.answered.values())

    @property
    def open_count(self) -> int:
        """How many of those begun wait; at most PAYMENT_COUNT_MAX."""
        return len(self._begun)

    def receive(self, message: Message, time_ns: int | None) -> None:
        if isinstance(message, EncryptedCredentials):
            self._begin(message.payment_id, time_ns)
        elif isinstance(message, PaymentAck | StatusAck) and _is_definite(message):
            self._answer(message.payment_id, message.status, time_ns)

    def _begin(self, payment_id: bytes, time_ns: int | None) -> None:
        # Sent again, it is the same payment (spec 6.3).
        if payment_id in self._begun or payment_id in self._answered:
            return
        self.begun_count += 1
        self._begun[payment_id] = time_ns
        if len(self._begun) > PAYMENT_COUNT_MAX:
            self._begun.popitem(last=False)

    def _answer(self, payment_id: bytes, status: PaymentStatus, time_ns: int | None) -> None:
        if payment_id in self._answered:
            return
        begin_ns = self._begun.pop(payment_id, None)
        self.answered[status] = self.answered.get(status, 0) + 1
        # Of two interfaces the clocks may differ.
        if begin_ns is not None and time_ns is not None and time_ns >= begin_ns:
            self.end_to_end.add(time_ns - begin_ns)
        self._answered[payment_id] = None
        if len(self._answered) > PAYMENT_COUNT_MAX:
            self._answered.popitem(last=False)


def _is_definite(message: PaymentAck | StatusAck) -> bool:
    """Whether it says what became of the payment. A REFUSED query says nothing of its payment (spec 6.5)."""
    if message.status is PaymentStatus.REFUSED:
        return isinstance(message, PaymentAck)
    return message.status in (PaymentStatus.PAID, PaymentStatus.DECLINED)


class Stats:
    """Counts all items and writes the numbers when the input has ended."""

    def __init__(
        self,
        write: Callable[[str], None],
        colours: Colours,
        *,
        is_json: bool = False,
        streams: StreamCounts | None = None,
        ignored: Mapping[str, int] | None = None,
    ) -> None:
        """`streams` and `ignored` are what earlier steps count; they are read at the end.

        Both are of the whole capture also where filters leave out frames: packets are no frames yet.
        """
        self._write = write
        self._colours = colours
        self._is_json = is_json
        self._streams = streams
        self._ignored = ignored
        self._kinds = {kind: _KindCounts(kind) for kind in Kind}
        self._payments = _Payments()
        self._findings: dict[str, int] = {}
        self._flows = bytearray()
        self._flow_count = 0
        self._begin_ns: int | None = None
        self._end_ns: int | None = None

    def receive(self, item: Item) -> None:
        """Count it."""
        if isinstance(item, SeenFrame):
            self._receive_frame(item)
        elif isinstance(item, Finding):
            self._receive_finding(item)
        self._receive_time(item.time_ns)

    def finish(self) -> None:
        """Write the numbers."""
        if self._is_json:
            self._write(json.dumps(self.as_json()) + "\n")
        else:
            self._write("\n".join(self._lines()) + "\n")

    def _receive_frame(self, frame: SeenFrame) -> None:
        raw = frame.frame
        counts = self._kinds[raw.kind]
        counts.count += 1
        counts.size += raw.size
        # Below zero only if two interfaces' clocks differ; then it means nothing.
        if frame.latency_ns is not None and frame.latency_ns >= 0:
            counts.latency.add(frame.latency_ns)
        message = frame.message
        if message is not None:
            for name, by_code in counts.codes.items():
                code = getattr(message, name)
                by_code[code] = by_code.get(code, 0) + 1
            self._payments.receive(message, frame.time_ns)
        for finding in frame.findings:
            self._receive_finding(finding)
        self._receive_flow(frame.flow.number)

    def _receive_finding(self, finding: Finding) -> None:
        self._findings[finding.name] = self._findings.get(finding.name, 0) + 1

    def _receive_flow(self, number: int) -> None:
        index, bit = divmod(min(number, FLOW_NUMBER_MAX), 8)
        if index >= len(self._flows):
            self._flows.extend(bytes(index + 1 - len(self._flows)))
        if not self._flows[index] >> bit & 1:
            self._flows[index] |= 1 << bit
            self._flow_count += 1

    def _receive_time(self, time_ns: int | None) -> None:
        if time_ns is None:
            return
        if self._begin_ns is None or self._end_ns is None:
            self._begin_ns = self._end_ns = time_ns
        elif time_ns > self._end_ns:
            self._end_ns = time_ns
        elif time_ns < self._begin_ns:
            self._begin_ns = time_ns

    # -- results ---------------------------------------------------------------------------------------

    @property
    def _span_ns(self) -> int | None:
        return None if self._begin_ns is None or self._end_ns is None else self._end_ns - self._begin_ns

    @property
    def _payments_per_second(self) -> float | None:
        if not self._span_ns:
            return None
        return self._payments.answered_count * NANOSECONDS_PER_SECOND / self._span_ns

    def _seen_kinds(self) -> Iterator[tuple[str, _KindCounts]]:
        # Each reply behind its request.
        kinds = sorted(self._kinds, key=lambda kind: (kind & ~REPLY_BIT, kind))
        return ((MESSAGES[kind].__name__, self._kinds[kind]) for kind in kinds if self._kinds[kind].count)

    def as_json(self) -> dict[str, Any]:
        """All numbers as one object. Nanoseconds are decimal strings, since they can pass 2**53; None is unknown."""
        rate = self._payments_per_second
        return {
            "type": "stats",
            "schema": SCHEMA,
            "begin": _time_json(self._begin_ns),
            "end": _time_json(self._end_ns),
            "span_ns": None if self._span_ns is None else str(self._span_ns),
            "frames": sum(counts.count for counts in self._kinds.values()),
            "size": sum(counts.size for counts in self._kinds.values()),
            "connections": self._flow_count,
            "kinds": {
                name: {"count": counts.count, "size": counts.size, "latency": _latency_json(counts.latency)}
                for name, counts in self._seen_kinds()
            },
            "outcomes": {
                name: {
                    field: {code.name: count for code, count in sorted(by_code.items())}
                    for field, by_code in counts.codes.items()
                    if by_code
                }
                for name, counts in self._seen_kinds()
                if any(counts.codes.values())
            },
            "payments": {
                "begun": self._payments.begun_count,
                "answered": {status.name: count for status, count in sorted(self._payments.answered.items())},
                "open": self._payments.open_count,
                "end_to_end": _latency_json(self._payments.end_to_end),
                "answered_per_second": None if rate is None else round(rate, 6),
            },
            "findings": dict(sorted(self._findings.items())),
            "tcp": None if self._streams is None else asdict(self._streams),
            "ignored": None if self._ignored is None else dict(self._ignored),
        }

    def _lines(self) -> Iterator[str]:
        colours = self._colours
        frame_count = sum(counts.count for counts in self._kinds.values())
        size = sum(counts.size for counts in self._kinds.values())
        if self._begin_ns is not None and self._end_ns is not None:
            begin, end = (utc_text(time_ns // 1_000_000) for time_ns in (self._begin_ns, self._end_ns))
            yield f"time        {begin} to {end}, {latency_text(self._span_ns)}"
        yield f"frames      {frame_count:,}, {size:,} bytes, connections {self._flow_count:,}"
        yield from self._payment_lines()
        if frame_count:
            yield ""
            heads = [*(name.replace("_", ".") for name in PERCENTILES), "max"]
            yield colours.faint(_kind_line("kind", "count", "bytes", heads))
            for name, counts in self._seen_kinds():
                line = _kind_line(name, f"{counts.count:,}", f"{counts.size:,}", _latency_cells(counts.latency))
                yield line.replace(name, colours.kind(name), 1)
        yield from self._outcome_lines()
        yield from _section(colours, "findings", {k: (v, colours.bad) for k, v in sorted(self._findings.items())})
        if self._streams is not None:
            counted = {name.replace("_", " "): (value, str) for name, value in asdict(self._streams).items() if value}
            yield from _section(colours, "tcp (whole capture)", counted)
        if self._ignored is not None:
            ignored = {k: (v, str) for k, v in self._ignored.items() if v}
            yield from _section(colours, "ignored packets (whole capture)", ignored)

    def _payment_lines(self) -> Iterator[str]:
        payments = self._payments
        if not payments.begun_count and not payments.answered:
            return
        statuses = [
            f"{count:,} {coloured_code(status, self._colours)}" for status, count in sorted(payments.answered.items())
        ]
        yield f"payments    {payments.begun_count:,} begun, {', '.join([*statuses, f'{payments.open_count:,} open'])}"
        rate = self._payments_per_second
        if rate is not None:
            yield f"            {rate:,.2f} answered a second"
        times = payments.end_to_end
        if times.count:
            shown = [f"{name.replace('_', '.')} {latency_text(times.per_mille(p))}" for name, p in PERCENTILES.items()]
            yield f"end to end  {' '.join([*shown, f'max {latency_text(times.maximum)}'])}"

    def _outcome_lines(self) -> Iterator[str]:
        rows = [
            (f"{name}.{field}", code, count)
            for name, counts in self._seen_kinds()
            for field, by_code in counts.codes.items()
            for code, count in sorted(by_code.items())
            # Zero is NONE: nothing to say.
            if code
        ]
        if rows:
            yield ""
            yield self._colours.faint(f"{'count':>10}  outcome")
        for name, code, count in rows:
            yield f"{count:>10,}  {name:<22} {coloured_code(code, self._colours)}"


def _section(colours: Colours, head: str, counted: Mapping[str, tuple[int, Callable[[str], str]]]) -> Iterator[str]:
    if counted:
        yield ""
        yield colours.faint(f"{'count':>10}  {head}")
        for name, (count, paint) in counted.items():
            yield f"{count:>10,}  {paint(escape_line(name))}"


def _time_json(time_ns: int | None) -> str | None:
    return None if time_ns is None else iso_time(time_ns)


def _kind_line(name: str, count: str, size: str, cells: list[str]) -> str:
    """80 columns, unless a number is very large."""
    return f"{name:<20} {count:>8} {size:>10}" + "".join(f" {cell:>7}" for cell in cells)


def _latency_cells(histogram: Histogram) -> list[str]:
    if not histogram.count:
        return []
    return [latency_text(value) for value in (*map(histogram.per_mille, PERCENTILES.values()), histogram.maximum)]


def _latency_json(histogram: Histogram) -> dict[str, Any] | None:
    if not histogram.count:
        return None
    return {
        "count": histogram.count,
        "min_ns": str(histogram.minimum),
        "mean_ns": str(histogram.mean),
        **{f"{name}_ns": str(histogram.per_mille(p)) for name, p in PERCENTILES.items()},
        "max_ns": str(histogram.maximum),
    }
