"""The checker is itself tested: every seeded fault is refused, for its own reason.

The claim under attack cannot be improved: the error of output 0 reaches its bound (see `tight`), every format is the
narrowest that holds its range. Faults that a hash gives away are tried again with the hashes made right, so that the
proof itself has to refuse them; where the fault makes the claim false, the tests show that it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from sound_qkeras.errors import FileFormatError, InputError, ModelError, SoundQKerasError, VerificationError
from sound_qkeras.exact.proof import exact_error
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.verify.certificate import Certificate, make_certificate
from sound_qkeras.verify.checker import check
from sound_qkeras.verify.proof import prove
from sound_qkeras.verify.split_tree import SplitTree

from ..networks import random_network
from .tight import tight
from .twins import round_to_codes, twin

TREE = SplitTree((0, 1, -1, -1, 2, -1, -1))
AFFINE = ("a", "b")
REFUSED = (VerificationError, FileFormatError, ModelError)


@dataclass(frozen=True)
class Claim:
    """A pair of networks, what is claimed about it, and the point where its first bound is reached."""

    pair: Pair
    certificate: Certificate
    worst: np.ndarray

    def check(self) -> None:
        check(self.pair, self.certificate)

    def is_false(self) -> bool:
        """Whether the error at the point exceeds the claimed bound, or a value leaves its claimed range."""
        errors = exact_error(self.pair, self.worst)
        return any(abs(e) > Fraction(b) for e, b in zip(errors, self.certificate.output_bounds, strict=True))

    def saying(self, **changed: Any) -> Claim:
        """Another certificate."""
        return replace(self, certificate=replace(self.certificate, **changed))

    def having(self, quantized: Pair) -> Claim:
        """Another network; the hashes stay those of the old one."""
        return replace(self, pair=quantized)

    def with_codes(self, name: str, **changed: Any) -> Claim:
        """Other integers for one layer."""
        codes = replace(self.pair.parameters[name], **changed)
        return self.having(replace(self.pair, parameters={**self.pair.parameters, name: codes}))

    def bare(self) -> Claim:
        """Without accumulators, whose formats depend on the integers' ones."""
        return self.having(replace(self.pair, accumulators={}))

    def with_float(self, name: str, **changed: Any) -> Claim:
        """Other float parameters for one layer."""
        network = self.pair.reference
        op: Any = network.by_name[name].op
        nodes = tuple(replace(n, op=replace(op, **changed)) if n.name == name else n for n in network.nodes)
        return self.having(replace(self.pair, reference=Network(nodes)))

    def rehashed(self) -> Claim:
        """The certificate names the network it stands beside."""
        return self.saying(weight_hash=self.pair.reference.weight_hash, code_hash=self.pair.code_hash)

    def reformatted(self) -> Claim:
        """Formats, accumulators, ranges and hashes are remade for the network; the bound is the old one."""
        bits = {name: output.fractional_bits for name, output in self.pair.formats.items()}
        network, parameters = self.pair.network, dict(self.pair.parameters)
        remade = twin(network, parameters, bits, self.certificate.box, self.certificate.tree)
        found = make_certificate(remade, self.certificate.box, self.certificate.eps, self.certificate.tree)
        return self.having(remade).saying(ranges=found.ranges).rehashed()


@pytest.fixture(scope="module")
def claim() -> Claim:
    found = tight(0)
    quantized = twin(found.pair.network, dict(found.pair.parameters), {"x": 4, "a_relu": 4}, found.box, TREE)
    bound = make_certificate(quantized, found.box, np.ones(2), TREE).output_bounds
    return Claim(quantized, make_certificate(quantized, found.box, bound * (1 + 1e-9), TREE), found.worst)


@pytest.fixture(scope="module")
def unstable() -> Claim:
    """A pair with ReLUs whose sign is open, so that its bound needs every leaf of its tree."""
    rng = np.random.default_rng(3)
    network = random_network(rng, (3, 8, 8, 2))
    codes: Any = {node.name: round_to_codes(op, 5, 9, rng, False) for node, op in network.affine()}  # type: ignore[arg-type]
    box, tree = Interval(-np.ones(3), np.ones(3)), SplitTree((0, 1, -1, 2, -1, -1, 1, 0, -1, -1, -1))
    quantized = twin(network, codes, dict.fromkeys(network.rounding_points, 6), box, tree)
    certificate = make_certificate(quantized, box, np.full(2, 10.0), tree)
    return Claim(quantized, certificate, box.upper)


