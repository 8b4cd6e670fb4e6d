"""A shrunk run needs every fault that is left in it, and tells them and its frames."""

from sim.faults import Fault, FaultKind
from sim.judge import Violation
from sim.model import Model
from sim.shrink import Failure, failure_of, ladder, shrink
from sim.world import SHOPPER_INDEX, SentBytes, World

from paygate.codec.codes import Role
from paygate.codec.frame import encode_frame
from paygate.codec.messages import Hello, TokenQuery


def _fault(index: int) -> Fault:
    return Fault(index, FaultKind.KILL, 100 * index, "BANK1", 1, 1, 0.5)


def _failure(kept: set[int], kind: str = "I3", shopper_count: int = 0) -> Failure:
    return Failure(kind, "lost", 0, tuple(_fault(index) for index in sorted(kept)), [], shopper_count)


def test_only_the_faults_that_are_needed_are_left() -> None:
    runs: list[frozenset[int]] = []

    def attempt(disabled: frozenset[int]) -> Failure | None:
        runs.append(disabled)
        kept = set(range(40)) - disabled
        return _failure(kept) if {7, 8, 31} <= kept else None

    shrunk = shrink(5, _failure(set(range(40))), attempt)
    assert [fault.index for fault in shrunk.failure.faults] == [7, 8, 31]
    assert shrunk.disabled == frozenset(range(40)) - {7, 8, 31}
    assert shrunk.run_count == len(runs) <= 120
    assert len(set(runs)) > len(runs) // 2, "hardly any run is made twice"


def test_another_invariant_is_another_failure() -> None:
    def attempt(disabled: frozenset[int]) -> Failure | None:
        kept = set(range(8)) - disabled
        return _failure(kept, "I3" if 2 in kept else "I9")

    shrunk = shrink(5, _failure(set(range(8))), attempt)
    assert [fault.index for fault in shrunk.failure.faults] == [2]


def test_what_needs_no_fault_is_left_without_one() -> None:
    shrunk = shrink(5, _failure({1, 2, 3}), lambda disabled: _failure({1, 2, 3} - disabled))
    assert shrunk.failure.faults == ()
    assert "no fault is needed:" in list(shrunk.lines())


def test_shoppers_who_have_nothing_to_do_with_it_stay_at_home() -> None:
    def attempt(disabled: frozenset[int]) -> Failure | None:
        is_there = SHOPPER_INDEX + 3 not in disabled and 1 not in disabled
        return _failure({0, 1} - disabled, shopper_count=9) if is_there else None

    shrunk = shrink(5, _failure({0, 1}, shopper_count=9), attempt)
    assert shrunk.disabled == {0, *range(SHOPPER_INDEX, SHOPPER_INDEX + 9)} - {SHOPPER_INDEX + 3}
    assert "1 of 9 shoppers; ladder:" in list(shrunk.lines())


def test_who_stays_at_home_pays_nothing() -> None:
    world = World(3, Model(), disabled=frozenset(range(SHOPPER_INDEX, SHOPPER_INDEX + 100)))
    world.run()
    assert world.counts["payments authorised"] == 0


def test_a_shrink_is_bounded() -> None:
    count = 0

    def attempt(disabled: frozenset[int]) -> Failure | None:
        nonlocal count
        count += 1
        return None

    assert shrink(5, _failure(set(range(100))), attempt, run_count_max=30).run_count == count == 30


def test_a_ladder_has_a_line_a_frame_with_its_secrets_masked() -> None:
    frames = encode_frame(Hello(Role.CLIENT, "client", (1,)), 1) + encode_frame(TokenQuery("TX-1", "4321"), 2)
    sent = [
        SentBytes(1_000_000, "C1>GW1#1", "C1", "GW1", frames[:25]),
        SentBytes(1_500_000, "C1>GW1#1", "C1", "GW1", frames[25:]),
        SentBytes(2_000_000, "C1>GW1#1", "GW1", "C1", b"no frame at all, though long"),
        SentBytes(2_500_000, "C1>GW1#1", "GW1", "C1", b"more"),
    ]
    lines = [" ".join(line.split()) for line in ladder(sent)]
    assert lines == [
        "1.500000 C1>GW1#1 C1 > GW1 #1 HELLO role=CLIENT party_id=client versions=[1]",
        "1.500000 C1>GW1#1 C1 > GW1 #2 TOKEN_QUERY transaction_id=TX-1 passcode=<secret>",
        "2.000000 C1>GW1#1 GW1 > C1 28 bytes that are no frame (bad magic at magic: expected the letters PG)",
        "2.500000 C1>GW1#1 GW1 > C1 4 bytes more of what was no frame",
    ]


class _NeverContent(Model):
    def finish(self, world: object) -> None:
        raise Violation("I8", "as the test wants it")


def test_a_run_that_fails_tells_how() -> None:
    failure = failure_of(World(3, _NeverContent()))
    assert failure is not None
    assert str(failure) == "I8: as the test wants it"
    assert failure.sent
    assert failure_of(World(3, Model())) is None
