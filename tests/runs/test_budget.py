"""What a run has spent by its records, and what is left of its budget."""

import dataclasses
import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from helpers import tiny
from raynas.trainables.from_scratch import FromScratch
from raynas.trainables.shared_weights import SharedWeights

from raynas.architecture import key
from raynas.config.loading import load
from raynas.config.run import Config, DataConfig, SearchConfig
from raynas.config.train import TrainConfig
from raynas.exceptions import ConfigError
from raynas.results.log import Log, read
from raynas.runs.budget import Budget, search_seconds, training_seconds
from raynas.runs.run import Run
from raynas.searchers import RandomSearch
from raynas.tune.callback import Recorder, RowDetails
from raynas.tune.spec import EvaluationSpec

START = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_durations(text, seconds):
    assert load(values={"time_budget": text}).time_budget == seconds


@pytest.mark.parametrize("text", ["0", "-1h", "soon", "1.2.3h", "h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError, match="setting time_budget"):
        load(values={"time_budget": text})


def records(folder, gpus=0.0):
    """20 s of training with an interruption of an hour; two workers that score for 30 s, each 20 s of them."""
    curve = folder / "supernet" / "training.jsonl"
    curve.parent.mkdir(parents=True)
    times = [START.timestamp() + seconds for seconds in (0, 10, 3610, 3620)]
    curve.write_text("".join(json.dumps({"time": t, "gpus": gpus, "images_per_second": 100}) + "\n" for t in times))
    with curve.open("a") as file:
        file.write('{"time": 17')  # torn by a kill
    with Log(folder / "scored.parquet") as log:
        for number, (end, worker) in enumerate([(10, "a"), (10, "b"), (30, "a"), (30, "b")]):
            row = {"architecture": {"x": str(number)}, "status": "complete", "fidelity": 1, "seconds": 10.0}
            row |= {"worker": worker, "time": START + timedelta(seconds=5000 + end)}
            log.append(row | ({"gpu_seconds": 10.0 * gpus / 2} if gpus else {}))


def test_what_was_spent_is_read_off_the_records(tmp_path):
    assert Budget(Config(), tmp_path).left is None
    records(tmp_path, gpus=2.0)
    assert training_seconds(tmp_path / "supernet" / "training.jsonl") == pytest.approx((20, 40))
    # From the start of the first score to the last report, idle or not; two workers of one GPU each.
    assert search_seconds(tmp_path / "scored.parquet") == pytest.approx((30, 60))
    by_time = Budget(Config(time_budget="2m"), tmp_path)
    assert by_time.given_seconds == pytest.approx(70) and by_time.left == pytest.approx(70, abs=1)
    assert Budget(Config(time_budget=40), tmp_path).left == 0
    both = Budget(Config(time_budget="2m", budget_gpu_hours=0.05), tmp_path)  # 180 GPU seconds, 100 of them spent
    both.hold(4)
    assert both.left == pytest.approx(20, abs=1)
    both.hold(1)
    assert both.left == pytest.approx(70, abs=1), "time is the tighter one now"


def test_gpu_hours_need_gpus(tmp_path):
    with pytest.raises(ConfigError, match="holds no GPU; bound it by time_budget"):
        Budget(Config(budget_gpu_hours=1), tmp_path).hold(0)


def test_each_score_says_what_it_cost_in_gpu_seconds(tmp_path):
    with Log(tmp_path) as log:
        for gpus in (0.0, 0.5):
            spec = EvaluationSpec(SharedWeights, gpus=gpus, max_fidelity=1)
            recorder = Recorder(log, spec, RowDetails({}, lambda architecture: {}))
            trial = SimpleNamespace(trial_id=f"t{gpus}", config={"architecture": {"x": "a"}})
            recorder.on_trial_result(0, [], trial, {"score": 1.0, "training_iteration": 1, "time_total_s": 3.0})
    rows = read(tmp_path).to_pylist()
    assert [(row["seconds"], row["gpu_seconds"]) for row in rows] == [(3.0, None), (3.0, 1.5)]


def test_gpu_hours_bound_the_training_too(ray_session, tmp_path):
    config = Config(budget_gpu_hours=1, storage_path=str(tmp_path), name="run", train=TrainConfig(epochs=1, workers=1))
    with pytest.raises(ConfigError, match="holds no GPU"):
        Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, SharedWeights).train_supernet()
    assert not (tmp_path / "run" / "supernet").exists()


@pytest.mark.parametrize(("seconds", "busy"), [(900.0, 300.0), (300.0, 300.0)])
def test_what_was_spent_before_a_kill_is_not_spent_again(tmp_path, seconds, busy):
    """A trial that goes on tells all of its seconds; one that had to begin anew tells fewer than before."""
    architecture = {"x": "a"}
    with Log(tmp_path) as log:
        spec = EvaluationSpec(SharedWeights, max_fidelity=3)
        recorder = Recorder(log, spec, RowDetails({}, lambda architecture: {}))
        recorder.remember([], 1, [{"key": key(architecture), "seconds": 600.0}])
        trial = SimpleNamespace(trial_id="t", config={"architecture": architecture})
        recorder.on_trial_result(0, [], trial, {"score": 1.0, "training_iteration": 3, "time_total_s": seconds})
    assert recorder.counts.busy == busy


def test_training_takes_half_of_the_budget(ray_session, tmp_path):
    train = TrainConfig(epochs=100000, batch_size=32, workers=1, cpus_per_worker=1)
    search = SearchConfig(num_samples=3, slices=2, bn_images=64, replicas=1)
    config = Config(train=train, search=search, time_budget=14, storage_path=str(tmp_path), name="short")
    run = Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, SharedWeights)
    run.train_supernet()
    run.close()
    curve = [json.loads(line) for line in (run.folder / "supernet" / "training.jsonl").read_text().splitlines()]
    last = curve[-1]
    assert last["step"] == last["total"] < 100000 * 8, "the schedule was made for the time, and ended"
    assert max(line["total"] for line in curve) <= 100000 * 8
    assert training_seconds(run.folder / "supernet" / "training.jsonl")[0] < 14


