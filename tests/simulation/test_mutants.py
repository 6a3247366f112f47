"""The simulation finds defects: each of those that are planted here, within a bounded number of schedules."""

from __future__ import annotations

import re

import pytest

from tests.simulation import learning_mutants, sealing_mutants
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.world import Report, run

ALL = [*MUTANTS, *learning_mutants.MUTANTS, *sealing_mutants.MUTANTS]
SCHEDULES = 1000
"""Within so many, divided among a mutant's profiles, it is caught."""


def hunt(mutant: Mutant) -> tuple[int, Report] | None:
    for number in range(SCHEDULES):
        seed, profile = divmod(number, len(mutant.profiles))
        report = run(seed, mutant.profiles[profile])
        if report.failure is not None:
            return number + 1, report
    return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_planted_defect_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.plant(monkeypatch)
    caught = hunt(mutant)
    assert caught is not None, f"{mutant.name} was not caught in {SCHEDULES} schedules"
    count, report = caught
    print(f"{mutant.name}: schedule {count}: {report.failure}")
    assert re.search(mutant.says, report.failure or "")
