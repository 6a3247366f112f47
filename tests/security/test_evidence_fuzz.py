"""Evidence that is changed in every way: some cases; python -m tests.security.evidence_fuzz runs more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.security.evidence_fuzz import campaign, mutate

CASES = 700


@pytest.mark.parametrize("platform", campaign.TARGETS)
def test_changed_evidence_ends_in_a_result(platform: str, tmp_path: Path) -> None:
    run = campaign.Campaign(platform, seed=1, folder=tmp_path)
    for number in range(CASES):
        run.case(number)
    assert run.violations == []
    assert sum(run.ends.values()) == CASES
    # Changes that are refused for one reason only would test one line of the checks.
    assert len(run.ends) > 10


@pytest.mark.parametrize("platform", campaign.TARGETS)
def test_a_case_is_always_the_same(platform: str, tmp_path: Path) -> None:
    sample = campaign.TARGETS[platform].minted()[0]
    data = next(iter(sample.evidence.files.values()))
    changed = [mutate.mutate(random.Random(number), data, data) for number in range(100)]
    assert changed == [mutate.mutate(random.Random(number), data, data) for number in range(100)]
    assert len(set(changed)) > 80


def test_what_is_violated_is_seen_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = campaign.Campaign("nitro", seed=1, folder=tmp_path)
    sample = run.samples[0]
    files = dict(sample.evidence.files)

    def broken(*_: object, **__: object) -> None:
        raise KeyError("of a parser")

    run.judge("as it is", files, sample, None)
    assert run.violations == []
    with monkeypatch.context() as patched:
        patched.setattr(campaign, "appraise", broken)
        run.judge("an error", files, sample, None)
    with monkeypatch.context() as patched:
        patched.setattr(campaign, "CASE_S", 0.0)
        run.judge("time", files, sample, None)
        patched.setattr(campaign, "CASE_S", 2.0)
        patched.setattr(campaign, "MEMORY_MIB", -1)
        run.judge("memory", files, sample, None)
    run._genuine.clear()
    run.judge("contents", files, sample, None)
    found = [violation.splitlines()[-1] for violation in run.violations]
    for text, violation in zip(("KeyError", "it took", "has grown", "nothing that was signed"), found, strict=True):
        assert text in violation
    assert (tmp_path / "nitro-0" / "doc").read_bytes() == files["doc"]
