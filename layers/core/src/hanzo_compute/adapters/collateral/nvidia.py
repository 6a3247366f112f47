"""NVIDIA's services: reference values (RIM) by their name, and certificate status (OCSP, RFC 6960)."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp as asking

from hanzo_compute.adapters.collateral.getter import Getter
from hanzo_compute.adapters.collateral.trust import milliseconds, rooted, texts
from hanzo_compute.adapters.collateral.wanted import Answer, Job, Kept, Request, Unfit, Wanted
from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.nvidia import device, ocsp, rim, roots, spdm, xmldsig
from hanzo_compute.attestation.pins import NVIDIA_RIM
from hanzo_compute.attestation.x509 import Cert

NONCE_SIZE: Final = 32
RIM_ANSWER_MAX: Final = 2 * xmldsig.DOCUMENT_MAX
"""Bytes: a document in base64, in JSON."""
_ID_MAX: Final = 128
Pair = tuple[x509.Certificate, x509.Certificate]
"""A certificate and its issuer."""


@dataclass(frozen=True, slots=True)
class Nvidia:
    """The services, and the roots by which answers are told from lies before they are kept."""

    getter: Getter
    rim_url: str
    ocsp_url: str
    anchors: tuple[bytes, ...] = ()
    nonce: Callable[[int], bytes] = secrets.token_bytes

    def jobs(self, files: Mapping[str, bytes]) -> list[Job]:
        """What a device needs and does not carry. Raises Unreadable.

        Reference values first (``driver_rim-*``, ``vbios_rim-*``); then, for all chains at hand, a response for each
        certificate that NVIDIA issued (``ocsp-*``). Devices of one kind need the same files, under the same names.
        """
        if "report" not in files or "chain" not in files:
            raise Unreadable("there is no report, or no chain")
        chain = self._loaded(files["chain"])
        report = spdm.parse(files["report"])
        # The first is by the device's own firmware, and no responder knows it.
        pairs = [*pairwise(each.loaded for each in chain[1:])]
        jobs = []
        for name, rim_id in device.rim_ids(report, device.device(report, chain)).items():
            carried = [data for file, data in files.items() if file == name or file.startswith(f"{name}-")]
            pairs += [pair for data in carried for pair in self._of_rim(data)]
            if not carried and len(rim_id) <= _ID_MAX:
                jobs.append(self._rim_job(name, rim_id))
        given = [*_responses(files)]
        return jobs + [self._ocsp_job(*pair) for pair in pairs if not any(ocsp.about(each, *pair) for each in given)]

    def _rim_job(self, name: str, rim_id: str) -> Job:
        def get(now_ms: int, until: float) -> bytes:
            return self.rim(rim_id, now_ms, until)

        return Job(f"{name}-{hashlib.sha256(rim_id.encode()).hexdigest()[:16]}", get)

    def _ocsp_job(self, certificate: x509.Certificate, issuer: x509.Certificate) -> Job:
        def get(now_ms: int, until: float) -> bytes:
            return self.status(certificate, issuer, now_ms, until)

        return Job(f"ocsp-{_name(certificate, issuer)[:16]}", get)

    def rim(self, rim_id: str, now_ms: int, until: float) -> bytes:
        """Reference values (XML) by their name; they are kept until a certificate of their chain ends.

        Raises:
            Unobtainable: they cannot be had.
        """

        def admit(answer: Answer) -> Kept:
            named, text, digest = texts(answer.body, "id", "rim", "sha256")
            if named != rim_id:
                raise Unfit(f"it has {named[:_ID_MAX]}")
            data = base64.b64decode(text, validate=True)
            if hashlib.sha256(data).hexdigest() != digest.lower():
                raise Unfit("the document is not of the digest beside it")
            read = rim.parse(data)
            if not (read.digest_ok and read.signature_ok):
                raise Unfit("the document's signature does not hold")
            chain = roots.completed(read.certificates, roots.RIM, self.anchors)
            rooted([each.loaded for each in chain], NVIDIA_RIM, self.anchors)
            return Kept(data, min(milliseconds(each.end) for each in chain))

        url = f"{self.rim_url}/v1/rim/{quote(rim_id, safe='')}"
        request = Request(url, RIM_ANSWER_MAX, "application/json")
        return self.getter.get(Wanted(f"the reference values {rim_id}", "nvidia-rim", request, admit), now_ms, until)

    def status(self, certificate: x509.Certificate, issuer: x509.Certificate, now_ms: int, until: float) -> bytes:
        """An OCSP response (DER), which answers a nonce of ours; it is kept until its next update.

        Raises:
            Unobtainable: it cannot be had.
        """
        nonce = self.nonce(NONCE_SIZE)

        def admit(answer: Answer) -> Kept:
            response = ocsp.load(answer.body)
            if response.response_status is not asking.OCSPResponseStatus.SUCCESSFUL:
                raise Unfit(f"the responder says {response.response_status.name}")
            about = ocsp.about(response, certificate, issuer)
            if not about:
                raise Unfit("the response is about another certificate")
            if problem := ocsp.signer_problem(response, issuer, about[0].this_update_utc):
                raise Unfit(problem)
            if ocsp.nonce_of(response) != nonce:
                raise Unfit("the response does not answer the nonce")
            ends = [each.next_update_utc for each in about]
            return Kept(answer.body, min(milliseconds(end) if end else 0 for end in ends))

        builder = asking.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA384())
        body = builder.add_extension(x509.OCSPNonce(nonce), False).build()
        request = Request(
            self.ocsp_url + "/",
            ocsp.RESPONSE_MAX,
            "application/ocsp-response",
            body.public_bytes(serialization.Encoding.DER),
            "application/ocsp-request",
        )
        what = f"the status of {certificate.subject.rfc4514_string()}"
        key = f"{request.url}#{_name(certificate, issuer)}"
        return self.getter.get(Wanted(what, "nvidia-ocsp", request, admit, name=key), now_ms, until)

    def _loaded(self, pem: bytes) -> tuple[Cert, ...]:
        try:
            return roots.completed(chains.read(pem), roots.DEVICE, self.anchors)
        except ValueError as error:
            raise Unreadable(f"the chain cannot be read: {error}") from None

    def _of_rim(self, data: bytes) -> Sequence[Pair]:
        try:
            chain = roots.completed(rim.parse(data).certificates, roots.RIM, self.anchors)
            return [*pairwise(each.loaded for each in chain)]
        except Unreadable:
            return []


def _responses(files: Mapping[str, bytes]) -> Iterator[asking.OCSPResponse]:
    for name, data in files.items():
        if name == "ocsp" or name.startswith("ocsp-"):
            try:
                yield ocsp.load(data)
            except Unreadable:
                continue


def _name(certificate: x509.Certificate, issuer: x509.Certificate) -> str:
    return hashlib.sha256((chains.fingerprint(certificate) + chains.fingerprint(issuer)).encode()).hexdigest()
