"""frames.json: for every kind that travels on sockets, frames that are valid and frames that a receiver must refuse.

What is wrong with a frame is put into it here, by the declarations and spec 4; the expected code follows from what
was done, never from what the codec says of it. Each invalid frame has one fault, so that the order in which an
implementation looks does not matter where the spec leaves it open.
"""

import hashlib
import hmac
import zlib
from collections.abc import Iterator
from typing import Any, Final

from paygate.codec import limits
from paygate.codec.codes import Kind, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import body_size_range
from paygate.codec.messages import MESSAGES, Hello, HelloAck, Message
from specgen.vector_fixtures import LINK_KEY, fixed_bytes
from specgen.vector_messages import DONORS, ends_of, is_set, links_of, variants, with_ends
from specgen.vector_samples import Fault, broken_rules, cuts, illegal_values, with_field
from specgen.vector_values import encode, json_of, json_of_code
from specgen.words import SOCKET_KINDS

_AUTHENTICATED: Final = 0x0001
_HELLO_CORRELATION_ID: Final = 1
_REPLY_CORRELATION_ID: Final = 2
"""Of whoever numbers its requests from 1: the first after Hello."""
_REQUEST_CORRELATION_ID: Final = 7
_CLIENT_SIZE_MAX: Final = 4_096
"""The largest body is shown once, on the client link; the bank link would repeat its 24 KiB."""


def frame_bytes(
    kind: int,
    body: bytes,
    correlation_id: int,
    link_key: bytes | None,
    *,
    magic: bytes = b"PG",
    version: int = 1,
    flags: int | None = None,
    body_size: int | None = None,
    checksum_xor: int = 0,
    mac_xor: int = 0,
) -> bytes:
    """A frame of spec 4.1, with what may be wrong about it; the checksum and the MAC cover what is in it."""
    shown_flags = flags if flags is not None else 0 if link_key is None else _AUTHENTICATED
    shown_size = len(body) if body_size is None else body_size
    head = magic + bytes([version, kind]) + shown_flags.to_bytes(2) + shown_size.to_bytes(2)
    head += correlation_id.to_bytes(8)
    signed = head + (zlib.crc32(head + body) ^ checksum_xor).to_bytes(4) + body
    if link_key is None:
        return signed
    mac = hmac.digest(link_key, signed, hashlib.sha256)[:16]
    return signed + mac[:-1] + bytes([mac[-1] ^ mac_xor])


def link_key_of(link: str) -> bytes | None:
    """The key that MACs on this link are made with; None where there is no MAC."""
    return LINK_KEY if link == "bank" else None


def render() -> dict[str, Any]:
    """What frames.json holds."""
    return {
        "vectors": "frames",
        "link_key": LINK_KEY.hex(),
        "valid": list(_valid()),
        "invalid": [entry for kind in SOCKET_KINDS for entry in _invalid(kind)] + list(_unknown_kinds()),
    }


# -- valid -----------------------------------------------------------------------------------------------


def correlation_id_of(message: Message) -> int:
    """A correlation ID that fits: a reply repeats its request's, an Error that closes has 0."""
    if isinstance(message, Hello | HelloAck):
        return _HELLO_CORRELATION_ID
    if message.kind is Kind.ERROR:
        return 0 if getattr(message, "closes") else _REPLY_CORRELATION_ID  # noqa: B009  # Message has no such field
    return _REPLY_CORRELATION_ID if message.kind.is_reply else _REQUEST_CORRELATION_ID


def _valid() -> Iterator[dict[str, Any]]:
    for kind in SOCKET_KINDS:
        for link in links_of(kind):
            for name, message in with_ends(variants(kind, link)).items():
                if link == "client" or len(encode(message)) <= _CLIENT_SIZE_MAX:
                    yield _valid_entry(name, link, message, correlation_id_of(message))
    echo = variants(Kind.ECHO, "client")["usual"]
    yield _valid_entry("correlation_id_least", "client", echo, 0)
    yield _valid_entry("correlation_id_greatest", "client", echo, (1 << 64) - 1)


