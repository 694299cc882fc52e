"""Several tolerances of one network: what each costs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sound_qkeras.results.result import Result


class Curve(tuple[Result, ...]):
    """The results of a sweep, in the order of the tolerances that were asked for."""

    __slots__ = ()

    def __repr__(self) -> str:
        """One line."""
        ends = [float(one.certificate.eps.max()) for one in self]
        bits = [one.cost.weight_bits for one in self]
        return f"<Curve of {len(self)} tolerances from {min(ends):g} to {max(ends):g}: weights {min(bits):,} to {max(bits):,} bits>"

    def _repr_html_(self) -> str:
        from sound_qkeras.report.card import curve_card

        return curve_card(self)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw bits a weight against the tolerance, and the worst errors found.

        Args:
            path: where to save it: .png, .svg or .pdf.

        Returns:
            The matplotlib figure, which a notebook shows.

        Raises:
            DependencyError: matplotlib is missing (extra `[plot]`).
            InputError: the file cannot be written.
        """
        from sound_qkeras.report.plots import plot_curve

        return plot_curve(self, path)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the report of the tightest tolerance, with the others as a curve of bits against eps; see `Result.report`."""
        tightest = min(self, key=lambda one: float(one.certificate.eps.sum()))
        return tightest.report(path, sweep=[one for one in self if one is not tightest])
