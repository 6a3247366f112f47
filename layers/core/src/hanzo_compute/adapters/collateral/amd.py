"""AMD's key distribution service (AMD 57230, chapter 4), or a mirror of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from cryptography import x509

from hanzo_compute.adapters.collateral.getter import Getter
from hanzo_compute.adapters.collateral.trust import revocations, rooted
from hanzo_compute.adapters.collateral.wanted import Answer, Kept, Request, Unfit, Unobtainable, Wanted
from hanzo_compute.attestation import pins
from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.snp import products, vek
from hanzo_compute.attestation.snp.products import Line
from hanzo_compute.attestation.snp.report import Report

URL: Final = "https://kdsintf.amd.com"
CERTIFICATE_MAX: Final = 16 * 1024
CRL_MAX: Final = 1024 * 1024


def lines(report: Report) -> tuple[Line, ...]:
    """The product lines that a report may be of: version 2 does not say, and knew two."""
    if not report.has_cpuid:
        return (Line.MILAN, Line.GENOA)
    return () if report.line is None else (report.line,)


@dataclass(frozen=True, slots=True)
class Amd:
    """The service, and the roots by which answers are told from lies before they are kept."""

    getter: Getter
    url: str = URL
    anchors: tuple[bytes, ...] = ()

    def vcek(self, report: Report, line: Line, now_ms: int, until: float) -> bytes:
        """The certificate (DER) of the key of this chip, at the TCB version that the report names.

        Raises:
            Unobtainable: it cannot be had, or there is none to be asked for.
        """
        if report.signing_key == "VLEK":
            raise Unobtainable("a VLEK is handed out only to the cloud provider: its evidence carries the certificate")
        if report.signing_key != "VCEK":
            raise Unobtainable("the report is signed by no key of a chip")
        if report.masked:
            raise Unobtainable("the report hides its chip id, and so the key cannot be asked for")
        signer = self._chain("vcek", line, now_ms, until)[0]
        chip = report.chip_id[: line.chip_id_size]
        levels = products.components(report.reported_tcb, line)
        query = urlencode({f"{name}SPL": f"{level:02d}" for name, level in levels.items()})
        request = Request(f"{self.url}/vcek/v1/{line}/{chip.hex()}?{query}", CERTIFICATE_MAX)

        def admit(answer: Answer) -> Kept:
            found = vek.parse(answer.body)
            if found.hardware_id != chip or found.line is not line:
                raise Unfit("it is the certificate of another chip")
            if products.components(found.tcb() or bytes(8), line) != levels:
                raise Unfit("it is a certificate for another TCB version")
            if not found.signed_by(signer.public_key()):
                raise Unfit(f"it is not signed by {signer.subject.rfc4514_string()}")
            return Kept(answer.body, None)

        return self.getter.get(Wanted("the VCEK", "amd", request, admit, line=chip.hex()), now_ms, until)

    def chain(self, kind: str, line: Line, now_ms: int, until: float) -> bytes:
        """The certificates above a ``vcek`` or ``vlek``: ASK or ASVK, and ARK, as PEM. Raises Unobtainable."""

        def admit(answer: Answer) -> Kept:
            found = chains.load(answer.body)
            rooted(found, pins.AMD, self.anchors)
            if len(found) != 2 or f"-{line}" not in found[0].subject.rfc4514_string():
                raise Unfit(f"it is no chain of {line}")
            return Kept(answer.body, None)

        request = Request(f"{self.url}/{kind}/v1/{line}/cert_chain", CERTIFICATE_MAX)
        wanted = Wanted(f"the {kind.upper()} chain of {line}", "amd", request, admit, line=f"{kind} {line}")
        return self.getter.get(wanted, now_ms, until)

    def crl(self, kind: str, line: Line, now_ms: int, until: float) -> bytes:
        """The revocation list (DER) of the authority above. Raises Unobtainable."""
        root = self._chain(kind, line, now_ms, until)[1]

        def admit(answer: Answer) -> Kept:
            return Kept(*revocations(answer.body, root))

        request = Request(f"{self.url}/{kind}/v1/{line}/crl", CRL_MAX)
        wanted = Wanted(f"the {kind.upper()} revocation list of {line}", "amd", request, admit, line=f"{kind} {line}")
        return self.getter.get(wanted, now_ms, until)

    def _chain(self, kind: str, line: Line, now_ms: int, until: float) -> list[x509.Certificate]:
        return chains.load(self.chain(kind, line, now_ms, until))