def _valid_entry(name: str, link: str, message: Message, correlation_id: int) -> dict[str, Any]:
    link_key = link_key_of(link)
    frame = frame_bytes(message.kind, encode(message), correlation_id, link_key)
    return {
        **_about(name, message.kind, link),
        "correlation_id": str(correlation_id),
        "authenticated": link_key is not None,
        "frame": frame.hex(),
        "fields": json_of(message),
    }


def _about(name: str, kind: Kind, link: str) -> dict[str, Any]:
    sender, receiver = ends_of(kind, link)
    return {
        "name": f"{kind.name.lower()}/{link}/{name}",
        "kind": {"code": int(kind), "name": MESSAGES[kind].__name__},
        "link": link,
        "sender": sender.name.lower(),
        "receiver": receiver.name.lower(),
    }


# -- invalid ---------------------------------------------------------------------------------------------


def _refused(code: ErrorCode, path: str, frame: bytes, *, header_suffices: bool = False) -> dict[str, Any]:
    return {
        # Where the header suffices no byte of the body follows: nobody may wait for one.
        "frame": (frame[: limits.HEADER_SIZE] if header_suffices else frame).hex(),
        "header_suffices": header_suffices,
        "errors": [json_of_code(code)],
        "closes": code.closes,
        "path": path,
    }


def _invalid(kind: Kind) -> Iterator[dict[str, Any]]:
    for link in links_of(kind):
        for name, refused in [*_bad_headers(kind, link), *_bad_macs(kind, link)]:
            yield {**_about(name, kind, link), **refused}
    link = links_of(kind)[0]
    for name, refused in [*_bad_bodies(kind, link), *_bad_roles(kind, link)]:
        yield {**_about(name, kind, link), **refused}


def _bad_headers(kind: Kind, link: str) -> Iterator[tuple[str, dict[str, Any]]]:
    message = next(iter(variants(kind, link).values()))
    body, correlation_id, key = encode(message), correlation_id_of(message), link_key_of(link)

    def refused(code: ErrorCode, path: str, **wrong: Any) -> dict[str, Any]:
        frame = frame_bytes(kind, body, correlation_id, key, **wrong)
        return _refused(code, path, frame, header_suffices=path != "checksum")

    usual_flags = 0 if key is None else _AUTHENTICATED
    size_min, size_max = body_size_range(kind)
    yield "magic_first_byte", refused(ErrorCode.BAD_MAGIC, "magic", magic=b"QG")
    yield "magic_second_byte", refused(ErrorCode.BAD_MAGIC, "magic", magic=b"Pg")
    for version in (0, 2, 255):
        yield f"version_{version}", refused(ErrorCode.UNSUPPORTED_VERSION, "version", version=version)
    for flag in (0x0002, 0x8000):
        yield f"flag_{flag:04x}", refused(ErrorCode.UNKNOWN_FLAG, "flags", flags=usual_flags | flag)
    for size in sorted({0, size_min - 1}):
        yield f"body_of_{size}", refused(ErrorCode.BODY_TOO_SMALL, "body_size", body_size=size)
    for size in (size_max + 1, 0xFFFF):
        yield f"body_of_{size}", refused(ErrorCode.BODY_TOO_LARGE, "body_size", body_size=size)
    yield "checksum_one_bit", refused(ErrorCode.BAD_CHECKSUM, "checksum", checksum_xor=1)
    yield "checksum_inverted", refused(ErrorCode.BAD_CHECKSUM, "checksum", checksum_xor=0xFFFFFFFF)


def _bad_macs(kind: Kind, link: str) -> Iterator[tuple[str, dict[str, Any]]]:
    message = next(iter(variants(kind, link).values()))
    body, correlation_id = encode(message), correlation_id_of(message)
    if link == "client":
        frame = frame_bytes(kind, body, correlation_id, LINK_KEY)
        yield "mac", _refused(ErrorCode.UNEXPECTED_MAC, "flags", frame, header_suffices=True)
        return
    frame = frame_bytes(kind, body, correlation_id, None)
    yield "no_mac", _refused(ErrorCode.NOT_AUTHENTICATED, "flags", frame, header_suffices=True)
    frame = frame_bytes(kind, body, correlation_id, LINK_KEY, mac_xor=1)
    yield "mac_one_bit", _refused(ErrorCode.BAD_MAC, "", frame)
    frame = frame_bytes(kind, body, correlation_id, fixed_bytes("another link key"))
    yield "mac_of_another_key", _refused(ErrorCode.BAD_MAC, "", frame)
    # The checksum is right again, as whoever changes a frame on the way would make it.
    changed = frame_bytes(kind, body, correlation_id + 1, None, flags=_AUTHENTICATED)
    mac = frame_bytes(kind, body, correlation_id, LINK_KEY)[-limits.MAC_SIZE :]
    yield "mac_of_another_correlation_id", _refused(ErrorCode.BAD_MAC, "", changed + mac)


