"""What a run is told as: lines for people, one JSON object, JUnit XML.

The world's secrets are made for tests, so bytes are shown whole; a line also says what they are, with secrets masked
by the declaration, to be read.
"""

from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree

from paygate.codec import limits
from paygate.codec.describe import describe
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import decode_frame, decode_head
from paygate.conform.runner import Outcome, Result
from paygate.conform.wire import Entry, Wire
from paygate.escape import escape_line

FORMAT: Final = 1
"""Of the JSON object; a change that a reader must know of gives it the next number."""

_WORD: Final = {Outcome.PASSED: "passed", Outcome.FAILED: "FAILED", Outcome.SKIPPED: "skipped"}


def result_lines(result: Result) -> list[str]:
    """One line for what passed; for what failed also what was expected, what came, and the bytes."""
    case = result.case
    line = f"{_WORD[result.outcome]:7}  {case.case_id}"
    if result.outcome is Outcome.PASSED:
        return [line]
    if result.outcome is Outcome.SKIPPED:
        return [escape_line(f"{line}: {result.reason}")]
    where = ", ".join([f"section{'s' * (len(case.sections) > 1)} {', '.join(case.sections)}", *case.requirements])
    lines = [
        line,
        f"  the spec says ({where}): {case.expects}",
        f"  expected  {result.expected}",
        f"  got       {result.reason}",
    ]
    for wire in result.wires:
        lines.append(f"  {wire.name}:")
        for entry in wire.entries:
            lines += [f"    {text}" for text in _entry_lines(entry)]
        if wire.left_out_count:
            lines.append(f"    ({wire.left_out_count} entries in the middle are left out)")
    return [escape_line(text) for text in lines]


def summary_line(results: Sequence[Result], duration_ms: int) -> str:
    """How many of each."""
    counts = _counts(results)
    told = ", ".join(f"{counts[outcome.value]} {outcome.value}" for outcome in Outcome)
    return f"{len(results)} cases in {duration_ms / 1000:.1f} s: {told}"


def _entry_lines(entry: Entry) -> list[str]:
    when = f"+{entry.at_ms / 1000:.3f} s"
    if not entry.data:
        return [f"{when} {entry.what}"]
    told = frames_text(entry.data)
    more = f" ... {entry.left_out_size} bytes more" if entry.left_out_size else ""
    size = len(entry.data) + entry.left_out_size
    return [f"{when} {entry.what} {size} bytes: {told}", f"  {entry.data.hex()}{more}"]


def frames_text(data: bytes) -> str:
    """What bytes are: their whole frames described, with secrets masked, and what is left over."""
    told: list[str] = []
    while data:
        try:
            head = decode_head(data[: limits.HEADER_SIZE])
            if len(data) < head.frame_size:
                told.append(f"{len(data)} bytes of a {head.kind.name} of {head.frame_size}")
                break
            frame = decode_frame(head, data[: head.frame_size])
            told.append(f"{describe(frame.message())} (correlation {head.correlation_id})")
            data = data[head.frame_size :]
        except RemoteProtocolError as error:
            told.append(f"no valid frame ({error.text})")
            break
    return "; ".join(told)


def _counts(results: Sequence[Result]) -> dict[str, int]:
    return {outcome.value: sum(r.outcome is outcome for r in results) for outcome in Outcome}


# -- JSON ------------------------------------------------------------------------------------------------


def json_report(role: str, address: str, results: Sequence[Result], duration_ms: int) -> dict[str, Any]:
    """The run as an object.

    `format` 1: `program`, `role`, `address`, `protocol_version`, `duration_ms`, the counts `passed`, `failed` and
    `skipped`, and `cases`, each with `id`, `sections`, `requirements`, `expects`, `outcome`, `duration_ms`, `expected`
    and `reason` (empty unless it failed, or was skipped) and `links`: of a failure, each connection's `name`,
    `left_out_count` and `entries` of `at_ms`, `what`, `frames` in words, `bytes` in hexadecimal, and
    `left_out_size`, how many bytes more there were. Readers ignore members that they do not know.
    """
    return {
        "program": "paygate-conform",
        "format": FORMAT,
        "role": role,
        "address": address,
        "protocol_version": limits.PROTOCOL_VERSION,
        "duration_ms": duration_ms,
        **_counts(results),
        "cases": [_json_case(result) for result in results],
    }


def _json_case(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "id": case.case_id,
        "sections": list(case.sections),
        "requirements": list(case.requirements),
        "expects": case.expects,
        "outcome": result.outcome.value,
        "duration_ms": result.duration_ms,
        "expected": result.expected,
        "reason": result.reason,
        "links": [_json_wire(wire) for wire in result.wires],
    }


def _json_wire(wire: Wire) -> dict[str, Any]:
    entries = [
        {
            "at_ms": entry.at_ms,
            "what": entry.what,
            "frames": frames_text(entry.data),
            "bytes": entry.data.hex(),
            "left_out_size": entry.left_out_size,
        }
        for entry in wire.entries
    ]
    return {"name": wire.name, "left_out_count": wire.left_out_count, "entries": entries}


# -- JUnit -----------------------------------------------------------------------------------------------


def junit_report(role: str, results: Sequence[Result], duration_ms: int) -> bytes:
    """The run as JUnit XML: one suite, a testcase for each case, its group as the class name."""
    counts = _counts(results)
    numbers = {
        "tests": str(len(results)),
        "failures": str(counts["failed"]),
        "errors": "0",
        "skipped": str(counts["skipped"]),
        "time": f"{duration_ms / 1000:.3f}",
    }
    suites = ElementTree.Element("testsuites", numbers)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": f"paygate-conform {role}", **numbers})
    for result in results:
        group, _, name = result.case.case_id.rpartition(".")
        attributes = {"classname": group, "name": name, "time": f"{result.duration_ms / 1000:.3f}"}
        element = ElementTree.SubElement(suite, "testcase", attributes)
        if result.outcome is Outcome.FAILED:
            message = escape_line(f"expected {result.expected}; got {result.reason}")
            failure = ElementTree.SubElement(element, "failure", {"type": "Failed", "message": message})
            failure.text = "\n".join(result_lines(result))
        elif result.outcome is Outcome.SKIPPED:
            ElementTree.SubElement(element, "skipped", {"message": escape_line(result.reason)})
    return bytes(ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"
