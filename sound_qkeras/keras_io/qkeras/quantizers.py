"""What the quantizers of QKeras 0.9.0 do to activations and to weights.

On weights they are applied: stored weights are latent, and what a quantizer returns for them is a constant, scales included.
On activations they become a function of a real variable and a staircase behind it. Scales that depend on the batch, and
quantizers that draw random numbers when a model is used, have no proved meaning, and are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.qkeras.freezing import depends_on_batch
from sound_qkeras.keras_io.read.activations import Parts, function_parts
from sound_qkeras.keras_io.read.layers import stored
from sound_qkeras.keras_io.read.pieces import Gain, Rounded
from sound_qkeras.keras_io.session.environment import import_keras, import_qkeras
from sound_qkeras.network.grids import FixedPoint, Grid
from sound_qkeras.network.ops import Leaky, Relu, Table
from sound_qkeras.network.staircases import Staircase

RANDOM = ("bernoulli", "stochastic_binary", "stochastic_ternary")
# Random in training alone: outside of it they are binary and ternary.
SETTLED = ("stochastic_binary", "stochastic_ternary")
# quantized_relu computes in float32 whatever the session does.
MOST_BITS = 24
# Powers of two as float32 has them.
MOST_EXPONENT = 64
ACCEPTED = (
    "quantized_bits and quantized_hswish with alpha None or a number, quantized_relu, quantized_relu_po2, "
    "quantized_tanh, quantized_sigmoid, binary and ternary with alpha None or a number, none of them stochastic"
)


def is_quantizer(thing: Any) -> bool:
    """Whether this is one of QKeras' quantizer objects."""
    return type(thing).__module__ == "qkeras.quantizers" and hasattr(thing, "get_config")


def effective(layer: Any, name: str, variable: Any, quantizer: Any) -> Reals:
    """A parameter as the quantised model uses it: what the quantizer returns for what is stored.

    Raises:
        UnsupportedLayerError: the quantizer draws random numbers outside of training too.
        ModelError: it holds NaN or infinity.
    """
    if quantizer is None:
        return stored(layer, name, variable)
    training = import_keras().backend.learning_phase()
    if type(quantizer).__name__ not in SETTLED or training:
        refuse_random(layer, quantizer)
    return stored(layer, name, quantizer(variable))


def powers_of_two(quantizer: Any) -> Reals:
    """The constant scales of `quantized_bits` that are powers of two, as `to_qkeras` writes them; else one."""
    alpha = getattr(quantizer, "alpha", None) if type(quantizer).__name__ == "quantized_bits" else None
    if alpha is None or isinstance(alpha, str):
        return np.ones(())
    scales = np.asarray(alpha, np.float64)
    return scales if np.all(np.frexp(scales)[0] == 0.5) else np.ones(())


def refuse_random(layer: Any, quantizer: Any) -> None:
    """Refuse quantizers that draw random numbers.

    Raises:
        UnsupportedLayerError: this one does.
    """
    kind = type(quantizer).__name__
    if kind in RANDOM or getattr(quantizer, "use_stochastic_rounding", False):
        refuse(layer, f"the random quantizer {kind}", "use one that rounds to the nearest value")


def refuse(layer: Any, received: str, way_out: str) -> None:
    """Refuse a quantizer.

    Raises:
        UnsupportedLayerError: always.
    """
    raise UnsupportedLayerError(layer.name, received, ACCEPTED, way_out)


def quantized_activation(layer: Any, given: Any, separator: str) -> Parts:
    """What an activation of a QKeras layer becomes: one of Keras' own, or a quantizer.

    Args:
        layer: the layer it belongs to.
        given: the function or quantizer.
        separator: "_" where the layer is more than its activation.

    Raises:
        UnsupportedLayerError: it has no proved meaning.
    """
    kind = type(given).__name__
    if depends_on_batch(given) and not is_quantizer(given):
        refuse(layer, f"{kind}, whose scale depends on the batch", "freeze it on samples (`freeze=`)")
    if not is_quantizer(given):
        hard = _hard_function(given)
        if not hard:
            return function_parts(layer, given, separator)
        return ((f"_{hard}" if separator else "", Table(hard)),)
    refuse_random(layer, given)
    if kind not in QUANTIZERS:
        refuse(layer, f"the quantizer {kind} on an activation", "use another one")
    if float(getattr(given, "qnoise_factor", 1.0)) != 1.0:
        refuse(layer, f"{kind} with qnoise_factor={float(given.qnoise_factor)}", "set it to 1 when training is done")
    last = "_quantizer" if separator else ""
    return tuple((f"_{suffix}" if suffix else last, piece) for suffix, piece in QUANTIZERS[kind](layer, given))


def _hard_function(given: Any) -> str:
    quantizers = import_qkeras().quantizers
    return "hard_tanh" if given is quantizers.hard_tanh else "half_sigmoid" if given is quantizers.hard_sigmoid else ""