def test_the_claims_are_accepted_as_they_are(claim, unstable):
    claim.check()
    unstable.check()
    claim.reformatted().check()
    assert not claim.is_false()


def test_the_first_bound_cannot_be_lowered(claim):
    error = abs(exact_error(claim.pair, claim.worst)[0])
    assert error >= Fraction(claim.certificate.output_bounds[0]) * (1 - Fraction(1, 5 * 10**8))


def test_what_is_recorded_is_a_little_more_than_what_is_proved(claim):
    """Another machine, which rounds differently, has to be able to prove it too."""
    check(claim.pair, claim.certificate)
    proof = prove(claim.pair, claim.certificate.box, claim.certificate.tree)
    assert np.all(claim.certificate.output_bounds > proof.output_bounds)
    for name, (low, high) in proof.ranges.items():
        claimed = claim.certificate.ranges[name]
        assert claimed[0] < low <= high < claimed[1] or low == high == 0.0


# What is said.


def set_at(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    """A copy with one element changed."""
    copy = np.array(array)
    copy[index] = value
    return copy


def narrower(output: Format) -> Format:
    """One bit less on the left."""
    return Format(output.word_length - 1, output.integer_bits - 1, output.signed)


def range_of(claim: Claim, name: str, low: float, high: float) -> dict[str, Any]:
    """One range moved: `low` and `high` are parts of its larger end, added to the ends."""
    ends = claim.certificate.ranges[name]
    size = max(map(abs, ends))
    return {**claim.certificate.ranges, name: (ends[0] + low * size, ends[1] + high * size)}


def bounds(claim: Claim, factor: Any) -> np.ndarray:
    return claim.certificate.output_bounds * factor


def box(claim: Claim, lower: Any = 0.0, upper: Any = 0.0) -> Interval:
    """The box with its ends moved."""
    return Interval(claim.certificate.box.lower + lower, claim.certificate.box.upper + upper)


SAID: dict[str, tuple[Callable[[Claim], Claim], str]] = {
    "bound rounded inward": (lambda c: c.saying(output_bounds=bounds(c, 1 - 1e-2)), "output 0: the proved bound"),
    "bound inward by one part in 1e8": (
        lambda c: c.saying(output_bounds=bounds(c, 1 - 1e-8)),
        "output 0: the proved bound",
    ),
    "last bound inward": (lambda c: c.saying(output_bounds=bounds(c, [1, 1 - 1e-8])), "output 1: the proved bound"),
    "bounds of the outputs swapped": (
        lambda c: c.saying(output_bounds=bounds(c, 1)[::-1], eps=np.ones(2)),
        "the proved bound",
    ),
    "bound zero": (lambda c: c.saying(output_bounds=bounds(c, 0)), "output 0: the proved bound"),
    "bound negative": (lambda c: c.saying(output_bounds=bounds(c, -1)), "output 0: the proved bound"),
    "bound NaN": (lambda c: c.saying(output_bounds=bounds(c, [1, np.nan])), "exceeds the tolerance"),
    "bound and eps NaN": (
        lambda c: c.saying(output_bounds=bounds(c, np.nan), eps=np.full(2, np.nan)),
        "exceeds the tolerance",
    ),
    "bounds missing": (lambda c: c.saying(output_bounds=bounds(c, 1)[:0], eps=np.ones(0)), "malformed"),
    "one bound for two outputs": (lambda c: c.saying(output_bounds=bounds(c, 1)[:1]), "one bound for each of 2"),
    "eps for one output": (lambda c: c.saying(eps=np.ones(1)), "one bound for each of 2"),
    "bounds as a matrix": (lambda c: c.saying(output_bounds=bounds(c, 1)[None]), "one bound for each of 2"),
    "eps lowered": (lambda c: c.saying(eps=c.certificate.eps * (1 - 1e-8)), "exceeds the tolerance"),
    "eps of one output lowered": (lambda c: c.saying(eps=c.certificate.eps * [1, 0.5]), "exceeds the tolerance"),
    "eps NaN": (lambda c: c.saying(eps=np.full(2, np.nan)), "exceeds the tolerance"),
    "box a step larger": (lambda c: c.saying(box=box(c, upper=2.0**-4)), "the proved bound"),
    "box larger by one part in 1e6": (
        lambda c: c.saying(box=box(c, -1e-6, 1e-6)),
        "the proved bound|the certificate claims",
    ),
    "box larger at one input": (lambda c: c.saying(box=box(c, lower=[0, 0, -1.0])), "output: values reach"),
    "box empty": (
        lambda c: c.saying(box=Interval(c.certificate.box.upper, c.certificate.box.lower)),
        "not finite, or empty",
    ),
    "box empty at one input": (lambda c: c.saying(box=box(c, lower=[0, 9.0, 0])), "not finite, or empty"),
    "box NaN": (lambda c: c.saying(box=box(c, upper=[0, np.nan, 0])), "not finite, or empty"),
    "box all NaN": (lambda c: c.saying(box=box(c, np.nan, np.nan)), "not finite, or empty"),
    "box infinite": (lambda c: c.saying(box=box(c, -np.inf, np.inf)), "not finite, or empty"),
    "box of another shape": (lambda c: c.saying(box=Interval(np.zeros(2), np.ones(2))), "shape"),
    "box of scalars": (lambda c: c.saying(box=Interval(np.array(0.0), np.array(0.0))), "shape"),
    "box with ends of two shapes": (lambda c: c.saying(box=Interval(np.zeros(3), np.array(0.0))), "shape"),
    "tier renamed": (lambda c: c.saying(tier="exact"), "tier 'exact' is not"),
    "tier empty": (lambda c: c.saying(tier=""), "tier '' is not"),
    "tree truncated": (lambda c: c.saying(tree=SplitTree(TREE.axes[:-1])), "uncovered"),
    "tree empty": (lambda c: c.saying(tree=SplitTree(())), "uncovered"),
    "leaf dropped": (lambda c: c.saying(tree=SplitTree((0, 1, -1, 2, -1, -1))), "uncovered"),
    "leaf too many": (lambda c: c.saying(tree=SplitTree((*TREE.axes, -1))), "malformed"),
    "axis out of range": (lambda c: c.saying(tree=SplitTree((3, -1, -1))), "malformed"),
    "axis far out of range": (lambda c: c.saying(tree=SplitTree((10**9, -1, -1))), "malformed"),
    "axis below the mark of a leaf": (lambda c: c.saying(tree=SplitTree((0, -2, -1))), "malformed"),
    "axis between two": (lambda c: c.saying(tree=SplitTree((0.5, -1, -1))), "malformed"),
    "axis NaN": (lambda c: c.saying(tree=SplitTree((float("nan"), -1, -1))), "malformed"),  # type: ignore[arg-type]
    "float weights' hash stale": (lambda c: c.saying(weight_hash="0" * 64), "float weights are not those"),
    "hashes swapped": (
        lambda c: c.saying(weight_hash=c.certificate.code_hash, code_hash=c.certificate.weight_hash),
        "float weights are not those",
    ),
    "integers' hash stale": (lambda c: c.saying(code_hash=""), "integers and formats are not those"),
    "ranges missing": (lambda c: c.saying(ranges={}), "the certificate claims None"),
    "ranges of a smaller box": (
        lambda c: c.saying(ranges=make_certificate(c.pair, box(c, 0.1, -0.1), np.ones(2), TREE).ranges),
        "the certificate claims",
    ),
}


@pytest.mark.parametrize("fault", SAID)
def test_a_false_statement_is_refused(claim, fault):
    change, reason = SAID[fault]
    with pytest.raises(VerificationError, match=reason):
        change(claim).check()


@pytest.mark.parametrize("name", ["x", "a", "a_relu", "b"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c, name: range_of(c, name, 1e-8, 0.0), "the certificate claims"),
        (lambda c, name: range_of(c, name, 0.0, -1e-8), "the certificate claims"),
        (lambda c, name: range_of(c, name, 0.0, -3.0), "the certificate claims"),
        (lambda c, name: {**c.certificate.ranges, name: (np.nan, np.nan)}, "the certificate claims"),
        (lambda c, name: {**c.certificate.ranges, name: c.certificate.ranges[name][::-1]}, "the certificate claims"),
        (lambda c, name: {k: v for k, v in c.certificate.ranges.items() if k != name}, "the certificate claims None"),
        (lambda c, name: {**c.certificate.ranges, name: (-np.inf, np.inf)}, "not finite"),
        (lambda c, name: {**c.certificate.ranges, name: (-1e300, 1e300)}, "its format holds"),
        (lambda c, name: range_of(c, name, 0.0, 1.1), "its format holds"),
        (lambda c, name: range_of(c, name, -3.0, 0.0), "its format holds"),
    ],
    ids=["low inward", "high inward", "empty", "NaN", "reversed", "missing", "infinite", "huge", "above", "below"],
)
def test_a_false_range_is_refused(claim, name, change, reason):
    with pytest.raises(VerificationError, match=reason):
        claim.saying(ranges=change(claim, name)).check()


