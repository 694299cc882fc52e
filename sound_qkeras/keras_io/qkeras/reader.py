"""QKeras models as steps: what they compute, quantizers included, or what they would compute without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.keras_io.files.files import Vocabulary, is_saved, load_keras_model
from sound_qkeras.keras_io.qkeras.layers import QKERAS
from sound_qkeras.keras_io.qkeras.quantizers import RANDOM, is_quantizer, quantized_activation
from sound_qkeras.keras_io.read.activations import Parts
from sound_qkeras.keras_io.read.outputs import joined_outputs, reachable, set_heads_aside
from sound_qkeras.keras_io.read.pieces import Head, Shape, Step
from sound_qkeras.keras_io.read.precision import half_precision, precision_notes
from sound_qkeras.keras_io.read.reader import Walk, check_model
from sound_qkeras.keras_io.read.resizing import RESIZING
from sound_qkeras.keras_io.session.editions import KERAS_3, edition, output_names
from sound_qkeras.keras_io.session.environment import float_type, import_qkeras
from sound_qkeras.network.ports import Port

# Names that may stand in a file where QKeras expects a quantizer.
QUANTIZER_NAMES = (
    "binary",
    "quantized_bits",
    "quantized_hswish",
    "quantized_po2",
    "quantized_relu",
    "quantized_relu_po2",
    "quantized_sigmoid",
    "quantized_tanh",
    "stochastic_binary",
    "stochastic_ternary",
    "ternary",
)
FUNCTION_NAMES = ("elu", "exponential", "gelu", "hard_sigmoid", "hard_tanh", "linear", "relu", "relu6", "selu")
FUNCTION_NAMES += ("sigmoid", "softmax", "softplus", "softsign", "swish", "tanh")


@dataclass(frozen=True)
class Steps:
    """A model on its way to a network.

    Args:
        steps: in topological order.
        names: Keras' names of the outputs.
        outputs: the steps that hold them.
        inputs: parts of the input that are inputs of the model, where it has several.
        notes: what was left out.
        dtype: the model's float type.
    """

    steps: list[Step]
    names: Sequence[str]
    outputs: list[str]
    inputs: tuple[Port, ...]
    notes: tuple[str, ...]
    dtype: str

    def with_heads_aside(self) -> tuple[list[Step], list[tuple[str, str]], list[str | None]]:
        """Steps without softmaxes and sigmoids at the outputs, the outputs' names and steps, and what was set aside."""
        steps, outputs, heads = set_heads_aside(self.steps, self.outputs)
        steps, ends = joined_outputs(steps, self.names, outputs)
        return steps, ends, heads

    @property
    def ends_in_head(self) -> bool:
        """Whether an output is a softmax or a sigmoid in floating point."""
        return any(isinstance(step.op, Head) and step.name in self.outputs for step in self.steps)


def open_model(model: Any) -> Any:
    """A QKeras model as it is, or from the path of one. Code in files is never run.

    Raises:
        FileFormatError: the path is missing, empty, corrupt or no Keras model.
        ModelError: it is a Keras 3 model.
        UnsupportedLayerError: a layer or quantizer in the file is of a kind that is not supported.
        DependencyError: TensorFlow, tf_keras or QKeras is missing or of the wrong kind.
    """
    import_qkeras()
    opened = load_keras_model(model, QVocabulary()) if is_saved(model) else model
    if edition(opened) == KERAS_3:
        raise ModelError(
            f"model '{opened.name}' is a Keras 3 one; accepted: a QKeras or tf_keras model; use sq.quantize"
        )
    return opened


def read_steps(model: Any, *, latent: bool = False) -> Steps:
    """The steps of a QKeras or Keras model.

    Args:
        model: a built Sequential or Functional model; see `open_model`.
        latent: weights as they are stored, where they would be quantised. Quantizers of activations stay among the steps.

    Raises:
        UnsupportedLayerError: a layer or quantizer has no proved meaning, and is named.
        ModelError: the model is not built or not finite.
        DependencyError: TensorFlow, tf_keras or QKeras is missing or of the wrong kind.
    """
    import_qkeras()
    check_model(model)
    dtype = str(model.weights[0].dtype.name) if model.weights else "float32"
    if dtype not in ("float32", "float64"):
        raise UnsupportedLayerError(model.name, f"weights of type {dtype}", "float32 or float64", "cast the model")
    for name, kind in half_precision(model).items():
        raise UnsupportedLayerError(name, f"a layer that computes in {kind}", "float32 or float64", "set its dtype")
    with float_type(dtype):
        return _steps(model, QWalk(model, latent=latent), dtype)


