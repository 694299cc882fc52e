"""One html page from a result: self-contained, without scripts, the same bytes for the same result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sound_qkeras import __version__
from sound_qkeras.errors import InputError
from sound_qkeras.report.accuracy import (
    budget_table,
    errors_at_worst,
    errors_table,
    largest_table,
    worst_input_table,
)
from sound_qkeras.report.claim import asked, claim_of
from sound_qkeras.report.coverage import box_table, moved_ends, not_covered
from sound_qkeras.report.formats import NAIVE, affordable, comparison_table, formats_table, kinds_table, uniform_of
from sound_qkeras.report.naming import Naming
from sound_qkeras.report.network import (
    cost_table,
    executions_table,
    inexact_layers,
    layers_table,
    model_table,
    rewrite_table,
    total_costs,
)
from sound_qkeras.report.observed import observe, ranges_table, saturation_table, spread_table
from sound_qkeras.report.picture import picture_of
from sound_qkeras.report.samples import accuracy_table, classification_table, evidence_table
from sound_qkeras.report.sweep import mean_bits, sweep_of
from sound_qkeras.report.tables import Table, count, percent, shape, slug, table
from sound_qkeras.results.archive import CERTIFICATE_FILE, SAMPLES_FILE
from sound_qkeras.results.result import Result
from sound_qkeras.results.verdict import every_input
from sound_qkeras.support.decimals import percent_at_most
from sound_qkeras.tuning.uniform import Uniform
from sound_qkeras.verify.checker import check

# What the first lines of every page hold: a file with it is ours to replace.
MARK = '<meta name="generator" content="sound_qkeras report">'
# Rows from which a table scrolls within the page, and from which it is summed up before.
LONG = 40
# Rows from which a table is folded on a phone.
FOLDED = 5


def page(result: Result, sweep: Iterable[Result] = ()) -> str:
    """The page, after its certificate has been proved again.

    Raises:
        VerificationError: the certificate does not hold.
        InputError: a result of the sweep is of another trained network, another box or another tier.
    """
    if not result.certificate.claims_distance:
        raise InputError(
            "the result claims no distance, which a report is about; certify the model with its reference, or with 'latent'"
        )
    drawn = sweep_of(result, sweep)
    check(result.pair, result.certificate)
    return environment().get_template("page.html.j2").render(sweep=drawn, **_content(result))


@cache
def environment() -> Environment:
    """What renders the templates: names of layers and the source of a box are the user's, and are escaped."""
    jinja = Environment(
        loader=PackageLoader("sound_qkeras.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,  # layer names and the box's source are the user's
    )
    jinja.filters["count"] = count
    jinja.filters["slug"] = slug
    jinja.globals["LONG"] = LONG
    jinja.globals["FOLDED"] = FOLDED
    return jinja


def _content(result: Result) -> dict[str, Any]:
    """Everything the template shows."""
    pair, naming = result.pair, Naming.of(result)
    worst, exact = errors_at_worst(result)
    uniform = uniform_of(result)
    return {
        "mark": MARK,
        "version": __version__,
        "result": result,
        "trained": pair.reference,
        "shapes": (shape(pair.reference.input_shape), shape(pair.reference.output_shape)),
        "ports": _ports(result),
        "made": _made(result),
        "claim": claim_of(result),
        "every": every_input(result.certificate),
        "asked": asked(result.certificate),
        "picture": picture_of(result, uniform, worst, naming),
        "classes": classification_table(result),
        "tried": accuracy_table(result),
        "evidence": evidence_table(result),
        "not_covered": not_covered(result),
        "inexact": list(inexact_layers(result)),
        "box": box_table(result.certificate.box, naming),
        "moved_ends": moved_ends(result.certificate.box),
        "budget": budget_table(result),
        "largest": largest_table(result),
        "layers": layers_table(pair),
        "rewrite": rewrite_table(pair),
        "cost": cost_table(result),
        "costs": total_costs(result),
        "model": model_table(result),
        "executions": executions_table(result),
        "files": _files(result),
        "identity": _identity(result),
        "tools": _tools(result),
        "exact": exact,
        "errors": errors_table(result, worst, naming),
        "worst_input": worst_input_table(result, naming),
        **_about_formats(result, uniform),
        **_about_samples(result),
    }


def _ports(result: Result) -> str:
    """Inputs and outputs by Keras' names, or as they were called, with their shapes."""
    network = result.pair.reference
    inputs = [(port.name, network.shapes[port.node]) for port in network.inputs]
    outputs = [(port.name, network.shapes[port.node]) for port in network.outputs]
    inputs = inputs or [(network.nodes[0].layer, network.input_shape)]
    outputs = outputs or [(network.output.layer, network.output_shape)]
    texts = [", ".join(f"{name} ({shape(size)})" for name, size in ports) for ports in (inputs, outputs)]
    said = [
        f"{what}{'s' if len(ports) > 1 else ''} {text}"
        for what, ports, text in zip(("Input", "output"), (inputs, outputs), texts, strict=True)
    ]
    return ", ".join(said)


def _made(result: Result) -> str:
    """When it was made, and of which files; empty where nobody wrote that down."""
    origin = result.origin
    if origin is None:
        return ""
    date = datetime.fromisoformat(origin.date)
    files = ", ".join(f"{file.name} (SHA-256 {file.sha256[:12]}…)" for file in origin.files)
    return f"Made on {date.day} {date:%B %Y, %H:%M} UTC{f' of {files}' if files else ''}"


def _about_formats(result: Result, uniform: Uniform | None) -> dict[str, Any]:
    return {
        "naive": NAIVE,
        "uniform_known": affordable(result),
        "uniform": uniform,
        "sizes": list(_sizes(result, uniform)),
        "gap": None if result.optimality is None else percent_at_most(result.optimality.gap, 3),
        "kinds": kinds_table(result),
        "formats": formats_table(result, uniform),
        "comparison": comparison_table(result, uniform),
    }


def _about_samples(result: Result) -> dict[str, Any]:
    observed = observe(result)
    return {
        "observed": observed,
        "ranges": ranges_table(result, observed),
        "saturation": saturation_table(result, observed),
        "spread": spread_table(observed),
    }


def _sizes(result: Result, uniform: Uniform | None) -> Iterator[tuple[str, str]]:
    """Numbers for the top of the page, each with a name."""
    found = result.classification
    if found is not None and found.float_accuracy is not None and found.fixed_accuracy is not None:
        yield "Accuracy before, after", f"{found.float_accuracy:.2%} \N{RIGHTWARDS ARROW} {found.fixed_accuracy:.2%}"
    trained = result.finetuning
    if trained is not None:
        for name, after in trained.after.items():
            shown = f"{trained.before[name]:.4g} \N{RIGHTWARDS ARROW} {after:.4g}"
            yield f"Fine-tuned, {name} on the {trained.measured_on}", shown
    yield "Weights", f"{count(result.cost.weight_bits)} bits"
    yield "Per trained weight", f"{mean_bits(result):.2f} bits"
    yield f"Weights, of {NAIVE} bits each", percent(mean_bits(result), NAIVE)
    if uniform is not None:
        yield "Weights, of the smallest uniform", percent(result.cost.weight_bits, uniform.cost.weight_bits)


def _files(result: Result) -> Table:
    rows = [
        (CERTIFICATE_FILE, "the claim: box, tolerance, bounds, ranges, hashes"),
        ("network.json, parameters.npz", "the trained network, its integers and formats"),
    ]
    if result.certificate.evidence is not None:
        rows.append((SAMPLES_FILE, "the samples the claim is about"))
    return table("What the proof reads", "File:name, Holds", rows)


def _identity(result: Result) -> Table:
    certificate = result.certificate
    files = () if result.origin is None else result.origin.files
    rows = [
        *((f"{file.role.capitalize()} {file.name} (SHA-256, as recorded)", file.sha256) for file in files),
        ("Trained network (SHA-256)", certificate.weight_hash),
        ("Integers, formats, rewrite (SHA-256)", certificate.code_hash),
        ("Certificate (SHA-256 of its content)", certificate.digest),
    ]
    return table("Identity", "Item:name, Value:code", rows)


def _tools(result: Result) -> Table:
    certificate = result.certificate
    rows = [
        *certificate.versions.items(),
        ("sound_qkeras that wrote this page", __version__),
        ("Parts of the box proved one by one", count(certificate.tree.leaf_count)),
        ("Parts on which units were proved stable", count(certificate.stability_tree.leaf_count)),
    ]
    return table("Tools and effort", "Item:name, Value:code", rows)
