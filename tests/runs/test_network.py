"""Whole searches on real actors and real Tune trials, small."""

import dataclasses
import importlib.util
import json
import shutil
from collections import Counter

import pytest
import torch
from helpers import tiny
from helpers.plain import Broken, Counting
from raynas.trainables.from_scratch import FromScratch
from raynas.trainables.shared_weights import SharedWeights

from raynas import results
from raynas.architecture import enumerate_all
from raynas.config.run import Config, DataConfig, SearchConfig
from raynas.config.train import TrainConfig
from raynas.evaluation.scorer import Scorer
from raynas.exceptions import ConfigError, InfeasibleError
from raynas.nn.choice import Choice
from raynas.runs.budget import training_seconds
from raynas.runs.run import Run
from raynas.search_space.space import SearchSpace
from raynas.searchers import TPE, Evolution, EvolutionSettings, RandomSearch
from raynas.training import checkpoint
from raynas.training.trainer import model_tensors
from raynas.tune.experiment import LoggedHistory

pytestmark = pytest.mark.usefixtures("ray_session")

RESULT = {"test_accuracy": 50.0, "validation_accuracy": 50.0, "epochs": 1.0}
SEARCH = SearchConfig(num_samples=10, slices=4, bn_images=64, batch_size=32, replicas=1, max_concurrent=2, top=3)
CONFIG = Config(
    train=TrainConfig(epochs=2, batch_size=32, workers=1, cpus_per_worker=1),
    search=SEARCH,
    limits={"parameters": 1000},
    name="run",
)


def make(folder, searcher=RandomSearch, trainable=SharedWeights, data=None, hold="", **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, storage_path=str(folder), **changes)
    return Run(config, tiny.space(num_classes=4, hold=hold), data or tiny.data(), searcher, trainable)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run whose supernet is trained, for tests of what follows."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def trained_path(trained, ray_session, tmp_path):
    """A storage path with a copy of it: a search there trains nothing."""
    if not trained.exists():
        run = make(trained.parent)
        run.train_supernet()
        run.close()
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path


def with_search(**changes):
    return dataclasses.replace(SEARCH, **changes)


def log(run):
    return results.read(run.folder / "scored.parquet").to_pylist()


def check_log(run, ended):
    """What every search must keep: the number, the limits, and that nothing was scored twice."""
    rows = log(run)
    last = {row["key"]: row for row in rows}
    assert sum(row["status"] != "running" for row in last.values()) == ended
    assert all(row["parameters"] <= 1000 for row in rows)
    reports = Counter((row["key"], row["fidelity"]) for row in rows if row["status"] in ("running", "complete"))
    assert set(reports.values()) == {1}, reports
    return last


def test_a_search_keeps_its_budget_scores_nothing_twice_and_ranks_exactly(tmp_path):
    run = make(tmp_path)
    best = run.search()
    last = check_log(run, ended=10)
    assert any(row["status"] == "stopped" and row["fidelity"] < 4 for row in last.values()), "ASHA stopped no one"
    complete = [row for row in last.values() if row["status"] == "complete"]
    assert complete and all(row["fidelity"] == row["max_fidelity"] == 4 for row in complete)
    row = complete[0]
    metrics = json.loads(row["metrics"])
    assert row["score"] == pytest.approx(100 * metrics["correct"] / metrics["images"]) and metrics["images"] == 64
    assert row["macs"] == run.costs(json.loads(row["architecture"]))["macs"] and row["worker"] == "supernet-0"

    space = tiny.space(num_classes=4)
    space.load_state_dict(model_tensors(checkpoint.latest(run.folder / "supernet")[1]))
    judge = Scorer(space, tiny.data(), with_search(slices=1))
    assert [row["final_score"] for row in best] == sorted((row["final_score"] for row in best), reverse=True)
    for row in best:
        tally = judge.score([row["architecture"]], 0)[0]
        assert row["final_score"] == pytest.approx(100 * tally["correct"] / tally["images"])
    assert run.best() == best[0]["architecture"]
    run.close()


