"""Dropping dead units, replacing active ones and rescaling leave the function alone, and what does not is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sound_qkeras.errors import ModelError, VerificationError
from sound_qkeras.exact.proof import exact_error_range
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.rewrite.reduce import Reduction, reducible
from sound_qkeras.network.rewrite.rescale import rescale
from sound_qkeras.network.rewrite.rewrite import Rewrite
from sound_qkeras.tuning.reductions import reductions_of
from sound_qkeras.verify.certificate import Certificate, make_certificate
from sound_qkeras.verify.checker import check
from sound_qkeras.verify.split_tree import SplitTree
from sound_qkeras.verify.stability import check_rewrite
from tests.networks import float32, random_network
from tests.networks import quantized as nearest_twin
from tests.verify.twins import round_to_codes, twin


def with_phases(rng: np.random.Generator, sizes: tuple[int, ...], linear: tuple[int, ...] = ()) -> Network:
    """A random network whose hidden units are dead, active or neither by their biases, on a box about [-1, 1]."""
    network = random_network(rng, sizes, linear=linear)
    nodes = []
    for node in network.nodes:
        if node.name in reducible(network):
            bias = float32(node.op.arrays()["bias"] + rng.choice([-6.0, 0.0, 6.0], size=len(node.op.arrays()["bias"])))
            node = replace(node, op=replace(node.op, bias=bias))  # type: ignore[type-var]
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def box_of(network: Network, rng: np.random.Generator) -> Interval:
    lower = rng.uniform(-1.0, 0.5, network.input_shape)
    return Interval(lower, lower + rng.uniform(0.0, 1.0, network.input_shape))


def rewritten(seed: int) -> tuple[Network, Rewrite, Interval, SplitTree]:
    rng = np.random.default_rng(seed)
    sizes = tuple(int(n) for n in rng.integers(1, 8, size=rng.integers(3, 6)))
    network = with_phases(rng, sizes, tuple(i for i in range(len(sizes) - 2) if rng.random() < 0.2))
    box = box_of(network, rng)
    reductions, tree = reductions_of(network, box, max_leaves=8)
    reduced = Rewrite(reductions).apply(network)
    hidden = [node.name for node, _ in reduced.affine()][:-1]
    exponents = {
        name: rng.integers(-3, 4, size=reduced.shapes[name])
        for name in hidden
        if reduced.readers[name][0].op.kind == "relu" and rng.random() < 0.5
    }
    return network, Rewrite(reductions, exponents), box, tree


@given(st.integers(0, 2**32))
def test_the_rewritten_network_is_the_trained_one_on_the_box(seed):
    """In exact arithmetic: for a twin with no rounding at all, the error's enclosure holds what the codes are off by."""
    network, rewrite, box, tree = rewritten(seed)
    outcome = rewrite.apply(network)
    # The float64 centres as fixed-point parameters: then f_q is the outcome itself up to 2**-45 in each.
    codes: Any = {
        node.name: round_to_codes(op, 45, 45, np.random.default_rng(0), False) for node, op in outcome.affine()
    }  # type: ignore[arg-type]
    plain = twin(outcome, codes, dict.fromkeys(outcome.rounding_points, 44), box)
    quantized = replace(plain, reference=network, rewrite=rewrite)
    check_rewrite(quantized, box, tree)
    rng = np.random.default_rng(seed)
    for share in (np.zeros(box.shape), np.ones(box.shape), rng.random(box.shape), rng.random(box.shape)):
        x = box.lower + share * (box.upper - box.lower)
        x = np.clip(x, box.lower, box.upper)
        for low, high in exact_error_range(quantized, x):
            assert max(abs(low), abs(high)) <= Fraction(1, 2**24)


@given(st.integers(0, 2**32))
def test_a_rewrite_survives_json(seed):
    network, rewrite, _, _ = rewritten(seed)
    again = Rewrite.from_json(json.loads(json.dumps(rewrite.to_json())))
    assert again.apply(network).weight_hash == rewrite.apply(network).weight_hash
    assert again.to_json() == rewrite.to_json()


FORMS = ("kept", "outputs", "inputs", "merged")


