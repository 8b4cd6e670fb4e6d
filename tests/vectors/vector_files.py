"""The published vectors as they stand in `spec/vectors`, for every test of this folder."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

DIRECTORY: Final = Path(__file__).parents[2] / "spec" / "vectors"
NAMES: Final = ("frames.json", "records.json", "crypto.json", "session.json", "schema.json")


@cache
def load(name: str) -> dict[str, Any]:
    """One file; don't change what it gives."""
    loaded: dict[str, Any] = json.loads((DIRECTORY / name).read_text(encoding="utf-8"))
    return loaded


def texts() -> dict[str, str]:
    """What the generator calls `previous`."""
    return {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.json")}
