"""The command line: exit codes, one line per failure, and nothing written but what was asked for."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras import __version__, cli
from sound_qkeras.backends import Hls4mlProject
from sound_qkeras.cli import BAD_INPUT, FAILED, INFEASIBLE, INTERRUPTED, OK, commands, main
from sound_qkeras.cli import doctor as doctoring
from sound_qkeras.errors import SolverError
from sound_qkeras.jobs import job
from sound_qkeras.jobs import quantize as pipeline
from sound_qkeras.results import archive
from sound_qkeras.results.verdict import verdict
from tests import networks
from tests.pressing import Pressing, ctrl_c_as_usual
from tests.results import content, edit, random_result, reseal

FILES = ["certificate.json", "formats.json", "manifest.json", "network.json", "parameters.npz"]
WITHOUT_TENSORFLOW = "import sys; sys.modules['tensorflow'] = sys.modules['tf_keras'] = None\n"


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A saved result, without its QKeras model."""
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "tf_keras", None)
        return random_result().save(tmp_path / "saved")


@pytest.fixture
def stub(monkeypatch):
    """What is read instead of a Keras file, so that the command line can be tested without TensorFlow."""
    network = networks.random_network(np.random.default_rng(0), (3, 5, 2))
    monkeypatch.setattr(job, "read", lambda *_: network)
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    return network


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with a file that stands for a model."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "model.h5").write_bytes(b"stands for a model")
    return tmp_path / "work"


def failure(capfd, *arguments):
    """Exit code and stderr of a call that fails: one or two lines, and commands where they help; no traceback, no stdout."""
    code = main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    assert code != OK
    assert out == ""
    assert 1 <= len(err.partition("\n\n")[0].splitlines()) <= 2
    assert code == INFEASIBLE or "\n\n" not in err
    assert "Traceback" not in err
    return code, err


def names(directory):
    """What a directory holds, hidden files included."""
    return sorted(entry.name for entry in directory.iterdir())


def quantize_arguments(**changes):
    options = {"eps": "1e-2", "box": ("-1", "1"), "out": "out", "effort": "fast", **changes}
    found = ["quantize", str(options.pop("model", "model.h5"))]
    for name, value in options.items():
        if value is not None:
            found += [f"--{name.replace('_', '-')}", *(value if isinstance(value, tuple) else (value,))]
    return [str(argument) for argument in found]


# Without a command.


def test_version(capfd):
    assert main(["--version"]) == OK
    assert capfd.readouterr().out == f"sound-qkeras {__version__}\n"


@pytest.mark.parametrize("command", [[], ["quantize"], ["demo"], ["verify"], ["report"]])
def test_help(capfd, command):
    assert main([*command, "--help"]) == OK
    assert "Usage: sound-qkeras" in capfd.readouterr().out


def test_no_command_shows_what_there_is(capfd):
    assert main([]) == OK
    out, error = capfd.readouterr()
    assert error == ""
    assert all(name in out for name in ("quantize", "demo", "verify", "Exit codes"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["--dance"],
        ["quantize"],
        ["quantize", "model.h5"],
        ["quantize", "model.h5", "--eps"],
        ["quantize", "model.h5", "--eps", "1", "--box", "1"],
        ["quantize", "model.h5", "--eps", "1", "--margin", "wide"],
        ["quantize", "model.h5", "--eps", "1", "--word-lengths", "2", "many"],
        ["verify"],
    ],
)
def test_usage_errors(capfd, arguments):
    code, err = failure(capfd, *arguments)
    assert code == BAD_INPUT
    assert "--help" in err


def test_the_module_is_light():
    code = "import sys, sound_qkeras.cli; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"tensorflow", "keras", "tf_keras", "qkeras", "pyomo", "numpy"}


# What the system refuses is no bug of ours.

LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["quantize", LONG, "--eps", "1", "--box", "0", "1"],
        quantize_arguments(out=LONG),
        quantize_arguments(box=None, data=LONG),
        quantize_arguments(samples=LONG),
        ["verify", LONG],
        ["report", LONG],
        ["report", "saved", "--to", LONG],
        ["export", LONG, "--to", "source"],
        ["export", "saved", "--to", LONG],
        ["cost", LONG],
        ["certify", LONG, "--box", "0", "1"],
        ["finetune", LONG, "--train", "x.npy", "y.npy"],
        ["finetune", "saved", "--train", "x.npy", "y.npy", "--out", LONG],
        ["compare", LONG, "--train", "x.npy", "y.npy", "--eps", "1"],
        ["demo", "--out", LONG],
    ],
    ids=lambda arguments: "-".join(word[:8] for word in arguments),
)
def test_paths_that_are_too_long(saved, here, monkeypatch, capfd, arguments):
    monkeypatch.chdir(saved.parent)
    (saved.parent / "model.h5").write_bytes(b"stands for a model")
    code, err = failure(capfd, *arguments)
    assert code == BAD_INPUT
    assert "too long" in err
    assert err.startswith("error: ")


