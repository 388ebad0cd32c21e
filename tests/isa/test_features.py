"""What features consist of, and what ID registers say of them."""

from __future__ import annotations

import pytest
from tests.engine.interp.forms import described

from armkvm.isa import table
from armkvm.isa.all import INSTRUCTIONS, announced
from armkvm.isa.machine import Machine
from armkvm.isa.table import FEATURES, feature

AES = ("AESE", "AESD", "AESMC", "AESIMC")


@pytest.fixture
def aes(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(table, "FEATURES", FEATURES)
    monkeypatch.delitem(FEATURES, "aes", raising=False)
    name = feature("aes", consists=AES, field=("id_aa64isar0_el1", 4, 1), traps="fp")
    monkeypatch.setitem(FEATURES, name, FEATURES[name])
    return name


def nothing(m: Machine) -> None:
    """No semantics: what a table says of it is all that matters."""


@pytest.mark.parametrize("name", [name for name in FEATURES if name != "base"])
def test_a_feature_lists_all_that_it_consists_of(name: str) -> None:
    """No instruction of it is left out of its list, and all of the list are there."""
    own = FEATURES[name]
    assert own.complete(INSTRUCTIONS)
    mine = [i for i in INSTRUCTIONS if i.feature == name]
    assert all({i.name, i.encoding_class} & {*own.consists} for i in mine)


def test_every_feature_in_use_is_declared() -> None:
    assert {i.feature for i in INSTRUCTIONS} == {*FEATURES}


def test_what_is_announced() -> None:
    says = announced()
    assert says["id_aa64isar0_el1"] == 2 << 20 | 1 << 16
    assert says["id_aa64pfr0_el1"] == 0


@pytest.mark.parametrize("gone", ["LDADD", "CAS", "CASP"])
def test_a_feature_with_one_instruction_missing_is_not_announced(gone: str) -> None:
    says = announced([i for i in INSTRUCTIONS if i.name != gone])
    assert says["id_aa64isar0_el1"] == 1 << 16


def test_without_an_encoding_class_there_is_no_advanced_simd() -> None:
    says = announced([i for i in INSTRUCTIONS if i.encoding_class != "simd.permute"])
    assert says["id_aa64pfr0_el1"] == 0xF << 20


def test_one_aese_announces_nothing(aes: str) -> None:
    there = list(INSTRUCTIONS)
    for n, name in enumerate(AES):
        assert announced(there)["id_aa64isar0_el1"] >> 4 & 15 == 0
        there.append(described(f"{n:032b}", nothing, feature=aes, name=name))
    assert announced(there)["id_aa64isar0_el1"] >> 4 & 15 == 1


def test_a_later_feature_traps_as_simd_does(aes: str) -> None:
    assert described(f"{0:032b}", nothing, feature=aes).traps == "fp"
