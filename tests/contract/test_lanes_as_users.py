"""Lanes and single runs agree in programs that are compiled as users have them, too; see test_lanes.py."""

import pytest

from tests.contract.test_lanes import test_a_lane_is_its_single_run as agree
from tests.contract.test_lanes import tiny

__all__ = ["tiny"]
pytestmark = [pytest.mark.optimised, pytest.mark.slow]

NAMES = ("cser", "ef21", "fedavg", "locodl", "mcm", "savic", "scaffold")  #: of each mechanism one, and of coins


@pytest.mark.parametrize("name", NAMES)
def test_a_lane_is_its_single_run(name, tiny):
    agree(name, tiny)