def rounded(quantizer: Any, rounding: Grid) -> tuple[str, Rounded]:
    """The last part of a quantizer."""
    try:
        text = str(quantizer)
    except AssertionError:  # quantized_hswish cannot write itself
        text = f"{type(quantizer).__name__}({quantizer.bits},{quantizer.integer},{int(quantizer.symmetric)})"
    return "", Rounded(rounding, text)


def _fixed(fractional_bits: int, low: int, high: int) -> FixedPoint:
    """One format for all elements."""
    return FixedPoint(np.array(fractional_bits), np.array(low), np.array(high))


def _integer(layer: Any, value: Any, what: str) -> int:
    number = float(np.asarray(value).reshape(-1)[0]) if np.size(value) == 1 else math.nan
    if not number.is_integer():
        refuse(layer, f"{what}={value}", "use an integer")
    return int(number)


def _factor(layer: Any, quantizer: Any) -> float:
    """The constant a quantizer multiplies with, as float32 holds it; one if there is none."""
    alpha = quantizer.alpha
    if alpha is None:
        return 1.0
    if isinstance(alpha, str):
        refuse(
            layer,
            f"{type(quantizer).__name__} with alpha='{alpha}' on an activation: its scale depends on the batch",
            "use a constant alpha, or freeze it on samples (`freeze=`)",
        )
    if np.size(alpha) != 1:
        refuse(layer, f"{type(quantizer).__name__} with an array of {np.size(alpha)} alphas", "use one number")
    factor = float(np.float32(np.asarray(alpha).reshape(-1)[0]))
    if not (math.isfinite(factor) and factor > 0.0):
        refuse(layer, f"alpha={factor}", "use a positive number")
    return factor


def _bits(layer: Any, quantizer: Any) -> Parts:
    """`alpha 2**-f clip(rint(x 2**f))`; of a single bit, the sign."""
    bits, integer = (_integer(layer, getattr(quantizer, name), name) for name in ("bits", "integer"))
    signed, symmetric, factor = bool(quantizer.keep_negative), bool(quantizer.symmetric), _factor(layer, quantizer)
    unsigned = bits - signed
    if unsigned > MOST_BITS:
        refuse(layer, f"{quantizer} with {bits} bits, which QKeras misreads", f"use at most {MOST_BITS}")
    if unsigned == 0:
        return (rounded(quantizer, Staircase(np.zeros(1), (True,), factor * np.array([-1.0, 1.0]))),)
    levels = 1 << unsigned
    rounding = _fixed(unsigned - integer, signed * (symmetric - levels), levels - 1)
    return _with_gain(rounded(quantizer, rounding), factor)


def _with_gain(part: tuple[str, Rounded], factor: float) -> Parts:
    return (part,) if factor == 1.0 else (part, ("gain", Gain(factor)))


def _relu(layer: Any, quantizer: Any) -> Parts:
    """`clip(rint(max(x, 0)))`, with a power of two as slope below zero."""
    bits, integer = (_integer(layer, getattr(quantizer, name), name) for name in ("bits", "integer"))
    slope, bound = float(quantizer.negative_slope), quantizer.relu_upper_bound
    if quantizer.use_sigmoid:
        refuse(layer, "quantized_relu with use_sigmoid", "use quantized_sigmoid or a plain quantized_relu")
    if bound and not quantizer.is_quantized_clip:
        refuse(layer, f"quantized_relu with relu_upper_bound={bound} and is_quantized_clip=False", "leave both alone")
    unsigned = bits - (slope != 0.0)
    if not 1 <= unsigned <= MOST_BITS:
        refuse(layer, f"{quantizer} with {bits} bits", f"use 1 to {MOST_BITS}")
    levels, bits_after = 1 << unsigned, unsigned - integer
    if not slope:
        return ("relu", Relu()), rounded(quantizer, _fixed(bits_after, 0, levels - 1))
    low = slope * levels
    if not low.is_integer():
        refuse(layer, f"{quantizer} with negative_slope={slope}", f"use at least {1 / levels}")
    return ("leaky", Leaky(np.array([slope]))), rounded(quantizer, _fixed(bits_after, -int(low), levels - 1))