def test_a_search_on_smaller_images_counts_and_retrains_on_those_of_the_data(tmp_path, monkeypatch):
    data, small = tiny.data(), DataConfig(search_size=4)
    config = dataclasses.replace(CONFIG, storage_path=str(tmp_path), limits={}, data=small)
    run = Run(config, tiny.space(num_classes=4), data, RandomSearch, SharedWeights)
    best = run.search()[0]
    seen = data.resized(4)
    assert str(run.search_data) == str(seen) == "images of shape [1, 4, 4]"
    assert torch.equal(run.search_data.train.inputs, seen.train.inputs)
    run.space.load_state_dict(model_tensors(checkpoint.latest(run.folder / "supernet")[1]))
    scorer = Scorer(run.space, seen, with_search(slices=1))
    (tally,) = scorer.score([best["architecture"]], 0)
    assert best["final_score"] == pytest.approx(100 * tally["correct"] / tally["images"])
    whole = make(tmp_path / "whole", limits={}).costs
    assert all(row["macs"] == whole(json.loads(row["architecture"]))["macs"] for row in log(run))
    given = []
    module = "raynas.runs.phases.retraining"
    monkeypatch.setattr(f"{module}.retrain", lambda network, data, *rest: given.append(data) or RESULT)
    run.retrain(best["architecture"])
    assert given == [data]


def test_a_trained_supernet_is_searched_again_without_training(trained_path):
    first = make(trained_path)
    first.search()
    trained = checkpoint.latest(first.folder / "supernet")
    before = log(first)
    first.close()

    wider = make(
        trained_path, small_evolution, search=with_search(num_samples=15), limits={"parameters": 1000, "macs": 12000}
    )
    admitted = {
        row["key"]
        for row in before
        if row["status"] != "running" and row["parameters"] <= 1000 and row["macs"] <= 12000
    }
    wider.search()
    wider.close()
    again = checkpoint.latest(wider.folder / "supernet")
    assert again[0] == trained[0] and all(torch.equal(again[1][n], t) for n, t in trained[1].items())
    rows = log(wider)
    assert rows[: len(before)] == before
    new = {row["key"] for row in rows[len(before) :]}
    assert all(row["macs"] <= 12000 for row in rows[len(before) :])
    assert not new & {row["key"] for row in before}
    assert len(new) == 15 - len(admitted)


@pytest.mark.parametrize("searcher", [TPE, RandomSearch])
def test_an_exhausted_space_ends_the_search(trained_path, searcher):
    run = make(
        trained_path, searcher, search=with_search(num_samples=500, scheduler="none"), limits={"parameters": 300}
    )
    run.search()
    run.close()
    rows = log(run)
    fitting = [a for a in _everything(run) if run.costs(a)["parameters"] <= 300]
    assert len({row["key"] for row in rows}) == len(fitting) < 27
    assert all(row["parameters"] <= 300 for row in rows)


def _everything(run):
    return enumerate_all(run.costs.decisions)


def small_evolution(*arguments, **options):
    return Evolution(*arguments, settings=EvolutionSettings(population=6, parents=2), **options)


BRED = ("mutation", "crossover")


@pytest.mark.parametrize("searcher", [RandomSearch, small_evolution])
def test_cohorts_share_trials(trained_path, searcher):
    run = make(trained_path, searcher, search=with_search(cohort=4))
    run.search()
    run.close()
    last = check_log(run, ended=10)
    assert 3 <= len({row["trial"] for row in last.values()}) < 10
    assert {row["status"] for row in last.values()} == {"stopped", "complete"}
    origins = {row["origin"] for row in last.values()}
    assert {"random"} == origins if searcher is RandomSearch else {"random"} < origins <= {"random", *BRED}
    assert all(set(row["parents"].split()) <= set(last) for row in last.values() if row["origin"] in BRED)
    wires = json.loads((run.folder / "graphs.json").read_text())
    best = json.loads((run.folder / "leaderboard.json").read_text())[0]
    chain = [[place, place + 1, None if o == "skip" else o] for place, o in enumerate(best["architecture"].values())]
    assert wires["architectures"][best["key"]] == chain and wires["edges"] == [[0, 1], [1, 2], [2, 3]]


