"""A force towards fewer bits in every training step, in proportion to that of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval
from sound_qkeras.keras_io.autoqkeras.bit_estimate import bit_estimate, check_estimable
from sound_qkeras.keras_io.session.environment import import_tensorflow

from .graph_observer import GraphObserver
from .graph_steps import Step, StepExtension

tf: Any = import_tensorflow()


class BitForce(StepExtension):
    """Adds the gradient of the estimated bits to that of the loss, for the length of one fit.

    The optimizer gets `g + strength |g| h / |h|`, with `g` the gradient of the loss, `h` that of the estimate, and norms
    over all weights: neither the scale of the loss nor that of the estimate matters. A network that has not learned anything
    yet would lose its units to it, so it waits for `start`.
    """

    def __init__(self, model: Any, strength: float, box: Interval | None) -> None:
        """Nothing is touched yet.

        Args:
            model: the model.
            strength: share of the loss's gradient, once `start` was called; until then there is no force.
            box: the inputs; None takes the extremes of the batches so far.

        Raises:
            UnsupportedLayerError: a layer's bits cannot be estimated.
        """
        super().__init__(model)
        if not model.built:
            raise InputError("fewer_bits received a model that was never built; give its first layer an input shape")
        check_estimable(model)
        self._strength, self._box = strength, box
        self._share = tf.Variable(0.0, trainable=False)
        self._seen = GraphObserver(model)

    def start(self) -> None:
        """From here on there is a force."""
        self._share.assign(self._strength)

    def around(self, step: Step, data: Any) -> Any:
        """A training step whose optimizer gets the sum of both forces."""
        lower, upper = self._ends(data)
        with self._exchanged_optimizer(lower, upper):
            return step(data)

    @tf.autograph.experimental.do_not_convert
    def _ends(self, data: Any) -> tuple[Any, Any]:
        kind = self.model.inputs[0].dtype
        if self._box is None:
            return self._seen.extremes(data)
        return tuple(tf.constant(end, kind) for end in (self._box.lower, self._box.upper))

    @contextmanager
    def _exchanged_optimizer(self, lower: Any, upper: Any) -> Iterator[None]:
        """Whatever the training step is, its gradients go through the optimizer's `apply_gradients`."""
        optimizer = self.model.optimizer
        attributes, apply = vars(optimizer), optimizer.apply_gradients
        had = "apply_gradients" in attributes

        def applied(grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
            return apply(self._added(list(grads_and_vars), lower, upper), *args, **kwargs)

        attributes["apply_gradients"] = applied
        try:
            yield
        finally:
            if had:
                attributes["apply_gradients"] = apply
            else:
                del attributes["apply_gradients"]

    @tf.autograph.experimental.do_not_convert
    def _added(self, pairs: list[tuple[Any, Any]], lower: Any, upper: Any) -> list[tuple[Any, Any]]:
        """Gradients and variables, with the second force in the gradients."""
        variables = [variable for _, variable in pairs]
        with tf.GradientTape() as tape:
            bits = bit_estimate(self.model, lower, upper)
        forces = tape.gradient(bits, variables)
        known = [force for force in forces if force is not None]
        size = tf.linalg.global_norm(known)
        loss = tf.linalg.global_norm([gradient for gradient, _ in pairs if gradient is not None])
        share = tf.where(tf.math.is_finite(size) & (size > 0.0), tf.cast(self._share, loss.dtype) * loss / size, 0.0)
        return [
            (
                gradient if force is None or gradient is None else gradient + tf.math.multiply_no_nan(force, share),
                variable,
            )
            for (gradient, variable), force in zip(pairs, forces, strict=True)
        ]
