"""A pool whose worst are replaced while the supernet trains its paths."""

import dataclasses
import functools
import json
from collections import Counter
from random import Random

import pytest
import torch
from helpers import tiny
from helpers.interrupted import train_in_two_parts
from raynas.trainables.from_scratch import FromScratch
from raynas.trainables.shared_weights import SharedWeights
from raynas.trainables.zero_cost import ZeroCost

from raynas import architecture as arch
from raynas import results
from raynas.config.run import Config, SearchConfig
from raynas.config.train import PoolConfig, ShrinkConfig, TrainConfig
from raynas.exceptions import ConfigError
from raynas.nn.choice import decisions
from raynas.runs.run import Run
from raynas.search_space.space import SearchSpace
from raynas.searchers import Bayes, Evolution, RandomSearch
from raynas.searchers.nao.diagnostics import summary
from raynas.searchers.nao.searcher import NAO
from raynas.searchers.nao.settings import NAOSettings
from raynas.supernet.worker import SupernetWorker
from raynas.training import checkpoint
from raynas.training.pool import Pool, PoolPaths

DECISIONS = {f"layer{i}": ("a", "b", "c", "d") for i in range(5)}
POOL = PoolConfig(size=16, every=1, renew=0.5)


class Scripted:
    """A training in which an architecture scores how many of its layers are b."""

    def __init__(self, sign=1):
        self.sign, self.asked = sign, 0

    def scores(self, architectures):
        self.asked += len(architectures)
        return [self.sign * float(list(a.values()).count("b")) for a in architectures]


def make(searcher=Bayes, settings=POOL, **options):
    make_searcher = functools.partial(searcher, SearchSpace(DECISIONS))
    return Pool(make_searcher, lambda architecture: 1.0, settings, **{"seed": 0, **options})


def test_paths_are_drawn_in_proportion_to_their_weights():
    members = [dict.fromkeys(DECISIONS, option) for option in "abc"]
    paths = PoolPaths(members, [1.0, 2.0, 5.0], seed=3)
    counts = Counter(next(iter(paths(step)[0].values())) for step in range(4000))
    assert [counts[option] / 4000 for option in "abc"] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)
    assert paths(7) == PoolPaths(members, [1.0, 2.0, 5.0], seed=3)(7)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_worst_are_replaced_by_what_the_searcher_proposes(mode):
    training = Scripted(1 if mode == "max" else -1)
    pool = make(mode=mode)
    before = pool.members
    scores = dict(zip(map(arch.key, before), training.scores(before), strict=True))
    pool.round(training, 8)
    kept, new = pool.members[:8], pool.members[8:]
    cut = sorted((abs(score) for score in scores.values()), reverse=True)[7]
    assert all(abs(scores[arch.key(member)]) >= cut for member in kept)
    assert new == pool.rounds[0]["new"] and not set(map(arch.key, new)) & set(scores)
    assert len(set(map(arch.key, pool.members))) == 16
    while len(pool.rounds) < 5:
        pool.round(training, 8 * len(pool.rounds))
    means = [abs(line["mean"]) for line in pool.rounds]
    assert means[-1] > means[0] + 1.5 and abs(pool.rounds[-1]["best"]) == 5
    chance = make(RandomSearch, mode=mode)
    while len(chance.rounds) < 5:
        chance.round(training, 8)
    newcomers = [abs(each.rounds[1]["mean of the last round's"]) for each in (pool, chance)]
    assert newcomers[0] > newcomers[1]


@pytest.mark.slow
def test_rounds_go_on_from_their_state_and_end():
    whole, training = make(settings=dataclasses.replace(POOL, rounds=3, every=0.5)), Scripted()
    steps = []
    while (step := whole.next_round(10)) < 1000:
        steps.append(step)
        whole.round(training, step)
        if len(steps) == 1:
            state = json.loads(json.dumps(whole.state()))
    assert steps == [5, 10, 15]
    again = make(settings=whole.settings)
    again.load_state(state)
    for step in steps[1:]:
        again.round(training, step)
    assert again.state() == whole.state() and again.paths().members == whole.paths().members


def test_what_was_generated_gets_its_score_in_the_next_round():
    settings = NAOSettings(startup=12, seeds=4, steps=20)
    pool, training = make(functools.partial(NAO, settings=settings)), Scripted()
    pool.round(training, 8)
    assert pool.rounds[0]["learned"]["scores"] == 16
    assert all(each["score"] is None for each in pool.rounds[0]["learned"]["generated"])
    pool.round(training, 16)
    known = {each["key"]: each["score"] for each in pool.rounds[0]["learned"]["generated"]}
    new = pool.rounds[0]["new"]
    true = dict(zip(map(arch.key, new), training.scores(new), strict=True))
    assert true and true.items() <= known.items()
    assert all(score is None for name, score in known.items() if name not in true)


@pytest.mark.slow
def test_a_round_is_not_won_by_weights_that_got_better():
    class Improving(Scripted):
        """Scores by chance, and better from round to round."""

        def scores(self, architectures):
            self.asked += 100
            return [self.asked + Random(f"{self.asked}/{arch.key(a)}").random() for a in architectures]

    settings = NAOSettings(startup=16, seeds=4, steps=20)
    gains = []
    for seed in range(6):
        pool, training = make(functools.partial(NAO, settings=settings), seed=seed), Improving()
        for step in range(3):
            pool.round(training, step)
        gains += [line["gain"] for line in summary([each["learned"] for each in pool.rounds[:2]])]
    assert all(abs(gain) < 1 for gain in gains) and min(gains) < 0 < max(gains)
    assert all(each["learned"]["scores"] == 16 for each in pool.rounds), "all of the pool is learned"


