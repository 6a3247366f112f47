"""``python -m tests.security.fuzz --cases 50000 --seed 1``: a long run, with what it found at the end.

Exit code 1: something was violated; the modules are in the folder that is named.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.security.fuzz.campaign import Campaign

SHOW_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, default=Path("build/fuzz"), help="where modules go that violate something"
    )
    wanted = parser.parse_args()
    campaign = Campaign(wanted.seed, wanted.folder)
    began = shown = time.monotonic()
    try:
        for number in range(wanted.first, wanted.first + wanted.cases):
            campaign.case(number)
            if time.monotonic() - shown > SHOW_S:
                shown = time.monotonic()
                done = number - wanted.first + 1
                print(
                    f"{done} cases, {done / (shown - began):.0f}/s, {len(campaign.violations)} violations", flush=True
                )
    finally:
        campaign.close()
    for end, count in campaign.ends.most_common():
        print(f"{count:8} {end}")
    print(f"slowest case: {campaign.slowest_s:.2f} s; all: {time.monotonic() - began:.0f} s")
    for violation in campaign.violations:
        print(violation)
    return 1 if campaign.violations else 0


raise SystemExit(main())
