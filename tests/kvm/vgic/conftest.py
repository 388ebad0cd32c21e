"""VMs with a vgic for the tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kvm.vgic.its_rig import ItsRig
from tests.kvm.vgic.vgic_rig import VgicRig


@pytest.fixture(params=[2, 3])
def rig(request: pytest.FixtureRequest) -> Iterator[VgicRig]:
    """Two vCPUs; a GICv2, then a GICv3."""
    rig = VgicRig(request.param, cpus=2)
    yield rig
    rig.close()


@pytest.fixture
def v2() -> Iterator[VgicRig]:
    """Three vCPUs, a GICv2."""
    rig = VgicRig(2, cpus=3)
    yield rig
    rig.close()


@pytest.fixture
def its() -> Iterator[ItsRig]:
    """Two vCPUs with an ITS that a guest has set up."""
    rig = ItsRig()
    yield rig
    rig.close()


@pytest.fixture
def bare() -> Iterator[ItsRig]:
    """An ITS that has an address."""
    rig = ItsRig(bare=True)
    yield rig
    rig.close()
