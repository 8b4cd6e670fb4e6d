"""The network in memory: order, pieces, cuts, stalls, and ends of those who die."""

import random
from collections.abc import Callable

import pytest
from sim.agenda import MS, SECOND, Agenda, MachineClock
from sim.network import CONNECT_TIMEOUT_US, FAIR, SILENT_US_MAX, End, Network, Weather

from paygate.clock import Now

DRIPPING = Weather(5 * MS, 50 * MS, 1.0)


class Peer:
    """A node that notes what it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ends: list[End] = []
        self.got = b""
        self.piece_count = 0
        self.story: list[str] = []

    def on_connected(self, end: End) -> None:
        self.ends.append(end)
        self.story.append("connected")

    def on_data(self, end: End, data: bytes) -> None:
        self.got += data
        self.piece_count += 1

    def on_eof(self, end: End) -> None:
        self.story.append("eof")
        end.close_after_flush()

    def on_closed(self, end: End, reason: str) -> None:
        self.story.append(reason)


class Place:
    """A caller, a server, and what is between them."""

    def __init__(self, weather: Weather = FAIR) -> None:
        self.agenda = Agenda()
        self.sent: list[bytes] = []
        self.counted: list[str] = []
        self.network = Network(
            self.agenda,
            random.Random,
            lambda source: weather,
            lambda end, data: self.sent.append(data),
            self.counted.append,
        )
        self.caller, self.server = Peer("caller"), Peer("server")
        self.network.listen("server", self.server)

    def connect(self) -> tuple[End, End]:
        self.network.connect(self.caller, "server")
        self.run()
        return self.caller.ends[-1], self.server.ends[-1]

    def run(self, us: int = 5 * SECOND) -> None:
        self.agenda.run_until(self.agenda.now_us + us)


def test_what_is_sent_arrives_in_order_whatever_pieces_it_comes_in() -> None:
    place = Place(DRIPPING)
    ours, theirs = place.connect()
    sent = [random.Random(n).randbytes(200) for n in range(20)]
    for data in sent:
        ours.send(data)
        theirs.send(data[:50])
    place.run()
    assert place.server.got == b"".join(sent)
    assert place.caller.got == b"".join(data[:50] for data in sent)
    assert place.server.piece_count > 2 * len(sent)


@pytest.mark.parametrize("size", [0, 1, 199, 200, 201, 399])
def test_a_cut_comes_after_exactly_so_many_bytes(size: int) -> None:
    place = Place()
    ours, theirs = place.connect()
    theirs.cut_after(size, "cut")
    ours.send(b"a" * 200)
    ours.send(b"b" * 200)
    place.run()
    assert place.server.got == (b"a" * 200 + b"b" * 200)[:size]
    assert place.server.story == place.caller.story == ["connected", "reset by peer"]
    assert not place.network.live


def test_the_next_connection_can_be_cut_before_it_is_there() -> None:
    place = Place()
    place.network.cut_next("server", is_to_caller=True, after=3, why="cut early")
    _, theirs = place.connect()
    theirs.send(b"hello")
    place.run()
    assert place.caller.got == b"hel"
    assert place.caller.story[-1] == "reset by peer"
    assert place.counted == ["cut early"]


def test_one_way_may_stand_still_while_the_other_goes_on() -> None:
    place = Place()
    ours, theirs = place.connect()
    theirs.stall(place.agenda.now_us + 10 * SECOND)
    ours.send(b"late")
    theirs.send(b"now")
    place.run(9 * SECOND)
    assert (place.server.got, place.caller.got) == (b"", b"now")
    place.run(2 * SECOND)
    assert place.server.got == b"late"


def test_who_closes_is_heard_after_what_was_sent() -> None:
    place = Place(DRIPPING)
    ours, _ = place.connect()
    ours.send(b"last words")
    ours.close_after_flush()
    ours.send(b"too late")
    place.run()
    assert place.server.got == b"last words"
    assert place.server.story == ["connected", "eof", "closed by us"]
    assert place.caller.story == ["connected", "closed by us"]
    assert not place.network.live


def test_nobody_is_there_and_nothing_comes_through() -> None:
    place = Place()
    place.network.connect(place.caller, "nobody")
    place.run()
    assert place.caller.story == ["nobody refuses connections"]
    place.network.make_unreachable("server", place.agenda.now_us + 20 * SECOND)
    place.network.connect(place.caller, "server")
    place.run(CONNECT_TIMEOUT_US - 1)
    assert len(place.caller.story) == 1
    place.run(1)
    assert place.caller.story[1:] == ["server does not answer"]
    place.network.heal()
    place.connect()
    assert place.caller.story[-1] == "connected"


@pytest.mark.parametrize("is_silent", [False, True])
def test_the_peers_of_who_dies_hear_of_it_at_once_or_within_a_minute(is_silent: bool) -> None:
    place = Place()
    _, theirs = place.connect()
    place.network.vanish(place.server, is_silent=is_silent, source=random.Random(4))
    theirs.send(b"from the grave")
    place.run(1 * SECOND)
    assert (place.caller.story == ["connected"]) is is_silent
    place.run(SILENT_US_MAX)
    assert place.caller.story == ["connected", "reset by peer"]
    assert place.caller.got == b""
    assert place.server.story == ["connected"]


def test_a_paused_end_gets_nothing_until_it_reads_again() -> None:
    place = Place()
    ours, theirs = place.connect()
    theirs.pause_reading()
    ours.send(b"a")
    place.run()
    assert place.server.got == b""
    theirs.resume_reading()
    place.run()
    assert place.server.got == b"a"


def test_things_happen_in_the_order_of_time_and_then_of_asking() -> None:
    agenda = Agenda()
    story: list[str] = []

    def tell(text: str) -> Callable[[], None]:
        return lambda: story.append(f"{agenda.now_us} {text}")

    agenda.at(5, tell("second"))
    agenda.at(3, tell("first"))
    agenda.at(5, tell("third"))
    agenda.at(4, tell("never")).cancel()
    agenda.run_until(10)
    agenda.at(1, tell("late"))
    agenda.run_until(10)
    assert story == ["3 first", "5 second", "5 third", "10 late"]


def test_who_spins_is_caught() -> None:
    agenda = Agenda()

    def again() -> None:
        agenda.later(0, again)

    again()
    with pytest.raises(RuntimeError, match=r"somebody spins, at 0\.0 s"):
        agenda.run_until(1)


def test_a_wall_clock_may_leap_and_a_reboot_starts_the_other_one_anew() -> None:
    agenda = Agenda()
    clock = MachineClock(agenda, 1_000)
    start = clock()
    agenda.run_until(7 * SECOND)
    clock.wall_wrong_ms = -3_600_000
    assert clock() == Now(start.mono_ms + 7_000, start.wall_ms + 7_000 - 3_600_000)
    clock.reboot(50)
    assert clock().mono_ms == 50
    assert clock.true_us(clock().mono_ms + 10) == agenda.now_us + 10 * MS
