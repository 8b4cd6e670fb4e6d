"""What one end of a link refuses of the other, beyond what a frame's own layout says (spec 5.2, 5.3)."""

from collections.abc import Callable

from paygate.codec import limits
from paygate.codec.codes import Kind, Role, Route
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import Frame, FrameHead
from paygate.codec.messages import MESSAGES, Error, Hello, HelloAck
from paygate.link_states import TRANSITIONS, LinkState, input_of, kinds_taken

KeyOf = Callable[[str], bytes | None]
"""The link key shared with a gateway of that ID, or None for a stranger."""


def check_head(
    head: FrameHead, state: LinkState, role: Role, peer_role: Role, *, is_caller: bool, has_mac: bool
) -> None:
    """Check a frame from its header alone, before any cryptography. Raises RemoteProtocolError.

    role, is_caller: of the end that receives it. has_mac: whether frames of this link have MACs.
    """
    kind = head.kind
    if head.is_authenticated and not has_mac:
        raise RemoteProtocolError(ErrorCode.UNEXPECTED_MAC, "flags", "no MAC on this link")
    # Only the bank's complaint about our Hello may come without a MAC: it may not know our key (spec 5.2).
    is_complaint = state is LinkState.WAIT_HELLO_ACK and kind is Kind.ERROR
    if has_mac and not head.is_authenticated and not is_complaint:
        raise RemoteProtocolError(ErrorCode.NOT_AUTHENTICATED, "flags", "a MAC on every frame of this link")
    if kind in kinds_taken(state, role, peer_role, is_caller=is_caller):
        return
    if MESSAGES[kind].route is Route.PIPE:  # Spec 4.2; replies too, and before their bodies are awaited.
        expected = "a kind that travels on sockets"
    elif input_of(kind) not in TRANSITIONS[state]:
        expected = "another message in this state"
    else:
        expected = f"what {peer_role.name} may ask {role.name}"
    raise RemoteProtocolError(ErrorCode.UNEXPECTED_MESSAGE, "kind", expected)


def proven_key(frame: Frame, party_id: str, key_of: KeyOf) -> bytes:
    """The link key of the gateway that says Hello with this frame, and has it. Raises RemoteProtocolError."""
    link_key = key_of(party_id)
    if link_key is None:
        raise RemoteProtocolError(ErrorCode.UNKNOWN_PARTY, "party_id", "a gateway that this bank knows")
    frame.check_mac(link_key)
    return link_key


def check_hello(hello: Hello, peer_role: Role) -> None:
    """Check that a caller is who it must be, and speaks our version. Raises RemoteProtocolError."""
    if hello.role is not peer_role:
        raise RemoteProtocolError(ErrorCode.BAD_VALUE, "role", peer_role.name)
    if limits.PROTOCOL_VERSION not in hello.versions:
        raise RemoteProtocolError(ErrorCode.NO_COMMON_VERSION, "versions", str(limits.PROTOCOL_VERSION))


def check_hello_ack(ack: HelloAck, peer_role: Role) -> None:
    """Check that who answers is who it must be, and chose our version. Raises RemoteProtocolError."""
    if ack.role is not peer_role:
        raise RemoteProtocolError(ErrorCode.BAD_VALUE, "role", peer_role.name)
    if ack.version != limits.PROTOCOL_VERSION:
        raise RemoteProtocolError(ErrorCode.NO_COMMON_VERSION, "version", str(limits.PROTOCOL_VERSION))


def error_message(code: ErrorCode, text: str) -> Error:
    """What a peer is told; characters that may not stand on the wire become question marks."""
    safe = "".join(c if " " <= c <= "~" else "?" for c in text)[: limits.ERROR_TEXT_SIZE_MAX]
    return Error(code=code, closes=code.closes, text=safe)
