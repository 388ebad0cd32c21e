"""A system register is one row, an instruction of a new feature one file: on a scratch copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import armkvm

SRC = Path(armkvm.__file__).parent

FORM = '''"""A later feature: EOR3 V.16B, V.16B, V.16B, V.16B."""

from armkvm.isa.table import feature, insn

SHA3 = feature("sha3", consists=("EOR3",), field=("id_aa64isar0_el1", 32, 1), traps="fp")


@insn("11001110000 Rm:5 0 Ra:5 Rn:5 Rd:5", asm="eor3 v{Rd}.16b, v{Rn}.16b, v{Rm}.16b, v{Ra}.16b",
      feature=SHA3)
def EOR3(m, Rm, Ra, Rn, Rd):
    ty = "<2 x i64>"
    m.set_V(Rd, m.V(Rn, ty) ^ m.V(Rm, ty) ^ m.V(Ra, ty))
'''
SEES_FORM = """
from armkvm.engine.interp.handler import Handler
from armkvm.isa.all import announced, forms
from armkvm.isa.disasm import decode, disassemble
form = decode(0xCE020C20)
assert form.insn.name == "EOR3", form
assert disassemble(0xCE020C20, 0) == "eor3 v0.16b, v1.16b, v2.16b, v3.16b"
assert announced()["id_aa64isar0_el1"] >> 32 & 15 == 1
h = Handler(form, "h")
h.trace()
assert "@fp_trapped" in h.body()
"""
ROW = '    SysReg("SCXTNUM_EL1", (3, 0, 13, 0, 7), reset=None),\n'
SEES_ROW = """
from armkvm.engine.interp.handler import Handler
from armkvm.engine.layout import OFFSET, State
from armkvm.isa.disasm import decode, disassemble
for word, text in ((0xD538D0E3, "mrs x3, scxtnum_el1"), (0xD518D0E3, "msr scxtnum_el1, x3")):
    assert disassemble(word, 0) == text
    h = Handler(decode(word), "h")
    h.trace()
    assert f"i64 {OFFSET['scxtnum_el1']}" in h.body()
assert State.scxtnum_el1.offset == OFFSET["scxtnum_el1"]
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(SRC, tmp_path / "armkvm", ignore=ignore))


def sees(copy: Path, script: str) -> None:
    """A process that imports the copy runs the script to its end."""
    script = f"import armkvm; assert armkvm.__file__.startswith({str(copy)!r})\n{script}"
    env = {**os.environ, "PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_a_form_of_a_new_feature_is_one_file(copy: Path) -> None:
    """Decoded, disassembled, announced, trapped: nothing but its file knows of it."""
    (copy / "isa/simd/sha3.py").write_text(FORM)
    sees(copy, SEES_FORM)


def test_a_system_register_is_one_row(copy: Path) -> None:
    """Its instructions, its text, its place in the CPU's state."""
    rows = copy / "arch/sysreg.py"
    text = rows.read_text()
    before = '    SysReg("TPIDR_EL1"'
    assert text.count(before) == 1
    rows.write_text(text.replace(before, ROW + before))
    sees(copy, SEES_ROW)
