"""A budget in seconds is kept, and memory too: work is cut into parts, and ends between them. The clock here counts work."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.exact import ops as exact_ops
from sound_qkeras.exact.proof import exact_error
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node
from sound_qkeras.network.boxes import network_box
from sound_qkeras.network.ops import Affine, Dense, Input
from sound_qkeras.search.falsify import falsify
from sound_qkeras.splitting import refine as splitting
from sound_qkeras.splitting import stability as phases
from sound_qkeras.splitting.refine import refine
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.effort import EFFORTS
from sound_qkeras.tuning.reductions import reductions_of
from sound_qkeras.tuning.rounding import linearise, sample_box
from sound_qkeras.tuning.sampling import SamplingEvaluator
from sound_qkeras.tuning.search import Search
from sound_qkeras.tuning.surrounding import SurroundingEvaluator
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.proof import bound_boxes
from sound_qkeras.verify.propagation import batches, output_difference, propagate
from tests import networks

PASSED = Deadline(-np.inf, firm=True)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only work moves: a layer with weights takes 2 ms for the ranges on a box, 0.1 ms for the values at a sample."""
    found = SimpleNamespace(now=0.0)
    interval, evaluate = Affine.interval, Affine.evaluate

    def slow_interval(self, *inputs):
        found.now += 2e-3 * inputs[0].shape[0]
        return interval(self, *inputs)

    def slow_evaluate(self, *inputs):
        found.now += 1e-4 * len(inputs[0])
        return evaluate(self, *inputs)

    monkeypatch.setattr("time.monotonic", lambda: found.now)
    monkeypatch.setattr(Affine, "interval", slow_interval)
    monkeypatch.setattr(Affine, "evaluate", slow_evaluate)
    return found


@pytest.mark.solver
@pytest.mark.slow
@pytest.mark.parametrize("tier", ["sound", "local"])
def test_no_stage_ignores_a_budget_in_seconds(clock, tier):
    network = networks.random_network(np.random.default_rng(3), (5, 12, 12, 12, 1))
    options, at = {}, {}
    if tier == "local":
        options = {"tier": tier, "samples": np.random.default_rng(0).uniform(-1, 1, (80, 5)), "radius": 0.05}
    found = sq.quantize(
        network, 1e-2, (-1.0, 1.0), effort=6.0, progress=lambda stage, _: at.setdefault(stage, clock.now), **options
    )
    assert found.ended_by == "time"
    assert at["prove"] <= 6.0
    assert at["done"] <= 1.2 * 6.0
    sq.check(found.pair, found.certificate)


@pytest.mark.solver
@pytest.mark.parametrize("tier", ["sound", pytest.param("statistical", marks=pytest.mark.slow)])
def test_efforts_with_names_do_not_look_at_the_clock(monkeypatch, tier):
    """Whether no time passes, or an hour each time somebody asks."""
    network = networks.random_network(np.random.default_rng(3), (3, 8, 8, 1))
    options = {} if tier == "sound" else {"tier": tier, "samples": np.random.default_rng(0).uniform(-1, 1, (200, 3))}
    hours = itertools.count(step=3600.0)

    def integers(clock):
        monkeypatch.setattr("time.monotonic", clock)
        found = sq.quantize(network, 1e-2, (-1.0, 1.0), **options)
        assert found.ended_by in {"search", "work"}
        return found.certificate.code_hash

    assert integers(lambda: 0.0) == integers(lambda: float(next(hours)))


@pytest.fixture
def pair():
    return networks.random_quantized(np.random.default_rng(7), (5, 8, 8, 2))


def test_work_on_many_boxes_ends_after_the_batch_in_which_the_deadline_passes(pair, monkeypatch):
    monkeypatch.setattr("sound_qkeras.verify.propagation.MOST_BOXES", 4)
    quantized, (low, high) = pair
    boxes = Interval(np.stack([low] * 10), np.stack([high] * 10))
    found = [
        len(np.concatenate(over_batches(bound_boxes, quantized, boxes, limit))) for limit in (None, Deadline(), PASSED)
    ]
    assert found == [10, 10, 4]


