"""Draw the pictures of the pages: `python docs/draw.py [NAME ...]` writes docs/pictures/NAME.svg, all of them without a NAME.

A picture is one function, listed in `PICTURES`. What it shows of results is computed here, by the library. Every colour contrasts
with white and with black, lines differ in their dashes and points in their shapes besides, and letters are large enough
for a phone.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import sound_qkeras as sq
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input, Relu
from sound_qkeras.report.sweep import mean_bits
from sound_qkeras.tuning.uniform import smallest_uniform
from sound_qkeras.verify.proof import bound_boxes

FOLDER = Path(__file__).with_name("pictures")
# Each contrasts by more than 4 to 1 with white and with the darkest background of the pages (tests/test_pictures.py).
GREY, BLUE, ORANGE = "#7b7b7b", "#3a7fc8", "#c4651a"
TICKS = (-1.0, -0.5, 0.0, 0.5, 1.0)
WIDTH = 5.4  # inches; shown 518 pixels wide where there is room
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sound_qkeras",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 0.8,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY),
}


def fixed_point() -> Figure:
    """The numbers of one format on a line: what rounding and overflow do to two others."""
    format_ = Format(word_length=4, integer_bits=1, signed=True)
    values = np.arange(-8, 8) * format_.step
    figure = Figure((WIDTH, 2.3))
    axes = figure.add_axes((0.02, 0.0, 0.96, 1.0))
    axes.set(xlim=(-2.55, 2.75), ylim=(-1.25, 1.75))
    axes.axis("off")
    axes.axhline(0.0, color=GREY, linewidth=1.0)
    axes.plot(values, 0.0 * values, "o", color=BLUE, markersize=7)
    for value in (-2.0, -1.0, 0.0, 1.0, 1.75):
        axes.text(value, -0.28, f"{value:g}", ha="center", va="top")
    axes.annotate("", (0.5, 0.08), (0.6, 0.75), arrowprops={"arrowstyle": "->", "color": ORANGE, "linewidth": 1.8})
    axes.text(0.6, 0.85, "0.6 is rounded\nto 0.5", ha="center", color=ORANGE)
    axes.annotate("", (1.77, 0.08), (2.3, 0.75), arrowprops={"arrowstyle": "->", "color": ORANGE, "linewidth": 1.8})
    axes.text(2.72, 0.85, "2.3 overflows:\n1.75 if it saturates", ha="right", color=ORANGE)
    axes.annotate("", (-0.25, 0.12), (0.0, 0.12), arrowprops={"arrowstyle": "<->", "color": GREY})
    axes.text(-0.125, 0.25, "step 1/4", ha="center")
    axes.text(-2.5, 0.85, "4 bits: 16 numbers\n1 sign, 1 integer bit,\n2 fractional bits", ha="left")
    axes.text(0.1, -1.1, "-1.75 if it wraps around", ha="right", color=ORANGE)
    axes.annotate(
        "",
        (-1.75, -0.1),
        (-1.62, -0.85),
        arrowprops={"arrowstyle": "->", "color": ORANGE, "linewidth": 1.8, "linestyle": ":"},
    )
    return figure


def error_in_a_box() -> Figure:
    """A network of one input and its fixed-point network; below, their difference with eps, bound and worst error found."""
    result = _example()
    x = _inside(1201)
    trained, fixed = result.pair.network.evaluate(x)[:, 0], result.simulate(x)[:, 0]
    figure = Figure((WIDTH, 4.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(x, fixed, color=BLUE, label="fixed-point network")
    above.plot(x, trained, color=ORANGE, linestyle="--", label="trained network")
    above.set(ylabel="output")
    above.legend(loc="upper left")
    bound, eps = result.certificate.bound, float(result.certificate.eps.max())
    below.plot(x, fixed - trained, color=BLUE, linewidth=1.2)
    for sign in (1.0, -1.0):
        below.axhline(sign * eps, color=GREY, linestyle="--")
        below.axhline(sign * bound, color=ORANGE)
    [worst] = result.observed_input
    error = float((result.simulate([[worst]]) - result.pair.network.evaluate([[worst]]))[0, 0])
    below.plot(worst, error, "D", color=ORANGE, markersize=7)
    below.text(
        worst, error + np.copysign(0.04, error), f"worst error found: {abs(error):.3f}", ha=_side(worst), va=_end(error)
    )
    below.text(-1.0, eps * 1.08, f"eps: {eps:g}", va="bottom")
    below.text(-1.0, -bound * 1.1, f"bound: {bound:.3f}", va="top", color=ORANGE)
    below.set(xlabel="input; the box is from -1 to 1", ylabel="error", xlim=(-1.02, 1.02), ylim=(-1.5 * eps, 1.5 * eps))
    below.set_xticks(TICKS)
    return figure


def leaves() -> Figure:
    """The same error, and what is proved about it with the box in one part, in 4 and in 16."""
    result = _example()
    x = _inside(1201)
    error = np.abs(result.simulate(x) - result.pair.network.evaluate(x))[:, 0]
    figure = Figure((WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for parts, dashes in ((1, "--"), (4, "-."), (16, "-")):
        ends = np.linspace(-1.0, 1.0, parts + 1)[:, None]
        bounds = bound_boxes(result.pair, Interval(ends[:-1], ends[1:])).max(axis=1)
        label = f"bound with {parts} {'leaves' if parts > 1 else 'leaf'}: {bounds.max():.3f}"
        axes.stairs(bounds, ends[:, 0], color=ORANGE, linestyle=dashes, baseline=None, linewidth=1.8, label=label)
    label = f"error; the worst found is {result.observed_error:.3f}"
    axes.plot(x, error, color=BLUE, linewidth=1.2, label=label)
    axes.set(xlabel="input", ylabel="error", xlim=(-1.02, 1.02), ylim=(0.0, 0.54), xticks=TICKS)
    axes.legend(loc="upper left")
    return figure


def tiers() -> Figure:
    """What each tier speaks about, in a box of two inputs."""
    rng = np.random.default_rng(3)
    samples = np.clip(0.5 + 0.16 * rng.normal(size=(26, 2)), 0.06, 0.94)
    figure = Figure((WIDTH, 2.35))
    texts = (
        "sound:\nevery input\nin the box",
        "local:\nevery input\nnear a sample",
        "statistical:\nall but a share of\ninputs like these",
    )
    for index, text in enumerate(texts):
        axes = figure.add_axes((0.02 + index * 0.335, 0.36, 0.29, 0.63))
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.axis("off")
        axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=GREY, linewidth=1.5))
        if index == 0:
            axes.add_patch(Rectangle((0, 0), 1, 1, facecolor=BLUE, alpha=0.35, linewidth=0))
        elif index == 1:
            for x, y in samples[:9]:
                axes.add_patch(Rectangle((x - 0.05, y - 0.05), 0.1, 0.1, facecolor=BLUE, alpha=0.35, linewidth=0))
            axes.plot(*samples[:9].T, ".", color=GREY)
        else:
            axes.plot(*samples[1:].T, ".", color=BLUE)
            axes.plot(*samples[0], "x", color=ORANGE, markersize=8, markeredgewidth=2.0)
        figure.text(0.165 + index * 0.335, 0.33, text, ha="center", va="top")
    return figure


def bits_against_eps() -> Figure:
    """The README's controller: bits a weight against the tolerance, ours beside the smallest single format and float32."""
    curve = sq.sweep(_controller(), [10.0**-power for power in (1, 1.5, 2, 2.5, 3, 3.5, 4)], (-1.0, 1.0))
    eps = [float(result.certificate.eps[0]) for result in curve]
    singles = [smallest_uniform(result.pair.reference, result.certificate) for result in curve]
    figure = Figure((WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(32.0, color=GREY, linestyle=":")
    axes.text(eps[0], 31.4, "float32", ha="left", va="top")
    single = [None if one is None else one.format.word_length for one in singles]
    axes.plot(eps, single, "s--", color=ORANGE, label="smallest single format that is proved to do")
    axes.plot(eps, [mean_bits(result) for result in curve], "o-", color=BLUE, label="sound_qkeras")
    axes.set(xscale="log", xlabel="tolerance eps, proved for every input", ylabel="bits a weight", ylim=(0.0, 36.0))
    axes.invert_xaxis()
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.86))
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "fixed_point": fixed_point,
    "error_in_a_box": error_in_a_box,
    "leaves": leaves,
    "tiers": tiers,
    "bits_against_eps": bits_against_eps,
}


