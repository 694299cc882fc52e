"""QKeras models to be certified, and how what is computed of them is compared with QKeras."""

import dataclasses

import numpy as np

from sound_qkeras.floating.pair import pair_float_reports
from sound_qkeras.interval import Interval
from sound_qkeras.keras_io import read_model
from sound_qkeras.keras_io.qkeras.matching import match
from sound_qkeras.keras_io.qkeras.reader import read_steps

from .models import LAYERS, qk

BITS = "quantized_bits(6,1,alpha=1.0)"
IN = "quantized_bits(8,2,alpha=1.0)"


def dense(activation=None, weights=BITS, bias=BITS, first=IN):
    """Input rounding, a hidden layer with the activation, an output layer."""
    act = qk.QActivation(activation) if activation is not None else LAYERS.Activation("linear")
    layers = [qk.QActivation(first)] if first else []
    return [
        *layers,
        qk.QDense(6, kernel_quantizer=weights, bias_quantizer=bias),
        act,
        qk.QDense(3, kernel_quantizer=weights, bias_quantizer=bias),
    ]


def twin_of(model, reference=None):
    return match(read_steps(model), reference).pair


def points(model, box=(-2.0, 2.0), count=200, seed=1, bits=None):
    """Random float32 samples of a box, on a grid if wanted, corners included."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(*box, (count, *model.input_shape[1:]))
    x[: count // 8] = np.where(x[: count // 8] < np.mean(box), *box)
    x = x if bits is None else np.rint(x * 2.0**bits) / 2.0**bits
    return x.astype(np.float32)


def region(model, box=(-2.0, 2.0)):
    shape = tuple(model.input_shape[1:])
    return Interval(np.full(shape, box[0]), np.full(shape, box[1]))


def check(model, x, box=(-2.0, 2.0), bits=None):
    """QKeras' float32 result is within the proved distance of ours; equal to the last bit where that says exact."""
    matched = match(read_steps(model), None)
    twin = dataclasses.replace(matched.pair, input_bits=bits)
    report = pair_float_reports(twin, region(model, box), 0.0, matched.offsets)[0]
    ours, theirs = twin.evaluate(x), np.asarray(model(x), np.float64)
    difference = float(np.abs(ours - theirs).max())
    assert difference <= report.error
    return report


def float_network(model):
    """A float model as the network it stands for."""
    return read_model(model)
