"""Collateral for those who cannot wait: what is in the cache at once, and the rest for the next time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from hanzo_compute.model.evidence import Evidence
from hanzo_compute.ports import CollateralSource, FetchedCollateral

log = logging.getLogger(__name__)


class CollateralAhead:
    """Answers from ``cached``, and while something is missing has ``online`` fetch it, one thread at a time.

    A handler never waits for a vendor's service: its caller asks again. Both sources share one cache on the disk.
    """

    def __init__(self, cached: CollateralSource, online: CollateralSource) -> None:
        self._cached = cached
        self._online = online
        self._busy = threading.Lock()

    def fetch(self, evidence: Sequence[Evidence], now_ms: int) -> FetchedCollateral:
        """See :meth:`hanzo_compute.ports.CollateralSource.fetch`."""
        found = self._cached.fetch(evidence, now_ms)
        if found.missing and self._busy.acquire(blocking=False):
            threading.Thread(target=self._ahead, args=(evidence, now_ms), name="collateral", daemon=True).start()
        return found

    def _ahead(self, evidence: Sequence[Evidence], now_ms: int) -> None:
        try:
            for missing in self._online.fetch(evidence, now_ms).missing:
                log.warning("collateral %s of %s: %s", missing.name, missing.platform, missing.reason)
        except Exception:  # nobody waits for this, and the next appraisal starts it anew
            log.exception("collateral could not be fetched")
        finally:
            self._busy.release()
