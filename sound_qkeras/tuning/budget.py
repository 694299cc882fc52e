"""What every group of values would add to the error if it were rounded alone, where the whole error is largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sound_qkeras.interval import Reals
from sound_qkeras.network.pair import Pair
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.build import provisional, round_parameters
from sound_qkeras.tuning.evaluator import Alone, E, Evaluator
from sound_qkeras.tuning.groups import Group, groups_of, much_finer
from sound_qkeras.verify.certificate import BudgetRow


def error_budget(
    evaluator: Evaluator[E], evidence: E, alone: Alone, groups: Sequence[Group], eps: Reals, deadline: Deadline
) -> tuple[BudgetRow, ...]:
    """One row a group, in units of the output; no row where the deadline leaves groups out.

    Args:
        evaluator: what measures.
        evidence: about the whole network.
        alone: networks in which only one group is as coarse as it is.
        groups: of the network.
        eps: tolerance per output.
        deadline: when it passes, nothing more is measured.
    """
    scale, rows = float(eps.max()), evaluator.contributions(evidence, alone, groups, deadline)
    if len(rows) < len(groups):
        return ()
    return tuple(
        BudgetRow(group.layer, group.kind, scale * float(rows[group].max()) ** (1.0 / evaluator.power))
        for group in groups
    )


def alone_with(quantized: Pair, evaluator: Evaluator[E]) -> tuple[Alone, tuple[Group, ...]]:
    """Networks in which one group has its integers or its format, wherever they come from, and the rest is much finer."""
    network = quantized.network
    groups = groups_of(network, round_output=network.output.name in quantized.formats)
    bits = {group: _fractional_bits(quantized, group) for group in groups}
    fine = much_finer(network, bits, evaluator.ranges)
    rounded = round_parameters(network, fine, evaluator.centers)
    others = provisional(network, fine, rounded)

    def build(group: Group | None) -> Pair:
        if group is None:
            return others
        if group.kind == "activation":
            return provisional(network, {**fine, group: bits[group]}, rounded)
        own, other = quantized.parameters[group.node], others.parameters[group.node]
        if group.kind == "weight":
            mixed = replace(own, bias=other.bias, bias_format=other.bias_format)
        else:
            mixed = replace(other, bias=own.bias, bias_format=own.bias_format)
        return replace(others, parameters={**others.parameters, group.node: mixed})

    return build, groups


def _fractional_bits(quantized: Pair, group: Group) -> int:
    if group.kind == "activation":
        return quantized.formats[group.node].fractional_bits
    codes = quantized.parameters[group.node]
    return (codes.kernel_format if group.kind == "weight" else codes.bias_format).fractional_bits
