"""Keras models become networks: the same function, exactly enclosed, or a clear refusal."""

from fractions import Fraction

import numpy as np
import pytest

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.keras_io import float64, read_model
from sound_qkeras.keras_io.session.environment import import_tensorflow

from .models import LAYERS, inputs, keras, randomise, root, sequential

pytestmark = pytest.mark.keras

MODELS = {
    "one layer": lambda: sequential(LAYERS.Dense(3)),
    "inline relu": lambda: sequential(LAYERS.Dense(4, activation="relu"), LAYERS.Dense(2)),
    "relu layers": lambda: sequential(
        LAYERS.Dense(4), LAYERS.Activation("relu"), LAYERS.Dense(4, use_bias=False), LAYERS.ReLU(), LAYERS.Dense(2)
    ),
    "hidden linear": lambda: sequential(LAYERS.Dense(4, activation="linear"), LAYERS.Dense(2)),
    "relu at the end": lambda: sequential(LAYERS.Dense(4), LAYERS.Dense(2, activation="relu")),
    "reshapes": lambda: sequential(
        LAYERS.Reshape((2, -1)),
        LAYERS.Flatten(),
        LAYERS.Dense(6),
        LAYERS.Reshape((3, 2)),
        LAYERS.Flatten(),
        shape=(2, 2),
    ),
    "training only": lambda: sequential(
        LAYERS.GaussianNoise(0.1),
        LAYERS.Dense(4, activation="relu"),
        LAYERS.Dropout(0.5),
        LAYERS.AlphaDropout(0.5),
        LAYERS.GaussianDropout(0.5),
        LAYERS.ActivityRegularization(0.1),
        LAYERS.Dense(2),
    ),
    "spatial dropout": lambda: sequential(
        LAYERS.SpatialDropout1D(0.5), LAYERS.Flatten(), LAYERS.Dense(2), shape=(3, 2)
    ),
    "batch norm after dense": lambda: sequential(
        LAYERS.Dense(4), LAYERS.BatchNormalization(), LAYERS.ReLU(), LAYERS.Dense(2)
    ),
    "batch norm after relu": lambda: sequential(LAYERS.Dense(4, "relu"), LAYERS.BatchNormalization(), LAYERS.Dense(2)),
    "batch norm at the end": lambda: sequential(LAYERS.Dense(4), LAYERS.BatchNormalization()),
    "batch norm alone": lambda: sequential(LAYERS.BatchNormalization(), LAYERS.ReLU(), LAYERS.Dense(2)),
    "batch norm last after relu": lambda: sequential(LAYERS.Dense(4, "relu"), LAYERS.BatchNormalization()),
    "wide batch norm": lambda: sequential(LAYERS.BatchNormalization(), LAYERS.ReLU(), LAYERS.Dense(1), shape=(300,)),
    "dense on a matrix": lambda: sequential(LAYERS.Dense(4, "relu"), LAYERS.Dense(2), shape=(2, 3)),
    "bare batch norm": lambda: sequential(
        LAYERS.Dense(4), LAYERS.BatchNormalization(center=False, scale=False), LAYERS.ReLU(), LAYERS.Dense(2)
    ),
    "batch norm of a matrix": lambda: sequential(
        LAYERS.BatchNormalization(axis=1), LAYERS.BatchNormalization(), LAYERS.Flatten(), LAYERS.Dense(2), shape=(3, 2)
    ),
    "batch norm after a reshape": lambda: sequential(
        LAYERS.Dense(6),
        LAYERS.Reshape((3, 2)),
        LAYERS.BatchNormalization(),
        LAYERS.ReLU(),
        LAYERS.Flatten(),
        LAYERS.Dense(2),
    ),
    "layer norm": lambda: sequential(LAYERS.Dense(4), LAYERS.LayerNormalization(epsilon=1e-5), LAYERS.Dense(2)),
    "layer norm of rows": lambda: sequential(
        LAYERS.Dense(4),
        LAYERS.LayerNormalization(axis=[-1], center=False),
        LAYERS.ReLU(),
        LAYERS.TimeDistributed(LAYERS.LayerNormalization(scale=False)),
        LAYERS.Flatten(),
        LAYERS.Dense(2),
        shape=(3, 2),
    ),
    "layer norm alone": lambda: sequential(LAYERS.Dense(4), LAYERS.LayerNormalization(center=False, scale=False)),
    "rescaling": lambda: sequential(LAYERS.Rescaling(1 / 255, offset=-0.5), LAYERS.Dense(2)),
    "rescaling by lists": lambda: sequential(
        LAYERS.Rescaling([0.1, 2.0, -3.0], offset=[1, 2, 3]), LAYERS.Dense(2), shape=(3,)
    ),
    "normalization": lambda: sequential(LAYERS.Normalization(), LAYERS.Dense(2)),
    "normalization by numbers": lambda: sequential(
        LAYERS.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 0.0, 2.0]),
        LAYERS.Dense(2, use_bias=False),
        shape=(3,),
    ),
    "normalization over all": lambda: sequential(LAYERS.Normalization(axis=None), LAYERS.Dense(2)),
    "normalization of a matrix": lambda: sequential(
        LAYERS.Normalization(axis=1), LAYERS.Flatten(), LAYERS.Rescaling(3.0), LAYERS.Dense(2), shape=(3, 2)
    ),
    "normalization inverted": lambda: sequential(LAYERS.Dense(3), LAYERS.Normalization(invert=True)),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_the_network_is_the_model(build):
    model = build()
    x = inputs(model)
    network = read_model(model)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(network.evaluate(x), expected, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(expected).max()))
    assert network.input_shape == model.input_shape[1:]
    assert network.output_shape == model.output_shape[1:]