def test_a_time_budget_ends_the_search_and_the_rest_is_scored_later(trained_path):
    hold = trained_path / "hold"
    slow, given = with_search(num_samples=27, scheduler="none"), {"limits": {"parameters": 1e9}, "hold": str(hold)}
    spent = training_seconds(trained_path / "run" / "supernet" / "training.jsonl")[0]
    hold.touch()  # an architecture takes seconds
    run = make(trained_path, search=slow, time_budget=spent + 25, **given)
    run.search()
    run.close()
    early = {row["key"] for row in log(run) if row["status"] == "complete"}
    assert 0 < len(early) < 27, "the budget ended nothing"
    # What it took counts: the same budget again is spent, and nothing is scored.
    again = make(trained_path, search=slow, time_budget=spent + 1, **given)
    again.search()
    again.close()
    assert {row["key"] for row in log(run) if row["status"] == "complete"} == early
    assert run.affordable(["retrain", "export"]) == ["export"], "there is no time to retrain"
    hold.unlink()
    more = dataclasses.replace(slow, num_samples=min(len(early) + 4, 27))
    longer = make(trained_path, search=more, **given)
    longer.search()
    longer.close()
    rows = log(longer)
    assert {row["key"]: row["status"] for row in rows} == dict.fromkeys({row["key"] for row in rows}, "complete")
    assert len({row["key"] for row in rows}) == more.num_samples
    reports = Counter((row["key"], row["fidelity"]) for row in rows)
    assert set(reports.values()) == {1}


def test_what_was_in_flight_goes_on_where_it_was(trained_path):
    run = make(trained_path, search=with_search(num_samples=4))
    run.search()
    run.close()
    # Cut the log as a kill would: the last architecture has only its first slice.
    folder = run.folder / "scored.parquet"
    rows = log(run)
    victim = next(row["key"] for row in rows if row["status"] == "complete")
    kept = [row for row in rows if row["key"] != victim or row["fidelity"] == 1]
    for part in folder.iterdir():
        part.unlink()
    with results.Log(folder) as again:
        for row in kept:
            again.append({k: v for k, v in row.items() if v is not None and k not in ("architecture", "metrics")} | {
                "architecture": json.loads(row["architecture"]), "metrics": json.loads(row["metrics"])})  # fmt: skip
    resumed = make(trained_path, search=with_search(num_samples=4, scheduler="none"))
    resumed.search()
    resumed.close()
    last = check_log(resumed, ended=4)
    whole = next(row for row in rows if row["key"] == victim and row["status"] == "complete")
    assert (last[victim]["score"], last[victim]["fidelity"]) == (whole["score"], 4)


def test_training_each_architecture_from_scratch(tmp_path):
    search = with_search(num_samples=4, epochs=3, max_concurrent=1)
    run = make(tmp_path, trainable=FromScratch, search=search)
    best = run.search()
    last = check_log(run, ended=4)
    assert all(row["max_fidelity"] == 3 for row in last.values())
    assert not (run.folder / "supernet").exists() and not (run.folder / "in-flight").exists()
    assert best[0]["final_score"] == max(row["score"] for row in last.values() if row["status"] == "complete")
    run.close()


@pytest.mark.parametrize("settings", [{}, {"scheduler": "none", "max_concurrent": 2}])
def test_a_plain_trainable_some_of_whose_trials_fail(tmp_path, settings):
    run = make(tmp_path, trainable=Counting, search=with_search(num_samples=5, slices=2, **settings), limits={})
    best = run.search()
    rows = {row["key"]: row for row in log(run)}
    assert len(rows) == 5 and max(row["fidelity"] for row in rows.values()) == 2
    failed = [row for row in rows.values() if row["status"] == "error"]
    assert failed and all("cannot be scored" in row["error"] for row in failed)
    assert all(json.loads(row["architecture"])["blocks.0"] == "skip" for row in failed)
    assert best[0]["score"] == max(row["score"] for row in rows.values() if row["score"] is not None)
    for row in rows.values():
        skips = list(json.loads(row["architecture"]).values()).count("skip")
        assert row["status"] == "error" or json.loads(row["metrics"]) == {"skips": skips}


