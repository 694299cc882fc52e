"""Operations that only move values, in exact rational arithmetic: which value of the input each result is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sound_qkeras.network.graph import Node
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.verify.dyadic import Dyadic, Range
from sound_qkeras.verify.exact_ops import Meaning, no_rest
from sound_qkeras.verify.exact_tensors import ExactFacts, ExactRows

Indices = npt.NDArray[np.int64]
# The source of a result that is always zero.
ZERO = -1


class ExactMove(Meaning):
    """Each result is one value of the input, or zero."""

    def __init__(self, node: Node, quantized: QuantizedNetwork) -> None:
        """Number the input's values and see where they end up."""
        super().__init__(node, quantized)
        shape = quantized.network.shapes[node.inputs[0]]
        numbers = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        self.size, self.sources = numbers.size, moved(node, numbers).reshape(-1)

    def _taken(self, x: Dyadic) -> Dyadic:
        padded = Dyadic(np.append(x.numbers, [0]), x.bits)  # the last one is what `ZERO` indexes
        return padded[self.sources]

    def real(self, *inputs: Range) -> Range:
        """The values in their new places."""
        return Range(self._taken(inputs[0].lower), self._taken(inputs[0].upper))

    def fixed(self, *inputs: Range) -> Range:
        """The values in their new places."""
        return self.real(*inputs)

    def difference(self, *inputs: ExactFacts) -> Range:
        """The differences in their new places."""
        return self.real(inputs[0].difference)

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """Each coefficient goes to where its value came from."""
        return (ExactRows(self._returned(rows.value), self._returned(rows.difference)),), no_rest(rows)

    def _returned(self, rows: Dyadic) -> Dyadic:
        found = np.zeros((rows.shape[0], self.size + 1), dtype=object)
        for column, source in enumerate(self.sources):
            found[:, source] += rows.numbers[:, column]
        return Dyadic(found[:, : self.size], rows.bits)


def moved(node: Node, numbers: Indices) -> Indices:
    """The input's numbers as the node's result shows them, `ZERO` where it puts zeros."""
    return numbers
