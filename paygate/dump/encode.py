"""`paygate-dump encode`: JSON objects, one a line, back into the bytes of frames (R24): the inverse of `--json`.

What `--json --show-secrets` printed gives the very bytes that it was made of, broken bodies and wrong MACs included. By
hand, `{"kind": "TokenQuery", "correlation_id": "1", "message": {…}}` is enough. Objects that are no frames (findings,
connections, the end, statistics) are skipped; a `type` that nobody prints is an error.

An error says in which line which member is wrong and what was expected, never the value, which may be a secret.
"""

import json
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from paygate.cli import ExitCode, PaygateExit
from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.fields import Blob, Opaque, Uint
from paygate.codec.frame import FLAG_AUTHENTICATED, MAGIC, Header, frame_checksum, frame_mac
from paygate.codec.jsonform import BadJson, MaskedJson, from_wide_json, value_from_json
from paygate.codec.messages import MESSAGES
from paygate.codec.record_codec import encode_record
from paygate.dump.json_lines import FLAGS, SCHEMA
from paygate.dump.kinds import kind_named

LINE_SIZE_MAX: Final = 1_048_576
"""Bytes of one line: the largest body takes 131,070 in hexadecimal, so nothing longer is one frame."""

_BY_HAND: Final = frozenset({"type", "kind", "correlation_id", "flags", "mac", "message", "body"})
"""What an object without `schema` may hold: somebody wrote it, and a mistyped name must not be passed over."""
NO_FRAMES: Final = frozenset({"finding", "connection", "end", "stats"})
"""Types of what `--json` prints besides frames. Others are refused: a `Frame` must not be lost in silence."""
_CORRELATION_ID: Final = Uint(8)
_MAC: Final = Opaque(limits.MAC_SIZE)
_BODY: Final = Blob(0, limits.BODY_SIZE_MAX)


def run_encode(path: str, *, link_key: bytes | None, is_hex: bool) -> int:
    """Write the frames of a file's objects (`-`: standard input) to standard output, as bytes or as hexadecimal lines.

    Raises PaygateExit(USAGE): the file can't be read, a line is wrong (the frames before it are written), or bytes
    would go to a terminal.
    """
    if not is_hex and sys.stdout.isatty():
        raise PaygateExit("frames are bytes and no text for a terminal: use --hex, or > FILE", ExitCode.USAGE)
    for data in encode_lines(_lines(path), link_key):
        if is_hex:
            sys.stdout.write(f"{data.hex()}\n")
        else:
            sys.stdout.buffer.write(data)
    return ExitCode.OK