def _bad_bodies(kind: Kind, link: str) -> Iterator[tuple[str, dict[str, Any]]]:
    size_min, size_max = body_size_range(kind)
    # With its fields at their least a body has room for one that is too long, and with the usual ones for one that
    # is too short; where neither helps, the header is refused already, which `_bad_headers` shows.
    usual = variants(kind, link)
    ends = {name: message for name, message in with_ends(usual).items() if name not in usual}
    bases = [*(m for name, m in ends.items() if name.endswith("_least")), *usual.values()]
    correlation_id = correlation_id_of(bases[0])
    found: dict[str, dict[str, Any]] = {}

    def add(code: ErrorCode, fault: Fault) -> None:
        name = f"{fault.path}/{fault.name}" if fault.path else fault.name
        if size_min <= len(fault.data) <= size_max and name not in found:
            frame = frame_bytes(kind, fault.data, correlation_id, link_key_of(link))
            found[name] = _refused(code, fault.path, frame)

    for base in bases:
        for fault in illegal_values(base):
            # A field that must be empty here would be wrong already for not being empty.
            if is_set(getattr(base, fault.path.split(".")[0])):
                add(ErrorCode.BAD_VALUE, fault)
    for fault in broken_rules(usual.values(), DONORS.get(kind, ())):
        add(ErrorCode.BAD_VALUE, Fault(fault.path, f"rule_{fault.name}", fault.data))
    # A body that is cut early must still have the least size of its kind, which only a large one has.
    for base in [*bases, *ends.values()]:
        for fault in cuts(base):
            add(ErrorCode.TRUNCATED_FIELD, fault)
    for base in bases:
        add(ErrorCode.TRAILING_BYTES, Fault("", "trailing_byte", encode(base) + b"\0"))
    yield from found.items()


def _bad_roles(kind: Kind, link: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Spec 5.1: the role must be the one expected on this port; only Hello and HelloAck have one."""
    message = variants(kind, link)["usual"] if kind in (Kind.HELLO, Kind.HELLO_ACK) else None
    if message is None:
        return
    expected, _ = ends_of(kind, link)
    for role in Role:
        if role is not expected:
            body = encode(with_field(message, "role", role))
            frame = frame_bytes(kind, body, correlation_id_of(message), link_key_of(link))
            yield f"role/{role.name.lower()}", _refused(ErrorCode.BAD_VALUE, "role", frame)


def _unknown_kinds() -> Iterator[dict[str, Any]]:
    known = {int(kind) for kind in Kind}
    beside = {number + step for number in known for step in (-1, 1)} | {0x22, 0x23, 0xA2, 0xA3, 0x6F, 0xEF}
    for number in sorted(n for n in beside - known if n <= 0xFF):
        yield _of_kind(number, "", [ErrorCode.UNKNOWN_KIND], bytes(8))
    for kind in Kind:
        if kind not in SOCKET_KINDS:
            # Spec 4.2: it belongs to pipes; a receiver may know it or not.
            body = bytes(body_size_range(kind)[0])
            errors = [ErrorCode.UNEXPECTED_MESSAGE, ErrorCode.UNKNOWN_KIND]
            yield _of_kind(kind, MESSAGES[kind].__name__, errors, body)


def _of_kind(number: int, name: str, errors: list[ErrorCode], body: bytes) -> dict[str, Any]:
    return {
        "name": f"kind_{number:02x}/client/{name or 'unknown'}",
        "kind": {"code": number, "name": name},
        "link": "client",
        "sender": "client",
        "receiver": "gateway",
        **_refused(errors[0], "kind", frame_bytes(number, body, _REQUEST_CORRELATION_ID, None), header_suffices=True),
        "errors": [json_of_code(code) for code in errors],
    }
