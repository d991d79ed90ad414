"""Architecture and training settings in one search: two parts, taken apart in one place."""

import dataclasses
import json
from statistics import mean

import numpy as np
import pytest
from helpers import tiny
from ray import tune
from raynas.trainables.from_scratch import FromScratch
from raynas.trainables.shared_weights import SharedWeights
from raynas.trainables.table import Table

from raynas import Config, Run, prepare, results
from raynas.architecture import enumerate_all, key
from raynas.config.loading import dump, load
from raynas.config.run import SearchConfig
from raynas.config.train import TrainConfig
from raynas.exceptions import ArchitectureError, ConfigError
from raynas.nn.choice import Choice
from raynas.nn.subnet import derive
from raynas.search_space.joint import SETTINGS, joined, network, recipe, settings
from raynas.search_space.space import SearchSpace
from raynas.searchers import (
    TPE,
    Bayes,
    BayesSettings,
    Evolution,
    LocalSearch,
    Predictor,
    RandomSearch,
    RegularizedEvolution,
    Reinforce,
)
from raynas.searchers.models.encoder import Encoder
from raynas.testing.searcher import Player

DOMAINS = {
    "train.lr": tune.loguniform(1e-3, 1),
    "train.cutout": tune.choice([0, 2]),
    "train.schedule": tune.choice(["cosine", "linear"]),
}
BOTH = {"blocks.0": "k3", "blocks.1": "skip", "train.lr": "0.025", "train.cutout": "2", "train.schedule": "linear"}


def test_an_architecture_has_two_parts():
    assert network(BOTH) == {"blocks.0": "k3", "blocks.1": "skip"}
    assert settings(BOTH) == {"lr": 0.025, "cutout": 2, "schedule": "linear"}
    given = TrainConfig(lr=7, momentum=0.5)
    assert recipe(given, BOTH) == TrainConfig(lr=0.025, cutout=2, schedule="linear", momentum=0.5)
    assert recipe(given, network(BOTH)) == given and settings({"train.clip": "null"}) == {"clip": None}


def test_settings_are_those_of_training_and_modules_cannot_have_their_names():
    assert set(SETTINGS) <= {field.name for field in dataclasses.fields(TrainConfig)}
    with pytest.raises(KeyError, match="train"):
        tiny.space().add_module("train", Choice(a=tiny.space().stem))


def test_domains_of_tune_data_and_command_line_are_the_same_settings(tmp_path):
    config = Config(search=SearchConfig(joint=DOMAINS))
    (tmp_path / "run.yaml").write_text(dump(config))
    assert load(tmp_path / "run.yaml") == config
    words = ["search.joint={train.lr: {loguniform: [1e-3, 1]}, train.cutout: {choice: [0, 2]}}",
             "search.joint.train.schedule={choice: [cosine, linear]}"]  # fmt: skip
    assert load(None, words) == config


NETWORKS = SearchSpace(
    {"a": ("x", "y"), "b": ("x", "y", "z")},
    canonical=lambda a: {**a, "b": "x"} if a["a"] == "y" else a,
    violation=lambda a: float(list(a.values()) == ["x", "z"]),
    graph=lambda a: [(i, i + 1, o) for i, o in enumerate(a.values())],
)


def test_without_settings_nothing_changes():
    for trainable in (FromScratch, SharedWeights, Table):
        assert joined(NETWORKS, SearchConfig(), trainable.traits.searches_hyperparameters) is NETWORKS


def test_what_the_space_knows_of_its_networks_is_asked_about_networks():
    space = joined(NETWORKS, SearchConfig(joint=DOMAINS))
    assert space.ordered == {"train.lr", "train.cutout"} and len(space.decisions["train.lr"]) == 16
    own = {"train.lr": "0.1", "train.cutout": "0", "train.schedule": "cosine"}
    assert space.form({"a": "y", "b": "z", **own}) == {"a": "y", "b": "x", **own}
    assert space.violation({"a": "x", "b": "z", **own}) == 1 and space.violation({"a": "x", "b": "y", **own}) == 0
    assert space.graph({"a": "x", "b": "y", **own}) == [(0, 1, "x"), (1, 2, "y")]
    with pytest.raises(ArchitectureError, match=r"'train.lr' has no option '0.3'; legal ones: '0.001', '0.0016'"):
        space.form({"a": "x", "b": "x", **own, "train.lr": "0.3"})


