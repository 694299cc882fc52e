"""What a claim that is weaker than the sound one rests on: boxes around samples, or samples that were never looked at.

Overflow is no part of it: in every tier the ranges are proved over the whole box.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import FileFormatError, InputError, VerificationError
from sound_qkeras.fixed_point import from_codes, to_grid
from sound_qkeras.interval import Interval, Reals, down, up
from sound_qkeras.network import Network, Pair
from sound_qkeras.support.decimals import at_most
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.binomial import shared, upper_limit
from sound_qkeras.verify.proof import MARGIN, bound_boxes
from sound_qkeras.verify.propagation import propagate

# What a result is compared with: the trained network in exact arithmetic, or evaluated in float64.
REAL, FLOAT64 = "real", "float64"
# What every tier says about all inputs.
NO_OVERFLOW = "for any x in the box no value overflows, except that results saturate where formats are marked so"
# By so much float64 evaluations on two machines may differ, relative to the largest result.
SLACK = 2.0**-36
# Calibration samples that decide what errors are measured against, and the share of the tolerance that an enclosure may take.
REFERENCE_SAMPLES, REFERENCE_SHARE = 16, 1.0 / 16


@dataclass(frozen=True, eq=False)
class Evidence(ABC):
    """Base of the evidence of single tiers.

    Args:
        samples: inputs in the box, shape `(n, *input_shape)`.
    """

    tier: ClassVar[str]
    samples: Reals

    @property
    @abstractmethod
    def claim(self) -> str:
        """What is claimed, in one sentence."""

    @abstractmethod
    def bounds_of(self, eps: Reals) -> Reals:
        """The bound of every output that the claim is about, shape `(outputs,)`."""

    @abstractmethod
    def check(self, pair: Pair, box: Interval, eps: Reals) -> None:
        """Find all of it again.

        Raises:
            VerificationError: something does not hold.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All but the arrays, and a hash that binds them."""

    @abstractmethod
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, samples first."""

    def _head(self) -> dict[str, Any]:
        return {"samples": len(self.samples), "sha256": hash_of(self.arrays())}


