"""What a writer tells the templates about one operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sound_qkeras.fixed_point import Codes, Format
from sound_qkeras.hls.options import Options
from sound_qkeras.hls.tensors import Layer, Tensor
from sound_qkeras.network import Node, QuantizedNetwork


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


class OpWriter(ABC):
    """The code of one kind of operation.

    Templates are found by name: `<target>/<template>.<style>.j2`, or `<target>/<template>.j2` where the style is no matter.
    """

    kind: ClassVar[str]
    # Without a rounding of its own, the result is its input under another name and needs no code.
    alias: ClassVar[bool] = False
    # It adds products in an accumulator; its context names `kernel_format`, `bias_format`, `align` and `sum_bits`.
    sums: ClassVar[bool] = False

    @abstractmethod
    def exact_format(self, quantized: QuantizedNetwork, node: Node, *inputs: Tensor) -> Format:
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

    def statements(self, layer: Layer) -> int:
        """Lines of unrolled code that grow with the number of weights."""
        return 0
