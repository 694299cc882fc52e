"""A float Keras model whose weights are kept on the grids of fixed-point formats while TensorFlow trains it, of either Keras.

The model's own variables always have rounded values, so losses, validation and whatever callbacks save see those. What an
optimizer adds to them goes to latent weights beside, which round to the next values: the straight-through estimator
(Courbariaux, Bengio and David, 2015) for any training step. Imports TensorFlow: import it inside functions only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.keras_io.session.editions import KERAS_3, as_array, edition
from sound_qkeras.keras_io.session.environment import import_tensorflow
from sound_qkeras.keras_io.train.latent import Grid
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.ops import Affine, AffineCodes, Conv, Dense
from sound_qkeras.types import Reals

tf = import_tensorflow()

Grids = tuple[Grid, Grid]
# A folded kernel counts as a stored one times a factor where no entry differs by more than this share.
SAME = 1e-6


def grids_of(codes: AffineCodes) -> Grids:
    """Where a node's kernel and bias may be."""
    return Grid.of_kernel(codes), Grid.of(codes.bias, codes.bias_format)


def rounded(formats: Pair, trained: Network) -> Pair:
    """The fixed-point network with the formats of another, and with other weights, each rounded to the nearest.

    Args:
        formats: the other; nothing was rewritten in it.
        trained: the float network with these weights, of the same shape.
    """
    made = {node.name: _codes(formats.parameters[node.name], op) for node, op in trained.owners()}
    return replace(formats, reference=trained, parameters=made)


def _codes(codes: AffineCodes, op: Affine) -> AffineCodes:
    kernel, bias = grids_of(codes)
    return replace(codes, kernel=kernel.round(op.kernel), bias=bias.round(op.bias))


class HeldModel:
    """The weights of a model's dense and convolutional layers, held in formats.

    Biases into which a normalisation was folded, and parameters of other layers, stay as they are.
    """

    def __init__(self, model: Any, network: Network) -> None:
        """Find the variables; nothing is rounded yet.

        Args:
            model: the model.
            network: what `read_model` makes of it, with nothing rewritten.

        Raises:
            ModelError: a kernel is not that of a layer, up to a factor for each input, or training is distributed.
        """
        if model.distribute_strategy is not tf.distribute.get_strategy() or tf.distribute.has_strategy():
            raise ModelError(
                "training is distributed; accepted: a model outside of a strategy; use sound_qkeras.finetune"
            )
        layers: dict[str, Any] = {layer.name: layer for layer in _flat(model)}
        self._weights: dict[str, tuple[_Held | None, _Held | None]] = {}
        for node, op in network.owners():
            if isinstance(op, Dense | Conv):
                kernel = _found(layers[node.layer], op.kernel)
                if kernel is None:
                    raise ModelError(
                        f"layer '{node.layer}': its kernel is not used as it is stored, a normalisation beside it is "
                        "part of it; accepted: kernels of their own; use sound_qkeras.finetune on the result"
                    )
                if any(held is not None and held.variable is kernel.variable for held, _ in self._weights.values()):
                    raise ModelError(
                        f"layer '{node.layer}' is used more than once, with another BatchNormalization each time; accepted: one "
                        "kernel for all uses; use sound_qkeras.finetune on the result"
                    )
                self._weights[node.name] = kernel, _found(layers[node.layer], op.bias)

    def hold(self, quantized: Pair) -> None:
        """Give every weight the value its integer stands for, and its latent weight one near the trained number.

        Raises:
            ModelError: a kernel has another family than fixed point.
        """
        for name in self._weights:
            if quantized.parameters[name].kernel_grid is not None:
                raise ModelError(
                    f"layer '{name}': its weights have few values, not all of a format; accepted: families=('fixed',) in training; "
                    "sound_qkeras.finetune trains the others"
                )
        arrays = {node.name: (op.kernel, op.bias) for node, op in quantized.reference.owners()}
        for name, pair in self._weights.items():
            for held, grid, trained in zip(pair, grids_of(quantized.parameters[name]), arrays[name], strict=True):
                if held is not None:
                    held.hold(grid, trained)

    def free(self) -> None:
        """Give every weight its latent value, from which other formats can be chosen; nothing is lost for `hold`."""
        for held in self:
            held.free()

    def __iter__(self) -> Iterator[_Held]:
        """All variables that are held."""
        return (held for pair in self._weights.values() for held in pair if held is not None)

    @tf.autograph.experimental.do_not_convert
    def before(self) -> list[Any]:
        """Values before a training step, for `after`."""
        return [tf.identity(held.variable) for held in self]

    @tf.autograph.experimental.do_not_convert
    def after(self, before: list[Any]) -> None:
        """Move the latent weights by what the step moved the rounded ones, and round again."""
        for held, value in zip(self, before, strict=True):
            held.move(held.variable - value)

    def round(self) -> None:
        """Give every weight its rounded value again, after `free`."""
        for held in self:
            held.move(0.0)


class _Held:
    """One variable: rounded values, their grid, and the latent weights."""

    def __init__(self, variable: Any, factor: Reals) -> None:
        """For a variable and what the network multiplies it by."""
        self.variable, self._factor = variable, factor
        self._latent, self._step, self._lower, self._upper = (
            tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False) for _ in range(4)
        )

    def hold(self, grid: Grid, trained: Reals) -> None:
        """Take on a grid, which is in units of the network."""
        lower, upper = grid.ends
        start = grid.start(trained).astype(np.float64)
        targets = self._latent, self._step, self._lower, self._upper
        for target, values in zip(targets, (start, grid.step, lower, upper), strict=True):
            target.assign((values / self._factor).reshape(target.shape))
        self.move(0.0)

    def free(self) -> None:
        """The latent weights take the place of the rounded ones."""
        self.variable.assign(self._latent)

    def move(self, by: Any) -> None:
        """Change the latent weights, within the ends of the format, and round them."""
        self._latent.assign(tf.clip_by_value(self._latent + by, self._lower, self._upper))
        self.variable.assign(self._step * tf.round(self._latent / self._step))


def _found(layer: Any, used: Reals) -> _Held | None:
    """The trainable variable of a layer that an array of the network is, up to a positive factor for each input."""
    for variable in layer.trainable_weights:
        stored = as_array(layer, variable).astype(np.float64)
        if stored.size == used.size:
            stored = stored.reshape(used.shape)
            factor = _factor(stored, used)
            if np.allclose(stored * factor, used, rtol=SAME, atol=0.0):
                # A variable of Keras 3 has one of TensorFlow inside.
                return _Held(variable.value if edition(layer) == KERAS_3 else variable, factor)
    return None


def _factor(stored: Reals, used: Reals) -> Reals:
    """What each input is scaled by, elementwise; 1 for a bias and where nothing else is known."""
    if used.ndim == 1:
        return np.ones(used.shape)
    sums = [np.abs(array).sum(axis=-1, keepdims=True) for array in (used, stored)]
    known = (sums[0] > 0.0) & (sums[1] > 0.0)
    return np.broadcast_to(np.where(known, sums[0], 1.0) / np.where(known, sums[1], 1.0), used.shape)


def _flat(model: Any) -> Iterator[Any]:
    """Layers, those of nested models and of what is applied to every time step included."""
    for layer in model.layers:
        inner = getattr(layer, "layer", None)
        if inner is not None:
            yield from _flat(inner) if hasattr(inner, "layers") else (inner,)
        yield from _flat(layer) if hasattr(layer, "layers") else (layer,)
