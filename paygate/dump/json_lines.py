"""`--json`: one JSON object a line, for programs (R24). Its schema is `paygate-dump schema`, spec/dump.schema.json.

Stability: members are only ever added, and so are values of `type`, `event` and `name`. Whatever else changes, `schema`
changes with it. Numbers that can pass 2**53 are decimal strings, bytes are hexadecimal, codes their names, and what is
unknown is null. A field that may not be shown is an object `{"masked": …}`, which nobody takes for its value; with
`show_secrets` there is none, and `paygate-dump encode` makes the same bytes of the object.

The text is ASCII, so nothing in it can steer a terminal (T21).
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from paygate.codec.frame import FLAG_AUTHENTICATED
from paygate.codec.jsonform import MASK, to_wide_json
from paygate.codec.messages import MESSAGES
from paygate.codec.sealed import CredentialsPlaintext
from paygate.dump.envelopes import user_id_of
from paygate.dump.model import (
    NANOSECONDS_PER_SECOND,
    Finding,
    Flow,
    Item,
    SeenFrame,
    Side,
    StreamNote,
)

SCHEMA: Final = "paygate-dump/1"
"""What every object says it follows."""
FLAGS: Final = {"AUTHENTICATED": FLAG_AUTHENTICATED}
"""The header's flags by name (spec 4.1)."""
SECRET: Final = {MASK: "secret"}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SIDE_NAMES: Final = {side: side.name.lower() for side in Side}


class JsonLines:
    """Writes an object for each frame, finding and connection event as it comes, and their counts at the end."""

    def __init__(self, write: Callable[[str], None], *, show_secrets: bool = False) -> None:
        self._write = write
        self._show_secrets = show_secrets
        self._counts = {"frames": 0, "findings": 0, "connections": 0}

    def receive(self, item: Item) -> None:
        """Write it."""
        if isinstance(item, SeenFrame):
            self._counts["frames"] += 1
            self._counts["findings"] += len(item.findings)
            self._put(frame_object(item, show_secrets=self._show_secrets))
        elif isinstance(item, Finding):
            self._counts["findings"] += 1
            self._put(_head("finding") | finding_object(item))
        else:
            self._counts["connections"] += 1
            self._put(connection_object(item))

    def finish(self) -> None:
        """Write how many objects came, so that a reader knows that nothing was cut off."""
        self._put(_head("end") | {"counts": self._counts})

    def _put(self, data: dict[str, Any]) -> None:
        self._write(json.dumps(data, separators=(", ", ": ")) + "\n")


def frame_object(frame: SeenFrame, *, show_secrets: bool) -> dict[str, Any]:
    """A frame with all that became known of it."""
    raw = frame.frame
    return {
        **_head("frame"),
        "index": frame.index,
        **_when(frame.time_ns, frame.number),
        **_where(frame.flow, frame.side),
        "stream_offset": frame.offset,
        "size": raw.size,
        "kind": MESSAGES[raw.kind].__name__,
        "kind_code": int(raw.kind),
        "correlation_id": str(raw.correlation_id),
        "flags": list(FLAGS) if raw.mac else [],
        "mac": raw.mac.hex() if raw.mac else None,
        "message": to_wide_json(frame.message, masks=not show_secrets) if frame.message is not None else None,
        # A body that breaks its declaration may hold a secret anywhere.
        "body": None if frame.message is not None else raw.body.hex() if show_secrets else SECRET,
        "answers": {"index": frame.answers.index, "packet": frame.answers.number} if frame.answers else None,
        "latency_ns": _number(frame.latency_ns),
        "payment_id": frame.payment_id.hex() or None,
        "transaction_id": frame.transaction_id or None,
        "session_id": frame.session_id.hex() or None,
        "opened": opened_object(frame.opened, show_secrets=show_secrets) if frame.opened is not None else None,
        "findings": [finding_object(finding) for finding in frame.findings],
    }


def opened_object(opened: CredentialsPlaintext, *, show_secrets: bool) -> dict[str, Any]:
    """What an envelope holds. Its password key is never shown: whoever has it can pay as the customer."""
    user_id = user_id_of(opened)
    shown: Any = {"hex": user_id.hex()} if isinstance(user_id, bytes) else user_id
    return {"user_id": shown if show_secrets else SECRET, "password_key": SECRET}


def finding_object(finding: Finding) -> dict[str, Any]:
    """What is wrong, and where."""
    return {
        "name": finding.name,
        **_when(finding.time_ns, finding.number),
        "flow": finding.flow.number if finding.flow is not None else None,
        "side": _SIDE_NAMES[finding.side] if finding.flow is not None and finding.flow.knows_sides else None,
        "offset": finding.offset,
        "frame_offset": finding.frame_offset,
        "path": finding.path or None,
        "expected": finding.expected,
        "got": finding.got,
        "section": finding.section or None,
    }


def connection_object(note: StreamNote) -> dict[str, Any]:
    """What else happened in a flow."""
    return {
        **_head("connection"),
        "event": note.event.name,
        "meaning": note.event.value,
        **_when(note.time_ns, note.number),
        **_where(note.flow, note.side),
        "stream_offset": note.offset,
        "size": note.size,
    }


def iso_time(time_ns: int) -> str | None:
    """ISO 8601 in UTC to the nanosecond; None for a time outside of the years 1 to 9999."""
    second, rest_ns = divmod(time_ns, NANOSECONDS_PER_SECOND)
    try:
        moment = _EPOCH + timedelta(seconds=second)
    except OverflowError:
        return None
    return f"{moment.replace(tzinfo=None).isoformat()}.{rest_ns:09}Z"


def _head(type_name: str) -> dict[str, Any]:
    return {"type": type_name, "schema": SCHEMA}


def _when(time_ns: int | None, number: int) -> dict[str, Any]:
    time = None if time_ns is None else iso_time(time_ns)
    return {"time": time, "time_ns": _number(time_ns), "packet": number}


def _where(flow: Flow, side: Side) -> dict[str, Any]:
    return {
        "flow": flow.number,
        "source": flow.kind.name,
        "side": _SIDE_NAMES[side] if flow.knows_sides else None,
        "sender": _end(flow, side) if flow.knows_sides else None,
        "receiver": _end(flow, side.other) if flow.knows_sides else None,
    }


def _end(flow: Flow, side: Side) -> dict[str, Any]:
    endpoint = flow.endpoint(side)
    role = flow.roles[side]
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "role": role.name if role is not None else None,
        "party_id": flow.party_ids[side] or None,
    }


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)
