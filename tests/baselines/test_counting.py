"""The rows of the comparison."""

import csv
import io
import json

import numpy as np
import pytest

from sound_qkeras import baselines
from sound_qkeras.baselines import Row
from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.interval import Interval
from tests import networks

ROW = Row("a, b", 10, 2, 3, metric=0.1 + 0.2, bound=1e-300, tier="sound", notes=("One.", 'Two "2".'))


def test_a_row_of_a_candidate_counts_by_hand():
    network = networks.random_network(np.random.default_rng(0), (3, 6, 2))
    box = Interval(*networks.box(network))
    row = Row.of(baselines.uniform(network, box, 5), metric=0.5, tier="sound")
    assert (row.weight_bits, row.bias_bits, row.activation_bits) == (5 * 30, 5 * 8, 5 * 9)
    assert row.bit_operations == 25 * 30
    assert (row.metric, row.tier, row.bound) == (0.5, "sound", None)


def test_rows_survive_json_and_csv():
    assert Row.from_json(json.loads(json.dumps(ROW.to_json()))) == ROW
    (read,) = csv.DictReader(io.StringIO(baselines.to_csv([ROW])))
    assert (read["name"], read["total_bits"], read["notes"]) == ("a, b", "15", 'One. Two "2".')
    assert (float(read["metric"]), float(read["bound"]), read["energy"]) == (ROW.metric, ROW.bound, "")


@pytest.mark.parametrize("change", [{"total_bits": 16}, {"colour": 1}])
def test_rows_that_were_changed_are_refused(change):
    with pytest.raises(FileFormatError):
        Row.from_json({**ROW.to_json(), **change})
    with pytest.raises(FileFormatError):
        Row.from_json({name: value for name, value in ROW.to_json().items() if name != "weight_bits"})


def test_classes():
    outputs = [[0.1, 0.9, 0.0], [2.0, -1.0, 1.0], [0.0, 0.0, 1.0], [5.0, 0.0, 0.0]]
    assert baselines.accuracy(outputs, [1, 0, 2, 1]) == 0.75
    assert baselines.accuracy(outputs, np.eye(3)[[1, 0, 2, 1]]) == 0.75
    assert baselines.accuracy([[0.5], [-0.5]], [[1], [1]]) == 0.5
    assert baselines.agreement(outputs, np.array(outputs) + 10.0) == 1.0
    assert baselines.agreement([[0.5], [-0.5]], [[0.1], [0.1]]) == 0.5
    with pytest.raises(InputError, match="one-hot rows"):
        baselines.accuracy(outputs, [1, 2])
    with pytest.raises(InputError, match="same shape"):
        baselines.agreement(outputs, outputs[:2])


def test_the_pareto_front_is_what_nothing_beats():
    def row(name, bits, metric):
        return Row(name, bits, 0, 0, metric=metric)

    rows = [row("a", 5, 0.7), row("b", 3, 0.6), row("c", 4, 0.6), row("d", 9, 0.9), row("e", 9, 0.8), row("f", 1, None)]
    assert [found.name for found in baselines.pareto_front(rows)] == ["b", "a", "d"]


def test_mean_errors_by_hand():
    outputs, wanted = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 4.0]]
    assert baselines.mean_error(outputs, wanted, "mse") == 13.0 / 4.0
    assert baselines.mean_error(outputs, wanted, "mae") == 5.0 / 4.0
    for bad in ([[1.0, 2.0]], [[[1.0]], [[2.0]]]):
        with pytest.raises(InputError, match="shape"):
            baselines.mean_error(outputs, bad, "mse")
    with pytest.raises(InputError, match="mse or mae"):
        baselines.mean_error(outputs, wanted, "rmse")