@cache
def _example() -> Any:
    """A 1-8-8-1 network that imitates a sine, with formats for eps 0.3."""
    rng, x = np.random.default_rng(3), _inside(200)
    first, second = (Dense(rng.normal(size=(n, 8)) * np.sqrt(2.0 / n), 0.5 * rng.normal(size=8)) for n in (1, 8))
    nodes = (Node("x", Input((1,))), Node("a", first, ("x",)), Node("b", Relu(), ("a",)), Node("c", second, ("b",)))
    hidden = Network((*nodes, Node("d", Relu(), ("c",))))
    columns = np.column_stack([hidden.evaluate(x), np.ones(len(x))])
    fitted = np.linalg.solve(columns.T @ columns + 0.01 * np.eye(9), columns.T @ np.sin(3.0 * x))
    return sq.quantize(
        Network((*hidden.nodes, Node("y", Dense(fitted[:-1], fitted[-1]), ("d",)))), 0.3, (-1.0, 1.0), effort="fast"
    )


def _controller() -> Any:
    """The model that the README trains, by the README's own lines."""
    text = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    lines = text.partition("```python\n")[2].partition("\nresult = ")[0]
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it saves the model
        exec(compile(lines, "README.md", "exec"), names)
    return names["model"]


def _side(x: float) -> str:
    return "right" if x > 0.0 else "left"


def _end(y: float) -> str:
    return "bottom" if y > 0.0 else "top"


def _inside(count: int) -> np.ndarray:
    return np.linspace(-1.0, 1.0, count)[:, None]


def main(names: list[str]) -> None:
    """Write the pictures of these names, or all."""
    FOLDER.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name in names or PICTURES:
            figure = PICTURES[name]()
            figure.savefig(FOLDER / f"{name}.svg", transparent=True, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main(sys.argv[1:])