@pytest.fixture(scope="module", params=FORMS)
def claim(request) -> tuple[Pair, Certificate]:
    """A claim whose rewrite has the form asked for."""
    sizes = {"kept": (2, 9, 9), "outputs": (4, 12, 2), "inputs": (2, 12, 4), "merged": (3, 8, 2)}[request.param]
    for seed in range(500):
        rng = np.random.default_rng(seed)
        network = with_phases(rng, sizes)
        box = box_of(network, rng)
        reductions, tree = reductions_of(network, box, max_leaves=16)
        if [r.form for r in reductions.values()] == [request.param] and reductions["dense_0"].dead.size:
            break
    rewrite = Rewrite(reductions)
    made = nearest_twin(rewrite.apply(network), (box.lower, box.upper), 8, 8)
    quantized = replace(made, reference=network, rewrite=rewrite)
    bits = {name: output.fractional_bits for name, output in quantized.formats.items()}
    quantized = replace(
        twin(quantized.network, dict(quantized.parameters), bits, box), reference=network, rewrite=rewrite
    )
    size = network.output_shape[0]
    return quantized, make_certificate(quantized, box, np.full(size, 9.0), SplitTree(), stability_tree=tree)


def changed(claim: tuple[Pair, Certificate], reduction: Reduction) -> tuple[Pair, Certificate]:
    """Another reduction, everything else remade for it, and the certificate names it."""
    quantized, certificate = claim
    rewrite = Rewrite({"dense_0": reduction})
    outcome, box = rewrite.apply(quantized.reference), certificate.box
    codes: Any = {
        node.name: round_to_codes(op, 8, 12, np.random.default_rng(0), False) for node, op in outcome.affine()
    }  # type: ignore[arg-type]
    made = twin(outcome, codes, {name: f.fractional_bits for name, f in quantized.formats.items()}, box)
    made = replace(made, reference=quantized.reference, rewrite=rewrite)
    ranges = make_certificate(
        replace(made, reference=outcome, rewrite=Rewrite()), box, certificate.eps, SplitTree()
    ).ranges
    return made, replace(certificate, code_hash=made.code_hash, ranges=ranges, output_bounds=certificate.eps)


def test_the_claims_are_accepted_as_they_are(claim):
    quantized, certificate = claim
    check(quantized, certificate)
    check(*changed(claim, quantized.rewrite.reductions["dense_0"]))


def test_a_unit_that_acts_is_not_dropped(claim):
    quantized, certificate = claim
    reduction = quantized.rewrite.reductions["dense_0"]
    values = quantized.reference.evaluate_all(corners(certificate.box))["dense_0"]
    acting = [int(u) for u in np.flatnonzero(values.max(axis=0) > 0.0) if u not in reduction.active]
    for unit in acting or reduction.active[:1].tolist():
        active = np.setdiff1d(reduction.active, [unit])
        form = reduction.form if active.size else "kept"
        wrong = Reduction(
            np.append(reduction.dead, unit), active, form, reduction.shift if active.size else np.zeros(0)
        )
        with pytest.raises(VerificationError, match="dropped unit"):
            check(*changed(claim, wrong))


@pytest.mark.parametrize("claim", FORMS[1:], indirect=True)
def test_a_unit_that_clips_is_not_replaced(claim):
    quantized, _ = claim
    reduction = quantized.rewrite.reductions["dense_0"]
    wrong = replace(reduction, dead=reduction.dead[1:], active=np.append(reduction.active, reduction.dead[0]))
    with pytest.raises(VerificationError, match="replaced unit"):
        check(*changed(claim, wrong))


@pytest.mark.parametrize("claim", ["outputs", "inputs"], indirect=True)
def test_a_replacement_that_clips_is_refused(claim):
    quantized, _ = claim
    reduction = quantized.rewrite.reductions["dense_0"]
    shifted = np.flatnonzero(reduction.shift)
    assert shifted.size > 0
    for unit in shifted:
        shift = reduction.shift.copy()
        shift[unit] *= 0.9
        with pytest.raises(VerificationError, match="replacement unit"):
            check(*changed(claim, replace(reduction, shift=shift)))


