"""What a receiver would refuse on a link, judged from outside (spec 4.4, 5.1 to 5.3), and what is known of each link.

What the protocol forbids is a fault only where the capture proves it: of a flow whose beginning was not seen, or in
which bytes are missing or were no frames, nobody can say that a frame was never sent.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from paygate.codec.codes import Kind, Role, Route
from paygate.codec.errors import ErrorCode
from paygate.codec.limits import HEADER_SIZE
from paygate.codec.messages import MESSAGES, Hello, HelloAck
from paygate.dump.findings import HEADER_PLACES
from paygate.dump.model import Finding, Flow, FlowKind, SeenFrame, Side


class Traits(NamedTuple):
    """What the declaration of a kind says of who may send it."""

    is_request: bool
    is_of_pipes: bool
    sender: Role | None
    """The one role that sends it; None if several may."""
    receiver: Role | None
    is_from_caller: bool
    """If it is a request, it is one of the end that connected, whichever role that has."""
    reply: Kind | None
    tells_ends: bool
    """Whether it shows what its sender and receiver are."""


_ENDS: Final = {
    Route.CLIENT_TO_GATEWAY: (Role.CLIENT, Role.GATEWAY),
    Route.GATEWAY_TO_BANK: (Role.GATEWAY, Role.BANK),
}
_ANSWERING_ROLE: Final = dict(_ENDS.values())
_CALLING_ROLE: Final = {answering: calling for calling, answering in _ENDS.values()}


def _traits_of(kind: Kind) -> Traits:
    route = MESSAGES[kind].route
    is_request = not kind.is_reply and kind is not Kind.ERROR
    sender, receiver = _ENDS.get(route, (None, None))
    if kind.is_reply:
        sender, receiver = receiver, sender
    return Traits(
        is_request=is_request,
        is_of_pipes=route is Route.PIPE,
        sender=sender,
        receiver=receiver,
        is_from_caller=route is Route.CALLER,
        reply=kind.reply if is_request else None,
        tells_ends=sender is not None or kind in (Kind.HELLO, Kind.HELLO_ACK),
    )


TRAITS: Final = {kind: _traits_of(kind) for kind in Kind}
REPLY_KINDS: Final = tuple(kind for kind in Kind if kind.is_reply)


class Fault(NamedTuple):
    """What a receiver would refuse a frame for."""

    code: ErrorCode
    path: str
    expected: str
    got: str
    section: str


Key = tuple[int, int]
"""What a request waits under: its sender's side and its correlation ID; without sides its reply's kind instead."""


class LinkSeen:
    """What is known of one flow."""

    __slots__ = (
        "asked_index",
        "closed_by",
        "has_frames",
        "is_hello_seen",
        "is_mac_told",
        "is_open",
        "is_opened",
        "is_whole",
        "lost_index",
        "waiting",
    )

    def __init__(self) -> None:
        self.is_opened = False  # it was seen who connected
        self.is_whole = False  # every frame since its beginning was seen
        self.has_frames = False
        self.is_hello_seen = False
        self.is_open = False  # HelloAck was seen
        self.is_mac_told = False  # once a flow: all of its frames have the same fault
        self.closed_by = [False, False]  # by side: it sent an Error that closes
        self.waiting: OrderedDict[Key, SeenFrame] = OrderedDict()
        self.asked_index = 0  # the index of the latest request
        self.lost_index = [0, 0]  # by side: what that was when bytes of the side were last missing, or no frames

    def lose(self, side: Side | None) -> None:
        """Bytes of this side were missing or no frame: replies to all requests so far may have been in them.

        None: of both, where nobody knows the sides.
        """
        for lost_side in (0, 1) if side is None else (side,):
            self.lost_index[lost_side] = self.asked_index

    @property
    def unanswered(self) -> list[SeenFrame]:
        """The requests that wait, except those whose replies the capture may lack, in order."""
        return [request for request in self.waiting.values() if request.index > self.lost_index[1 - request.side]]


# -- what a frame tells of its ends ----------------------------------------------------------------------


def learn_ends(flow: Flow, frame: SeenFrame, traits: Traits) -> None:
    """Set the roles and party IDs of a flow by a frame whose `traits.tells_ends`."""
    side = frame.side
    message = frame.message
    roles = flow.roles
    if type(message) is Hello:
        # The other end's role is only what such a caller calls, until it says so itself.
        roles[side], roles[1 - side] = message.role, _ANSWERING_ROLE.get(message.role)
        flow.party_ids[side], flow.party_ids[1 - side] = message.party_id, ""
    elif type(message) is HelloAck:
        roles[side] = message.role
        flow.party_ids[side] = message.party_id
        if roles[1 - side] is None:
            roles[1 - side] = _CALLING_ROLE.get(message.role)
    elif traits.sender is not None and (roles[side] is None or not flow.knows_sides):
        if roles[side] is not traits.sender:
            flow.party_ids[:] = ["", ""]
        roles[side], roles[1 - side] = traits.sender, traits.receiver


# -- what a receiver would refuse ------------------------------------------------------------------------


def state_fault(link: LinkSeen, frame: SeenFrame, traits: Traits) -> Fault | None:
    """What is wrong with a frame on this link in this state, in the order of the error codes."""
    roles = frame.flow.roles
    side = frame.side
    sender = roles[side]
    kind = frame.frame.kind
    if sender is not None and not link.is_mac_told:
        is_bank_link = sender is Role.BANK or roles[1 - side] is Role.BANK
        if is_bank_link is not bool(frame.frame.mac) and (link.is_open or kind is not Kind.ERROR or not is_bank_link):
            # Until the bank has authenticated Hello, its Errors have no MAC (PG-MAC-4).
            link.is_mac_told = True
            return _mac_fault(is_bank_link=is_bank_link)
    if traits.is_of_pipes:
        if frame.flow.kind is FlowKind.TCP:
            return unexpected("a kind that travels on sockets", kind_name(kind), "4.2")
    elif link.closed_by[side]:
        return unexpected("nothing after an Error that closes", kind_name(kind), "5.6")
    elif kind is Kind.HELLO or kind is Kind.HELLO_ACK:
        return _hello_fault(link, frame)
    elif not link.is_open and kind is not Kind.ERROR and link.is_whole:
        if not link.is_hello_seen:
            link.is_whole = False  # Told once: it goes on without.
            return unexpected("Hello, the first frame of every link", kind_name(kind), "5.1")
        return unexpected("nothing between Hello and HelloAck", kind_name(kind), "5.1")
    elif traits.is_request and sender is not None and _is_wrong_sender(roles, side, traits):
        return unexpected(MESSAGES[kind].route.value, f"{kind_name(kind)} from the {sender.name.lower()}", "4.2")
    return None


def _is_wrong_sender(roles: list[Role | None], side: Side, traits: Traits) -> bool:
    if traits.sender is not None:
        return roles[side] is not traits.sender
    receiver = roles[1 - side]
    # Of a client and a gateway, and of a gateway and a bank, the one with the lower number connects.
    return traits.is_from_caller and receiver is not None and (roles[side] or 0) > receiver


def _hello_fault(link: LinkSeen, frame: SeenFrame) -> Fault | None:
    message = frame.message
    if frame.frame.kind is Kind.HELLO:
        was_seen, link.is_hello_seen = link.is_hello_seen, True
        if was_seen and link.is_whole:
            return unexpected("one Hello in a link", "another", "5.3")
        if link.is_opened and frame.side is Side.ANSWERER:
            return unexpected("Hello from the end that connected", "Hello from the other", "5.1")
        if type(message) is Hello and message.role not in _ANSWERING_ROLE:
            return Fault(ErrorCode.BAD_VALUE, "role", "CLIENT or GATEWAY, who connect", message.role.name, "5.1")
    elif type(message) is HelloAck:
        caller = frame.flow.roles[1 - frame.side]
        expected = _ANSWERING_ROLE.get(caller) if caller is not None else None
        if expected is not None and message.role is not expected:
            return Fault(ErrorCode.BAD_VALUE, "role", expected.name, message.role.name, "5.1")
    return None


def _mac_fault(*, is_bank_link: bool) -> Fault:
    if is_bank_link:
        return Fault(ErrorCode.NOT_AUTHENTICATED, "flags", "a MAC on every frame of a bank link", "none", "4.4")
    return Fault(ErrorCode.UNEXPECTED_MAC, "flags", "no MAC on a client link", "one", "4.4")


def unexpected(expected: str, got: str, section: str) -> Fault:
    """A message that is not allowed in this state or from this end."""
    return Fault(ErrorCode.UNEXPECTED_MESSAGE, "kind", expected, got, section)


def kind_name(kind: Kind) -> str:
    """As the spec writes it: TokenQuery."""
    return MESSAGES[kind].__name__


def finding_of(frame: SeenFrame, fault: Fault) -> Finding:
    """The finding of a frame that a receiver would refuse."""
    in_header = HEADER_PLACES.get(fault.path)
    return Finding(
        name=fault.code.name,
        expected=fault.expected,
        got=fault.got,
        section=fault.section,
        number=frame.number,
        time_ns=frame.time_ns,
        flow=frame.flow,
        side=frame.side,
        # `role`, the only field of a body that is judged here, is the first of its body.
        offset=frame.offset + (HEADER_SIZE if in_header is None else in_header[0]),
        path=fault.path,
        frame_offset=frame.offset,
    )