def test_a_bound_inward_is_false_and_not_only_unproved(claim):
    assert claim.saying(output_bounds=bounds(claim, 1 - 1e-8)).is_false()
    assert claim.saying(output_bounds=bounds(claim, 1)[::-1]).is_false() or bounds(claim, 1)[0] < bounds(claim, 1)[1]


@pytest.mark.parametrize("axes", [(-1,), (0, -1, -1), (1, 2, -1, -1, -1)])
def test_a_coarser_tree_does_not_prove_the_bound_of_a_finer_one(unstable, axes):
    with pytest.raises(VerificationError, match="the proved bound"):
        unstable.saying(tree=SplitTree(axes)).check()


@pytest.mark.parametrize("axes", [(0.5, -1, -1), (0.0, -1, -1), ("0", -1, -1), (None, -1, -1)], ids=str)
def test_axes_that_are_no_integers_are_never_accepted(claim, axes):
    """A file with such axes is refused when it is read; in memory any error will do."""
    with pytest.raises((VerificationError, IndexError, TypeError)):
        claim.saying(tree=SplitTree(axes)).check()


@pytest.mark.parametrize("cut", range(1, 11))
def test_any_tree_cut_short_is_refused(unstable, cut):
    with pytest.raises(VerificationError, match="uncovered"):
        unstable.saying(tree=SplitTree(unstable.certificate.tree.axes[:cut])).check()


