"""What is here and what is missing, on machines made of files."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from hanzo_compute.adapters.attester import detect as module
from hanzo_compute.adapters.attester.detect import Machine, detect
from hanzo_compute.adapters.attester.nvml import State
from hanzo_compute.errors import EvidenceUnavailable
from hanzo_compute.model.evidence import Platform
from hanzo_compute.ports.attesters import Found

TSM = "sys/kernel/config/tsm/report"
READY = State(2, confidential=True, devtools=False, production=True)


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_tools", list)


def machine(root: Path, *files: str, **texts: str) -> Machine:
    """A machine that has these files; a name that ends with ``/`` is a folder. ``texts``: contents, by a short name."""
    paths = {"config": "boot/config-6.9", "cpu": "proc/cpuinfo", "nvidia": "proc/driver/nvidia/version"}
    paths |= {"vmpl": "sys/devices/system/cpu/sev/vmpl", "tpm": "sys/class/tpm/tpm0/tpm_version_major"}
    paths |= {"filesystems": "proc/filesystems"}
    for name in (*files, *(paths[each] for each in texts)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if name.endswith("/") else path.touch()
    for name, text in texts.items():
        (root / paths[name]).write_text(text)
    return Machine(root, release="6.9")


def look(at: Machine, name: str, state: State = READY) -> Found:
    return next(each for each in detect(at, gpus=lambda: state) if each.name == name)


def test_a_machine_of_nothing(tmp_path: Path) -> None:
    found = detect(machine(tmp_path))
    names = ["SEV-SNP guest", "TDX guest", "Nitro Enclave", "NVIDIA GPU", "TPM", "KVM"]
    assert [each.name for each in found] == names
    assert not any(each.ready for each in found)
    assert all(each.missing and each.missing[0].remedy and each.summary for each in found)
    assert look(machine(tmp_path), "KVM").facts["kernel"] == "CONFIG_KVM: not known"
    assert found[0].as_json()["missing"][0] == {
        "what": "/dev/sev-guest",
        "why": "not there",
        "remedy": "it takes a guest of AMD SEV-SNP",
    }


@pytest.mark.parametrize(
    ("name", "device"),
    [("SEV-SNP guest", "dev/sev-guest"), ("Nitro Enclave", "dev/nsm"), ("TPM", "dev/tpmrm0"), ("KVM", "dev/kvm")],
)
def test_a_device_is_enough(tmp_path: Path, name: str, device: str) -> None:
    found = look(machine(tmp_path, device), name)
    assert (found.ready, found.summary, found.missing) == (True, f"/{device}", ())
    assert found.facts[f"/{device}"] == "usable"


def test_a_device_for_others_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    found = look(machine(tmp_path, "dev/tpmrm0"), "TPM")
    assert (found.ready, found.summary) == (False, "not accessible to this user")
    assert "read and write /dev/tpmrm0" in found.missing[0].remedy


def test_a_module_that_is_not_loaded(tmp_path: Path) -> None:
    at = machine(tmp_path, config="CONFIG_SEV_GUEST=m\nCONFIG_TDX_GUEST_DRIVER=y\n# CONFIG_NSM is not set\n")
    assert "modprobe sev-guest" in look(at, "SEV-SNP guest").missing[0].remedy
    assert look(at, "TDX guest").summary == "not there"
    assert look(at, "Nitro Enclave").summary == "this kernel was built without CONFIG_NSM"
    loaded = machine(tmp_path, "sys/module/sev_guest/")
    assert look(loaded, "SEV-SNP guest").summary == "not there"
    assert look(loaded, "SEV-SNP guest").facts["module"] == "sev_guest is loaded"


def test_how_the_kernel_was_built_from_the_kernel_itself(tmp_path: Path) -> None:
    at = machine(tmp_path, "proc/config.gz")
    assert at.options is None
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_KVM=m\n"))
    assert look(Machine(tmp_path), "KVM").facts["kernel"] == "CONFIG_KVM=m"
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_KVM=m\n" * 99)[:20])
    assert Machine(tmp_path).options is None


class TestTdx:
    def test_the_device_alone_gives_no_quote(self, tmp_path: Path) -> None:
        found = look(machine(tmp_path, "dev/tdx_guest", filesystems="nodev\tconfigfs\n"), "TDX guest")
        assert not found.ready
        assert "alone gives no quote" in found.summary
        assert found.missing[0].remedy == "mount -t configfs none /sys/kernel/config"

    def test_remedies(self, tmp_path: Path) -> None:
        at = machine(tmp_path, "dev/tdx_guest")
        assert "CONFIG_CONFIGFS_FS" in look(at, "TDX guest").missing[0].remedy
        at = machine(tmp_path, "sys/kernel/config/", filesystems="nodev\tconfigfs\n")
        assert "modprobe tdx-guest" in look(at, "TDX guest").missing[0].remedy

    def test_with_configfs(self, tmp_path: Path) -> None:
        found = look(machine(tmp_path, "dev/tdx_guest", f"{TSM}/"), "TDX guest")
        assert (found.ready, found.facts["configfs-tsm"]) == (True, "usable")

    def test_in_a_container_that_has_configfs_only(self, tmp_path: Path) -> None:
        found = look(machine(tmp_path, f"{TSM}/", cpu="processor : 0\nflags\t\t: fpu tdx_guest sse\n"), "TDX guest")
        assert (found.ready, found.summary) == (True, "configfs-tsm")


def test_snp_in_a_container_that_has_configfs_only(tmp_path: Path) -> None:
    found = look(machine(tmp_path, f"{TSM}/", vmpl="0\n"), "SEV-SNP guest")
    assert (found.ready, found.summary, found.facts["vmpl"]) == (True, "configfs-tsm", "0")
    # Whose it is, is not known without a sign of the processor.
    assert not look(machine(tmp_path), "TDX guest").ready


def test_configfs_for_others_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true_access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "tsm" not in str(path) and true_access(path, mode))
    for name, device in (("SEV-SNP guest", "dev/sev-guest"), ("TDX guest", "dev/tdx_guest")):
        found = look(machine(tmp_path, device, f"{TSM}/"), name)
        assert (found.ready, found.missing[0].remedy) == (False, "run as root")


class TestNvidia:
    VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build\n"

    def test_ready(self, tmp_path: Path) -> None:
        found = look(machine(tmp_path, nvidia=self.VERSION), "NVIDIA GPU")
        assert (found.ready, found.platform) == (True, Platform.NVIDIA)
        assert found.facts["gpus"] == "2"

    @pytest.mark.parametrize(
        ("state", "why"),
        [
            (State(1, confidential=False, devtools=False, production=True), "confidential computing is off"),
            (State(1, confidential=True, devtools=True, production=True), "devtools"),
        ],
    )
    def test_a_mode_that_is_wrong(self, tmp_path: Path, state: State, why: str) -> None:
        found = look(machine(tmp_path, nvidia=self.VERSION), "NVIDIA GPU", state)
        assert not found.ready
        assert why in found.summary

    def test_a_driver_that_does_not_answer(self, tmp_path: Path) -> None:
        def fail() -> State:
            raise EvidenceUnavailable("NVIDIA's driver says: Not Supported", hint="look")

        found = next(each for each in detect(machine(tmp_path, nvidia=self.VERSION), gpus=fail) if "GPU" in each.name)
        assert (found.ready, found.missing[0].remedy) == (False, "look")


class TestTpm:
    def test_without_tools(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "missing_tools", lambda: ["tpm2_quote"])
        found = look(machine(tmp_path, "dev/tpmrm0"), "TPM")
        assert (found.ready, found.summary) == (False, "tpm2_quote is not installed")
        assert "tpm2-tools" in found.missing[0].remedy

    def test_a_tpm_of_version_1(self, tmp_path: Path) -> None:
        assert look(machine(tmp_path, tpm="1\n"), "TPM").missing[-1].why == "it is a TPM 1.2"
        assert look(machine(tmp_path, "dev/tpmrm0", tpm="2\n"), "TPM").ready

    def test_one_that_the_operator_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        named = "swtpm:host=127.0.0.1,port=1"
        (found,) = [each for each in detect(machine(tmp_path), tcti=named) if each.name == "TPM"]
        assert (found.ready, found.summary) == (True, named)
        monkeypatch.setattr(module, "missing_tools", lambda: ["tpm2_quote"])
        (found,) = [each for each in detect(machine(tmp_path), tcti=named) if each.name == "TPM"]
        assert not found.ready


def test_this_machine() -> None:
    """Whatever it is: it is looked at, and nothing is raised."""
    assert len(detect()) == 6
