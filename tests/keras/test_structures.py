"""Graphs with several readers, inputs and outputs: read, simulated and written back without tolerance."""

import numpy as np
import pytest

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.keras_io import float64, load_model, read_model, save_model, to_keras, to_qkeras
from sound_qkeras.keras_io.files.stored_model import check_stored_model
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.files import load_network, save_network
from sound_qkeras.network.simulate import simulate
from tests.networks import Box, nearest, with_parameters

from .models import LAYERS, keras
from .structures import BUILDERS, build, over_time, samples, several_ends, used_twice

pytestmark = pytest.mark.keras


def twin(network: Network, seed: int = 0) -> tuple[Pair, Box]:
    """Random fractional bits on every tensor; formats for inputs from -1 to 1."""
    rng = np.random.default_rng(seed)
    box = (np.full(network.input_shape, -1.0), np.full(network.input_shape, 1.0))
    codes = {n.name: nearest(op, int(rng.integers(3, 9)), int(rng.integers(3, 12))) for n, op in network.owners()}  # type: ignore[arg-type]
    bits = {name: int(rng.integers(2, 9)) for name in network.rounding_points}
    return with_parameters(network, box, codes, bits), box


def as_list(result):
    """What a model returns, as a list."""
    return list(result) if isinstance(result, list | tuple) else [result]


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_the_network_is_the_model(builder):
    model = build(builder)
    network = read_model(model)
    x = samples(model)
    given = x if network.inputs else x[0]
    found = network.output_arrays(network.evaluate(given))
    heads = [port.head for port in network.outputs] or [network.head]
    for y, expected, head in zip(found, as_list(model(x if len(x) > 1 else x[0], training=False)), heads, strict=True):
        if head == "softmax":
            y = np.exp(y) / np.exp(y).sum(axis=-1, keepdims=True)
        assert np.allclose(y, expected, atol=2e-4, rtol=2e-4)
        assert y.shape == expected.shape
    assert [port.name for port in network.inputs] == (model.input_names if len(x) > 1 else [])


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_qkeras_in_float64_is_the_simulator_bit_for_bit(builder, tmp_path):
    model = build(builder)
    network = read_model(model)
    x = samples(model)
    for seed in range(3):
        quantized, _ = twin(network, seed)
        assert not quantized.wide_layers
        expected = network.output_arrays(simulate(quantized, x if network.inputs else x[0]))
        with float64():
            written = to_qkeras(quantized, dtype="float64")
            assert written.input_names == model.input_names
            wide = [one.astype(np.float64) for one in x]
            found = as_list(written(wide if len(wide) > 1 else wide[0]))
            for y, value in zip(found, expected, strict=True):
                assert y.dtype == "float64"
                assert np.array_equal(y, value)
            if seed == 0:
                save_model(written, tmp_path / "model.keras")
                again = as_list(load_model(tmp_path / "model.keras")(wide if len(wide) > 1 else wide[0]))
                assert all(np.array_equal(y, value) for y, value in zip(again, expected, strict=True))
    save_model(to_qkeras(quantized), tmp_path / "single.keras")
    check_stored_model(tmp_path / "single.keras", quantized)


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_models_and_networks_survive_files(builder, tmp_path):
    model = build(builder)
    network = read_model(model)
    for name in ("model.h5", "model.keras"):
        model.save(tmp_path / name)
        assert read_model(tmp_path / name).weight_hash == network.weight_hash
    quantized, _ = twin(network)
    save_network(tmp_path, network, quantized)
    again, other = load_network(tmp_path)
    assert (again.weight_hash, again.inputs, again.outputs) == (network.weight_hash, network.inputs, network.outputs)
    assert other is not None
    assert other.code_hash == quantized.code_hash


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_the_float_model_is_written_back(builder):
    model = build(builder)
    network = read_model(model)
    again = to_keras(network)
    x = samples(model)
    heads = [port.head for port in network.outputs] or [network.head]
    results = (as_list(one(x if len(x) > 1 else x[0], training=False)) for one in (again, model))
    for y, expected, head in zip(*results, heads, strict=True):
        if head is None:
            assert np.allclose(y, expected, atol=2e-4, rtol=2e-4)