@pytest.mark.parametrize("at", range(11))
def test_any_element_dropped_from_a_tree_is_refused(unstable, at):
    axes = unstable.certificate.tree.axes
    with pytest.raises(VerificationError, match=r"malformed|the proved bound"):
        unstable.saying(tree=SplitTree(axes[:at] + axes[at + 1 :])).check()


# What is proved about: the hash gives it away; and where it does not, the proof does.


def nudged(claim: Claim, name: str, index: tuple[int, int], by: int) -> Claim:
    """One weight's code changed."""
    kernel = claim.pair.parameters[name].kernel
    return claim.with_codes(name, kernel=set_at(kernel, index, kernel[index] + by))


def bias_nudged(claim: Claim, name: str, index: int, by: int) -> Claim:
    """One bias' code changed."""
    bias = claim.pair.parameters[name].bias
    return claim.with_codes(name, bias=set_at(bias, index, bias[index] + by))


def next_float32(claim: Claim, name: str, which: str, index: Any, towards: float) -> Claim:
    """One float parameter changed to its neighbour."""
    array = getattr(claim.pair.network.by_name[name].op, which)
    neighbour = np.nextafter(np.float32(array[index]), np.float32(towards))
    return claim.with_float(name, **{which: set_at(array, index, float(neighbour))})


def roomy(output: Format) -> Format:
    """Two bits more on the left, and a sign."""
    return Format(output.word_length + 2 + (not output.signed), output.integer_bits + 2, True)


def with_room(claim: Claim) -> Claim:
    """The same claim in formats with room for other integers, so that nothing but the bound can be refused."""
    quantized = claim.pair
    parameters = {
        name: replace(
            c, kernel_format=Format(12, 11 - c.kernel_format.fractional_bits, True), bias_format=roomy(c.bias_format)
        )
        for name, c in quantized.parameters.items()
    }
    formats = {name: roomy(f) for name, f in quantized.formats.items()}
    sums = {name: roomy(f) for name, f in quantized.accumulators.items()}
    ranges = {
        name: (low - 0.6 * max(-low, high), high + 0.6 * max(-low, high))
        for name, (low, high) in claim.certificate.ranges.items()
    }
    made = Pair(quantized.network, parameters, formats, sums)
    return claim.having(made).saying(ranges=ranges).rehashed()


def hurting(claim: Claim, index: int) -> int:
    """The direction in which a code of the last layer's weights of output 0 makes its error larger."""
    return 1 if exact_error(claim.pair, claim.worst)[0] > 0 else -1


