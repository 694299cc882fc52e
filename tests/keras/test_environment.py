"""TensorFlow comes late, with the right Keras, or with a clear error."""

import os
import subprocess
import sys

import pytest

from sound_qkeras.keras_io import float64

from .models import keras

pytestmark = pytest.mark.keras


def run(code, **switches):
    """What a fresh interpreter says."""
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"} | switches
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    return done.stdout.strip() or done.stderr


def test_importing_keras_io_imports_no_tensorflow():
    code = "import sys, sound_qkeras.keras_io; print({'tensorflow', 'keras', 'tf_keras', 'qkeras'} & set(sys.modules))"
    assert run(code) == "set()"


ATTEMPT = """
from sound_qkeras.errors import DependencyError
from sound_qkeras.keras_io.session.environment import import_qkeras
try:
    print(import_qkeras().QDense.__mro__[1].__module__)
except DependencyError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "switches", "expected"),
    [
        ("", {}, "tf_keras.src"),
        ("import tensorflow", {"TF_USE_LEGACY_KERAS": "1"}, "tf_keras.src"),
        ("import tensorflow", {}, "tf_keras.src"),
        ("", {"TF_USE_LEGACY_KERAS": "0"}, "tf_keras.src"),
        ("import qkeras", {}, "QKeras was imported on top of Keras 3; it needs Keras 2"),
        ("import sys; sys.modules['qkeras'] = None", {}, "'qkeras.utils' cannot be imported"),
    ],
)
def test_which_keras_comes_through(before, switches, expected):
    assert run(f"{before}\n{ATTEMPT}", **switches).startswith(expected)


SHOWN = "import tensorflow as tf; print(tf.keras.layers.Dense.__module__.split('.')[0])"


@pytest.mark.slow
@pytest.mark.parametrize(("switches", "expected"), [({}, "keras"), ({"TF_USE_LEGACY_KERAS": "1"}, "tf_keras")])
def test_which_keras_tensorflow_shows_is_for_the_environment_to_say(switches, expected):
    assert run(f"import sound_qkeras\n{ATTEMPT.replace('print', 'str')}\n{SHOWN}", **switches) == expected


KEPT = """
import os, sys
import tensorflow as tf
from tensorflow.keras.layers import Dense
from sound_qkeras.keras_io.session.environment import keras_2, qkeras_module
modules = [qkeras_module(name) for name in ("utils", "estimate", "qtools.run_qtools")]
with keras_2():
    import keras
    assert keras.__name__ == "tf_keras"
import keras
from tensorflow.keras.layers import Dense as again
assert keras.__version__.startswith("3.") and sys.modules["tensorflow"] is tf
assert tf.keras.layers.Dense is Dense is again is keras.layers.Dense
assert "TF_USE_LEGACY_KERAS" not in os.environ
foreign = [
    name for name, module in sys.modules.items() for thing in vars(module).values()
    if name.startswith("qkeras") and str(getattr(thing, "__module__", "")).startswith("keras.")
]
print(foreign)
"""


@pytest.mark.slow
def test_keras_3_stays_what_it_was_and_qkeras_has_nothing_of_it():
    assert run(KEPT) == "[]"


def test_float64_is_restored_whatever_happens():
    def fail():
        with float64():
            raise KeyError(keras.backend.floatx())

    with pytest.raises(KeyError, match="float64"):
        fail()
    assert keras.backend.floatx() == "float32"
