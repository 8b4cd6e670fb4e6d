"""A message that comes under another kind's number shows its secrets nowhere (R4, R24)."""

import io
from typing import Final

import pytest
from builders import example, with_changes
from dump.flow_capture import frame_around

from paygate.codec.codes import Kind
from paygate.codec.fields import Sensitivity, fields_of
from paygate.codec.messages import MESSAGES
from paygate.codec.record_codec import encode_record
from paygate.codec.walk import Part, holds_secrets, walk
from paygate.dump.json_lines import JsonLines
from paygate.dump.lines import Lines
from paygate.dump.model import Item
from paygate.dump.output import Colours, Output
from paygate.dump.pipeline import Pipeline
from paygate.dump.tree import Tree

SECRETS: Final = {
    "passcode": "Zq%Xj=Wv",
    "password": "Hf&Kd^Gu Yk",
    "user_id": "Rb~Tz+Mp@k",
    "verifier": bytes(range(0xA1, 0xC1)),
}
"""Long enough, and no three bytes of them stand anywhere else."""
SECRET_KINDS: Final = [kind for kind in Kind if holds_secrets(MESSAGES[kind])]


def traces_of(body: bytes, kind: Kind, under: Kind) -> set[str]:
    """Every form of three bytes of a secret in an output, but for bytes that a public field of `under` claims."""
    claimed: set[int] = set()
    for span in walk(MESSAGES[under], body).spans:
        if span.part is Part.VALUE and span.sensitivity is Sensitivity.PUBLIC:
            claimed.update(range(span.start, span.end))
    traces: set[str] = set()
    for span in walk(MESSAGES[kind], body).spans:
        if span.part is not Part.VALUE or span.sensitivity is not Sensitivity.SECRET:
            continue
        for at in range(span.start, span.end - 2):
            part = body[at : at + 3]
            if claimed.isdisjoint(range(at, at + 3)):
                traces |= {part.hex(), part.hex(" "), part.decode("latin-1")}
    return traces


def shown(data: bytes) -> str:
    """What the lines, the tree and the JSON lines print of raw bytes, findings included."""
    parts: list[str] = []
    pipeline = Pipeline()
    items: list[Item] = [*pipeline.read(io.BytesIO(data)), *pipeline.finish()]
    outputs: list[Output] = [
        Lines(parts.append, Colours(is_on=False)),
        Tree(parts.append, Colours(is_on=False)),
        JsonLines(parts.append),
    ]
    for output in outputs:
        for item in items:
            output.receive(item)
        output.finish()
    return "".join(parts)


@pytest.mark.parametrize("kind", SECRET_KINDS, ids=lambda kind: kind.name)
def test_a_body_under_any_other_kind_shows_nothing_of_its_secrets(kind: Kind) -> None:
    secrets = {f.name: SECRETS[f.name] for f in fields_of(MESSAGES[kind]) if f.name in SECRETS}
    body = encode_record(with_changes(example(kind), **secrets))
    checked_count = 0
    for under in Kind:
        if under is kind:
            continue
        text = shown(frame_around(under, body))
        traces = traces_of(body, kind, under)
        checked_count += len(traces)
        assert [trace for trace in sorted(traces) if trace in text] == [], (under, text)
    assert checked_count > 100