def test_names_layers_and_notes():
    dense = LAYERS.Dense(4, activation="relu", name="hidden")
    model = sequential(dense, LAYERS.Dropout(0.5, name="drop"), LAYERS.Dense(2, activation="softmax", name="last"))
    network = read_model(model)
    assert [node.name for node in network.nodes][1:] == ["hidden", "hidden_relu", "last"]
    assert [node.layer for node in network.nodes][1:] == ["hidden", "hidden", "last"]
    assert network.head == "softmax"
    assert "'drop' (Dropout)" in network.notes[0]
    assert "softmax is set aside" in network.notes[1]


@pytest.mark.parametrize(
    ("layers", "head"),
    [
        ([LAYERS.Dense(2, activation="sigmoid")], "sigmoid"),
        ([LAYERS.Dense(2), LAYERS.Activation("sigmoid")], "sigmoid"),
        ([LAYERS.Dense(2), LAYERS.Softmax()], "softmax"),
        ([LAYERS.Dense(2), LAYERS.BatchNormalization(), LAYERS.Activation("softmax"), LAYERS.Dropout(0.1)], "softmax"),
    ],
)
def test_a_head_is_set_aside(layers, head):
    model = sequential(*layers)
    network = read_model(model)
    assert network.head == head
    logits = network.evaluate(inputs(model))
    apply = {
        "softmax": lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True),
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    }
    np.testing.assert_allclose(apply[head](logits), model.predict(inputs(model), verbose=0), atol=1e-5)


def test_functional_and_nested_models_are_flattened():
    source = keras.Input((4,), name="source")
    inner = keras.Sequential([LAYERS.Dense(3, activation="relu", name="dense")], name="inner")
    core = keras.Input((3,))
    outer = keras.Model(core, LAYERS.Dense(2, name="dense")(LAYERS.BatchNormalization()(core)), name="outer")
    model = keras.Model(source, LAYERS.Dense(2, name="tail")(outer(inner(source))))
    randomise(model)
    network = read_model(model)
    assert [node.name for node in network.nodes] == ["source", "dense", "dense_relu", "dense_1", "tail"]
    np.testing.assert_allclose(network.evaluate(inputs(model)), model.predict(inputs(model), verbose=0), atol=1e-5)


def test_a_shared_rectifier_is_used_twice():
    rectifier = LAYERS.ReLU(name="rectifier")
    model = sequential(LAYERS.Dense(3), rectifier, LAYERS.Dense(3), rectifier, LAYERS.Dense(1))
    network = read_model(model)
    assert [node.name for node in network.nodes if node.op.kind == "relu"] == ["rectifier", "rectifier_1"]
    np.testing.assert_allclose(network.evaluate(inputs(model)), model.predict(inputs(model), verbose=0), atol=1e-5)


def test_float64_parameters_are_kept_whole():
    with float64():
        model = sequential(LAYERS.Dense(3))
    kernel = model.get_weights()[0]
    assert np.any(kernel != kernel.astype(np.float32))
    assert np.array_equal(read_model(model).nodes[-1].op.kernel, kernel)  # type: ignore[attr-defined]


def test_plain_parameters_are_exact_and_a_power_of_two_keeps_them_so():
    model = sequential(LAYERS.Rescaling(0.25), LAYERS.Dense(3))
    op = read_model(model).nodes[-1].op
    assert op.arrays().keys() == {"kernel", "bias"}
    assert np.array_equal(op.arrays()["kernel"], 0.25 * model.get_weights()[0].astype(np.float64))


