"""How far bounds and searches are from the true worst error, which branch and bound finds on small networks.

    python tests/benchmarks/true_worst.py [--nets FOLDER] [--eps 1e-1 1e-3 1e-5] [--effort normal] [--seeds 1] [--only NAME ...]
        [--gap 0.01] [--leaves 20000] [--cells 20000000]

Networks of up to 100 parameters are quantised: the controllers of that size in NETS, and random ones with one to four inputs and
ReLUs, clipped or leaky ones, or tanh. Then the box is cut where the proved bound is largest, until that is within the gap of the
largest error found, or so many leaves or cells were bounded. Errors found are exact, and bounds are proved.

In a leaf every rounding is charged as if it were the worst one, so the bounds of ever smaller leaves come to a stop above the true
error. Where a leaf holds few cells of the input's rounding, each is bounded alone: the fixed-point network has one value there.
With one input that closes the gap, with two where formats are coarse or the largest errors are in a small part of the box. Where
it does not, the row says that branching stalled.

Prints the proved bound, the worst error the search found, the interval of the true worst error, and the ratios of the first
two with it, each with the end of the interval that makes it look worse.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np

import sound_qkeras as sq
from sound_qkeras.exact.proof import exact_error
from sound_qkeras.fixed_point import from_codes, scaled
from sound_qkeras.interval import DOUBLE, Interval, Reals
from sound_qkeras.network import Network, Node, Pair, size_of
from sound_qkeras.network.ops import Clip, Dense, Input, Leaky, Relu, Rows, Table
from sound_qkeras.network.simulate import simulate
from sound_qkeras.search.falsify import errors, falsify
from sound_qkeras.splitting.bisection import Bisection
from sound_qkeras.splitting.refine import Splitting
from sound_qkeras.types import Indices
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.propagation import propagate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from aster_study import load

NETS = Path(__file__).resolve().parents[3] / "shared" / "nets" / "controllers"
MOST_PARAMETERS = 100
# Leaves with at most so many cells of the input's rounding are bounded cell by cell; with so few, even where that hardly helps.
MOST_CELLS, FEW_CELLS = 1 << 12, 16
# Charged for float64 per unit of what is added up: sums of at most a hundred terms and a few more steps, 2**-53 each.
ROUNDING = 2.0**-44
# Inputs that are tried in the leaf with the largest bound, now and then.
TRIES = 500
UNITS = {"relu": Relu(), "clip": Clip(0.75), "leaky": Leaky(np.array([0.125])), "tanh": Table("tanh")}
SIZES = ((1, 12, 2), (2, 8, 1), (2, 5, 5, 2), (3, 8, 2), (4, 10, 2))


def made(sizes, unit, seed):
    """A random network."""
    rng = np.random.default_rng(seed)
    nodes = [Node("x", Input((sizes[0],)), (), "x")]
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        kernel, bias = rng.normal(size=(fan_in, fan_out)) * np.sqrt(2.0 / fan_in), 0.5 * rng.normal(size=fan_out)
        op = Dense(*(part.astype(np.float32).astype(np.float64) for part in (kernel, bias)))
        nodes.append(Node(f"dense_{index}", op, (nodes[-1].name,), f"dense_{index}"))
        if index < len(sizes) - 2:
            nodes.append(Node(f"unit_{index}", UNITS[unit], (nodes[-1].name,), f"unit_{index}"))
    return Network(tuple(nodes))


def subjects(nets, seeds):
    """Names, networks and boxes."""
    for path in sorted(nets.glob("*.npz")):
        network, lower, upper = load(path)
        if network.parameter_count <= MOST_PARAMETERS:
            yield path.stem, network, Interval(lower, upper)
    for sizes, unit, seed in itertools.product(SIZES, UNITS, range(seeds)):
        network = made(sizes, unit, seed)
        ends = np.ones(sizes[0])
        yield f"{'-'.join(map(str, sizes))} {unit} {seed}", network, Interval(-ends, ends)


class Branching:
    """A growing tree of boxes with bounds, and the largest error found.

    Args:
        pair: the pair of networks.
        box: all inputs.
        sample: where a large error was found.
        gap: how far bound and error may be apart in the end, as a share of the error.
    """

    def __init__(self, pair: Pair, box: Interval, sample: Reals, gap: float) -> None:
        """Nothing is bounded yet."""
        eps = np.ones(size_of(pair.network.output_shape))
        self.pair, self.box = pair, box
        self.state = Splitting(pair, eps, Bisection.root(box), None, DOUBLE)
        self.found, self.bounded, self.tried, self.gap = 0.0, 0, 0, gap
        self.try_exactly(sample)
        self.bits = pair.fractional_bits[pair.network.nodes[0].name]

    @property
    def upper(self) -> float:
        """No error is larger."""
        return max(self.state.worst, self.found)

    def try_exactly(self, sample: Reals) -> None:
        """The exact error at an input, rounded down."""
        error = max(abs(part) for part in exact_error(self.pair, sample))
        rounded = float(error)
        self.found = max(self.found, rounded if rounded <= error else float(np.nextafter(rounded, 0.0)))

    def cut_until(self, most: int, most_cells: int) -> None:
        """Cut until the largest bound is within the gap of what was found, or so many boxes or cells were bounded."""
        boxes, tried = self.state.boxes, 0
        self.measure(boxes.leaves)
        while self.bounded < most and self.tried < most_cells:
            leaves = boxes.leaves
            leaves = leaves[boxes.score[leaves] > (1.0 + self.gap) * self.found]
            if not leaves.size:
                break
            if self.bounded >= 2 * tried:
                tried = self.bounded
                worst = boxes.boxes(leaves[:1], self.box.shape)[0]
                self.try_exactly(falsify(self.pair, worst, evaluations=TRIES).sample)
            self.measure(boxes.cut(leaves[: max(64, leaves.size // 4)][:128]))

    def measure(self, leaves: Indices) -> None:
        """Bound leaves: no bound is larger than that of what they were cut from."""
        boxes = self.state.boxes
        before = boxes.score[leaves].copy()
        self.bounded += leaves.size
        self.state.measure(leaves, self.box.shape)
        boxes.score[leaves] = np.minimum(boxes.score[leaves], before)
        self.try_worst(boxes.boxes(leaves, self.box.shape).center)
        low, high = self.codes(boxes.lower[leaves], boxes.upper[leaves])
        counts = np.prod(high - low + 1.0, axis=1)
        few = (counts <= MOST_CELLS) & (boxes.score[leaves] > (1.0 + self.gap) * self.found)
        if np.any(few):
            self.by_cells(leaves[few], counts[few])

    def try_worst(self, samples: Reals) -> None:
        """The one of these inputs with the largest error."""
        self.try_exactly(samples[np.abs(errors(self.pair, samples)).max(axis=1).argmax()])

    def codes(self, lower: Reals, upper: Reals) -> tuple[Reals, Reals]:
        """The first and last codes that inputs between these ends are rounded to; at a tie, both neighbours."""
        return np.ceil(scaled(lower, self.bits) - 0.5), np.floor(scaled(upper, self.bits) + 0.5)

    def by_cells(self, leaves: Indices, counts: Reals) -> None:
        """Bound leaves cell by cell, where the trained network is nearly linear in them or they have very few cells.

        The fixed-point network has one value in a cell, and the trained one is between two parallel planes.
        """
        boxes, shape = self.state.boxes, self.box.shape
        parts = over_batches(_planes, self.pair.network, boxes.boxes(leaves, shape))
        slopes, lower, upper = (np.concatenate([part[n] for part in parts]) for n in range(3))
        take = ((upper - lower).max(axis=1) <= 0.25 * self.gap * self.found) | (counts <= FEW_CELLS)
        cells = [self.cells(leaf) for leaf in leaves[take].tolist()]
        if not cells:
            return
        owner = np.repeat(np.flatnonzero(take), [len(part) for part in cells])
        codes = np.concatenate(cells)
        self.tried += len(codes)
        fixed = simulate(self.pair, from_codes(codes, self.bits).reshape(-1, *shape)).reshape(len(codes), -1)
        ends = [boxes.lower[leaves][owner], boxes.upper[leaves][owner]]
        low, high = (np.clip(from_codes(codes + shift, self.bits), *ends) for shift in (-0.5, 0.5))
        middle, reach = (
            np.einsum("coi,ci->co", part[owner], x)
            for part, x in ((slopes, 0.5 * (low + high)), (np.abs(slopes), 0.5 * (high - low)))
        )
        slack = ROUNDING * (
            np.abs(fixed) + np.einsum("coi,ci->co", np.abs(slopes)[owner], np.maximum(np.abs(low), np.abs(high)))
        )
        above, below = fixed - middle - lower[owner], middle + upper[owner] - fixed
        bound = (np.maximum(above, below) + reach + slack).max(axis=1)
        found = np.zeros(leaves.size)
        np.maximum.at(found, owner, bound)
        boxes.score[leaves[take]] = np.minimum(boxes.score[leaves[take]], found[take])
        worst = int(bound.argmax())
        if bound[worst] > self.found:
            corners = itertools.product(*zip(low[worst], high[worst], strict=True))
            self.try_worst(np.array(list(corners)).reshape(-1, *shape))

    def cells(self, leaf: int) -> Reals:
        """The codes of a leaf's cells, shape `(cells, inputs)`."""
        ends = self.codes(self.state.boxes.lower[leaf], self.state.boxes.upper[leaf])
        ways = (np.arange(low, high + 1.0) for low, high in zip(*ends, strict=True))
        return np.stack(np.meshgrid(*ways, indexing="ij"), axis=-1).reshape(-1, len(ends[0]))