BUILT: dict[str, tuple[Callable[[Claim], Claim], str]] = {
    "weight of the last layer": (lambda c: nudged(c, "b", (0, 0), hurting(c, 0)), "output 0: the proved bound"),
    "last weight of the last layer": (lambda c: nudged(c, "b", (2, 0), hurting(c, 2)), "output 0: the proved bound"),
    "weight of the first layer": (lambda c: nudged(c, "a", (0, 0), 1), "the proved bound"),
    "weight that was zero": (lambda c: nudged(c, "a", (0, 1), 1), "the proved bound"),
    "bias of the last layer": (lambda c: bias_nudged(c, "b", 0, hurting(c, 0)), "output 0: the proved bound"),
    "bias of the first layer": (lambda c: bias_nudged(c, "a", 1, 8), "the proved bound"),
    "integers of the outputs swapped": (
        lambda c: c.with_codes(
            "b", kernel=c.pair.parameters["b"].kernel[:, ::-1], bias=c.pair.parameters["b"].bias[::-1]
        ),
        "the proved bound",
    ),
    "integers of hidden units swapped": (
        lambda c: c.with_codes("a", kernel=c.pair.parameters["a"].kernel[:, ::-1]),
        "the proved bound",
    ),
    "integers of inputs swapped": (
        lambda c: c.with_codes("b", kernel=c.pair.parameters["b"].kernel[::-1]),
        "the proved bound",
    ),
    "sign of all weights": (
        lambda c: c.with_codes("b", kernel=-c.pair.parameters["b"].kernel),
        "the proved bound",
    ),
    "point of the weights moved": (
        lambda c: c.bare().with_codes("b", kernel_format=Format(12, 6, True)).reformatted(),
        "the proved bound",
    ),
    "point of the biases moved": (
        lambda c: c.bare().with_codes("a", bias_format=Format(16, 11, True)).reformatted(),
        "the proved bound",
    ),
    "input one bit coarser": (lambda c: coarser(c, "x"), "the proved bound"),
    "hidden values one bit coarser": (lambda c: coarser(c, "a_relu"), "the proved bound"),
    "float weight one ulp": (
        lambda c: next_float32(c, "b", "kernel", (0, 0), -np.inf * hurting(c, 0)),
        "output 0: the proved bound",
    ),
    "float weight of the first layer one ulp": (
        lambda c: next_float32(c, "a", "kernel", (0, 0), against(c, 0)),
        "output 0: the proved bound",
    ),
    "float bias one ulp": (
        lambda c: next_float32(c, "b", "bias", 0, -np.inf * hurting(c, 0)),
        "output 0: the proved bound",
    ),
}


def against(claim: Claim, unit: int) -> float:
    """Where a float weight from input `unit` to hidden unit `unit` has to go for the error at the worst point to grow."""
    grows = -claim.worst[unit] * claim.pair.network.by_name["b"].op.arrays()["kernel"][unit, 0] * hurting(claim, unit)
    return float(np.inf * np.sign(grows))


def coarser(claim: Claim, name: str) -> Claim:
    """A rounding point with one fractional bit less; everything else follows."""
    bits = {key: output.fractional_bits - (key == name) for key, output in claim.pair.formats.items()}
    formats = {key: Format(40, 39 - value, True) for key, value in bits.items()}
    return claim.having(Pair(claim.pair.network, claim.pair.parameters, formats, {})).reformatted()


def test_the_roomy_claim_is_accepted(claim):
    with_room(claim).check()


@pytest.mark.parametrize("fault", BUILT)
def test_another_network_is_refused_by_its_hash(claim, fault):
    changed = BUILT[fault][0](with_room(claim))
    stale = changed.saying(weight_hash=claim.certificate.weight_hash, code_hash=claim.certificate.code_hash)
    with pytest.raises(VerificationError, match="are not those of the certificate"):
        stale.check()


@pytest.mark.parametrize("fault", BUILT)
def test_another_network_is_refused_by_the_proof(claim, fault):
    change, reason = BUILT[fault]
    with pytest.raises(VerificationError, match=reason):
        change(with_room(claim)).rehashed().check()


@pytest.mark.parametrize("fault", [name for name in BUILT if "coarser" not in name])
def test_the_claim_about_another_network_is_false(claim, fault):
    changed = BUILT[fault][0](with_room(claim)).rehashed()
    corners = np.array(np.meshgrid(*zip(claim.certificate.box.lower, claim.certificate.box.upper, strict=True)))
    points = [claim.worst, *corners.reshape(3, -1).T]
    assert any(replace(changed, worst=point).is_false() for point in points)


