"""Plans, ledgers and pages of a comparison; what needs TensorFlow is in tests/keras/test_compare.py."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from sound_qkeras.baselines import Row, to_csv
from sound_qkeras.cli import BAD_INPUT, main
from sound_qkeras.errors import DependencyError, FileFormatError, InfeasibleError, InputError
from sound_qkeras.keras_io.autoqkeras.search import DEFECTS, MODES, SPACES
from sound_qkeras.keras_io.autoqkeras.training import METRICS
from sound_qkeras.study.both_ways import both_ways
from sound_qkeras.study.compare import Study
from sound_qkeras.study.ledger import FOLDER, Ledger, Task, in_words, seconds_left
from sound_qkeras.study.plan import METHODS, PRESETS, TIERS, Plan
from sound_qkeras.study.writing import page
from sound_qkeras.support.resuming import claim
from sound_qkeras.tuning.costs import COSTS

ROW = Row("ours", 10, 2, 3, metric=0.9, bound=0.1, tier="sound", notes=("Said.",))
SAMPLED = Row("ours, statistical", 9, 2, 3, bound=0.123456, observed_error=0.1234, tier="statistical")
SAMPLED = replace(SAMPLED, metric=0.9, probability=3 / 256)
OTHER = Row("uniform 8 bits", 100, 20, 30, metric=0.8)


@pytest.mark.parametrize(
    "change",
    [
        {"methods": ("ours", "guess")},
        {"modes": ("grid",)},
        {"spaces": ("all",)},
        {"eps": ()},
        {"eps": (0.1, -1.0)},
        {"eps": (math.nan,)},
        {"trials": 0},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"bits": (1,)},
        {"metric": "rmse"},
        {"costs": ("luts",)},
        {"our_tiers": ("local",)},
        {"sparsities": (0.5, 1.0)},
        {"sparsities": (0.5,), "epochs": 1},
    ],
)
def test_plans_that_cannot_be_carried_out_are_refused(change):
    with pytest.raises(InputError, match="accepted"):
        Plan(**{"eps": (0.1,), **change})


def test_a_ledger_makes_every_candidate_once(tmp_path):
    begun: list[str] = []
    first = Ledger(tmp_path, begun.append)
    names = "ours, eps 0.1", "uniform"
    with pytest.raises(KeyboardInterrupt):
        first.add(
            [
                Task(names[0], "ours", lambda: [ROW, OTHER]),
                Task(names[1], "uniform", lambda: (_ for _ in ()).throw(KeyboardInterrupt)),
            ]
        )
    second = Ledger(tmp_path, begun.append)
    again = [Task(names[0], "ours", lambda: pytest.fail("made again")), Task(names[1], "uniform", lambda: OTHER)]
    second.add(again)
    assert second.rows == [ROW, OTHER, OTHER]
    assert begun[0] == "1 of 2: ours, eps 0.1"
    assert begun[1] == begun[2] == "2 of 2, less than a minute left: uniform"


def test_what_is_left_takes_as_long_as_others_of_its_method_or_by_epochs():
    ours, other, rule, search = (
        Task(name, method, lambda: ROW, epochs)
        for name, method, epochs in (("a", "ours", 10), ("b", "ours", 10), ("c", "rule", 1), ("d", "autoqkeras", 200))
    )
    assert seconds_left({}, [ours]) is None
    assert in_words(None) == ""
    assert seconds_left({ours: 20.0}, [other, rule, search]) == pytest.approx(20.0 + 2.0 + 400.0)
    assert seconds_left({ours: 20.0, rule: 7.0}, [other, replace(rule, name="e")]) == pytest.approx(27.0)
    words = {30.0: "less than a minute", 80.0: "about 1 minute", 370.0: "about 6 minutes", 9000.0: "about 2 hours"}
    assert {seconds: in_words(seconds) for seconds in words} == {s: f", {text} left" for s, text in words.items()}


def test_a_method_that_refuses_is_recorded_and_stays_so(tmp_path):
    def refuse():
        yield ROW
        raise InfeasibleError("too tight", best_bound=1.0)

    for _ in range(2):
        ledger = Ledger(tmp_path, lambda name: None)
        ledger.add([Task("rule", "rule", refuse)])
        assert ledger.rows == []
        assert ledger.failures == {"rule": "InfeasibleError: too tight"}


def test_what_is_not_installed_is_no_result(tmp_path):
    ledger = Ledger(tmp_path, lambda name: None)
    with pytest.raises(DependencyError):
        ledger.add([Task("a", "rule", lambda: (_ for _ in ()).throw(DependencyError("missing")))])
    ledger.add([Task("a", "rule", lambda: ROW)])
    assert ledger.rows == [ROW]


def test_damaged_rows_are_refused(tmp_path):
    ledger = Ledger(tmp_path, lambda name: None)
    for text in ("{", "{}", '{"rows": [{}]}'):
        (tmp_path / FOLDER / "a.json").write_text(text)
        with pytest.raises(FileFormatError):
            ledger.add([Task("a", "rule", lambda: ROW)])


def test_a_directory_belongs_to_one_piece_of_work(tmp_path):
    claim(tmp_path / "new", "s.json", {"eps": (0.1,), "seed": 1})
    claim(tmp_path / "new", "s.json", {"eps": [0.1], "seed": 1})
    with pytest.raises(InputError, match=r"other settings \(seed, size\)"):
        claim(tmp_path / "new", "s.json", {"eps": [0.1], "seed": 2, "size": 3})
    with pytest.raises(InputError, match="not empty"):
        claim(tmp_path, "s.json", {})


def test_the_page_discloses_what_there_is_to_disclose():
    text = page([OTHER, ROW], {"rule": "too tight"}, 0.95, {"trials": 3})
    assert all(defect in text for defect in DEFECTS)
    assert "| ours * |" in text
    assert "| uniform 8 bits |" in text
    for said in ("0.95", "rule: too tight", "ours: Said.", "trials: 3"):
        assert said in text
    assert text.index("| ours * |") < text.index("| uniform 8 bits |")


def test_a_page_says_what_samples_that_did_not_come_separately_mean():
    for settings, said in (({}, True), ({"separate_validation": True, "separate_test": True}, False)):
        text = page([ROW], {}, 0.95, settings)
        assert ("give validation samples of their own" in text) is said
        assert ("give test samples of their own" in text) is said


@pytest.mark.slow
def test_drawings_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    from sound_qkeras.study.drawing import draw

    draw([ROW, OTHER, Row("mid-rise", 5, 0, 0)], 0.9, tmp_path)
    for name in ("accuracy", "bound", "time"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_takes_several_tolerances_after_one_option(tmp_path, monkeypatch, capsys):
    from sound_qkeras import study

    calls: list[tuple] = []

    def compare(model, *, train, validation, test, eps, **settings):
        calls.append((model, train, validation, test, eps, settings))
        return study.Study((ROW,), {"rule": "too tight"}, 0.5, {}, tmp_path)

    monkeypatch.setattr(study, "compare", compare)
    x, y, model = tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "m.h5"
    np.save(x, np.zeros((3, 2)))
    np.save(y, np.arange(3))
    model.write_bytes(b"stands for a model")
    arguments = ["compare", str(model), "--train", str(x), str(y), "--eps", "1e-1", "1e-2", "1e-3", "--trials", "5"]
    arguments += ["--validation", str(x), str(y), "--sparsities", "0.5,0.8", "--hgq-python", "other/python"]
    assert main([*arguments, "--methods", "ours,rule", "--out", str(tmp_path)]) == 0
    ((given, train, validation, test, eps, settings),) = calls
    assert test is None
    assert validation[1].tolist() == [0, 1, 2]
    assert (given, eps, settings["trials"], settings["methods"]) == (model, [0.1, 0.01, 0.001], 5, ("ours", "rule"))
    assert (settings["sparsities"], settings["hgq_python"]) == ((0.5, 0.8), "other/python")
    assert train[0].shape == (3, 2)
    assert "rule: too tight" in capsys.readouterr().out
    assert settings["preset"] == "full"
    assert not {"epochs", "effort", "tier"} & set(settings)  # what is not given is the preset's
    for wrong, accepted in (
        (["--methods", "guess"], METHODS),
        (["--preset", "slow"], PRESETS),
        (["--bits", "99"], "2 to 16"),
    ):
        assert main([*arguments, *wrong]) == BAD_INPUT
        said = capsys.readouterr().err
        assert (accepted if isinstance(accepted, str) else ", ".join(accepted)) in said
    assert main([*arguments, "nonsense"]) == BAD_INPUT
    assert len(calls) == 1


def test_every_method_has_its_rows():
    from sound_qkeras.study.compare import TASKS

    assert tuple(TASKS) == METHODS


def test_help_lists_what_every_option_accepts(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["compare", "--help"]) == 0
    said = capsys.readouterr().out
    for accepted in (METHODS, MODES, SPACES, METRICS, COSTS, TIERS, tuple(PRESETS)):
        assert all(name in said for name in accepted), accepted


def test_a_preset_gives_way_to_what_is_given():
    quick = Plan.of("quick", [0.1], {"trials": 3})
    assert (quick.trials, quick.effort, quick.modes) == (3, "fast", ("random",))
    assert Plan.of("full", [0.1], {}) == Plan(eps=(0.1,))
    with pytest.raises(InputError, match="accepted: quick, full"):
        Plan.of("slow", [0.1], {})
    with pytest.raises(InputError, match=r"\['trails'\].*trials"):
        Plan.of("quick", [0.1], {"trails": 3})


def test_a_study_is_one_line_and_a_table(tmp_path):
    study = Study((OTHER, ROW, SAMPLED), {"rule": "too tight"}, 0.95, {}, tmp_path)
    assert "\n" not in repr(study)
    assert "3 rows" in repr(study)
    table = study._repr_html_()
    assert table.index("ours, statistical") < table.index("uniform 8 bits")
    assert "exceeded with probability at most 0.0118" in table


@pytest.mark.slow
def test_a_drawing_has_a_title_plain_ticks_and_a_named_line(tmp_path):
    pytest.importorskip("matplotlib")
    study = Study((OTHER, ROW, SAMPLED), {}, 0.95, {}, tmp_path)
    figure = study.plot(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    (axes,) = figure.axes
    figure.canvas.draw()
    assert axes.get_title()
    assert "float network: 0.95" in [text.get_text() for text in axes.texts]
    labels = [tick.get_text() for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_ticklabels(which="both")]
    assert not any("^" in label or "$" in label for label in labels)
    assert len({label for label in labels if label}) > 4


def test_every_number_of_a_row_is_in_the_table():
    (read,) = csv.DictReader(io.StringIO(to_csv([ROW])))
    assert set(read) == set(json.loads(json.dumps(ROW.to_json())))


def test_both_ways_round_is_read_from_the_rows():
    def row(name, bits, metric, seconds, counted=None):
        return Row(name, bits, 0, 0, metric=metric, search_seconds=seconds, autoqkeras_bits=counted)

    search = "AutoQKeras, random, fair space"
    theirs = [row(f"{search}, 1. of 9 trials", 80, 0.8, 100.0), row(f"{search}, 2. of 9 trials", 100, 0.9, 100.0)]
    ours = [
        row("ours, eps 1", 40, 0.9, 10.0, counted=50),
        row("ours, eps 2", 90, 0.91, 2.0),
        row("ours, eps 3", 200, 0.95, 1.0),
    ]
    both = both_ways([*ours, *theirs, OTHER])
    assert [line.startswith(f"{search}: ") for line in both] == [True] * 4
    assert "0.9 with 100 bits" in both[0]
    assert "0.50 of its bits" in both[1]
    assert "50 bits (40 without QKeras)" in both[1]
    assert "'ours, eps 1'" in both[1]
    assert "1/50.0 of its search" in both[2]
    assert "'ours, eps 2'" in both[2]
    assert "0.95 with 200 bits" in both[3]
    assert both[3].endswith("it does not reach that metric.")
    beaten = both_ways([row("ours, eps 9", 300, 0.85, 1.0), *theirs])
    assert "does not reach" in beaten[1]
    assert "none of ours" in beaten[2]
    assert "'AutoQKeras, random, fair space, 2. of 9 trials'" in beaten[3]
    assert both_ways(ours) == both_ways(theirs) == ()
    smaller = row("ours, all families, eps 1", 20, 0.9, 10.0)
    assert both_ways([smaller, *ours, *theirs])[:2] == both[:2]  # fixed point beside fixed point
    shipped = [replace(one, name=one.name.replace("fair", "shipped")) for one in theirs]
    assert "0.20 of its bits" in both_ways([smaller, *ours, *shipped])[1]
    assert both[1] in page([*ours, *theirs], {}, 0.95, {})


def test_the_largest_error_of_samples_is_no_proved_bound():
    text = page([ROW, SAMPLED], {}, 0.9, {})
    header, cells = (
        next(line for line in text.splitlines() if line.startswith(start)) for start in ("| candidate", "| ours, stat")
    )
    column = header.split(" | ").index("proved bound")
    assert cells.split(" | ")[column] == ""
    column = header.split(" | ").index("counted on samples")
    assert cells.split(" | ")[column] == "0.1235, exceeded with probability at most 0.0118"
    theirs = replace(ROW, name="AutoQKeras, random, best 1")
    said = " ".join(both_ways([SAMPLED, theirs]))
    assert "no proved bound; counted: largest error on samples 0.124, exceeded with probability at most 0.0118" in said
    assert "proved bound 0.1 (sound)" in said


def test_rows_of_hgq2_need_a_python_or_a_record(tmp_path, monkeypatch):
    from sound_qkeras.study import hgq2_rows

    looked: list[str] = []
    monkeypatch.setattr(hgq2_rows, "find_hgq2", looked.append)
    (tmp_path / FOLDER).mkdir()
    without, with_one = Plan((0.1,)), Plan((0.1,), hgq_python="/hgq/bin/python", epochs=2)
    assert list(hgq2_rows.hgq2_tasks(None, without, tmp_path)) == looked == []
    (task,) = hgq2_rows.hgq2_tasks(None, with_one, tmp_path)
    assert (task.method, task.epochs, looked) == ("hgq2", 2 * len(hgq2_rows.BETAS), ["/hgq/bin/python"])
    assert with_one.to_json() == replace(with_one, hgq_python=None).to_json()
    recorded = replace(ROW, name="HGQ2, beta 0.1, epoch 2", tier=None, bound=None, ebops=7)
    (tmp_path / FOLDER / "HGQ2.json").write_text(json.dumps({"rows": [recorded.to_json()], "seconds": 1.0}))
    ledger = Ledger(tmp_path, lambda name: pytest.fail("made again"))
    ledger.add(list(hgq2_rows.hgq2_tasks(None, without, tmp_path)))
    assert ledger.rows == [recorded]


def test_a_row_of_hgq2_says_what_it_is(monkeypatch):
    from sound_qkeras.baselines.hgq2 import Answer, Grown
    from sound_qkeras.study import hgq2_rows

    class Some:
        network, test, train, validation = None, (np.zeros((2, 3)), np.array([0, 1])), None, None

        def targets(self, data):
            return data

        def measured(self, outputs):
            return {"metric": float(outputs[0, 0])}

    one = Grown(1e-4, 7, 0.5, 120, 100, 30, 4, 20, 150, 9, 1.5, np.array([[0.75, 0.0]]))
    monkeypatch.setattr(hgq2_rows, "find_hgq2", lambda python: None)
    monkeypatch.setattr(hgq2_rows, "hgq2", lambda *given: Answer("0.2.0", (one,)))
    (task,) = hgq2_rows.hgq2_tasks(Some(), Plan((0.1,), hgq_python="python"), None)
    (row,) = task.make()
    assert (row.name, row.metric, row.total_bits) == ("HGQ2, beta 0.0001, epoch 7", 0.75, 54)
    assert (row.bit_operations, row.ebops, row.training_seconds) == (150, 100, 1.5)
    assert (row.bound, row.tier, row.proved) == (None, None, False)
    assert "nothing is proved" in row.notes[0]
    assert "HGQ2 0.2.0 itself counts 120 EBOPs; 9 weights" in row.notes[1]
    assert "| 150 | 100 |" in page([row], {}, 0.9, {})
