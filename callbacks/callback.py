"""A callback for either Keras: both ask a callback for methods by name, not for its class."""

from __future__ import annotations

from typing import Any


def _ignored(self: Any, *_: Any, **__: Any) -> None:
    """Nothing to do here."""


# Keras 3 does not call such methods during a batch, nor does it wait for a batch's logs on their account.
setattr(_ignored, "_is_default", True)  # noqa: B010


class Callback:
    """What Keras 2 and Keras 3 expect of a callback, and no framework imported.

    Attributes:
        params: what Keras says about the fit; None before the first.
    """

    # What Keras 2 asks for. Nothing here reads the logs of a batch.
    _supports_tf_logs = True
    _chief_worker_only = None

    on_train_begin = on_train_end = on_epoch_begin = on_epoch_end = _ignored
    on_batch_begin = on_batch_end = on_train_batch_begin = on_train_batch_end = _ignored
    on_test_begin = on_test_end = on_test_batch_begin = on_test_batch_end = _ignored
    on_predict_begin = on_predict_end = on_predict_batch_begin = on_predict_batch_end = _ignored

    def __init__(self) -> None:
        """No model yet."""
        self.params: Any = None
        self._model: Any = None

    def set_params(self, params: Any) -> None:
        """Keras says what the fit is like."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Keras says which model is trained."""
        self._model = model

    @property
    def model(self) -> Any:
        """The model with the weights it has now: JAX keeps them elsewhere during an epoch, torch wraps parallel models."""
        model = getattr(self._model, "module", self._model) if hasattr(self._model, "device_ids") else self._model
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()
        return model

    def _implements_train_batch_hooks(self) -> bool:
        """Keras 2 asks; batches are observed otherwise."""
        return False

    _implements_test_batch_hooks = _implements_predict_batch_hooks = _implements_train_batch_hooks
