"""AMD's key distribution service (AMD 57230, chapter 4), or a mirror of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hanzo_compute.adapters.collateral.getter import Getter
from hanzo_compute.adapters.collateral.trust import revocations, rooted, together
from hanzo_compute.adapters.collateral.wanted import Answer, Job, Kept, Request, Unfit, Unobtainable, Wanted
from hanzo_compute.attestation import pins
from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.snp import chain as paths
from hanzo_compute.attestation.snp import endorsements, products, report, vek
from hanzo_compute.attestation.snp.products import Line
from hanzo_compute.attestation.snp.report import Report

CERTIFICATE_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Amd:
    """The service, and the roots by which answers are told from lies before they are kept."""

    getter: Getter
    url: str
    anchors: tuple[bytes, ...] = ()

    def jobs(self, files: Mapping[str, bytes]) -> list[Job]:
        """What a report needs and does not carry: ``vek`` and ``chain``, and ``crl``. Raises Unreadable."""
        if "report" not in files:
            raise Unreadable("there is no report")
        said, key = report.parse(files["report"]), endorsements.take(files).key
        jobs = []
        if key is None:
            jobs.append(Job("vek", lambda now_ms, until: self._vek(said, now_ms, until)))
            # The product has the chains of today; one that AMD makes anew comes with the key.
            jobs.append(Job("chain", lambda now_ms, until: self._above(said, key, now_ms, until)))
        if "crl" not in files:
            jobs.append(Job("crl", lambda now_ms, until: self._crl(said, key, now_ms, until)))
        return [job for job in jobs if job.name not in files]

    def _vek(self, said: Report, now_ms: int, until: float) -> bytes:
        if said.signing_key == "VLEK":
            raise Unobtainable("a VLEK's certificate is given to its cloud provider alone: the evidence must bring it")
        if said.signing_key != "VCEK":
            raise Unobtainable("the report does not name a key of a chip as its signer")
        if said.masked:
            raise Unobtainable("the report hides its chip id, without which its key cannot be asked for")
        failed = []
        for line in _lines(said):
            try:
                return self._vcek(said, line, now_ms, until)
            except Unobtainable as error:
                failed.append(error)
        raise together(failed)

    def _vcek(self, said: Report, line: Line, now_ms: int, until: float) -> bytes:
        """The certificate (DER) of the key of this chip, at the TCB version that the report names."""
        above: tuple[bytes, ...] = ()
        with suppress(Unobtainable):
            pem = self.chain("vcek", line, now_ms, until)
            above = tuple(each.public_bytes(serialization.Encoding.DER) for each in chains.load(pem))
        chip = said.chip_id[: line.chip_id_size]
        levels = products.components(said.reported_tcb, line)

        def admit(answer: Answer) -> Kept:
            found = vek.parse(answer.body)
            if found.line is not line or found.hardware_id != chip:
                raise Unfit("it is the certificate of another chip")
            if products.components(found.tcb or bytes(8), line) != levels:
                raise Unfit("it is a certificate for another TCB version")
            if not paths.of(answer.body, above, self.anchors).rooted:
                raise Unfit("its chain does not end in a trusted root")
            return Kept(answer.body, None)

        query = urlencode({f"{name}SPL": f"{level:02d}" for name, level in levels.items()})
        request = Request(f"{self.url}/vcek/v1/{line}/{chip.hex()}?{query}", CERTIFICATE_MAX)
        return self.getter.get(Wanted("the VCEK", "amd", request, admit, line=chip.hex()), now_ms, until)

    def chain(self, kind: str, line: Line, now_ms: int, until: float) -> bytes:
        """The certificates above a ``vcek`` or ``vlek``: ASK or ASVK, and ARK, as PEM. Raises Unobtainable."""
        subject = f"SEV-{line}" if kind == "vcek" else f"SEV-VLEK-{line}"

        def admit(answer: Answer) -> Kept:
            found = chains.load(answer.body)
            rooted(found, pins.AMD, self.anchors)
            if [_common_name(each) for each in found] != [subject, f"ARK-{line}"]:
                raise Unfit(f"it is not the chain of {subject}")
            return Kept(answer.body, None)

        request = Request(f"{self.url}/{kind}/v1/{line}/cert_chain", CERTIFICATE_MAX)
        wanted = Wanted(f"the chain of {subject}", "amd", request, admit, line=f"{kind} {line} chain")
        return self.getter.get(wanted, now_ms, until)

    def _above(self, said: Report, key: bytes | None, now_ms: int, until: float) -> bytes:
        return self.chain(_kind(said), self._line(said, key, now_ms, until), now_ms, until)

    def _crl(self, said: Report, key: bytes | None, now_ms: int, until: float) -> bytes:
        """The list (DER) of ASKs or ASVKs that the line's ARK has revoked."""
        kind, line = _kind(said), self._line(said, key, now_ms, until)
        mine = [each for anchor in self.anchors for each in chains.load(anchor)]
        roots = [
            each
            for each in (*(ours.certificate for ours in paths.shipped()), *mine)
            if _common_name(each) == f"ARK-{line}"
        ]

        def admit(answer: Answer) -> Kept:
            return Kept(*revocations(answer.body, roots))

        request = Request(f"{self.url}/{kind}/v1/{line}/crl", endorsements.CRL_MAX)
        wanted = Wanted(f"the revocation list of ARK-{line}", "amd", request, admit, line=f"{kind} {line} crl")
        return self.getter.get(wanted, now_ms, until)

    def _line(self, said: Report, key: bytes | None, now_ms: int, until: float) -> Line:
        """The product line of the report, or of its key: reports of version 2 do not say."""
        if said.line is not None:
            return said.line
        if said.has_cpuid:
            raise Unobtainable(f"no product is known of family {said.family:#x}, model {said.model:#x}")
        try:
            return vek.parse(key or self._vek(said, now_ms, until)).line
        except ValueError as error:
            raise Unobtainable(f"the certificate of the key cannot be read: {error}") from None


def _lines(said: Report) -> tuple[Line, ...]:
    if not said.has_cpuid:
        return (Line.MILAN, Line.GENOA)  # there were no others when reports had version 2
    if said.line is None:
        raise Unobtainable(f"no product is known of family {said.family:#x}, model {said.model:#x}")
    return (said.line,)


def _kind(said: Report) -> str:
    return "vlek" if said.signing_key == "VLEK" else "vcek"


def _common_name(certificate: x509.Certificate) -> str:
    return "".join(str(each.value) for each in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))
