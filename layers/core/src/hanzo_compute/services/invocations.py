"""Invocations wait here, in the memory of the process that answered them, and are written in batches.

What was answered and not written when its process dies is lost: no receipt tells of it, and nobody pays for it.
"""

from __future__ import annotations

import logging
from typing import Final

from hanzo_compute.errors import ComputeError, InternalError, Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.invocation import ID, Invocation
from hanzo_compute.model.keys import Key
from hanzo_compute.model.outcome import Category
from hanzo_compute.services import batches, log
from hanzo_compute.services.batches import Sealed
from hanzo_compute.services.context import Context

__all__ = ["Batcher", "Invocation"]

FLUSH_MS: Final = 1000
"""From one flush to the next, unless many wait."""
PROMPT: Final = 128
"""So many are flushed before that time: they are written in some milliseconds, while nobody is answered."""
HELD_MAX: Final = 65_536
"""Invocations that wait while the store cannot be written: with more than these no further ones should be run."""

_log = logging.getLogger(__name__)


class Batcher:
    """One process's invocations. ``name``: that of its agent is ``invoke-`` and this, and so is that of its key.

    One thread at a time. A batch is kept until it has been read back, as what was only applied may be lost; it is
    written again as it was, so it is there once.
    """

    def __init__(self, name: str) -> None:
        self.agent = f"invoke-{name}"
        self._pending: dict[str, Invocation] = {}
        self._sealed: list[Sealed] = []
        """Batches that may have been written, or not."""
        self._written: list[Sealed] = []
        """Batches that have been applied, and not been seen to be durable."""
        self._newest: Key | None = None
        """The leaf that was written last, until a checkpoint covers it."""
        self._flushed_ms = 0

    def add(self, invocation: Invocation) -> None:
        """Take an invocation that was answered. What the platform failed to run is not billed, and has no receipt.

        Raises:
            ValueError: its id is none of an invocation.
        """
        if not ID.fullmatch(invocation.id):
            raise ValueError(f"{invocation.id!r} is not i- and a ULID")
        if invocation.outcome.category is not Category.PLATFORM:
            self._pending[invocation.id] = invocation

    @property
    def full(self) -> bool:
        """Whether so many wait that further invocations should be refused: they might never be billed."""
        return len(self._pending) + sum(len(each.ids) for each in self._sealed) >= HELD_MAX

    @property
    def waits(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._pending or self._sealed or self._written or self._newest)

    def due(self, now_ms: int) -> bool:
        """Whether it is time to flush: also when nothing is left to write, and somebody must see to a checkpoint."""
        if len(self._pending) >= PROMPT and not self._sealed:
            return True
        return self.waits and not self._flushed_ms <= now_ms < self._flushed_ms + FLUSH_MS

    def flush(self, ctx: Context) -> list[str]:
        """Write what waits; returns the ids that were written, some of them once more if they had been lost.

        Then their leaves get their places in the log.

        Raises:
            PermissionDenied, Conflict: the agent's name has another key; nothing is lost, nothing is written.
            Unavailable: nothing was written that is known of, and nothing is lost: flush again when it is due.
        """
        self._flushed_ms = ctx.clock.now_ms()
        batches.introduce(ctx, self.agent)
        self._confirm(ctx)
        done: list[str] = []
        try:
            self._write(ctx, done)
            for part in batches.cut([*self._pending.values()]):
                self._sealed.append(batches.seal(ctx, self.agent, part))
                for _, each in part:
                    del self._pending[each.id]
                self._write(ctx, done)
        except Unavailable as error:
            if not done:
                raise
            _log.warning("invocations wait to be written: %s", error.message)
        if self._newest is not None:
            try:
                log.sequence(ctx)
            except ComputeError as error:  # the next flush does it, or the reconciler
                _log.warning("the transparency log waits: %s", error.message)
        return done

    def _write(self, ctx: Context, done: list[str]) -> None:
        while self._sealed:
            sealed = self._sealed[0]
            try:
                batches.write(ctx, sealed)
            except InternalError as error:
                _log.error("a batch of %d invocations is dropped: %s", len(sealed.ids), error.message)
                self._sealed.remove(sealed)
                continue
            self._sealed.remove(sealed)
            self._written.append(sealed)
            self._newest = sealed.leaf.key
            done += sealed.ids

    def _confirm(self, ctx: Context) -> None:
        """Forget batches that are durable; those that were lost are to be written again."""
        for sealed in [*self._written]:
            if ctx.store.get(sealed.leaf.key) is not None:
                self._written.remove(sealed)
            elif ctx.store.get(sealed.leaf.key, fresh=True) is None:
                self._written.remove(sealed)
                self._sealed.append(sealed)
        if self._newest is not None:
            leaf, newest = ctx.store.get(self._newest), ctx.store.get(keys.checkpoint())
            place = None if leaf is None else leaf.body.get("index")
            if place is not None and newest is not None and place < newest.body["size"]:
                self._newest = None
