"""spec/vectors/*.json: test vectors for people who write clients, gateways and banks from `spec/` alone.

    vectors.render(previous)    file name to text; `previous` is what the files hold now

Everything is fixed but one envelope: the hybrid suite's encapsulation can't be made with fixed randomness, so the
previous one is kept for as long as it opens.
"""

import json
from collections.abc import Mapping
from typing import Any

from specgen import vector_crypto, vector_frames, vector_records, vector_schema, vector_session


def render(previous: Mapping[str, str]) -> dict[str, str]:
    """The files of spec/vectors, by name. The same `previous` gives the same bytes."""
    return {
        "frames.json": lines_of(vector_frames.render()),
        "crypto.json": pretty(vector_crypto.render(previous.get("crypto.json", ""))),
        "records.json": lines_of(vector_records.render()),
        "schema.json": pretty(vector_schema.render()),
        "session.json": pretty(vector_session.render()),
    }


def pretty(data: dict[str, Any]) -> str:
    """JSON with every member on a line of its own."""
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def lines_of(data: dict[str, Any]) -> str:
    """JSON with the entries of each list of the outermost object on a line each, so that diffs are short."""
    members = []
    for name, value in data.items():
        if isinstance(value, list):
            entries = ",\n".join(f"    {json.dumps(entry, ensure_ascii=False)}" for entry in value)
            members.append(f"  {json.dumps(name)}: [\n{entries}\n  ]")
        else:
            members.append(f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(members) + "\n}\n"
