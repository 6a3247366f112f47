"""Collateral from the vendors' services, kept on disk."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from hanzo_compute import config
from hanzo_compute.adapters.collateral.amd import Amd
from hanzo_compute.adapters.collateral.azure import Azure
from hanzo_compute.adapters.collateral.cache import FileCache
from hanzo_compute.adapters.collateral.fetcher import CollateralFetcher
from hanzo_compute.adapters.collateral.getter import Getter
from hanzo_compute.adapters.collateral.intel import Intel
from hanzo_compute.adapters.collateral.limits import RATES, Buckets, Rate
from hanzo_compute.adapters.collateral.nvidia import Nvidia
from hanzo_compute.adapters.collateral.transport import HttpOpener
from hanzo_compute.adapters.collateral.wanted import Jobs, Opener
from hanzo_compute.model.evidence import Platform
from hanzo_compute.ports import Clock

__all__ = ["CollateralFetcher", "FileCache", "HttpOpener", "vendors"]


def vendors(
    settings: config.Collateral,
    folder: Path,
    clock: Clock,
    anchors: tuple[bytes, ...] = (),
    *,
    opener: Opener | None = None,
    rates: Mapping[str, Rate] = RATES,
    uniform: Callable[[float, float], float] = random.uniform,
    nonce: Callable[[int], bytes] = secrets.token_bytes,
) -> Mapping[Platform, Jobs]:
    """What the evidence of each platform needs, asked of these services and kept in this folder."""
    buckets = Buckets(rates, clock)
    cache = FileCache(folder)
    getter = Getter(opener or HttpOpener(), cache, buckets, clock, uniform=uniform, offline=settings.offline)
    amd = Amd(getter, settings.amd_url, anchors)
    intel = Intel(getter, settings.intel_url, settings.intel_root_crl_url, anchors)
    return {
        Platform.SNP: amd.jobs,
        Platform.TDX: intel.jobs,
        Platform.SGX: intel.jobs,
        Platform.TPM: Azure(amd.jobs, intel.jobs).jobs,
        Platform.NVIDIA: Nvidia(getter, settings.rim_url, settings.ocsp_url, anchors, nonce).jobs,
    }
