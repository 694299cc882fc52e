"""Plots of the study: bits against the reference tool, bounds against errors, seconds and leaves, bits against eps."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

OURS, CORRECTED, RELEASED, BROKEN = "tab:blue", "tab:orange", "tab:gray", "tab:red"


def draw(out: Path, rows: list[dict], baselines: dict, curve: list[dict]) -> None:
    """Write all plots into a folder."""
    tolerances = list(dict.fromkeys(row["eps"] for row in rows))
    for name, panel in (("bits", _bits), ("errors", _errors), ("runs", _runs)):
        figure, axes = plt.subplots(
            2, len(tolerances), squeeze=False, figsize=(6.5 * len(tolerances), 8.5), sharex="col"
        )
        for column, eps in enumerate(tolerances):
            chosen = [row for row in rows if row["eps"] == eps]
            panel(axes[:, column], chosen, baselines)
            axes[0, column].set_title(f"eps = {eps}")
            axes[1, column].set_xticks(range(len(chosen)), [row["network"] for row in chosen], rotation=75, fontsize=8)
        _save(figure, out / f"{name}.png")
    if curve:
        _save(_curve(curve, baselines), out / "curve.png")


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _reference(rows: list[dict], baselines: dict, kind: str, number: str) -> list[float]:
    """The reference tool's better setting per row, NaN where it has none."""
    entries = [baselines.get(row["network"], {}).get(row["eps"], {}).get(kind, {}).values() for row in rows]
    return [min((entry[number] for entry in found if entry), default=math.nan) for found in entries]


def _bits(axes: list[Axes], rows: list[dict], baselines: dict) -> None:
    """Bits per weight and bit operations per weight: ours, corrected, released."""
    for axis, ours, theirs, label in (
        (axes[0], "weight_bits", "total_weight_bits", "bits per trained weight"),
        (axes[1], "bit_operations", "mult_bit_products", "bit operations per trained weight"),
    ):
        for shift, kind, color in ((-0.27, "released", RELEASED), (0.0, "corrected", CORRECTED), (0.27, "ours", OURS)):
            values = [row[ours] for row in rows] if kind == "ours" else _reference(rows, baselines, kind, theirs)
            heights = [value / row["weights"] for value, row in zip(values, rows, strict=True)]
            axis.bar([at + shift for at in range(len(rows))], heights, 0.27, label=kind, color=color)
        axis.set_ylabel(label)
        axis.legend(fontsize=8)


def _errors(axes: list[Axes], rows: list[dict], baselines: dict) -> None:
    """Bounds and worst errors found over eps, and how far apart they are."""
    at = range(len(rows))
    relative = {key: [row[key] / float(row["eps"]) for row in rows] for key in ("bound", "observed_error")}
    axes[0].scatter(at, relative["bound"], marker="_", s=120, color=OURS, label="our bound")
    axes[0].scatter(at, relative["observed_error"], s=18, color=OURS, label="our worst error found")
    for number, row in enumerate(rows):
        released = baselines.get(row["network"], {}).get(row["eps"], {}).get("released", {})
        for entry in filter(None, released.values()):
            color = BROKEN if entry["violated"] else RELEASED
            axes[0].scatter(number, entry["observed_error"] / float(row["eps"]), marker="x", s=24, color=color)
    axes[0].scatter([], [], marker="x", color=BROKEN, label="released, worst found, promise broken")
    axes[0].scatter([], [], marker="x", color=RELEASED, label="released, worst found")
    axes[0].axhline(1.0, color="black", linewidth=0.8)
    axes[0].set_ylabel("error / eps")
    axes[1].bar(at, [row["ratio"] for row in rows], color=OURS)
    axes[1].set_ylabel("bound / worst error found")
    for axis in axes:
        axis.set_yscale("log")
    axes[1].set_ylim(bottom=1.0)
    axes[0].legend(fontsize=8)


def _runs(axes: list[Axes], rows: list[dict], baselines: dict) -> None:
    """Seconds from start to certificate, and leaves of the proof."""
    for axis, key in zip(axes, ("seconds", "leaves"), strict=True):
        axis.bar(range(len(rows)), [row[key] for row in rows], color=OURS)
        axis.set_ylabel(key)
        axis.set_yscale("log")


def _curve(curve: list[dict], baselines: dict) -> plt.Figure:
    """Bits per weight of one network against eps."""
    figure, axis = plt.subplots(figsize=(6.5, 4.5))
    points = sorted((float(row["eps"]), row["mean_weight_bits"]) for row in curve)
    axis.plot(*zip(*points, strict=True), marker="o", color=OURS, label="ours, certified")
    weights = curve[0]["weight_bits"] / curve[0]["mean_weight_bits"]
    rows = [{"network": curve[0]["network"], "eps": eps} for eps in baselines.get(curve[0]["network"], {})]
    for kind, color in (("corrected", CORRECTED), ("released", RELEASED)):
        values = _reference(rows, baselines, kind, "total_weight_bits")
        axis.scatter(
            [float(row["eps"]) for row in rows], [value / weights for value in values], color=color, label=kind
        )
    axis.set(xscale="log", xlabel="eps", ylabel="bits per weight", title=curve[0]["network"])
    axis.legend()
    return figure
