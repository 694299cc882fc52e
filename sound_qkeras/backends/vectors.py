"""Test vectors for the exported code: corners, rounding ties, zero and random points of the box."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.backends.tensors import Plan
from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.fixed_point import Codes, Format, round_integers, scaled
from sound_qkeras.network.simulate import simulate_codes
from sound_qkeras.types import Reals

CORNERS = 64
TIES = 64
# Random samples when the user does not say: this many input values in all, within these bounds.
DEFAULT_VALUES, DEFAULT_LEAST, DEFAULT_MOST = 65536, 32, 256


@dataclass(frozen=True)
class Vectors:
    """Samples in the box with the codes they round to and the output codes they must give, one flat row per sample."""

    inputs: Reals
    input_codes: Codes
    output_codes: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.inputs)


def check_box(plan: Plan, box: tuple[npt.ArrayLike, npt.ArrayLike]) -> tuple[Reals, Reals]:
    """The box as two float64 arrays of the input's shape.

    Raises:
        InputError: a bound is missing, not finite, out of order, of another shape, or outside the input's format.
    """
    shape = plan.input.shape
    if not isinstance(box, tuple) or len(box) != 2:
        raise InputError("box is a pair (lower, upper) of arrays")
    lower, upper = (np.asarray(bound, dtype=np.float64) for bound in box)
    if lower.shape != shape or upper.shape != shape:
        raise InputError(f"box bounds have shapes {lower.shape} and {upper.shape}, expected the input's shape {shape}")
    if not np.all(np.isfinite(lower) & np.isfinite(upper) & (lower <= upper)):
        raise InputError("box bounds must be finite, lower at most upper")
    output = plan.input.format
    if plan.input.grid is None and not plan.input.saturated and not output.contains(lower, upper):
        raise InputError(
            f"the box reaches from {lower.min()} to {upper.max()}, the input format {output} from {output.minimum} to "
            f"{output.maximum}: inputs would overflow; export with the box the formats were proved for"
        )
    return lower, upper


def make_vectors(plan: Plan, lower: Reals, upper: Reals, count: int | None = None, seed: int = 0) -> Vectors:
    """Samples in the box, `count` of them random, and with a guarded input some outside, with the codes they must give.

    Raises:
        VerificationError: a sample inside the box overflows a type: the ranges the network claims are wrong.
    """
    rng = np.random.default_rng(seed)
    if count is None:
        count = int(np.clip(DEFAULT_VALUES // plan.input.size, DEFAULT_LEAST, DEFAULT_MOST))
    samples = np.concatenate(list(_inside(plan, lower.reshape(-1), upper.reshape(-1), count, rng)))
    overflow = _overflowing(plan, samples)
    if overflow:
        raise VerificationError(
            f"layer '{overflow}': a sample inside the box overflows its type; its proved range is not this box's",
            layer_name=overflow,
        )
    if plan.input.saturated:
        outside = [row[None] for row in _outside(plan, rng) if not _overflowing(plan, row[None])]
        samples = np.concatenate([samples, *outside])
    output = simulate_codes(plan.pair, samples.reshape(-1, *plan.input.shape))
    first, bits = plan.pair.network.nodes[0].name, plan.input.format.fractional_bits
    rounded = plan.pair.roundings[first].apply(samples.reshape(-1, *plan.input.shape)).reshape(samples.shape)
    return Vectors(samples, scaled(rounded, bits).astype(np.int64), output.reshape(len(samples), -1))


def _inside(plan: Plan, low: Reals, high: Reals, count: int, rng: np.random.Generator) -> Iterator[Reals]:
    size = low.size
    yield np.stack([low, high, 0.5 * low + 0.5 * high])
    if np.all((low <= 0.0) & (high >= 0.0)):
        yield np.zeros((1, size))
    if 2**size <= CORNERS:
        picks = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    else:
        picks = rng.integers(0, 2, (min(CORNERS, count), size))
    yield np.where(picks == 1, high, low)
    points = np.clip(low + (high - low) * rng.random((count, size)), low, high)
    step = plan.input.format.step
    yield np.clip((np.floor(points[:TIES] / step) + 0.5) * step, low, high)
    yield points


def _outside(plan: Plan, rng: np.random.Generator) -> Reals:
    """Samples far and barely outside the input format."""
    output = plan.input.format
    span = output.maximum - output.minimum + output.step
    far = output.minimum + span * rng.uniform(-2.0, 3.0, (32, plan.input.size))
    ends = np.array([output.minimum - 0.75 * output.step, output.maximum + 0.75 * output.step, -1e300, 1e300])
    return np.concatenate([far, np.repeat(ends[:, None], plan.input.size, axis=1)])


def _overflowing(plan: Plan, samples: Reals) -> str:
    """The first layer in which a value does not fit its type, or nothing.

    Where everything fits, saturating as QKeras does and wrapping as the exported code does are the same.
    """
    tiles = plan.pair.network.tiles(samples.reshape(-1, *plan.input.shape))
    return next((name for tile in tiles if (name := _overflowing_in(plan, tile))), "")


def _overflowing_in(plan: Plan, samples: Reals) -> str:
    pair = plan.pair
    codes = pair.simulate_all(samples)
    for node in pair.network.nodes[1:]:
        exact = pair.exact_result(node, codes)
        tensor = plan.tensors[node.name]
        shift = tensor.format.fractional_bits - pair.exact_bits[node.name]
        rounded = round_integers(exact, shift)
        accumulator = pair.accumulators.get(node.name)
        wraps = tensor.grid is None and not tensor.saturated and not _fits(rounded, tensor.format)
        if wraps or not (accumulator is None or _fits(exact, accumulator)):
            return node.layer or node.name
    return ""


def _fits(codes: npt.NDArray[Any], output: Format) -> bool:
    return bool(np.all((codes >= output.min_code) & (codes <= output.max_code)))


def inputs_table(vectors: Vectors) -> str:
    """`inputs.dat`: a line with the counts, then per sample and input the code and the real number, exactly."""
    rows = (
        " ".join(f"{code} {_hex(real)}" for code, real in zip(codes, reals, strict=True))
        for codes, reals in zip(vectors.input_codes.tolist(), vectors.inputs.tolist(), strict=True)
    )
    return _table(vectors.input_codes, rows)


def _hex(real: float) -> str:
    """The exact real number, without trailing zeros."""
    return re.sub(r"\.?0+p", "p", real.hex())


def expected_table(vectors: Vectors) -> str:
    """`expected.dat`: a line with the counts, then the output codes of each sample."""
    return _table(vectors.output_codes, (" ".join(map(str, codes)) for codes in vectors.output_codes.tolist()))


def _table(codes: npt.NDArray[Any], rows: Iterator[str]) -> str:
    return "\n".join([f"{codes.shape[0]} {codes.shape[1]}", *rows]) + "\n"