def _relu_po2(layer: Any, quantizer: Any) -> Parts:
    """The power of two whose logarithm is nearest to that of `max(x, 0)`; the smallest there is up to 1e-7, zero included."""
    refused = [
        f"{name}={getattr(quantizer, name)}"
        for name, accepted in (("negative_slope", 0.0), ("quadratic_approximation", False), ("log2_rounding", "rnd"))
        if getattr(quantizer, name) != accepted
    ]
    least, most = int(quantizer._min_exp), int(quantizer._max_exp)
    if quantizer.max_value is not None and quantizer.max_value > 0.0:
        most = min(most, max(least, round(math.log2(float(quantizer.max_value)))))
    if max(-least, most) > MOST_EXPONENT:
        refused.append(f"bits={quantizer.bits}")
    if refused:
        refuse(layer, f"quantized_relu_po2 with {', '.join(refused)}", "use quantized_relu")
    exponents = np.arange(least, most + 1)
    edges = np.exp2(exponents[:-1] + 0.5)
    smallest = float(np.float32(import_keras().backend.epsilon()))
    edges = np.maximum(edges, smallest)
    # Square roots of two are no float64 numbers: an edge above the true one belongs to the step above it.
    upper = tuple(
        edge == smallest or Fraction(float(edge)) ** 2 > Fraction(2) ** (2 * int(k) + 1)
        for edge, k in zip(edges, exponents, strict=False)
    )
    steps = Staircase(edges, upper, np.exp2(exponents.astype(np.float64)), logarithmic=True)
    return ("relu", Relu()), rounded(quantizer, steps)


def _internal_sigmoid(layer: Any, quantizer: Any) -> None:
    """QKeras' sigmoid is a switch of the session."""
    quantizers = import_qkeras().quantizers
    if quantizers._sigmoid is not quantizers.hard_sigmoid:
        refuse(
            layer,
            f"{type(quantizer).__name__} in a session whose internal sigmoid is not the hard one",
            "call qkeras.quantizers.set_internal_sigmoid('hard'), or use the real function",
        )


def _word(layer: Any, quantizer: Any, fewest: int) -> int:
    bits = _integer(layer, quantizer.bits, "bits")
    if not fewest <= bits <= MOST_BITS:
        refuse(layer, f"{quantizer} with {bits} bits", f"use {fewest} to {MOST_BITS}")
    return bits


def _tanh(layer: Any, quantizer: Any) -> Parts:
    """tanh, hard unless asked otherwise, rounded to `bits - 1` fractional bits."""
    bits = _word(layer, quantizer, 2)
    if not quantizer.use_real_tanh:
        _internal_sigmoid(layer, quantizer)
    function = "tanh" if quantizer.use_real_tanh else "hard_tanh"
    levels = 1 << bits - 1
    rounding = _fixed(bits - 1, bool(quantizer.symmetric) - levels, levels - 1)
    return (function, Table(function)), rounded(quantizer, rounding)


def _sigmoid(layer: Any, quantizer: Any) -> Parts:
    """sigmoid, hard unless asked otherwise, rounded to `bits` fractional bits."""
    bits = _word(layer, quantizer, 1)
    if not quantizer.use_real_sigmoid:
        _internal_sigmoid(layer, quantizer)
    function = "sigmoid" if quantizer.use_real_sigmoid else "half_sigmoid"
    rounding = _fixed(bits, int(bool(quantizer.symmetric)), (1 << bits) - 1)
    return (function, Table(function)), rounded(quantizer, rounding)


def _hswish(layer: Any, quantizer: Any) -> Parts:
    """`x min(max(x + 3, 0), 6) / 6`, and then as quantized_bits."""
    if (quantizer.relu_shift, quantizer.relu_upper_bound) != (3, 6):
        received = f"quantized_hswish with relu_shift={quantizer.relu_shift}, {quantizer.relu_upper_bound}"
        refuse(layer, received, "use 3 and 6")
    return ("hard_swish", Table("hard_swish")), *_bits(layer, quantizer)


def _binary(layer: Any, quantizer: Any) -> Parts:
    """The sign times alpha, that of zero being positive; or whether it is positive."""
    factor = _factor(layer, quantizer)
    values = np.array([0.0 if quantizer.use_01 else -factor, factor])
    return (rounded(quantizer, Staircase(np.zeros(1), (True,), values)),)


def _ternary(layer: Any, quantizer: Any) -> Parts:
    """The sign times alpha from the threshold on, zero below."""
    factor, threshold = _factor(layer, quantizer), quantizer.threshold
    if isinstance(threshold, str):
        refuse(layer, f"ternary with threshold='{threshold}'", "use a number")
    edge = float(np.float32(quantizer.default_threshold if threshold is None else threshold))
    if not edge > 0.0:
        refuse(layer, f"ternary with threshold={edge}", "use a positive number")
    steps = Staircase(np.array([-edge, edge]), (False, True), factor * np.array([-1.0, 0.0, 1.0]))
    return (rounded(quantizer, steps),)


QUANTIZERS: dict[str, Callable[[Any, Any], Parts]] = {
    "binary": _binary,
    "quantized_bits": _bits,
    "quantized_hswish": _hswish,
    "quantized_relu": _relu,
    "quantized_relu_po2": _relu_po2,
    "quantized_sigmoid": _sigmoid,
    "quantized_tanh": _tanh,
    "ternary": _ternary,
}
