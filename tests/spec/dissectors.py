"""What the differential tests share: random messages, how a codec refuses a frame, and the two other readers.

The other readers are the Python parser that kaitai-struct-compiler makes of spec/paygate.ksy, and tshark with
spec/paygate.lua. Where one of them can't run, its tests say what is missing: skipped on a developer's machine, failed
where CI is set, so that nothing passes by not having run.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from specgen.declared import SOCKET_MESSAGES
from strategies import records

from paygate.codec import limits
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import Blob, Counted, Field, Nested, Record, Text, WireField, fields_of
from paygate.codec.frame import Header, decode_frame, decode_head
from paygate.codec.messages import MESSAGES, Message

ROOT: Final = Path(__file__).parents[2]
SEED: Final = 1
MESSAGE_COUNT: Final = 130
"""Of each kind; 17 kinds make 2,210 messages, and as many damaged ones."""

_NODE_MODULES: Final = ROOT / "var" / "npm" / "node_modules"
_COMPILER: Final = Path(__file__).with_name("compile_ksy.js")


def unavailable(what: str) -> NoReturn:
    """Skip, or fail in CI: a comparison that did not run has found nothing."""
    text = f"{what}; install it with: make dissectors (or scripts/install-dissectors)"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def compile_ksy(ksy: Path, folder: Path, *languages: str) -> None:
    """Compile a .ksy file into `folder`/language/. Any complaint of the compiler fails the test."""
    if shutil.which("node") is None:
        unavailable("Node.js is missing, which runs the Kaitai Struct compiler")
    for package in ("kaitai-struct-compiler", "js-yaml"):
        if not (_NODE_MODULES / package).is_dir():
            unavailable(f"the npm package {package} is missing below var/npm")
    done = subprocess.run(
        ["node", _COMPILER, ksy, folder, *languages],
        env={**os.environ, "NODE_PATH": str(_NODE_MODULES)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def tshark(*arguments: str | Path, lua: Path = ROOT / "spec" / "paygate.lua") -> str:
    """What tshark prints with a dissector. A Lua error fails the test."""
    if shutil.which("tshark") is None:
        unavailable("tshark is missing")
    done = subprocess.run(
        # -n: no look-ups of names, so nothing leaves this machine.
        ["tshark", "-n", "-X", f"lua_script:{lua}", *arguments],
        capture_output=True,
        check=False,
        timeout=120,
    )
    complaints = [line for line in done.stderr.decode().splitlines() if not line.startswith("Running as user")]
    assert (done.returncode, complaints) == (0, []), complaints
    printed = done.stdout.decode()
    assert "Lua Error" not in printed
    return printed


# -- messages --------------------------------------------------------------------------------------------


@cache
def random_messages() -> tuple[Message, ...]:
    """Legal messages of every kind that may travel on a socket: the same ones for every reader and at every run."""
    return tuple(message for declared in SOCKET_MESSAGES for message in drawn(records(declared), MESSAGE_COUNT))


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """`count` values of a strategy, or fewer if it has no more."""
    found: list[Any] = []

    @seed(SEED)
    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


# -- the codec as the judge ------------------------------------------------------------------------------


def decoded(frame: bytes) -> Message:
    """The message of one whole frame. Raises RemoteProtocolError as a link would; the MAC is not checked."""
    head = decode_head(frame[: limits.HEADER_SIZE])
    return decode_frame(head, frame).message()


def refusal(frame: bytes) -> RemoteProtocolError | None:
    """How the codec refuses a frame, or None if it takes it."""
    try:
        decoded(frame)
    except RemoteProtocolError as error:
        return error
    return None


def refused_field(frame: bytes, error: RemoteProtocolError) -> Field | None:
    """The type of the field whose own value is at fault, or None if it is not one field's value.

    A rule between fields names a field too, but its words are not those of that field's type.
    """
    if error.code is not ErrorCode.BAD_VALUE:
        return None
    kind = decode_head(frame[: limits.HEADER_SIZE]).kind
    names = error.path.split(".")
    declared = _field_at(MESSAGES[kind], names)
    types = [declared.type, *([declared.type.item] if isinstance(declared.type, Counted) else [])]
    if any(rule.expected == error.expected for rule in _rules_at(MESSAGES[kind], names)):
        return None
    # A count is refused before its items are read, in words of its own.
    return next((t for t in types if t.expected == error.expected), declared.type)


def _field_at(record: type[Record], names: list[str]) -> WireField:
    found = next(f for f in fields_of(record) if f.name == names[0])
    return found if len(names) == 1 else _field_at(_record_of(found.type), names[1:])


def _rules_at(record: type[Record], names: list[str]) -> tuple[Any, ...]:
    if len(names) == 1:
        return record.rules
    return _rules_at(_record_of(_field_at(record, names[:1]).type), names[1:])


def _record_of(field: Field) -> type[Record]:
    innermost = field.item if isinstance(field, Counted) else field
    assert isinstance(innermost, Nested)
    return innermost.record


def text_at(frame: bytes, path: str) -> bytes:
    """The bytes of the text that a path names, in a frame whose fields before it can be placed."""
    record: type[Record] = MESSAGES[decode_head(frame[: limits.HEADER_SIZE]).kind]
    at = limits.HEADER_SIZE
    for name in path.split("."):
        for field in fields_of(record):
            if field.name == name:
                break
            at = _end_of(field.type, frame, at)
        record = field.type.record if isinstance(field.type, Nested) else record
    assert isinstance(field.type, Text)
    return frame[at + Text.PREFIX_SIZE : _end_of(field.type, frame, at)]


def _end_of(field: Field, frame: bytes, at: int) -> int:
    match field:
        case Text() | Blob():
            return at + field.PREFIX_SIZE + int.from_bytes(frame[at : at + field.PREFIX_SIZE])
        case Counted():
            end = at + field.PREFIX_SIZE
            for _ in range(frame[at]):
                end = _end_of(field.item, frame, end)
            return end
        case Nested():
            for part in fields_of(field.record):
                at = _end_of(part.type, frame, at)
            return at
    return at + field.size_max


def header_of(frame: bytes) -> dict[str, int]:
    """The header's fields by name, read by their declared widths alone."""
    found, at = {}, 0
    for field in fields_of(Header):
        found[field.name] = int.from_bytes(frame[at : at + field.type.size_max])
        at += field.type.size_max
    return found
