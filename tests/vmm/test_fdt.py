"""The device tree writer, against the specification's layout and against dtc."""

import struct
import subprocess
from collections.abc import Callable

import pytest

from armkvm.vmm.fdt import Fdt, u64


def sample() -> Fdt:
    fdt = Fdt()
    fdt.prop("#address-cells", 2)
    fdt.prop("#size-cells", 2)
    fdt.prop("compatible", "armkvm,virt", "linux,dummy-virt")
    fdt.prop("interrupt-parent", fdt.phandle("gic"))
    with fdt.node("memory@40000000"):
        fdt.prop("device_type", "memory")
        fdt.reg(0x4000_0000, 0x1_0000_0000)
    with fdt.node("intc@8000000"):
        fdt.prop("interrupt-controller")
        fdt.prop("#interrupt-cells", 3)
        fdt.prop("phandle", fdt.phandle("gic"))
        fdt.reg(0x800_0000, 0x1_0000, 0x801_0000, 0x1_0000)
    with fdt.node("chosen"):
        fdt.prop("rng-seed", b"\x01\x02\x03")
    return fdt


def test_header_describes_the_blob() -> None:
    blob = sample().blob()
    magic, total, structure, strings, reserve, version, last, cpu, strings_size, structure_size = (
        struct.unpack_from(">10I", blob)
    )
    assert (magic, version, last, cpu) == (0xD00DFEED, 17, 16, 0)
    assert total == len(blob)
    assert total % 8 == 0
    assert blob[reserve : reserve + 16] == bytes(16)
    assert structure + structure_size == strings
    assert strings + strings_size <= total
    assert struct.unpack_from(">I", blob, strings - 4) == (9,)
    # Each property name stands once in the strings block.
    names = blob[strings : strings + strings_size].split(b"\0")[:-1]
    assert len(names) == len(set(names))


def test_structure_block_of_a_small_tree() -> None:
    fdt = Fdt()
    fdt.prop("a", 1)
    with fdt.node("n"):
        fdt.prop("b")
    blob = fdt.blob()
    expected = struct.pack(">I4x", 1) + struct.pack(">4I", 3, 4, 0, 1)
    expected += struct.pack(">I", 1) + b"n\0\0\0" + struct.pack(">3I", 3, 0, 2)
    expected += struct.pack(">3I", 2, 2, 9)
    assert blob[56 : 56 + len(expected)] == expected


def test_properties_precede_children_whatever_the_order_of_writing() -> None:
    late, early = Fdt(), Fdt()
    with late.node("n"):
        pass
    late.prop("p", 1)
    early.prop("p", 1)
    with early.node("n"):
        pass
    assert late.blob() == early.blob()


def test_reads_back(oracle: Callable[[str], str | None]) -> None:
    blob = sample().blob()
    # Big-endian cells and NUL-terminated strings, as section 2.2.4 says.
    assert b"armkvm,virt\0linux,dummy-virt\0" in blob
    assert bytes.fromhex("0000000040000000 0000000100000000") in blob
    dtc = oracle("dtc")
    if dtc is None:
        return
    run = subprocess.run([dtc, "-I", "dtb", "-O", "dts", "-"], input=blob, capture_output=True)
    assert run.returncode == 0, run.stderr
    source = run.stdout.decode().replace("\\0", '", "')
    assert 'compatible = "armkvm,virt", "linux,dummy-virt";' in source
    assert "interrupt-parent = <0x01>;" in source
    assert "reg = <0x00 0x40000000 0x01 0x00>;" in source
    assert "reg = <0x00 0x8000000 0x00 0x10000 0x00 0x8010000 0x00 0x10000>;" in source
    assert "interrupt-controller;" in source
    assert "phandle = <0x01>;" in source
    assert "rng-seed = [01 02 03];" in source


@pytest.mark.parametrize("name", ["", "1cpu", "a b", "x" * 32, "a@", "a@" + "1" * 32, "a@1@2", "é"])
def test_bad_node_names(name: str) -> None:
    with pytest.raises(ValueError, match="bad device tree node name"), Fdt().node(name):
        pass


@pytest.mark.parametrize("name", ["", "a b", "x" * 32, "a/b"])
def test_bad_property_names(name: str) -> None:
    with pytest.raises(ValueError, match="bad device tree property name"):
        Fdt().prop(name)


@pytest.mark.parametrize("value", [-1, 1 << 32, "a\0b"])
def test_bad_values(value: int | str) -> None:
    fdt = Fdt()
    with fdt.node("cpus"), pytest.raises(ValueError, match="/cpus/reg"):
        fdt.prop("reg", value)


def test_written_twice() -> None:
    fdt = Fdt()
    fdt.prop("model", "x")
    with pytest.raises(ValueError, match="/model written twice"):
        fdt.prop("model", "y")
    with fdt.node("n"):
        pass
    with pytest.raises(ValueError, match="/n written twice"), fdt.node("n"):
        pass


def test_phandle_used_but_never_defined() -> None:
    fdt = Fdt()
    fdt.prop("clocks", fdt.phandle("apb"))
    with pytest.raises(ValueError, match="used but not defined: apb"):
        fdt.blob()


def test_phandle_of_two_nodes() -> None:
    fdt = Fdt()
    with fdt.node("a"):
        fdt.prop("phandle", fdt.phandle("x"))
    with fdt.node("b"), pytest.raises(ValueError, match="/b/phandle is another node's"):
        fdt.prop("phandle", fdt.phandle("x"))


def test_open_node() -> None:
    fdt = Fdt()
    with fdt.node("n"), pytest.raises(ValueError, match="/n is still open"):
        fdt.blob()


def test_reg_needs_pairs() -> None:
    with pytest.raises(ValueError, match="pairs"):
        Fdt().reg(1)


def test_u64() -> None:
    assert u64(0x1_0000_0002) == (1, 2)
    with pytest.raises(ValueError, match="two 32-bit cells"):
        u64(1 << 64)