@dataclass(frozen=True, eq=False)
class Local(Evidence):
    """Every output is proved to be within the tolerance on boxes around some of the samples.

    Args:
        samples: their centres.
        radius: half the boxes' width, in units of the input; what reaches beyond the box is cut off.
        bounds: the bound proved on each box, shape `(n, outputs)`.
    """

    tier: ClassVar[str] = "local"
    radius: float
    bounds: Reals

    @classmethod
    def prove(cls, pair: Pair, box: Interval, samples: Reals, radius: float) -> Local:
        """Bound the error on every box."""
        bounds = bound_boxes(pair, around(box, samples, radius))
        return cls(samples, radius, bounds * (1.0 + MARGIN))

    def certified(self, eps: Reals) -> npt.NDArray[np.bool_]:
        """Whether each box is proved to stay within the tolerance."""
        return np.all(self.bounds <= eps, axis=1)

    @property
    def claim(self) -> str:
        """What is claimed."""
        return (
            f"for every x in the box within {float(self.radius)!r} of a certified one of {len(self.samples)} samples, "
            f"|f_q(x)_k - f(x)_k| <= output_bounds[k] <= eps[k]; {NO_OVERFLOW}"
        )

    def bounds_of(self, eps: Reals) -> Reals:
        """Largest over the certified samples."""
        return self.bounds[self.certified(eps)].max(axis=0, initial=0.0)

    def check(self, pair: Pair, box: Interval, eps: Reals) -> None:
        """Prove every box again."""
        if self.bounds.shape != (len(self.samples), eps.size) or not 0.0 <= self.radius < np.inf:
            raise VerificationError("there is not one bound for each sample and output, or the radius is no distance")
        if not np.any(self.certified(eps)):
            raise VerificationError("no sample is certified, so nothing is claimed")
        found = bound_boxes(pair, around(box, self.samples, self.radius))
        if found.shape != self.bounds.shape:
            raise VerificationError(f"bounds of {len(found)} of {len(self.samples)} boxes were proved again")
        beyond = np.argwhere(~(found <= self.bounds))
        if beyond.size:
            n, k = map(int, beyond[0])
            raise VerificationError(
                f"sample {n}, output {k}: the proved bound is {found[n, k]:.9g}, the certificate claims {self.bounds[n, k]:.9g}"
            )

    def to_json(self) -> dict[str, Any]:
        """Radius and hash."""
        return {**self._head(), "radius": self.radius}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Samples and bounds."""
        return {"samples": self.samples, "bounds": self.bounds}


@dataclass(frozen=True, eq=False)
class Statistical(Evidence):
    """With a stated confidence, the error of an input drawn like the samples exceeds the tolerance at most so often.

    Args:
        samples: independent inputs that no choice depended on, but for that of one network of at most `looks`.
        failures: how many of them exceed the tolerance, or may do so.
        confidence: of the claim.
        calibration_samples: how many calibration samples the choice of formats depended on.
        reference: what the trained network's results are: "real", enclosed in exact arithmetic, or "float64", as computed.
        looks: how many networks the samples could choose from; the limit holds for all of them at once.
    """

    tier: ClassVar[str] = "statistical"
    failures: int
    confidence: float
    calibration_samples: int
    reference: str
    looks: int = 1

    @classmethod
    def count(
        cls,
        pair: Pair,
        samples: Reals,
        eps: Reals,
        confidence: float,
        calibration_samples: int,
        reference: str = REAL,
        looks: int = 1,
    ) -> Statistical:
        """Evaluate the held-out samples, against a reference that does not depend on them."""
        found = cls(samples, 0, confidence, calibration_samples, reference, looks)
        return replace(found, failures=found.failures_of(pair, eps))

    def failures_of(self, pair: Pair, eps: Reals) -> int:
        """How many of the samples exceed a tolerance in a network, or may do so."""
        return int(np.sum(np.any(error_limits(pair, self.samples, self.reference) > eps, axis=1)))

    @property
    def probability(self) -> float:
        """The exact binomial limit of the share of inputs whose error exceeds the tolerance."""
        return upper_limit(self.failures, len(self.samples), shared(self.confidence, self.looks))

    @property
    def claim(self) -> str:
        """What is claimed."""
        return (
            f"with confidence {float(self.confidence)!r}, an input drawn like the {len(self.samples)} held-out samples"
            f"{f', which chose one of at most {self.looks} networks,' if self.looks > 1 else ''} violates "
            f"|f_q(x)_k - f(x)_k| <= eps[k] with probability at most {at_most(self.probability, 6)}"
            f"{', with f as float64 evaluates it' if self.reference == FLOAT64 else ''}; {NO_OVERFLOW}"
        )

    def bounds_of(self, eps: Reals) -> Reals:
        """The tolerance itself."""
        return eps

    def check(self, pair: Pair, box: Interval, eps: Reals) -> None:
        """Count again."""
        if self.reference not in {REAL, FLOAT64}:
            raise VerificationError(f"reference '{self.reference}' is unknown; accepted: {REAL}, {FLOAT64}")
        check_input_bits(self.samples, pair.input_bits)
        counts = 0 <= self.failures <= len(self.samples) and self.calibration_samples >= 0
        if not (counts and 0.0 < self.confidence < 1.0 and self.looks >= 1):
            raise VerificationError("the counts or the confidence make no sense")
        found = self.failures_of(pair, eps)
        if found > self.failures:
            raise VerificationError(
                f"{found} of {len(self.samples)} samples exceed the tolerance, the certificate claims {self.failures}"
            )

    def to_json(self) -> dict[str, Any]:
        """Counts, confidence and hash."""
        counted = {
            "failures": self.failures,
            "confidence": self.confidence,
            "calibration_samples": self.calibration_samples,
        }
        looks = {} if self.looks == 1 else {"looks": self.looks}
        return {**self._head(), **counted, **looks, "reference": self.reference, "probability": self.probability}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The samples."""
        return {"samples": self.samples}


def around(box: Interval, samples: Reals, radius: float) -> Interval:
    """The boxes around samples, cut off at the ends of `box`, shape `(n, *input_shape)`."""
    lower, upper = (np.clip(end, box.lower, box.upper) for end in (down(samples - radius), up(samples + radius)))
    return Interval(lower, upper)


def error_limits(pair: Pair, samples: Reals, reference: str = REAL) -> Reals:
    """Upper limits of `|f_q(x) - f(x)|` at samples, shape `(n, outputs)`.

    Args:
        pair: the pair of networks.
        samples: shape `(n, *input_shape)`.
        reference: "real" encloses the trained network in intervals; "float64" evaluates it, and adds what another order of
            summation may change.
    """
    if not pair.has_integers:
        return np.concatenate(over_batches(_point_errors, pair, Interval.point(samples)))
    name, bits = pair.network.output.name, pair.fractional_bits[pair.network.output.name]
    found: list[Reals] = []
    for tile in pair.network.tiles(samples):
        codes = pair.simulate_all(tile)[name].reshape(len(tile), -1)
        # Codes beyond 53 bits are rounded when they become numbers.
        value = from_codes(codes, bits)
        exact = Interval(down(value), up(value)) if codes.dtype != np.float64 else Interval.point(value)
        trained = _enclosed(pair.reference, tile) if reference == REAL else _evaluated(pair.reference, tile)
        found.append((exact - trained).magnitude)
    return np.concatenate(found)


