"""The ground truth by kind of host, for the tests."""

from __future__ import annotations

from pathlib import Path

from armkvm.conformance.compare import normalise

FOLDER = Path(__file__).parent.parent / "data" / "ground-truth"
FILES = {"nvhe-gicv2": FOLDER / "612-gic2-a57.txt", "vhe-gicv3": FOLDER / "612-gic3-a76.txt"}


def truth(host: str) -> list[str]:
    """What the real KVM printed on such a host."""
    return normalise(FILES[host].read_text())
