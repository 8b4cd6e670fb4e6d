"""Statistics: what whole sessions count to, percentiles within 1 %, and bounds whatever the capture holds."""

import json
import math
import random
from collections.abc import Iterable
from typing import Any

import builders
import pytest
from dump.drawn import examples, finding, seen_session
from dump.tape import STEP_NS, LinkTape, Tape, damaged, error_of, through
from hypothesis import given
from hypothesis import strategies as st
from specgen.vector_session import DECLINED, FENCED, PAID, SESSIONS

from paygate.codec.codes import Kind, PaymentStatus, Reason
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import EncryptedCredentials, PaymentAck, StatusAck
from paygate.dump import stats
from paygate.dump.display import display_width
from paygate.dump.histogram import VALUE_MAX, Histogram
from paygate.dump.links import Links
from paygate.dump.model import Item, SeenFrame
from paygate.dump.output import Colours
from paygate.dump.stats import Stats
from paygate.dump.streams import StreamCounts


def counted(items: Iterable[Item], **options: Any) -> dict[str, Any]:
    """The statistics as `--stats --json` prints them."""
    return json.loads(written(items, is_json=True, **options))  # type: ignore[no-any-return]


def written(items: Iterable[Item], **options: Any) -> str:
    """All that is written, nothing before the end."""
    parts: list[str] = []
    counting = Stats(parts.append, Colours(), **options)
    for item in items:
        counting.receive(item)
    assert parts == []
    counting.finish()
    return "".join(parts)


def all_sessions() -> list[Item]:
    """The three sessions of the spec, one after the other."""
    return [item for payment in SESSIONS for item in seen_session(payment)]


# -- whole sessions --------------------------------------------------------------------------------------


def test_a_session_counts_to_its_frames_bytes_and_time() -> None:
    frames = [item for item in seen_session(PAID) if isinstance(item, SeenFrame)]
    found = counted(seen_session(PAID))
    assert found["frames"] == len(frames) == 16
    assert found["size"] == sum(frame.frame.size for frame in frames)
    assert found["connections"] == 2
    assert found["begin"] == "2026-01-02T00:00:00.001000000Z"
    assert found["end"] == "2026-01-02T00:00:10.046000000Z"
    assert found["span_ns"] == str(10_045_000_000)
    assert sum(kind["count"] for kind in found["kinds"].values()) == found["frames"]
    assert sum(kind["size"] for kind in found["kinds"].values()) == found["size"]


def test_every_reply_has_a_latency_and_no_request_has_one() -> None:
    kinds = counted(seen_session(PAID))["kinds"]
    for name in ("Hello", "BankKeysQuery", "TokenQuery", "EncryptedCredentials", "StatusQuery", "TransferRequest"):
        assert kinds[name]["latency"] is None
    assert kinds["TransferResult"]["latency"] == {
        "count": 1,
        **dict.fromkeys(("min_ns", "mean_ns", "p50_ns", "p90_ns", "p99_ns", "p99_9_ns", "max_ns"), str(39_000_000)),
    }
    assert kinds["BankKeys"]["latency"]["count"] == 2
    assert (kinds["BankKeys"]["latency"]["min_ns"], kinds["BankKeys"]["latency"]["max_ns"]) == ("1000000", "2000000")


def test_outcomes_and_reasons_are_counted_by_kind_and_field() -> None:
    assert counted(all_sessions())["outcomes"] == {
        "BankKeys": {"status": {"AVAILABLE": 7}},
        "TokenAck": {"status": {"VALID": 3}},
        "PaymentAck": {
            "status": {"PAID": 1, "DECLINED": 2},
            "reason": {"NONE": 1, "CREDENTIALS": 1, "FENCED": 1},
        },
        "StatusAck": {"status": {"PAID": 1}, "reason": {"NONE": 1}},
        "TransferResult": {"outcome": {"POSTED": 1, "DECLINED": 1}, "reason": {"NONE": 1, "CREDENTIALS": 1}},
        "ResolveResult": {"outcome": {"FENCED": 1}, "reason": {"FENCED": 1}},
    }


def test_errors_are_counted_by_code_and_what_they_answer_by_time() -> None:
    tape = Tape()
    link = LinkTape(tape)
    for number in (5, 6):
        link.ask(builders.example(Kind.ECHO), number)
        link.answer(error_of(ErrorCode.TOO_MANY_REQUESTS), number)
    found = counted(through(Links(), tape.items))
    assert found["outcomes"] == {"Error": {"code": {"TOO_MANY_REQUESTS": 2}}}
    assert found["kinds"]["Error"]["latency"]["max_ns"] == str(STEP_NS)


