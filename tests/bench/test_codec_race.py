"""The race of the codecs: fair messages, what follows from times, and a short one."""

from statistics import median
from typing import Any

import pytest

from paygate.bench.codec_messages import MESSAGES_BY_KIND, copied, renamed
from paygate.bench.codec_race import CodecTimes, mean_of_kinds, race, slowest_of
from paygate.bench.goals import CODEC_TEXT, judge_codec
from paygate.codec.codes import Kind
from paygate.codec.fields import Nested, Record, Text, fields_of
from paygate.codec.record_codec import decode_record, encode_record


def recurring_texts(record: Record) -> dict[str, Any]:
    """By the path of the field."""
    found: dict[str, Any] = {}
    for field in fields_of(type(record)):
        value = getattr(record, field.name)
        if isinstance(field.type, Nested):
            found |= {f"{field.name}.{path}": text for path, text in recurring_texts(value).items()}
        elif isinstance(field.type, Text) and field.type.recurs and value:
            found[field.name] = value
    return found


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_a_renamed_message_is_legal_as_long_and_shares_no_recurring_text(kind: Kind) -> None:
    message = MESSAGES_BY_KIND[kind]
    others = [renamed(message, number) for number in (1, 17_575)]
    for other in others:
        assert len(encode_record(other)) == len(encode_record(message))
        assert decode_record(type(other), encode_record(other)) == other
    texts = [recurring_texts(one) for one in (message, *others)]
    for path in texts[0]:
        assert len({one[path] for one in texts}) == 3
    assert copied(message) == message
    assert copied(message) is not message


def times(kind: str, texts: str, compiled_us: float, by_hand_us: float) -> CodecTimes:
    return CodecTimes(kind, texts, [compiled_us] * 5, [compiled_us * 30] * 5, [by_hand_us] * 5)


def test_the_codec_is_judged_by_the_mean_of_kinds_and_by_the_slowest() -> None:
    found = judge_codec([times("A", "recurring", 1.0, 2.0), times("B", "recurring", 2.0, 1.0)])
    mean, slowest, to_construct = found
    assert mean.text.startswith(CODEC_TEXT)
    assert mean.value == pytest.approx(1.0)
    assert (mean.round_count, mean.is_met) == (5, True)
    assert (slowest.value, slowest.is_met) == (0.5, False)
    assert to_construct.value == pytest.approx(30)
    assert to_construct.is_met


def test_means_are_of_a_round_and_geometric() -> None:
    assert mean_of_kinds([[4.0, 1.0], [1.0, 9.0]]) == [pytest.approx(2.0), pytest.approx(3.0)]
    assert slowest_of([[4.0, 1.0, 1.0], [2.0, 2.0, 0.5]]) == [4.0, 1.0, 1.0]


def test_the_compiled_codec_is_several_times_as_fast_as_construct() -> None:
    # The goals ask for more; here a third of what they show will do, so that a busy machine does not matter.
    found = race([Kind.ECHO, Kind.TRANSFER_REQUEST, Kind.TRANSFER_RESULT], round_count=31)
    assert [one.texts for one in found] == ["recurring", "distinct"] * 3
    for one in found:
        assert len(one.compiled_us) == 31
        assert median(one.to_construct) > 5
        assert median(one.to_hand) > 1 / 3
