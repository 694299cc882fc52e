"""Latent weights of QKeras layers: floating-point numbers that training moves and formats turn into integers.

QKeras clips a kernel to `+-max(1, 2**integer)` and gets a wider format where `integer` is negative, so a weight could leave
the format it is to be stored in. Here every weight is clipped to its own format after each step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import Codes, Format
from sound_qkeras.keras_io.session.environment import import_keras, import_tensorflow
from sound_qkeras.keras_io.write.keras_names import keras_names
from sound_qkeras.network import Pair
from sound_qkeras.network.grids import fractional_bits_of
from sound_qkeras.network.ops import AffineCodes, Conv, Dense
from sound_qkeras.network.staircases import Staircase
from sound_qkeras.types import Reals

# A latent weight starts where the float one is, but so far inside its code's cell, in steps from the middle.
INSIDE = 0.45
# How fast a weight is drawn to the middle of its cell, in shares of the way for a learning rate of 1.
PULL = 2.0


@dataclass(frozen=True, eq=False)
class Grid:
    """What each entry of one array of weights may become: `code << shift` with a code of its own format, or one of few codes.

    Args:
        codes: where it starts, in steps of the finest format.
        shift: fractional bits an entry's own format has fewer, elementwise.
        lowest, highest: ends of the own formats, in their codes, elementwise.
        fractional_bits: of the finest format.
        levels: the codes there are, ascending, where they are not all from the lowest to the highest.
    """

    codes: Codes
    shift: Codes
    lowest: Codes
    highest: Codes
    fractional_bits: int
    levels: Codes | None = None

    @classmethod
    def of_kernel(cls, codes: AffineCodes) -> Grid:
        """That of a kernel: of its format, of its channels' formats, or of few values."""
        few = codes.kernel_grid
        if not isinstance(few, Staircase):
            return cls.of(codes.kernel, codes.kernel_format, codes.channel_formats)
        finest = codes.kernel_format.fractional_bits
        own = fractional_bits_of(few.values) or 0
        shift = np.broadcast_to(finest - own + few.exponent, codes.kernel.shape)
        levels = np.ldexp(few.values, own).astype(np.int64)
        low, high = (np.broadcast_to(level, codes.kernel.shape) for level in (levels[0], levels[-1]))
        return cls(codes.kernel, shift, low, high, finest, levels)

    @classmethod
    def of(cls, codes: Codes, output: Format, own: tuple[Format, ...] | None = None) -> Grid:
        """The grid of a format, or of one for each entry of the last axis."""
        formats = own or (output,) * codes.shape[-1]
        bits = output.fractional_bits

        def spread(column: list[int]) -> Codes:
            return np.broadcast_to(np.array(column, dtype=np.int64), codes.shape)

        return cls(
            codes,
            shift=spread([bits - own_format.fractional_bits for own_format in formats]),
            lowest=spread([own_format.min_code for own_format in formats]),
            highest=spread([own_format.max_code for own_format in formats]),
            fractional_bits=bits,
        )

    @property
    def step(self) -> Reals:
        """Of every entry's own format."""
        return np.ldexp(1.0, self.shift - self.fractional_bits)

    @property
    def distance(self) -> Reals:
        """Of neighbouring values, on average."""
        return self.step if self.levels is None else self.step * np.mean(np.diff(self.levels))

    @property
    def ends(self) -> tuple[Reals, Reals]:
        """The least and largest value of every entry."""
        return self.lowest * self.step, self.highest * self.step

    def round(self, latent: Reals) -> Codes:
        """The integers of latent weights, half to even, in steps of the finest format."""
        own = latent / self.step
        if self.levels is None:
            return np.clip(np.rint(own), self.lowest, self.highest).astype(np.int64) << self.shift
        return self.levels[np.searchsorted(self.middles, own, side="right")] << self.shift

    @property
    def middles(self) -> Reals:
        """Between few codes; of two that are as near the larger one is taken."""
        levels = np.zeros(1) if self.levels is None else self.levels.astype(np.float64)
        return 0.5 * (levels[:-1] + levels[1:])

    def start(self, trained: Reals) -> npt.NDArray[np.float32]:
        """Latent float32 weights near the trained ones that stand for the codes, where those have at most 24 bits."""
        value = np.ldexp(self.codes.astype(np.float64), -self.fractional_bits)
        if self.levels is not None:
            stands = self.round(trained) == self.codes
            return np.clip(np.where(stands, trained, value), *self.ends).astype(np.float32)
        near = np.clip(trained, value - INSIDE * self.step, value + INSIDE * self.step)
        return np.clip(near, *self.ends).astype(np.float32)


