"""QKeras models of every quantizer and layer kind: what is claimed to be computed is what QKeras computes, and bounds hold."""

import json
import re
from fractions import Fraction

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.keras_io.qkeras.reader import read_steps

from .models import LAYERS, qk, sequential
from .quantised import BITS, IN, check, dense, float_network, points, twin_of

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")]

WEIGHTS = [
    BITS,
    "quantized_bits(5,0,1,alpha=1.0)",
    "quantized_bits(5,1,0,alpha=0.3)",
    "quantized_bits(4,0,1,alpha='auto')",
    "quantized_bits(4,0,1,alpha='auto_po2')",
    "quantized_bits(4,0)",  # silently auto_po2
    "quantized_bits(1,0,alpha=1.0)",
    "quantized_bits(6,1,keep_negative=0,alpha=1.0)",
    "binary(alpha=1)",
    "binary()",
    "binary(alpha='auto')",
    "ternary(alpha='auto')",
    "ternary(alpha=1.0,threshold=0.4)",
    "quantized_po2(4)",
    "quantized_relu_po2(4)",
    "stochastic_binary(alpha=1)",
    "stochastic_binary()",
    "stochastic_ternary()",
    None,
]
ACTIVATIONS = {
    "quantized_relu(5,1)": "relu",
    "quantized_relu(4,0)": "relu",
    "quantized_relu(5,1,negative_slope=0.25)": ("leaky", 0.25),
    BITS: "linear",
    "quantized_bits(6,1,1,alpha=1.0)": "linear",
    "quantized_bits(6,1,keep_negative=0,alpha=1.0)": "relu",
    "quantized_bits(1,0,alpha=1.0)": "linear",
    "quantized_tanh(6)": "tanh",
    "quantized_tanh(6,symmetric=1)": "tanh",
    "quantized_tanh(6,use_real_tanh=1)": "tanh",
    "quantized_sigmoid(6)": "sigmoid",
    "quantized_sigmoid(6,use_real_sigmoid=1)": "sigmoid",
    "quantized_hswish(7,2)": "linear",
    "binary(alpha=1)": "linear",
    "binary(use_01=1)": "linear",
    "ternary()": "linear",
    "quantized_relu_po2(4,4)": "relu",
    "quantized_relu_po2(3,1)": "relu",
    "quantized_relu_po2(6)": "relu",
    "ternary(alpha=0.5,threshold=0.25)": "linear",
    "hard_tanh": "tanh",
    "relu": "relu",
    "tanh": "tanh",
}


def kept(name):
    """A real activation as a Keras layer."""
    if isinstance(name, tuple):
        return LAYERS.LeakyReLU(name[1])
    return LAYERS.Activation(name)


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_quantised_weights_are_those_qkeras_uses(weights):
    for seed in range(3):
        model = sequential(*dense("quantized_relu(6,2)", weights), seed=seed)
        x = points(model, bits=5)
        report = check(model, x)
        powers = weights in (BITS, WEIGHTS[1], WEIGHTS[4], WEIGHTS[5], WEIGHTS[6], WEIGHTS[7], "binary(alpha=1)")
        assert report.exact or not powers
        if powers:
            assert np.array_equal(twin_of(model).evaluate(x), np.asarray(model(x), np.float64))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations_are_those_of_qkeras(activation):
    for seed in range(3):
        model = sequential(*dense(activation), seed=seed)
        report = check(model, points(model, bits=6))
        assert report.exact == (
            (
                activation.startswith(("quantized_relu", "quantized_bits", "relu"))
                and not re.search(r"\(1,|po2", activation)
            )
            or activation in ("quantized_tanh(6)", "quantized_tanh(6,symmetric=1)", "quantized_sigmoid(6)", "hard_tanh")
        )


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_no_error_exceeds_the_bound(activation):
    """With a float reference whose weights differ a little, as after fine-tuning."""
    for seed in range(2):
        model = sequential(*dense(activation), seed=seed)
        reference = sequential(LAYERS.Dense(6), kept(ACTIVATIONS[activation]), LAYERS.Dense(3), seed=seed)
        if "hswish" in activation:
            reference = "latent"
        found = sq.certify(model, reference, box=(-2, 2), effort="fast")
        x = points(model, count=2000, seed=seed)
        exact = twin_of(model).evaluate(x)
        float_model = (
            twin_of(model, read_steps(model, latent=True)).network
            if reference == "latent"
            else float_network(reference)
        )
        errors = np.abs(exact - float_model.evaluate(x)).max(axis=0)
        assert np.all(errors <= found.certificate.output_bounds)
        assert found.observed_error <= found.certificate.bound
        assert found.observed_error > 0.0


def test_bounds_hold_in_exact_rational_arithmetic():
    """One layer by hand, in fractions: quantised weights, rounding, saturation."""
    model = sequential(
        qk.QActivation(IN),
        qk.QDense(4, kernel_quantizer=BITS, bias_quantizer=BITS),
        qk.QActivation("quantized_relu(4,0)"),
        qk.QDense(2, kernel_quantizer=BITS, bias_quantizer=BITS),
        shape=(3,),
    )
    reference = sequential(LAYERS.Dense(4), LAYERS.ReLU(), LAYERS.Dense(2), shape=(3,), seed=4)
    bounds = sq.certify(model, reference, box=(-2, 2), effort="fast").certificate.output_bounds

    def nearest(value, bits, low, high):
        return max(Fraction(low), min(Fraction(round(value * 2**bits)), Fraction(high))) / 2**bits

    def layer(x, kernel, bias):
        columns = range(kernel.shape[1])
        return [
            sum((a * Fraction(float(w)) for a, w in zip(x, kernel[:, j], strict=True)), Fraction(float(bias[j])))
            for j in columns
        ]

    weights = [nearest_array(values, 4, -32, 31) for values in model.get_weights()]
    floats = reference.get_weights()
    for sample in points(model, count=60):
        x = [Fraction(float(value)) for value in sample]
        q = layer([nearest(value, 5, -128, 127) for value in x], *weights[:2])
        q = layer([nearest(max(value, Fraction(0)), 4, 0, 15) for value in q], *weights[2:])
        f = layer([max(value, Fraction(0)) for value in layer(x, *floats[:2])], *floats[2:])
        assert all(abs(a - b) <= Fraction(float(bound)) for a, b, bound in zip(q, f, bounds, strict=True))


