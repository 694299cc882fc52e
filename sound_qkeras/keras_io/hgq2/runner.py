"""Train HGQ2 from float weights and say what came out. Run by a Python that has HGQ2; imports nothing of this package.

    PYTHON runner.py GIVEN.npz ANSWER.npz

Every weight and every input of a layer has a width of its own, as HGQ2's guide recommends: `kbi` that saturates for weights, `kif`
that wraps around for values, whose integer bits `trace_minmax` finds in the end, on the inputs that trained. Widths begin as in
HGQ2's example, and the integer bits of a weight as its float value needs them. The loss is charged for the EBOPs, times beta. Each
beta starts from the float weights again. Of its epochs those are kept that no other one beats in both validation and EBOPs.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# Bits that widths begin with: of a weight besides its sign, and of a value before and behind its point.
WEIGHT_BITS, INTEGER_BITS, FRACTIONAL_BITS = 3, 3, 4
# Of Adam, in the example: what a width moves by in a step.
LEARNING_RATE = 5e-3

Arrays = Mapping[str, Any]


def main(given: str, answer: str) -> None:
    """Train with every beta, and write what is kept, fewest EBOPs first."""
    arrays = dict(np.load(given))
    plan: dict[str, Any] = json.loads(str(arrays.pop("plan")))
    if importlib.util.find_spec("jax") is not None:
        os.environ["KERAS_BACKEND"] = "jax"  # the quickest, by HGQ2's examples
    keras: Any = importlib.import_module("keras")
    trace: Any = importlib.import_module("hgq.utils").trace_minmax
    keras.utils.set_random_seed(plan["seed"])
    model = built(keras, plan, arrays)
    rows: list[dict[str, Any]] = []
    outputs: list[Any] = []
    for one in trained(keras, model, plan, arrays):
        model.set_weights(one.pop("weights"))
        one["ebops"] = trace(model, arrays["train_x"])
        rows.append({**one, **counted(model)})
        outputs.append(model.predict(arrays["test_x"], verbose=0).astype(np.float64))
    said = {"version": importlib.metadata.version("hgq2"), "rows": rows}
    np.savez(answer, said=json.dumps(said), outputs=np.stack(outputs))


def built(keras: Any, plan: Mapping[str, Any], arrays: Arrays) -> Any:
    """The network in HGQ2's layers with the float weights, compiled."""
    config: Any = importlib.import_module("hgq.config")
    scope = config.QuantizerConfigScope
    weights = scope(place="all", default_q_type="kbi", overflow_mode="SAT_SYM", b0=WEIGHT_BITS)
    bits = {"i0": INTEGER_BITS, "f0": FRACTIONAL_BITS}
    values = scope(place="datalane", default_q_type="kif", overflow_mode="WRAP", **bits)
    with weights, values, config.LayerConfigScope(enable_ebops=True):
        layers = [made for layer in plan["layers"] for made in layers_of(keras, layer)]
        model = keras.Sequential([keras.Input(arrays["train_x"].shape[1:]), *layers])
    for number, layer in enumerate(quantized(model)):
        kernel = arrays[f"kernel_{number}"]
        layer.kernel.assign(kernel)
        layer.bias.assign(arrays[f"bias_{number}"])
        layer.kq.quantizer._i.assign(np.frexp(kernel * (1.0 + 2.0**-WEIGHT_BITS))[1].astype(np.float32))
    if plan["metric"] != "accuracy":
        loss, metrics = plan["metric"], []
    elif model.output_shape[-1] == 1:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        metrics = [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    else:
        loss, metrics = keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, metrics=metrics)
    return model


def layers_of(keras: Any, layer: Mapping[str, Any]) -> Iterator[Any]:
    """The Keras layers of one operation."""
    hgq: Any = importlib.import_module("hgq.layers")
    kind, axes = layer["kind"], len(layer.get("strides", ()))
    if kind == "dense":
        yield hgq.QDense(layer["outputs"])
    elif kind == "conv":
        if any(map(any, layer["padding"])):
            padding = layer["padding"] if axes > 1 else layer["padding"][0]
            yield getattr(keras.layers, f"ZeroPadding{axes}D")(padding)
        settings = {"strides": layer["strides"], "dilation_rate": layer["dilation"]}
        yield getattr(hgq, f"QConv{axes}D")(layer["outputs"], layer["window"], **settings)
    elif kind == "max_pool":
        pooling = getattr(keras.layers, f"MaxPooling{axes}D")
        yield pooling(layer["window"], strides=layer["strides"], padding=layer["padding"])
    elif kind == "reshape":
        yield keras.layers.Reshape(layer["shape"])
    elif kind == "relu":
        yield keras.layers.ReLU()


