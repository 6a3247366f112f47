"""``python -m tests.security.evidence_fuzz --platform nitro --cases 200000``: a long run, and what it found.

With ``--atheris`` coverage guides it: that wants the package atheris, which is in none of our locks
(``pip install atheris``, Linux). Exit code 1: something was violated; its files are in the folder that is named.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.security.evidence_fuzz.campaign import Campaign

SHOW_S = 30.0
DATA_MAX = 4 * 1024**3
"""Bytes that the process may have: what would take the machine down is an error instead."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.evidence_fuzz")
    parser.add_argument("--platform", default="nitro")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("build/evidence_fuzz"), help="where violations go")
    parser.add_argument("--atheris", action="store_true", help="be guided by coverage")
    wanted = parser.parse_args()
    if wanted.atheris:
        return _guided(wanted)
    from tests.security.evidence_fuzz.campaign import Campaign

    resource.setrlimit(resource.RLIMIT_DATA, (DATA_MAX, DATA_MAX))
    campaign = Campaign(wanted.platform, wanted.seed, wanted.folder)
    began = shown = time.monotonic()
    for number in range(wanted.first, wanted.first + wanted.cases):
        campaign.case(number)
        if time.monotonic() - shown > SHOW_S:
            shown = time.monotonic()
            done = number - wanted.first + 1
            print(f"{done} cases, {done / (shown - began):.0f}/s, {len(campaign.violations)} violations", flush=True)
    return _told(campaign, time.monotonic() - began)


def _told(campaign: Campaign, took_s: float) -> int:
    for end, count in campaign.ends.most_common(40):
        print(f"{count:8} {end}")
    grown = campaign.grown_mib()
    print(f"slowest case: {campaign.slowest_s:.3f} s; memory: {grown} MiB more; all: {took_s:.0f} s")
    for violation in campaign.violations:
        print(violation)
    return 1 if campaign.violations else 0


def _guided(wanted: argparse.Namespace) -> int:
    """An input is two bytes that choose a sample and its file, and the contents of that."""
    import atheris

    with atheris.instrument_imports(include=["hanzo_compute.attestation"]):
        from tests.security.evidence_fuzz.campaign import BINDING, Campaign

        # It appraises its samples, and so what a platform imports only then is seen to as well.
        campaign = Campaign(wanted.platform, wanted.seed, wanted.folder)
    from tests.security.evidence_fuzz.mutate import mutate

    def chosen(data: bytes) -> tuple[dict[str, bytes], str, int]:
        number = data[0] % len(campaign.samples)
        files = dict(campaign.samples[number].evidence.files)
        return files, sorted(files)[data[1] % len(files)], number

    def one_input(data: bytes) -> None:
        if len(data) < 2:
            return
        files, name, number = chosen(data)
        files[name] = data[2:]
        campaign.judge("an input", files, campaign.samples[number], BINDING if data[0] & 0x80 else None)
        if campaign.violations:
            raise AssertionError(campaign.violations[-1])

    def changed(data: bytes, size: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if len(data) < 2 or dice.random() < 0.3:
            return bytes(atheris.Mutate(data, size))
        files, name, _ = chosen(data)
        return (data[:2] + mutate(dice, data[2:], files[name]))[:size]

    largest = 0
    with tempfile.TemporaryDirectory() as corpus:
        for number, sample in enumerate(campaign.samples):
            for at, name in enumerate(sorted(sample.evidence.files)):
                largest = max(largest, len(sample.evidence.files[name]))
                path = Path(corpus) / f"{number}-{at}"
                path.write_bytes(bytes((number, at)) + sample.evidence.files[name])
        flags = [f"-runs={wanted.cases}", f"-seed={wanted.seed}", f"-max_len={2 * largest}", "-timeout=10"]
        atheris.Setup([sys.argv[0], *flags, "-rss_limit_mb=4096", corpus], one_input, custom_mutator=changed)
        atheris.Fuzz()
    return 0


raise SystemExit(main())
