"""Calls handlers as Lambda does: by name, with a context, one at a time in a process.

One at a time is not a simplification: Powertools' resolvers keep the current event in a class attribute, so
that with threads nearly every call sees another caller's request. For more at a time start more processes.
"""

from __future__ import annotations

import faulthandler
import importlib
import logging
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from hanzo_compute.errors import ComputeError
from hanzo_compute_host import problems
from hanzo_compute_host.events import ACCOUNT, REGION
from hanzo_compute_host.manifest import Function, Manifest

log = logging.getLogger(__name__)

Handler = Callable[[Any, "LambdaContext"], Any]

WATCHDOG_GRACE_S: Final = 45
"""Beyond its timeout: a store whose writer is being restarted may hold a call this long."""


@dataclass(frozen=True, slots=True)
class LambdaContext:
    """What a handler can ask about its invocation; the names are Lambda's."""

    aws_request_id: str
    function_name: str
    memory_limit_in_mb: int
    invoked_function_arn: str
    function_version: str = "$LATEST"
    log_group_name: str = ""
    log_stream_name: str = ""
    client_context: None = None
    identity: None = None
    tenant_id: None = None
    deadline: float = field(default=0.0, repr=False)

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function's timeout."""
        return max(0, int((self.deadline - time.monotonic()) * 1000))


class Functions:
    """The handlers of a manifest, loaded.

    With ``watchdog`` a handler that far outlives its timeout ends the process, the stacks on stderr, as Lambda
    ends its sandbox; it takes SIGALRM, so only a process of the host's own may have it.
    """

    def __init__(self, manifest: Manifest, names: Iterable[str] | None = None, *, watchdog: bool = False) -> None:
        self._handlers: dict[str, tuple[Function, Handler]] = {}
        self._watchdog = watchdog
        self._busy = False
        for name in manifest.functions if names is None else names:
            function = manifest.functions[name]
            self._handlers[name] = (function, load(function.handler))
        if watchdog:
            # With no handler before it in the chain, the signal's default follows: the process ends.
            faulthandler.register(signal.SIGALRM, chain=True)

    def call(self, name: str, event: Any, request_id: str) -> Any:
        """What the handler returns. It blocks: on an event loop nothing else runs meanwhile, which is meant.

        Raises:
            ComputeError: the handler failed; what it raised is in the log.
        """
        function, handler = self._handlers[name]
        return self._guarded(function, lambda: handler(event, _context(function, request_id)), request_id)

    def go_on(self, name: str, step: Callable[[], Any], request_id: str) -> Any:
        """The rest of a handler's work, after what it has waited for. Raises as :meth:`call`."""
        return self._guarded(self._handlers[name][0], step, request_id)

    def _guarded(self, function: Function, step: Callable[[], Any], request_id: str) -> Any:
        name = function.name
        if self._busy:
            raise RuntimeError("handlers run one at a time: not from within another, nor in threads")
        self._busy = True
        if self._watchdog:
            signal.setitimer(signal.ITIMER_REAL, function.timeout_s + WATCHDOG_GRACE_S)
        try:
            return step()
        except ComputeError as error:
            log.warning("%s refused request %s: %s", name, request_id, error.message)
            raise
        except (Exception, SystemExit):
            log.exception("%s failed on request %s", name, request_id)
            raise problems.defect() from None
        finally:
            self._busy = False
            if self._watchdog:
                signal.setitimer(signal.ITIMER_REAL, 0)


def load(path: str) -> Handler:
    """The handler that ``package.module.function`` names."""
    module, _, name = path.rpartition(".")
    handler = getattr(importlib.import_module(module), name)
    if not callable(handler):
        raise TypeError(f"{path} is not callable")
    return cast("Handler", handler)


def _context(function: Function, request_id: str) -> LambdaContext:
    return LambdaContext(
        aws_request_id=request_id,
        function_name=function.name,
        memory_limit_in_mb=function.memory_mib,
        invoked_function_arn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function.name}",
        log_group_name=f"/aws/lambda/{function.name}",
        deadline=time.monotonic() + function.timeout_s,
    )
