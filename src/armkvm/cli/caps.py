"""Print what there is: KVM's capabilities, and the features of the CPU that a guest sees.

The capabilities are KVM_CHECK_EXTENSION's answers of a VM (api.rst 4.4); the features are the
ID registers of a vCPU as KVM_GET_ONE_REG gives them, in the names of the Arm ARM (chapter A2).
"""

import argparse
import json

from armkvm.abi.caps import Cap
from armkvm.abi.regs import sys_reg
from armkvm.cli.progress import shown

# Feature: (ID register, lowest bit of its 4-bit field, value from which on it is there).
FEATURES: dict[str, tuple[str, int, int]] = {
    "FEAT_AES": ("ID_AA64ISAR0_EL1", 4, 1),
    "FEAT_PMULL": ("ID_AA64ISAR0_EL1", 4, 2),
    "FEAT_SHA1": ("ID_AA64ISAR0_EL1", 8, 1),
    "FEAT_SHA256": ("ID_AA64ISAR0_EL1", 12, 1),
    "FEAT_SHA512": ("ID_AA64ISAR0_EL1", 12, 2),
    "FEAT_CRC32": ("ID_AA64ISAR0_EL1", 16, 1),
    "FEAT_LSE": ("ID_AA64ISAR0_EL1", 20, 2),
    "FEAT_RDM": ("ID_AA64ISAR0_EL1", 28, 1),
    "FEAT_SHA3": ("ID_AA64ISAR0_EL1", 32, 1),
    "FEAT_DotProd": ("ID_AA64ISAR0_EL1", 44, 1),
    "FEAT_FlagM": ("ID_AA64ISAR0_EL1", 52, 1),
    "FEAT_RNG": ("ID_AA64ISAR0_EL1", 60, 1),
    "FEAT_DPB": ("ID_AA64ISAR1_EL1", 0, 1),
    "FEAT_JSCVT": ("ID_AA64ISAR1_EL1", 12, 1),
    "FEAT_FCMA": ("ID_AA64ISAR1_EL1", 16, 1),
    "FEAT_LRCPC": ("ID_AA64ISAR1_EL1", 20, 1),
    "FEAT_SB": ("ID_AA64ISAR1_EL1", 36, 1),
    "FEAT_HAFDBS": ("ID_AA64MMFR1_EL1", 0, 1),
    "FEAT_VMID16": ("ID_AA64MMFR1_EL1", 4, 2),
    "FEAT_VHE": ("ID_AA64MMFR1_EL1", 8, 1),
    "FEAT_LOR": ("ID_AA64MMFR1_EL1", 16, 1),
    "FEAT_PAN": ("ID_AA64MMFR1_EL1", 20, 1),
    "FEAT_UAO": ("ID_AA64MMFR2_EL1", 4, 1),
    "FEAT_LVA": ("ID_AA64MMFR2_EL1", 16, 1),
    "FEAT_SVE": ("ID_AA64PFR0_EL1", 32, 1),
    "FEAT_RAS": ("ID_AA64PFR0_EL1", 28, 1),
    "FEAT_SSBS": ("ID_AA64PFR1_EL1", 4, 1),
    "FEAT_BTI": ("ID_AA64PFR1_EL1", 0, 1),
    "FEAT_MTE": ("ID_AA64PFR1_EL1", 8, 1),
    "FEAT_PMUv3": ("ID_AA64DFR0_EL1", 8, 1),
}
# Fields that count from 0 for "there" and have 15 for "not there".
SIGNED: dict[str, tuple[str, int, int]] = {
    "FEAT_FP": ("ID_AA64PFR0_EL1", 16, 0),
    "FEAT_FP16": ("ID_AA64PFR0_EL1", 16, 1),
    "FEAT_AdvSIMD": ("ID_AA64PFR0_EL1", 20, 0),
    "4KiB granule": ("ID_AA64MMFR0_EL1", 28, 0),
    "64KiB granule": ("ID_AA64MMFR0_EL1", 24, 0),
}
# 16 KiB is the odd one: 0 is "not there".
UNSIGNED_GRANULE = {"16KiB granule": ("ID_AA64MMFR0_EL1", 20, 1)}
# ID_AA64MMFR0_EL1.PARange: bits of physical address.
PA_BITS = (32, 36, 40, 42, 44, 48, 52)

NAMES = sorted({register for register, _, _ in (*FEATURES.values(), *SIGNED.values())})


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm caps``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run(args: argparse.Namespace) -> int:
    """Ask KVM and print."""
    caps, registers = probe()
    found = features(registers)
    bits = pa_bits(registers)
    if args.json:
        answer = {"caps": caps, "features": found, "pa_bits": bits, "registers": registers}
        print(json.dumps(answer))
        return 0
    width = max(len(cap.name) for cap in Cap) + len("KVM_CAP_")
    for name, value in caps.items():
        print(f"{name:<{width}}  {value}")
    print(f"\nCPU: {bits} bits of physical address; {' '.join(found)}")
    for name, value in registers.items():
        print(f"{name:<18} {value:#018x}")
    return 0


def probe() -> tuple[dict[str, int], dict[str, int]]:
    """The capabilities by name, and the ID registers of a vCPU by name."""
    from armkvm.arch.sysreg import BY_NAME
    from armkvm.engine.cpu import Engine
    from armkvm.kvm.system import System

    with shown() as progress:
        Engine.load(progress)
    with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        # Of a VM: /dev/kvm itself refuses to say KVM_CAP_MSI_DEVID.
        caps = {f"KVM_CAP_{cap.name}": vm.check_extension(cap) for cap in Cap}
        vcpu.arm_vcpu_init()
        return caps, {name: vcpu.get_one_reg(sys_reg(*BY_NAME[name].enc)) for name in NAMES}


def features(registers: dict[str, int]) -> list[str]:
    """The names of the features that the ID registers announce."""
    found = []
    for name, (register, bit, least) in (FEATURES | UNSIGNED_GRANULE).items():
        if registers[register] >> bit & 15 >= least:
            found.append(name)
    for name, (register, bit, least) in SIGNED.items():
        value = registers[register] >> bit & 15
        if value != 15 and value >= least:
            found.append(name)
    return sorted(found)


def pa_bits(registers: dict[str, int]) -> int:
    """The width of physical addresses."""
    return PA_BITS[registers["ID_AA64MMFR0_EL1"] & 15]
