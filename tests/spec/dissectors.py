"""What the differential tests share: random messages, how a codec refuses a frame, and the two other readers.

The other readers are the Python parser that kaitai-struct-compiler makes of spec/paygate.ksy, and tshark with
spec/paygate.lua. Where one of them can't run, its tests say what is missing: skipped on a developer's machine, failed
where CI is set, so that nothing passes by not having run.
"""

import dataclasses
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from outside_tools import unavailable
from specgen.declared import SOCKET_MESSAGES
from specgen.words import SOCKET_KINDS
from strategies import records

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import Blob, Counted, Field, Nested, Record, Text, WireField, fields_of, utf8_text
from paygate.codec.frame import MAGIC, Header, decode_frame, decode_head
from paygate.codec.messages import Message

ROOT: Final = Path(__file__).parents[2]
SEED: Final = 1
MESSAGE_COUNT: Final = 130
"""Of each kind; 17 kinds make 2,210 messages, and as many damaged ones."""

NODE_MODULES: Final = ROOT / "var" / "npm" / "node_modules"
_COMPILER: Final = Path(__file__).with_name("compile_ksy.js")


def compile_ksy(ksy: Path, folder: Path, *languages: str) -> None:
    """Compile a .ksy file into `folder`/language/. Any complaint of the compiler fails the test."""
    if shutil.which("node") is None:
        unavailable("Node.js is missing, which runs the Kaitai Struct compiler")
    for package in ("kaitai-struct-compiler", "js-yaml"):
        if not (NODE_MODULES / package).is_dir():
            unavailable(f"the npm package {package} is missing below var/npm")
    done = subprocess.run(
        ["node", _COMPILER, ksy, folder, *languages],
        env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
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
    """Legal messages of every kind that may travel on a socket: the same ones for every reader."""
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


_PIPE_KINDS: Final = set(Kind) - set(SOCKET_KINDS)
_MAGIC_AND_VERSION: Final = MAGIC + bytes([limits.PROTOCOL_VERSION])


# -- the codec as the judge ------------------------------------------------------------------------------


def decoded(frame: bytes) -> Message:
    """The message of one whole frame. Raises RemoteProtocolError as a link would; the MAC is not checked."""
    if frame[:3] == _MAGIC_AND_VERSION and frame[3] in _PIPE_KINDS:
        # The codec knows them for pipes; on a socket they are refused, and nobody else need know them (spec 4.2).
        raise RemoteProtocolError(ErrorCode.UNKNOWN_KIND, "kind")
    head = decode_head(frame[: limits.HEADER_SIZE])
    return decode_frame(head, frame).message()


def refusal(frame: bytes) -> RemoteProtocolError | None:
    """How the codec refuses a frame, or None if it takes it."""
    try:
        decoded(frame)
    except RemoteProtocolError as error:
        return error
    return None


def body_of(frame: bytes) -> bytes:
    """The body of a frame that its header describes rightly."""
    return frame[limits.HEADER_SIZE : limits.HEADER_SIZE + header_of(frame)["body_size"]]


@dataclass(frozen=True, slots=True)
class Fault:
    """The one field whose own value the codec refuses: its type, and its size and content if it is a text."""

    field: Field
    size: int = 0
    content: bytes = b""

    @property
    def is_in_utf8(self) -> bool:
        """Whether the content is UTF-8 of a legal size, so that only its characters can be at fault."""
        assert isinstance(self.field, Text)
        return self.field.minimum <= self.size <= self.field.maximum and utf8_text(self.content) is not None


def bad_value(record: type[Record], encoded: bytes, error: RemoteProtocolError) -> Fault | None:
    """Which field a BAD_VALUE is about, or None if it is about a rule between fields.

    Such a rule names a field too, but its words are not those of that field's type.
    """
    assert error.code is ErrorCode.BAD_VALUE
    at = 0
    *parents, last = error.path.split(".")
    for name in parents:
        field, at = _field_at(record, encoded, at, name)
        if isinstance(field.type, Counted):
            # In which item it is does not matter: no record in a list holds a text.
            field = dataclasses.replace(field, type=field.type.item)
        assert isinstance(field.type, Nested)
        record = field.type.record
    if any(rule.field == last and rule.expected == error.expected for rule in record.rules):
        return None
    field, at = _field_at(record, encoded, at, last)
    if not isinstance(field.type, Text):
        return Fault(field.type)
    end = _end_of(field.type, encoded, at)
    start = at + Text.PREFIX_SIZE
    return Fault(field.type, end - start, encoded[start:end])


def _field_at(record: type[Record], encoded: bytes, at: int, name: str) -> tuple[WireField, int]:
    for field in fields_of(record):
        if field.name == name:
            return field, at
        at = _end_of(field.type, encoded, at)
    raise AssertionError(f"{record.__name__} has no {name}")


def _end_of(field: Field, encoded: bytes, at: int) -> int:
    match field:
        case Text() | Blob():
            return at + field.PREFIX_SIZE + int.from_bytes(encoded[at : at + field.PREFIX_SIZE])
        case Counted():
            end = at + field.PREFIX_SIZE
            for _ in range(encoded[at]):
                end = _end_of(field.item, encoded, end)
            return end
        case Nested():
            for part in fields_of(field.record):
                at = _end_of(part.type, encoded, at)
            return at
    return at + field.size_max


def header_of(frame: bytes) -> dict[str, int]:
    """The header's fields by name, read by their declared widths alone."""
    found, at = {}, 0
    for field in fields_of(Header):
        found[field.name] = int.from_bytes(frame[at : at + field.type.size_max])
        at += field.type.size_max
    return found