def test_a_search_in_which_everything_fails_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr("raynas.tune.callback.GIVE_UP", 4)
    run = make(tmp_path, trainable=Broken, search=with_search(num_samples=18), limits={})
    with pytest.raises(RuntimeError, match=r"the last 4 trials failed.*nothing can be scored here"):
        run.search()
    assert len(log(run)) < 12 and {row["status"] for row in log(run)} == {"error"}


def test_a_plain_trainable_takes_no_cohorts(tmp_path):
    with pytest.raises(ConfigError, match=r"search\.cohort = 4 needs a raynas\.tune\.trial\.BatchTrial"):
        make(tmp_path, trainable=Counting, search=with_search(cohort=4))


def test_limits_that_nothing_keeps_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(InfeasibleError, match=r"parameters.*at least.*in the median.*at most"):
        make(tmp_path, limits={"parameters": 10})
    assert not any(tmp_path.iterdir())


def test_a_space_that_does_not_fit_the_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"does not run on images of shape \[1, 8, 8\]"):
        Run(
            dataclasses.replace(CONFIG, storage_path=str(tmp_path)),
            tiny.space(in_channels=3),
            tiny.data(),
            RandomSearch,
            SharedWeights,
        )


def test_a_space_that_tells_too_few_classes_apart_is_refused(tmp_path):
    config = dataclasses.replace(CONFIG, storage_path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"3 classes apart.* labels are of 4: set space_args\.num_classes=4"):
        Run(config, tiny.space(num_classes=3), tiny.data(), RandomSearch, SharedWeights)


def test_retrain_looks_at_the_test_images_once_and_export_takes_its_weights(tmp_path, monkeypatch):
    run = make(tmp_path)
    architecture = {"blocks.0": "k3", "blocks.1": "k1", "blocks.2": "skip"}
    first = run.retrain(architecture)
    assert 0 <= first["test_accuracy"] <= 100 and first["epochs"] == 2
    with monkeypatch.context() as patch:
        patch.setattr("raynas.training.retrain.TorchTrainer", None)  # a second training would fail
        assert run.retrain(architecture) == first
    network = run.network(architecture)
    result = run.export(architecture)
    assert {p.name for p in (run.folder / "export").glob("*/*")} >= {"model.py", "model.safetensors", "model.pt2"}
    assert result is not None
    written = next((run.folder / "export").glob("*/model.py"))
    spec = importlib.util.spec_from_file_location("written", written)
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    test = tiny.data().test
    right = (model.load()(model.preprocess(test.inputs)).argmax(1) == test.targets).float().mean()
    assert 100 * float(right) == pytest.approx(first["test_accuracy"]), "on raw pixels, as the report says"
    for name, value in checkpoint.latest(next((run.folder / "retrain").iterdir()))[1].items():
        if name.startswith("model/"):
            assert torch.equal(network.state_dict()[name[len("model/") :]], value)

    with pytest.raises(ConfigError, match=r"with retrain\.space_args the decisions of the space are others"):
        run.retrain_in(torch.nn.Sequential(Choice(k1=torch.nn.Identity(), k3=torch.nn.Identity())))
    run.retrain_in(tiny.space(num_classes=4, width=12))
    run.retrain(architecture)  # not what the smaller one reached
    assert len(list((run.folder / "retrain").iterdir())) == 2
    assert run.network(architecture).stem.weight.shape[0] == 12


def test_the_log_is_replayed_in_the_order_in_which_scores_became_final(tmp_path):
    """Architectures in flight at the same time end in another order than they began."""
    paths = [{"blocks.0": o, "blocks.1": "k1", "blocks.2": "k1"} for o in ("k1", "k3", "skip")]
    with results.Log(tmp_path) as rows:
        reports = [(0, 1, "running"), (1, 1, "running"), (2, 1, "stopped"), (1, 2, "complete"), (0, 2, "complete")]
        for number, fidelity, status in reports:
            rows.append({"architecture": paths[number], "score": number, "fidelity": fidelity, "status": status})
    searcher = RandomSearch(SearchSpace({name: ("k1", "k3", "skip") for name in paths[0]}))
    LoggedHistory(results.read(tmp_path), lambda architecture: True).replay(searcher, None)
    assert [entry.architecture["blocks.0"] for entry in searcher.history.values()] == ["skip", "k3", "k1"]
