"""The other ways people choose formats, one page each, seeded, and all proved by the same verifier."""

from sound_qkeras.baselines.candidate import Candidate
from sound_qkeras.baselines.counting import Row, accuracy, agreement, mean_error, pareto_front, to_csv
from sound_qkeras.baselines.enclosed import ebops
from sound_qkeras.baselines.hgq2 import hgq2
from sound_qkeras.baselines.multipoint import multipoint
from sound_qkeras.baselines.per_layer import equal_bounds, per_layer_rule
from sound_qkeras.baselines.post_training import from_levels, on_grid
from sound_qkeras.baselines.proving import ProvedCandidate, prove_candidate
from sound_qkeras.baselines.pruning import pruned, pruned_uniform
from sound_qkeras.baselines.straight_through import straight_through
from sound_qkeras.baselines.uniform import single_format, smallest_word, uniform

__all__ = [
    "Candidate",
    "ProvedCandidate",
    "Row",
    "accuracy",
    "agreement",
    "ebops",
    "equal_bounds",
    "from_levels",
    "hgq2",
    "mean_error",
    "multipoint",
    "on_grid",
    "pareto_front",
    "per_layer_rule",
    "prove_candidate",
    "pruned",
    "pruned_uniform",
    "single_format",
    "smallest_word",
    "straight_through",
    "to_csv",
    "uniform",
]
