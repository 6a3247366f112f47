"""What every process of the host does first."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Final

from hanzo_compute_host import manifest
from hanzo_compute_host.manifest import Manifest

if TYPE_CHECKING:
    from hanzo_compute.wiring import Container

# Powertools looks for AWS unless it is told that there is none.
OFF_AWS: Final = {
    "AWS_DEFAULT_REGION": "local",
    "AWS_REGION": "local",
    "POWERTOOLS_DEV": "0",
    "POWERTOOLS_TRACE_DISABLED": "1",
}


def prepare() -> Manifest:
    """Set up logging and the handlers' environment; returns the manifest. What the operator has set stays."""
    host = manifest.load()
    for name, value in {**OFF_AWS, **host.environment()}.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("POWERTOOLS_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    return host


def container() -> Container:
    """The container of this process and its handlers, which is told whom to wake."""
    # The supervisor, which imports this module too, has no use for the core and what that loads.
    from hanzo_compute import config, wiring

    limits = {source.name: source.max_receives for source in manifest.load().queues}
    made = wiring.local(config.load(), wakes=True, max_receives=limits)
    wiring.install(made)
    return made
