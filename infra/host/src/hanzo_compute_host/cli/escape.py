"""Text of others, made safe to print: no control character of a job reaches the reader's terminal.

A terminal obeys what it is sent: escape sequences can move the cursor over what was printed before, set the
title, answer as if the reader had typed, or write to the clipboard. Bidirectional overrides show text in
another order than it has. Both are shown in Python's notation instead, as ``\\x1b`` or ``\\u202e``.
"""

from __future__ import annotations

import re
from typing import Final

# C0 but tab and newline, DEL, C1; bidirectional marks, embeddings, overrides and isolates; the line
# separators that some terminals obey; and surrogates, which cannot be encoded.
_SEPARATORS = "\u2028\u2029\ufeff"
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNSAFE: Final = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_SEPARATORS}{_BIDI}\ud800-\udfff]")
_LINE_BREAKING: Final = {ord("\t"): "\\t", ord("\n"): "\\n"}


def escape(text: str) -> str:
    """``text`` with everything that a terminal might obey spelled out; newlines and tabs stay."""
    return _UNSAFE.sub(_spelled, text)


def escape_line(text: str) -> str:
    """As :func:`escape`, for a cell or a message: newlines and tabs are spelled out too."""
    return escape(text).translate(_LINE_BREAKING)


def escape_bytes(data: bytes) -> str:
    """Bytes as safe text; what is not UTF-8 is spelled out."""
    return escape(data.decode("utf-8", "backslashreplace"))


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
