"""Tariffs: exact sums, rounded up once; and what is no tariff."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import money, tariff
from hanzo_compute.model.tariff import DEFAULT, FREE, RATE_MAX, UNITS, Rates, Tariff

USED = ("wall_ms", "cpu_ms", "memory_mib_ms", "fuel", "gpu_ms", "egress_bytes")
MINIMAL = 'version = "1"\ntoken = "credit"\n[[rate]]\nruntime = "wasm"\nattempt = 1\n'

rate_tables = st.dictionaries(st.sampled_from(list(UNITS)), st.integers(0, RATE_MAX))
usages = st.fixed_dictionaries(dict.fromkeys(USED, st.integers(0, 2**63 - 1)))


def priced(rates: dict[str, int]) -> Rates:
    return Rates("1", "credit", "cr", 9, "wasm", "fast", 0, MappingProxyType(rates))


@given(rate_tables, usages, st.integers(0, 2**200))
def test_a_bill_is_the_exact_sum_rounded_up_once(rates: dict[str, int], usage: dict[str, int], most: int) -> None:
    quantities = {**usage, "attempts": 1}
    exact = sum(Fraction(rate * quantities[UNITS[unit][0]], UNITS[unit][1]) for unit, rate in rates.items())
    assert priced(rates).bill(usage, most) == min(math.ceil(exact), most)


def test_rounding_is_on_the_total() -> None:
    usage = dict.fromkeys(USED, 0) | {"wall_ms": 1, "cpu_ms": 1}
    assert priced({"wall_s": 1, "cpu_s": 1}).bill(usage, 10) == 1  # two thousandths of a unit, not two units


def test_fuel_that_was_not_counted_costs_the_most() -> None:
    usage = dict.fromkeys(USED, 0)
    assert priced({"fuel_g": 5}).bill(usage | {"fuel": None}, 77) == 77
    assert priced({"wall_s": 5}).bill(usage | {"fuel": None}, 77) == 0


def test_the_first_entry_that_matches_is_the_price() -> None:
    deterministic, fast = DEFAULT.find("wasm", "deterministic", 0), DEFAULT.find("wasm", "fast", 0)
    assert deterministic is not None
    assert fast is not None
    assert (deterministic.firm, fast.firm) == (True, False)
    assert set(fast.rates) == {"attempt", "wall_s", "memory_gib_s"}
    assert DEFAULT.find("docker", "fast", 0) is None
    by_tier = tariff.parse(MINIMAL + '[[rate]]\nruntime = "cvm"\ntier = 2\nwall_s = 3\n', "x")
    assert by_tier.find("cvm", "fast", 1) is None
    assert by_tier.find("cvm", "fast", 2) is not None


def test_forms_survive_storing() -> None:
    stored = json.loads(json.dumps(DEFAULT.as_json()))
    assert Tariff.from_json(stored) == DEFAULT
    found = DEFAULT.find("wasm", "fast", 0)
    assert found is not None
    again = Rates.from_json(json.loads(json.dumps(found.as_json())))
    assert (again, again.digest) == (found, found.digest)
    assert FREE.bill({}, 0) == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("version =", "is no TOML"),
        (MINIMAL.replace('"1"', "1"), "version must be a text"),
        (MINIMAL.replace("credit", "Credit"), "token must be the id"),
        (MINIMAL.replace("attempt = 1", "attempt = -1"), "rate 1: attempt must be a whole number"),
        (MINIMAL.replace("attempt = 1", "attempt = 0.5"), "rate 1: attempt must be a whole number"),
        (MINIMAL.replace("attempt = 1", "attempt = true"), "rate 1: attempt must be a whole number"),
        (MINIMAL.replace("attempt", "walltime"), "rate 1: walltime is not known; units are"),
        (MINIMAL + "tier = 5\n", "tier must be 0 to 4"),
        (MINIMAL.split("[[", maxsplit=1)[0], "rate must be there"),
        ("decimals = 99\n" + MINIMAL, "decimals must be"),
        ("colour = 1\n" + MINIMAL, "colour is not known"),
        ('symbol = ""\n' + MINIMAL, "symbol must be"),
    ],
)
def test_what_is_no_tariff(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        tariff.parse(text, "tariff.toml")
    assert told in refused.value.message
    assert refused.value.message.startswith("tariff.toml")


@pytest.mark.parametrize("change", [{"rates": {"x": 1}}, {"rates": {"wall_s": 1.5}}, {"tier": "0"}, {"extra": 1}])
def test_what_is_no_entry(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Rates.from_json(priced({"wall_s": 1}).as_json() | change)


def test_money() -> None:
    assert money.show(1_234_500, 9, "cr") == "0.0012345 cr"
    assert money.show(5, 0, "x") == "5 x"
    assert money.show(20_000_000_000, 9, "cr") == "20 cr"
    assert money.parse_units(str(2**256 - 1)) == 2**256 - 1
    for wrong in ("", "-1", "01", "1.0", "1e3", " 1", str(2**256), "٣"):
        with pytest.raises(ValueError, match="base units"):
            money.parse_units(wrong)
