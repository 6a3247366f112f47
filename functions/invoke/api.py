"""The resolver that the route modules register with."""

from __future__ import annotations

from hanzo_compute import wiring
from hanzo_compute.front.api import Api

api = Api(wiring.container)