def test_leaves_that_were_not_measured_in_time_are_never_taken_for_proved(pair, monkeypatch):
    monkeypatch.setattr("sound_qkeras.verify.propagation.MOST_BOXES", 4)
    quantized, (low, high) = pair
    box, eps = Interval(low, high), np.full(2, 1e-9)
    start = refine(quantized, box, eps, max_leaves=12)
    assert np.isfinite(start.worst)
    assert refine(quantized, box, 1e12 * eps, start=start, deadline=PASSED).worst == np.inf
    # New leaves that there was no time for have the bound of what they were cut from.
    boxes, worst = start.boxes.copy(), start.leaves[:2]
    new = boxes.cut(worst)
    assert np.array_equal(boxes.score[new], np.repeat(start.boxes.score[worst], 2))


@pytest.fixture(params=["local", "statistical"])
def tier(request, monkeypatch):
    """A tier with samples, of which it looks at few at a time."""
    monkeypatch.setattr("sound_qkeras.verify.propagation.MOST_BOXES", 4)
    if request.param == "statistical":
        monkeypatch.setattr("sound_qkeras.network.graph.TILE_PARTS", 1 << 30)
    return request.param


def test_samples_that_were_not_measured_in_time_never_meet_the_tolerance(pair, tier):
    quantized, (low, high) = pair
    box, eps, samples = Interval(low, high), np.full(2, 1e12), np.linspace(low, high, 30)
    evaluator = (
        SurroundingEvaluator(quantized.network, box, eps, EFFORTS["fast"], samples, 0.01, coverage=0.9, saturate=False)
        if tier == "local"
        else SamplingEvaluator(quantized.network, box, eps, samples, coverage=0.9, saturate=False)
    )
    late, unhurried, interrupted = (Deadline(-np.inf, firm=firm) for firm in (True, False, False))
    interrupted.interrupt.set()
    assert evaluator.evaluate(quantized, unhurried).worst <= 1.0
    for limit in (late, interrupted):
        found = evaluator.evaluate(quantized, limit)
        assert found.worst == np.inf
        assert np.any(np.isfinite(found.relative))


def test_only_a_firm_deadline_or_an_interrupt_breaks_off_what_is_worth_seeing_through():
    usual, firm = Deadline(-np.inf), Deadline(-np.inf, firm=True)
    assert (usual.if_firm.passed, firm.if_firm.passed) == (False, True)
    usual.interrupt.set()
    assert usual.if_firm.passed


@pytest.mark.solver
def test_what_is_tried_before_formats_are_accepted_is_no_answer(tier):
    """A choice without faint values meets the tolerance, and is none that the search may end with."""
    options = {"radius": 0.01} if tier == "local" else {}
    op = Dense(np.random.default_rng(0).uniform(-1, 1, (3, 3)), np.full(3, 2.0**-40))
    network = Network((Node("x", Input((3,)), (), "x"), Node("d", op, ("x",), "d")))
    samples = np.random.default_rng(0).uniform(-1, 1, (60, 3))
    found = sq.quantize(network, 0.05, (-1.0, 1.0), effort=1e-3, tier=tier, samples=samples, **options)
    assert found.ended_by == "time"
    sq.check(found.pair, found.certificate)


def test_few_proofs_find_the_faint_values_that_matter_and_one_when_time_is_up():
    """Of 16 groups the first three matter."""
    faint = list(range(16))
    for limit, proofs, first in ((Deadline(), 5, 3), (PASSED, 1, 16)):
        tried, dropped = list[dict[int, int]](), list[int]()

        def try_out(bits, tried=tried):
            tried.append(dict(bits))
            return SimpleNamespace(relative=float(0 in list(bits.values())[:3]))

        space = SimpleNamespace(
            candidates={group: [40] for group in faint}, output=None, faint=faint, drop=dropped.extend
        )
        Search._drop_faint(SimpleNamespace(space=space, deadline=limit, try_out=try_out))
        assert len(tried) == proofs
        assert dropped == faint[first:]


