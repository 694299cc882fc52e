"""A fixed-point network in training, towards targets or a teacher. Imports TensorFlow: import it inside functions only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from sound_qkeras.keras_io.session.environment import import_keras, import_tensorflow
from sound_qkeras.keras_io.train.latent import Latent
from sound_qkeras.network import Network

keras, tf = import_keras(), import_tensorflow()

Teacher = Callable[[Any], Any]
# How many steps of its format Adam moves the one weight of a sum where its gradients are noise; see Latent for others.
WALK = 0.05


class Student(keras.Model):
    """A model whose weights are brought back into their formats after every step.

    With a teacher the loss is of its outputs in place of the targets, which metrics alone are of; there need be none.

    Attributes:
        latents: the weights that are trained.
        teacher: what the outputs are to be, from the inputs; None where targets say it.
        in_steps: whether a learning rate counts steps of each weight's format.
    """

    latents: Sequence[Latent] = ()
    teacher: Teacher | None = None
    in_steps: bool = False

    def train_step(self, data: Any) -> Any:
        """Keras' step without metrics, then the clipping, in one graph."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True), weights)
        before = [tf.identity(latent.variable) for latent in self.latents]
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        for latent, value in zip(self.latents, before, strict=True):
            latent.follow(value, self.optimizer.learning_rate if self.in_steps else None)
        return {"loss": loss}

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        """Keras', or the distance to what the teacher says."""
        wanted = y if self.teacher is None else self.teacher(x)
        return super().compute_loss(x, wanted, y_pred, sample_weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
        """Keras', where there are targets."""
        if y is None:
            return self.get_metrics_result()
        return super().compute_metrics(x, y, y_pred, sample_weight)


def teaching(model: Any) -> Teacher:
    """What a float model says, for `Student.teacher`: not a part of the student, whose weights the optimizer moves."""
    return lambda x: model(x, training=False)


def falling(epochs: int, batches: int) -> Any:
    """The rate of every epoch, along a cosine: weights of few bits settle only where it ends near zero.

    Noise adds up as the root of the number of steps does, so where there are more, each is smaller.
    """
    rate = WALK / math.sqrt(epochs * batches)
    return keras.callbacks.LearningRateScheduler(lambda n: rate * (1.0 + math.cos(math.pi * n / epochs)) / 2.0)


def distances(network: Network) -> Any:
    """The loss towards a teacher, for every output: the divergence of the classes' probabilities, or the mean square."""
    heads = [port.head for port in network.outputs] or [network.head]
    found = [DISTANCES.get(head or "", "mse") for head in heads]
    return found if network.outputs else found[0]


def _softmax_distance(wanted: Any, found: Any) -> Any:
    """Kullback and Leibler's divergence, from logits."""
    log = tf.nn.log_softmax(wanted)
    return tf.reduce_sum(tf.exp(log) * (log - tf.nn.log_softmax(found)), axis=-1)


def _sigmoid_distance(wanted: Any, found: Any) -> Any:
    """The same for single probabilities."""
    probability = tf.sigmoid(wanted)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(probability, wanted)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(probability, found) - entropy, axis=-1)


DISTANCES = {"softmax": _softmax_distance, "sigmoid": _sigmoid_distance}