def _planes(network: Network, boxes: Interval) -> tuple[Reals, Reals, Reals]:
    """Slopes `(boxes, outputs, inputs)` and ends `(boxes, outputs)`: the trained network is between `slope x` plus these."""
    result, arrived = propagate(network, boxes), dict[str, Rows]()
    count, outputs = len(boxes.lower), np.arange(size_of(network.output_shape))
    found = result.forms.enclose(network.output, outputs, difference=False, two_lines=False, arrived=arrived)
    slopes = arrived[network.nodes[0].name].value.reshape(count, outputs.size, -1)
    center, radius, far = (getattr(boxes, name).reshape(count, -1, 1) for name in ("center", "radius", "magnitude"))
    middle, reach, size = (
        (rows @ x)[..., 0] for rows, x in ((slopes, center), (np.abs(slopes), radius), (np.abs(slopes), far))
    )
    slack = ROUNDING * (size + found.magnitude)
    return slopes, found.lower + reach - middle - slack, found.upper - reach - middle + slack


def main():
    """Print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--eps", type=float, nargs="+", default=[1e-1, 1e-3, 1e-5])
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--gap", type=float, default=0.01)
    parser.add_argument("--leaves", type=int, default=20_000)
    parser.add_argument("--cells", type=int, default=20_000_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    print(
        f"{'network':16} {'eps':>6} {'parameters':>10} {'bound':>10} {'found':>10} {'true worst':>24} "
        "bound/true found/true leaves    cells"
    )
    for name, network, box in subjects(options.nets, options.seeds):
        if not options.only or any(part in name for part in options.only):
            for eps in options.eps:
                print(
                    f"{name:16} {eps:>6g} {network.parameter_count:>10} {row(network, box, eps, options)}", flush=True
                )


def row(network, box, eps, options):
    """What is known about one network at one tolerance."""
    try:
        result = sq.quantize(network, eps, (box.lower, box.upper), effort=options.effort)
    except sq.InfeasibleError:
        return "no word length reaches it"
    branching = Branching(result.pair, box, result.observed_input, options.gap)
    branching.cut_until(options.leaves, options.cells)
    bound, found = result.certificate.bound, result.observed_error
    low, high = branching.found, min(branching.upper, bound)
    return (
        f"{bound:>10.4e} {found:>10.4e} {low:>10.4e} .. {high:>10.4e} {bound / low:>10.3f} {found / high:>10.3f} "
        f"{branching.bounded:>6} {branching.tried:>8}{'' if high <= (1.0 + options.gap) * low else ' stalled'}"
    )


if __name__ == "__main__":
    main()
