"""The Keras layer of a layer normalisation in integers, bit for bit. Imports TensorFlow: import it inside functions only."""

from __future__ import annotations

from typing import Any

from sound_qkeras.keras_io.session.environment import import_keras, import_tensorflow
from sound_qkeras.keras_io.write.table_layer import LookupLayer, format_of, parts_of
from sound_qkeras.network.ops import LayerNormPair

keras, tf = import_keras(), import_tensorflow()


@keras.saving.register_keras_serializable(package="sound_qkeras")
class TableNormalization(LookupLayer):
    """Rows less their mean over the root of their variance, as the fixed-point network computes them.

    Guarantee: equals the network it was made from bit for bit, in float32 and float64, wherever input and output codes fit the
    type's mantissa; what it reads is rounded to the format it reads, and saturates at its ends.

    Training passes the gradient of the real function straight through the rounding.

    Args:
        size: of a row, the last axis.
        epsilon: what is added to the variance.
        source: `(word_length, integer_bits, signed)` of what it reads.
        output: the same of its results.
    """

    def __init__(self, size: int, epsilon: float, source: Any, output: Any, **settings: Any) -> None:
        """Work out how the integers are laid out; they are set as weights."""
        super().__init__(**settings)
        self.pair = LayerNormPair(int(size), float(epsilon), format_of(source), format_of(output))
        self.entries = (3 << self.pair.piece_bits) + 1

    def call(self, inputs: Any) -> Any:
        """The integers forward, the real function's slope backward."""

        @tf.custom_gradient
        def normalised(x: Any) -> Any:
            def backward(upstream: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    deviation = x - tf.reduce_mean(x, axis=-1, keepdims=True)
                    variance = tf.reduce_mean(deviation * deviation, axis=-1, keepdims=True)
                    y = deviation / tf.sqrt(variance + tf.cast(self.pair.epsilon, x.dtype))
                return tape.gradient(y, x, upstream)

            return self._in_integers(x), backward

        return normalised(inputs)

    def _in_integers(self, x: Any) -> Any:
        pair, code = self.pair, self.codes_of(x)
        deviation = pair.size * code - tf.reduce_sum(code, axis=-1, keepdims=True)
        square = tf.reduce_sum(code * deviation, axis=-1, keepdims=True) * (1 << pair.epsilon_shift) + pair.epsilon_code
        halvings = tf.zeros_like(square)
        for number in range(1, pair.halvings + 1):
            halvings += tf.cast(square >= 1 << (pair.index_bits + 2 * number), tf.int64)
        index = tf.bitwise.right_shift(square, 2 * halvings)
        width = 1 << pair.shift
        root = self.between(index // width - (1 << pair.piece_bits), index % width, width)
        total = tf.bitwise.left_shift(deviation * root, pair.halvings - halvings + tf.zeros_like(deviation))
        return self.result(total, pair.result_bits, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Size, epsilon and formats, as plain values."""
        return {**super().get_config(), "size": self.pair.size, "epsilon": self.pair.epsilon}


def norm_layer(pair: LayerNormPair, name: str, dtype: str) -> Any:
    """The layer of a normalisation with its integers set."""
    formats = parts_of(pair.source), parts_of(pair.output)
    return TableNormalization(pair.size, pair.epsilon, *formats, name=name, dtype=dtype).with_integers()
