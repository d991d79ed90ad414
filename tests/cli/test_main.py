"""The command line: what it refuses before Ray starts, and how it stops."""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import pytest
import ray

import raynas.cli.main as cli
from raynas import results
from raynas.cli.arguments import read_arguments
from raynas.cli.main import execute, main
from raynas.config.loading import load
from raynas.config.run import Config, SearchConfig
from raynas.exceptions import ConfigError, ExportError, LeaseLostError
from raynas.runs.factory import prepare
from raynas.runs.run import Run
from raynas.training import checkpoint

TINY = ["--space", "helpers.tiny:space", "--data", "helpers.tiny:arrays", "train.epochs=2", "train.batch_size=32"]
PATH = json.dumps({"blocks.0": "k3", "blocks.1": "k1", "blocks.2": "skip"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serach"], "unknown command 'serach'; legal ones: search, .*, export, rank, report, watch, doctor"),
        (["--space", "spaces.shufflenet:sops"], "has no 'sops'; it has: .*spos"),
        (["--space", "nowhere:space"], "cannot import nowhere"),
        (["--space", "spos"], "not of the form package.module:name"),
        (["retrain.space_args.scales=[1]"], "1 width scales given for 6 blocks"),
        (["space_args.widht=3"], "no argument 'widht'; legal ones: .*num_classes"),
        (["retrain.space_args.widht=3"], "no argument 'widht'; legal ones: .*num_classes"),
        (["--data", "imagenet"], "unknown data set 'imagenet'; legal ones: digits"),
        (["--data", "cifar10"], "needs the folder"),
        (["--data", "cifar10", "data.folder=/nowhere/at/all"], "no folder /nowhere/at/all"),
        (["search.method=magic"], "unknown search.method 'magic'; legal ones: random, evolution, tpe"),
        (["search.trainable=yaml:dump"], "'yaml:dump' is no class of ray.tune.Trainable"),
        (["search.method=yaml:dump"], "'yaml:dump' is no class of raynas.searchers.ArchitectureSearcher"),
        (["seed=2024-13-45"], "seed = '2024-13-45'"),
        (["search.method_args.size=3"], "evolution has no 'size'; legal ones: population"),
        (["search.method_args.population=0"], "setting population = 0: input should be greater than or equal to 1"),
        (["search.trainable=trainables.shared_weights:Nothing"], "has no 'Nothing'; it has: .*SharedWeights"),
        (["train.epohcs=3"], "unknown setting 'train.epohcs'; legal ones: preset, epochs"),
        (["limits.flops=3"], "unknown limit 'flops'; legal ones: macs, parameters"),
        (["search.objectives=[flops]"], "unknown objective 'flops'; legal ones: macs, parameters"),
        (
            ["search.objectives=[macs]", "search.method=tpe"],
            "TPE optimizes the score alone, not macs; searchers with several objectives: Bayes, NSGA2, RandomSearch",
        ),
        (["limits.macs=1000"], "macs are .* at least, .* in the median, .* at most"),
        (["train.paths=constrained"], "set limits.macs"),
        (["train.paths=cells"], "of a space that repeats one cell.*set train.paths = uniform"),
        (["--resume", "/nowhere/at/all"], "no run to resume in /nowhere/at/all"),
        (["retrain", "--architecture", '{"blocks.0": "k3"}'], "decision 'blocks.1' is missing"),
        (["export", "--architecture", "{nonsense"], "neither a key, nor JSON, nor a file"),
        (["export"], "run search first"),
        (["storage_path=ftp://bucket/x"], "is no storage; legal: a folder that all nodes mount, s3://bucket/path"),
        (["storage_path=/proc/x"], "cannot write into /proc/x: .*take another --storage-path"),
        (["storage_path=s3:/bucket/x"], "storage_path 's3:/bucket/x' is no storage; legal: .*s3://bucket/path"),
        (["data.limit=1"], "data.limit = 1.*greater than or equal to 2"),
        (
            ["search.loggers=[tensorbord]"],
            "unknown logger 'tensorbord' in search.loggers; legal ones: tensorboard, mlflow",
        ),
        (["search.grace=9"], "search.grace = 9.*legal: 1 to 8"),
        (["search.cohort=4", "search.trainable=trainables.from_scratch:FromScratch"], "search.cohort = 4.*legal: 1"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments, message, tmp_path, capsys, no_ray):
    storage = [] if any("storage_path" in a for a in arguments) else ["--storage-path", str(tmp_path)]
    assert main([*arguments, *storage]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and "\n" not in said
    assert re.search(message, said), said
    assert not any(tmp_path.iterdir())


def test_a_run_that_is_there_is_not_overwritten(tmp_path, capsys, no_ray):
    (tmp_path / "mine").mkdir()
    assert main(["--storage-path", str(tmp_path), "--name", "mine"]) == 2
    assert "add --resume to go on, or take another --name" in capsys.readouterr().err


def test_resume_refuses_settings_that_do_not_fit_the_weights(tmp_path, capsys, no_ray):
    run = prepare(load(None, [f"storage_path={tmp_path}", "name=a"]))
    run.open()
    checkpoint.write(run.folder / "supernet", 1, {}, {"total": 1})
    assert main(["--storage-path", str(tmp_path), "--name", "a", "--resume", "train.lr=7"]) == 2
    assert "train.lr differ from the settings under which" in capsys.readouterr().err


def test_resume_refuses_settings_that_do_not_fit_the_scores(tmp_path, capsys, no_ray):
    run = prepare(load(None, [f"storage_path={tmp_path}", "name=a"]))
    run.open()
    with results.Log(run.folder / "scored.parquet") as log:
        log.append({"architecture": run.costs.sample(random.Random(0)), "status": "running"})
    assert main(["--storage-path", str(tmp_path), "--name", "a", "--resume", "search.slices=3"]) == 2
    assert "search.slices differ from the settings under which the architectures" in capsys.readouterr().err


def test_a_settings_file_that_leaves_the_preset_open_goes_on_with_a_run(tmp_path, no_ray):
    run = prepare(load(None, [f"storage_path={tmp_path}", "name=a"]))
    run.open()
    checkpoint.write(run.folder / "supernet", 1, {}, {"total": 1})
    (tmp_path / "run.yaml").write_text(f"storage_path: {tmp_path}\nname: a\n")
    config = read_arguments(["report", "--config", str(tmp_path / "run.yaml"), "--resume"])[1]
    assert config.train.preset == run.config.train.preset == "small"


def test_a_run_that_cannot_be_sent_has_failed(tmp_path, capsys, no_ray, monkeypatch):
    def refused(run):
        raise OSError("the store refused")

    monkeypatch.setattr(cli, "execute", lambda *arguments: None)
    monkeypatch.setattr(Run, "send", refused)
    assert main([*TINY, "--storage-path", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: the store refused\n")


@pytest.mark.parametrize("error", [ConfigError("9 actors do not fit"), RuntimeError("a worker was lost")])
def test_what_was_computed_is_told_where_something_was(error, tmp_path, capsys, no_ray, monkeypatch):
    def trained(command, run, flags):
        run.open()
        if run.config.name != "early":
            checkpoint.write(run.folder / "supernet", 1, {}, {"total": 1})
        raise error

    monkeypatch.setattr(cli, "execute", trained)
    code = 2 if isinstance(error, ConfigError) else 1
    for name, words, lines in (("early", [], 1), ("late", [], 2), ("late", ["--resume"], 3 - code)):
        assert main([*TINY, "--storage-path", str(tmp_path), "--name", name, *words]) == code
        said = capsys.readouterr().err.splitlines()
        assert re.fullmatch(
            f"error: {error}( .RuntimeError; the traceback is in {tmp_path}/{name}/error.log.)?", said[0]
        )
        assert (code == 1) == ("traceback" in said[0]) and len(said) == lines
        resume = f"python -m raynas.launch --resume {tmp_path}/late"
        assert lines == 1 or said[1].startswith(f"what was computed is kept in {tmp_path}/late; go on with: {resume}")


@pytest.mark.parametrize("kind", [TypeError, RuntimeError, ValueError, KeyError, AttributeError, AssertionError])
def test_a_bug_is_no_bad_input_and_its_traceback_is_kept(kind, tmp_path, capsys, no_ray, monkeypatch):
    def stumble(*arguments, **options):
        raise kind("forgotten")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "prepare", stumble)  # before there is a folder of the run
    assert main([*TINY, "--storage-path", str(tmp_path), "--name", "mine"]) == 1
    said = capsys.readouterr().err.strip()
    (file,) = tmp_path.glob("raynas-*/error.log")
    assert said.startswith("error: ") and "\n" not in said and kind.__name__ in said and str(file) in said
    assert "in stumble" in file.read_text() and "forgotten" in file.read_text()

    monkeypatch.undo()
    monkeypatch.setattr(ray, "init", stumble)
    monkeypatch.setattr(cli, "execute", lambda command, run, flags: (run.open(), stumble()))
    assert main([*TINY, "--storage-path", str(tmp_path), "--name", "mine"]) == 1
    said = capsys.readouterr().err.strip()
    assert f"the traceback is in {tmp_path}/mine/error.log" in said
    assert "in stumble" in (tmp_path / "mine" / "error.log").read_text()


def test_bad_input_leaves_no_log_file(tmp_path, capsys, no_ray, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for words in (["train.epohcs=3"], ["retrain", "--architecture", str(tmp_path / "binary")], ["search.mode=min"]):
        assert main([*TINY, "--storage-path", str(tmp_path), *words]) == 2
        assert "traceback" not in capsys.readouterr().err
    assert not any((tmp_path / "temporary").iterdir())


def test_more_actors_than_fit_are_refused_before_anything_is_computed(tmp_path, capsys, ray_session):
    words = ["--storage-path", str(tmp_path), "search.replicas=9", "train.gpus_per_worker=1", "after=[]"]
    assert main([*TINY, *words]) == 2
    said = capsys.readouterr().err.strip()
    assert "9 actors of 1 CPUs and 1 GPUs do not fit into the cluster" in said and "\n" not in said


@pytest.mark.slow
def test_a_token_that_is_not_there_is_one_line(tmp_path):
    line = [sys.executable, "-m", "raynas.launch", *TINY, "--storage-path", str(tmp_path)]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, env={**os.environ, **token})
    assert done.returncode == 2, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "none" in line]
    assert said.startswith("error: Ray does not start here: RAY_AUTH_TOKEN_PATH is set but file cannot be opened")
    assert "Traceback" not in done.stderr and "what was computed" not in done.stderr


def test_a_dry_run_tells_the_space_and_starts_nothing(tmp_path, capsys, caplog, no_ray):
    assert main([*TINY, "--storage-path", str(tmp_path), "--dry-run", "limits.parameters=1000"]) == 0
    said = capsys.readouterr().out
    assert "27 architectures, 3 decisions" in said and "at least" in said and "in the median" in said
    assert "parameters <= 1,000; they can be met" in said and "images right at first" in said
    assert not caplog.records
    assert not any(tmp_path.iterdir())


SETTINGS = """after=[] train.workers=1 train.checkpoint_seconds=0.01
search.replicas=1 search.bn_images=1600 search.validation_images=64 search.batch_size=2"""


def _line(folder, command, *arguments):
    line = [sys.executable, "-m", "raynas.launch", command, *TINY, "--storage-path", str(folder), "--name", "run"]
    return [*line, *SETTINGS.split(), *arguments]


def _wait(condition, process, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


@pytest.fixture
def quiet_ray():
    """Two clusters on one small machine get into each other's way."""
    if ray.is_initialized():
        ray.shutdown()


def _listen_to_ctrl_c():
    """A shell lets what it starts in the background ignore Ctrl-C, and so would all that these tests start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("number", "begun", "command", "arguments"),
    [
        # What schedulers and clouds send before they take the machine away.
        (signal.SIGTERM, "supernet/training.jsonl", "search", ["train.epochs=900", "train.checkpoint_seconds=1000"]),
        (signal.SIGINT, "scored.parquet/*.parquet", "search", ["search.num_samples=27"]),
        (signal.SIGINT, "retrain/*/step-*.safetensors", "retrain", ["--architecture", PATH, "retrain.epochs=2000"]),
    ],
)
def test_ctrl_c_and_sigterm_stop_cleanly_and_say_how_to_go_on(tmp_path, quiet_ray, number, begun, command, arguments):
    with subprocess.Popen(
        _line(tmp_path, command, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_listen_to_ctrl_c,
    ) as process:
        _wait(lambda: list((tmp_path / "run").glob(begun)), process)
        process.send_signal(number)
        _, said = process.communicate(timeout=200)
    assert process.returncode == 128 + number
    assert f"go on with: python -m raynas.launch --resume {tmp_path / 'run'}" in said
    assert "Traceback" not in said
    (weights,) = (tmp_path / "run").glob("retrain/*" if command == "retrain" else "supernet")
    assert checkpoint.latest(weights)[0] > 0


def test_the_first_run_in_small_finds_a_network_and_writes_it(tmp_path, quiet_ray):
    line = [sys.executable, "-m", "raynas.launch", "--smoke-test", "--storage-path", str(tmp_path), "limits.macs=9e6"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, env={**os.environ, "COLUMNS": "120"})
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    best = json.loads((folder / "leaderboard.json").read_text())
    assert best[0]["macs"] <= 9e6 and best[0]["final_score"] >= best[-1]["final_score"]
    assert len(list(folder.glob("export/*/model.py"))) == 1 and (folder / "report.html").exists()
    assert "% on the test images" in done.stdout


def test_the_searcher_fits_what_a_score_takes():
    assert prepare(Config(name="x")).config.search.method == "evolution"
    search = SearchConfig(trainable="trainables.from_scratch:FromScratch")
    assert prepare(Config(name="x", search=search)).config.search.method == "bayes"


@pytest.mark.parametrize(
    ("step", "error", "reported"),
    [
        ("export", ExportError("onnx needs onnxscript"), True),
        ("export", OSError(28, "No space left on device"), True),
        ("retrain", RuntimeError("the loss is not finite"), True),
        ("retrain", LeaseLostError("another process has resumed the run"), False),
    ],
)
def test_a_last_step_that_fails_leaves_the_page_and_the_exit_code(monkeypatch, step, error, reported):
    """The report is written first, then the error is raised; not in a folder that is another process's now."""
    said = []

    def fail(architecture):
        raise error

    storage = SimpleNamespace(check=lambda: None, shown=str)
    steps = {"retrain": lambda architecture: None, "export": lambda architecture: None, step: fail}
    run = SimpleNamespace(
        config=SimpleNamespace(after=["retrain", "export", "report"]), view=SimpleNamespace(say=said.append),
        place="here", folder=None, open=lambda: None, search=lambda: None, affordable=list, has_network=True, best=dict,
        report=lambda: "report.html", context=SimpleNamespace(storage=storage, networks=None), **steps,
    )  # fmt: skip
    monkeypatch.setattr("raynas.cli.main.connect", lambda *_: None)
    monkeypatch.setattr("raynas.cli.main.check_room_to_retrain", lambda context: None)
    flags = argparse.Namespace(dashboard_host=None, dashboard=False, verbose=True, architecture=None)
    with pytest.raises(type(error), match=re.escape(str(error))):
        execute("search", run, flags)
    assert (said[-1] == "report: report.html") == reported
