"""Settings of a process: one frozen object, read from the environment once and checked at start."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import tariff as tariffs
from hanzo_compute.model.tariff import DEFAULT, Tariff

HLLM: Final = "hllm"
LEAST_LOADED: Final = "least_loaded"
POOLS_MAX: Final = 64

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Pool:
    """A set of agents of one form that lease from the same line."""

    name: str
    runtimes: frozenset[str]
    tier: int = 0
    """The privacy tier that its agents prove: jobs that ask for more are not placed here."""


@dataclass(frozen=True)
class Policy:
    """Times and counts by which jobs move. Milliseconds unless the name says otherwise."""

    pools: tuple[Pool, ...] = (Pool("local", frozenset({"wasm"})),)
    """Where jobs can be placed."""
    lease_ms: int = 15_000
    """A lease lapses this long after it was made or last renewed."""
    resend_ms: int = 30_000
    """A job that waits for a message this long gets it sent again."""
    outbox_ms: int = 2_000
    """Outbox rows older than this are sent by the reconciler."""
    key_epoch: int = 1
    """Part of what data keys are wrapped for: a new one is for new keys, old ones open as they were."""
    deadline_grace_ms: int = 2_000
    """The agent ends a run at its deadline; this much later the reconciler asks for it."""
    follow_ms: int = 30_000
    """A log stays followed this long after somebody last read it."""
    max_lapses: int = 5
    """Attempts in a row that the platform may lose before the job is dead."""
    lapse_backoff_ms: int = 1_000
    """Wait before the attempt after a lapse; doubles with each further one."""
    idempotency_ms: int = 24 * 3600 * 1000
    """How long an idempotency key is remembered."""
    audit_ms: int = 90 * 24 * 3600 * 1000
    """How long it is remembered which call has read a secret."""
    waiting_max: int = 50_000
    """Jobs of all tenants that may wait to run (queued, placed, retrying); beyond it nothing is accepted."""
    tenant_waiting_max: int = 10_000
    """Jobs of one tenant that may wait to run."""
    routing: str = HLLM
    """How pools are chosen (``HZC_ROUTING``): ``hllm``, by what was learnt of them, or ``least_loaded``."""
    begin_ms: int = 10_000
    """A job that an agent begins within this time of its placement has been served as it should."""
    snapshot_ms: int = 5_000
    """What was learnt is read again once it is this old."""
    telemetry_ms: int = 30_000
    """Interval of the records from which regimes are learnt."""
    refit_ms: int = 24 * 3600 * 1000
    """Time between two fits of the regimes."""
    attested_ms: int = 24 * 3600 * 1000
    """A pool whose agents proved a tier longer ago than this comes behind one where they did since."""


@dataclass(frozen=True)
class Collateral:
    """Which services collateral is asked of; a mirror takes the place of a vendor's, and is trusted no more."""

    amd_url: str = "https://kdsintf.amd.com"
    """AMD's key distribution service (``HZC_KDS_URL``)."""
    intel_url: str = "https://api.trustedservices.intel.com"
    """Intel's provisioning certification service, or a caching one, a PCCS (``HZC_PCS_URL``)."""
    intel_root_crl_url: str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
    """The revocation list of Intel's root: of a caching service if one is named."""
    rim_url: str = "https://rim.attestation.nvidia.com"
    """NVIDIA's reference values (``HZC_RIM_URL``)."""
    ocsp_url: str = "https://ocsp.ndis.nvidia.com"
    """NVIDIA's certificate status (``HZC_OCSP_URL``)."""
    offline: bool = False
    """Nothing is asked for: the cache is all there is (``HZC_COLLATERAL=offline``)."""