def test_layers_with_swapped_integers_are_refused():
    """Two layers of one shape and one grid."""
    rng = np.random.default_rng(5)
    network = random_network(rng, (3, 3, 3, 3))
    codes: Any = {node.name: round_to_codes(op, 7, 12, rng, False) for node, op in network.affine()}  # type: ignore[arg-type]
    region = Interval(-np.ones(3), np.ones(3))
    quantized = twin(network, codes, dict.fromkeys(network.rounding_points, 8), region)
    certificate = make_certificate(quantized, region, np.ones(3), SplitTree())
    claim = Claim(quantized, certificate, region.upper)
    claim.check()
    swapped = {**codes, "dense_0": codes["dense_1"], "dense_1": codes["dense_0"]}
    changed = claim.having(Pair(network, swapped, quantized.formats, {}))
    with pytest.raises(VerificationError, match="are not those of the certificate"):
        changed.check()
    changed = changed.reformatted()
    with pytest.raises(VerificationError, match="the proved bound"):
        changed.check()
    assert changed.is_false()


@pytest.mark.parametrize("name", ["x", "a_relu"])
def test_a_format_narrowed_by_one_bit_is_refused(claim, name):
    quantized = claim.pair
    changed = claim.having(replace(quantized, formats={**quantized.formats, name: narrower(quantized.formats[name])}))
    with pytest.raises(VerificationError, match="are not those of the certificate"):
        changed.check()
    with pytest.raises(VerificationError, match="output: values reach"):
        changed.rehashed().check()


@pytest.mark.parametrize("name", AFFINE)
def test_an_accumulator_narrowed_or_left_out_is_refused(claim, name):
    quantized = claim.pair
    held = quantized.accumulators
    changed = claim.having(replace(quantized, accumulators={**held, name: narrower(held[name])}))
    with pytest.raises(VerificationError, match="are not those of the certificate"):
        changed.check()
    with pytest.raises(VerificationError, match="accumulator: values reach"):
        changed.rehashed().check()
    changed = claim.having(replace(quantized, accumulators={n: f for n, f in held.items() if n != name}))
    with pytest.raises(VerificationError, match="are not those of the certificate"):
        changed.check()
    with pytest.raises(VerificationError, match="no accumulator format"):
        changed.rehashed().check()


@pytest.mark.parametrize("name", AFFINE)
def test_an_accumulator_on_another_grid_is_refused(claim, name):
    held = claim.pair.accumulators
    for wrong in (Format(40, 20, True), replace(held[name], integer_bits=held[name].integer_bits + 1)):
        with pytest.raises(ModelError, match="accumulator"):
            replace(claim.pair, accumulators={**held, name: wrong})


def test_a_format_that_lost_its_sign_is_refused(claim):
    formats = claim.pair.formats
    held = formats["x"]
    unsigned = Format(held.word_length, held.word_length - held.fractional_bits, False)
    assert unsigned.fractional_bits == held.fractional_bits
    changed = claim.having(replace(claim.pair, formats={**formats, "x": unsigned}))
    with pytest.raises(VerificationError, match="are not those of the certificate"):
        changed.check()
    with pytest.raises(VerificationError, match="output: values reach"):
        changed.rehashed().check()


def test_a_format_that_gained_a_sign_is_refused(claim):
    formats = claim.pair.formats
    held = formats["a_relu"]
    signed = Format(held.word_length, held.integer_bits - 1, True)
    changed = claim.having(replace(claim.pair, formats={**formats, "a_relu": signed}))
    with pytest.raises(VerificationError, match="output: values reach"):
        changed.rehashed().check()


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("kind", ["kernel", "bias"])
def test_a_parameter_format_narrowed_by_one_bit_is_no_network(claim, name, kind):
    codes = claim.pair.parameters[name]
    held = getattr(codes, f"{kind}_format")
    with pytest.raises(InputError, match=r"does not fit|word_length 0"):
        claim.with_codes(name, **{f"{kind}_format": narrower(held)})


def test_the_fractional_bits_of_an_accumulator_follow_from_the_integers(claim):
    with pytest.raises(ModelError, match="accumulator"):
        claim.with_codes("b", kernel_format=Format(12, 6, True))