def encode_lines(lines: Iterable[bytes], link_key: bytes | None) -> Iterator[bytes]:
    """The frame of each line that holds one. Raises PaygateExit(USAGE) at the first line that is wrong."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = encode_object(_parsed(line), link_key)
        except MaskedJson as error:
            hint = "is masked: make the JSON with --show-secrets"
            raise PaygateExit(f"line {number}: {error.path} {hint}", ExitCode.USAGE) from None
        except BadJson as error:
            raise PaygateExit(f"line {number}: {error}", ExitCode.USAGE) from None
        if data is not None:
            yield data


def encode_object(data: object, link_key: bytes | None) -> bytes | None:
    """The frame that an object describes; None for one that is no frame. Raises BadJson."""
    if not isinstance(data, dict):
        raise BadJson("", "a JSON object")
    kind_of_object = data.get("type", "frame")
    if kind_of_object != "frame":
        if isinstance(kind_of_object, str) and kind_of_object in NO_FRAMES:
            return None
        raise BadJson("type", "frame")
    if "schema" not in data:
        if data.keys() - _BY_HAND:
            # The name itself stays out: somebody may have typed a password where a name belongs.
            raise BadJson("", f"no members but {', '.join(sorted(_BY_HAND))}")
    elif data["schema"] != SCHEMA:
        raise BadJson("schema", SCHEMA)
    kind = _kind(data.get("kind"))
    correlation_id: int = value_from_json(_CORRELATION_ID, data.get("correlation_id"), "correlation_id")
    body = _body(kind, data)
    mac = _mac(data)
    is_authenticated = _is_authenticated(data, has_mac=mac is not None or link_key is not None)
    signed = _signed(kind, correlation_id, body, FLAG_AUTHENTICATED if is_authenticated else 0)
    if not is_authenticated:
        if mac is not None:
            raise BadJson("mac", "null, since `flags` has no AUTHENTICATED")
        return signed
    if mac is not None:
        return signed + mac
    if link_key is None:
        raise BadJson("mac", "a MAC, since `flags` has AUTHENTICATED; or give --link-key, which makes one")
    return signed + frame_mac(link_key, signed)


# -- members -----------------------------------------------------------------------------------------------


def _kind(name: object) -> Kind:
    kind = kind_named(name) if isinstance(name, str) else None
    if kind is None:
        raise BadJson("kind", "the name of a kind, such as TokenQuery (`paygate-dump describe Kind` lists them)")
    return kind


def _body(kind: Kind, data: dict[str, Any]) -> bytes:
    message, body = data.get("message"), data.get("body")
    if (message is None) is (body is None):
        raise BadJson("message", "an object with the message's fields, or else `body` in hexadecimal")
    if message is None:
        # Any bytes: of a captured frame whose body broke its declaration, too.
        given: bytes = value_from_json(_BODY, body, "body")
        return given
    try:
        return encode_record(from_wide_json(MESSAGES[kind], message))
    except BadJson as error:
        raise error.within("message") from None


def _mac(data: dict[str, Any]) -> bytes | None:
    mac = data.get("mac")
    return None if mac is None else value_from_json(_MAC, mac, "mac")


def _is_authenticated(data: dict[str, Any], *, has_mac: bool) -> bool:
    flags = data.get("flags")
    if flags is None:
        return has_mac
    if not isinstance(flags, list) or not all(isinstance(flag, str) and flag in FLAGS for flag in flags):
        raise BadJson("flags", f"a list of {', '.join(FLAGS)}, or an empty one")
    return bool(flags)


def _signed(kind: Kind, correlation_id: int, body: bytes, flags: int) -> bytes:
    header = encode_record(
        Header(
            magic=int.from_bytes(MAGIC),
            version=limits.PROTOCOL_VERSION,
            kind=int(kind),
            flags=flags,
            body_size=len(body),
            correlation_id=correlation_id,
            checksum=0,
        )
    )
    checksum = frame_checksum(header + body)
    return header[: -_CHECKSUM.size] + _CHECKSUM.pack(checksum) + body


_CHECKSUM: Final = struct.Struct(">I")


# -- lines -------------------------------------------------------------------------------------------------


def _lines(path: str) -> Iterator[bytes]:
    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            while line := file.readline(LINE_SIZE_MAX + 1):
                if len(line) > LINE_SIZE_MAX:
                    raise PaygateExit(f"{path}: a line longer than {LINE_SIZE_MAX} bytes is no frame", ExitCode.USAGE)
                yield line
    except OSError as error:
        raise PaygateExit(f"{path} could not be read: {error.strerror}", ExitCode.USAGE) from None


def _parsed(line: bytes) -> object:
    place = ""
    try:
        # Without its end, so that what is missing there is missing in this line.
        return json.loads(line.rstrip(b" \t\r\n"), object_pairs_hook=_object)
    except BadJson:
        raise
    except json.JSONDecodeError as error:
        place = f"column {error.pos + 1}"
    except UnicodeDecodeError as error:
        place = f"column {error.start + 1}"
    except (ValueError, RecursionError):  # of a number or a nesting; neither has a place
        pass
    # Outside of the handlers, whose errors hold the line.
    raise BadJson(place, "a JSON object on one line")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        # Which of two values counts is anybody's guess. The name stays out, as in `encode_object`.
        raise BadJson("", "each name once in an object, but one stands twice")
    return data
