"""A short run of the fuzzer, which has a long one: ``python -m tests.security.fuzz``."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.security.fuzz.campaign import Campaign
from tests.security.fuzz.generate import generate
from tests.security.fuzz.mutate import joined, mutate, sections, seeds

SMOKE_S = 15.0
LEAST = 100


@pytest.mark.slow
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    campaign = Campaign(2, tmp_path / "found")
    until = time.monotonic() + SMOKE_S
    number = 0
    try:
        while time.monotonic() < until or number < LEAST:
            campaign.case(number)
            number += 1
    finally:
        campaign.close()
    assert campaign.violations == []
    ended = sum(count for end, count in campaign.ends.items() if not end.startswith("refused"))
    assert ended > number / 5
    assert campaign.ends["exit"] > number / 50


def test_a_case_is_the_same_again(tmp_path: Path) -> None:
    runs = [Campaign(seed, tmp_path) for seed in (3, 3, 4)]
    one, again, other = ([run.module(n) for n in range(20)] for run in runs)
    assert one == again != other
    for run in runs:
        run.close()


def test_what_is_generated_is_valid_and_what_is_damaged_mostly_differs() -> None:
    import wasmtime

    engine = wasmtime.Engine()
    for number in range(100):
        dice = random.Random(number)
        module = generate(dice)
        wasmtime.Module.validate(engine, module)
        parts = sections(module)
        assert parts is not None
        assert joined(parts) == module
    known = seeds()
    damaged = [mutate(random.Random(n), known[n % len(known)], known[0]) for n in range(100)]
    assert sum(each not in known for each in damaged) > 80