@pytest.mark.parametrize(
    "change",
    [
        lambda q: replace(q, parameters={"a": q.parameters["a"]}),
        lambda q: replace(q, formats={"x": q.formats["x"]}),
        lambda q: replace(q, formats={**q.formats, "c": q.formats["x"]}),
        lambda q: replace(q, formats={**q.formats, "x": Format(54, 40, True)}),
        lambda q: replace(q, parameters={**q.parameters, "b": q.parameters["a"]}, accumulators={}),
        lambda q: replace(
            q, parameters={**q.parameters, "b": replace(q.parameters["b"], kernel=q.parameters["b"].kernel * 1.0)}
        ),
    ],
    ids=[
        "integers missing",
        "format missing",
        "unknown name",
        "format too wide",
        "shape",
        "codes that are not integers",
    ],
)
def test_what_does_not_belong_together_is_no_network(claim, change):
    with pytest.raises(ModelError):
        change(claim.pair)


def test_a_graph_that_computes_something_else_has_another_hash(claim):
    """The ReLU left out, the nodes renamed, another order of the same numbers."""
    network = claim.pair.network
    seen = {network.weight_hash}
    x, a, relu, b = network.nodes
    transposed = replace(a, op=replace(a.op, kernel=a.op.arrays()["kernel"].T))
    for nodes in (
        (x, a, replace(b, inputs=("a",))),
        (x, replace(a, name="c"), replace(relu, inputs=("c",)), b),
        (x, transposed, relu, b),
        (x, replace(a, op=replace(a.op, kernel_radius=np.zeros((3, 3)))), relu, b),
    ):
        found = Network(nodes).weight_hash
        assert found not in seen
        seen.add(found)


def test_every_part_of_the_integers_and_formats_is_hashed(claim):
    quantized = claim.pair
    seen = {quantized.code_hash}
    bare = claim.bare()
    changes = [bare.pair, nudged(claim, "b", (1, 1), -1).pair, bias_nudged(claim, "b", 1, -1).pair]
    for name, held in quantized.formats.items():
        others = (replace(held, word_length=held.word_length + 1), roomy(held), replace(held, signed=not held.signed))
        changes += [replace(bare.pair, formats={**quantized.formats, name: other}) for other in others]
    for name, held in quantized.accumulators.items():
        changes.append(replace(quantized, accumulators={**quantized.accumulators, name: roomy(held)}))
        for kind in ("kernel_format", "bias_format"):
            given = getattr(quantized.parameters[name], kind)
            others = (roomy(given), replace(given, word_length=given.word_length + 1))
            changes += [bare.with_codes(name, **{kind: other}).pair for other in others]
    changes.append(replace(quantized, formats={**quantized.formats, "b": Format(30, 10, True)}))
    for changed in changes:
        assert changed.code_hash not in seen
        seen.add(changed.code_hash)


# In memory.


def arrays_of(claim: Claim) -> dict[str, np.ndarray]:
    """Every array a proof or a hash reads."""
    quantized = claim.pair
    found: dict[str, Any] = {}
    for name in AFFINE:
        codes, op, pair = quantized.parameters[name], quantized.network.by_name[name].op, quantized.pairs[name]
        found |= {f"{name}.kernel": codes.kernel, f"{name}.bias": codes.bias}
        found |= {f"{name}.kernel_value": codes.kernel_value, f"{name}.bias_value": codes.bias_value}
        found |= {f"{name}.float {key}": array for key, array in op.arrays().items()}
        found |= {f"{name}.float magnitude": op.kernel_magnitude}  # type: ignore[attr-defined]
        found |= {f"{name}.pair {key}": value for key, value in vars(pair).items() if isinstance(value, np.ndarray)}
    return found


def test_no_array_of_a_checked_network_can_be_written_to(claim):
    claim.check()
    writable = [name for name, array in arrays_of(claim).items() if array.flags.writeable]
    assert writable == []


def test_a_network_keeps_copies_of_what_it_was_made_of(claim):
    quantized = claim.pair
    codes = quantized.parameters["b"]
    kernel, weights, formats = (
        np.array(codes.kernel),
        np.array(quantized.network.by_name["b"].op.arrays()["kernel"]),
        dict(quantized.formats),
    )
    op = replace(quantized.network.by_name["b"].op, kernel=weights)
    nodes = tuple(replace(n, op=op) if n.name == "b" else n for n in quantized.network.nodes)
    parameters = {**quantized.parameters, "b": replace(codes, kernel=kernel)}
    made = Pair(Network(nodes), parameters, formats, dict(quantized.accumulators))
    kernel[0, 0], weights[0, 0], formats["x"] = 99, 99.0, Format(2, 1, True)
    parameters["b"] = AffineCodes(codes.kernel * 0, codes.kernel_format, codes.bias, codes.bias_format)
    assert (made.code_hash, made.network.weight_hash) == (quantized.code_hash, quantized.network.weight_hash)
    check(made, claim.certificate)


