"""What the agent must still know of an attempt's log after a restart: which range it was about to send."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from hanzo_compute.ports import Handle


@dataclass(frozen=True, slots=True)
class Shipment:
    """The log chunk ``seq`` holds the entries from cursor ``start`` to cursor ``end``."""

    seq: int = 0
    start: int = 0
    end: int = 0


class Journal(Protocol):
    """Remembers the last shipment of each attempt, written before it is sent."""

    def last(self, handle: Handle) -> Shipment:
        """The last shipment; number 0 when there was none."""
        ...

    def intend(self, handle: Handle, shipment: Shipment) -> None:
        """About to send this."""
        ...

    def forget(self, handle: Handle) -> None:
        """The attempt is over."""
        ...

    def keep_only(self, handles: Collection[Handle]) -> None:
        """These are all the attempts that there are: forget every other, whose end an earlier process did not see."""
        ...


class FileJournal:
    """One small file for each attempt that sent log chunks before its end."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def _path(self, handle: Handle) -> Path:
        return self._folder / f"{handle.job}.{handle.attempt}.json"

    def last(self, handle: Handle) -> Shipment:
        """The last shipment; number 0 when there was none."""
        try:
            return Shipment(**json.loads(self._path(handle).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return Shipment()

    def intend(self, handle: Handle, shipment: Shipment) -> None:
        """About to send this. Survives the death of the process; a power cut ends the attempt anyway."""
        path = self._path(handle)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(shipment)))
        fresh.replace(path)

    def forget(self, handle: Handle) -> None:
        """The attempt is over."""
        self._path(handle).unlink(missing_ok=True)

    def keep_only(self, handles: Collection[Handle]) -> None:
        """These are all the attempts that there are: forget every other, whose end an earlier process did not see."""
        kept = {self._path(handle) for handle in handles}
        for path in self._folder.iterdir():
            if path not in kept:
                path.unlink(missing_ok=True)
