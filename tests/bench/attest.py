"""What an appraisal costs beside the signature checks that it cannot do without; and from challenge to key over HTTP.

Method. Recorded evidence of real hardware (`HZC_VECTORS`), appraised whole (`appraise` with the built-in baseline) in
this process. *Warm*: chains were seen before, as those of a machine that presents evidence again; for Nitro, whose leaf
is new with each document, and for NVIDIA only the authorities' certificates were, and had issued other leaves. *Cold*:
all that the verifier remembers is forgotten before each appraisal, but for AMD's authorities, which come with the
product. *Floor* is, with the same keys and in turns with the appraisals, what `cryptography` takes for the signatures
alone: of the report and, cold, of each certificate (RSA-4096-PSS and P-384 for SNP, P-384 for the others); for TDX it
is dcap-qvl, the whole of it, under its strict policy. *Parse* is, for the two whose leaf is new, what our own code
takes to read document or report and the new certificate, without one check: the bound of these two is on what is beyond
it. *Challenge to key* is one client after the other against a platform's front and its writer with synced commits:
challenge, a quote (made in this process), appraisal, key; a job of its own for each, leased and deposited before the
clock starts.

What it does not show. Collateral over the network, and many runners at once.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import dcap_qvl
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from hanzo_compute import wiring
from hanzo_compute.adapters.http import ApiClient, HttpKeyApi, HttpLeaseApi
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.attestation import appraise, builtin
from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.binding import Binding
from hanzo_compute.config import Config
from hanzo_compute.security import hpke
from hanzo_compute.security.authorizer import Role
from hanzo_compute.services import credentials, place
from hanzo_compute_agent.signing import Signer
from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, ratios, spread
from tests.bench.servers import OURS, durable, serving
from tests.support import statements
from tests.support.attested import EnrolledTpm
from tests.support.vectors import Case, case

Work = Callable[[], object]
SHIPPED = ("shipped", "authority", "_above")
"""What remembers the authorities that come with the product."""


def run(options: Options) -> Report:
    report = Report(
        "Appraisals",
        ["", "warm, µs", "cold, µs", "floor warm, µs", "floor cold, µs", "parse, µs", "warm / floor", "cold / floor"],
    )
    count = 3 if options.smoke else 200
    bounds = {"snp": (1.15, 2.0), "tdx": (1.5, None), "nitro": (2.5, 1.5), "nvidia": (2.5, 1.5)}
    if "HZC_VECTORS" not in os.environ:
        raise SystemExit("attest needs recorded evidence: set HZC_VECTORS to the folder of attestation/*/manifest.json")
    for name, subject in _subjects().items():
        options.say(f"attest {name}")
        rounds = [_round(subject, count) for _ in range(options.rounds)]
        warm, cold, floor, sum_, parse = (list(each) for each in zip(*rounds, strict=True))
        report.rows.append(
            [
                subject.what,
                *(spread([each * 1e6 for each in values]) for values in (warm, cold, floor, sum_, parse)),
                ratios(warm, floor),
                ratios(cold, sum_),
            ]
        )
        most_warm, most_cold = bounds[name]
        beyond = [whole - fixed for whole, fixed in zip(warm, parse, strict=True)]
        words = "warm beyond the parse" if subject.parse else "warm"
        report.targets.append(Target(f"{name}, {words} / {subject.floor_is}", ratios(beyond, floor), most_warm))
        if most_cold is not None:
            report.targets.append(Target(f"{name}, cold / all its signatures", ratios(cold, sum_), most_cold))
    options.say("attest: challenge to key")
    taken = _challenge_to_key(options, 5 if options.smoke else 300)
    at = {share: percentile(taken, share) * 1e3 for share in (0.5, 0.99)}
    report.notes.append(f"challenge to key over HTTP: p50 {at[0.5]:.1f} ms, p99 {at[0.99]:.1f} ms, {len(taken)} times")
    return report


class _Subject(SimpleNamespace):
    """``what`` it is, ``case``, what ``warms`` after everything was forgotten, the two floors, ``floor_is``, and
    what is the ``parse`` of a new document, if that is taken apart."""


def _round(subject: Any, count: int) -> tuple[float, float, float, float, float]:
    """Mean seconds of each, in turns."""
    totals = [0.0, 0.0, 0.0, 0.0, 0.0]
    evidence, now_ms, policy = subject.case.evidence, subject.case.now_ms, builtin("baseline")
    whole = lambda: appraise(evidence, policy, {}, now_ms)  # noqa: E731
    gc.disable()
    try:
        for _ in range(count):
            _forget()
            totals[1] += _timed(whole)
            _forget()
            subject.warms()
            totals[0] += _timed(whole)
            totals[2] += _timed(subject.floor)
            totals[3] += _timed(subject.floor_cold)
            if subject.parse:
                _forget()
                subject.warms()
                totals[4] += _timed(subject.parse)
    finally:
        gc.enable()
        gc.collect()
    return tuple(each / count for each in totals)  # type: ignore[return-value]


def _timed(work: Work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _forget() -> None:
    """Forget all that the verifier remembers, but for policies."""
    for name, module in list(sys.modules.items()):
        if name.startswith("hanzo_compute.attestation") and name != "hanzo_compute.attestation.policy":
            for each, value in vars(module).items():
                if hasattr(value, "cache_clear") and each not in SHIPPED:
                    value.cache_clear()


def _subjects() -> dict[str, Any]:
    return {"snp": _snp(), "tdx": _tdx(), "nitro": _nitro(), "nvidia": _nvidia()}


def _snp() -> Any:
    found = case("snp", "genoa-ms")
    again = lambda: appraise(found.evidence, builtin("baseline"), {}, found.now_ms)  # noqa: E731
    again()
    one = _p384()
    authority = rsa.generate_private_key(65537, 4096)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    signed = authority.sign(b"tbs", pss, hashes.SHA384())
    public = authority.public_key()
    above = lambda: public.verify(signed, b"tbs", pss, hashes.SHA384())  # noqa: E731
    return _Subject(
        what="SEV-SNP, Genoa",
        case=found,
        warms=again,
        floor=one,
        floor_cold=lambda: (one(), above()),
        floor_is="one P-384",
        parse=None,
    )


def _tdx() -> Any:
    found = case("tdx", "v4-dcapqvl")
    quote, text = found.evidence.files["quote"], found.evidence.files["collateral"].decode()
    now = found.now_ms // 1000
    policy = dcap_qvl.QuotePolicy.strict(now).allow_dynamic_platform(True).allow_cached_keys(True).allow_smt(True)

    def alone() -> None:
        collateral = dcap_qvl.QuoteCollateralV3.from_json(text)
        dcap_qvl.QuoteVerifier().verify_with_policy(quote, collateral, now, policy)

    again = lambda: appraise(found.evidence, builtin("baseline"), {}, found.now_ms)  # noqa: E731
    return _Subject(
        what="TDX, quote v4",
        case=found,
        warms=again,
        floor=alone,
        floor_cold=alone,
        floor_is="dcap-qvl alone",
        parse=None,
    )


def _nitro() -> Any:
    from hanzo_compute.attestation.nitro import document

    found = case("nitro", "nitro-2025-12-25-ef18cc")
    envelope = document.unwrap(found.evidence.files["doc"])
    bundle = document.read(envelope.payload).cabundle
    ders = [*reversed(bundle)]

    def parse() -> None:
        chains.load_one(document.read(document.unwrap(found.evidence.files["doc"]).payload).certificate)

    return _authorities("Nitro", found, ders, parse)


def _nvidia() -> Any:
    from hanzo_compute.attestation.nvidia import spdm

    found = case("nvidia", "h100-ppcie-gpu0")
    certificates = chains.load(found.evidence.files["chain"])
    ders = [each.public_bytes(chains._DER) for each in certificates[1:]]

    def parse() -> None:
        spdm.parse(found.evidence.files["report"])
        chains.load(found.evidence.files["chain"])

    return _authorities("H100, report and chain", found, ders, parse)


def _authorities(what: str, found: Case, ders: list[bytes], parse: Work) -> Any:
    """Evidence whose leaf is new each time: the certificates above it were seen."""

    used = ec.generate_private_key(ec.SECP384R1()).sign(b"", ec.ECDSA(hashes.SHA384()))

    def seen() -> None:
        known = [chains.read_one(each) for each in ders]
        chains.judge(known, now_ms=found.now_ms, leaf_signs=False)
        for each in known:  # what is remembered of one that has issued others
            _ = each.said, each.parts, each.sha256, each.subject, each.common_name, each.begin, each.end
        key = known[0].loaded.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        with contextlib.suppress(InvalidSignature):
            key.verify(used, b"another leaf", ec.ECDSA(hashes.SHA384()))

    one = _p384()
    signatures = len(ders) + 2  # each authority, the leaf, and the report
    return _Subject(
        what=what,
        case=found,
        warms=seen,
        floor=one,
        floor_cold=lambda: [one() for _ in range(signatures)],
        floor_is="one P-384",
        parse=parse,
    )


def _p384() -> Work:
    key = ec.generate_private_key(ec.SECP384R1())
    signed, public = key.sign(b"report", ec.ECDSA(hashes.SHA384())), key.public_key()
    return lambda: public.verify(signed, b"report", ec.ECDSA(hashes.SHA384()))


def _challenge_to_key(options: Options, count: int) -> list[float]:
    """Seconds of each."""
    tpm = EnrolledTpm()
    with serving(OURS, options.work / "keys") as server:
        home = options.work / "keys"
        url = f"http://127.0.0.1:{server.port}"
        requester, jobs = wiring.keys_client(url, server.key), wiring.jobs_client(url, server.key)
        requester.put_policy("default", tpm.policy())
        ctx = wiring.local(Config("local", home, url, home))
        assert isinstance(ctx.commits, WriterClient)
        runner = ApiClient(url, credentials.create(ctx, "platform", Role.RUNNER, "bench"))
        durable(ctx)
        api, leases = HttpKeyApi(runner), HttpLeaseApi(runner)
        signing = Signer(statements.VAULT, "a1").public_key
        spec = {"source": {"code": "pass", "language": "python"}, "privacy_tier": 0}
        taken = []
        for _ in range(count):
            secret = secrets.token_bytes(32)
            job = jobs.submit(spec | {"data_key": hashlib.sha256(secret).hexdigest()}).job["id"]
            requester.deposit(job, secret)
            place.place(ctx, [job])
            durable(ctx)
            (lease,) = leases.lease(statements.want("a1"), 5)
            begin = time.perf_counter()
            private, public = hpke.new_pair()
            asked = api.challenge(lease.job, lease.attempt, signing, public)
            evidence = tpm.collect(Binding(asked.nonce, signing, public))
            answer = api.key(lease.job, lease.attempt, api.present(asked.id, evidence).token)
            found = hpke.open_sealed(private, answer.sealed, hpke.info(lease.job, lease.attempt))
            taken.append(time.perf_counter() - begin)
            assert found == secret
        ctx.commits.close()
    return taken