@pytest.mark.parametrize(("size", "wanted"), [(None, ["retrain", "report"]), (4, ["report"])])
def test_the_speed_on_smaller_images_does_not_tell_how_long_retraining_takes(ray_session, tmp_path, size, wanted):
    config = Config(
        data=DataConfig(search_size=size),
        train=TrainConfig(epochs=10**6, batch_size=32, workers=1, cpus_per_worker=1),
        time_budget=120,
        storage_path=str(tmp_path),
        name="run",
    )
    run = Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, SharedWeights)
    run.open()
    (run.folder / "supernet").mkdir()
    (run.folder / "supernet" / "training.jsonl").write_text(json.dumps({"images_per_second": 1e9}) + "\n")
    winner = dict.fromkeys(run.decisions, "k3")
    (run.folder / "leaderboard.json").write_text(json.dumps([{"architecture": winner}]))
    assert run.affordable(["retrain", "report"]) == wanted


def test_without_a_supernet_a_few_steps_tell_how_long_retraining_takes(ray_session, tmp_path):
    search = SearchConfig(trainable="trainables.from_scratch:FromScratch")
    for name, epochs, wanted in (("long", 10**6, ["report"]), ("short", 1, ["retrain", "report"])):
        train = TrainConfig(epochs=epochs, batch_size=32, workers=2, cpus_per_worker=1)
        config = Config(train=train, search=search, time_budget=120, storage_path=str(tmp_path), name=name)
        run = Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, FromScratch)
        run.open()
        winner = dict.fromkeys(run.decisions, "k3")
        (run.folder / "leaderboard.json").write_text(json.dumps([{"architecture": winner}]))
        assert run.affordable(["retrain", "report"]) == wanted
    spent = dataclasses.replace(config, time_budget=1e-9)
    assert Run(spent, run.space, tiny.data(), RandomSearch, FromScratch).affordable(["retrain", "report"]) == ["report"]