def exact(x):
    """Float arrays as arrays of fractions."""
    return np.vectorize(Fraction, otypes=[object])(np.asarray(x, dtype=np.float64))


def assert_encloses(op, kernel, bias):
    """Centre and radius contain the given values, with parts in 1e12 to spare at most."""
    for name, value in (("kernel", kernel), ("bias", bias)):
        center, radius = exact(op.arrays()[name]), exact(op.arrays().get(f"{name}_radius", np.zeros(value.shape)))
        assert np.all(center - radius <= value)
        assert np.all(value <= center + radius)
        assert np.all(radius <= Fraction(1, 10**12) * (1 + abs(value)))


def batch_norm(layer):
    """Exact scale and offset of a BatchNormalization layer."""
    gamma, beta, mean, variance = (exact(x) for x in layer.get_weights())
    scale = np.array([g / root(v + Fraction(layer.epsilon)) for g, v in zip(gamma, variance, strict=True)])
    return scale, beta - scale * mean


@pytest.mark.parametrize("seed", range(5))
def test_folding_encloses_the_exact_parameters(seed):
    first, last = LAYERS.BatchNormalization(epsilon=1e-5), LAYERS.BatchNormalization()
    dense, tail = LAYERS.Dense(4), LAYERS.Dense(3)
    model = sequential(dense, first, LAYERS.ReLU(), last, tail, seed=seed)
    gamma, beta, mean, variance = first.get_weights()
    variance[0], gamma[1], variance[2], beta[3] = 0.0, 0.0, 1e-38, 1e20
    first.set_weights([gamma, beta, mean, variance])
    _, before, _, after = read_model(model).nodes
    kernel, bias = (exact(x) for x in dense.get_weights())
    scale, offset = batch_norm(first)
    assert_encloses(before.op, kernel * scale, bias * scale + offset)
    kernel, bias = (exact(x) for x in tail.get_weights())
    scale, offset = batch_norm(last)
    assert_encloses(after.op, kernel * scale[:, None], bias + offset @ kernel)


@pytest.mark.parametrize("invert", [False, True])
def test_folding_a_normalization_encloses_the_exact_parameters(invert):
    mean, variance = np.array([0.1, -2.0, 3.0]), np.array([0.3, 0.0, 7.0])
    dense = LAYERS.Dense(4)
    model = sequential(
        LAYERS.Normalization(mean=mean.tolist(), variance=variance.tolist(), invert=invert), dense, shape=(3,)
    )
    kernel, bias = (exact(x) for x in dense.get_weights())
    floor = Fraction(keras.backend.epsilon())
    spread = np.array([max(root(Fraction(float(v))), floor) for v in variance.astype(np.float32)])
    mean = exact(mean.astype(np.float32))
    scale, offset = (spread, mean) if invert else (1 / spread, -mean / spread)
    op = read_model(model).nodes[-1].op
    for name, value in (("kernel", kernel * scale[:, None]), ("bias", bias + offset @ kernel)):
        center, radius = exact(op.arrays()[name]), exact(op.arrays()[f"{name}_radius"])
        assert np.all(abs(center - value) <= radius)


def test_published_networks(shared_nets):
    for name, layers, head in (
        ("jets_mlp_nrp", 4, "softmax"),
        ("jets_mlp_bn_hls4ml", 4, "softmax"),
        ("fc_autoencoder_toycar", 10, None),
    ):
        path = shared_nets / "keras" / f"{name}.h5"
        network, model = read_model(path), keras.models.load_model(path, compile=False)
        assert (len(list(network.affine())), network.head) == (layers, head)
        logits = keras.Model(model.input, model.layers[-1].input) if head else model
        x = inputs(model)
        expected = logits.predict(x, verbose=0)
        np.testing.assert_allclose(network.evaluate(x), expected, atol=1e-6 * np.abs(expected).max() + 1e-5)


def look_alike(x):
    """Not a rectifier, whatever its name says."""
    return -x


look_alike.__name__ = "relu"


class Own(LAYERS.Dense):
    """A subclass, whose call could do anything."""


class Subclassed(keras.Model):
    """A model written as code."""

    def call(self, inputs):
        return inputs


