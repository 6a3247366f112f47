"""A real TPM 2.0 in software, by the tools that operators use: a quote with a nonce, and credential activation."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hanzo_compute.attestation import AttestationResult, Binding, Verdict, appraise, builtin
from hanzo_compute.attestation.policy import Policy, from_document
from hanzo_compute.attestation.tpm.credential import make_credential
from hanzo_compute.attestation.tpm.public import PublicArea, load
from hanzo_compute.model.evidence import Evidence, Platform, Tier
from tests.support.swtpm import EK_RSA_CERTIFICATE, SoftwareTpm, software_tpm

NONCE = bytes(range(32))


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    """With an RSA endorsement key, and an ECC attestation key below it."""
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        running.tool("createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.tss", "-f", "tss")
        attestation_key(running, "ek.ctx", "ecc", "ecdsa")
        running.tool("nvread", EK_RSA_CERTIFICATE, "-o", "ekcert.der")
        yield running


def attestation_key(tpm: SoftwareTpm, ek: str, kind: str, scheme: str) -> None:
    made = ("-u", "ak.tss", "-f", "tss", "-n", "ak.name")
    tpm.tool("createak", "-C", ek, "-c", "ak.ctx", "-G", kind, "-g", "sha256", "-s", scheme, *made)


def quote(tpm: SoftwareTpm, nonce: bytes, scheme: str = "ecdsa") -> Evidence:
    out = ("-m", "quote.msg", "-s", "quote.sig", "-o", "quote.pcrs", "-g", "sha256", "--scheme", scheme)
    tpm.tool("quote", "-c", "ak.ctx", "-l", "sha256:0,1,2,3,4,5,6,7,16", "-q", nonce.hex(), *out)
    written = {
        "message": "quote.msg",
        "signature": "quote.sig",
        "pcrs": "quote.pcrs",
        "ak": "ak.tss",
        "ek_tpm2b": "ek.tss",
        "ek_cert": "ekcert.der",
    }
    return Evidence(Platform.TPM, {**{name: tpm.read(each) for name, each in written.items()}, "ca": tpm.issuer})


def judged(item: Evidence, policy: Policy | None = None, **given: Any) -> AttestationResult:
    return appraise(item, policy or builtin("baseline"), {}, round(time.time() * 1000), **given)


def area(tpm: SoftwareTpm, name: str) -> PublicArea:
    _, found = load(tpm.read(name), name)
    assert found is not None
    return found


def activated(tpm: SoftwareTpm, ek: PublicArea, ak: PublicArea, secret: bytes, *, policy: bool = True) -> bytes:
    """What the TPM makes of a credential; a default endorsement key asks for a session by policy."""
    (tpm.folder / "cred.blob").write_bytes(make_credential(ek, ak.name, secret).tools_file())
    if policy:
        tpm.tool("startauthsession", "--policy-session", "-S", "s.ctx")
        tpm.tool("policysecret", "-S", "s.ctx", "-c", "e")
    session = ("-P", "session:s.ctx") if policy else ()
    tpm.tool("activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "cred.blob", "-o", "cred.out", *session)
    return tpm.read("cred.out")


def test_a_quote_is_accepted_under_the_authority_of_its_tpm(tpm: SoftwareTpm) -> None:
    item = quote(tpm, NONCE)
    result = judged(item, nonce=NONCE, anchors=[tpm.root])
    assert (result.verdict, result.tier, result.reasons) == (Verdict.ACCEPT, Tier.AT_REST, ())
    assert result.claims["tpm"]["software"] is True
    assert result.claims["tpm"]["model"] == "swtpm"
    assert judged(item, nonce=bytes(32), anchors=[tpm.root]).reasons == ("tpm.nonce",)
    assert {"tpm.ek_cert.root", "tpm.software"} <= set(judged(item, nonce=NONCE).reasons)


def test_another_tpm_of_the_same_make_is_refused(tpm: SoftwareTpm, tmp_path_factory: pytest.TempPathFactory) -> None:
    with software_tpm(tmp_path_factory.mktemp("other")) as other:
        reasons = judged(quote(tpm, NONCE), nonce=NONCE, anchors=[other.root]).reasons
    assert "tpm.ek_cert.root" in reasons


@pytest.mark.parametrize("scheme", ["rsassa", "rsapss"])
def test_quotes_of_rsa_keys(tpm: SoftwareTpm, scheme: str) -> None:
    try:
        attestation_key(tpm, "ek.ctx", "rsa", scheme)
        result = judged(quote(tpm, NONCE, scheme), nonce=NONCE, anchors=[tpm.root])
    finally:
        attestation_key(tpm, "ek.ctx", "ecc", "ecdsa")
    assert result.verdict is Verdict.ACCEPT, result.reasons


def test_a_key_is_released_to_an_activated_key_under_a_pinned_authority(tpm: SoftwareTpm) -> None:
    """From end to end: the nonce is the secret that only this TPM gives out, and the quote answers it."""
    nonce = secrets.token_bytes(32)
    ek, ak = area(tpm, "ek.tss"), area(tpm, "ak.tss")
    assert ak.name == tpm.read("ak.name")
    solved = activated(tpm, ek, ak, nonce)
    bound = Binding(nonce=solved, signing_key=b"signing key", sealing_key=bytes(32))
    item = quote(tpm, bound.qualifying_data())
    demo = builtin("local-demo").model_dump(mode="json")
    policy = from_document({**demo, "tpm": {**demo["tpm"], "roots": [tpm.root.decode()]}})
    expected = Binding(nonce=nonce, signing_key=b"signing key", sealing_key=bytes(32))
    assert judged(item, policy, binding=expected).reasons == ("tpm.activation",)
    result = judged(item, policy, binding=expected, activated=[(ek.name, ak.name)])
    assert (result.verdict, result.tier) == (Verdict.ACCEPT, Tier.AT_REST)
    other = Binding(nonce=nonce, signing_key=b"another key", sealing_key=bytes(32))
    assert judged(item, policy, binding=other, activated=[(ek.name, ak.name)]).reasons == ("tpm.binding",)
    pinned = {**demo["tpm"], "roots": [tpm.root.decode()], "software": False}
    production = from_document({**demo, "name": "own", "tpm": pinned})
    assert judged(item, production, binding=expected, activated=[(ek.name, ak.name)]).reasons == ("tpm.software",)
    refused = judged(item, builtin("production"), binding=expected, activated=[(ek.name, ak.name)], anchors=[tpm.root])
    assert {"tpm.software", "tpm.ek_cert.root", "tpm.identity"} <= set(refused.reasons)


def test_a_credential_for_another_key_is_not_activated(tpm: SoftwareTpm) -> None:
    ek = area(tpm, "ek.tss")
    with pytest.raises(AssertionError, match="activatecredential"):
        activated(tpm, ek, ek, b"secret")


@pytest.mark.parametrize(
    ("algorithm", "name_algorithm"),
    [("ecc256:aes128cfb", "sha256"), ("ecc384:aes256cfb", "sha384"), ("rsa2048:aes256cfb", "sha256")],
)
def test_credentials_of_other_storage_keys(tpm: SoftwareTpm, algorithm: str, name_algorithm: str) -> None:
    """A primary key of the endorsement hierarchy that takes no policy stands for the endorsement key."""
    attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt"
    kind = ("-G", algorithm, "-g", name_algorithm, "-a", attributes)
    try:
        tpm.tool("createprimary", "-C", "e", *kind, "-c", "ek.ctx")
        tpm.tool("readpublic", "-c", "ek.ctx", "-f", "tss", "-o", "primary.tss")
        secret = secrets.token_bytes(20)
        assert activated(tpm, area(tpm, "primary.tss"), area(tpm, "ak.tss"), secret, policy=False) == secret
    finally:
        tpm.tool("createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.tss", "-f", "tss")
