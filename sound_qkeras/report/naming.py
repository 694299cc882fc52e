"""Names of the numbers that go in and come out, with their units, as a page says them."""

from __future__ import annotations

from dataclasses import dataclass

from sound_qkeras.results.result import Result


@dataclass(frozen=True)
class Naming:
    """What each input and output is called, and its unit; flattened in order.

    Args:
        inputs, outputs: names.
        input_units, output_units: units; empty where none was given.
        given: whether somebody gave names to the outputs; Keras' layer names stay out of sentences.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_units: tuple[str, ...]
    output_units: tuple[str, ...]
    given: bool

    @classmethod
    def of(cls, result: Result) -> Naming:
        """Those of a result: as they were given, or Keras'."""
        labels, network = result.certificate.labels, result.pair.reference
        inputs, outputs = tuple(labels.input_names(network)), tuple(labels.output_names(network))
        input_units, output_units = (tuple(map(labels.unit, names)) for names in (inputs, outputs))
        return cls(inputs, outputs, input_units, output_units, bool(labels.outputs))

    def input(self, index: int) -> str:
        """An input with its unit."""
        return _with_unit(self.inputs[index], self.input_units[index])

    def output(self, index: int) -> str:
        """An output with its unit."""
        return _with_unit(self.outputs[index], self.output_units[index])

    @property
    def unit(self) -> str:
        """The one unit of all outputs, to be put behind a number; empty where they have several, or none."""
        found = set(self.output_units)
        return f"\N{NO-BREAK SPACE}{found.pop()}" if len(found) == 1 and "" not in found else ""

    @property
    def who(self) -> str:
        """The outputs, in a sentence."""
        if len(self.outputs) > 1:
            return f"each of the {len(self.outputs)} outputs"
        return f"the output {', '.join(self.outputs)}" if self.given else "the output"

    @property
    def an_output(self) -> str:
        """One of the outputs, in a sentence."""
        return self.who if len(self.outputs) == 1 else "an output"


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name
