"""What a QKeras model costs, by QKeras' own counting: bits as AutoQKeras adds them up, energy as QTools estimates it."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.keras_io.autoqkeras.setup import import_autoqkeras
from sound_qkeras.keras_io.session.environment import import_keras, import_qkeras, qkeras_module

# Bits AutoQKeras assumes for a float input, for a softmax, and for what has no quantizer.
ASSUMED_BITS = 8
# Layers whose parameters AutoQKeras counts: the first weight is the kernel, the second the bias.
COUNTED = ("Dense", "Conv1D", "Conv2D", "DepthwiseConv2D", "QDense", "QConv1D", "QConv2D", "QDepthwiseConv2D")


@dataclass(frozen=True)
class ModelBits:
    """Bits of a model. The activations include the input, at what it was assumed to have."""

    weight_bits: int
    bias_bits: int
    activation_bits: int

    @property
    def total_bits(self) -> int:
        """What AutoQKeras prints as `total` and calls the trial's size."""
        return self.weight_bits + self.bias_bits + self.activation_bits


def model_bits(model: Any, *, input_bits: int = ASSUMED_BITS, output_bits: int = ASSUMED_BITS) -> ModelBits:
    """Bits of a Keras or QKeras model, counted by AutoQKeras' own code, weights and biases told apart.

    Args:
        model: built. A model from `to_qkeras` rounds its input in a layer of its own, which counts: use `input_bits=0`.
        input_bits: of every input value.
        output_bits: of every value a softmax or sigmoid returns.

    Raises:
        DependencyError: keras-tuner or another package is missing or of the wrong kind.
    """
    import_autoqkeras()
    factor = qkeras_module("autoqkeras.forgiving_metrics.forgiving_bits").ForgivingFactorBits(
        8.0, 8.0, 2.0, 1.0, input_bits, output_bits, ASSUMED_BITS, {"default": ["parameters", "activations"]}
    )
    # A Sequential model does not list its input, so AutoQKeras would not count it.
    whole = import_keras().Model(model.inputs, model.outputs)
    total, parameters, activations, _ = factor.compute_model_size(whole)
    biases = sum(_bias_bits(layer) for layer in whole.layers)
    found = ModelBits(int(parameters) - biases, biases, int(activations))
    if found.total_bits != int(total):
        raise ModelError(
            f"AutoQKeras counts {total} bits, but {parameters} of parameters and {activations} of activations"
        )
    return found


def _bias_bits(layer: Any) -> int:
    """Bits of the bias of a layer with kernel and bias; what else is a parameter counts as weight."""
    weights = layer.get_weights()
    if type(layer).__name__ not in COUNTED or len(weights) < 2:
        return 0
    quantizer = layer.get_quantizers()[1] if hasattr(layer, "get_quantizers") else None
    return int(np.prod(weights[1].shape)) * int(quantizer.bits if quantizer else ASSUMED_BITS)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """QTools prints what layers it has no costs of, and calls what TensorFlow warns about."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


def bit_operations(model: Any) -> int | None:
    """Sum over multiplications of the bits of both factors, as QKeras' `print_qstats` sees them; None where it cannot.

    Args:
        model: a built QKeras model.
    """
    estimate = qkeras_module("estimate")
    try:
        with _silent():
            found = estimate.extract_model_operations(model)
        rows = [(row["number_of_operations"], row["type"][2]) for row in found.values()]
        return sum(int(number) * int(first) * int(second) for number, (first, second) in rows)
    except Exception:
        return None


def energy(model: Any, *, input_bits: int = ASSUMED_BITS) -> float:
    """Picojoules of one inference as QTools estimates them: 45 nm, parameters and values in SRAM, nothing read from DRAM.

    The settings are those of AutoQKeras' own example. Only comparisons between models mean something.

    Args:
        model: a built QKeras model of layers QTools knows.
        input_bits: of every input value, a signed fixed-point number.

    Raises:
        ModelError: QTools cannot read the model.
        DependencyError: TensorFlow, tf_keras or QKeras is missing or of the wrong kind.
    """
    qkeras = import_qkeras()
    tools, settings = qkeras_module("qtools.run_qtools"), qkeras_module("qtools.settings")
    try:
        with _silent():
            found = tools.QTools(
                model,
                process="horowitz",
                source_quantizers=[qkeras.quantized_bits(input_bits, 0, 1, alpha=1.0)],
                is_inference=False,
                keras_quantizer="fp32",
                keras_accumulator="fp32",
            )
            costs = found.pe("sram", "sram", 0, False)
        return float(found.extract_energy_sum(settings.cfg.include_energy, costs))
    except Exception as error:
        raise ModelError(f"QTools cannot read model '{model.name}': {type(error).__name__}: {error}") from error
