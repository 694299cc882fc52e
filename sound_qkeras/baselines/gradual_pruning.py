"""Gradual magnitude pruning: while a network trains, more and more of its smallest weights become zero.

After a part t of the pruning, which ends before the last epochs, the share of zeros is

    s(t) = s * (1 - (1 - t)**3)

Weights of all layers compete, each divided by the root mean square of its layer's. One that was zero may come back while the
network is pruned, and not after that: `keeping_zeros` trains on without it.

Reference: Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for model compression (2017).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.autoqkeras.training import Data, Training, compile_for, copy_of
from sound_qkeras.keras_io.session.environment import import_keras, import_tensorflow

# The part of the epochs after which the share of zeros is what was asked for.
PRUNED = 0.7


def gradually_pruned(
    model: Any, sparsity: float, data: Data, head: str | None, training: Training
) -> tuple[Any, float]:
    """Train a copy of a model on while its smallest weights become zero, at a rate that falls along a cosine.

    Args:
        model: a trained tf_keras model; it is not changed.
        sparsity: share of zeros among the kernels of its Dense layers and convolutions.
        data: inputs and targets.
        head: as for `compile_for`.
        training: its epochs, batch size, first learning rate, seed and metric.

    Returns:
        The copy, and the seconds that took.

    Raises:
        InputError: the share is not between 0 and 1.
    """
    if not 0.0 < sparsity < 1.0:
        raise InputError(f"sparsity is {sparsity}; accepted: a share above 0 and below 1")
    started, keras, copy, epochs = time.monotonic(), import_keras(), copy_of(model), training.epochs
    compile_for(copy, head, training)
    kernels = [layer.kernel for layer in copy.layers if hasattr(layer, "kernel")]

    def prune(epoch: int, logs: Any = None) -> None:
        part = min((epoch + 1) / (PRUNED * epochs), 1.0)
        _smallest_to_zero(kernels, sparsity * (1.0 - (1.0 - part) ** 3))

    def falling(epoch: int) -> float:
        return 0.5 * training.learning_rate * (1.0 + math.cos(math.pi * epoch / epochs))

    callbacks = [
        keras.callbacks.LearningRateScheduler(falling),
        keras.callbacks.LambdaCallback(on_epoch_begin=prune, on_epoch_end=prune),
    ]
    keras.utils.set_random_seed(training.seed)
    copy.fit(*data, epochs=epochs, batch_size=training.batch_size, callbacks=callbacks, verbose=0)
    return copy, time.monotonic() - started


def _smallest_to_zero(kernels: Sequence[Any], share: float) -> None:
    """Of all kernels together, each in units of its root mean square."""
    values: list[Reals] = [kernel.numpy() for kernel in kernels]
    sizes = [np.abs(value) / max(float(np.sqrt(np.mean(value**2))), 1e-30) for value in values]
    limit = np.quantile(np.concatenate([size.reshape(-1) for size in sizes]), share)
    for kernel, value, size in zip(kernels, values, sizes, strict=True):
        kernel.assign(np.where(size <= limit, 0.0, value))


def keeping_zeros(learning_rate: float, steps: int) -> Any:
    """Adam for whoever trains on: what is exactly zero in a kernel when it begins stays so. The rate falls along a cosine.

    Args:
        learning_rate: the first.
        steps: until the rate is zero.
    """
    keras, tf = import_keras(), import_tensorflow()
    adam: Any = keras.optimizers.legacy.Adam

    class KeepingZeros(adam):
        """Copies of it, which `finetune` makes, note the zeros anew."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            kept: dict[Any, Any] = {}

            def without_zeros(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
                with tf.init_scope():  # of the values when training begins, whatever is traced
                    for _, variable in pairs:
                        free = (variable.numpy() != 0.0) | (len(variable.shape) < 2)
                        kept.setdefault(variable.ref(), tf.constant(free, variable.dtype))
                return [(gradient * kept[variable.ref()], variable) for gradient, variable in pairs]

            adam.__init__(self, *arguments, **named, gradient_transformers=[without_zeros])

    return KeepingZeros(keras.optimizers.schedules.CosineDecay(learning_rate, steps))
