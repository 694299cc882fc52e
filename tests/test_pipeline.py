"""`quantize` from end to end on small random networks: what comes out is proved, checked, counted and the same again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import InfeasibleError, SolverError, SoundQKerasError
from sound_qkeras.exact.proof import exact_bound, exact_error
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input
from sound_qkeras.search import observe
from sound_qkeras.support.decimals import percent_at_most
from sound_qkeras.tuning import milp, proving
from sound_qkeras.tuning.groups import Group
from sound_qkeras.verify.checker import check
from tests.networks import random_network, samples

pytestmark = [pytest.mark.solver, pytest.mark.slow]


@pytest.fixture(autouse=True)
def quick_search(monkeypatch):
    """The search for the worst error is tested elsewhere; here it may be short."""
    found = observe.falsify
    monkeypatch.setattr(observe, "falsify", lambda *args, **kwargs: found(*args, evaluations=1500, **kwargs))


def network(seed: int, sizes: tuple[int, ...] = (3, 6, 2), linear: tuple[int, ...] = ()) -> Network:
    return random_network(np.random.default_rng(seed), sizes, linear=linear)


def quantize(model: Network, eps: Any = 1e-2, box: Any = (-1.0, 1.0), **options: Any) -> sq.Result:
    return sq.quantize(model, eps, box, **{"effort": "fast", **options})


def confirm(model: Network, result: sq.Result, eps: Any) -> None:
    """Everything a result says about itself, from its integers."""
    certificate, quantized = result.certificate, result.pair
    check(quantized, certificate)
    eps = np.broadcast_to(np.asarray(eps, np.float64), certificate.output_bounds.shape)
    assert np.array_equal(certificate.eps, eps)
    assert np.all(certificate.output_bounds <= eps)
    assert result.observed_error <= certificate.bound <= eps.max()
    assert result.certificate.weight_hash == model.weight_hash
    counted(result)
    x = samples(np.random.default_rng(0), (certificate.box.lower, certificate.box.upper), 64)
    fixed = result.simulate(x)
    for sample, value in zip(x[:12], fixed, strict=False):
        errors = [abs(e) for e in exact_error(quantized, sample)]
        assert all(e <= Fraction(b) for e, b in zip(errors, certificate.output_bounds, strict=True))
        # The network that was tuned is the trained one on the box.
        assert np.allclose(value.ravel() - model.evaluate(sample[None]).ravel(), 0.0, atol=eps.max() + 1e-12)


def counted(result: sq.Result) -> None:
    """The cost by hand: one row per tensor, elements times bits."""
    quantized, cost = result.pair, result.cost
    weight = bias = operations = 0
    words = {name: output.word_length for name, output in quantized.formats.items()}
    read = None
    for node in quantized.network.nodes:
        if node.name in quantized.parameters:
            codes = quantized.parameters[node.name]
            column_bits = sum(output.word_length for output in codes.own_formats)
            weight += codes.kernel.shape[0] * column_bits
            bias += codes.bias.size * codes.bias_format.word_length
            assert read is not None
            operations += codes.kernel.shape[0] * column_bits * read
        read = words.get(node.name, read)
    activation = sum(np.prod(quantized.network.shapes[name]) * bits for name, bits in words.items())
    assert (cost.weight_bits, cost.bias_bits, cost.activation_bits) == (weight, bias, activation)
    assert (cost.bit_operations, cost.total_bits) == (operations, weight + bias + activation)
    assert all(f.word_length == row.word_length for row in result.formats for f in [_format(result, row)])


def _format(result: sq.Result, row: Any) -> Any:
    codes = result.pair.parameters.get(row.node)
    return {
        "weight": lambda: codes.kernel_format,  # type: ignore[union-attr]
        "bias": lambda: codes.bias_format,  # type: ignore[union-attr]
        "accumulator": lambda: result.pair.accumulators[row.node],
        "activation": lambda: result.pair.formats[row.node],
    }[row.kind]()


@pytest.mark.parametrize("seed", range(3))
def test_a_random_network_is_proved_and_counted(seed):
    rng = np.random.default_rng(seed)
    sizes = tuple(int(size) for size in rng.integers(1, 8, rng.integers(2, 5)))
    model = network(seed, sizes, linear=(0,) if seed % 2 else ())
    eps = 10.0 ** rng.uniform(-5, -1)
    confirm(model, quantize(model, eps), eps)


def test_more_effort_is_proved_too_and_costs_no_more():
    model = network(7, (2, 3, 1))
    fast, normal = quantize(model, 1e-2), quantize(model, 1e-2, effort="normal")
    confirm(model, normal, 1e-2)
    assert normal.cost.weight_bits <= fast.cost.weight_bits


def test_every_output_has_its_own_tolerance():
    model, eps = network(1, (3, 4, 3)), [1e-1, 1e-3, 1e-5]
    result = quantize(model, eps)
    confirm(model, result, eps)
    assert result.certificate.output_bounds[2] <= 1e-5 < quantize(model, 1e-1).certificate.output_bounds[2]


@pytest.mark.parametrize("eps", [1e-9, 1e-12])
def test_a_tiny_tolerance_is_met_and_no_alarm_is_raised(eps):
    model = network(2, (2, 4, 1))
    result = quantize(model, eps)
    confirm(model, result, eps)
    rational = exact_bound(result.pair, result.certificate.box.lower, result.certificate.box.upper)
    assert max(rational) <= Fraction(result.certificate.bound)


def test_a_huge_tolerance_is_met_with_few_bits():
    result = quantize(network(2), 1e3)
    confirm(network(2), result, 1e3)
    assert max(row.word_length for row in result.formats if row.kind == "weight") <= 3


def test_word_lengths_are_within_the_limits():
    model = network(3, (3, 6, 2))
    result = quantize(model, 3e-2, word_lengths=(6, 10))
    confirm(model, result, 3e-2)
    rows = {kind: [row.word_length for row in result.formats if row.kind == kind] for kind in ("weight", "activation")}
    assert all(6 <= bits <= 10 for bits in rows["weight"])
    assert all(bits <= 10 for bits in rows["activation"])


def test_an_infeasible_request_says_what_would_do():
    model = network(3, (3, 6, 2))
    with pytest.raises(InfeasibleError) as caught:
        quantize(model, 1e-4, word_lengths=(2, 8))
    error = caught.value
    assert 1e-4 < error.best_bound < np.inf
    assert error.word_length is not None
    assert f"{error.word_length}" in str(error)
    assert f"{error.best_bound:.3g}" in str(error)
    confirm(model, quantize(model, 1e-4, word_lengths=(2, error.word_length)), 1e-4)
    reachable = 1.01 * error.best_bound
    confirm(model, quantize(model, reachable, word_lengths=(2, 8)), reachable)


def test_the_same_call_gives_the_same_result():
    model = network(4, (3, 5, 2))
    first, second = (quantize(model, 1e-3) for _ in range(2))
    assert first.pair.code_hash == second.pair.code_hash
    assert first.certificate.to_json() == second.certificate.to_json()
    assert first.observed_error == second.observed_error


def test_the_cost_that_is_named_is_the_one_that_is_lowered():
    model = network(5, (3, 4, 2))
    names = ("weight_bits", "total_bits", "bit_operations")
    found = {cost: quantize(model, 1e-2, cost=cost) for cost in names}
    for name in names:
        confirm(model, found[name], 1e-2)
        assert getattr(found[name].cost, name) <= 1.1 * min(getattr(result.cost, name) for result in found.values())


def test_a_cost_may_be_a_function():
    model, seen = network(6), set()

    def only_the_last_layer(group: Group, word_length: int) -> float:
        seen.add(group.kind)
        return (
            float(group.count * word_length)
            if (group.node, group.kind) == ("dense_1", "weight")
            else 0.001 * word_length
        )

    plain = quantize(model, 1e-2)
    result = quantize(model, 1e-2, cost=only_the_last_layer)
    confirm(model, result, 1e-2)
    assert seen == {"weight", "bias", "activation"}
    words = [r.pair.parameters["dense_1"].kernel_format.word_length for r in (result, plain)]
    assert words[0] <= words[1]


def test_boxes_of_every_kind_are_proved():
    model = network(8, (3, 4, 2))
    points = np.random.default_rng(0).normal(size=(20, 3))
    for box in (([-1, 0, 0.3], [1, 0, 0.3]), points):
        result = quantize(model, 1e-2, box)
        confirm(model, result, 1e-2)
        assert box is not points or np.all(result.certificate.box.contains(points))


def test_hidden_units_are_rescaled_only_if_allowed():
    model = network(9, (3, 8, 2))
    free, kept = quantize(model, 1e-3), quantize(model, 1e-3, rescale_units=False)
    confirm(model, kept, 1e-3)
    assert free.pair.rewrite.exponents
    assert not kept.pair.rewrite.exponents


def test_the_architecture_is_kept_if_asked_for():
    """Units that are dead or active on a small box go, and the network is still proved to be the trained one."""
    model, box = network(9, (3, 8, 6, 2)), (np.full(3, 0.4), np.full(3, 0.6))
    free = quantize(model, 1e-3, box)
    kept = quantize(model, 1e-3, box, keep_architecture=True, rescale_units=False)
    for result in (free, kept):
        confirm(model, result, 1e-3)
    assert kept.pair.network is model
    assert free.pair.network.parameter_count < model.parameter_count
    assert free.cost.weight_bits < kept.cost.weight_bits


@pytest.mark.parametrize("cost", ["weight_bits", "bit_operations"])
def test_the_answer_of_the_solver_is_close_to_the_optimum_of_its_model(cost):
    result = quantize(network(0, (3, 6, 6, 2)), 1e-3, cost=cost)
    found = result.optimality
    assert found is not None
    assert 0.0 < found.lower_bound <= found.cost
    assert found.claimed_gap <= 2e-3
    assert found.gap < 0.1
    assert f"MILP within {percent_at_most(found.gap, 3)} of its model's optimum" in result.summary()


# Rounded outputs, and formats of single channels.


@pytest.mark.parametrize("effort", ["fast", "normal"])
@pytest.mark.parametrize("eps", [0.02, [1e-3, 0.1]])
def test_a_rounded_output_stays_within_the_tolerance(effort, eps):
    model = network(11)
    result = quantize(model, eps, effort=effort, round_output=True)
    confirm(model, result, eps)
    output = result.pair.formats[model.output.name]
    least = np.min(eps)
    assert 0.5 * output.step < least
    assert output.fractional_bits <= np.ceil(-np.log2(least / 8))
    assert output.word_length < result.pair.accumulators["dense_1"].word_length
    rows = [row for row in result.formats if row.node == "dense_1" and row.kind == "activation"]
    assert [row.word_length for row in rows] == [output.word_length]
    budget = [
        row.bound for row in result.certificate.error_budget if (row.layer, row.kind) == ("dense_1", "activation")
    ]
    assert budget[0] >= 0.5 * output.step


def test_an_output_too_long_for_the_words_allowed_is_refused():
    with pytest.raises(InfeasibleError, match=r"round_output=False"):
        quantize(network(11), 1e-6, word_lengths=(2, 12), round_output=True)


def test_a_coarse_sum_is_not_given_bits_it_does_not_have():
    """All weights are whole numbers or halves and inputs are few: the exact sum has one fractional bit or so."""
    nodes = (Node("x", Input((2,)), (), "x"), Node("d", Dense(np.array([[1.0], [0.5]]), np.zeros(1)), ("x",), "d"))
    model = Network(nodes)
    result = quantize(model, 1.2, (-8.0, 8.0), round_output=True)
    confirm(model, result, 1.2)
    assert result.pair.formats["d"].fractional_bits <= result.pair.exact_bits["d"]


@pytest.mark.parametrize("effort", ["fast", "normal"])
def test_channels_have_fewer_bits_and_the_same_promise(effort):
    model = network(12, (4, 12, 8, 2))
    plain, own = (quantize(model, 1e-2, effort=effort, per_channel=value) for value in (False, True))
    confirm(model, own, 1e-2)
    assert own.cost.weight_bits < plain.cost.weight_bits
    for codes in own.pair.parameters.values():
        assert codes.channel_formats is not None
        assert len(codes.channel_formats) == codes.kernel.shape[1]
    assert all(codes.channel_formats is None for codes in plain.pair.parameters.values())


def test_channels_have_no_more_bits_than_allowed():
    result = quantize(network(13), 1e-3, effort="normal", word_lengths=(2, 14), per_channel=True, round_output=True)
    words = [output.word_length for codes in result.pair.parameters.values() for output in codes.own_formats]
    assert max(words) <= 14


def test_both_together_are_proved_on_the_leaves_as_they_are_written():
    """Bounds of a leaf depend on its batch: once the final order of the leaves gave 1 % more than the search had seen."""
    model = network(1, (4, 8, 8, 1))
    result = quantize(model, 1e-2, effort="normal", per_channel=True, round_output=True)
    confirm(model, result, 1e-2)


# A solver that answers nonsense.


Answer = Callable[[dict[Group, milp.Choices]], milp.Solution | None]


def chosen(choices: dict[Group, milp.Choices], index: Callable[[int, int], int]) -> milp.Solution:
    """An answer by the number of a group and the count of its candidates; its claims about itself are false too."""
    bits = {group: found.bits[index(number, len(found.bits))] for number, (group, found) in enumerate(choices.items())}
    return milp.Solution(bits, -1e9, 1e9)


NONSENSE: dict[str, Answer] = {
    "the coarsest": lambda choices: chosen(choices, lambda number, count: 0),
    "the finest": lambda choices: chosen(choices, lambda number, count: count - 1),
    "anything": lambda choices: chosen(choices, lambda number, count: (7 * number + 3) % count),
    "one group coarsest": lambda choices: chosen(choices, lambda number, count: 0 if number == 2 else count - 1),
    "no solution": lambda choices: None,
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_wrong_answer_of_the_solver_never_becomes_a_wrong_result(nonsense, monkeypatch):
    model, calls = network(10, (2, 4, 1)), []

    def wrong(model: Any, choices: Any, *_: Any) -> milp.Solution | None:
        calls.append(len(calls))
        return NONSENSE[nonsense](dict(choices))

    monkeypatch.setattr(milp, "_run", wrong)
    with contextlib.suppress(InfeasibleError, SolverError):
        confirm(model, quantize(model, 1e-2), 1e-2)
    assert calls


@pytest.mark.parametrize("status", ["error", "maxTimeLimit"])
def test_a_solver_that_fails_says_so(status, monkeypatch):
    def fails(*_: Any) -> milp.Solution | None:
        raise SolverError("solver 'highs' failed: out of memory", status=status)

    monkeypatch.setattr(milp, "_run", fails)
    with pytest.raises(SolverError, match="out of memory") as caught:
        quantize(network(0))
    assert caught.value.status == status


def test_what_the_tuner_proposes_is_proved_again(monkeypatch):
    """A tuner that measures every bound as half the tolerance ends with a refusal, not with a certificate."""
    refine = proving.refine

    def blind(*args: Any, **kwargs: Any) -> Any:
        found = refine(*args, **kwargs)
        found.boxes.score[:] = np.minimum(found.boxes.score, 0.5)
        return found

    monkeypatch.setattr(proving, "refine", blind)
    with pytest.raises(SoundQKerasError, match=r"exceeds the tolerance|the proved bound"):
        quantize(network(0), 1e-6)


def test_progress_is_reported_and_ends():
    seen: list[tuple[str, float]] = []
    quantize(network(0), progress=lambda stage, fraction: seen.append((stage, fraction)))
    assert seen[0][0] == "read"
    assert seen[-1] == ("done", 1.0)
    assert all(0.0 <= fraction <= 1.0 for _, fraction in seen)
