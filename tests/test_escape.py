"""T21: whatever a peer or a person puts into a field, one event stays one line."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygate.escape import escape_field, escape_line, unescape_field

# Lone surrogates can't come from UTF-8, and are not turned back into what no file can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
HOSTILE = st.text(st.sampled_from(list("a |\\#x0\n\r\t\x00\x1b\x7f\x85\xa0\u2028\u202e\u200f\ufeff\U000e0001")))


@given(TEXT | HOSTILE)
def test_an_escaped_field_comes_back(text: str) -> None:
    assert unescape_field(escape_field(text)) == text


@given(st.text() | HOSTILE)
def test_an_escaped_field_is_one_printable_field(text: str) -> None:
    shown = escape_field(text)
    assert "|" not in shown
    assert shown == shown.strip()
    assert shown.splitlines() in ([shown], [])
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()


@given(st.text() | HOSTILE)
def test_an_escaped_line_is_one_printable_line(text: str) -> None:
    assert escape_line(text).isprintable()
    escape_line(text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\x0ab"),
        ("a|b", r"a\x7cb"),
        ("a\\b", r"a\x5cb"),
        (" a b ", r"\x20a b\x20"),
        ("  ", r"\x20\x20"),
        ("\u2028", r"\u2028"),
        ("\x9b", r"\x9b"),
        ("\u202e", r"\u202e"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("Café", "Café"),
        ("", ""),
    ],
)
def test_escapes_look_like_this(text: str, shown: str) -> None:
    assert escape_field(text) == shown


def test_a_backslash_typed_by_a_person_stays() -> None:
    assert unescape_field(r"C:\users\x4 \ud800 \Uffffffff") == r"C:\users\x4 \ud800 \Uffffffff"