@pytest.mark.skipif(os.name == "nt", reason="sets a limit of POSIX")
def test_a_full_disk(saved, tmp_path, capfd, monkeypatch):
    """The system refuses to write more than a few bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    calls = [("export", saved, "--to", tmp_path / "source"), ("report", saved, "--to", tmp_path / "page.html")]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (256, limits[1]))
        found = [failure(capfd, *call) for call in calls]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    for code, err in found:
        assert code == BAD_INPUT
        assert "File too large" in err
        assert "choose another" in err
    assert names(tmp_path) == ["saved"]


# quantize: bad input is found before TensorFlow is loaded.


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"eps": "0"}, "eps is 0"),
        ({"eps": "-1e-3"}, "eps is -0.001"),
        ({"eps": "nan"}, "eps is nan"),
        ({"eps": "inf"}, "eps is inf"),
        ({"eps": "tiny"}, "--eps received 'tiny'"),
        ({"eps": "1e-3,0"}, "positive"),
        ({"box": ("1", "-1")}, "empty"),
        ({"box": ("nan", "1")}, "NaN or infinity"),
        ({"box": ("-inf", "inf")}, "NaN or infinity"),
        ({"box": ("low", "1")}, "--box received 'low'"),
        ({"box": ("-1,-1", "1,1,1")}, "shapes (2,) and (3,)"),
        ({"box": None}, "--box LO HI or --data"),
        ({"data": "x.npy"}, "--box LO HI or --data"),
        ({"box": None, "data": "x.npy"}, "'x.npy' cannot be read (No such file"),
        ({"box": None, "data": "model.h5"}, "not a .npy file"),
        ({"margin": "-1"}, "margin"),
        ({"margin": "nan"}, "margin"),
        ({"model": "nowhere.h5"}, "'nowhere.h5' does not exist"),
        ({"cost": "money"}, "weight_bits"),
        ({"effort": "heroic"}, "fast, normal, max"),
        ({"effort": "-3"}, "seconds"),
        ({"word_lengths": ("8", "4")}, "fewest <= most"),
        ({"solver": "no_such_solver"}, "not available"),
        ({"out": "model.h5"}, "is a file"),
        ({"out": "."}, "current directory"),
        ({"out": "model.h5/deeper"}, "cannot be written"),
    ],
)
def test_bad_input(capfd, here, monkeypatch, changes, says):
    monkeypatch.setattr(job, "read", lambda *_: pytest.fail("the model was read first"))
    code, err = failure(capfd, *quantize_arguments(**changes))
    assert code == BAD_INPUT
    assert says in err
    assert names(here) == ["model.h5"]


def test_an_output_directory_that_is_not_ours_is_refused_before_the_work(capfd, here, monkeypatch):
    monkeypatch.setattr(job, "read", lambda *_: pytest.fail("the model was read first"))
    (here / "out").mkdir()
    (here / "out" / "thesis.tex").write_text("mine", encoding="utf-8")
    code, err = failure(capfd, *quantize_arguments())
    assert (code, names(here / "out")) == (BAD_INPUT, ["thesis.tex"])
    assert "thesis.tex" in err


def test_a_read_only_directory_is_found_before_the_work(capfd, here, monkeypatch, locked):
    monkeypatch.setattr(job, "read", lambda *_: pytest.fail("the model was read first"))
    code, err = failure(capfd, *quantize_arguments(out=str(locked / "out")))
    assert code == BAD_INPUT
    assert "cannot be written" in err


# quantize: what it does.


@pytest.mark.solver
@pytest.mark.slow
@pytest.mark.parametrize("flag", ["round_output", "per_channel"])
def test_quantize_with_formats_of_other_kinds(capfd, here, stub, flag):
    assert main(quantize_arguments(**{flag: ()})) == OK
    capfd.readouterr()
    result = sq.load("out")
    rounded = stub.output.name in result.pair.formats
    own = [codes.channel_formats is not None for codes in result.pair.parameters.values()]
    assert (rounded, all(own), any(own)) == ((True, False, False) if flag == "round_output" else (False, True, True))
    assert main(["verify", "out"]) == OK


@pytest.mark.solver
def test_quantize(capfd, here, stub):
    assert main(quantize_arguments(eps="1e-2", box=("-1,-2,-1e-1", "1"))) == OK
    out, err = capfd.readouterr()
    assert err == ""
    result = sq.load("out")
    assert out.startswith(f"{verdict(result.certificate)}; no overflow\n")
    assert all(row.kind in out for row in result.formats)
    assert result.certificate.box.lower.tolist() == [-1.0, -2.0, float(np.float32(-0.1))]
    assert result.certificate.eps.tolist() == [1e-2, 1e-2]
    sq.check(result.pair, result.certificate)


@pytest.mark.solver
@pytest.mark.parametrize("eps", [["1e-2,2e-2"], ["1e-2", "--eps", "2e-2"]])
def test_one_eps_per_output(here, stub, eps):
    assert main(quantize_arguments(eps=tuple(eps))) == OK
    assert sq.load("out").certificate.eps.tolist() == [1e-2, 2e-2]


@pytest.mark.solver
def test_several_tolerances_are_a_curve(capfd, here, stub):
    """A directory for each, saved as it ends, and one page and one table of all; nothing is lost to what is refused."""
    assert main(quantize_arguments(eps=("0.1,0.2", "1e-2"))) == OK
    assert names(here / "out") == ["eps_0.1,0.2", "eps_1e-2", "report.html"]
    loose, tight = (sq.load(here / "out" / f"eps_{eps}") for eps in ("0.1,0.2", "1e-2"))
    assert [one.certificate.eps.tolist() for one in (loose, tight)] == [[0.1, 0.2], [1e-2, 1e-2]]
    assert tight.cost.weight_bits >= loose.cost.weight_bits
    out = capfd.readouterr().out
    for eps, one in (("0.1,0.2", loose), ("1e-2", tight)):
        assert re.search(
            rf"^ *{eps} .* {one.cost.weight_bits:,} +{one.cost.total_bits:,} .* {one.ended_by} *$", out, re.M
        )
    page = (here / "out" / "report.html").read_text()
    assert "Bits against eps" in page
    assert tight.certificate.digest in page
    assert "a single --eps" in failure(capfd, *quantize_arguments(eps=("1e-1", "0.1")))[1]
    assert "a single --eps" in failure(capfd, *quantize_arguments(eps=("1", "--eps", "2", "3")))[1]
    assert "holds a result" in failure(capfd, *quantize_arguments(eps=("1", "2"), out="out/eps_1e-2"))[1]
    assert "sound_qkeras.sweep" in failure(capfd, *quantize_arguments(eps="1,2,3", out="new"))[1]


@pytest.mark.solver
def test_a_box_from_samples_or_files(here, stub):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.save("x.npy", x)
    assert main(quantize_arguments(box=None, data="x.npy", margin="0.5")) == OK
    certificate = sq.load("out").certificate
    assert (
        certificate.box_source
        == "smallest and largest values of 50 samples in x.npy, widened by 0.5 of its width on every side"
    )
    low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    np.testing.assert_allclose(certificate.box.lower, low - 0.5 * (high - low), rtol=1e-6)
    np.save("low.npy", low)
    assert main(quantize_arguments(box=("low.npy", "9"))) == OK
    certificate = sq.load("out").certificate
    assert (certificate.box.lower.tolist(), certificate.box.upper.tolist()) == (low.tolist(), [9.0] * 3)
    assert certificate.box_source == "given"


@pytest.mark.solver
def test_an_infeasible_request(capfd, here, stub):
    code, err = failure(capfd, *quantize_arguments(eps="1e-9", word_lengths=("2", "6")))
    assert code == INFEASIBLE
    assert "best proved bound" in err
    assert "allow about" in err
    assert "with --word-lengths 2 " in err
    commands = [line.split() for line in err.splitlines() if line.startswith("  sound-qkeras quantize model.h5")]
    assert len(commands) == 2
    assert main(commands[0][1:]) == OK  # the tolerance that is said to be reached is


def test_a_result_in_the_way_survives_every_failure(capfd, here, stub, monkeypatch):
    old = random_result(3)
    old.save("out")
    for error, code in (
        (SolverError("no answer", status="maxTimeLimit"), FAILED),
        (KeyboardInterrupt(), INTERRUPTED),
        (MemoryError("much too large"), FAILED),
        (ZeroDivisionError("a bug\nin two lines"), FAILED),
    ):
        monkeypatch.setattr(pipeline, "quantize", raising(error))
        assert failure(capfd, *quantize_arguments())[0] == code
        assert content(sq.load("out")) == content(old)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_an_interrupt_says_so(capfd, here, stub, monkeypatch):
    monkeypatch.setattr(pipeline, "quantize", raising(KeyboardInterrupt()))
    code, err = failure(capfd, *quantize_arguments())
    assert (code, err) == (INTERRUPTED, "interrupted; 'out' is as it was\n")


def test_a_bug_can_be_seen_on_request(here, stub, monkeypatch):
    monkeypatch.setattr(pipeline, "quantize", raising(ZeroDivisionError("a bug")))
    monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(ZeroDivisionError):
        main(quantize_arguments())


@pytest.mark.solver
def test_a_network_that_does_not_fit_the_arguments(capfd, here, stub):
    for changes, says in (({"eps": "1,2,3"}, "2 outputs"), ({"box": ("0,0", "1")}, "(3,)")):
        code, err = failure(capfd, *quantize_arguments(**changes))
        assert code == BAD_INPUT
        assert says in err


# verify.


def test_verify(capfd, saved):
    assert main(["verify", str(saved)]) == OK
    out, err = capfd.readouterr()
    certificate = sq.load(saved).certificate
    assert out.startswith("verified: ")
    assert err == ""
    assert f"{certificate.bound:.6g}"[:6] in out
    assert "proved for every input in the box" in out


@pytest.mark.slow
def test_verify_needs_no_tensorflow(saved):
    code = WITHOUT_TENSORFLOW + f"from sound_qkeras.cli import main; sys.exit(main(['verify', {str(saved)!r}]))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (OK, "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda document: document.update(bound=1e-9, output_bounds=[1e-9, 1e-9]), "the proved bound is"),
        (lambda document: document.update(eps=[1e-9, 1e-9]), "exceeds the tolerance"),
        (lambda document: document["box"].update(upper=[5.0, 5.0, 5.0]), "refused"),
        (lambda document: document["box"].update(lower=[2.0, 2.0, 2.0]), "empty"),
        (lambda document: document.update(split_tree=[0, -1]), "split tree"),
        (lambda document: document.update(split_tree=[9, -1, -1]), "split tree"),
        (lambda document: document.update(tier="absolute"), "tier"),
        (lambda document: document.update(code_hash="0" * 64), "integers"),
        (lambda document: document.update(weight_hash="0" * 64), "weights"),
        (lambda document: document["ranges"].update(dense_0=[0.0, 0.0]), "dense_0"),
    ],
)
def test_verify_refuses_a_claim_that_does_not_hold(capfd, saved, change, says):
    edit(saved / "certificate.json", change)
    reseal(saved)
    code, err = failure(capfd, "verify", saved)
    assert code in {FAILED, BAD_INPUT}
    assert says in err


def test_verify_refuses_the_certificate_of_other_integers(capfd, saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    other = random_result(5).save(tmp_path / "other")
    (saved / "certificate.json").write_bytes((other / "certificate.json").read_bytes())
    reseal(saved)
    assert failure(capfd, "verify", saved)[0] == FAILED


@pytest.mark.parametrize("name", ["certificate.json", "network.json", "parameters.npz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half"])
def test_verify_says_which_file_is_damaged(capfd, saved, name, damage):
    whole = (saved / name).read_bytes()
    (saved / name).unlink()
    if damage != "missing":
        (saved / name).write_bytes(whole[: len(whole) // 2] if damage == "half" else b"")
    code, err = failure(capfd, "verify", saved)
    assert code == BAD_INPUT
    assert str(saved) in err


def test_verify_needs_a_directory(capfd, tmp_path):
    assert failure(capfd, "verify", tmp_path / "nowhere")[0] == BAD_INPUT


# As a process.


def command(*arguments, **options):
    # The environment a user has: nothing set for TensorFlow.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return [sys.executable, "-P", "-m", "sound_qkeras.cli", *map(str, arguments)], {
        "env": environment,
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **options,
    }


@pytest.fixture(scope="module")
def keras_model(tmp_path_factory):
    """A small Keras model as a file."""
    return small_model("tf_keras", tmp_path_factory.mktemp("model") / "model.h5")


def small_model(package, path):
    keras = pytest.importorskip(package)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    keras.Sequential([layers.Input((3,)), layers.Dense(4, "relu"), layers.Dense(2, "softmax")]).save(path)
    return path


@pytest.mark.keras
@pytest.mark.solver
@pytest.mark.slow
@pytest.mark.parametrize("package", ["tf_keras", "keras"])
def test_the_whole_way_as_a_process(package, tmp_path, tmp_path_factory):
    model = small_model(package, tmp_path_factory.mktemp("model") / "model.keras")
    line, options = command("quantize", model, "--eps", "1e-3", "--box", "-1", "1", "--effort", "fast")
    home, scratch, tmp_path = (tmp_path / name for name in ("home", "scratch", "work"))
    for folder in (home, scratch, tmp_path):
        folder.mkdir()
    places = {name: value for name, value in options["env"].items() if name not in {"KERAS_HOME", "MPLCONFIGDIR"}}
    options["env"] = {**places, "HOME": str(home), "TMPDIR": str(scratch)}
    done = subprocess.run(line, cwd=tmp_path, check=False, **options)
    assert (done.returncode, done.stderr) == (OK, "")
    result = sq.load(tmp_path / "out")
    assert done.stdout.startswith(result.lines[0])
    assert "softmax is set aside" in done.stdout
    assert names(tmp_path / "out") == sorted([*FILES, archive.MODEL_FILE])
    assert names(home) == names(scratch) == []
    line, options = command("verify", "out")
    done = subprocess.run(line, cwd=tmp_path, check=False, **options)
    assert (done.returncode, done.stderr) == (OK, "")
    assert names(tmp_path) == ["out"]


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.parametrize("kind", ["unsupported layer", "nan weights", "truncated", "empty", "text"])
def test_models_that_cannot_be_read(capfd, here, keras_model, kind):
    keras = pytest.importorskip("tf_keras")
    layers, whole = keras.layers, keras_model.read_bytes()
    path = here / "bad.h5"
    if kind == "unsupported layer":
        keras.Sequential([layers.Input((3,)), layers.Dense(4), layers.GroupNormalization(1, name="odd")]).save(path)
    elif kind == "nan weights":
        model = keras.Sequential([layers.Input((3,)), layers.Dense(4, name="broken")])
        model.set_weights([np.full((3, 4), np.nan), np.zeros(4)])
        model.save(path)
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[kind])
    capfd.readouterr()
    code, err = failure(capfd, *quantize_arguments(model="bad.h5"))
    assert code == BAD_INPUT
    words = {"unsupported layer": "odd", "nan weights": "NaN"}
    assert words.get(kind, "bad.h5") in err
    assert names(here) == ["bad.h5", "model.h5"]


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.slow
def test_an_interrupted_process_leaves_nothing(here):
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs inherit that it is ignored
        "from sound_qkeras import cli\nfrom sound_qkeras.jobs import job, quantize as pipeline\n"
        "job.read = lambda model, *_: model\n"
        "pipeline.quantize = lambda *_, **__: (print('ready', flush=True), time.sleep(60))\n"
        f"sys.exit(cli.main({quantize_arguments()!r}))"
    )
    _, options = command()
    process: Any = subprocess.Popen([sys.executable, "-P", "-c", code], cwd=here, **options)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (INTERRUPTED, "", "interrupted; 'out' is as it was\n")
    assert names(here) == ["model.h5"]


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_end_a_command_in_a_word(here, stub, monkeypatch, capfd, name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    monkeypatch.setattr(pipeline, "quantize", lambda *_, **__: (os.kill(os.getpid(), number), time.sleep(30)))
    code, err = failure(capfd, *quantize_arguments())
    assert (code, err) == (128 + number, f"interrupted by {name}; 'out' is as it was\n")
    assert names(here) == ["model.h5"]
    assert signal.getsignal(number) is before


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
@pytest.mark.solver
def test_a_signal_ends_a_search_with_what_was_proved(here, stub, monkeypatch, capfd):
    quantize = pipeline.quantize
    monkeypatch.setattr(
        pipeline,
        "quantize",
        lambda *arguments, progress, **options: quantize(*arguments, progress=Pressing(by=signal.SIGTERM), **options),
    )
    assert main(quantize_arguments()) == 128 + signal.SIGTERM
    assert "search interrupted" in capfd.readouterr().out
    assert sq.load(here / "out").ended_by == "interrupt"


def with_signals(monkeypatch, *, during: tuple[int, ...] = (), after: tuple[int, ...] = ()):
    """A run whose result is there at once; signals come while it is saved, and after that."""

    def send(numbers):
        for number in numbers:
            os.kill(os.getpid(), number)

    def save(result, directory, **options):
        send(during)
        return archive.save(result, directory, **options)

    result = random_result()
    monkeypatch.setattr(type(result), "save", save)
    monkeypatch.setattr(pipeline, "quantize", lambda *_, **__: result)
    show = commands.show
    monkeypatch.setattr(commands, "show", lambda *arguments: (send(after), show(*arguments)))
    return result


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_a_signal_while_a_result_is_put_in_place_waits_for_it(here, stub, monkeypatch, capfd):
    result = with_signals(monkeypatch, during=(signal.SIGHUP,))
    assert main(quantize_arguments()) == 128 + signal.SIGHUP
    out, err = capfd.readouterr()
    assert result.lines[0] in out
    assert "all that was asked for is done" in err
    assert sq.load(here / "out").summary() == result.summary()


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_a_second_signal_does_not(here, stub, monkeypatch, capfd):
    with_signals(monkeypatch, during=(signal.SIGINT, signal.SIGINT))
    with ctrl_c_as_usual():
        code, err = failure(capfd, *quantize_arguments())
    assert (code, err.splitlines()[-1]) == (INTERRUPTED, "interrupted; 'out' is as it was")
    assert names(here) == ["model.h5"]


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_after_that_signals_change_nothing(here, stub, monkeypatch, capfd):
    result = with_signals(monkeypatch, after=(signal.SIGINT, signal.SIGTERM, signal.SIGINT))
    with ctrl_c_as_usual():
        assert main(quantize_arguments()) == OK
    assert result.lines[0] in capfd.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
@pytest.mark.slow
def test_success_is_not_turned_into_death_by_a_late_signal(tmp_path):
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sound_qkeras import cli\n"
        "sys.argv = ['sound-qkeras', '--version']\n"
        "code = cli.main()\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        "    os.kill(os.getpid(), number)\n"
        "sys.exit(code)\n"
    )
    _, options = command()
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=False, **options)
    assert (done.returncode, done.stderr) == (OK, "")


@pytest.mark.keras
@pytest.mark.solver
@pytest.mark.slow
def test_demo(tmp_path):
    line, options = command("demo", "--out", "out")
    started = time.monotonic()
    done = subprocess.run(line, cwd=tmp_path, check=False, **options)
    assert (done.returncode, done.stderr) == (OK, "")
    result = sq.load(tmp_path / "out")
    assert result.certificate.bound <= 1e-3
    assert result.certificate.box_source == "observed on 3840 training batches"
    assert result.lines[0] in done.stdout.splitlines()
    assert "every state was inside the proved box" in done.stdout
    assert time.monotonic() - started < 300.0  # a minute on a machine that does nothing else


# export and cost.


@pytest.mark.hls
@pytest.mark.parametrize("target", ["hls", "c"])
def test_export_is_compiled_and_tested(capfd, saved, tmp_path, target):
    assert main(["export", str(saved), "--to", str(tmp_path / "source"), "--target", target]) == OK
    out, _ = capfd.readouterr()
    assert "0 mismatches" in out
    assert {"src", "tb", "build", "report.json", "README.md"} <= set(names(tmp_path / "source"))


def test_export_builds_a_project_of_hls4ml(capfd, saved, tmp_path, monkeypatch):
    """Named like any other target; what came of it is said in one line."""
    asked = {}

    def build(result, directory, **options):
        asked.update(options, directory=directory)
        return Hls4mlProject(None, directory, 7, 0, 0.0, None)

    monkeypatch.setattr(sq.Result, "to_hls4ml", build)
    assert main(["export", str(saved), "--to", str(tmp_path / "p"), "--target", "hls4ml", "--reuse-factor", "2"]) == OK
    assert capfd.readouterr().out.startswith("hls4ml: bit-exact on 7 samples\n")
    assert asked["reuse_factor"] == 2


def test_export_fails_where_the_project_of_hls4ml_is_not_bit_exact(capfd, saved, tmp_path, monkeypatch):
    project = Hls4mlProject(None, tmp_path / "p", 7, 3, 0.5, "dense_0")
    monkeypatch.setattr(sq.Result, "to_hls4ml", lambda *_, **__: project)
    code, err = failure(capfd, "export", saved, "--to", tmp_path / "p", "--target", "hls4ml")
    assert code == FAILED
    assert "3 of 7 samples differ" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "fpga"], "fpga"),
        (["--style", "rolled"], "rolled"),
        (["--name", "2net"], "2net"),
        (["--reuse-factor", "0"], "--reuse-factor 0"),
        (["--target", "hls4ml", "--input-guard", "saturate"], "--input-guard saturate"),
        (["--target", "hls4ml", "--style", "unrolled"], "--style loops"),
        (["--target", "hls4ml", "--no-test"], "--no-test"),
        (["--target", "c", "--clock-ns", "2"], "--clock-ns 2"),
    ],
)
def test_export_refuses(capfd, saved, tmp_path, arguments, says):
    code, err = failure(capfd, "export", saved, "--to", tmp_path / "source", *arguments)
    assert code == BAD_INPUT
    assert says in err
    assert not (tmp_path / "source").exists()


def test_export_does_not_overwrite_what_is_not_ours(capfd, saved, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "thesis.tex").write_text("years of work")
    code, err = failure(capfd, "export", saved, "--to", tmp_path / "source")
    assert code == BAD_INPUT
    assert "source" in err
    assert names(tmp_path / "source") == ["thesis.tex"]


def test_cost(capfd, saved):
    assert main(["cost", str(saved)]) == OK
    out, err = capfd.readouterr()
    assert err == ""
    assert "multiplier bits" in out
    assert "analytic estimate" in out


def test_report(capfd, saved):
    assert main(["report", str(saved), "--sweep", str(saved)]) == OK
    out, err = capfd.readouterr()
    assert out == f"written to {saved / 'report.html'}\n"
    assert err == ""
    text = (saved / "report.html").read_text(encoding="utf-8")
    assert "Bits against eps" in text
    assert main(["report", str(saved), "--to", str(saved / "deep" / "page.html")]) == OK
    assert main(["verify", str(saved)]) == OK


@pytest.mark.slow
def test_report_needs_no_tensorflow(saved):
    code = WITHOUT_TENSORFLOW + f"from sound_qkeras.cli import main; sys.exit(main(['report', {str(saved)!r}]))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (OK, "")


def test_report_refuses(capfd, saved, tmp_path):
    assert failure(capfd, "report", tmp_path / "nothing")[0] == BAD_INPUT
    (tmp_path / "mine.html").write_text("mine", encoding="utf-8")
    code, err = failure(capfd, "report", saved, "--to", tmp_path / "mine.html")
    assert code == BAD_INPUT
    assert "not written by sound_qkeras" in err
    document = json.loads((saved / "certificate.json").read_text(encoding="utf-8"))
    document.update(bound=1e-9, output_bounds=[1e-9, 1e-9])
    (saved / "certificate.json").write_text(json.dumps(document), encoding="utf-8")
    assert failure(capfd, "report", saved)[0] == BAD_INPUT
    assert not (saved / "report.html").exists()


# doctor.


def test_doctor_says_what_is_there(capfd):
    assert main(["doctor"]) == OK
    out, error = capfd.readouterr()
    assert error == ""
    assert all(text in out for text in ("tensorflow", "solvers", "highs", "tf.keras is Keras 3"))


@pytest.mark.parametrize(
    ("package", "version", "says", "code"),
    [
        ("hls4ml", None, "note: for hls4ml, and ap_types: pip install 'sound-qkeras[hls]'", OK),
        ("pyomo", None, "note: for choosing formats: pip install sound-qkeras", BAD_INPUT),
        ("QKeras", "1.2.0", "note: QKeras is 1.2.0, accepted: 0.9.*", BAD_INPUT),
        ("tf_keras", "2.15.0", "install tf_keras of the same minor version", OK),
    ],
)
def test_doctor_says_what_is_missing_or_wrong(capfd, monkeypatch, package, version, says, code):
    found = doctoring._version
    monkeypatch.setattr(doctoring, "_version", lambda name: version if name == package else found(name))
    assert main(["doctor"]) == code
    assert says in capfd.readouterr().out
