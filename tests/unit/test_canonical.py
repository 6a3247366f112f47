"""Canonical JSON against RFC 8785's own examples and a second implementation."""

from __future__ import annotations

import json
from typing import Any

import jcs
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute.model.canonical import EXACT_MAX, canonical, digest
from hanzo_compute.model.problems import parse_spec

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
NUMBERS = st.integers(-EXACT_MAX, EXACT_MAX) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_two_libraries_write_the_same(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value) == bytes(jcs.canonicalize(value))


def test_examples_of_the_rfc() -> None:
    # Section 3.2.2 and 3.2.3: literals, numbers, strings, and the order of names by UTF-16 code units.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f",
        "literals": [None, True, False],
    }
    assert canonical(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    names = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical(names)).values()) == [2, 4, 6, 7, 1, 5, 3]


@pytest.mark.parametrize("value", [float("nan"), EXACT_MAX + 1, -EXACT_MAX - 1, {1: 2}, "\ud800", [object()]])
def test_what_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        canonical(value)


def test_a_spec_has_the_digest_of_its_canonical_form() -> None:
    spec = parse_spec(
        {
            "source": {"code": "print('ö')", "language": "python"},
            "args": ["\U0001f600", "\x7f", "\t"],
            "env": {"B": "2", "A": "1"},
            "labels": {"b-1": "x", "a.b": ""},
        }
    ).as_json()
    assert digest(spec) == __import__("hashlib").sha256(jcs.canonicalize(spec)).hexdigest()