def test_the_float_model_can_be_trained_from_scratch():
    # AutoQKeras makes every trial from the layers' own initial weights, and zeros stay zeros.
    again = keras.models.clone_model(to_keras(read_model(build(BUILDERS[0]))))
    kernels = [weight.numpy() for weight in again.weights if "kernel" in weight.name]
    assert kernels
    assert all(np.any(kernel) for kernel in kernels)


def test_heads_of_several_outputs_come_back():
    model = build(several_ends)
    network = read_model(model)
    assert [(port.name, port.head) for port in network.outputs] == [
        ("steer", None),
        ("kind", "softmax"),
        ("grid", None),
    ]
    quantized, _ = twin(network)
    plain, whole = (as_list(to_qkeras(quantized, head=head)(samples(model))) for head in (False, True))
    assert np.allclose(np.sum(whole[1], axis=1), 1.0)
    assert np.array_equal(plain[0], whole[0])
    assert not np.allclose(np.sum(plain[1], axis=1), 1.0)


def test_samples_may_be_given_by_name():
    model = build(several_ends)
    network, x = read_model(model), samples(model)
    by_name = dict(zip(model.input_names, x, strict=True))
    flat = np.concatenate([one.reshape(len(one), -1) for one in x], axis=1)
    assert np.array_equal(network.evaluate(by_name), network.evaluate(x))
    assert np.array_equal(network.evaluate(flat), network.evaluate(x))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: LAYERS.MaxPooling2D(2, data_format="channels_first"), (2, 4, 4)),
        (lambda: LAYERS.UpSampling2D(2, interpolation="bicubic"), (2, 2, 1)),
        (lambda: LAYERS.MaxPooling3D(2), (2, 2, 2, 1)),
    ],
)
def test_what_cannot_be_read_is_refused(layer, shape):
    try:
        model = keras.Sequential([LAYERS.Input(shape), layer(), LAYERS.Flatten(), LAYERS.Dense(1)])
    except ValueError:
        pytest.skip("this TensorFlow refuses it itself")
    with pytest.raises(UnsupportedLayerError):
        read_model(model)


def test_weights_are_shared_where_the_same_is_made_of_them():
    network = read_model(build(used_twice))
    uses = {node.name: set(network.uses(node.name)[1:]) for node, _ in network.owners()}
    # Behind the Dense layer stands one normalisation twice, another one, and none.
    assert sorted(len(found) for name, found in uses.items() if name.startswith("twice")) == [0, 0, 1]
    assert uses["conv"] == {"conv_1", "conv_2"}
    x = LAYERS.Input((3, 2))
    dense = LAYERS.Dense(2, name="dense")
    network = read_model(keras.Model(x, LAYERS.Add()([dense(x), LAYERS.TimeDistributed(dense)(LAYERS.ReLU()(x))])))
    assert network.uses("dense") == ("dense", "time_distributed")
    network = read_model(build(over_time))
    assert [len(network.uses(node.name)) for node, _ in network.owners()] == [3, 3, 3, 1]


def test_ports_that_are_not_what_they_say_are_refused():
    from dataclasses import replace

    network = read_model(build(several_ends))
    first, second = network.inputs
    for inputs in (
        (second, first),
        (first,),
        (first, replace(second, node="trunk")),
        (replace(first, node="none"), second),
    ):
        with pytest.raises(ModelError):
            replace(network, inputs=inputs)
    with pytest.raises(ModelError):
        replace(network, outputs=network.outputs[::-1])


PUBLISHED = ("fc_autoencoder_toycar", "jets_mlp_bn_hls4ml", "jets_mlp_nrp", "mnist_convnet_maxpool", "resnet8_cifar10")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_in_float64(shared_nets, name):
    """Keras computes in float64 too, so that only what was read wrongly could differ."""
    model = keras.models.load_model(shared_nets / "keras" / f"{name}.h5", compile=False)
    network, rng = read_model(model), np.random.default_rng(0)
    with float64():
        wide = keras.models.model_from_json(model.to_json().replace("float32", "float64"))
        wide.set_weights(model.get_weights())
        last = wide.layers[-1]
        if network.head:
            last.activation = keras.activations.linear
            weights = wide.get_weights()
            wide = keras.models.clone_model(wide)
            wide.set_weights(weights)
        for largest in (1.0, 60.0):
            x = rng.uniform(-largest, largest, (20, *network.input_shape))
            expected = wide.predict(x, verbose=0)
            assert expected.dtype == np.float64
            assert np.allclose(network.evaluate(x), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
