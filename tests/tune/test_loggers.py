"""What TensorBoard, MLflow and W&B hear of a search: one record for all of it, a step for each architecture."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from ray.tune.logger import LoggerCallback
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from raynas.config.run import Config, SearchConfig
from raynas.exceptions import ConfigError
from raynas.progress import SearchStatus
from raynas.tune.loggers import check_loggers, listening


def status(scored: int, best: float) -> SearchStatus:
    return SearchStatus(scored, 0, 3, {}, 0, best, (4, 4), {}, 1.0, 1.0, 0.0)


ROWS = (
    ({"status": "stopped", "fidelity": 1, "score": 40.5, "macs": 2000, "metrics": {"accuracy": 40.5}}, status(1, 40.5)),
    ({"status": "complete", "fidelity": 4, "score": 71.25, "macs": 3000, "metrics": {"note": "x"}}, status(2, 71.25)),
    ({"status": "error", "fidelity": 0, "error": "it failed"}, status(3, 71.25)),
)


def log(folder: Path, *names: str) -> None:
    config = Config(name="my-run", search=SearchConfig(loggers=list(names)))
    check_loggers(config.search.loggers)
    with listening(config, folder) as heard:
        assert heard is not None
        for row, told in ROWS:
            heard(row, told)


def events(file: Path) -> list[Event]:
    """The records of an event file: length, checksum, content, checksum."""
    data, found = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        content, check = data[12 : 12 + length], int.from_bytes(data[12 + length : 16 + length], "little")
        assert masked_crc32c(content) == check
        found.append(Event.FromString(content))
        data = data[16 + length :]
    return found


class Kept(LoggerCallback):
    """A logger of one's own."""

    heard: list[Any] = []  # noqa: RUF012 made anew by the test

    def log_trial_start(self, trial: Any) -> None:
        self.heard += [("start", str(trial), trial.config["name"])]

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self.heard += [(iteration, result)]

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self.heard += ["end"]


class Broken(LoggerCallback):
    """A tracking server that is gone after the first step."""

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        if iteration > 1:
            raise OSError("no route to host")


class Mute(LoggerCallback):
    def setup(self, *arguments: Any, **keywords: Any) -> None:
        raise OSError("no\nserver")


def test_tensorboard_has_a_step_for_each_architecture_in_one_file(tmp_path: Path) -> None:
    log(tmp_path, "tensorboard")
    (file,) = (tmp_path / "loggers").glob("[!.]*")
    found: dict[str, dict[int, float]] = {}
    for event in events(file):
        for value in event.summary.value:
            found.setdefault(value.tag.removeprefix("ray/tune/"), {})[event.step] = value.simple_value
    assert found["score"] == {1: 40.5, 2: 71.25} and found["best_score"] == {1: 40.5, 2: 71.25, 3: 71.25}
    assert found["fidelity"] == {1: 1, 2: 4, 3: 0} and found["macs"] == {1: 2000, 2: 3000}
    assert found["metrics/accuracy"] == {1: 40.5} and found["stopped"] == {1: 1, 2: 0, 3: 0}
    assert found["failed"] == {1: 0, 2: 0, 3: 1}


def test_a_logger_of_ones_own_and_one_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Kept.heard = []
    log(tmp_path, f"{__name__}:Broken", f"{__name__}:Kept")
    assert Kept.heard[0] == ("start", "my-run", "my-run") and Kept.heard[-1] == "end"
    assert [step for step, _ in Kept.heard[1:-1]] == [1, 2, 3]
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in Kept.heard[2][1].values())
    assert [record.getMessage() for record in caplog.records] == [
        f"search.loggers: {__name__}:Broken is left out from now on: OSError: no route to host"
    ]


@pytest.mark.slow
def test_mlflow_has_one_run_with_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log(tmp_path, "mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raynas")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("my-run", "FINISHED")
    assert run.data.params["search/num_samples"] == "200"
    history = client.get_metric_history(run.info.run_id, "best_score")
    assert [(point.step, point.value) for point in history] == [(1, 40.5), (2, 71.25), (3, 71.25)]


def written(file: Path) -> list[Any]:
    """The records of W&B's own file: after seven bytes each with its checksum, length, and a byte for its kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, found = file.read_bytes()[7:], []
    while data:
        length = int.from_bytes(data[4:6], "little")
        found.append(Record.FromString(data[7 : 7 + length]))
        data = data[7 + length :]
    return found


@pytest.mark.slow
def test_wandb_has_one_run_with_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """W&B writes from a process of its own, which takes its time to start and to end on a busy machine."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "200")
    monkeypatch.setattr("raynas.tune.loggers._TIMEOUT", 200.0)
    log(tmp_path, "wandb")
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("raynas")]
    (file,) = (tmp_path / "loggers").glob("wandb/offline-run-*/*.wandb")
    records = written(file)
    (run,) = (record.run for record in records if record.HasField("run"))
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.display_name, run.project, settings["search"]["num_samples"]) == ("my-run", "raynas", 200)
    history = [record.history for record in records if record.HasField("history")]
    told = [{"/".join(item.nested_key): json.loads(item.value_json) for item in one.item} for one in history]
    assert [(one.step.num, step["best_score"]) for one, step in zip(history, told, strict=True)] == [
        (1, 40.5),
        (2, 71.25),
        (3, 71.25),
    ]
    assert told[0]["metrics/accuracy"] == 40.5 and told[1]["macs"] == 3000
    assert any(record.HasField("exit") for record in records)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tensorbord",
            "unknown logger 'tensorbord' in search.loggers; legal ones: tensorboard, mlflow, wandb, optuna",
        ),
        ("yaml:dump", "search.loggers: 'yaml:dump' is no class of ray.tune.logger.LoggerCallback"),
        ("nowhere.at:All", "search.loggers 'nowhere.at:All': cannot import nowhere.at"),
        (f"{__name__}:Mute", f"search.loggers: {__name__}:Mute cannot start: OSError: no server"),
    ],
)
def test_what_cannot_log_is_one_clear_line(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        log(tmp_path, name)


def test_a_missing_package_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raynas.tune.loggers.find_spec", lambda name: None)
    for name in ("mlflow", "wandb"):
        with pytest.raises(ConfigError, match=f"{name} needs a package that is missing: pip install {name}"):
            check_loggers([name])