def test_findings_are_counted_by_name_those_of_frames_too() -> None:
    tape = Tape()
    link = LinkTape(tape)
    frame = damaged(link.ask(builders.example(Kind.TOKEN_QUERY), 5))
    frame.findings = (finding(link.flow), finding(link.flow))
    tape.finding(None, "BYTES_MISSING")
    assert counted([frame, tape.items[-1]])["findings"] == {"BAD_CHECKSUM": 2, "BYTES_MISSING": 1}


def test_what_earlier_steps_counted_is_shown_as_it_is_at_the_end() -> None:
    streams, ignored = StreamCounts(), {"udp": 0}
    counting = Stats(lambda _: None, Colours(), streams=streams, ignored=ignored)
    streams.retransmitted_segments, ignored["udp"] = 3, 4
    found = counting.as_json()
    assert found["tcp"]["retransmitted_segments"] == 3
    assert found["ignored"] == {"udp": 4}
    assert counted([])["tcp"] is None


def test_an_input_without_traffic_counts_to_nothing() -> None:
    found = counted([])
    assert (found["frames"], found["kinds"], found["span_ns"]) == (0, {}, None)
    assert found["payments"]["answered_per_second"] is None
    assert written([]) == "frames      0, 0 bytes, connections 0\n"


def test_people_get_the_same_numbers_within_80_columns() -> None:
    text = written([*all_sessions(), finding(None)], streams=StreamCounts(segments=9), ignored={"udp": 2})
    for line in text.splitlines():
        assert display_width(line) <= 80
    for line in (
        "time        2026-01-02T00:00:00.001Z to 2026-01-02T00:00:12.010Z, 12.0 s",
        "frames      48, 6,788 bytes, connections 3",
        "payments    3 begun, 1 PAID, 2 DECLINED, 0 open",
        "kind                    count      bytes     p50     p90     p99   p99.9     max",
        "PaymentAck                  3        767 41.2 ms  2.01 s  2.01 s  2.01 s  2.01 s",
        "         1  PaymentAck.reason      CREDENTIALS",
        "         1  BAD_CHECKSUM",
        "     count  tcp (whole capture)",
        "         9  segments",
        "     count  ignored packets (whole capture)",
        "         2  udp",
    ):
        assert line in text.splitlines()


# -- payments --------------------------------------------------------------------------------------------


def credentials_of(number: int) -> EncryptedCredentials:
    """The EncryptedCredentials of one of many payments."""
    usual = builders.example(Kind.ENCRYPTED_CREDENTIALS)
    return builders.with_changes(usual, payment_id=number.to_bytes(16))  # type: ignore[return-value]


def answer_of(number: int, status: PaymentStatus, *, asked_again: bool = False) -> PaymentAck | StatusAck:
    """What became of that payment."""
    reason = {PaymentStatus.DECLINED: Reason.FUNDS, PaymentStatus.REFUSED: Reason.SESSION}.get(status, Reason.NONE)
    is_final = status in (PaymentStatus.PAID, PaymentStatus.DECLINED)
    cls = StatusAck if asked_again else PaymentAck
    utr = builders.UTR if status is PaymentStatus.PAID else ""
    return cls(number.to_bytes(16), status, reason, utr, b"r" if is_final else b"")


def test_a_payment_lasts_from_its_first_credentials_to_its_first_definite_answer() -> None:
    tape = Tape()
    link, later = LinkTape(tape), LinkTape(tape)
    begin_ns = link.ask(credentials_of(1), 5).time_ns
    link.answer(answer_of(1, PaymentStatus.PENDING), 5)
    link.ask(credentials_of(1), 6)
    end_ns = later.answer(answer_of(1, PaymentStatus.PAID, asked_again=True), 7).time_ns
    later.answer(answer_of(1, PaymentStatus.PAID, asked_again=True), 8)
    link.ask(credentials_of(1), 9)
    payments = counted(tape.items)["payments"]
    assert (payments["begun"], payments["answered"], payments["open"]) == (1, {"PAID": 1}, 0)
    assert begin_ns is not None
    assert end_ns is not None
    assert payments["end_to_end"]["max_ns"] == str(end_ns - begin_ns) == str(3 * STEP_NS)


@pytest.mark.parametrize(
    ("status", "asked_again", "is_definite"),
    [
        (PaymentStatus.PAID, False, True),
        (PaymentStatus.DECLINED, False, True),
        (PaymentStatus.REFUSED, False, True),
        (PaymentStatus.PENDING, False, False),
        (PaymentStatus.PAID, True, True),
        (PaymentStatus.DECLINED, True, True),
        (PaymentStatus.REFUSED, True, False),
        (PaymentStatus.PENDING, True, False),
        (PaymentStatus.UNKNOWN, True, False),
    ],
)
def test_only_what_says_what_became_of_it_ends_a_payment(
    status: PaymentStatus, asked_again: bool, is_definite: bool
) -> None:
    tape = Tape()
    link = LinkTape(tape)
    link.ask(credentials_of(1), 5)
    link.answer(answer_of(1, status, asked_again=asked_again), 5)
    payments = counted(tape.items)["payments"]
    assert payments["open"] == (0 if is_definite else 1)
    assert payments["answered"] == ({status.name: 1} if is_definite else {})