def quantized(model: Any) -> list[Any]:
    """The layers with weights."""
    return [layer for layer in model.layers if hasattr(layer, "kq")]


def trained(keras: Any, model: Any, plan: Mapping[str, Any], arrays: Arrays) -> list[dict[str, Any]]:
    """The epochs that are kept, with what validated, EBOPs, weights and the seconds of their beta."""
    sugar: Any = importlib.import_module("hgq.utils.sugar")
    model.optimizer.build(model.trainable_variables)
    weights, state = model.get_weights(), [np.array(one) for one in model.optimizer.variables]
    kept: list[dict[str, Any]] = []
    for beta in plan["betas"]:
        started, epochs = time.monotonic(), list[dict[str, Any]]()
        model.set_weights(weights)
        for variable, value in zip(model.optimizer.variables, state, strict=True):
            variable.assign(value)

        def keep(epoch: int, logs: Mapping[str, float], beta: float = beta, epochs: list[Any] = epochs) -> None:
            good = logs["val_accuracy"] if "val_accuracy" in logs else -logs["val_loss"]
            found = {"beta": beta, "epoch": epoch + 1, "validation": float(good), "ebops": int(logs["ebops"])}
            epochs[:] = front([*epochs, {**found, "weights": model.get_weights()}])

        model.fit(
            arrays["train_x"],
            arrays["train_y"],
            validation_data=(arrays["validation_x"], arrays["validation_y"]),
            batch_size=plan["batch_size"],
            epochs=plan["epochs"],
            callbacks=[
                sugar.BetaScheduler(lambda epoch, beta=beta: beta),
                sugar.FreeEBOPs(),
                keras.callbacks.LambdaCallback(on_epoch_end=keep),
            ],
            verbose=0,
        )
        seconds = time.monotonic() - started
        kept += [{**one, "seconds": seconds} for one in epochs]
    return sorted(kept, key=lambda one: one["ebops"])


def front(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that no other one beats in both validation and EBOPs, fewest EBOPs first."""
    best, kept = -np.inf, list[dict[str, Any]]()
    for one in sorted(found, key=lambda one: (one["ebops"], -one["validation"])):
        if one["validation"] > best:
            best = one["validation"]
            kept.append(one)
    return kept


def counted(model: Any) -> dict[str, int]:
    """Bits of a traced model.

    `weight_bits`, `bias_bits` and `value_bits` are sums of widths with signs; what is zero has none. `bit_operations` sums the
    product of both widths over all multiplications by a weight that is not zero. `enclosed` is EBOPs of the integers: of a
    weight the bits from the first to the last that is set, of an input its bits without sign, of a bias those for every result.
    """
    names = ["weight_bits", "bias_bits", "value_bits", "bit_operations", "enclosed", "nonzero"]
    total = dict.fromkeys(names, 0)
    for layer in quantized(model):
        shape = (1, *layer.input.shape[1:])
        magnitude = np.array(layer.iq.bits_(shape))
        read = np.where(magnitude > 0, magnitude + np.array(layer.iq.quantizer.k), 0)
        kernel, word, inside = stored(layer.kq, layer.qkernel)
        bias, bias_word, bias_inside = stored(layer.bq, layer.qbias)
        total["weight_bits"] += int(word.sum())
        total["bias_bits"] += int(bias_word.sum())
        total["value_bits"] += int(read.sum())
        total["nonzero"] += int(np.count_nonzero(kernel))
        total["bit_operations"] += int(products(layer, read, word).sum())
        found = products(layer, magnitude, inside)
        total["enclosed"] += int(found.sum()) + found.size // bias.size * int(bias_inside.sum())
    return total


def stored(quantizer: Any, values: Any) -> tuple[Any, Any, Any]:
    """Parameters in float64, the width of each with its sign, and its bits from the first to the last that is set."""
    inner, found = quantizer.quantizer, np.array(values, dtype=np.float64)
    word = np.where(found != 0.0, np.array(inner.b) + np.array(inner.k), 0)
    codes = np.abs(np.ldexp(found, np.array(inner.f).astype(np.int64))).astype(np.int64)
    lowest = np.frexp((codes & -codes).astype(np.float64))[1]
    return found, word, np.where(codes != 0, np.frexp(codes.astype(np.float64))[1] - lowest + 1, 0)


def products(layer: Any, read: Any, weights: Any) -> Any:
    """What the layer computes without bias and activation."""
    first, second = read.astype(np.float32), weights.astype(np.float32)
    found = layer.convolution_op(first, second) if hasattr(layer, "convolution_op") else first @ second
    return np.array(found).astype(np.float64)


if __name__ == "__main__":
    main(*sys.argv[1:])
