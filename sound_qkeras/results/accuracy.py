"""What accuracy the fixed-point network loses, counted on samples that chose no format."""

from __future__ import annotations

from dataclasses import dataclass

from sound_qkeras.support.decimals import at_most
from sound_qkeras.verify.binomial import shared, upper_limit


@dataclass(frozen=True)
class Step:
    """One network that was tried.

    Args:
        eps: the largest tolerance of an output in its certificate.
        weight_bits, total_bits: what it costs.
        lost: the share of held-out samples by which its accuracy is lower; negative where it is higher.
    """

    eps: float
    weight_bits: int
    total_bits: int
    lost: float


@dataclass(frozen=True)
class Accuracy:
    """The trained and the fixed-point network on the same held-out samples, which chose the network that is taken.

    Args:
        max_drop: the share that was allowed to be lost.
        samples: how many there are.
        trained, fixed: how many each network classifies as labelled.
        losses, gains: how many only the trained, and only the fixed-point network does.
        confidence: of `limit`.
        looks: how many networks the samples could choose from, tried or not; the limit holds for all of them at once.
        tried: every network that was tried, in order; the one that was taken costs least of those that lose no more than allowed.
    """

    max_drop: float
    samples: int
    trained: int
    fixed: int
    losses: int
    gains: int
    confidence: float
    looks: int
    tried: tuple[Step, ...]

    @property
    def lost(self) -> float:
        """The share of the samples by which accuracy is lower."""
        return (self.trained - self.fixed) / self.samples

    @property
    def limit(self) -> float:
        """With the stated confidence the accuracy on inputs drawn like the samples is lower by at most this.

        The share that only the trained network gets right, less the share that only the other does: an exact binomial limit of
        each, at half of the error probability (Bonferroni), for each network that the samples could choose from.
        """
        confidence = shared(self.confidence, 2 * self.looks)
        fewest_gains = 1.0 - upper_limit(self.samples - self.gains, self.samples, confidence)
        return upper_limit(self.losses, self.samples, confidence) - fewest_gains

    @property
    def summary(self) -> str:
        """One line."""
        before, after = self.trained / self.samples, self.fixed / self.samples
        change = f"{abs(self.lost) * 100.0:.2f} points {'lost' if self.lost >= 0.0 else 'won'}"
        return (
            f"accuracy {before:.2%} -> {after:.2%} on {self.samples:,} held-out samples: {change}, "
            f"{100.0 * self.max_drop:g} allowed; on all inputs like them at most {at_most(100.0 * self.limit, 3)} points lost, "
            f"at confidence {float(self.confidence)!r}"
        )
