"""Links in memory: delay, pieces, loss of a connection, a cut after any byte, stalls, machines that are not there.

A `Node` is whatever speaks on the network: a server's process, a client's program, an evil one. It connects with
`network.connect(node, name, target)` or is connected to after `network.listen(address, node)`, and then gets, for each
of its `End`s,

    on_connected(end)        the connection is up; `end.send(data)` from here on
    on_data(end, data)       bytes came, cut anywhere
    on_eof(end)              the peer sends no more; answer with `end.close_after_flush()`
    on_closed(end, reason)   the connection is gone, or never came up; always the last

Timers are `network.agenda.later(us, act)`. A stream keeps its order and loses nothing while its connection lives, as
TCP's does; what is on its way when a connection breaks may be lost at either end.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sim.agenda import SECOND, Agenda

CONNECT_TIMEOUT_US: Final = 3 * SECOND
"""What the real shells give a connection to come up."""
SILENT_US_MAX: Final = 60 * SECOND
"""T26: so long at most a peer whose machine is gone keeps a link."""
PIECE_COUNT_MAX: Final = 12
"""Into how many pieces one send is cut at most."""


class Node(Protocol):
    """Whoever has ends of connections."""

    name: str

    def on_connected(self, end: "End") -> None:
        """One of its connections is up, whoever asked for it."""

    def on_data(self, end: "End", data: bytes) -> None:
        """Bytes came."""

    def on_eof(self, end: "End") -> None:
        """The peer sends no more."""

    def on_closed(self, end: "End", reason: str) -> None:
        """The connection is gone or never came up; nothing more is told of it."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How a connection carries what is sent."""

    delay_us: int
    """The least."""
    jitter_us: int
    """How much more at most, drawn for each piece."""
    piece_probability: float
    """That a send is cut into pieces."""


FAIR: Final = Weather(200, 300, 0.0)


class End:
    """One end of a connection; what the tick calls a connection."""

    __slots__ = (
        "_arriving",
        "_cut_after",
        "_cut_why",
        "_is_paused",
        "_is_scheduled",
        "_last_us",
        "_network",
        "_stalled_until_us",
        "is_closed",
        "is_open",
        "link_name",
        "node",
        "number",
        "peer",
    )

    def __init__(self, network: "Network", node: Node, link_name: str, number: int) -> None:
        self.node = node
        self.link_name = link_name
        """Such as `GW1>BANK1#2`: who called whom, and how often before."""
        self.number = number
        self.peer: End | None = None
        self.is_open = False
        """Whether it can send and receive."""
        self.is_closed = False
        """Whether its node has been told that it is gone, or is gone itself."""
        self._network = network
        self._arriving: deque[tuple[int, bytes | None]] = deque()  # None is the end of the stream
        self._is_scheduled = False
        self._last_us = 0
        self._is_paused = False
        self._stalled_until_us = 0
        self._cut_after: int | None = None
        self._cut_why = ""

    # -- what its node does ----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Put bytes on their way. On an end that is closing they are dropped."""
        if self.is_open and data:
            self._network.carry(self, data)

    def close_after_flush(self, detail: str = "") -> None:
        """Take nothing more in, let what was sent arrive, then close."""
        if self.is_open:
            self._network.close(self)

    def abort(self) -> None:
        """Break the connection."""
        if not self.is_closed:
            self._network.reset(self)

    def pause_reading(self) -> None:
        """Leave what comes where it is."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Go on."""
        self._is_paused = False
        self._schedule()

    # -- what happens to it ----------------------------------------------------------------------------

    def take(self, data: bytes | None, at_us: int) -> None:
        """Have this arrive, not before what was sent earlier."""
        self._last_us = max(at_us, self._last_us)
        self._arriving.append((self._last_us, data))
        self._schedule()

    def drop_arriving(self) -> None:
        """What is on its way is lost."""
        self._arriving.clear()

    def stall(self, until_us: int) -> None:
        """Nothing arrives here until then; it comes later."""
        self._stalled_until_us = max(self._stalled_until_us, until_us)

    def heal(self) -> None:
        """Nothing is cut here, and what stands still comes."""
        self._cut_after = None
        self._stalled_until_us = 0
        if self.is_open and self._arriving:
            self._network.agenda.at(self._arriving[0][0], self._arrive)

    def cut_after(self, size: int, why: str) -> None:
        """Break the connection when so many more bytes have arrived here; `why` is what that is counted as."""
        self._cut_after, self._cut_why = size, why

    def _schedule(self) -> None:
        if self._arriving and self.is_open and not self._is_scheduled and not self._is_paused:
            self._is_scheduled = True
            self._network.agenda.at(max(self._arriving[0][0], self._stalled_until_us), self._arrive)

    def _arrive(self) -> None:
        self._is_scheduled = False
        now_us = self._network.agenda.now_us
        while self._arriving and self.is_open and not self._is_paused:
            at_us, data = self._arriving[0]
            if max(at_us, self._stalled_until_us) > now_us:
                break
            self._arriving.popleft()
            if data is None:
                self.node.on_eof(self)
            elif self._cut_after is None or len(data) <= self._cut_after:
                if self._cut_after is not None:
                    self._cut_after -= len(data)
                self.node.on_data(self, data)
            else:
                before, self._cut_after = data[: self._cut_after], None
                self._network.count(self._cut_why)
                if before:
                    self.node.on_data(self, before)
                self.abort()
        self._schedule()


