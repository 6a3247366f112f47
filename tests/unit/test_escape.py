"""Nothing that a terminal obeys gets through, and nothing else is touched."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute_host.cli.escape import escape, escape_bytes, escape_line

ANY_TEXT = st.text(st.characters())
CONTROL_HEAVY = st.text(st.sampled_from("\x00\x07\x08\r\x1b[]m;\x7f\x80\x9b\x9d\n\t a\u202e\u2066\u2028\ud800é漢"))


def dangerous(char: str) -> bool:
    """By the categories of Unicode, which the implementation does not use."""
    if char in "\n\t":
        return False
    bidi = unicodedata.bidirectional(char) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or bidi


@given(ANY_TEXT | CONTROL_HEAVY)
def test_no_dangerous_character_is_left(text: str) -> None:
    assert not any(dangerous(char) for char in escape(text))
    escape(text).encode()


@given(ANY_TEXT | CONTROL_HEAVY)
def test_harmless_text_stays_as_it_is(text: str) -> None:
    marks = {"\u061c", "\u200e", "\u200f"}
    harmless = "".join(char for char in text if not dangerous(char) and char not in marks)
    assert escape(harmless) == harmless


@given(ANY_TEXT | CONTROL_HEAVY)
def test_a_line_is_a_line(text: str) -> None:
    assert len(escape_line(text).splitlines()) <= 1
    assert "\t" not in escape_line(text)


@given(st.binary())
def test_bytes_are_safe_text(data: bytes) -> None:
    assert not any(dangerous(char) for char in escape_bytes(data))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("50%\r100%\n", "50%\\x0d100%\n"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("[bold]x[/]", "[bold]x[/]"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert escape(text) == shown
