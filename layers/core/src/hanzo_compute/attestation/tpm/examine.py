"""The checks of a TPM's quote: discrete TPMs, virtual ones of clouds, and software TPMs under a pinned authority.

Files: ``message`` (TPMS_ATTEST), ``signature``, ``pcrs``; the attestation key as ``ak`` or ``ak_tpm2b``, its
certificate ``ak_cert``; the endorsement key as ``ek_tpm2b``, its certificate ``ek_cert``; authorities ``ca`` and
``ca_…``; the firmware's ``eventlog``; and of Azure's confidential VMs ``hcl_report`` with what its report needs
(``vek``; ``td_quote`` and ``collateral``).
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import rsa

from hanzo_compute.attestation import eventlog
from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.tpm import azure, device, pcrs, quote, signature
from hanzo_compute.attestation.tpm.device import Basis, Device
from hanzo_compute.attestation.tpm.keys import Keys, fingerprint, read
from hanzo_compute.attestation.tpm.policy import TpmPolicy
from hanzo_compute.attestation.tpm.wire import HASH_NAMES, HASHES, SHA1
from hanzo_compute.model.evidence import Tier

_ATTEST = "TPM 2.0 Library part 2, section 10.12.8"
_QUOTE = "TPM 2.0 Library part 3, section 18.4"
_RSA_BITS = 2048


def examine(files: Mapping[str, bytes], context: Context) -> Findings:
    """Judge a quote and what came with it.

    Raises:
        Unreadable: a file is missing that a quote cannot be judged without, or is not of its format.
    """
    policy = context.policy.tpm or TpmPolicy()
    for name in ("message", "signature", "pcrs"):
        if name not in files:
            raise Unreadable(f"the evidence lacks {name}")
    findings = Findings()
    attest = quote.parse(files["message"])
    hcl = azure.parse(files["hcl_report"]) if "hcl_report" in files else None
    keys = read(files, hcl, findings)
    findings.commitment = attest.extra_data
    findings.identity = fingerprint(keys.ek or keys.ak)
    findings.claims.update(attest.claims())
    _kind(attest, findings)
    algorithm = _signature(files, keys, attest, findings)
    values = _pcrs(files, attest, algorithm, findings)
    _selection(attest, policy, findings)
    _references(values, policy, context, findings)
    if "eventlog" in files:
        _eventlog(files["eventlog"], values, findings)
    _clock(attest, policy, findings)
    inner = None
    if hcl is not None:
        findings.claims.update(hcl.claims())
        inner = azure.examine(hcl, files, context, findings)
    known = device.examine(keys, attest, files, context, policy, findings, tee=hcl is not None)
    _tier(findings, known, inner)
    return findings


def _kind(attest: quote.Attest, findings: Findings) -> None:
    findings.check(
        "tpm.magic",
        Group.GENUINE,
        attest.magic == quote.GENERATED,
        "made by a TPM" if attest.magic == quote.GENERATED else "not made by a TPM: it lacks TPM_GENERATED_VALUE",
        expected=f"{quote.GENERATED:08x}",
        actual=f"{attest.magic:08x}",
        source=_ATTEST,
    )
    findings.check(
        "tpm.type",
        Group.GENUINE,
        attest.type == quote.QUOTE,
        "a quote" if attest.type == quote.QUOTE else "an attestation of another type than a quote",
        expected=f"{quote.QUOTE:04x}",
        actual=f"{attest.type:04x}",
        source=_ATTEST,
    )


def _signature(files: Mapping[str, bytes], keys: Keys, attest: quote.Attest, findings: Findings) -> int | None:
    """Check the signature; its hash, None where that is not known."""
    signed = signature.parse(files["signature"], keys.ak)
    algorithm = signature.algorithm_of(signed, attest.pcr_digest)
    ok = algorithm is not None and signature.verify(signed, algorithm, keys.ak, files["message"])
    scheme = keys.ak_area.scheme if keys.ak_area else None
    if ok and scheme is not None and (scheme[0] not in signed.schemes or scheme[1] not in {None, algorithm}):
        ok = False  # the TPM signs with no other scheme than the key's own
    text = "signed by the attestation key" if ok else "not signed by the attestation key"
    findings.check("tpm.signature", Group.GENUINE, ok, text, source="TPM 2.0 Library part 2, section 11.3.4")
    small = isinstance(keys.ak, rsa.RSAPublicKey) and keys.ak.key_size < _RSA_BITS
    strong = algorithm in HASHES and algorithm != SHA1 and not small
    text = "hash and key are strong enough" if strong else f"SHA-1, an unknown hash, or RSA below {_RSA_BITS} bits"
    findings.check("tpm.strength", Group.POLICY, strong, text, actual=HASH_NAMES.get(algorithm or 0))
    return algorithm


def _pcrs(files: Mapping[str, bytes], attest: quote.Attest, algorithm: int | None, findings: Findings) -> pcrs.Values:
    """Check that the values are those that were signed; them, none if they are not."""
    values: pcrs.Values = {}
    actual = b""
    if attest.type == quote.QUOTE and algorithm is not None and algorithm in HASHES:
        values = pcrs.parse(files["pcrs"], attest)
        actual = pcrs.quoted_digest(values, algorithm)
    ok = actual == attest.pcr_digest != b""
    text = "the PCR values are those of the quote" if ok else "the PCR values are not those of the quote"
    findings.check("tpm.pcr_digest", Group.GENUINE, ok, text, expected=attest.pcr_digest, actual=actual, source=_QUOTE)
    if not ok:
        return {}
    findings.claims["pcrs"] = {
        HASH_NAMES[bank]: {str(index): value.hex() for index, value in each.items()} for bank, each in values.items()
    }
    return values


def _selection(attest: quote.Attest, policy: TpmPolicy, findings: Findings) -> None:
    quoted = {HASH_NAMES.get(bank, hex(bank)): set(each) for bank, each in attest.selection.items() if each}
    refused = [name for name in quoted if name not in policy.banks]
    text = f"PCRs of banks that are not accepted: {', '.join(refused)}" if refused else "PCRs of accepted banks"
    findings.check(
        "tpm.pcr_bank",
        Group.POLICY,
        bool(quoted) and not refused,
        text if quoted else "no PCR is quoted",
        expected=", ".join(policy.banks),
        actual=", ".join(quoted),
        source="policy: tpm.banks",
    )
    wanted = set(policy.required_pcrs)
    ok = any(wanted <= indices for name, indices in quoted.items() if name in policy.banks) or not wanted
    text = "the required PCRs are quoted" if ok else "not all required PCRs are quoted from one accepted bank"
    findings.check(
        "tpm.pcr_selection",
        Group.POLICY,
        ok,
        text,
        expected=", ".join(map(str, sorted(wanted))),
        actual="; ".join(f"{name}: {', '.join(map(str, sorted(each)))}" for name, each in quoted.items()),
        source="policy: tpm.required_pcrs",
    )


def _references(values: pcrs.Values, policy: TpmPolicy, context: Context, findings: Findings) -> None:
    required = context.policy.require.measurement or bool(policy.pcrs)
    source = "policy: tpm.pcrs"
    if not policy.pcrs:
        text = "the policy has no reference values of PCRs"
        findings.check("tpm.pcrs", Group.MEASURED, None, text, source=source, required=required)
        return
    named = {HASH_NAMES[bank]: each for bank, each in values.items()}
    wrong = [
        f"{bank}:{index}"
        for bank, indices in policy.pcrs.items()
        for index, allowed in indices.items()
        if named.get(bank, {}).get(index, b"").hex() not in allowed
    ]
    text = "the PCRs have reference values"
    if wrong:
        text = f"PCRs are missing or differ from their reference values: {', '.join(wrong)}"
    findings.check("tpm.pcrs", Group.MEASURED, not wrong, text, source=source, required=required)


def _eventlog(log: bytes, values: pcrs.Values, findings: Findings) -> None:
    """Every PCR that the log extends must be as quoted, in each bank that the quote has."""
    try:
        events = eventlog.parse(log)
        replayed = {bank: eventlog.replay(events, bank) for bank in values}
    except Unreadable as error:
        findings.check("tpm.eventlog", Group.MEASURED, False, str(error))
        return
    compared = [
        (f"{HASH_NAMES[bank]}:{index}", replayed[bank][index] == value)
        for bank, each in values.items()
        for index, value in each.items()
        if index in replayed[bank]
    ]
    wrong = [name for name, same in compared if not same]
    ok = bool(compared) and not wrong
    text = f"the event log replays to {len(compared)} PCRs of the quote"
    if not ok:
        text = f"the event log does not replay to the quote: {', '.join(wrong) or 'it has none of its PCRs'}"
    findings.check(
        "tpm.eventlog", Group.MEASURED, ok, text, source="TCG PC Client Platform Firmware Profile, section 10"
    )
    findings.claims["eventlog_events"] = len(events)


def _clock(attest: quote.Attest, policy: TpmPolicy, findings: Findings) -> None:
    """No less than was seen before; restarts count from the last reset, and the clock only where it is safe."""
    resets, restarts, clock = policy.minimum_reset_count, policy.minimum_restart_count, policy.minimum_clock
    asked = bool(resets or restarts or clock)
    problems = []
    if attest.reset_count < resets:
        problems.append(f"{attest.reset_count} resets are fewer than {resets}")
    if attest.reset_count == resets and attest.restart_count < restarts:
        problems.append(f"{attest.restart_count} restarts are fewer than {restarts}")
    if clock and (attest.clock < clock or not attest.safe):
        problems.append(f"the clock says {attest.clock} ms (safe: {attest.safe}); {clock} were seen")
    text = "; ".join(problems) or ("no rollback" if asked else "the policy has seen no resets and no clock before")
    findings.check(
        "tpm.clock",
        Group.POLICY,
        not problems if asked else None,
        text,
        expected=f"{resets} resets, {restarts} restarts, {clock} ms" if asked else None,
        actual=f"{attest.reset_count} resets, {attest.restart_count} restarts, {attest.clock} ms",
        source="policy: tpm.minimum_reset_count",
        required=asked,
    )


def _tier(findings: Findings, known: Device, inner: Findings | None) -> None:
    if known.basis is Basis.TEE:
        findings.tier = inner.tier if inner else Tier.OPEN
        findings.tier_why = inner.tier_why if inner else "the report of the hardware could not be judged"
        return
    findings.tier = Tier.AT_REST
    what = "a software TPM" if known.software else "a TPM"
    findings.tier_why = f"{what} keeps keys, and protects no memory"
