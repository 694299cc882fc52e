"""A float model becomes a result."""

from __future__ import annotations

from typing import Any

from sound_qkeras.jobs.job import Job
from sound_qkeras.jobs.max_drop import fewest_bits
from sound_qkeras.jobs.options import QuantizeOptions
from sound_qkeras.results.result import Result
from sound_qkeras.support.progress import Progress, shown
from sound_qkeras.tuning.costs import GroupCost


def quantize(
    model: Any,
    eps: Any = None,
    box: Any = None,
    *,
    max_drop: float | None = None,
    margin: float = 0.0,
    cost: str | GroupCost = "weight_bits",
    word_lengths: tuple[int, int] = (2, 48),
    effort: str | float = "normal",
    solver: str = "highs",
    keep_architecture: bool = False,
    rescale_units: bool = True,
    round_output: bool = False,
    families: Any = "fixed",
    per_channel: bool = False,
    tier: str | None = None,
    samples: Any = None,
    labels: Any = None,
    train: Any = None,
    epochs: int = 10,
    radius: float | None = None,
    confidence: float = 0.99,
    coverage: float | None = None,
    saturate: bool = True,
    task: str = "regression",
    keep: float = 0.99,
    seed: int = 0,
    input_names: Any = None,
    output_names: Any = None,
    units: Any = None,
    exact: bool = False,
    n_jobs: int | None = None,
    box_source: str = "given",
    progress: Progress | bool = False,
) -> Result:
    """Find the cheapest fixed-point formats that are proved to stay within `eps`, and the integers that go with them.

    Guarantee: for every input in the box, every output of the fixed-point network is within `eps` of the trained network
    in exact arithmetic over its stored float32 parameters, and no value overflows its format. The claim is proved by
    `verify`, which trusts neither the tuner nor the solver. In other tiers than "sound" the distance is claimed for
    fewer inputs, as `certificate.claim` says; that nothing overflows is always proved over the whole box.

    Ctrl-C ends the search with what was proved so far, where there is something; once more ends the call. The efforts "fast",
    "normal" and "max" count work and never look at the clock: the same arguments give the same result, whatever else the
    machine does. `ended_by` is "search", or "work" where the budget ended it; "time" where seconds that you gave did.

    Args:
        model: a model of Keras 3 or tf_keras, a path to one (.h5, .keras; of tf_keras also a SavedModel), a pair of paths
            ("model.json", "weights.h5") of what `to_json()` gives and `save_weights()` writes, or a `Network`.
        eps: tolerance in units of the output: a number, or one per output; for a classifier also "auto": the largest that
            keeps the class of the share `keep` of the samples. None with `max_drop`.
        box: the inputs: `(lower, upper)` as numbers or arrays, or samples that span it.
        max_drop: in place of `eps`, for a classifier: the accuracy that may be lost, 0.01 for one point. Of the networks that a
            walk over tolerances finds, the cheapest is taken that loses no more on the held-out samples, which chose no
            format. That is counted, not proved. `result.accuracy` has the counts, what was tried, and an exact limit for all
            inputs like the samples. It needs `samples` and `labels`. An `effort` in seconds is for each of at most ten networks.
        margin: widens a box made from samples (or given) by this share of its width, on every side.
        cost: "weight_bits", "total_bits", "bit_operations", or a callable `(group, word_length) -> float`.
        word_lengths: fewest and most bits of weights of fixed point and of results; single channels may have fewer.
        effort: "fast", "normal", "max", or a time budget in seconds.
        solver: a MILP solver that Pyomo finds by name: "highs", "cbc", "scip", "gurobi".
        keep_architecture: keep every layer and unit; otherwise hidden units that are proved dead on the box are dropped,
            and those proved always active are replaced by fewer where that saves weights. The function is the same.
        rescale_units: let hidden units be multiplied by powers of two, which changes no output and saves bits; False keeps
            every weight as it was trained.
        round_output: round the output too, to the fewest bits that leave the weights as they are or nearly so; without it the
            last layer returns its exact sum.
        families: numbers that a layer's weights may be, a tuple or a text with commas: "fixed" point of any length; "po2", powers
            of two and their negatives, of 2 to 5 bits; "ternary", -s, 0 and s, of 2 bits; "binary", -s and s, of 1 bit, with s a
            power of two. Of one length, each layer gets those that lose least.
        per_channel: give the weights of every output channel a format of their own, in C++, C and Verilog. QKeras, whose kernels
            have one word length, gets the same values with a scale for each channel.
        tier: "sound": proved for every input in the box. "local": proved for every input within `radius` of the `samples`.
            "statistical": the share of inputs drawn like the `samples` that violate `eps` is below a limit, with the given
            `confidence`; half of the samples, at most 640, calibrate the choice of formats, the limit comes from the others alone.
            None takes "sound", and with `max_drop` "statistical".
        samples: inputs in the box, shape `(n, *input_shape)`, for those tiers and for classifiers.
        labels: the samples' classes, whole numbers from 0 or one-hot rows, for the accuracies of a classifier.
        train: with `max_drop`: `(x, y)`, or inputs `x` alone, whose teacher is the float network: every network that is tried is
            trained on with its formats fixed. No held-out sample may be among them.
        epochs: of that training.
        radius: of the tier "local", in units of the input.
        confidence: of the tier "statistical".
        coverage: share that formats are chosen to satisfy: in tier "local" of the samples, all of them if None; in "statistical" of
            all inputs like the samples, 0.99 if None.
        saturate: in those tiers, let results saturate where the box asks for wider formats than inputs near the samples do;
            False proves that nothing does, which costs deep networks many bits.
        task: "regression", or "classifier", which also reports accuracies and the share of samples whose class is proved.
        keep: for `eps="auto"`, the share of the samples whose class is to stay.
        seed: of the search for the worst observed error, and of the samples' division.
        input_names: what the inputs are called, in the certificate and the report: one name per number, or one per input of the
            model; a list, or a text with commas. None takes Keras' names.
        output_names: the same of the outputs.
        units: units of inputs and outputs by name, `{"angle": "rad", "torque": "Nm"}` or "angle=rad,torque=Nm".
        exact: prove the certificate again in exact arithmetic before it is returned, and say so in it; see `sound_qkeras.check`.
        n_jobs: processes that share the parts of the box, counted as joblib does: 1 is one core, -1 all. None is what
            `joblib.parallel_config` was told, else threads where they are faster. The result is the same, bit for bit.
        box_source: where the box came from, for the certificate.
        progress: True draws bars in a terminal or a notebook; a callable is told a stage's name and what fraction of it is done.

    Raises:
        InputError: an argument is not usable.
        ModelError: the model cannot be read.
        InfeasibleError: no allowed word length is proved to reach `eps`; carries the best bound.
        SolverError: the solver failed.
        DependencyError: the solver, or Keras, is missing.
    """
    options = QuantizeOptions.of(locals())
    options.check_goal(eps)
    with shown(progress) as report:
        job = Job.of(model, box, samples, options, box_source, report)
        return job.answer(eps)[0] if options.max_drop is None else fewest_bits(job)
