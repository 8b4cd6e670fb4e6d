"""Rules between fields in line: the same as called, and called wherever that is not certain."""

import ast
import linecache
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

import pytest
from codec_ways import compiled_of
from strategies import RECORDS

from paygate.codec.codes import Reason, Role, TransferOutcome
from paygate.codec.fields import HASH, Choice, Field, Record, Rule, Uint
from paygate.codec.messages import Hello
from paygate.codec.rule_lines import line_of

TYPES: Final[dict[str, Field]] = {
    "outcome": Choice(1, TransferOutcome),
    "reason": Choice(1, Reason),
    "one": Uint(1),
    "hash": HASH,
}
RULED: Final = [cls for cls in RECORDS if cls.rules]


class Both:
    """A line as it is written, and the names of objects that it uses."""

    def __init__(self, holds: Callable[[Any], bool]) -> None:
        self.objects: dict[str, Any] = {}
        self.line = line_of(Rule("one", "", holds), TYPES, {name: f"the_{name}" for name in TYPES}, self._name_of)

    def _name_of(self, name: str, value: Any) -> str:
        self.objects[name] = value
        return name

    def value(self, **variables: Any) -> Any:
        assert self.line is not None
        return eval(self.line, self.objects, {f"the_{name}": value for name, value in variables.items()})


def helper(record: Any) -> bool:
    return bool(record.one)


def called_with_a_number(number: int) -> bool:
    return number > 3


def test_fields_members_and_what_a_registry_says_stand_in_line() -> None:
    fits = Both(lambda m: m.outcome.fits(m.reason) and (m.one > 3) is m.outcome.is_final)
    assert fits.line == "fits_of[the_outcome, the_reason] and (the_one > 3) is is_final_of[the_outcome]"
    for outcome in TransferOutcome:
        for reason in Reason:
            for one in (3, 4):
                expected = outcome.fits(reason) and (one > 3) is outcome.is_final
                assert bool(fits.value(outcome=outcome, reason=reason, one=one)) is expected
    assert Both(lambda m: m.outcome is TransferOutcome.POSTED).line == "the_outcome is TransferOutcome_POSTED"
    among = Both(lambda m: m.outcome in (TransferOutcome.POSTED, TransferOutcome.FENCED))
    assert among.line == "the_outcome in members"
    assert among.objects["members"] == (TransferOutcome.POSTED, TransferOutcome.FENCED)


def test_whether_opaque_bytes_are_zeros_is_asked_at_once() -> None:
    zeros = Both(lambda m: not any(m.hash))
    assert zeros.value(hash=bytes(32)) is True
    assert zeros.value(hash=bytes(31) + b"\1") is False
    assert zeros.line is not None
    assert "any" not in zeros.line
    part = Both(lambda m: not any(m.hash[m.one :]))
    assert part.value(hash=b"x" + bytes(31), one=1) is True
    assert part.value(hash=b"x" + bytes(31), one=0) is False
    assert part.value(hash=bytes(31) + b"x", one=32) is True
    assert part.line is not None
    assert "any" not in part.line


def test_functions_of_fields_are_called_with_them() -> None:
    called = Both(lambda m: called_with_a_number(m.one) or bool(m.hash))
    assert called.value(one=4, hash=b"") is True
    assert called.value(one=3, hash=b"") is False


def closed_over() -> Callable[[Any], bool]:
    limit = len(RECORDS)
    return lambda m: m.one < limit


@pytest.mark.parametrize(
    "holds",
    [
        helper,  # no lambda
        bool,  # no Python
        closed_over(),
        lambda m: helper(m),  # the record goes elsewhere  # noqa: PLW0108  # that is what is tested
        lambda m: m.broken_rule() is None,  # not a field
        lambda m: m.outcome.name == "POSTED",  # no property that a registry declares by itself
        lambda m: m.one.bit_length() > 2,  # a method of what is no registry
        lambda m: m.outcome.fits(Reason.NONE),  # not of fields alone
        lambda m: m.outcome.fits(reason=m.reason),
        lambda m: m.outcome.bit_length() > 1,
        lambda m: all(byte for byte in m.hash),  # names of its own
        lambda m: (other := m.one) > 0 and other < 3,
        lambda m, other=3: m.one < other,
        lambda m: unknown_name(m.one),  # type: ignore[name-defined]  # noqa: F821  # that is what is tested
    ],
)
def test_what_is_not_certain_is_called(holds: Callable[[Any], bool]) -> None:
    assert Both(holds).line is None


def test_a_lambda_whose_source_has_changed_or_is_gone_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    holds: Callable[[Any], bool] = lambda m: m.one > 3  # noqa: E731  # a rule's is one too
    assert Both(holds).line == "the_one > 3"
    lines = linecache.getlines(__file__)
    for changed in (
        [line.replace("m.one > 3", "m.one > 4") for line in lines],
        [line.replace("m.one > 3", "m.two > 3") for line in lines],
        [line.replace("m.one > 3", "m.one < 3") for line in lines],
        ["\n", *lines],
        lines[:20],
        ["\xff" * 40 for _ in lines],
        [],
    ):
        monkeypatch.setattr("paygate.codec.rule_lines.linecache.getlines", lambda _, changed=changed: changed)
        assert Both(holds).line is None


def test_a_registry_too_large_for_a_table_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paygate.codec.rule_lines._TABLE_SIZE_MAX", 20)
    assert Both(lambda m: m.outcome.fits(m.reason)).line is None
    assert Both(lambda m: m.outcome.is_final).line == "is_final_of[the_outcome]"


@pytest.mark.parametrize("cls", RULED, ids=lambda cls: cls.__name__)
def test_all_rules_of_the_protocol_stand_in_line(cls: type[Record]) -> None:
    # Those that do not are right all the same, but slow: a new one may need a new case in rule_lines.py.
    assert "_holds" not in compiled_of(cls).source
    assert ast.parse(compiled_of(cls).source)


def test_registries_are_looked_up_by_their_numbers() -> None:
    # A table is fast because a member's hash is its number's, not that of its name in Python.
    assert issubclass(Role, IntEnum)
    assert "__hash__" not in vars(Role)
    assert hash(Role.BANK) == hash(3)
    assert not Hello.rules
