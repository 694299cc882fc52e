"""The smallest single format for a whole network: what mixed formats are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Format
from sound_qkeras.interval import Interval
from sound_qkeras.network.graph import Network
from sound_qkeras.network.ops import Affine, AffineCodes
from sound_qkeras.network.pair import Pair
from sound_qkeras.splitting.refine import refine
from sound_qkeras.tuning.build import Parameters, nearest, provisional
from sound_qkeras.tuning.costs import Cost, cost_of
from sound_qkeras.tuning.groups import groups_of
from sound_qkeras.tuning.survey import Survey
from sound_qkeras.tuning.words import Words
from sound_qkeras.verify.certificate import Certificate
from sound_qkeras.verify.evidence import Evidence, Local, Statistical, around, error_limits
from sound_qkeras.verify.proof import bound_leaves, check_overflow, ranges_of, ranges_over, with_margin

# Fractional bits to begin with, and the fewest that are tried.
FIRST_BITS, FEWEST_BITS = 14, -16
# Beyond these, a bound over its tolerance says no more than that many bits can go, or must come.
SMALLEST, LARGEST = 2.0**-8, 2.0**40


@dataclass(frozen=True)
class Uniform:
    """One format for every weight, bias and rounded value, proved to meet a tolerance.

    Args:
        format: the format.
        relative: the bound over the tolerance, at most 1; with samples, of the worst that counts.
        cost: bits and bit operations.
        quantized: the network.
    """

    format: Format
    relative: float
    cost: Cost
    pair: Pair = field(compare=False)


def smallest_uniform(
    network: Network, certificate: Certificate, *, saturate: bool = False, max_leaves: int = 64
) -> Uniform | None:
    """The format of fewest bits that, used for every weight, bias and rounded value, supports the claim of a certificate.

    Guarantee: what is found meets the tolerance as the certificate's tier says it: proved on at most `max_leaves` parts of
    the box, or for no fewer of its samples. One fractional bit fewer was tried and does not. Sums are exact and cost nothing,
    parameters are rounded to nearest, and the network is not rewritten.

    Args:
        network: the trained network.
        certificate: the claim; its bounds play no part.
        saturate: with samples: let results saturate where inputs near the samples do not need wider formats.
        max_leaves: most parts the box is cut into.

    Returns:
        The format, or None where none of at most 53 bits was found.
    """
    low, high, bits = FEWEST_BITS - 1, MAX_WORD_LENGTH, FIRST_BITS
    trial, best = Trial(network, certificate, saturate, max_leaves), None
    while high - low > 1:
        relative, found = trial.attempt(bits)
        if relative <= 1.0 and found is None:
            high = bits  # proved, but in no format of 53 bits: more fractional bits would not fit either
        elif found is not None:
            high, best = bits, found
        else:
            low = bits
        # Errors are proportional to the step.
        bits = min(max(bits + math.ceil(math.log2(min(max(relative, SMALLEST), LARGEST))), low + 1), high - 1)
    return best


@dataclass(frozen=True, eq=False)
class Trial:
    """What is tried with different numbers of fractional bits; see `smallest_uniform`."""

    network: Network
    certificate: Certificate
    saturate: bool
    max_leaves: int

    def attempt(self, bits: int) -> tuple[float, Uniform | None]:
        """The bound over the tolerance and, where that is at most 1, the format, unless it is too long."""
        try:
            codes = {node.name: _rounded(op, bits) for node, op in self.network.owners()}
        except InputError:
            return 1.0, None
        pair = provisional(self.network, dict.fromkeys(groups_of(self.network), bits), codes)
        evidence = self.certificate.evidence
        return self._everywhere(pair) if evidence is None else self._near_samples(pair, evidence)

    def _everywhere(self, pair: Pair) -> tuple[float, Uniform | None]:
        """Proved over the box."""
        box = self.certificate.box
        splitting = refine(pair, box, self.certificate.eps, max_leaves=self.max_leaves)
        if not splitting.worst <= 1.0:
            return splitting.worst, None
        ranges = {name: with_margin(*ends) for name, ends in bound_leaves(pair, box, splitting.tree).ranges.items()}
        whole = _in_one_format(pair, ranges)
        if whole is None:
            return splitting.worst, None
        check_overflow(whole, ranges)
        return splitting.worst, _uniform(whole, splitting.worst)

    def _near_samples(self, pair: Pair, evidence: Evidence) -> tuple[float, Uniform | None]:
        """For as many of the samples as the certificate has."""
        box, eps = self.certificate.box, self.certificate.eps
        ranges = _near_ranges(pair, box, evidence) if self.saturate else ranges_of(pair, box)
        whole = _in_one_format(pair, {name: with_margin(*ends) for name, ends in ranges.items()})
        if whole is None:
            return 1.0, None
        if self.saturate:
            whole = replace(whole, saturating=frozenset(whole.formats) - {whole.network.nodes[0].name})
        if isinstance(evidence, Local):
            found = Local.prove(whole, box, evidence.samples, evidence.radius).bounds
            allowed = len(found) - int(evidence.certified(eps).sum())
        elif isinstance(evidence, Statistical):
            found, allowed = error_limits(whole, evidence.samples, evidence.reference), evidence.failures
        else:
            raise InputError(f"tier '{evidence.tier}' has no smallest uniform format")
        relative = np.sort((found / eps).max(axis=1))[::-1]
        worst = float(relative[allowed]) if allowed < len(relative) else 0.0  # nothing is claimed of any sample
        return worst, _uniform(whole, worst) if worst <= 1.0 else None


def _rounded(op: Affine, bits: int) -> Parameters:
    words = Words.holding(op.kernel, bits)
    return Parameters(words.nearest(op.kernel), words, nearest(op.bias, bits), bits)


def _near_ranges(pair: Pair, box: Interval, evidence: Evidence) -> dict[str, tuple[float, float]]:
    """Ranges of results at the samples, or on the boxes around them, and of the input in the whole box."""
    ranges: dict[str, tuple[float, float]] = {}
    if isinstance(evidence, Local):
        ranges = ranges_over(pair, around(box, evidence.samples, evidence.radius))
    else:
        ranges = dict(Survey.of(pair.network, evidence.samples).ends)
    return {**ranges, pair.network.nodes[0].name: (float(box.lower.min()), float(box.upper.max()))}


def _in_one_format(pair: Pair, ranges: Mapping[str, tuple[float, float]]) -> Pair | None:
    """With one format for everything that holds all parameters and ranges; None where it is too long."""
    needed = [Format.for_range(*ranges[name], output.fractional_bits) for name, output in pair.formats.items()]
    for codes in pair.parameters.values():
        needed += [codes.kernel_format, codes.bias_format]
    integer_bits = max(output.integer_bits for output in needed)
    word_length = integer_bits + needed[0].fractional_bits + 1
    if word_length > MAX_WORD_LENGTH:
        return None
    only = Format(word_length, integer_bits, True)
    parameters = {n: AffineCodes(c.kernel, only, c.bias, only) for n, c in pair.parameters.items()}
    return replace(pair, parameters=parameters, formats=dict.fromkeys(pair.formats, only))


def _uniform(whole: Pair, relative: float) -> Uniform:
    return Uniform(next(iter(whole.formats.values())), relative, cost_of(whole), whole)
