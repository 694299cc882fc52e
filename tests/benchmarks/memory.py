"""How much memory networks on images take, stage by stage; each in a fresh process, without TensorFlow.

    python tests/benchmarks/memory.py [--cases cnn-32-sound cnn-96-sound cnn-96-local mobilenet-224-statistical ...]

A case is a network, the side of its RGB image in pixels, and a tier. `cnn`: two 3x3 convolutions of 8 filters, global average
pooling, Dense 16, Dense 2. `mobilenet`: MobileNet with a quarter of its channels, Dense 32 and 10 classes. Parameters are random
(He). 24 samples, eps 0.1. Goal: the process stays within 2 GiB. Prints the peak after every stage, and says which goal is
missed (exit code 1).
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import sound_qkeras as sq
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import AveragePool, Clip, Conv, Dense, Input, Op, Relu, Reshape
from sound_qkeras.network.ops.window import same_padding

MOST_GIBIBYTES = 2.0
# A run that asks for more bytes than this fails instead of taking the machine down.
MOST_ADDRESSES = 16 << 30
CASES = (
    *(f"cnn-{pixels}-sound" for pixels in (32, 48, 64, 96, 224)),
    *(f"{name}-{tier}" for name in ("cnn-96", "cnn-224", "mobilenet-96") for tier in ("local", "statistical")),
    "mobilenet-224-statistical",
)
# Strides and channels of MobileNet's separable convolutions, before its channels are divided by four.
SEPARABLE = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *((1, 512),) * 5, (2, 1024), (1, 1024))


class _Builder:
    """A chain of operations on an RGB image."""

    def __init__(self, pixels: int) -> None:
        self.rng = np.random.default_rng(0)
        self.shape: tuple[int, ...] = (pixels, pixels, 3)
        self.nodes = [Node("x", Input(self.shape), (), "x")]

    def add(self, op: Op) -> None:
        name = f"{op.kind}_{len(self.nodes)}"
        self.nodes.append(Node(name, op, (self.nodes[-1].name,), name))
        self.shape = op.output_shape(self.shape)

    def kernel(self, *shape: int) -> np.ndarray:
        kernel = self.rng.normal(size=shape) * np.sqrt(2.0 / np.prod(shape[:-1]))
        return kernel.astype(np.float32).astype(np.float64)

    def conv(self, size: int, filters: int, stride: int, activation: Op, *, depthwise: bool = False) -> None:
        channels, ones = self.shape[-1], (1, 1)
        outputs, groups = (channels, channels) if depthwise else (filters, 1)
        padding = same_padding(self.shape[:-1], (size, size), (stride, stride), ones)
        kernel = self.kernel(size, size, channels // groups, outputs)
        geometry = {"strides": (stride, stride), "dilation": ones, "padding": padding, "groups": groups}
        self.add(Conv(kernel, np.zeros(outputs), input_shape=self.shape, **geometry))
        self.add(activation)

    def pool(self) -> None:
        sizes = self.shape[:-1]
        self.add(AveragePool.of(self.shape, sizes, sizes, ((0, 0), (0, 0))))
        self.add(Reshape(self.shape, self.shape[-1:]))

    def dense(self, units: int) -> None:
        self.add(Dense(self.kernel(self.shape[-1], units), np.zeros(units)))


def cnn(pixels: int) -> Network:
    """The small network."""
    made = _Builder(pixels)
    made.conv(3, 8, 1, Relu())
    made.conv(3, 8, 1, Relu())
    made.pool()
    made.dense(16)
    made.add(Relu())
    made.dense(2)
    return Network(tuple(made.nodes))


def mobilenet(pixels: int) -> Network:
    """MobileNet's layers, normalisations folded, with a hidden Dense layer as classifiers on top of it have one."""
    made = _Builder(pixels)
    made.conv(3, 8, 2, Clip(6.0))
    for stride, filters in SEPARABLE:
        made.conv(3, 0, stride, Clip(6.0), depthwise=True)
        made.conv(1, filters // 4, 1, Clip(6.0))
    made.pool()
    made.dense(32)
    made.add(Relu())
    made.dense(10)
    return Network(tuple(made.nodes))


def measure(case: str, effort: str) -> dict[str, object]:
    """The peak of this process in GiB after every stage."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    name, pixels, tier = case.split("-")
    network = {"cnn": cnn, "mobilenet": mobilenet}[name](int(pixels))
    samples = np.random.default_rng(1).random((24, *network.input_shape))
    options = {} if tier == "sound" else {"tier": tier, "samples": samples}
    if tier == "local":
        options["radius"] = 1e-3
    # A stage's peak is known when the next one starts; "read" comes first.
    stages: dict[str, float] = {}
    last = "import"

    def progress(stage: str, fraction: float) -> None:
        nonlocal last
        stages[last] = _peak()
        last = stage

    started = time.perf_counter()
    result = sq.quantize(
        network, 0.1, (0.0, 1.0), effort=float(effort) if effort[0].isdigit() else effort, progress=progress, **options
    )
    return {
        "gibibytes": _peak(),
        "seconds": time.perf_counter() - started,
        "bits": result.cost.weight_bits,
        "bound": result.certificate.bound,
        "ended_by": result.ended_by,
        "stages": stages,
    }


def _peak() -> float:
    # Of this program alone: `ru_maxrss` begins with what the process that started it had.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20  # KiB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.effort)))
        return 0
    missed = []
    for case in options.cases:
        line = [sys.executable, __file__, "--one", case, "--effort", options.effort]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{case:28} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            missed.append(case)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        stages = ", ".join(f"{stage} {peak:.2f}" for stage, peak in found["stages"].items())
        print(f"{case:28} {found['gibibytes']:.2f} GiB  {found['seconds']:6.1f} s  ({stages})", flush=True)
        if found["gibibytes"] > MOST_GIBIBYTES:
            missed.append(case)
    print(f"missed: {', '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