def _steps(model: Any, walk: Walk, dtype: str) -> Steps:
    steps = reachable(list(walk.steps.values()), walk.outputs)
    left_out = f"Layers that only act in training were left out: {', '.join(walk.training_only)}."
    notes = (left_out,) if walk.training_only else ()
    return Steps(steps, output_names(model), walk.outputs, walk.inputs, notes, dtype)


class QWalk(Walk):
    """A pass over the layers of a model that may be QKeras'."""

    def __init__(self, model: Any, *, latent: bool) -> None:
        """Walk the model."""
        self.latent = latent
        super().__init__(model)

    def parts(self, layer: Any, shape: Shape) -> Parts:
        """What a layer becomes: QKeras' own by their readers, and Keras' as ever."""
        kind = type(layer).__name__
        if kind in QKERAS and type(layer).__module__.startswith("qkeras."):
            return QKERAS[kind](layer, shape, self.latent)
        if kind == "QAdaptiveActivation":
            raise UnsupportedLayerError(
                layer.name,
                "QAdaptiveActivation, whose range depends on the batches it has seen",
                "QActivation",
                "replace it by a QActivation with the range it has learnt",
            )
        if kind.startswith("Q"):
            raise _unsupported(layer.name, kind)
        if kind in RESIZING and getattr(layer, "interpolation", "") == "bilinear":
            raise UnsupportedLayerError(
                layer.name,
                f"{kind} with interpolation='bilinear' in a quantised model",
                "'nearest' there: what float32 adds to lines between values is not proved",
                "resize by 'nearest', or quantise the float model with sq.quantize",
            )
        given = getattr(layer, "activation", None)
        if not is_quantizer(given):
            return super().parts(layer, shape)
        layer.activation = None
        try:
            parts = super().parts(layer, shape)
        finally:
            layer.activation = given
        return *parts, *quantized_activation(layer, given, "_" if parts else "")


class QVocabulary(Vocabulary):
    """What may be in the file of a QKeras model: its layers, and quantizers as names with numbers."""

    def check(self, name: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
        """The configuration with quantizers made."""
        if kind not in QKERAS and kind.startswith("Q"):
            raise _unsupported(name, kind)
        if kind not in QKERAS:
            return super().check(name, kind, config)
        found = dict(config)
        for key, value in config.items():
            if key == "activation" or key.endswith("_quantizer"):
                found[key] = self._quantizer(name, kind, value)
            elif isinstance(value, dict):
                raise UnsupportedLayerError(name, f"{kind} with {key} given as an object", "names", "leave it out")
        return found

    def _quantizer(self, name: str, kind: str, value: Any) -> Any:
        if value is None:
            return None
        is_dict = isinstance(value, dict)
        called = str(value.get("class_name") if is_dict else value).split("(")[0]
        if called not in QUANTIZER_NAMES and (is_dict or called not in FUNCTION_NAMES):
            what = "the random quantizer" if called in RANDOM else "the quantizer"
            raise UnsupportedLayerError(
                name, f"{kind} with {what} {called}", ", ".join(QUANTIZER_NAMES), "retrain with one of these"
            )
        if not is_dict:
            return value
        return getattr(import_qkeras().quantizers, called)(**(value.get("config") or {}))

    def objects(self) -> dict[str, Any]:
        """QKeras' layers."""
        qkeras = import_qkeras()
        return {kind: getattr(qkeras, kind) for kind in QKERAS}


def _unsupported(name: str, kind: str) -> UnsupportedLayerError:
    """The error for a layer of QKeras that cannot be certified."""
    accepted = f"{', '.join(sorted(QKERAS))}, and Keras' own layers"
    return UnsupportedLayerError(name, f"a layer of kind {kind}", accepted, "replace it, or cut the model before it")


def read_float_steps(model: Any) -> Steps:
    """The steps of a float model; quantised layers are refused.

    Raises:
        FileFormatError, UnsupportedLayerError, ModelError, DependencyError: as `read_steps`.
    """
    if is_saved(model):
        model = load_keras_model(model)
    check_model(model)
    return replace(_steps(model, Walk(model), "float32"), notes=tuple(precision_notes(model)))
