"""Who stands where in a sequence diagram: clients left, gateways in the middle, banks right, strangers behind them.

What an end is comes from its flow (Hello, HelloAck or what it sends), else from the message, which travels only between
two roles, else from the address that it connected to: a port that another connection went to, or a default port.

A gateway or a bank is one party, by its ID, however many connections it has. A client's ID is free and means nothing
(spec 5.1), so each connection is a client of its own.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from paygate.codec.codes import REPLY_BIT, Kind, Role, Route
from paygate.codec.messages import MESSAGES, Hello, HelloAck
from paygate.dump.model import Endpoint, Flow, Side
from paygate.escape import escape_line

LIFELINES_PER_ROLE_MAX: Final = 4
"""More of one role stand on one lifeline together: a diagram with more than a dozen lines can't be read."""
ANSWERERS_MAX: Final = 1_024
"""Addresses whose connections' roles are remembered; more gateways and banks than one capture holds."""


class Ends(NamedTuple):
    """The roles of a sender and a receiver."""

    sender: Role
    receiver: Role

    @property
    def swapped(self) -> "Ends":
        """The way back."""
        return Ends(self.receiver, self.sender)


_ROUTES: Final = {
    Route.CLIENT_TO_GATEWAY: Ends(Role.CLIENT, Role.GATEWAY),
    Route.GATEWAY_TO_BANK: Ends(Role.GATEWAY, Role.BANK),
}
_CALLERS: Final = {Role.CLIENT: _ROUTES[Route.CLIENT_TO_GATEWAY], Role.GATEWAY: _ROUTES[Route.GATEWAY_TO_BANK]}
_ANSWERERS: Final = {ends.receiver: ends for ends in _CALLERS.values()}
_PORTS: Final = {15000: _CALLERS[Role.CLIENT], 15001: _CALLERS[Role.GATEWAY]}
"""Where a gateway and a bank listen unless they are told otherwise."""


def ends_of_kind(kind: Kind) -> Ends | None:
    """Between whom a message of this kind travels; None if it may be on any link."""
    ends = _ROUTES.get(MESSAGES[kind].route)
    return ends.swapped if ends is not None and kind & REPLY_BIT else ends


def ends_of_hello(message: Hello | HelloAck) -> Ends | None:
    """Who says it to whom, by the role in it; None for a role that can't be."""
    if isinstance(message, Hello):
        return _CALLERS.get(message.role)
    ends = _ANSWERERS.get(message.role)
    return ends.swapped if ends is not None else None


class Roles:
    """Knows what the ends of flows are, the better the more of them it has seen."""

    def __init__(self) -> None:
        self._by_answerer: dict[Endpoint, Ends] = {}

    def ends(self, flow: Flow, side: Side, told: Ends | None) -> Ends | None:
        """Who sends to whom when `side` of the flow sends; `told` is what the message itself tells.

        None if nobody knows, or if the two can't have a link.
        """
        if told is not None and not flow.knows_sides:
            return told
        ends = self._from_flow(flow)
        if ends is None and told is not None and flow.roles == [None, None]:
            return told
        if ends is None:
            ends = self._from_address(flow)
        return ends if ends is None or side is Side.CALLER else ends.swapped

    def _from_flow(self, flow: Flow) -> Ends | None:
        caller, answerer = flow.roles
        ends = (
            _CALLERS.get(caller) if caller is not None else _ANSWERERS.get(answerer) if answerer is not None else None
        )
        if ends is None or answerer not in (None, ends.receiver):
            return None
        if len(self._by_answerer) < ANSWERERS_MAX:
            self._by_answerer[flow.answerer] = ends
        return ends

    def _from_address(self, flow: Flow) -> Ends | None:
        if flow.roles != [None, None]:
            return None
        return self._by_answerer.get(flow.answerer) or _PORTS.get(flow.answerer.port)


class Lifeline(NamedTuple):
    """One vertical line of a diagram."""

    role: Role | None
    """None: a stranger."""
    name: str
    """A gateway's or bank's ID, empty if unknown; a client's connection; a stranger's address."""


class Lifelines:
    """All lifelines of a diagram that is drawn when everything has been seen."""

    def __init__(self, crossings: Iterable[tuple[Lifeline, Lifeline]]) -> None:
        by_role: dict[Role | None, dict[Lifeline, None]] = {role: {} for role in (*Role, None)}
        for crossing in crossings:
            for line in crossing:
                by_role[line.role].setdefault(line, None)
        self.labels: list[str] = []
        self._columns: dict[Lifeline, int] = {}
        for role, lines in by_role.items():
            self._add(role, list(lines))

    def column(self, line: Lifeline) -> int:
        """Which column, from 0, the lifeline has."""
        return self._columns[line]

    def _add(self, role: Role | None, lines: list[Lifeline]) -> None:
        named = [line for line in lines if line.name]
        # A party that never said its ID is the only one of its role that did.
        kept = named if len(named) == 1 else lines
        word = role.name.lower() if role is not None else "stranger"
        if len(kept) > LIFELINES_PER_ROLE_MAX:
            self._columns.update(dict.fromkeys(lines, len(self.labels)))
            self.labels.append(f"{len(kept)} {word}s")
            return
        for line in kept:
            self._columns[line] = len(self.labels)
            self.labels.append(_label(line, word, is_only=len(kept) == 1))
        for line in lines:
            self._columns.setdefault(line, self._columns[kept[0]])


def _label(line: Lifeline, word: str, *, is_only: bool) -> str:
    if line.role is None:
        return escape_line(line.name)
    if not line.name or (line.role is Role.CLIENT and is_only):
        return word
    return escape_line(f"{word} {line.name}")


def lifelines_of(flow: Flow, side: Side, ends: Ends | None) -> tuple[Lifeline, Lifeline]:
    """Sender's and receiver's lifeline; without ends both are strangers with an address."""
    if ends is None:
        return (
            Lifeline(None, str(flow.endpoint(side))),
            Lifeline(None, str(flow.endpoint(side.other))),
        )
    return _lifeline(flow, side, ends.sender), _lifeline(flow, side.other, ends.receiver)


def _lifeline(flow: Flow, side: Side, role: Role) -> Lifeline:
    if role is Role.CLIENT:
        return Lifeline(role, f"#{flow.number}")
    # Where the input does not tell the sides, the IDs of two links may have come by in one flow.
    return Lifeline(role, flow.party_ids[side] if flow.knows_sides else "")
