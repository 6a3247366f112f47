"""Roots that are handed in count for looking only: no policy that keys are released on loads a test's root."""

from __future__ import annotations

import pytest

from hanzo_compute.attestation import Policy, appraise, builtin
from hanzo_compute.attestation.policy import BUILTIN, from_document
from hanzo_compute.model.evidence import Evidence
from tests.support import mint_nitro, mint_snp, pki

ENCLAVE = mint_nitro.enclave()
MINTED = {
    "snp": (mint_snp.Guest().evidence(), mint_snp.ark("Milan").pem),
    "nitro": (mint_nitro.evidence(ENCLAVE.document()), ENCLAVE.root),
}


def released(policy: Policy) -> Policy:
    """The same, for releasing keys."""
    everything = {"freshness": True, "binding": True, "measurement": True}
    return from_document(policy.model_dump(mode="json") | {"release_keys": True, "require": everything})


@pytest.mark.parametrize("platform", MINTED)
@pytest.mark.parametrize("name", BUILTIN)
def test_a_test_root_is_loaded_for_looking_only(platform: str, name: str) -> None:
    evidence, anchor = MINTED[platform]
    assert isinstance(evidence, Evidence)
    policy = builtin(name)
    result = appraise(evidence, policy, {}, pki.NOW_MS, anchors=[anchor])
    told = {check.id for check in result.checks}
    assert ("bundle.anchors" in told) is policy.release_keys
    assert result.authentic is (name == "baseline")
    if name == "baseline":
        strict = appraise(evidence, released(policy), {}, pki.NOW_MS, anchors=[anchor])
        assert not strict.authentic
        assert f"{platform}.chain.root" in strict.reasons
