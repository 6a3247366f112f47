"""Azure's confidential VMs: the hardware's report is inside of the virtual TPM's evidence, and needs what such need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hanzo_compute.adapters.collateral.wanted import Job, Jobs
from hanzo_compute.attestation.tpm import azure
from hanzo_compute.model.evidence import Platform


@dataclass(frozen=True, slots=True)
class Azure:
    """What the report inside needs, of the services of its platform."""

    snp: Jobs
    tdx: Jobs

    def jobs(self, files: Mapping[str, bytes]) -> list[Job]:
        """What the evidence of a TPM needs: nothing, unless it is of such a VM. Raises Unreadable."""
        if "hcl_report" not in files:
            return []
        found = azure.parse(files["hcl_report"])
        if found.platform is Platform.SNP:
            return self.snp({**files, "report": found.report})
        # Only the VM itself can have a quote made of its report.
        return self.tdx({**files, "quote": files["td_quote"]}) if "td_quote" in files else []
