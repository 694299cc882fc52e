"""Networks with convolutions, pooling and scaling: simulator, both proofs, certificates and files."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from sound_qkeras.errors import ModelError, VerificationError
from sound_qkeras.exact.proof import exact_bound, exact_error_range
from sound_qkeras.fixed_point import Format
from sound_qkeras.floating.fixed import float_reports
from sound_qkeras.interval import Interval
from sound_qkeras.network import Pair
from sound_qkeras.network.files import load_network, save_network
from sound_qkeras.network.simulate import simulate
from sound_qkeras.verify.certificate import make_certificate
from sound_qkeras.verify.checker import check
from sound_qkeras.verify.proof import prove
from sound_qkeras.verify.split_tree import SplitTree
from tests.geometries import exact_trace, network_of, random_twin

from .facts import check_facts, points_with_ties

SEEDS = [pytest.param(seed, marks=[pytest.mark.slow] if seed > 5 else []) for seed in range(36)]


def case(seed):
    """A twin, its box, and points of it with some on ties of the input's grid."""
    rng = np.random.default_rng(seed)
    twin, ranges = random_twin(network_of(rng, seed, 1 + seed % 3, largest=3), seed)
    return twin, ranges, points_with_ties(rng, twin, ranges)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_proved_fact_holds_at_every_node(seed):
    twin, ranges, points = case(seed)
    proof = prove(twin, Interval(*ranges))
    for point, found in check_facts(twin, ranges, points, exact_trace):
        real, fixed = found["last"]
        error = (fixed - real).ravel()
        assert all(low <= e <= high for e, (low, high) in zip(error, exact_error_range(twin, point), strict=True))
        assert all(abs(e) <= Fraction(b) for e, b in zip(error, proof.output_bounds, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(36))
def test_both_proofs_are_about_as_tight(seed):
    twin, ranges, _ = case(seed)
    float_bound = prove(twin, Interval(*ranges)).bound
    bound = float(max(exact_bound(twin, *ranges, max_parameters=10_000)))
    assert bound <= 1.1 * float_bound + 1e-9
    assert float_bound <= 3.0 * bound + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_files_keep_every_bit(tmp_path, seed):
    twin, _, points = case(seed)
    save_network(tmp_path, twin.network, twin)
    network, again = load_network(tmp_path)
    assert again is not None
    assert network.weight_hash == twin.network.weight_hash
    assert again.code_hash == twin.code_hash
    assert np.array_equal(simulate(again, points), simulate(twin, points))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_float_evaluation_is_bounded(seed):
    """Float64 is exact for such narrow formats, and what float32 may be off by is finite."""
    twin, ranges, _ = case(seed)
    assert float_reports(twin, Interval(*ranges), 1.0)[1].exact
    assert np.isfinite(float_reports(twin, Interval(*ranges), 1.0)[0].error)


# Faults: each is refused for its own reason.


@pytest.fixture(scope="module", params=[0, 1, 2, 3, 5, 6, 9, 12, 14])
def claim(request):
    twin, ranges, _ = case(request.param)
    box = Interval(*ranges)
    bound = prove(twin, box).output_bounds
    certificate = make_certificate(twin, box, bound * (1 + 1e-9), SplitTree())
    check(twin, certificate)
    return twin, certificate


def rehashed(twin, certificate):
    """The certificate names the network it stands beside."""
    return replace(certificate, weight_hash=twin.reference.weight_hash, code_hash=twin.code_hash)


def first_affine(twin):
    """The first affine node of a network."""
    return next(node for node, _ in twin.network.affine())


@pytest.mark.slow
def test_other_integers_are_refused(claim):
    twin, certificate = claim
    node = first_affine(twin)
    codes = twin.parameters[node.name]
    limit = codes.kernel_format.max_code
    kernel = np.where(codes.kernel > 0, codes.kernel_format.min_code, limit)
    other = replace(twin, parameters={**twin.parameters, node.name: replace(codes, kernel=kernel)})
    with pytest.raises(VerificationError, match="integers and formats are not those"):
        check(other, certificate)
    with pytest.raises(VerificationError):
        check(other, rehashed(other, certificate))


@pytest.mark.slow
@pytest.mark.parametrize("claim", [5, 6, 12], indirect=True)
def test_another_geometry_is_refused(claim):
    """Weights and integers are the same, the windows start elsewhere."""
    twin, certificate = claim
    node = first_affine(twin)
    op = replace(node.op, padding=tuple((b, a) for a, b in node.op.padding))
    assert op.padding != node.op.padding
    nodes = tuple(replace(n, op=op) if n is node else n for n in twin.network.nodes)
    other = replace(twin, reference=replace(twin.network, nodes=nodes))
    with pytest.raises(VerificationError, match="float weights are not those"):
        check(other, certificate)


@pytest.mark.slow
def test_narrower_formats_are_refused(claim):
    twin, certificate = claim
    for kind in ("formats", "accumulators"):
        for name, output in getattr(twin, kind).items():
            low, high = certificate.ranges[name]
            tight = Format.for_range(low, high, output.fractional_bits)
            if tight.word_length - tight.signed < 2:
                continue
            less = Format(tight.word_length - 1, tight.integer_bits - 1, tight.signed)
            other = replace(twin, **{kind: {**getattr(twin, kind), name: less}})
            with pytest.raises(VerificationError):
                check(other, rehashed(other, certificate))


@pytest.mark.slow
def test_kernels_of_another_shape_are_refused(claim):
    twin, _ = claim
    node = first_affine(twin)
    codes = twin.parameters[node.name]
    wrong = replace(codes, kernel=np.concatenate([codes.kernel, codes.kernel]))
    with pytest.raises(ModelError, match="codes are"):
        Pair(twin.network, {**twin.parameters, node.name: wrong}, twin.formats, twin.accumulators)
