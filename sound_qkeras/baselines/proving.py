"""What others made, proved by our verifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.baselines.candidate import Candidate
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.splitting.refine import refine
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.verify.proof import MARGIN, prove
from sound_qkeras.verify.split_tree import SplitTree


@dataclass(frozen=True, eq=False)
class ProvedCandidate:
    """A candidate with its proof.

    Args:
        candidate: the network.
        output_bounds: proved error bound of each output.
        tree: the bisections of the box on whose leaves it was proved.
    """

    candidate: Candidate
    output_bounds: Reals
    tree: SplitTree

    @property
    def bound(self) -> float:
        """The largest output bound."""
        return float(self.output_bounds.max())

    def meets(self, eps: Reals) -> bool:
        """Whether a certificate, which records bounds with a margin, meets the tolerance."""
        return bool(np.all(self.output_bounds * (1.0 + MARGIN) <= eps))


def prove_candidate(
    candidate: Candidate,
    box: Interval,
    eps: Reals,
    *,
    max_leaves: int = 256,
    seconds: float = 30.0,
    hopeless: bool = False,
) -> ProvedCandidate:
    """Prove a fixed-point candidate's error bound over a box, cutting the box while the tolerance is not met.

    Args:
        candidate: with a fixed-point network.
        box: the inputs, shape `input_shape`.
        eps: tolerance per output, shape `(outputs,)`.
        max_leaves: most parts the box is cut into.
        seconds: after which nothing more is cut.
        hopeless: stop early where cutting will hardly reach the tolerance.

    Raises:
        InputError: the candidate is no fixed-point network.
        VerificationError: something may overflow.
    """
    pair = candidate.quantized_network
    deadline = Deadline.within(seconds)
    target = 1.0 - 2.0 * MARGIN
    found = refine(pair, box, eps, target=target, max_leaves=max_leaves, deadline=deadline, hopeless=hopeless)
    return ProvedCandidate(candidate, prove(pair, box, found.tree).output_bounds, found.tree)
