"""What there is to know about a certified network besides its proof: cost, worst observed error, floating-point evaluation."""

from __future__ import annotations

from sound_qkeras.deadline import Deadline
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.result import Result
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.verify.certificate import Certificate
from sound_qkeras.verify.floating import float_reports
from sound_qkeras.verify.observe import observe


def examine(
    quantized: QuantizedNetwork, certificate: Certificate, *, seed: int = 0, deadline: Deadline | None = None
) -> Result:
    """A result of these two, without what only whoever made them can tell: `seconds`, `optimality` and so on.

    Args:
        quantized: the pair of networks.
        certificate: what is proved about it.
        seed: of the search for the worst error.
        deadline: of that search.

    Raises:
        VerificationError: an error was observed that exceeds its proved bound.
    """
    worst = observe(quantized, certificate, seed=seed, deadline=deadline)
    # In the tiers of deep networks pulling rows back through all layers takes far longer than it is worth.
    thorough = certificate.evidence is None
    single, double = float_reports(quantized, certificate.box, certificate.bound, thorough=thorough)
    return Result(
        quantized=quantized,
        certificate=certificate,
        cost=cost_of(quantized),
        observed_error=worst.error,
        observed_input=worst.sample,
        evaluations=worst.evaluations,
        float32=single,
        float64=double,
        seconds=0.0,
    )