def test_solves_that_follow_a_model_that_promises_too_much_come_to_an_answer(monkeypatch):
    """The error falls below the tolerance only where a third of it is asked for, and says little of that before."""
    asked = list[float]()

    def solve(*arguments, **_):
        asked.append(arguments[2])
        return SimpleNamespace(done=True, bits={})

    monkeypatch.setattr("sound_qkeras.tuning.search.solve", solve)
    search = SimpleNamespace(
        tolerance=0.9,
        effort=EFFORTS["fast"],
        evaluator=SimpleNamespace(power=1),
        deadline=Deadline(),
        space=SimpleNamespace(joints=lambda _: []),
        attempt=lambda _: SimpleNamespace(relative=0.8 if asked[-1] < 0.35 else 1.05, cost=1.0),
        tell=lambda *_: None,
        **dict.fromkeys(("accumulator_bits", "solver", "late", "best")),
        solved=[],
        _solver_limit=lambda: None,
    )
    Search._sweep(search, {}, None, 0)
    assert asked[-1] < 0.35


def test_the_search_for_the_worst_error_ends_when_the_deadline_passes(pair):
    quantized, (low, high) = pair
    some, all_of_them = (
        falsify(quantized, Interval(low, high), deadline=limit).evaluations for limit in (PASSED, None)
    )
    assert some < all_of_them


def test_fewer_samples_are_looked_at_when_the_deadline_passes(monkeypatch):
    network = networks.random_network(np.random.default_rng(0), (5, 8, 8, 2))
    x = np.random.default_rng(0).uniform(-1, 1, (64, 5))
    monkeypatch.setattr("sound_qkeras.tuning.rounding.TILE_PARTS", 1 << 30)
    some, all_of_them = (
        next(iter(linearise(network, x, np.ones(2), limit).inputs.values())) for limit in (PASSED, None)
    )
    assert (len(some), len(all_of_them)) == (1, 64)


def test_small_boxes_are_sampled_as_ever_and_large_ones_less():
    box = Interval(np.full(3, -1.0), np.full(3, 2.0))
    rng = np.random.default_rng(0)
    inside = box.lower + (box.upper - box.lower) * rng.random((40, 3))
    inside[:10] = np.where(rng.random((10, 3)) < 0.5, box.lower, box.upper)
    assert np.array_equal(sample_box(box, 40), inside)
    wide = Interval(np.zeros(1 << 21), np.ones(1 << 21))
    assert len(sample_box(wide, 4096)) == 8


def test_boxes_of_many_inputs_are_never_differentiated_in_all_of_them(monkeypatch):
    """That takes as many numbers as inputs, squared; such boxes are not cut anyway."""

    def refuse(*_):
        raise AssertionError("gradients in all inputs")

    for module in (phases, splitting):
        monkeypatch.setattr(module, "input_gradients", refuse)
    network = networks.random_network(np.random.default_rng(0), (65, 6, 6, 1))
    box = network_box(network, (-1.0, 1.0))
    reductions_of(network, box, max_leaves=64)
    quantized = networks.quantized(network, (box.lower, box.upper))
    assert refine(quantized, box, np.ones(1) * 1e-9).leaves.size == 1


def test_outputs_and_boxes_in_parts_give_the_same_numbers(monkeypatch):
    quantized, (low, high) = networks.random_quantized(np.random.default_rng(1), (5, 16, 12))
    boxes = Interval(low[None], high[None])
    result = propagate(quantized.network, boxes, quantized)
    whole = output_difference(result)
    many = Interval(np.repeat(low[None], 64, 0), np.repeat(high[None], 64, 0))
    count = len(batches(quantized.network, many))
    monkeypatch.setattr("sound_qkeras.support.scratch.SCRATCH_NUMBERS", 1 << 13)
    parts = output_difference(result)
    assert np.array_equal(whole.lower, parts.lower)
    assert np.array_equal(whole.upper, parts.upper)
    assert len(batches(quantized.network, many)) > count


def test_the_exact_error_of_one_input_needs_no_matrix(monkeypatch):
    """The matrix of a convolution has as many entries as inputs times results."""

    def refuse(*_):
        raise AssertionError("a matrix")

    monkeypatch.setattr(exact_ops, "coefficients", refuse)
    quantized, (low, high) = networks.random_quantized(np.random.default_rng(2), (5, 6, 2))
    assert len(exact_error(quantized, 0.5 * (low + high))) == 2
