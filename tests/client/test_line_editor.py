"""Typing a line, key by key."""

import pytest

from paygate.client.line_editor import CHARACTER_COUNT_MAX, LineEditor


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (b"asha\r", "asha"),
        (b"asha\n", "asha"),
        (b"ashx\x7fa\n", "asha"),
        (b"\x7f\x08asha\n", "asha"),
        (b"wrong\x15asha\n", "asha"),
        (b"asha wrong\x17\n", "asha"),
        ("gr\u00fcn\n".encode(), "gr\u00fcn"),
        (b"as\x1b[D\x1b[1;5C\x1bOAha\x1bx\n", "asha"),
        (b"as\x00\x01\x09ha\n", "asha"),
        (b"a\x04b\n", "ab"),
        (b"\xff\n", "\ufffd"),
        (b"x" * (CHARACTER_COUNT_MAX + 9) + b"\n", "x" * CHARACTER_COUNT_MAX),
        (b"\n", ""),
    ],
)
def test_keys_make_a_line_whole_and_byte_by_byte(typed: bytes, text: str) -> None:
    whole = LineEditor()
    assert whole.receive(typed) == b""
    dripped = LineEditor()
    for index in range(len(typed)):
        assert not dripped.is_done
        dripped.receive(typed[index : index + 1])
    for editor in (whole, dripped):
        assert editor.is_done
        assert not editor.is_cancelled
        assert editor.text == text


def test_what_comes_behind_the_line_is_the_next_ones() -> None:
    editor = LineEditor()
    assert editor.receive(b"asha\nsecret\n") == b"secret\n"


def test_an_end_of_input_on_an_empty_line_gives_up() -> None:
    editor = LineEditor()
    editor.receive(b"a\x7f\x04")
    assert editor.is_cancelled
    gone = LineEditor()
    gone.receive(b"half")
    gone.receive_eof()
    assert gone.is_cancelled