def nearest_array(values, bits, low, high):
    return np.clip(np.rint(values.astype(np.float64) * 2.0**bits), low, high) / 2.0**bits


CONVOLUTIONS = {
    "conv1d": ((9, 2), lambda: qk.QConv1D(3, 3, padding="causal", kernel_quantizer=BITS, bias_quantizer=BITS)),
    "conv2d": ((6, 5, 2), lambda: qk.QConv2D(3, 3, strides=2, padding="same", kernel_quantizer=BITS)),
    "depthwise": (
        (6, 5, 2),
        lambda: qk.QDepthwiseConv2D(3, depthwise_quantizer=BITS, bias_quantizer=BITS, activation="quantized_relu(6,2)"),
    ),
    "separable": ((6, 5, 2), lambda: qk.QSeparableConv2D(3, 3, depthwise_quantizer=BITS, pointwise_quantizer=BITS)),
    "folded": ((6, 5, 2), lambda: qk.QConv2DBatchnorm(3, 3, kernel_quantizer=BITS, bias_quantizer=BITS)),
    "folded_float_bias": ((6, 5, 2), lambda: qk.QConv2DBatchnorm(3, 3, kernel_quantizer=BITS, use_bias=False)),
    "folded_depthwise": (
        (6, 5, 2),
        lambda: qk.QDepthwiseConv2DBatchnorm(3, depthwise_quantizer=BITS, bias_quantizer=BITS),
    ),
    "pool": ((6, 6, 2), lambda: qk.QAveragePooling2D(2, average_quantizer="quantized_bits(8,0,alpha=1.0)")),
    "odd_pool": ((6, 6, 2), lambda: qk.QAveragePooling2D(3, average_quantizer="quantized_bits(8,0,alpha=1.0)")),
    "padded_pool": (
        (5, 5, 2),
        lambda: qk.QAveragePooling2D(2, padding="same", average_quantizer="quantized_bits(8,0,alpha=1.0)"),
    ),
    "global_pool": ((4, 4, 2), lambda: qk.QGlobalAveragePooling2D(average_quantizer="quantized_bits(8,0,alpha=1.0)")),
    "normalisation": ((6,), lambda: qk.QBatchNormalization()),
    "plain_normalisation": ((6,), lambda: LAYERS.BatchNormalization()),
    "max_pool": ((6, 5, 2), lambda: LAYERS.MaxPooling2D(2)),
}
FLOAT = {
    "conv1d": lambda: [LAYERS.Conv1D(3, 3, padding="causal")],
    "conv2d": lambda: [LAYERS.Conv2D(3, 3, strides=2, padding="same")],
    "depthwise": lambda: [LAYERS.DepthwiseConv2D(3, activation="relu")],
    "separable": lambda: [LAYERS.SeparableConv2D(3, 3)],
    "folded": lambda: [LAYERS.Conv2D(3, 3), LAYERS.BatchNormalization()],
    "folded_float_bias": lambda: [LAYERS.Conv2D(3, 3, use_bias=False), LAYERS.BatchNormalization()],
    "folded_depthwise": lambda: [LAYERS.DepthwiseConv2D(3), LAYERS.BatchNormalization()],
    "pool": lambda: [LAYERS.AveragePooling2D(2)],
    "odd_pool": lambda: [LAYERS.AveragePooling2D(3)],
    "padded_pool": lambda: [LAYERS.AveragePooling2D(2, padding="same")],
    "global_pool": lambda: [LAYERS.GlobalAveragePooling2D()],
    "normalisation": lambda: [LAYERS.BatchNormalization()],
    "plain_normalisation": lambda: [LAYERS.BatchNormalization()],
    "max_pool": lambda: [LAYERS.MaxPooling2D(2)],
}


# A bias without a quantizer, odd divisors and normalisations are not exact in float32.
EXACT = ("conv1d", "depthwise", "folded", "folded_depthwise", "global_pool", "max_pool", "padded_pool", "pool")


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_layers_are_those_of_qkeras_and_bounds_hold(kind):
    shape, make = CONVOLUTIONS[kind]
    tail = [LAYERS.Flatten(), qk.QDense(2, kernel_quantizer=BITS, bias_quantizer=BITS)]
    first = [qk.QActivation(IN)]
    model = sequential(*first, make(), qk.QActivation("quantized_relu(6,2)"), *tail, shape=shape)
    reference = sequential(*FLOAT[kind](), LAYERS.ReLU(), LAYERS.Flatten(), LAYERS.Dense(2), shape=shape, seed=2)
    x = points(model, bits=5)
    report = check(model, x)
    assert report.exact == (kind in EXACT)
    if kind in EXACT:
        assert np.array_equal(twin_of(model).evaluate(x), np.asarray(model(x), np.float64))
    found = sq.certify(model, reference, box=(-2, 2), effort="fast")
    errors = np.abs(twin_of(model).evaluate(x) - float_network(reference).evaluate(x)).max(axis=0)
    assert np.all(errors <= found.certificate.output_bounds)
    assert found.observed_error > 0.0
    assert json.loads(json.dumps(found.to_json()))["certificate"]["bound"] == found.certificate.bound
