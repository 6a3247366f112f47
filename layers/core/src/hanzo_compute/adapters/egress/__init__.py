"""The way out of a sandbox: HTTP/1.1 to origins that a function was granted, at addresses that may be called.

urls        what is asked for: the URL, its origin, headers that may be sent, where a redirect goes
addresses   a name becomes addresses once; all of them must be allowed, and one of just those is connected to
wire        one request and its answer on a connection, within a deadline and a number of bytes
client      all of it together
"""

from hanzo_compute.adapters.egress.addresses import AddressPolicy
from hanzo_compute.adapters.egress.client import ClosedEgress, HttpEgress

__all__ = ["AddressPolicy", "ClosedEgress", "HttpEgress"]