@pytest.mark.parametrize("name", ["parameters", "formats", "accumulators"])
def test_no_mapping_of_a_checked_network_can_be_written_to(claim, name):
    with pytest.raises(TypeError):
        getattr(claim.pair, name)["x"] = None
    with pytest.raises(AttributeError):
        setattr(claim.pair, name, {})


# In a file.


def test_a_certificate_survives_its_file(claim):
    found = Certificate.from_json(json.loads(json.dumps(claim.certificate.to_json())))
    replace(claim, certificate=found).check()
    assert np.array_equal(found.output_bounds, claim.certificate.output_bounds)
    assert dict(found.ranges) == dict(claim.certificate.ranges)


WRITTEN: dict[str, dict[str, Any]] = {
    "bound lowered alone": {"bound": 0.0},
    "bound NaN": {"bound": float("nan")},
    "bound a word": {"bound": "small"},
    "bounds empty": {"output_bounds": [], "bound": 0.0},
    "bounds empty, bound missing": {"output_bounds": []},
    "bounds a number": {"output_bounds": 0.1},
    "bounds in a matrix": {"output_bounds": [[0.1, 0.2]]},
    "bounds words": {"output_bounds": ["a", "b"]},
    "bounds null": {"output_bounds": [None, None]},
    "bounds NaN": {"output_bounds": [float("nan")] * 2, "bound": float("nan")},
    "bounds of too many outputs": {"output_bounds": [0.1] * 3, "bound": 0.1},
    "eps null": {"eps": None},
    "eps empty": {"eps": []},
    "eps NaN": {"eps": [float("nan")] * 2},
    "box missing": {"box": {}},
    "box ragged": {"box": {"lower": [[0.0], [0.0, 1.0]], "upper": [1.0], "source": ""}},
    "box a scalar": {"box": {"lower": 0.0, "upper": 1.0, "source": ""}},
    "box null": {"box": None},
    "tree with a fraction": {"split_tree": [0.5, -1, -1]},
    "tree with a float": {"split_tree": [0.0, -1.0, -1.0]},
    "tree with words": {"split_tree": ["0", "-1", "-1"]},
    "tree nested": {"split_tree": [[0], -1, -1]},
    "tree null": {"split_tree": None},
    "tree empty": {"split_tree": []},
    "phase tree with words": {"stability_tree": ["0", "-1", "-1"]},
    "phase tree null": {"stability_tree": None},
    "ranges a list": {"ranges": []},
    "ranges with one end": {"ranges": {"x": [0.0]}},
    "ranges NaN": {"ranges": dict.fromkeys(["x", "a", "a_relu", "b"], [float("nan")] * 2)},
    "tier renamed": {"tier": "certain"},
    "tier local": {"tier": "local"},
    "hash missing": {"weight_hash": None},
    "hash cut short": {"code_hash": "0123"},
    "versions null": {"versions": None},
    "budget of words": {"error_budget": [{"layer": "a", "kind": "b", "bound": "c"}]},
}


@pytest.mark.parametrize("fault", WRITTEN)
def test_a_file_that_was_changed_is_refused(claim, fault):
    data = json.loads(json.dumps({**claim.certificate.to_json(), **WRITTEN[fault]}))
    with pytest.raises(REFUSED):
        replace(claim, certificate=Certificate.from_json(data)).check()


# What a certificate that does not claim it does not mention.
SILENT = ("input_bits", "exact", "labels")


@pytest.mark.parametrize(
    "part", [*(name for name in Certificate.__dataclass_fields__ if name not in SILENT), "bound", "split_tree"]
)
def test_a_file_that_lacks_a_part_is_refused(claim, part):
    data = claim.certificate.to_json()
    part = {"tree": "split_tree", "box_source": "box"}.get(part, part)
    del data[part]
    with pytest.raises(FileFormatError):
        Certificate.from_json(data)


@pytest.mark.parametrize("data", [None, [], "certificate", 3])
def test_a_file_that_holds_something_else_is_refused(data):
    with pytest.raises(FileFormatError):
        Certificate.from_json(data)


def test_all_refusals_are_of_the_library(claim):
    assert all(issubclass(error, SoundQKerasError) for error in REFUSED)