def _point_errors(pair: Pair, points: Interval) -> Reals:
    """The same where the subject has no integers: both networks are enclosed."""
    difference = propagate(pair.network, points, pair, substitute=False).facts[pair.network.output.name].pair()[2]
    return difference.magnitude.reshape(points.shape[0], -1)


def reference_for(network: Network, calibration: Reals, eps: Reals) -> str:
    """What errors can be measured against: "real" where enclosures of the trained network are far narrower than the tolerance.

    Those of very deep networks are wider than any error; "float64" then says what the claim is about. Ask it of samples that
    guide the choice of formats: what the held-out ones show must not decide what is counted on them.
    """
    some = calibration[:REFERENCE_SAMPLES]
    widths = np.concatenate(
        [(value.upper - value.lower) for value in (_enclosed(network, t) for t in network.tiles(some))]
    )
    return REAL if np.all(widths <= REFERENCE_SHARE * eps) else FLOAT64


def _enclosed(network: Network, samples: Reals) -> Interval:
    parts = over_batches(_outputs, network, Interval.point(samples))
    return Interval(*(np.concatenate([getattr(part, end) for part in parts]) for end in ("lower", "upper")))


def _evaluated(network: Network, samples: Reals) -> Interval:
    value = network.evaluate(samples).reshape(len(samples), -1)
    return Interval.point(value).widened(SLACK * np.abs(value).max(axis=1, keepdims=True))


def _outputs(network: Network, boxes: Interval) -> Interval:
    value = propagate(network, boxes, substitute=False).facts[network.output.name].value
    return value.mapped(lambda end: end.reshape(len(end), -1))


def hash_of(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names, shapes and numbers."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, str(array.dtype), array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def outside_of(samples: Reals, box: Interval) -> npt.NDArray[np.bool_]:
    """Which samples `(n, *input_shape)` are not in the box."""
    return ~np.all(((box.lower <= samples) & (samples <= box.upper)).reshape(len(samples), -1), axis=1)


def check_samples(samples: Any, box: Interval) -> Reals:
    """Samples as an array that lies in the box.

    Raises:
        InputError: there is none, the shape is wrong, or one is outside.
    """
    try:
        array = np.asarray(samples, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the samples are not made of numbers: received {type(samples).__name__}") from error
    if array.shape[1:] != box.shape or len(array) == 0:
        raise InputError(f"the samples have shape {array.shape}; accepted: (n, {', '.join(map(str, box.shape))})")
    outside = outside_of(array, box)
    if np.any(outside):
        raise InputError(
            f"{np.sum(outside)} of {len(array)} samples are not in the box, number {np.argmax(outside)} first; widen the box"
        )
    return array


def check_input_bits(samples: Reals, bits: int | None) -> None:
    """Samples must have the fractional bits that inputs are taken to have.

    Raises:
        InputError: one has more.
    """
    if bits is None:
        return
    finer = np.any((from_codes(to_grid(samples, bits), bits) != samples).reshape(len(samples), -1), axis=1)
    if np.any(finer):
        raise InputError(
            f"{np.sum(finer)} of {len(samples)} samples have more than {bits} fractional bits, number {np.argmax(finer)} first; "
            "accepted: inputs as input_bits says they are, or another input_bits"
        )


def from_json(
    tier: str, data: Mapping[str, Any] | None, arrays: Mapping[str, npt.NDArray[Any]], outputs: int
) -> Evidence | None:
    """Read what `to_json` and `arrays` gave.

    Raises:
        FileFormatError: the arrays are not those of the json, or have other shapes.
        KeyError, TypeError, ValueError: a part is missing or of the wrong type.
    """
    if data is None:
        return None
    if tier not in {Local.tier, Statistical.tier}:
        raise ValueError(f"tier '{tier}' with evidence {data}")
    if data["sha256"] != hash_of(arrays) or data["samples"] != len(arrays["samples"]):
        raise FileFormatError("the samples are not those of the certificate: the hash differs")
    samples = arrays["samples"]
    if samples.ndim < 2 or not np.all(np.isfinite(samples)):
        raise FileFormatError(f"the samples have shape {samples.shape} or hold what is no number")
    if tier == Local.tier:
        bounds = arrays["bounds"]
        if bounds.shape != (len(samples), outputs):
            raise FileFormatError(
                f"the bounds of {len(samples)} samples and {outputs} outputs have shape {bounds.shape}"
            )
        return Local(samples, float(data["radius"]), bounds)
    counts = int(data["failures"]), float(data["confidence"]), int(data["calibration_samples"])
    return Statistical(samples, *counts, str(data["reference"]), int(data.get("looks", 1)))
