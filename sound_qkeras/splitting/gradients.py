"""Gradients at the centres of boxes: where they point decides what is cut; nothing proved depends on them."""

from __future__ import annotations

import numpy as np

from sound_qkeras.interval import Reals
from sound_qkeras.verify.propagation import Propagation


def input_gradients(result: Propagation) -> dict[str, Reals]:
    """For every node, its derivatives in the flat inputs at each box's centre, shape `(boxes, inputs, *shape)`."""
    first = result.network.nodes[0].name
    box = result.facts[first].value
    inputs = box.lower[0].size
    seed = np.eye(inputs).reshape(1, inputs, *box.shape[1:])
    gradients = {first: np.broadcast_to(seed, (box.shape[0], *seed.shape[1:]))}
    for node in result.network.nodes[1:]:
        centers = (result.facts[name].value.center for name in node.inputs)
        gradients[node.name] = node.op.forward_gradient([gradients[name] for name in node.inputs], *centers)
    return gradients
