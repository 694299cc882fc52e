"""Certificates proved again in exact arithmetic: what holds is proved, what was forged is refused, in every tier."""

import json
from dataclasses import replace
from fractions import Fraction

import joblib
import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.cli.commands import main
from sound_qkeras.errors import FileFormatError, InputError, VerificationError
from sound_qkeras.exact import check as again
from sound_qkeras.exact import rewriting
from sound_qkeras.exact.check import prove_again
from sound_qkeras.exact.proof import QUICK, Proof
from sound_qkeras.interval import Interval
from sound_qkeras.jobs.cores import shared_by
from sound_qkeras.jobs.examine import examine
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input, Relu, Table
from sound_qkeras.network.rewrite.reduce import FORMS, Reduction
from sound_qkeras.network.rewrite.rewrite import Rewrite
from sound_qkeras.results.result import tool_versions
from sound_qkeras.verify.certificate import make_certificate
from sound_qkeras.verify.evidence import Local
from sound_qkeras.verify.proof import prove
from sound_qkeras.verify.split_tree import SplitTree

from ..networks import box, quantized, random_network
from ..results import make_result, random_result
from ..verify.test_rewrite import rewritten

TIERS = ("sound", "local", "statistical")


@pytest.mark.parametrize("tier", TIERS)
def test_what_was_proved_is_proved_again(tier):
    result = random_result(tier=tier)
    found = sq.check(result.pair, result.certificate, exact=True)
    assert np.all(found <= result.certificate.output_bounds)
    assert len(prove_again(result.pair, result.certificate)) == (0 if tier == "statistical" else 2)


