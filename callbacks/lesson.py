"""Training a model towards what its network said before formats came into force, in place of its own loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow

from sound_qkeras.errors import ModelError
from sound_qkeras.keras_io.session.environment import float_type, import_keras
from sound_qkeras.keras_io.train.student import teaching
from sound_qkeras.keras_io.write.float_model import to_keras
from sound_qkeras.network import Network

from .graph_steps import exchanged

keras: Any = import_keras()
tf: Any = tensorflow  # its own types say little
_LOG = logging.getLogger("sound_qkeras")
ARGUMENTS = ("x", "y", "y_pred", "sample_weight")


class Lesson:
    """What takes the place of one model's loss while a training step is traced.

    The loss keeps its value, which Keras logs; the gradients are those of the distance to the teacher.
    """

    def __init__(self, model: Any, network: Network) -> None:
        """The teacher is the network as it is now.

        Args:
            model: the model, of Keras 2 or of Keras 3 on TensorFlow.
            network: what `read_model` makes of it.

        Raises:
            ModelError: it has several inputs or outputs.
        """
        if network.inputs or network.outputs:
            raise ModelError("teacher=True received a model of several inputs or outputs; accepted: one of each")
        self._model, self._head, self._asked = model, network.head, True
        with float_type("float32"):
            self._teacher = teaching(to_keras(network))

    @contextmanager
    def given(self) -> Iterator[None]:
        """While it lasts, the model's gradients are towards the teacher."""
        was_asked, self._asked = self._asked, False
        with exchanged(self._model, "compute_loss", self._taught(self._model.compute_loss)):
            yield
        if was_asked and not self._asked:
            _LOG.warning("SoundQuant: training goes on without a teacher: the model's train_step has no compute_loss")

    def _taught(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def compute_loss(*given: Any, **named: Any) -> Any:
            self._asked = True
            passed = dict(zip(ARGUMENTS, given, strict=False)) | named
            value = own(**passed)
            distance = tf.cast(self._distance(*(passed.get(name) for name in ARGUMENTS)), value.dtype)
            return distance + tf.stop_gradient(value - distance)

        return compute_loss

    def _distance(self, x: Any, _: Any, found: Any, weights: Any) -> Any:
        """From the outputs as the model has them, behind the softmax or sigmoid."""
        wanted = self._teacher(tf.cast(x, tf.float32))
        if self._head == "softmax":
            return keras.losses.KLDivergence()(tf.nn.softmax(wanted), found, weights)
        if self._head == "sigmoid":
            return keras.losses.BinaryCrossentropy()(tf.sigmoid(wanted), found, weights)
        return keras.losses.MeanSquaredError()(wanted, found, weights)
