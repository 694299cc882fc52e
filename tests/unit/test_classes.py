"""Tolerances that classes allow, and why there is none."""

import numpy as np
import pytest

from sound_qkeras.errors import InputError
from sound_qkeras.network import Network, Node
from sound_qkeras.network.classes import tolerance_for
from sound_qkeras.network.ops import Dense, Input


@pytest.mark.parametrize(("outputs", "says"), [(1, "an output between both classes"), (2, "two largest outputs")])
def test_no_tolerance_keeps_what_has_no_class(outputs, says):
    layer = Node("dense", Dense(np.zeros((3, outputs)), np.zeros(outputs)), ("x",), "dense")
    network = Network((Node("x", Input((3,)), (), "x"), layer))
    with pytest.raises(InputError, match=says):
        tolerance_for(network, np.ones((4, 3)), 0.99)
