"""The conformance guests: how they are laid out."""

from armkvm.conformance import guests


def test_every_guest_begins_alike_and_fits_below_its_vectors() -> None:
    found = dict(guests.programs())
    vectors = found.pop("vectors")
    # 16 entries of 128 bytes and the IRQ handler behind them.
    assert 0x800 < len(vectors) < 0x1000
    prologue = found["bare"][:24]
    for name, code in found.items():
        assert code.startswith(prologue), name
        assert len(code) <= 0x2000, name
