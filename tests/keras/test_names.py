"""Names that Keras 3 allows and tf_keras does not: mended in what is emitted, the user's own everywhere else."""

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.keras_io import float64, load_model, read_model, save_model
from sound_qkeras.keras_io.write.keras_names import LONGEST, keras_names
from tests import networks
from tests.results import make_result

from .models3 import LAYERS, keras, randomised

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")]

# Blanks and signs; letters beyond ASCII alone; two that are mended alike; one that is so called; only a case apart; very long.
NAMES = ["hey:)", "_my layer", "b(1)\n", "日本", "b_1", "B_1", "b:1", "a/b", "n" * 4 * LONGEST, ""]


def model(inputs=1):
    given = iter(NAMES)
    sources = [keras.Input((3,), name=next(given)) for _ in range(inputs)]
    x = LAYERS.Add(name="add up")(sources) if inputs > 1 else sources[0]
    for number, name in enumerate(given):
        layer = LAYERS.Dense(3, activation=("relu", None)[number % 2], name=name.replace("/", ">"))
        x = layer(x)
    ends = [LAYERS.Dense(1, name=f"end {number}")(x) for number in range(inputs)]
    return randomised(keras.Model(sources, ends))


@pytest.mark.parametrize("inputs", [1, 2])
def test_what_is_emitted_is_the_network_whatever_its_names(inputs, tmp_path):
    network = read_model(model(inputs))
    result = make_result(network)
    own = {name for node in network.nodes for name in (node.name, node.layer)}
    assert {row.layer for row in result.formats} <= own
    assert all(name in own for name in result.keras_names)
    assert "'hey:)' is called 'hey'" in " ".join(network.notes)

    x = np.random.default_rng(0).uniform(-1, 1, (50, *network.input_shape))
    parts = np.split(x, inputs, axis=1) if inputs > 1 else x
    with float64():
        emitted = result.to_qkeras(dtype="float64")
        found = (
            np.concatenate([np.asarray(y) for y in np.atleast_1d(emitted(parts))], axis=1) if inputs > 1 else emitted(x)
        )
    assert np.array_equal(found, result.simulate(x))
    emitted = result.to_qkeras()
    for name in ("model.keras", "model.h5"):
        save_model(emitted, tmp_path / name)
        assert [layer.name for layer in load_model(tmp_path / name).layers] == [layer.name for layer in emitted.layers]
    floating = {layer.name for layer in result.float_model().layers}
    assert set(result.quantizer_config) - {"inputs"} <= floating
    mended = {network.by_name[name].layer: name for name in result.pair.parameters}
    assert {result.keras_names.get(name, name) for name in mended} <= floating


@pytest.mark.slow
def test_a_network_with_any_names_is_trained_on_and_certified():
    result = make_result(read_model(model()))
    x = np.random.default_rng(0).uniform(-1, 1, (64, 3))
    better = sq.finetune(result, (x, result.simulate(x)[:, :1] + 0.1), epochs=1, effort="fast")
    assert better.finetuning is not None
    assert set(better.pair.parameters) == set(result.pair.parameters)
    assert sq.certify(result.to_qkeras(), model(), box=(-1, 1), effort="fast").certificate.output_bounds is not None


def test_names_that_are_allowed_stay_and_all_differ():
    network = read_model(model(2))
    names = keras_names(network)
    assert len({name.lower() for name in names.values()}) == len(names) - 1  # b_1 and B_1 are the user's
    assert names["b_1"] == "b_1"
    assert names["B_1"] == "B_1"
    plain = networks.random_network(np.random.default_rng(0), (3, 4, 2))
    assert all(name == other for name, other in keras_names(plain).items())
    assert make_result(plain).keras_names == {}