@dataclass(frozen=True)
class Config:
    """Where this process finds the rest of the platform."""

    backend: str
    """``local``: SQLite and files under ``home``."""
    home: Path
    """State folder (``HZC_HOME``)."""
    base_url: str
    """What clients and agents call (``HZC_BASE_URL``); presigned URLs start with it."""
    cache: Path
    """Interpreters and compiled modules (``HZC_CACHE``), shared by the platforms of one user."""
    guest_workers: int = 4
    """Worker processes for calls of functions in each front (``HZC_GUEST_WORKERS``)."""
    strict_tenants: bool = False
    """No worker process serves two tenants (``HZC_STRICT_TENANTS``)."""
    policy: Policy = field(default_factory=Policy)
    tariff: Tariff = DEFAULT
    """What jobs cost (``HZC_TARIFF``, else ``tariff.toml`` in the state folder, else the built-in one)."""
    egress: bool = True
    """Whether functions may call other hosts at all (``HZC_EGRESS``)."""
    egress_allow: tuple[Network, ...] = ()
    """Networks besides the internet in which they may (``HZC_EGRESS_ALLOW``)."""
    collateral: Collateral = field(default_factory=Collateral)


def default_cache(environ: Mapping[str, str]) -> Path:
    """``HZC_CACHE``, else the XDG cache folder."""
    if environ.get("HZC_CACHE"):
        return Path(environ["HZC_CACHE"])
    try:
        base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:
        raise InvalidRequest("this user has no home folder", hint="set HZC_CACHE") from None
    return Path(base) / "hanzo-compute"


def _policy(environ: Mapping[str, str]) -> Policy:
    default = Policy()
    return Policy(
        waiting_max=_count(environ, "HZC_WAITING_MAX", default.waiting_max),
        tenant_waiting_max=_count(environ, "HZC_TENANT_WAITING_MAX", default.tenant_waiting_max),
        key_epoch=_count(environ, "HZC_KEY_EPOCH", default.key_epoch),
        pools=_pools(environ),
        routing=_routing(environ),
    )


def pool_names(environ: Mapping[str, str]) -> list[str]:
    """The pools of ``HZC_POOLS``, else the one there is.

    Raises:
        InvalidRequest: they are no names.
    """
    given = environ.get("HZC_POOLS") or ""
    names = [name.strip() for name in given.split(",")] if given else [Policy().pools[0].name]
    wrong = [name for name in names if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name)]
    if wrong or len(set(names)) < len(names) or len(names) > POOLS_MAX:
        raise InvalidRequest(
            f"HZC_POOLS is {given[:80]!r}",
            hint=f"give up to {POOLS_MAX} names like local,spare, each once: small letters, digits and hyphens",
        )
    return names


def _pools(environ: Mapping[str, str]) -> tuple[Pool, ...]:
    tier, like = _tier(environ), Policy().pools[0]
    return tuple(replace(like, name=name, tier=tier) for name in pool_names(environ))


def _routing(environ: Mapping[str, str]) -> str:
    given = environ.get("HZC_ROUTING") or HLLM
    if given not in (HLLM, LEAST_LOADED):
        raise InvalidRequest(f"HZC_ROUTING is {given[:40]!r}", hint=f"it is {HLLM}, or {LEAST_LOADED}")
    return given


def _tier(environ: Mapping[str, str]) -> int:
    text = environ.get("HZC_POOL_TIER") or "0"
    if text not in ("0", "1", "2", "3", "4"):
        raise InvalidRequest(f"HZC_POOL_TIER is {text[:40]!r}", hint="give the tier that its agents prove: 0 to 4")
    return int(text)


def _tariff(environ: Mapping[str, str], home: Path) -> Tariff:
    given = environ.get("HZC_TARIFF")
    path = Path(given) if given else home / "tariff.toml"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if given:
            raise InvalidRequest(
                f"HZC_TARIFF names {path}, which is not there", hint="correct it, or unset it"
            ) from None
        return DEFAULT
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the tariff {path} cannot be read: {error}") from None
    return tariffs.parse(text, str(path))


