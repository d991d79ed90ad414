"""What results depend on is kept beside them: a change is named wherever it was made."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny

from raynas import results
from raynas.cli.arguments import read_arguments
from raynas.config.fingerprint import changed, recipe_settings, scoring_settings, training_settings
from raynas.config.loading import dump, load
from raynas.config.run import Config, SearchConfig
from raynas.config.train import TrainConfig
from raynas.data.dataset import Dataset
from raynas.data.fingerprint import contents
from raynas.exceptions import ConfigError
from raynas.results.log import Log
from raynas.runs.factory import prepare
from raynas.runs.run import Run
from raynas.training import checkpoint

PATH = {"blocks.0": "k3", "blocks.1": "k1", "blocks.2": "skip"}
CONFIG = Config(search=SearchConfig(method="random"), train=TrainConfig(epochs=2), name="run")


def made(folder: Path, data: Dataset | None = None, config: Config = CONFIG) -> Run:
    config = dataclasses.replace(config, storage_path=str(folder))
    run: Run = prepare(config, space=tiny.Tiny(), data=data or tiny.data())
    return run


def trained(run: Run, step: int = 4) -> Run:
    run.open()
    settings = training_settings(run.config) | {"limits": run.config.limits, "data.contents": contents(run.search_data)}
    checkpoint.write(run.folder / "supernet", step, {}, {"total": 4, "settings": settings})
    return run


def scored(run: Run, settings: bool = True) -> Run:
    run.open()
    with Log(run.folder / "scored.parquet", settings=run.context.settings() if settings else None) as log:
        log.append({"architecture": PATH, "status": "complete", "fidelity": 8, "score": 50.0})
    return run


def edit(run: Run, name: str, value: Any) -> None:
    """Change a setting in config.yaml, as a person does."""
    path = run.folder / "config.yaml"
    path.write_text(dump(load(path, values={name: value})), encoding="utf-8")


def resume(run: Run) -> Config:
    return read_arguments(["report", "--resume", str(run.folder)])[1]


TRAINING = {
    "seed": 1, "data.validation": 0.3, "data.search_size": 16, "train.lr": 7.0, "train.preset": "spos",
    "space_args": {"width": 4}, "train.shrink.every": 3.0,
}  # fmt: skip
SCORING = {"search.slices": 3, "search.bn_images": 64, "search.validation_images": 9, "search.trainable_args": {"x": 1}}


@pytest.mark.parametrize("name", TRAINING)
def test_an_edit_of_what_weights_depend_on_is_refused_by_name(tmp_path: Path, name: str) -> None:
    run = trained(made(tmp_path))
    resume(run)
    edit(run, name, TRAINING[name])
    with pytest.raises(ConfigError, match=rf"{name}.* differ from the settings under which .*set .*back") as caught:
        resume(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*TRAINING, *SCORING])
def test_an_edit_of_what_scores_depend_on_is_refused_by_name(tmp_path: Path, name: str) -> None:
    run = scored(made(tmp_path))
    resume(run)
    edit(run, name, (TRAINING | SCORING)[name])
    with pytest.raises(ConfigError, match=rf"{name}.* architectures in .* were scored \(scored.parquet/part-"):
        resume(run)


@pytest.mark.parametrize(
    ("name", "value"),
    [("search.num_samples", 999), ("train.workers", 3), ("data.folder", "/elsewhere"), ("search.method", "tpe"),
     ("limits", {"macs": 1e9}), ("train.checkpoint_seconds", 5.0), ("retrain.lr", 0.3)],
)  # fmt: skip
def test_other_settings_may_be_edited(tmp_path: Path, name: str, value: Any) -> None:
    run = scored(trained(made(tmp_path)))
    edit(run, name, value)
    resume(run)


def test_limits_stay_while_a_supernet_is_trained(tmp_path: Path) -> None:
    run = trained(made(tmp_path), step=3)
    edit(run, "limits", {"macs": 1e9})
    with pytest.raises(ConfigError, match=r"limits .which paths are trained depends on them"):
        resume(run)


def test_what_a_preset_says_may_be_said_and_the_other_way_round(tmp_path: Path) -> None:
    run = trained(made(tmp_path))
    edit(run, "train.lr", run.config.train.resolved().lr)
    resume(run)


def test_other_labels_under_the_same_name_are_refused(tmp_path: Path) -> None:
    scored(made(tmp_path))
    data = tiny.data()
    made(tmp_path).open()
    targets = data.validation.targets.flip(0)
    other = dataclasses.replace(data, validation=dataclasses.replace(data.validation, targets=targets))
    with pytest.raises(ConfigError, match=r"data.folder or what it holds"):
        made(tmp_path, other).open()
    pixels = dataclasses.replace(data.train, inputs=data.train.inputs.clamp(max=200))
    assert contents(dataclasses.replace(data, train=pixels)) == contents(data), "two readers may differ by a bit"


def test_a_run_of_an_earlier_version_goes_on_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = scored(made(tmp_path), settings=False)
    with pytest.raises(ConfigError, match=r"search.slices"):
        read_arguments(["report", "--resume", str(run.folder), "search.slices=3"])
    with caplog.at_level(logging.WARNING):
        resume(run)
        made(tmp_path).open()
    assert len(caplog.records) == 1 and "earlier version" in caplog.text
    scored(made(tmp_path))  # from now on it is known
    caplog.clear()
    made(tmp_path).open()
    assert not caplog.records
    edit(run, "search.slices", 3)
    with pytest.raises(ConfigError, match=r"search.slices"):
        resume(run)


def test_compaction_keeps_the_settings(tmp_path: Path) -> None:
    run = scored(made(tmp_path))
    scored(run)
    results.compact(run.folder / "scored.parquet")
    (settings,) = results.settings(run.folder / "scored.parquet").values()
    assert settings is not None and not changed(settings, run.context.settings()) and settings["seed"] == 0


def test_a_part_of_another_run_is_refused_by_its_name(tmp_path: Path) -> None:
    run = scored(made(tmp_path / "a"))
    other = scored(made(tmp_path / "b", config=dataclasses.replace(CONFIG, seed=3)))
    (part,) = (other.folder / "scored.parquet").glob("part-*")
    shutil.copy(part, run.folder / "scored.parquet")
    with pytest.raises(ConfigError, match=f"seed .*{part.name}"):
        resume(run)


def test_what_only_one_side_has_tells_nothing() -> None:
    assert changed({"a": 1, "b": [1, 2], "gone": 3}, {"a": 2, "b": (1, 2), "new": 4}) == ["a"]
    assert changed({"space_args": {"width": 8}}, {"space_args": {}}) == ["space_args"]


def test_a_fingerprint_holds_what_counts_and_no_more() -> None:
    config = Config()
    known = scoring_settings(config)
    assert {"seed", "space", "data.validation", "train.lr", "train.pool.size", "search.slices"} <= known.keys()
    assert not {"train.workers", "data.folder", "search.num_samples", "name", "storage_path", "address"} & known.keys()
    assert known["train.lr"] == 0.1 == recipe_settings(config.train)["train.lr"], "of the preset"


def test_a_network_that_was_retrained_by_other_settings_is_kept_aside(tmp_path: Path, no_ray: None) -> None:
    """recipe.json, and where that is damaged the checkpoint, says how a network was retrained."""
    from raynas.training import retrain

    data, recipe = tiny.data(), TrainConfig(epochs=1, preset="small").resolved()
    folder = tmp_path / "retrain" / "key"
    settings = retrain._settings(tiny.Tiny(), data, recipe, 0)
    checkpoint.write(folder, 1, {"x": torch.zeros(1)}, {"seconds": 1.0, "settings": settings})
    finished = '{"test_accuracy": 50.0, "validation_accuracy": 50.0, "epochs": 1, "seconds": 1.0}'
    (folder / "result.json").write_text(finished)
    for damage in ("", "[1]", '{"seed":'):
        (folder / "recipe.json").write_text(damage)
        assert retrain.retrain(tiny.Tiny(), data, recipe, 0, folder)["test_accuracy"] == 50.0
        assert (folder / "recipe.json").read_text() != damage, "it is written anew"
    next(folder.glob("step-*")).unlink()
    (folder / "recipe.json").write_text("{")
    with pytest.raises(ConfigError, match=r"recipe.json is damaged, .* move that folder away"):
        retrain.retrain(tiny.Tiny(), data, recipe, 0, folder)
