"""What holds for all tests: no property has to hold within a time, whatever else the machine does; and where changes
land, properties are tried with the same cases each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("here", _UNTIMED)
settings.register_profile("ci", _UNTIMED, derandomize=True, database=None)
settings.load_profile("ci" if "CI" in os.environ else "here")