def test_the_rate_of_payments_is_over_the_whole_time() -> None:
    tape = Tape()
    link = LinkTape(tape)
    for number in range(1, 11):
        link.ask(credentials_of(number), number + 10)
        link.answer(answer_of(number, PaymentStatus.PAID), number + 10)
    span_ns = int(counted(tape.items)["span_ns"])
    assert counted(tape.items)["payments"]["answered_per_second"] == pytest.approx(10 * 1e9 / span_ns, rel=1e-6)


def test_payments_beyond_the_bound_are_forgotten_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "PAYMENT_COUNT_MAX", 2)
    tape = Tape()
    link = LinkTape(tape)
    for number in (1, 2, 3):
        link.ask(credentials_of(number), number + 10)
    for number in (1, 2, 3):
        link.answer(answer_of(number, PaymentStatus.PAID), number + 10)
    payments = counted(tape.items)["payments"]
    assert (payments["begun"], payments["answered"]["PAID"], payments["open"]) == (3, 3, 0)
    assert payments["end_to_end"]["count"] == 2
    # The first answer is forgotten, the last one is not.
    for number in (1, 3):
        link.answer(answer_of(number, PaymentStatus.PAID), number + 20)
    assert counted(tape.items)["payments"]["answered"]["PAID"] == 4


# -- any capture -----------------------------------------------------------------------------------------


def test_connections_are_counted_once_and_beyond_the_bound_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "FLOW_NUMBER_MAX", 20)
    tape = Tape()
    frames = []
    for _ in range(30):
        flow = tape.flow()
        frames += [LinkTape(tape).ask(builders.example(Kind.ECHO), 5)]
        frames[-1].flow = flow
    assert [frame.flow.number for frame in frames] == list(range(1, 60, 2))
    # 1, 3, ... 19, and one for all behind.
    assert counted(frames + frames)["connections"] == 11


def test_latencies_and_payments_of_clocks_that_differ_are_left_out() -> None:
    tape = Tape()
    link = LinkTape(tape)
    answer = link.answer(answer_of(1, PaymentStatus.PAID), 5)
    answer.latency_ns = -1
    asked = link.ask(credentials_of(1), 5)
    assert asked.time_ns is not None
    answer.time_ns = asked.time_ns - 1
    found = counted([asked, answer])
    assert found["kinds"]["PaymentAck"]["latency"] is None
    assert found["payments"]["end_to_end"] is None
    assert found["payments"]["answered"] == {"PAID": 1}
    assert found["span_ns"] == "1"


def test_frames_without_times_and_of_every_kind_are_counted() -> None:
    tape = Tape()
    link = LinkTape(tape)
    frames = [link.ask(message, number) for number, message in enumerate(examples(), start=10)]
    for frame in frames:
        frame.time_ns = None
    found = counted(frames)
    assert set(found["kinds"]) == {type(message).__name__ for message in examples()}
    assert found["begin"] is None
    assert "PaymentAck.status" in written(frames)


# -- percentiles -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, VALUE_MAX), min_size=1), st.integers(0, 1_000))
def test_every_percentile_is_within_one_in_a_hundred(values: list[int], per_mille: int) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(math.ceil(per_mille * len(values) / 1_000), 1) - 1]
    assert abs(histogram.per_mille(per_mille) - exact) <= exact / 100
    assert (histogram.minimum, histogram.maximum, histogram.count) == (min(values), max(values), len(values))
    assert histogram.mean == sum(values) // len(values)


def test_a_hundred_thousand_different_numbers_take_a_bounded_number_of_buckets() -> None:
    histogram = Histogram()
    source = random.Random(1)
    for _ in range(100_000):
        histogram.add(source.getrandbits(source.randint(1, 80)))
    assert len(histogram._buckets) <= 3_712
    assert histogram.maximum == VALUE_MAX


def test_the_rank_of_the_largest_number_gives_that_number_exactly() -> None:
    histogram = Histogram()
    for value in (100_001, 100_002, 1_003_333):
        histogram.add(value)
    assert histogram.per_mille(999) == histogram.per_mille(1_000) == 1_003_333
    assert histogram.per_mille(500) < 1_003_333


def test_nothing_counted_is_zero() -> None:
    histogram = Histogram()
    assert (histogram.per_mille(500), histogram.mean, histogram.count) == (0, 0, 0)


def test_the_sessions_of_the_spec_end_as_they_say() -> None:
    for payment, answered in ((PAID, {"PAID": 1}), (DECLINED, {"DECLINED": 1}), (FENCED, {"DECLINED": 1})):
        assert counted(seen_session(payment))["payments"]["answered"] == answered