@pytest.mark.parametrize("seed", range(6))
def test_every_leaf_of_a_tree_is_as_tight_as_in_the_first_proof(seed):
    """A certificate without any margin is reached, on every leaf, for every output and range."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, (3, 9, 7, 2))
    twin = quantized(network, [end * 1.01 for end in box(network)], 8, 8)
    tree = SplitTree((0, 1, -1, -1, 2, -1, 0, -1, -1))
    region = Interval(*box(network))
    proof, said = prove(twin, region, tree), make_certificate(twin, region, np.full(2, 99.0), tree)
    bare = replace(said, output_bounds=proof.output_bounds, ranges=proof.ranges)
    assert prove_again(twin, bare) <= [Fraction(bound) for bound in proof.output_bounds.tolist()]


def tight():
    """A result whose bound an error reaches almost: coarse weights behind fine inputs."""
    network = random_network(np.random.default_rng(3), (3, 2))
    twin = quantized(network, [end * 1.01 for end in box(network)], 3, 24)
    proved = make_certificate(
        twin, Interval(*box(network)), np.full(2, 10.0), SplitTree((0, -1, -1)), versions=tool_versions()
    )
    return examine(twin, proved)


def lowered(result):
    """The same with a claim of one per cent less."""
    return replace(
        result, certificate=replace(result.certificate, output_bounds=0.99 * result.certificate.output_bounds)
    )


@pytest.fixture
def believed(monkeypatch):
    """The first proof believes whatever it is told."""
    for module in ("sound_qkeras.verify.checker", "sound_qkeras.results.archive"):
        monkeypatch.setattr(f"{module}.check", lambda _, certificate: certificate.output_bounds)


def test_a_bound_that_was_lowered_is_refused_by_exact_arithmetic_alone(believed):
    result = tight()
    sq.check(result.pair, result.certificate, exact=True)
    forged = lowered(result)
    assert sq.check(forged.pair, forged.certificate).size == 2
    with pytest.raises(
        VerificationError, match=r"output \d: the bound proved in exact arithmetic is .*, the certificate claims"
    ):
        sq.check(forged.pair, forged.certificate, exact=True)


@pytest.mark.keras
def test_the_command_line_proves_again_where_it_is_asked_to(tmp_path, capfd, believed):
    result = tight()
    result = replace(result, certificate=replace(result.certificate, exact=True))
    result.save(tmp_path / "out")
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert (
        "it says that it was re-proved in exact arithmetic; that was not repeated here, --exact"
        in capfd.readouterr().out
    )
    assert main(["verify", str(tmp_path / "out"), "--exact"]) == 0
    out = capfd.readouterr().out
    assert "verified again in exact arithmetic" in out
    assert "not repeated" not in out
    lowered(result).save(tmp_path / "forged")
    assert main(["verify", str(tmp_path / "forged")]) == 0
    assert main(["verify", str(tmp_path / "forged"), "--exact"]) == 1
    assert "refused: output" in capfd.readouterr().err


def test_a_range_that_was_narrowed_is_refused():
    result = random_result()
    name = result.pair.network.affine().__next__()[0].name
    low, high = result.certificate.ranges[name]
    forged = replace(result.certificate, ranges={**result.certificate.ranges, name: (low, 0.99 * high)})
    with pytest.raises(VerificationError, match=rf"\({name}\): values reach .* in exact arithmetic"):
        prove_again(result.pair, forged)


def test_the_bound_of_a_single_sample_is_refused():
    result = tight()
    region = result.certificate.box
    samples = np.random.default_rng(0).uniform(region.lower, region.upper, (9, 3))
    evidence = Local.prove(result.pair, region, samples, 0.125)
    said = make_certificate(result.pair, region, np.full(2, 10.0), SplitTree(), evidence=evidence)
    assert len(prove_again(result.pair, said)) == 2
    bounds = evidence.bounds.copy()
    bounds[7] *= 0.99
    with pytest.raises(VerificationError, match="the bound proved in exact arithmetic"):
        prove_again(result.pair, replace(said, evidence=replace(evidence, bounds=bounds)))


def test_samples_are_counted_again():
    result = random_result(tier="statistical")
    small = np.full(result.certificate.eps.size, 1e-6)
    with pytest.raises(
        VerificationError, match=r"20 of 20 samples exceed the tolerance in exact arithmetic, .* claims 0"
    ):
        prove_again(result.pair, replace(result.certificate, eps=small))


def test_errors_against_a_float64_evaluation_are_refused_by_name():
    result = random_result(tier="statistical")
    evidence = replace(result.certificate.evidence, reference="float64")
    with pytest.raises(InputError, match=r"as float64 evaluates it.*accepted there: tier 'sound'"):
        prove_again(result.pair, replace(result.certificate, evidence=evidence))


@pytest.mark.solver
def test_layers_that_are_too_large_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(again, "MOST_ENTRIES", 17)
    result = random_result()
    with pytest.raises(InputError, match=r"layer 'dense_0' is a matrix of 18 entries.*up to 17"):
        prove_again(result.pair, result.certificate)
    with pytest.raises(InputError, match="layer 'dense_0' is a matrix"):
        sq.quantize(result.pair.reference, 0.1, (-1.0, 1.0), effort="fast", exact=True)


def test_a_leaf_whose_claim_is_not_reached_is_cut(monkeypatch):
    """The quick rules do not reach what the thorough ones prove, and these not what halves of the box give."""
    result = make_result(random_network(np.random.default_rng(4), (2, 12, 12, 1)), axes=(-1,))
    whole = prove_again(result.pair, replace(result.certificate, ranges=Anything()))
    cut = [Fraction(9, 10) * bound for bound in whole]
    claim = replace(result.certificate, output_bounds=np.array([float(b) for b in cut]), ranges=Anything())
    assert prove_again(result.pair, claim) <= cut
    monkeypatch.setattr(again, "CUTS", 0)
    monkeypatch.setattr(again.Work.prove, "__defaults__", (0,))
    with pytest.raises(VerificationError, match="the bound proved in exact arithmetic"):
        prove_again(result.pair, claim)


class Anything(dict):
    """Ranges that hold whatever comes."""

    def get(self, name, default=None):
        return (-1e9, 1e9)


def test_leaves_are_proved_by_other_processes_alike(monkeypatch):
    result = make_result(random_network(np.random.default_rng(1), (2, 5, 1)), axes=(0, 1, -1, -1, 0, -1, -1))
    here, said = prove_again(result.pair, result.certificate), []
    monkeypatch.setattr(again, "WORTH_PROCESSES", -1.0)
    there = prove_again(result.pair, result.certificate, lambda stage, share: said.append((stage, share)))
    assert there == here
    assert said[-1][1] == 1.0
    assert "about 0 s" in said[-1][0]


def test_as_many_cores_prove_as_joblib_was_told():
    assert again._cores() == joblib.cpu_count()
    for n_jobs in (1, 3):
        with shared_by(n_jobs):
            assert again._cores() == n_jobs


def reduced(seed):
    """A network with its rewrite, any integers, and the leaves it is proved on."""
    network, rewrite, region, tree = rewritten(seed)
    twin = quantized(rewrite.apply(network), [region.lower - 0.1, region.upper + 0.1], 12, 12)
    leaves = tree.leaves(region)
    twin = replace(twin, reference=network, rewrite=rewrite)
    return twin, [again.box_of(twin, *ends) for ends in zip(leaves.lower, leaves.upper, strict=True)]


def forms(seeds):
    """The first seeds whose rewrites have each form."""
    return {reduction.form: seed for seed in reversed(seeds) for reduction in rewritten(seed)[1].reductions.values()}


@pytest.mark.parametrize("form", FORMS)
def test_a_rewrite_is_proved_again(form):
    twin, boxes = reduced(forms(range(64))[form])
    rewriting.check_parameters(twin)
    for region in boxes:
        rewriting.Signs(twin).check(region, effort=2)


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize("form", FORMS)
def test_parameters_of_a_rewritten_network_are_worked_out_again(form, by):
    twin, _ = reduced(forms(range(64))[form])
    for name, op in ((node.name, op) for node, op in twin.network.affine()):
        moved = replace(op, kernel=op.kernel + by * 2.0**-30)
        nodes = tuple(replace(node, op=moved) if node.name == name else node for node in twin.network.nodes)
        other = replace(twin)
        vars(other)["network"] = replace(twin.network, nodes=nodes)
        with pytest.raises(VerificationError, match="the rewritten network's parameters do not enclose"):
            rewriting.check_parameters(other)


def hidden(bias, reduction):
    """One unit on [-1, 1] whose sign is that of its bias, if that is large; beside it one that is open. Its rewrite is given."""
    first = Dense(np.array([[0.9, 1.0]]), np.array([bias, 0.0]))
    nodes = Node("x", Input((1,))), Node("a", first, ("x",), "a"), Node("r", Relu(), ("a",), "a")
    network = Network((*nodes, Node("b", Dense(np.array([[0.3], [0.7]]), np.array([0.1])), ("r",), "b")))
    rewrite = Rewrite({"a": reduction})
    twin = quantized(rewrite.apply(network), (np.full(1, -1.1), np.full(1, 1.1)), 12, 12)
    return replace(twin, reference=network, rewrite=rewrite)


def units(*numbers):
    return np.array(numbers, dtype=np.int64)


@pytest.mark.parametrize(
    ("right", "wrong", "shift", "dead", "said"),
    [
        (-1.0, -0.8, (), True, "dropped unit 0"),
        (1.0, 0.8, (0.5,), False, "replaced unit 0"),
        (1.0, 1.0, (-2.0,), False, "replacement unit 0"),
    ],
)
def test_units_that_may_change_sign_are_refused(right, wrong, shift, dead, said):
    made = Reduction(
        units(0) if dead else units(), units() if dead else units(0), "kept" if dead else "outputs", np.array(shift)
    )
    region = again.box_of(hidden(right, made), [-1.0], [1.0])
    with pytest.raises(
        VerificationError, match=f"layer 'a': its {said} is not proved in exact arithmetic to stay on one side"
    ):
        rewriting.Signs(hidden(wrong, made)).check(region, effort=2)
    if said != "replacement unit 0":
        rewriting.Signs(hidden(right, made)).check(region, effort=2)


@pytest.mark.parametrize("part", ["exact.check.check_parameters", "exact.rewriting.Signs.check"])
def test_the_rewrite_is_part_of_what_is_proved_again(part, monkeypatch):
    twin, region = (
        hidden(-1.0, Reduction(units(0), units(), "kept", np.array(()))),
        Interval(np.full(1, -1.0), np.full(1, 1.0)),
    )
    said = make_certificate(twin, region, np.full(1, 1.0), SplitTree())
    prove_again(twin, said)

    def refuse(*_arguments, **_options):
        raise VerificationError("the rewrite is wrong")

    monkeypatch.setattr(f"sound_qkeras.{part}", refuse)
    with pytest.raises(VerificationError, match="the rewrite is wrong"):
        prove_again(twin, said)


def test_scales_of_units_are_worked_out_again():
    network = random_network(np.random.default_rng(5), (3, 4, 2))
    rewrite = Rewrite(exponents={"dense_0": np.array([1, 0, -2, 3])})
    twin = replace(quantized(rewrite.apply(network), box(network)), reference=network, rewrite=rewrite)
    rewriting.check_parameters(twin)
    vars(twin)["network"] = network
    with pytest.raises(VerificationError, match="layer 'dense_0': the rewritten"):
        rewriting.check_parameters(twin)


@pytest.mark.keras
def test_a_certificate_says_that_it_was_proved_again(tmp_path):
    plain, result = random_result(), random_result(1)
    said = replace(result, certificate=replace(result.certificate, exact=True))
    assert "re-proved in exact arithmetic" in said.summary()
    assert "exact" not in plain.certificate.to_json()
    assert "exact" not in plain.summary()
    said.save(tmp_path / "out")
    assert sq.load(tmp_path / "out").certificate.exact
    assert said.certificate.digest != result.certificate.digest
    page = said.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "re-proved in exact arithmetic when it was made" in page


@pytest.mark.parametrize("value", [False, 1, "yes"])
def test_a_certificate_says_it_in_one_way(value):
    document = json.loads(json.dumps(random_result().certificate.to_json()))
    with pytest.raises(FileFormatError, match="'exact'"):
        sq.Certificate.from_json({**document, "exact": value})


@pytest.mark.solver
@pytest.mark.parametrize(
    "last", [None, Relu(), *(pytest.param(Table(name), marks=pytest.mark.slow) for name in ("tanh", "sigmoid"))]
)
@pytest.mark.parametrize("seed", range(2))
def test_the_quick_rules_are_as_tight_as_the_first_proof(seed, last):
    """Of one box: hidden units and the output are pulled back, whatever the output is; also where it is a ReLU that is active."""
    *nodes, end = random_network(np.random.default_rng(seed), (3, 9, 7, 1)).nodes
    nodes.append(replace(end, op=replace(end.op, bias=end.op.bias + 8.0 * seed)))
    network = Network(tuple(nodes) if last is None else (*nodes, Node("t", last, (nodes[-1].name,), "t")))
    result = sq.quantize(network, 0.02, (-1.0, 1.0), effort="fast", exact=True)
    assert result.certificate.exact
    region = result.certificate.box
    (quick,) = Proof(result.pair, again.box_of(result.pair, region.lower, region.upper), effort=QUICK).bounds
    assert quick <= Fraction(prove(result.pair, region).bound)
