"""Certificates proved again: by the proof they were made with, and by the exact one when it is asked for."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from sound_qkeras.exact.check import prove_again
from sound_qkeras.interval import Reals
from sound_qkeras.jobs.cores import shared_by
from sound_qkeras.jobs.options import Options
from sound_qkeras.network.pair import Pair
from sound_qkeras.support.progress import Progress, shown
from sound_qkeras.verify import checker
from sound_qkeras.verify.certificate import Certificate


def check(
    pair: Pair,
    certificate: Certificate,
    *,
    exact: bool = False,
    n_jobs: int | None = None,
    progress: Progress | bool = False,
) -> Reals:
    """Confirm every claim of a certificate, or refuse it.

    Guarantee: returns only if, for every input in the certificate's box (in other tiers: those that `claim` names), every
    output stays within its recorded bound of the float network, every recorded bound within `eps`, and for every input in
    the box every tensor within its recorded range, and every recorded range within its format. Nothing the tuner computed
    is used; there is no tolerance in any comparison.

    Args:
        pair: the trained network, and the fixed-point one.
        certificate: what is claimed about them.
        exact: prove all of it again by a second proof, in integers of any length and without BLAS, which takes seconds to minutes
            on all cores, or on as many as `n_jobs` says.
        n_jobs: processes that share the parts of the box, as for `quantize`.
        progress: of that, as for `quantize`; the stage says about how long it takes.

    Returns:
        The bound found for every output, shape `(outputs,)`; with `exact` that of the second proof, where there is one.

    Raises:
        VerificationError: names what does not hold.
        InputError: `n_jobs` is not usable, or exact arithmetic is asked for where the network is too large for it.
    """
    Options(n_jobs=n_jobs)
    with shared_by(n_jobs), shown(progress) as report:
        bounds = checker.check(pair, certificate)
        found = prove_again(pair, certificate, report) if exact else []
    return np.array([_above(bound) for bound in found]) if found else bounds


def _above(bound: Fraction) -> float:
    """The float64 number at or above it."""
    near = float(bound)
    return near if Fraction(near) >= bound else math.nextafter(near, math.inf)
