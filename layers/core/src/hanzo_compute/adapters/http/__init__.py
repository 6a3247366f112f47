"""The platform's HTTP API from the caller's side: what the CLI and the agents speak."""

from hanzo_compute.adapters.http.client import ApiClient
from hanzo_compute.adapters.http.functions import FunctionsClient
from hanzo_compute.adapters.http.jobs import JobsClient
from hanzo_compute.adapters.http.keys import HttpKeyApi, KeysClient
from hanzo_compute.adapters.http.leases import HttpLeaseApi
from hanzo_compute.adapters.http.log import ProofClient
from hanzo_compute.adapters.http.routing import RoutingClient
from hanzo_compute.adapters.http.schedules import SchedulesClient
from hanzo_compute.adapters.http.secrets import SecretsClient

__all__ = [
    "ApiClient",
    "FunctionsClient",
    "HttpKeyApi",
    "HttpLeaseApi",
    "JobsClient",
    "KeysClient",
    "ProofClient",
    "RoutingClient",
    "SchedulesClient",
    "SecretsClient",
]