@pytest.mark.parametrize(
    "searcher", [RandomSearch, Evolution, TPE, Bayes, RegularizedEvolution, LocalSearch, Reinforce, Predictor]
)
def test_every_searcher_tries_everything_once(searcher):
    few = {"train.lr": tune.choice([0.1, 0.01, 0.001]), "train.nesterov": tune.choice([True, False])}
    space = joined(NETWORKS, SearchConfig(joint=few))
    legal = {key(form) for form in map(space.form, enumerate_all(space.decisions)) if not space.violation(form)}
    found = Player(lambda a: settings(a)["lr"] - settings(a)["nesterov"]).play(searcher(space, seed=1), 100)
    assert len(found) == len(legal) == 18 and set(map(key, found)) == legal


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({"train.epochs": {"randint": [1, 9]}}, "'train.epochs' cannot be searched; legal ones: train.augment, "),
        ({"lr": {"uniform": [0, 1]}}, "'lr' cannot be searched; legal ones: .*train.lr"),
        ({"train.lr": {"normal": [0, 1]}}, "train.lr: {'normal'.*legal ones: choice, uniform"),
        ({"train.lr": tune.randn(0, 1)}, "train.lr: .* is no domain"),
        ({"train.lr": 0.1}, "train.lr: 0.1 is no domain"),
        ({"train.lr": {"loguniform": [0, 1]}}, "train.lr: loguniform cannot be made of"),
        ({"train.lr": {"uniform": [0, 1]}}, "train.lr = 0.0: input should be greater than 0"),
        ({"train.cutout": {"choice": [0, 2.5]}}, "train.cutout = 2.5: input should be a valid integer"),
        (
            {"train.schedule": {"choice": ["cosine", "sine"]}},
            "train.schedule = 'sine': .*'cosine', 'step' or",
        ),
        ({"train.lr": {"choice": [[0.1]]}}, r"train.lr = \[0.1\]: "),
        ({"train.lr": {"choice": [0.1, 0.1]}}, "distinct options"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(domains, message, tmp_path, no_ray):
    config = Config(search=SearchConfig(trainable="trainables.from_scratch:FromScratch", joint=domains))
    with pytest.raises(ValueError, match=message) as error:
        prepare(dataclasses.replace(config, space="helpers.tiny:space", storage_path=str(tmp_path)))
    assert "\n" not in str(error.value) and not any(tmp_path.iterdir())


def test_trainables_that_train_nothing_by_themselves_refuse(no_ray):
    with pytest.raises(ConfigError, match="SharedWeights does not train each architecture by itself; legal ones: "):
        prepare(Config(space="helpers.tiny:space", search=SearchConfig(joint=DOMAINS)), data=tiny.data())
    with pytest.raises(ConfigError, match="Table does not train each"):
        joined(NETWORKS, SearchConfig(trainable="Table", joint=DOMAINS), Table.traits.searches_hyperparameters)
    with pytest.raises(ConfigError, match=r"a decision 'train.lr': rename it"):
        joined(SearchSpace({"train.lr": ("1", "2")}), SearchConfig(joint=DOMAINS))


def test_levels_lie_on_a_half_circle_and_other_decisions_as_before():
    levels = tuple(map(str, range(6)))
    plain = SearchSpace({"a": ("x", "y"), "train.lr": levels, "b": ("x", "y", "z")})
    both = [{"a": "x", "train.lr": level, "b": "z"} for level in levels]
    before = Encoder(plain)(both).options
    after = Encoder(dataclasses.replace(plain, ordered=frozenset({"train.lr"})))(both).options
    block = Encoder(plain).blocks[1]
    assert np.array_equal(np.delete(before, block, 1), np.delete(after, block, 1))
    alike = after[:, block] @ after[:, block].T
    expected = [[np.cos(np.pi * (i - j) / 5) for i in range(6)] for j in range(6)]
    assert np.allclose(alike, expected, atol=1e-6) and np.array_equal(before[:, block], np.eye(6, 7))


def ridge(architecture):
    """Two numbers that depend on each other and on the network: a narrow ridge, steep where the rate is too high."""
    rate, decay = (int(architecture[f"train.{name}"]) for name in ("lr", "weight_decay"))
    blocks = [("k3", "k5", "skip").index(architecture[f"blocks.{i}"]) for i in range(4)]
    away = rate - 6 - blocks[0] / 2
    value = 0.7 * blocks[0] - abs(blocks[1] - 1) + 0.4 * blocks[2] * blocks[3]
    return value - (0.05 if away < 0 else 0.15) * away**2 - 0.03 * (away + decay - 9) ** 2


@pytest.mark.slow
def test_bayes_knows_that_neighbouring_levels_are_alike():
    levels = tuple(map(str, range(16)))
    decisions = {f"blocks.{i}": ("k3", "k5", "skip") for i in range(4)}
    decisions |= {"train.lr": levels, "train.weight_decay": levels}
    top = max(map(ridge, enumerate_all(decisions)))

    def regret(ordered):
        space, few = SearchSpace(decisions, ordered=ordered), BayesSettings(candidates=200, enumerate_up_to=100)
        searchers = [Bayes(space, settings=few, seed=seed) for seed in range(3)]
        return mean(top - max(map(ridge, Player(ridge).play(searcher, 30))) for searcher in searchers)

    assert 2 * regret(frozenset({"train.lr", "train.weight_decay"})) < regret(frozenset())


class Own(tune.Trainable):
    """As a user of Tune writes it."""

    def setup(self, config, factor):
        self.factor = factor
        self.reset_config(config)

    def reset_config(self, new_config):
        derive(tiny.space(), new_config["architecture"])  # nothing but the network's part
        assert new_config == self.config
        self.lr, self.schedule = new_config["train.lr"], new_config["train.schedule"]
        return True

    def step(self):
        return {"score": self.factor * self.lr + (self.schedule == "linear")}


@pytest.mark.usefixtures("ray_session")
def test_a_trainable_of_a_user_gets_the_settings_as_tune_has_them(tmp_path):
    search = SearchConfig(joint=DOMAINS, num_samples=5, slices=1, trainable_args={"factor": 10})
    config = Config(search=search, storage_path=str(tmp_path), name="own")
    run = Run(config, tiny.space(4), tiny.data(), RandomSearch, Own)
    best = run.search()
    rows = results.read(run.folder / "scored.parquet").to_pylist()
    assert len(rows) == 5
    for row in rows:
        found = settings(json.loads(row["architecture"]))
        assert row["score"] == pytest.approx(10 * found["lr"] + (found["schedule"] == "linear"))
    assert best[0]["score"] == max(row["score"] for row in rows)


@pytest.mark.usefixtures("ray_session")
def test_search_and_retraining_use_the_settings_that_were_found(tmp_path, capsys):
    domains = {"train.lr": tune.choice([0.1, 1e6]), "train.batch_size": tune.qrandint(16, 48, 16)}
    config = Config(
        space="helpers.tiny:space",
        data={"limit": 600},
        limits={"parameters": 1500},
        train=TrainConfig(epochs=3, workers=1, cpus_per_worker=1, lr=5),
        search=SearchConfig(
            trainable="trainables.from_scratch:FromScratch", joint=domains, num_samples=6, epochs=3, max_concurrent=1
        ),
        storage_path=str(tmp_path),
        name="both",
    )
    run = prepare(config)
    best = run.search()
    rows = results.read(run.folder / "scored.parquet").to_pylist()
    last = {row["key"]: row for row in rows}
    assert len(last) == 6 and all(row["parameters"] <= 1500 and row["score"] is not None for row in rows)
    for row in rows:
        both = json.loads(row["architecture"])
        assert set(both) == {"blocks.0", "blocks.1", "blocks.2", *domains} and row["key"] == key(both)
        assert (row["macs"], row["parameters"]) == tuple(run.costs(network(both)).values())
        # A rate at which the loss becomes infinite is an answer: the trial is over and the searcher knows its score.
        assert settings(both)["lr"] < 1 or (row["status"], row["fidelity"]) == ("stopped", 1)
    assert {settings(json.loads(row["architecture"]))["lr"] for row in rows} == {0.1, 1e6}
    chosen = best[0]["architecture"]
    assert settings(chosen)["lr"] == 0.1
    run.retrain()
    kept = json.loads((run.folder / "retrain" / key(chosen) / "recipe.json").read_text())
    assert {name: kept[name] for name in ("lr", "batch_size", "epochs")} == {**settings(chosen), "epochs": 3}
    run.export(formats=["safetensors"])
    assert json.loads((run.folder / "export" / key(chosen) / "architecture.json").read_text()) == chosen
    page, said = run.report().read_text(), capsys.readouterr().out
    assert "lr <b>0.1</b>" in page and "settings of the winner: lr 0.1, batch_size" in said
    assert f"3 epochs, lr 0.1, batch_size {kept['batch_size']}" in said
    # What is in the log is not scored again; other domains do not go with it.
    assert prepare(config).search() == best
    assert len(results.read(run.folder / "scored.parquet")) == len(rows)
    wider = dataclasses.replace(config.search, joint={**domains, "train.lr": tune.choice([0.1, 0.2])})
    with pytest.raises(ConfigError, match=r"search\.joint differ from the settings under which"):
        prepare(dataclasses.replace(config, search=wider)).search()