class Overridden(keras.Sequential):
    """A Sequential model that does something else."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training, mask) + 1.0


def with_bad_number(value, layer=None):
    model = sequential(LAYERS.Dense(2, name="broken") if layer is None else layer)
    weights = model.get_weights()
    weights[-1][0] = value
    model.set_weights(weights)
    return model


def always_training():
    source = keras.Input((3,))
    return keras.Model(source, LAYERS.Dense(1)(LAYERS.Dropout(0.5, name="drop")(source, training=True)))


REFUSED = {
    "never built": (lambda: keras.Sequential([LAYERS.Dense(2)], name="raw"), ModelError, "'raw' was never built"),
    "no layers": (lambda: keras.Sequential(name="raw"), ModelError, "'raw' was never built"),
    "subclassed": (lambda: Subclassed(name="own"), ModelError, "'own' (was never built|is a subclassed)"),
    "overridden": (lambda: Overridden([LAYERS.Input((2,)), LAYERS.Dense(1)]), ModelError, "subclassed model"),
    "no model": (lambda: {"layers": []}, ModelError, "received dict"),
    "unknown size": (lambda: sequential(LAYERS.Flatten(), shape=(None, 2)), ModelError, r"shape \(None, 2\)"),
    "no weights": (lambda: sequential(LAYERS.ReLU()), ModelError, "nothing to quantise"),
    "nan": (lambda: with_bad_number(np.nan), ModelError, r"'broken' \(Dense\): bias holds 1 values"),
    "infinity": (lambda: with_bad_number(np.inf), ModelError, "NaN or infinite"),
    "negative variance": (
        lambda: with_bad_number(-1.0, LAYERS.BatchNormalization(name="bn")),
        ModelError,
        "'bn'.*-0.999",
    ),
    "zero variance": (lambda: with_bad_number(0.0, LAYERS.BatchNormalization(epsilon=0)), ModelError, "are zero"),
    "layer norm over other axes": (
        lambda: sequential(LAYERS.LayerNormalization(axis=1, name="ln"), LAYERS.Dense(2), shape=(3, 2)),
        UnsupportedLayerError,
        r"'ln'.*over axes \[1\]; accepted: axis=-1",
    ),
    "layer norm without epsilon": (
        lambda: sequential(LAYERS.Dense(3), LAYERS.LayerNormalization(epsilon=0.0, name="ln")),
        ModelError,
        "'ln'.*epsilon 0",
    ),
    "convolution": (
        lambda: sequential(LAYERS.LocallyConnected1D(2, 2, name="c"), shape=(3, 2)),
        UnsupportedLayerError,
        "'c'.*LocallyConnected1D",
    ),
    "lambda": (lambda: sequential(LAYERS.Lambda(abs)), UnsupportedLayerError, "kind Lambda.*never run"),
    "operation": (lambda: operation(), UnsupportedLayerError, "an operation of kind math.sin; accepted.*math.tanh"),
    "own layer": (lambda: sequential(Own(2)), UnsupportedLayerError, "kind Own"),
    "look-alike": (lambda: sequential(LAYERS.Dense(2, look_alike)), UnsupportedLayerError, r"test_reader\.relu"),
    "softmax within": (
        lambda: sequential(LAYERS.Dense(2, "softmax"), LAYERS.Dense(2)),
        UnsupportedLayerError,
        "before the end",
    ),
    "softmax axis": (lambda: sequential(LAYERS.Softmax(axis=1), shape=(2, 3)), UnsupportedLayerError, "axis 1"),
    "channels first": (
        lambda: sequential(LAYERS.Flatten("channels_first"), LAYERS.Dense(1), shape=(2, 3)),
        UnsupportedLayerError,
        "channels_first",
    ),
    "convolution with channels first": (
        lambda: sequential(LAYERS.Conv1D(2, 2, data_format="channels_first", name="c"), shape=(3, 4)),
        UnsupportedLayerError,
        "'c'.*channels_first",
    ),
    "pooling with channels first": (
        lambda: sequential(LAYERS.GlobalAveragePooling1D(data_format="channels_first", name="p"), shape=(3, 4)),
        UnsupportedLayerError,
        "'p'.*channels_first",
    ),
    "always training": (always_training, UnsupportedLayerError, "'drop'.*training=True"),
}


def operation():
    source = keras.Input((3,))
    return keras.Model(source, LAYERS.Dense(1)(import_tensorflow().sin(source)))


@pytest.mark.parametrize(("build", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_refusals(build, error, match):
    with pytest.raises(error, match=match):
        read_model(build())


def test_folding_that_overflows_is_refused():
    model = sequential(LAYERS.Rescaling([1e38] * 5, name="huge"), LAYERS.Rescaling([1e38] * 5), LAYERS.Dense(1))
    with float64():
        assert np.all(np.isfinite(read_model(model).nodes[-1].op.arrays()["kernel"]))
    with float64():
        model = sequential(*(LAYERS.Rescaling(np.full(5, 1e308)) for _ in range(2)), LAYERS.Dense(1))
    with pytest.raises(ModelError, match="exceed the float64 range"):
        read_model(model)
