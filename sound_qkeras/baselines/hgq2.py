"""HGQ2: training in which every weight and every value has a width of its own. What it computes is measured; nothing is proved.

HGQ2's `qkeras` replaces ours, so it runs in an environment of its own: a Python that has it gets float weights and samples in a
file, trains as `keras_io/hgq2/runner.py` says, and answers with a file.

Reference: Sun et al., HGQ: High Granularity Quantization for Real-time Neural Networks on FPGAs (FPGA 2026).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras import keras_io
from sound_qkeras.errors import DependencyError, FileFormatError, ModelError, UnsupportedLayerError
from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.autoqkeras.training import Data, Training
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Conv, Dense, MaxPool, Reshape

RUNNER = Path(keras_io.__file__).parent / "hgq2" / "runner.py"
# What the loss is charged for an EBOP: from little to much.
BETAS = (1e-5, 3e-5, 1e-4, 3e-4)
HOW = "made by `python3 -m venv hgq` and `hgq/bin/pip install HGQ2 jax`"
# Of our own session: what Keras there is, and which packages are in the way.
OURS = ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND", "PYTHONPATH", "PYTHONHOME")


@dataclass(frozen=True, eq=False)
class Grown:
    """A network that HGQ2 trained, after one of its epochs.

    Args:
        beta: what an EBOP was charged.
        epoch: after which, from 1.
        validation: accuracy on the validation samples, or the negative loss.
        ebops: HGQ2's own count, of the widths it trained. It charges what is multiplied for a width without sign, and a weight
            that became zero only where its width did.
        enclosed: the same of the integers, as `enclosed.ebops` counts them.
        weight_bits, bias_bits: sums of widths with signs; none of what is zero.
        value_bits: of every input of a layer with weights, the network's own included.
        bit_operations: sum over multiplications of both widths, signs included; as `Cost.bit_operations`, but every weight
            has its own word, and a zero has none.
        nonzero: weights that are not zero.
        seconds: of all epochs with this beta.
        outputs: for the test inputs, before a softmax or sigmoid, `(n, outputs)`.
    """

    beta: float
    epoch: int
    validation: float
    ebops: int
    enclosed: int
    weight_bits: int
    bias_bits: int
    value_bits: int
    bit_operations: int
    nonzero: int
    seconds: float
    outputs: Reals


@dataclass(frozen=True, eq=False)
class Answer:
    """What HGQ2 said: its version, and the epochs that none with the same beta beats in both validation and EBOPs."""

    version: str
    networks: tuple[Grown, ...]


def find_hgq2(python: str | Path) -> None:
    """Make sure that a Python has HGQ2, before there is any work.

    Raises:
        DependencyError: it has not, or is none.
    """
    looking = "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec('hgq') else 3)"
    code, _ = _run(python, "-c", looking)
    if code != 0:
        raise DependencyError(f"'{python}' has no HGQ2; accepted: a Python of its own with it, {HOW}")


def hgq2(
    network: Network,
    train: Data,
    validation: Data,
    test: npt.ArrayLike,
    training: Training,
    python: str | Path,
    betas: Sequence[float] = BETAS,
) -> Answer:
    """Train from the float weights, once for every beta.

    Args:
        network: Dense layers, convolutions without groups, max poolings and ReLUs in a row.
        train: inputs, and class numbers or rows of numbers.
        validation: the same, by which epochs are chosen.
        test: inputs whose outputs are wanted.
        training: its epochs, batch size, seed and metric. The learning rate is that of HGQ2's example, which its widths need.
        python: of the environment with HGQ2.
        betas: what an EBOP is charged.

    Raises:
        UnsupportedLayerError: the network has something else.
        DependencyError: the Python has no HGQ2, or is none.
        ModelError: HGQ2 failed; says with what.
        FileFormatError: its answer cannot be read.
    """
    find_hgq2(python)
    settings = {"epochs": training.epochs, "batch_size": training.batch_size, "seed": training.seed}
    plan = {**settings, "metric": training.metric, "betas": list(betas), "layers": list(layers_of(network))}
    given = {"train": train, "validation": validation}
    arrays: dict[str, Any] = {f"{name}_x": np.asarray(data[0], dtype=np.float32) for name, data in given.items()}
    arrays |= {f"{name}_y": _targets(data[1], training.metric) for name, data in given.items()}
    for number, (_, op) in enumerate(network.owners()):
        arrays |= {f"kernel_{number}": op.kernel, f"bias_{number}": op.bias.reshape(-1)}
    with TemporaryDirectory() as folder:
        question, answer = Path(folder) / "given.npz", Path(folder) / "answer.npz"
        np.savez(question, plan=json.dumps(plan), test_x=np.asarray(test, dtype=np.float32), **arrays)
        code, said = _run(python, str(RUNNER), str(question), str(answer))
        if code != 0:
            last = said.strip().splitlines()[-1:] or ["nothing"]
            raise ModelError(f"HGQ2 ended with status {code} and said: {last[0]}")
        return read_answer(answer)


def layers_of(network: Network) -> Iterator[dict[str, Any]]:
    """The network as plain json, without the weights.

    Raises:
        UnsupportedLayerError: it is no row of the layers that HGQ2 is trained with here.
    """
    before = network.nodes[0].name
    for node in network.nodes[1:]:
        if node.inputs != (before,) or node.shares is not None:
            raise _unsupported(node, "a layer that does not read the one before, or shares its weights")
        before = node.name
        yield _layer_of(node)


def _layer_of(node: Node) -> dict[str, Any]:
    op = node.op
    if isinstance(op, Dense):
        return {"kind": op.kind, "outputs": op.kernel.shape[-1]}
    if isinstance(op, Conv) and op.groups == 1:
        made = {"kind": op.kind, "outputs": op.kernel.shape[-1], "window": op.kernel.shape[:-2], "strides": op.strides}
        return {**made, "dilation": op.dilation, "padding": op.padding}
    if isinstance(op, MaxPool):
        return {"kind": op.kind, "window": op.pool_size, "strides": op.strides, "padding": op.padding}
    if isinstance(op, Reshape):
        return {"kind": op.kind, "shape": op.shape}
    if op.kind == "relu":
        return {"kind": op.kind}
    raise _unsupported(node, op.kind)


def _unsupported(node: Node, received: str) -> UnsupportedLayerError:
    accepted = "Dense, convolutions without groups, max poolings, ReLUs and reshapes in a row"
    return UnsupportedLayerError(node.layer or node.name, received, accepted, "leave the method hgq2 out")


def _targets(labels: Any, metric: str) -> npt.NDArray[Any]:
    found = np.asarray(labels)
    return found.astype(np.int64) if metric == "accuracy" else found.astype(np.float32)


def read_answer(file: Path) -> Answer:
    """What the runner wrote.

    Raises:
        FileFormatError: it is no such file.
    """
    try:
        with np.load(file) as arrays:
            said, outputs = json.loads(str(arrays["said"])), np.asarray(arrays["outputs"], dtype=np.float64)
        rows = [(row, part.reshape(len(part), -1)) for row, part in zip(said["rows"], outputs, strict=True)]
        return Answer(str(said["version"]), tuple(Grown(**row, outputs=part) for row, part in rows))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"the answer of HGQ2, '{file}', cannot be read ({error})") from error


def _run(python: str | Path, *arguments: str) -> tuple[int, str]:
    """Status and standard error of another Python, which sees nothing of this one's session.

    Raises:
        DependencyError: there is none.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    try:
        done = subprocess.run([python, "-W", "ignore", *arguments], capture_output=True, text=True, env=environment)
    except OSError as error:
        raise DependencyError(f"'{python}' is no Python that runs ({error}); accepted: one with HGQ2, {HOW}") from error
    return done.returncode, done.stderr
