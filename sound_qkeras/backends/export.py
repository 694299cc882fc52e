"""From a fixed-point network to a folder of source code that computes the same integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sound_qkeras import __version__
from sound_qkeras.backends.options import InputGuard, Options, Style, TargetName
from sound_qkeras.backends.plan import make_plan
from sound_qkeras.backends.render import environment, grid_text, layer_text, parts
from sound_qkeras.backends.report import report_text
from sound_qkeras.backends.targets import target_named
from sound_qkeras.backends.tensors import Layer, Plan
from sound_qkeras.backends.toolchain import AP_TYPES, public_headers
from sound_qkeras.backends.vectors import check_box, expected_table, inputs_table, make_vectors
from sound_qkeras.backends.writers import writer_for
from sound_qkeras.errors import InputError
from sound_qkeras.network import Pair
from sound_qkeras.support.files import atomic_directory, check_writable

# Lines of straight code that compilers and synthesis still take in seconds and minutes.
UNROLLED_LIMIT = 16384

REPORT = "report.json"
# What the directory is, in its manifest.
EXPORT = "export"


def export_hls(
    pair: Pair,
    directory: str | Path,
    *,
    box: tuple[npt.ArrayLike, npt.ArrayLike],
    style: Style | None = None,
    target: TargetName = "hls",
    input_guard: InputGuard | None = None,
    reuse_factor: int = 1,
    part: str = "xc7z020clg484-1",
    clock_ns: float = 5.0,
    name: str = "net",
    vectors: int | None = None,
    overwrite: bool = False,
    ranges: Mapping[str, Any] | None = None,
    certificate: Mapping[str, Any] | None = None,
) -> Path:
    """Write a fixed-point network as source code with a test bench.

    Guarantee: inside the box the code gives exactly the codes of `simulate_codes`, provided the network's accumulator
    and activation formats hold what they were proved to hold. Every vector written with it is checked for that.

    C++ brings the public ap_types headers, with their licence, where they are installed: it then builds anywhere.

    Args:
        pair: the network, with an accumulator format for every layer with weights.
        directory: where to write; made when missing.
        box: `(lower, upper)`, each of the input's shape: the inputs the formats were proved for.
        style: "unrolled" is straight code, one line per weight that is not zero, one input per clock cycle; "loops" is
            loops over arrays, whose code does not grow with the number of weights. None is "loops" for C, which takes far less
            flash; elsewhere "unrolled" for up to 16,384 products, and "loops" beyond and where multipliers are shared.
        target: "hls" is C++ for Vitis HLS on ap_types, "c" is portable C99 on <stdint.h>,
            "verilog" one module of adders and registers.
        input_guard: "saturate" clamps inputs outside the input format to it; None lets them wrap. Neither says anything
            about results outside the box.
        reuse_factor: how often each multiplier is used per input (style "loops", target "hls").
        part: the FPGA, for `run_hls.tcl`.
        clock_ns: the clock period in nanoseconds, for `run_hls.tcl`.
        name: the top function, a C identifier.
        vectors: random samples for the test bench, beside corners, ties and zero; 256 by default, fewer where inputs
            are large.
        overwrite: replace the files of an earlier export; others in its directory stay.
        ranges: proved `(lower, upper)` of nodes by name, for comments and report.
        certificate: what is proved (bound, eps, tier, ...), plain values for report and README.

    Returns:
        The directory's absolute path.

    Raises:
        InputError: an option, the box, a name or the directory is not usable, or the network does not fit the style.
        UnsupportedLayerError: there is no code for a kind of operation.
        VerificationError: a sample inside the box overflows a type.
        DependencyError: Jinja2 is missing.
    """
    chosen = target_named(target)
    first = style or ("loops" if reuse_factor > 1 else chosen.styles[0])
    options = Options(first, target, input_guard, reuse_factor, part, clock_ns, name)
    if not chosen.files:
        raise InputError(f"target '{target}' is {chosen.what}, which only `to_hls4ml` builds; accepted: another target")
    if vectors is not None and vectors < 1:
        raise InputError(f"vectors {vectors} is not a number of samples of at least 1")
    target_folder = check_directory(directory, overwrite=overwrite)
    plan = make_plan(pair, options, ranges)
    if style is None and "loops" in chosen.styles and _products(plan) > UNROLLED_LIMIT:
        plan = make_plan(pair, replace(options, style="loops"), ranges)
    check_size(plan)
    lower, upper = check_box(plan, box)
    made = make_vectors(plan, lower, upper, vectors)
    jinja = environment()
    shared = parts(plan)
    shared |= {"version": __version__, "vectors": len(made), "certificate": dict(certificate or {})}
    shared["flags"] = chosen.compiler.flags if chosen.compiler is not None else ()
    shared["texts_of_grids"] = {name: grid_text(jinja, shared, name) for name in shared["grids"]}
    shared["texts"] = {layer.identifier: layer_text(jinja, shared, layer) for layer in plan.layers}
    files = {file: jinja.get_template(template).render(shared) for file, template in chosen.files.items()}
    files["tb/inputs.dat"] = inputs_table(made)
    files["tb/expected.dat"] = expected_table(made)
    files[REPORT] = report_text(plan, (lower, upper), made, certificate)
    with atomic_directory(target_folder, kind=EXPORT, overwrite=overwrite) as folder:
        for file, text in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8", newline="\n")
        for file, content in (public_headers() if target == "hls" else {}).items():
            header = folder / AP_TYPES / file
            header.parent.mkdir(parents=True, exist_ok=True)
            header.write_bytes(content)
    return target_folder


def check_directory(directory: str | Path, *, overwrite: bool) -> Path:
    """Find out, before any work is done, that an export may be written here.

    Raises:
        InputError: the place cannot be written, is not empty and not to be overwritten, or is not an earlier export.
    """
    folder = check_writable(directory, kind=EXPORT, overwrite=overwrite)
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"'{folder}' holds an earlier export; pass overwrite=True, or name another directory")
    return folder


def check_size(plan: Plan) -> None:
    """Refuse what a style or a target cannot hold.

    Raises:
        InputError: too many weights for straight code, or a tensor too wide for the target's integers.
    """
    if plan.options.style == "unrolled":
        lines = _products(plan)
        if lines > UNROLLED_LIMIT:
            raise InputError(
                f"style 'unrolled' would write {lines} products as straight code, accepted: at most {UNROLLED_LIMIT}; "
                "use style='loops'"
            )
    target = target_named(plan.options.target)
    widest = max(plan.layers, key=needed_bits)
    if target.bits is not None and needed_bits(widest) > target.bits:
        raise InputError(
            f"target '{target.name}' adds up in {target.bits} bits; the widest tensor, '{widest.node.name}', needs "
            f"{needed_bits(widest)}: use target='hls', a larger eps or a smaller box"
        )


def _products(plan: Plan) -> int:
    """Lines of straight code."""
    return sum(writer_for(layer.node).statements(layer) for layer in plan.layers)


def needed_bits(layer: Layer) -> int:
    """Bits of the signed integer a layer is computed in."""
    return writer_for(layer.node).needed_bits(layer)