def test_failures_and_a_nearly_exhausted_space_leave_the_pool_whole():
    class Broken(Scripted):
        def scores(self, architectures):
            return [float("nan") if "a" in list(a.values()) else 1.0 for a in architectures]

    space = {"only": ("a", "b", "c")}
    pool = Pool(functools.partial(RandomSearch, SearchSpace(space)), len, PoolConfig(size=2, renew=0.9), seed=0)
    pool.round(Broken(), 1)
    assert len(pool.members) == 2 and len(pool.rounds[0]["new"]) == 1
    with pytest.raises(ConfigError, match=r"train\.pool\.size = 9, but only 3 architectures"):
        Pool(functools.partial(RandomSearch, SearchSpace(space)), len, PoolConfig(size=9), seed=0)


def test_a_pool_that_its_searcher_could_not_learn_from_is_refused():
    with pytest.raises(ConfigError, match=r"size = 16, but the searcher would begin with 50 random"):
        make(Evolution)


# With a network.

CONFIG = Config(
    train=TrainConfig(
        epochs=4,
        batch_size=32,
        workers=1,
        cpus_per_worker=1,
        checkpoint_seconds=1000,
        paths="proportional",
        pool=PoolConfig(size=6, every=1, renew=0.34),
    ),
    search=SearchConfig(num_samples=12, slices=2, bn_images=64, top=2, scheduler="none", max_concurrent=2),
    name="run",
)


def prepare(folder, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, storage_path=str(folder), **changes)
    searcher = functools.partial(NAO, settings=NAOSettings(startup=4, retrain=2, steps=20, seconds=None))
    return Run(config, tiny.space(num_classes=4), tiny.data(), searcher, SharedWeights)


def test_scoring_between_steps_leaves_the_training_as_it_was():
    torch.manual_seed(0)
    first = tiny.space(num_classes=4)
    paths = PoolPaths([dict.fromkeys(decisions(first), option) for option in ("k1", "k3")], [1.0, 1.0])
    weights = []
    for looks in (False, True):
        torch.manual_seed(0)
        host = SupernetWorker(tiny.space(num_classes=4), tiny.data(), CONFIG, "host")
        host.join(paths, 0, 1, "")
        scores = []
        for step in (3, 6, 9):
            host.train(step, 9)
            if looks:
                scores.append(host.rescore(paths.members))
        weights.append(host.save().tensors())
        assert not looks or len({tuple(each) for each in scores}) > 1, "the weights of now are scored"
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.usefixtures("ray_session")
def test_an_interrupted_training_renews_the_same_and_the_search_begins_with_the_pool(tmp_path):
    whole = prepare(tmp_path / "whole")
    whole.search()
    step, _, values = checkpoint.latest(whole.folder / "supernet")
    assert step == 32 and [line["step"] for line in values["rounds"]["rounds"]] == [8, 16, 24]
    assert json.loads((whole.folder / "supernet" / "rounds.json").read_text()) == values["rounds"]
    rows = results.read(whole.folder / "scored.parquet").to_pylist()
    assert {arch.key(member) for member in whole.context.supernet.pool.members} < {row["key"] for row in rows}
    assert len({row["key"] for row in rows}) == 12
    journal = json.loads((whole.folder / "searcher.json").read_text())
    assert journal[0]["scores"] == 4 and all(row["fidelity"] == 2 for row in journal)
    scores = {row["key"]: row["score"] for row in rows if row["origin"] == "model" and row["status"] == "complete"}
    assert scores and {g["key"]: g["score"] for row in journal for g in row["generated"]} == scores
    page = whole.report().read_text(encoding="utf-8")
    assert "In the training of the supernet" in page and "In the search" in page
    whole.close()

    again = train_in_two_parts(lambda: prepare(tmp_path / "broken"), 12, whole)
    again.close()

    sizes = sorted(again.costs(member)["parameters"] for member in again.context.supernet.pool.members)
    tighter = prepare(tmp_path / "broken", limits={"parameters": sizes[3]})
    tighter.search()
    tighter.close()
    rows = results.read(tighter.folder / "scored.parquet").to_pylist()
    kept = {arch.key(m) for m in tighter.context.supernet.pool.members if tighter.costs(m)["parameters"] <= sizes[3]}
    assert kept <= {row["key"] for row in rows} and all(row["parameters"] <= sizes[3] for row in rows)


def test_settings_that_contradict_each_other_are_refused(tmp_path):
    train = CONFIG.train
    for changed, message in (
        (dataclasses.replace(train, pool=PoolConfig(size=6, every=9)), r"after 9 epochs, but train\.epochs is 4"),
        (dataclasses.replace(train, paths="fair"), r"train\.paths = fair is of a whole space"),
        (dataclasses.replace(train, shrink=ShrinkConfig(every=1, until=2)), r"train\.shrink and train\.pool exclude"),
        (dataclasses.replace(train, pool=PoolConfig(size=28, every=1)), "only 27 architectures"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(tmp_path, train=changed)


@pytest.mark.parametrize("trainable", [FromScratch, ZeroCost])
def test_what_trains_no_supernet_refuses_to_change_its_paths(tmp_path, trainable):
    shrinking = dataclasses.replace(
        CONFIG.train, paths="auto", pool=PoolConfig(), shrink=ShrinkConfig(every=1, until=2)
    )
    for train, setting in ((CONFIG.train, r"train\.pool\.size = 6"), (shrinking, r"train\.shrink\.every = 1")):
        config = dataclasses.replace(CONFIG, storage_path=str(tmp_path), train=train)
        with pytest.raises(ConfigError, match=f"{setting} is of a supernet, and {trainable.__name__} trains none"):
            Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, trainable)
