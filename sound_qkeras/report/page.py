"""One html page from a result: self-contained, without scripts, the same bytes for the same result."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sound_qkeras import __version__
from sound_qkeras.archive import certificate_digest
from sound_qkeras.report.accuracy import budget_table, errors_table, mean_bits, sweep_of, worst_input_table
from sound_qkeras.report.claim import bound_text, box_table, claim_of, not_covered
from sound_qkeras.report.formats import NAIVE, affordable, comparison_table, formats_table, uniform_of
from sound_qkeras.report.network import cost_table, executions_table, inexact_layers, layers_table, rewrite_table
from sound_qkeras.report.observed import observe, ranges_table
from sound_qkeras.report.tables import Table, count, percent, shape, table
from sound_qkeras.result import Result
from sound_qkeras.verify.checker import check

# What the first lines of every page hold: a file with it is ours to replace.
MARK = '<meta name="generator" content="sound_qkeras report">'


def page(result: Result, sweep: Iterable[Result] = ()) -> str:
    """The page, after its certificate has been proved again.

    Raises:
        VerificationError: the certificate does not hold.
        InputError: a result of the sweep is of another trained network or another box.
    """
    drawn = sweep_of(result, sweep)
    check(result.quantized, result.certificate)
    return _environment().get_template("page.html.j2").render(sweep=drawn, **_content(result))


@cache
def _environment() -> Environment:
    jinja = Environment(
        loader=PackageLoader("sound_qkeras.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,  # layer names and the box's source are the user's
    )
    jinja.filters["count"] = count
    return jinja


def _content(result: Result) -> dict[str, Any]:
    """Everything the template shows."""
    quantized, certificate = result.quantized, result.certificate
    uniform, observed = uniform_of(result), observe(result)
    return {
        "mark": MARK,
        "version": __version__,
        "result": result,
        "trained": quantized.trained,
        "shapes": (shape(quantized.trained.input_shape), shape(quantized.trained.output_shape)),
        "claim": claim_of(result),
        "bound": bound_text(certificate),
        "uniform_known": affordable(result),
        "uniform": uniform,
        "naive": NAIVE,
        "mean_bits": mean_bits(result),
        "of_naive": percent(mean_bits(result), NAIVE),
        "of_uniform": percent(result.cost.weight_bits, uniform.cost.weight_bits) if uniform else "",
        "not_covered": not_covered(result),
        "observed": observed,
        "typical": f"{observed.median:.3g}",
        "inexact": list(inexact_layers(result)),
        "box": box_table(certificate.box),
        "formats": formats_table(result, uniform),
        "comparison": comparison_table(result, uniform),
        "budget": budget_table(result),
        "ranges": ranges_table(result, observed),
        "errors": errors_table(result),
        "worst_input": worst_input_table(result),
        "layers": layers_table(quantized),
        "rewrite": rewrite_table(quantized),
        "cost": cost_table(result),
        "executions": executions_table(result),
        "identity": _identity(result),
    }


def _identity(result: Result) -> Table:
    certificate = result.certificate
    rows = [
        ("Trained network (SHA-256)", certificate.weight_hash),
        ("Integers, formats, rewrite (SHA-256)", certificate.code_hash),
        ("Certificate (SHA-256 of its content)", certificate_digest(certificate)),
        ("Parts of the box proved one by one", count(certificate.tree.leaf_count)),
        ("Parts on which units were decided", count(certificate.phase_tree.leaf_count)),
        *((f"Made with {tool}", version) for tool, version in certificate.versions.items()),
        ("Page written by sound_qkeras", __version__),
    ]
    return table("Identity", "Item:name, Value:code", rows)