class Latent:
    """One variable of a layer and the grid its values are rounded to."""

    def __init__(self, variable: Any, grid: Grid, trained: Reals) -> None:
        """Set the variable to its start."""
        shape = tuple(variable.shape)
        self.variable, self.grid = variable, grid
        self.first = grid.start(trained).reshape(shape)
        self.lower, self.upper = (end.astype(np.float32).reshape(shape) for end in grid.ends)
        # A step of one weight changes a sum less, beside what the sum is, the more there are.
        self.unit = (grid.distance * np.sqrt(grid.codes.size / grid.codes.shape[-1])).astype(np.float32).reshape(shape)
        self._nearest = _nearest(grid, shape)
        variable.assign(self.first)

    def clip(self) -> None:
        """Back into the format's range."""
        self.variable.assign(import_tensorflow().clip_by_value(self.variable, self.lower, self.upper))

    def follow(self, before: Any, rate: Any = None) -> None:
        """Back into the format's range after an optimizer's step.

        Steps at a learning rate that is given count steps of the format, and draw the weight to the middle of its cell: a weight
        that is between two codes, where the loss would have it, would change from one to the other for ever, and more weights
        from epoch to epoch (Nagel et al., "Overcoming oscillations in quantization-aware training", 2022).
        """
        if rate is not None:
            tf = import_tensorflow()
            moved = tf.clip_by_value(before + (self.variable - before) * self.unit, self.lower, self.upper)
            self.variable.assign(moved + PULL * rate * (self._nearest(moved) - moved))
        self.clip()

    def codes(self, value: npt.NDArray[np.float32]) -> Codes:
        """Integers of the variable's value; where training left it alone, those it started with."""
        made = self.grid.round(value.astype(np.float64).reshape(self.grid.codes.shape))
        return np.where(value.reshape(made.shape) == self.first.reshape(made.shape), self.grid.codes, made)


def latents_of(pair: Pair, model: Any) -> dict[str, tuple[Latent, ...]]:
    """The latent weights of a model from `to_qkeras(scaled=False)`, kernel first, by node; everything else is made untrainable.

    Dense and convolutional layers have some. Averages, normalisations of their own, slopes and tables stay as they are.

    Raises:
        ModelError: weights that layers share are in several layers of the model.
    """
    found: dict[str, tuple[Latent, ...]] = {}
    for layer in model.layers:
        layer.trainable = False
    names = keras_names(pair.reference, pair.network)
    copies = {names[node.name] for node in pair.network.nodes if node.shares is not None}
    copied = [layer.name for layer in model.layers if layer.name in copies]
    if copied:
        raise ModelError(
            f"layer '{copied[0]}' is used on inputs of different sizes and padded differently, so QKeras has its weights twice; "
            "accepted: layers that can be trained in one place"
        )
    for node, op in pair.network.owners():
        if not isinstance(op, Dense | Conv):
            continue
        layer, codes = model.get_layer(names[node.name]), pair.parameters[node.name]
        layer.trainable = True
        kernel = Grid.of_kernel(codes)
        grids = (kernel, op.kernel), (Grid.of(codes.bias, codes.bias_format), op.bias)
        found[node.name] = tuple(
            Latent(variable, *given) for variable, given in zip(layer.weights, grids, strict=False)
        )
        if codes.channel_formats is not None or codes.kernel_grid is not None:
            _quantise_on(layer, kernel)
    return found


def with_values(codes: AffineCodes, latents: tuple[Latent, ...], values: list[npt.NDArray[np.float32]]) -> AffineCodes:
    """The integers of latent weights, in the same formats; that which has all channels' values is as wide as it must be."""
    made = [latent.codes(value) for latent, value in zip(latents, values, strict=True)]
    kernel, bias, whole = made[0], made[1] if len(made) > 1 else codes.bias, codes.kernel_format
    if codes.channel_formats is not None:
        ends = min(whole.min_code, int(kernel.min())), max(whole.max_code, int(kernel.max()))
        whole = Format.for_codes(*ends, whole.fractional_bits)
    return replace(codes, kernel=kernel, kernel_format=whole, bias=bias)


def _quantise_on(layer: Any, grid: Grid) -> None:
    """Exchange the kernel's quantizer, which has one format for all channels; QKeras asks this attribute for it."""
    nearest, tf = _nearest(grid, tuple(layer.weights[0].shape)), import_tensorflow()

    def quantise(x: Any) -> Any:
        return x + tf.stop_gradient(nearest(x) - x)

    name = "depthwise" if hasattr(layer, "depthwise_quantizer_internal") else "kernel"
    setattr(layer, f"{name}_quantizer_internal", quantise)


def _nearest(grid: Grid, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """The values that latent weights stand for, as `Grid.round` has them, of a tensor of float32."""
    tf, backend = import_tensorflow(), import_keras().backend
    step, lowest, highest = (
        backend.constant(array.reshape(shape), dtype="float32") for array in (grid.step, grid.lowest, grid.highest)
    )

    def nearest(x: Any) -> Any:
        if grid.levels is None:
            return step * tf.clip_by_value(tf.round(x / step), lowest, highest)
        found = tf.fill(shape, np.float32(grid.levels[0]))
        for middle, more in zip(grid.middles, np.diff(grid.levels), strict=True):
            found += tf.cast(x / step >= np.float32(middle), "float32") * np.float32(more)
        return step * found

    return nearest
