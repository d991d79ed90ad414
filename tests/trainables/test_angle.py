"""Searches by angle over a supernet that learned random labels: real actors and Tune trials, small."""

import dataclasses
import json

import pytest
import torch
from helpers import tiny
from raynas.trainables.angle import Angle
from raynas.trainables.shared_weights import SharedWeights

from raynas import results
from raynas.config.run import Config, SearchConfig
from raynas.config.train import TrainConfig
from raynas.exceptions import AngleError, CheckpointError, ConfigError
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.runs.phases.sample import references
from raynas.runs.run import Run
from raynas.searchers import RandomSearch
from raynas.training import checkpoint
from raynas.training.path_sampling import UniformPaths
from raynas.training.trainer import Trainer, model_tensors

pytestmark = pytest.mark.usefixtures("ray_session")

CONFIG = Config(
    train=TrainConfig(epochs=4, batch_size=32, workers=1, cpus_per_worker=1, labels="random", checkpoint_seconds=0.01),
    search=SearchConfig(trainable="trainables.angle:Angle", num_samples=12, cohort=5, top=3),
    name="run",
)


def make(folder, space=None, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, storage_path=str(folder), **changes)
    return Run(config, space or tiny.space(num_classes=4), tiny.data(), RandomSearch, Angle).load()


def test_a_search_by_angle_over_random_labels(tmp_path):
    run = make(tmp_path)
    begin = {name: value.clone() for name, value in run.space.state_dict().items()}
    best = run.search()
    run.close()
    kept = checkpoint.read_initial(run.folder / "supernet")
    assert kept.keys() == begin.keys() and all(torch.equal(kept[name], begin[name]) for name in kept)

    step, tensors, _ = checkpoint.latest(run.folder / "supernet")
    alone = Trainer(tiny.space(num_classes=4), tiny.data(), CONFIG.train, UniformPaths(decisions(run.space)))
    assert step == 32 and torch.equal(tensors["labels"].long(), alone.loader.targets)
    assert not torch.equal(alone.loader.targets, run.data.train.targets)

    rows = results.read(run.folder / "scored.parquet").to_pylist()
    assert len(rows) == 12 and {row["status"] for row in rows} == {"complete"}
    now = model_tensors(tensors)
    for row in rows:
        subnet = derive(run.space, json.loads(row["architecture"]))
        names = {id(p): name for name, p in run.space.named_parameters()}
        vectors = []
        for state in (begin, now):
            parts = [state[names[id(p)]].flatten() for p in subnet.parameters() if not frozen(run.space, p)]
            skips = list(json.loads(row["architecture"]).values()).count("skip")
            vectors.append(torch.cat([*parts, *[torch.eye(8).flatten()] * skips]).double())
        cosine = torch.nn.functional.cosine_similarity(*vectors, dim=0)
        assert row["score"] == pytest.approx(float(torch.rad2deg(torch.acos(cosine))), abs=1e-4)
        assert 1 < row["score"] < 90
    assert best[0]["final_score"] == max(row["score"] for row in rows)
    with pytest.raises(ConfigError, match=r"learned labels drawn by chance.*run retrain first"):
        run.network(best[0]["architecture"])


def frozen(space, parameter):
    """Whether it belongs to a BatchNorm, which a supernet does not train; here they are all in options."""
    norms = (module for module in space.modules() if isinstance(module, torch.nn.BatchNorm2d))
    return any(parameter is own for module in norms for own in module.parameters())


def test_a_supernet_without_initial_weights_is_refused(tmp_path):
    run = make(tmp_path, train=dataclasses.replace(CONFIG.train, epochs=1))
    run.train_supernet()
    (run.folder / "supernet" / "initial.safetensors").unlink()
    with pytest.raises(CheckpointError, match="train it again in a new run"):
        run.search()
    run.close()


def test_what_cannot_be_scored_is_refused_before_anything_starts(tmp_path):
    space = tiny.space(num_classes=4)
    space.blocks[1].skip = torch.nn.Hardtanh()
    with pytest.raises(AngleError, match=r"option 'skip' of 'blocks\.1' has no weights"):
        make(tmp_path, space)
    with pytest.raises(ConfigError, match="has no 'file'; legal ones: none"):
        make(tmp_path, search=dataclasses.replace(CONFIG.search, trainable_args={"file": "x"}))
    assert not any(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"trainables\.angle:Angle reports no 'accuracy'; legal ones: angle"):
        make(tmp_path, search=dataclasses.replace(CONFIG.search, combine={"accuracy": 1.0, "angle": 1.0}))
    assert not any(tmp_path.iterdir())
    checkpoint.write(tmp_path / "run" / "supernet", 3, {"model/x": torch.zeros(1)}, {"total": 32})
    for trainable, combine in ((Angle, {}), (SharedWeights, {"accuracy": 1.0, "angle": 1.0})):
        config = dataclasses.replace(CONFIG, storage_path=str(tmp_path))
        config = dataclasses.replace(config, search=SearchConfig(combine=combine))
        with pytest.raises(CheckpointError, match="train it again in a new run"):
            Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, trainable).load()


def test_angle_and_accuracy_make_one_score_whose_scale_stays(tmp_path):
    search = SearchConfig(
        combine={"accuracy": 1.0, "angle": 1.0}, reference=10, num_samples=6, slices=2, bn_images=64, replicas=1,
    )  # fmt: skip

    def combined(count, **changes):
        torch.manual_seed(0)
        config = dataclasses.replace(CONFIG, storage_path=str(tmp_path), **changes)
        config = dataclasses.replace(config, search=dataclasses.replace(search, num_samples=count))
        return Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, SharedWeights)

    run = combined(6)
    run.search()
    run.close()
    kept = json.loads((run.folder / "reference.json").read_text())
    ranks = references(kept["sample"], search.combine)
    assert len(kept["sample"]) == 10 and set(ranks) == {1, 2}
    half = run.costs.profile()["macs"].median
    again = combined(12, limits={"macs": [half, None]})
    again.search()
    again.close()
    assert json.loads((run.folder / "reference.json").read_text()) == kept
    rows = results.read(run.folder / "scored.parquet").to_pylist()
    angles = again.angles()
    assert len({row["key"] for row in rows}) > 6
    for row in rows:
        told, architecture = json.loads(row["metrics"]), json.loads(row["architecture"])
        assert told["angle"] == pytest.approx(angles([architecture])[0])
        assert row["score"] == pytest.approx(ranks[row["fidelity"]](told))