class Network:
    """All connections, and what is on its way in them."""

    def __init__(
        self,
        agenda: Agenda,
        randomness: Callable[[str], random.Random],
        weather: Callable[[random.Random], Weather],
        on_sent: Callable[[End, bytes], None],
        count: Callable[[str], None],
    ) -> None:
        """`randomness(name)` gives a source of its own; `weather` draws how a connection will be.

        `on_sent` hears of all that is sent, before it is on its way; `count` of each cut.
        """
        self.count = count
        self.agenda = agenda
        self.live: dict[int, End] = {}
        """Callers' ends of connections that are up or coming up, by number, oldest first."""
        self._randomness = randomness
        self._weather = weather
        self._on_sent = on_sent
        self._listeners: dict[str, Node] = {}
        self._unreachable_until_us: dict[str, int] = {}
        # Of connections that come: to whom, which way, after how much, and as what it is counted.
        self._cuts: list[tuple[str, bool, int, str]] = []
        self._call_counts: dict[str, int] = {}
        self._count = 0
        self._weathers: dict[int, tuple[Weather, random.Random]] = {}

    # -- what nodes do ---------------------------------------------------------------------------------

    def listen(self, address: str, node: Node) -> None:
        """Connections to this address are the node's from now on."""
        self._listeners[address] = node

    def stop_listening(self, address: str) -> None:
        """Connections to this address are refused from now on."""
        self._listeners.pop(address, None)

    def connect(self, node: Node, target: str) -> End:
        """Ask for a connection: `on_connected` or `on_closed` follows."""
        name = f"{node.name}>{target}"
        count = self._call_counts[name] = self._call_counts.get(name, 0) + 1
        self._count += 1
        end = End(self, node, f"{name}#{count}", self._count)
        source = self._randomness(end.link_name)
        self._weathers[end.number] = (self._weather(source), source)
        self.live[end.number] = end
        if self._is_unreachable(target):
            self.agenda.later(CONNECT_TIMEOUT_US, lambda: self._finish(end, f"{target} does not answer"))
        else:
            self.agenda.later(self._delay_us(end), lambda: self._accept(end, target))
        return end

    # -- what ends do ----------------------------------------------------------------------------------

    def carry(self, end: End, data: bytes) -> None:
        """Bytes leave an end, whole or in pieces, and arrive at its peer."""
        self._on_sent(end, data)
        peer = end.peer
        if peer is None or peer.is_closed:
            return
        weather, source = self._weathers[end.number]
        pieces = [data]
        if weather.piece_probability and source.random() < weather.piece_probability:
            count = source.randint(1, PIECE_COUNT_MAX - 1)
            places = sorted({source.randrange(len(data)) for _ in range(count)} - {0})
            pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
        for piece in pieces:
            peer.take(piece, self.agenda.now_us + self._delay_us(end))

    def close(self, end: End) -> None:
        """The end takes nothing more; its peer hears of it after what was sent."""
        end.is_open = False
        end.drop_arriving()
        peer = end.peer
        delay_us = self._delay_us(end)
        if peer is not None and not peer.is_closed:
            peer.take(None, self.agenda.now_us + delay_us)
        self.agenda.later(2 * delay_us, lambda: self._finish(end, "closed by us"))

    def reset(self, end: End) -> None:
        """The connection breaks at both ends, which hear of it in their time."""
        for one in (end, end.peer):
            if one is not None and not one.is_closed:
                one.is_open = False
                one.drop_arriving()
                self.agenda.later(self._delay_us(end), lambda one=one: self._finish(one, "reset by peer"))  # type: ignore[misc]

    # -- what happens to them --------------------------------------------------------------------------

    def vanish(self, node: Node, *, is_silent: bool, source: random.Random) -> None:
        """A node has died: its system tells the peers, or if the machine went with it, nobody does."""
        for end in [e for caller in self.live.values() for e in (caller, caller.peer) if e is not None]:
            if end.node is not node or end.is_closed:
                continue
            end.is_open, end.is_closed = False, True
            end.drop_arriving()
            peer = end.peer
            self._forget(end)
            if peer is None or peer.is_closed:
                continue
            if source.random() < 0.5:
                peer.drop_arriving()
            silent_us = source.randrange(SILENT_US_MAX) if is_silent else 0
            self.agenda.later(silent_us + self._delay_us(end), lambda peer=peer: self.reset(peer))  # type: ignore[misc]

    def make_unreachable(self, target: str, until_us: int) -> None:
        """Nothing comes or goes at this address until then."""
        self._unreachable_until_us[target] = max(until_us, self._unreachable_until_us.get(target, 0))
        for end in self.live.values():
            if end.link_name.split("#")[0].endswith(f">{target}"):
                for one in (end, end.peer):
                    if one is not None:
                        one.stall(until_us)

    def cut_next(self, target: str, *, is_to_caller: bool, after: int, why: str) -> None:
        """The next connection to this address breaks when so many bytes have come at one of its ends."""
        self._cuts.append((target, is_to_caller, after, why))

    def heal(self) -> None:
        """Every address is reachable, nothing is about to be cut, and the weather is fair."""
        self._unreachable_until_us.clear()
        self._cuts.clear()
        self._weather = lambda source: FAIR
        for number, (_, source) in self._weathers.items():
            self._weathers[number] = (FAIR, source)
        for caller in self.live.values():
            for end in (caller, caller.peer):
                if end is not None:
                    end.heal()

    # -- inside ----------------------------------------------------------------------------------------

    def _is_unreachable(self, target: str) -> bool:
        return self._unreachable_until_us.get(target, 0) > self.agenda.now_us

    def _delay_us(self, end: End) -> int:
        weather, source = self._weathers.get(end.number, (FAIR, None))
        return weather.delay_us + (source.randrange(weather.jitter_us) if source and weather.jitter_us else 0)

    def _accept(self, end: End, target: str) -> None:
        if end.is_closed:
            return
        node = self._listeners.get(target)
        if node is None:
            self._finish(end, f"{target} refuses connections")
            return
        peer = End(self, node, end.link_name, end.number)
        end.peer, peer.peer = peer, end
        peer.is_open = True
        for cut in [c for c in self._cuts if c[0] == target][:1]:
            self._cuts.remove(cut)
            (end if cut[1] else peer).cut_after(cut[2], cut[3])
        node.on_connected(peer)
        self.agenda.later(self._delay_us(end), lambda: self._come_up(end))

    def _come_up(self, end: End) -> None:
        if not end.is_closed and end.peer is not None:
            end.is_open = True
            end.node.on_connected(end)
            end._schedule()  # the peer may have spoken first

    def _finish(self, end: End, reason: str) -> None:
        if end.is_closed:
            return
        end.is_open, end.is_closed = False, True
        self._forget(end)
        end.node.on_closed(end, reason)

    def _forget(self, end: End) -> None:
        if end.peer is None or end.peer.is_closed:
            self.live.pop(end.number, None)
            self._weathers.pop(end.number, None)
