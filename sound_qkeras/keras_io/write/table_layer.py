"""The Keras layer that looks up a table, bit for bit. Imports TensorFlow: import it inside functions only."""

from __future__ import annotations

from typing import Any

import numpy as np

from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.read.activations import NEWER
from sound_qkeras.keras_io.session import newer_functions
from sound_qkeras.keras_io.session.environment import import_keras, import_tensorflow
from sound_qkeras.network.ops import TablePair

keras, tf = import_keras(), import_tensorflow()


class LookupLayer(keras.layers.Layer):
    """A layer of integers that are looked up: how they are held, and the codes that go in and come out.

    The integers are a weight that is not trained, so they are saved and loaded with the model.
    """

    # A `Lookup`, of which each layer knows more.
    pair: Any
    entries: int

    def build(self, input_shape: Any) -> None:
        """The integers, zero until they are set."""
        self.held = self.add_weight("table", (self.entries,), dtype="int64", initializer="zeros", trainable=False)
        super().build(input_shape)

    def with_integers(self) -> Any:
        """This layer, its integers set."""
        self.build(None)
        self.set_weights([np.asarray(self.pair.codes)])
        return self

    def codes_of(self, x: Any) -> Any:
        """The codes of what is read, rounded to the format it reads and cut off at its ends."""
        source = self.pair.source
        code = tf.cast(tf.round(x * tf.cast(2.0**source.fractional_bits, x.dtype)), tf.int64)
        return tf.clip_by_value(code, source.min_code, source.max_code)

    def between(self, piece: Any, rest: Any, width: int) -> Any:
        """The point so far between an entry and the next one, times the number of points."""
        held = tf.convert_to_tensor(self.held)
        first = tf.gather(held, piece)
        return first * width + (tf.gather(held, piece + 1) - first) * rest

    def result(self, total: Any, bits: int, dtype: Any) -> Any:
        """Values of integers with so many fractional bits, rounded to the format of the results."""
        output = self.pair.output
        made = tf.clip_by_value(rounded(total, bits - output.fractional_bits), output.min_code, output.max_code)
        return tf.cast(made, dtype) * tf.cast(output.step, dtype)

    def get_config(self) -> dict[str, Any]:
        """The formats, as plain values."""
        return {**super().get_config(), "source": parts_of(self.pair.source), "output": parts_of(self.pair.output)}

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's shape."""
        return input_shape


@keras.saving.register_keras_serializable(package="sound_qkeras")
class TableActivation(LookupLayer):
    """A function of one variable as the fixed-point network computes it: integers in, integers between, integers out.

    Guarantee: equals the table of the network it was made from bit for bit, in float32 and float64, wherever input and
    output codes fit the type's mantissa; what it reads is rounded to the format it reads, and saturates at its ends.

    Training passes the gradient of the real function straight through the rounding.

    Args:
        function: name of the function.
        alpha: the parameter of "elu".
        source: `(word_length, integer_bits, signed)` of what it reads.
        output: the same of its results.
    """

    def __init__(self, function: str, alpha: float, source: Any, output: Any, **settings: Any) -> None:
        """Work out how the integers are laid out; they are set as weights."""
        super().__init__(**settings)
        self.pair = TablePair(function, float(alpha), format_of(source), format_of(output))
        self.entries = self.pair.points().size

    def call(self, inputs: Any) -> Any:
        """The table forward, the real function's slope backward."""

        @tf.custom_gradient
        def looked_up(x: Any) -> Any:
            def backward(upstream: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = real_function(self.pair.function, self.pair.alpha, x)
                return upstream * tape.gradient(y, x)

            return self._look_up(x), backward

        return looked_up(inputs)

    def _look_up(self, x: Any) -> Any:
        pair = self.pair
        offset = self.codes_of(x) - pair.source.min_code
        if pair.shift:
            width = 1 << pair.shift
            total = self.between(offset // width, offset % width, width)
        else:
            total = tf.gather(tf.convert_to_tensor(self.held), offset)
        return self.result(total, pair.result_bits, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Function and formats, as plain values."""
        return {**super().get_config(), "function": self.pair.function, "alpha": self.pair.alpha}


def format_of(parts: Any) -> Format:
    """A format from `(word_length, integer_bits, signed)`."""
    word_length, integer_bits, signed = parts
    return Format(int(word_length), int(integer_bits), bool(signed))


def parts_of(output: Format) -> list[Any]:
    """What `format_of` takes."""
    return [output.word_length, output.integer_bits, output.signed]


def rounded(codes: Any, bits: int) -> Any:
    """`codes / 2**bits` rounded half to even."""
    if bits == 0:
        return codes
    whole = 1 << bits
    below, rest = codes // whole, codes % whole
    up = (rest > whole // 2) | ((rest == whole // 2) & (below % 2 == 1))
    return below + tf.cast(up, tf.int64)


def real_function(function: str, alpha: float, x: Any) -> Any:
    """The function in floating point, for its gradient."""
    if function == "elu":
        return keras.activations.elu(x, alpha)
    if function in NEWER:
        return getattr(newer_functions, function)(x)
    return getattr(keras.activations, function)(x)


def table_layer(pair: TablePair, name: str, dtype: str) -> Any:
    """The layer of a table with its integers set."""
    formats = parts_of(pair.source), parts_of(pair.output)
    return TableActivation(pair.function, pair.alpha, *formats, name=name, dtype=dtype).with_integers()
