"""What there is to know about a certified network besides its proof: cost, worst observed error, floating-point evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from sound_qkeras.errors import VerificationError
from sound_qkeras.floating.fixed import UNBOUNDED, FloatReport, float_reports
from sound_qkeras.network.pair import Pair
from sound_qkeras.results.result import Result
from sound_qkeras.search.falsify import EVALUATIONS, Counterexample
from sound_qkeras.search.observe import observe
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.verify.certificate import Certificate

Found = TypeVar("Found")
Evaluated = Callable[[], tuple[FloatReport, FloatReport]]

_LOG = logging.getLogger("sound_qkeras")


def or_else(step: Callable[[], Found], default: Found, what: str) -> Found:
    """What a step after the proof finds, or something else where it fails.

    Raises:
        VerificationError: the step found the proof wrong.
    """
    try:
        return step()
    except VerificationError:
        raise
    except Exception as error:
        _LOG.warning("%s failed, the proof stands: %s: %s", what, type(error).__name__, error)
        return default


def examine(
    pair: Pair,
    certificate: Certificate,
    *,
    seed: int = 0,
    deadline: Deadline | None = None,
    evaluations: int = EVALUATIONS,
    evaluated: Evaluated | None = None,
) -> Result:
    """A result of these two, without what only whoever made them can tell: `seconds`, `optimality` and so on.

    What is not part of the proof does not lose it: where looking for the worst error fails, none was observed in no tries; where
    the floating-point evaluation cannot be bounded, its bound is infinite. The reason is logged.

    Args:
        pair: the pair of networks.
        certificate: what is proved about it.
        seed: of the search for the worst error.
        deadline: of that search; where it is firm and passes, the floating-point evaluation is bounded less tightly.
        evaluations: about how many inputs it tries.
        evaluated: bounds the evaluation in float32 and float64; None for that of the model that `to_qkeras` makes.

    Raises:
        VerificationError: an error was observed that exceeds its proved bound.
    """
    worst = or_else(
        lambda: observe(pair, certificate, seed=seed, deadline=deadline, evaluations=evaluations),
        Counterexample(0.0, certificate.box.lower, 0),
        "the search for the worst error",
    )
    # In the tiers of deep networks pulling rows back through all layers takes far longer than it is worth.
    thorough = certificate.evidence is None and not (deadline is not None and deadline.firm and deadline.passed)
    single, double = or_else(
        evaluated or (lambda: float_reports(pair, certificate.box, certificate.distance, thorough=thorough)),
        (UNBOUNDED, UNBOUNDED),
        "the bound of the floating-point evaluation",
    )
    return Result(
        pair=pair,
        certificate=certificate,
        cost=cost_of(pair),
        observed_error=worst.error,
        observed_input=worst.sample,
        evaluations=worst.evaluations,
        float32=single,
        float64=double,
        seconds=0.0,
    )
