"""armkvm caps: ID registers read as the manual's feature names, and what KVM answers."""

import json
import re

import pytest

from armkvm.abi.caps import Cap
from armkvm.cli.caps import NAMES, features, pa_bits
from armkvm.cli.main import main


def test_features_of_a_cortex_a57() -> None:
    # Its technical reference manual's reset values (DDI 0488, 4.3.1).
    registers = dict.fromkeys(NAMES, 0) | {
        "ID_AA64PFR0_EL1": 0x2222,
        "ID_AA64ISAR0_EL1": 0x11120,
        "ID_AA64MMFR0_EL1": 0x1124,
        "ID_AA64DFR0_EL1": 0x1030_5106,
    }
    assert features(registers) == [
        "4KiB granule", "64KiB granule", "FEAT_AES", "FEAT_AdvSIMD", "FEAT_CRC32", "FEAT_FP",
        "FEAT_PMULL", "FEAT_PMUv3", "FEAT_SHA1", "FEAT_SHA256",
    ]  # fmt: skip
    assert pa_bits(registers) == 44


def test_fields_whose_value_15_means_absent() -> None:
    registers = dict.fromkeys(NAMES, 0)
    assert "FEAT_FP" in features(registers)
    assert "4KiB granule" in features(registers)
    assert "16KiB granule" not in features(registers)
    registers["ID_AA64PFR0_EL1"] = 0xFF << 16
    registers["ID_AA64MMFR0_EL1"] = 0xFF1 << 20
    found = features(registers)
    assert not {"FEAT_FP", "FEAT_FP16", "FEAT_AdvSIMD", "4KiB granule"} & set(found)
    assert "16KiB granule" in found


def test_what_this_kvm_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caps", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    # The capability that all this is about: bits for both timers, not the PMU.
    assert answer["caps"]["KVM_CAP_ARM_USER_IRQ"] == 1
    assert answer["caps"].keys() == {f"KVM_CAP_{cap.name}" for cap in Cap}
    assert {"FEAT_AdvSIMD", "FEAT_CRC32", "FEAT_FP"} <= set(answer["features"])
    assert main(["caps"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^KVM_CAP_ARM_USER_IRQ +1$", text, re.MULTILINE)
    assert re.search(r"^ID_AA64PFR0_EL1 +0x[0-9a-f]{16}$", text, re.MULTILINE)