@dataclass(frozen=True)
class WayOut:
    """How far functions reach other hosts from a machine: as :class:`Config` says it of the platform's own."""

    egress: bool = True
    egress_allow: tuple[Network, ...] = ()


def way_out(environ: Mapping[str, str]) -> WayOut:
    """The way out of an agent. Raises InvalidRequest."""
    return WayOut(_egress(environ), _networks(environ))


def _egress(environ: Mapping[str, str]) -> bool:
    given = environ.get("HZC_EGRESS") or "public"
    if given not in ("off", "public"):
        raise InvalidRequest(f"HZC_EGRESS is {given[:40]!r}", hint="it is public, or off: functions then call no host")
    return given == "public"


def _networks(environ: Mapping[str, str]) -> tuple[Network, ...]:
    found = []
    for text in filter(None, map(str.strip, environ.get("HZC_EGRESS_ALLOW", "").split(","))):
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            raise InvalidRequest(
                f"HZC_EGRESS_ALLOW has {text[:60]!r}, which is no network",
                hint="give networks like 10.1.0.0/16,fd12:3456::/48, without bits behind the prefix",
            ) from None
    return tuple(found)


def _collateral(environ: Mapping[str, str]) -> Collateral:
    given = environ.get("HZC_COLLATERAL") or "online"
    if given not in ("online", "offline"):
        raise InvalidRequest(
            f"HZC_COLLATERAL is {given[:40]!r}", hint="it is online, or offline: only the cache is used"
        )
    default = Collateral()
    intel_url = _service(environ, "HZC_PCS_URL", default.intel_url)
    caching = intel_url != default.intel_url
    return Collateral(
        amd_url=_service(environ, "HZC_KDS_URL", default.amd_url),
        intel_url=intel_url,
        # Intel has the list at an address of its own; caching services hand it out beside the rest.
        intel_root_crl_url=f"{intel_url}/sgx/certification/v4/rootcacrl" if caching else default.intel_root_crl_url,
        rim_url=_service(environ, "HZC_RIM_URL", default.rim_url),
        ocsp_url=_service(environ, "HZC_OCSP_URL", default.ocsp_url),
        offline=given == "offline",
    )


def _service(environ: Mapping[str, str], name: str, default: str) -> str:
    """The address of a service: https, or http on this machine."""
    url = (environ.get(name) or default).rstrip("/")
    scheme, host = "", ""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.port != 0:
            scheme, host = parts.scheme, parts.hostname or ""
    local = host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
    plain = url.isascii() and url.isprintable() and not set(url) & set(" ?#@")
    if not host or not plain or scheme not in (("http", "https") if local else ("https",)):
        raise InvalidRequest(
            f"{name} is {url[:80]!r}", hint="give an address like https://pccs.example:8081; http only on this machine"
        )
    return url


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise InvalidRequest(f"{name} is {text[:40]!r}", hint="give a whole number from 1 to 999999999")
    return int(text)


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check the settings.

    Raises:
        InvalidRequest: a variable is missing or wrong; the message names it.
    """
    backend = environ.get("HZC_BACKEND", "local")
    if backend != "local":
        raise InvalidRequest(f"HZC_BACKEND is {backend!r}", hint="this release has one back end: local")
    home = environ.get("HZC_HOME")
    if not home:
        raise InvalidRequest("HZC_HOME is not set", hint="set it to the platform's state folder")
    return Config(
        backend=backend,
        home=Path(home).absolute(),
        base_url=environ.get("HZC_BASE_URL", "http://127.0.0.1:8787").rstrip("/"),
        cache=default_cache(environ).absolute(),
        guest_workers=_count(environ, "HZC_GUEST_WORKERS", 4),
        strict_tenants=environ.get("HZC_STRICT_TENANTS", "") not in ("", "0"),
        policy=_policy(environ),
        tariff=_tariff(environ, Path(home)),
        egress=_egress(environ),
        egress_allow=_networks(environ),
        collateral=_collateral(environ),
    )