def test_a_coarser_phase_tree_has_to_prove_it_too():
    for seed in range(500):
        rng = np.random.default_rng(seed)
        network = with_phases(rng, (3, 8, 6, 2))
        box = Interval(np.full(3, -1.5), np.full(3, 1.5))
        reductions, tree = reductions_of(network, box, max_leaves=64)
        if tree.leaf_count > 1:
            break
    quantized = replace(
        nearest_twin(Rewrite(reductions).apply(network), (box.lower, box.upper)),
        reference=network,
        rewrite=Rewrite(reductions),
    )
    check_rewrite(quantized, box, tree)
    with pytest.raises(VerificationError, match="not proved to stay on one side"):
        check_rewrite(quantized, box, SplitTree())


def test_the_rewrite_is_part_of_what_is_certified(claim):
    """The same integers with another rewrite of the same shapes are not the certified network."""
    quantized, certificate = claim
    reduction = quantized.rewrite.reductions["dense_0"]
    outcome = quantized.network
    exponents = {"dense_0": np.ones(outcome.shapes["dense_0"], np.int64)} if "dense_0" in outcome.shapes else {}
    others = [Rewrite({"dense_0": reduction}, exponents)] if exponents else []
    if reduction.shift.size:
        others.append(Rewrite({"dense_0": replace(reduction, shift=reduction.shift + 1.0)}))
    for rewrite in others:
        with pytest.raises(VerificationError, match="integers and formats"):
            check(replace(quantized, rewrite=rewrite), certificate)


@pytest.mark.parametrize(
    ("dead", "active", "form", "shift"),
    [
        ([0], [0], "outputs", [0.0, 0.0]),
        ([0], [1], "kept", []),
        ([0], [], "outputs", []),
        ([0], [1], "other", []),
        ([0], [1], "outputs", [0.0]),
        ([0], [1], "outputs", [np.nan, 0.0]),
        ([0], [1], "inputs", [0.0]),
        ([0], [1], "merged", []),
        ([0, 99], [], "kept", []),
        ([-1, 0], [], "kept", []),
        ([0, 1, 2, 3], [], "kept", []),
    ],
)
def test_reductions_that_do_not_fit_are_refused(dead, active, form, shift):
    network = random_network(np.random.default_rng(0), (3, 4, 2))

    def apply() -> Network:
        units = np.array(dead, np.int64), np.array(active, np.int64)
        return Rewrite({"dense_0": Reduction(*units, form, np.array(shift, np.float64))}).apply(network)

    with pytest.raises(ModelError):
        apply()


def test_only_hidden_layers_are_reduced():
    network = random_network(np.random.default_rng(0), (3, 4, 2))
    nothing = np.zeros(0, np.int64)
    with pytest.raises(ModelError, match="cannot be reduced"):
        Rewrite({"dense_1": Reduction(np.array([0]), nothing, "kept", np.zeros(0))}).apply(network)


def corners(box: Interval) -> np.ndarray:
    size = box.lower.size
    signs = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    return np.where(signs.reshape(-1, *box.shape), box.upper, box.lower)


@pytest.mark.parametrize("radius", [5e-324, 2.0**-1000, 2.0**-901, 2.0**-30])
def test_radii_that_are_too_small_to_scale_exactly_grow(radius):
    network = random_network(np.random.default_rng(0), (3, 4, 2))
    first = next(network.affine())[0]
    op = replace(first.op, bias_radius=np.full(4, radius), kernel_radius=np.zeros((3, 4)))  # type: ignore[type-var]
    network = replace(network, nodes=tuple(replace(n, op=op) if n is first else n for n in network.nodes))
    shifts = np.array([-8, -1, 0, 5])
    found = rescale(network, {first.name: shifts}).by_name[first.name].op.arrays()
    exact = [Fraction(radius) * Fraction(2) ** int(shift) for shift in shifts]
    assert all(Fraction(new) >= old for new, old in zip(found["bias_radius"], exact, strict=True))
    assert radius < 2.0**-900 or all(Fraction(new) == old for new, old in zip(found["bias_radius"], exact, strict=True))
    assert not found["kernel_radius"].any()


def test_units_without_a_relu_are_never_dropped():
    """What stays below zero is zero only behind a ReLU."""
    network = random_network(np.random.default_rng(0), (2, 3, 2), linear=(0,))
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(ModelError, match="'dense_0' has no ReLU behind it"):
        Rewrite({"dense_0": Reduction(np.array([0]), none, "kept", np.zeros(0))}).apply(network)
