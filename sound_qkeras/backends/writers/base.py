"""What a writer tells the templates about one operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sound_qkeras.backends.options import Options
from sound_qkeras.backends.tensors import Layer, Tensor
from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Codes, Format
from sound_qkeras.network import Node, Pair


@dataclass(frozen=True)
class Constant:
    """An array of integer codes for `weights.h`.

    Args:
        name: its C name.
        codes: the integers, in the shape they are declared with.
        format: the format they are codes of.
        what: one line for the reader.
    """

    name: str
    codes: Codes
    format: Format
    what: str


def accumulator_of(quantized: Pair, node: Node) -> Format:
    """The format of a node's exact sum or product.

    Raises:
        InputError: none was proved.
    """
    if node.name not in quantized.accumulators:
        raise InputError(
            f"layer '{node.layer}' ({node.op.kind}) has no accumulator format: its proved range decides how wide the "
            "exported sum is; export a network whose ranges were proved"
        )
    return quantized.accumulators[node.name]


class OpWriter(ABC):
    """The code of one kind of operation.

    Templates are found by name: `<target>/<template>.<style>.j2`, or `<target>/<template>.j2` where the style is no matter.
    """

    kind: ClassVar[str]
    # Without a rounding of its own, the result is its input under another name and needs no code.
    alias: ClassVar[bool] = False
    # It has an accumulator; its context names `sum_bits`, the bits the C target adds up in.
    sums: ClassVar[bool] = False
    # What it adds up are products with weights; its context names `kernel_format`, `bias_format` and `align`.
    weighted: ClassVar[bool] = False
    # There is a Verilog template.
    verilog: ClassVar[bool] = True

    @abstractmethod
    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """A format that holds every exact result inside the box, given the inputs' types."""

    def template(self, layer: Layer, options: Options) -> str:
        """Name of the template."""
        return self.kind

    def constants(self, layer: Layer, options: Options) -> tuple[Constant, ...]:
        """The arrays that go to `weights.h`."""
        return ()

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """What the operation's templates read beside `layer`."""
        return {}

    def needed_bits(self, layer: Layer) -> int:
        """Bits of a signed integer that holds the exact results."""
        return layer.output.exact.word_length + (not layer.output.exact.signed)

    def sum_bits(self, layer: Layer) -> int:
        """Bits of the unsigned integer the C target adds up in."""
        return 32 if self.needed_bits(layer) <= 32 else 64

    def statements(self, layer: Layer) -> int:
        """Lines of unrolled code that grow with the number of weights."""
        return 0
